#include "host_table.h"

#include <bit>
#include <cstring>

#include <weir/base/check.h>
#include <weir/base/hash.h>

namespace weir::route {

void HostTable::reserve(size_t hosts, size_t name_bytes) {
  if (hosts == 0) return;
  WEIR_CHECK(slots_.empty());
  WEIR_CHECK(name_bytes < UINT32_MAX);
  // hosts * 5/4 + 1 keeps at least one slot free, which is what ends an unsuccessful search.
  slots_.resize(std::bit_ceil(hosts + hosts / 4 + 1));
  mask_ = slots_.size() - 1;
  names_.reserve(name_bytes);
}

void HostTable::insert(std::string_view name, uint32_t root) {
  const uint64_t hash = base::hash_bytes(name);
  size_t at = hash & mask_;
  while (slots_[at].root != kNoRoot) at = (at + 1) & mask_;
  slots_[at] = {.tag = static_cast<uint32_t>(hash >> 32),
                .root = root,
                .name_offset = static_cast<uint32_t>(names_.size()),
                .name_length = static_cast<uint32_t>(name.size())};
  names_.insert(names_.end(), name.begin(), name.end());
}

uint32_t HostTable::find(std::string_view name) const noexcept {
  if (slots_.empty()) return kNoRoot;
  const uint64_t hash = base::hash_bytes(name);
  const auto tag = static_cast<uint32_t>(hash >> 32);
  for (size_t at = hash & mask_;; at = (at + 1) & mask_) {
    const Slot& slot = slots_[at];
    if (slot.root == kNoRoot) return kNoRoot;
    if (slot.tag == tag && slot.name_length == name.size() &&
        std::memcmp(names_.data() + slot.name_offset, name.data(), name.size()) == 0) {
      return slot.root;
    }
  }
}

}  // namespace weir::route
