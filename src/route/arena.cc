#include "arena.h"

#include <algorithm>

namespace weir::route {

void* Arena::allocate(size_t size, size_t alignment) {
  void* place = next_;
  if (next_ != nullptr && std::align(alignment, size, place, left_) != nullptr) {
    next_ = static_cast<std::byte*>(place) + size;
    left_ -= size;
    return place;
  }
  // operator new[] aligns to 16, which covers every T stored here.
  const bool own_chunk = size > chunk_bytes_ / 4;
  const size_t chunk = own_chunk ? size : chunk_bytes_;
  chunks_.push_back(std::make_unique_for_overwrite<std::byte[]>(chunk));
  bytes_ += chunk;
  std::byte* start = chunks_.back().get();
  if (own_chunk) return start;
  next_ = start + size;
  left_ = chunk - size;
  chunk_bytes_ = std::min(chunk_bytes_ * 2, kChunkBytesMax);
  return start;
}

}  // namespace weir::route
