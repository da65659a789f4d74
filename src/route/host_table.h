// Host name -> root of its path tree: an open hash table, 16 bytes a slot, names in one block. Part
// of Tables; filled by the build, read-only afterwards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace weir::route {

inline constexpr uint32_t kNoRoot = UINT32_MAX;

class HostTable {
 public:
  // To be called once, before any insert; `hosts` is how many will come.
  void reserve(size_t hosts, size_t name_bytes);
  void insert(std::string_view name, uint32_t root);  // the name must be new

  [[nodiscard]] uint32_t find(std::string_view name) const noexcept;  // kNoRoot when unknown
  [[nodiscard]] bool empty() const noexcept { return slots_.empty(); }
  [[nodiscard]] size_t bytes() const noexcept {
    return slots_.capacity() * sizeof(Slot) + names_.capacity();
  }

 private:
  struct Slot {
    uint32_t tag = 0;  // high half of the hash; the low half chose the slot
    uint32_t root = kNoRoot;
    uint32_t name_offset = 0;
    uint32_t name_length = 0;
  };
  static_assert(sizeof(Slot) == 16);

  std::vector<Slot> slots_;  // a power of two, at most 4/5 full
  std::vector<char> names_;
  size_t mask_ = 0;
};

}  // namespace weir::route
