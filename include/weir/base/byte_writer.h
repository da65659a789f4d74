// Writes text into a fixed span of bytes that somebody else owns. On overflow nothing more is
// written, a flag is set, and the needed size is still counted, so that the caller can grow once
// and write again. No allocation, no bound checks at the call sites. One thread, a local of a
// function.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace weir::base {

class ByteWriter {
 public:
  ByteWriter(char* begin, size_t capacity) noexcept : begin_(begin), capacity_(capacity) {}

  void append(std::string_view text) noexcept {
    if (text.size() <= capacity_ - used_) [[likely]] {
      if (!text.empty()) std::memcpy(begin_ + used_, text.data(), text.size());
      used_ += text.size();
    } else {
      spill(text.size());
    }
  }
  void append(char c) noexcept {
    if (used_ < capacity_) [[likely]] {
      begin_[used_++] = c;
    } else {
      spill(1);
    }
  }
  void append_decimal(uint64_t value) noexcept { append_number(value, 10); }
  void append_hex(uint64_t value) noexcept { append_number(value, 16); }  // lower case

  // Space for `size` bytes that the caller fills itself, all of them; null when it does not fit
  // (which counts as overflow).
  char* reserve(size_t size) noexcept {
    if (size > capacity_ - used_) {
      spill(size);
      return nullptr;
    }
    char* place = begin_ + used_;
    used_ += size;
    return place;
  }

  [[nodiscard]] bool overflowed() const noexcept { return missing_ != 0; }
  // Bytes written; equals needed() unless overflowed.
  [[nodiscard]] size_t size() const noexcept { return used_; }
  // Bytes that all appends together asked for.
  [[nodiscard]] size_t needed() const noexcept { return used_ + missing_; }
  [[nodiscard]] std::string_view view() const noexcept { return {begin_, used_}; }

 private:
  void append_number(uint64_t value, int base) noexcept {
    char digits[20];
    const auto result = std::to_chars(digits, digits + sizeof digits, value, base);
    append(std::string_view(digits, static_cast<size_t>(result.ptr - digits)));
  }
  // The room left is given up, so that a later, shorter append cannot land behind a gap.
  void spill(size_t size) noexcept {
    missing_ += size;
    capacity_ = used_;
  }

  char* begin_;
  size_t capacity_;
  size_t used_ = 0;
  size_t missing_ = 0;
};

}  // namespace weir::base
