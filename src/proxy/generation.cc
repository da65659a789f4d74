#include <weir/proxy/generation.h>

#include <algorithm>

#include <weir/base/check.h>

namespace weir::proxy {

GenerationCell::GenerationCell(uint32_t cores) : slots_(cores) {}

void GenerationCell::publish(std::unique_ptr<const Generation> generation) {
  WEIR_CHECK(alive_.empty() || generation->epoch > alive_.back()->epoch);
  const Generation* pointer = generation.get();
  alive_.push_back(std::move(generation));
  newest_.store(pointer, std::memory_order_release);
}

GenerationCell::Holder GenerationCell::oldest() const noexcept {
  Holder holder{.epoch = UINT64_MAX, .core = 0};
  for (uint32_t core = 0; core < slots_.size(); ++core) {
    const uint64_t epoch = slots_[core].oldest.load(std::memory_order_acquire);
    if (epoch < holder.epoch) holder = {.epoch = epoch, .core = core};
  }
  return holder;
}

size_t GenerationCell::reclaim() {
  const uint64_t needed = oldest().epoch;
  // The newest stays in any case: a core that has not looked yet will.
  while (alive_.size() > 1 && alive_.front()->epoch < needed) alive_.erase(alive_.begin());
  return alive_.size();
}

bool GenerationReader::quiesce() {
  const Generation* newest = cell_.newest();
  const bool fresh = entries_.empty() || entries_.back().generation != newest;
  if (fresh) entries_.push_back({.generation = newest, .pins = 0});
  bool dropped = false;
  while (entries_.size() > 1 && entries_.front().pins == 0) {
    entries_.pop_front();
    dropped = true;
  }
  if (fresh || dropped) cell_.set_oldest(core_, entries_.front().generation->epoch);
  return fresh;
}

}  // namespace weir::proxy
