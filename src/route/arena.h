// Where a snapshot's text and small arrays live: chunks that never move, freed all at once. Owned
// by Tables; filled on the control thread by the build, read-only afterwards. Holds only trivially
// destructible things, since it runs no destructors.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

namespace weir::route {

class Arena {
 public:
  std::string_view store(std::string_view text) {
    if (text.empty()) return {};
    char* place = static_cast<char*>(allocate(text.size(), 1));
    std::memcpy(place, text.data(), text.size());
    return {place, text.size()};
  }

  template <class T>
    requires std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>
  std::span<const T> store_array(const std::vector<T>& values) {
    if (values.empty()) return {};
    T* place = static_cast<T*>(allocate(values.size() * sizeof(T), alignof(T)));
    std::uninitialized_copy(values.begin(), values.end(), place);
    return {place, values.size()};
  }

  template <class T>
    requires std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>
  const T* store_value(const T& value) {
    return new (allocate(sizeof(T), alignof(T))) T(value);
  }

  [[nodiscard]] size_t bytes() const noexcept { return bytes_; }

 private:
  // Small snapshots should stay small and large ones should not need thousands of chunks.
  static constexpr size_t kChunkBytesMin = 4096;
  static constexpr size_t kChunkBytesMax = 1 << 18;

  void* allocate(size_t size, size_t alignment);

  std::vector<std::unique_ptr<std::byte[]>> chunks_;
  std::byte* next_ = nullptr;
  size_t left_ = 0;
  size_t chunk_bytes_ = kChunkBytesMin;
  size_t bytes_ = 0;
};

}  // namespace weir::route
