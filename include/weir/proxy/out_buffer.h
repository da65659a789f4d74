// Bytes to be sent: a pool buffer where they fit, heap memory where not. Owned by an exchange.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include <weir/base/byte_writer.h>
#include <weir/runtime/buffer_pool.h>

namespace weir::proxy {

class OutBuffer {
 public:
  // Calls write(ByteWriter&) once, or twice when the first place proves too small.
  template <class Write>
  void fill(runtime::BufferPool& pool, Write&& write) {
    take_place(pool, 0);
    base::ByteWriter first(data_, capacity_);
    write(first);
    size_ = first.size();
    if (!first.overflowed()) return;
    take_place(pool, first.needed());
    base::ByteWriter second(data_, capacity_);
    write(second);
    WEIR_CHECK(!second.overflowed());
    size_ = second.size();
  }

  [[nodiscard]] char* data() const noexcept { return data_; }
  [[nodiscard]] size_t size() const noexcept { return size_; }
  [[nodiscard]] size_t room() const noexcept { return capacity_ - size_; }
  [[nodiscard]] std::string_view view() const noexcept { return {data_, size_}; }
  // At most room() bytes.
  void append(std::string_view bytes) noexcept {
    WEIR_CHECK(bytes.size() <= room());
    if (!bytes.empty()) std::memcpy(data_ + size_, bytes.data(), bytes.size());
    size_ += bytes.size();
  }
  // The next `bytes` were written behind the others; at most room().
  void extend(size_t bytes) noexcept {
    WEIR_CHECK(bytes <= room());
    size_ += bytes;
  }
  void reset() noexcept {
    buffer_.reset();
    heap_.reset();
    data_ = nullptr;
    size_ = capacity_ = 0;
  }

 private:
  void take_place(runtime::BufferPool& pool, size_t bytes) {
    size_ = 0;
    if (bytes <= pool.size()) {
      if (buffer_) return;
      if (auto id = pool.scarce() ? std::nullopt : pool.allocate()) {
        buffer_ = runtime::BufferRef(pool, *id);
        data_ = buffer_.data();
        capacity_ = pool.size();
        return;
      }
      bytes = pool.size();
    }
    buffer_.reset();
    heap_ = std::make_unique_for_overwrite<char[]>(bytes);
    data_ = heap_.get();
    capacity_ = bytes;
  }

  runtime::BufferRef buffer_;
  std::unique_ptr<char[]> heap_;
  char* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

}  // namespace weir::proxy
