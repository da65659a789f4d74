// Writes text into memory that the caller made large enough; private to the log room. Every text_*
// function takes bytes that a peer may have chosen and writes at most kGrowthMax bytes for each.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#include <weir/base/ip.h>

namespace weir::log {

class Pen {
 public:
  static constexpr size_t kGrowthMax = 6;        // \u00XX
  static constexpr size_t kNumberBytesMax = 20;  // 2^64 - 1
  static constexpr size_t kIpBytesMax = 45;

  explicit Pen(char* at) noexcept : at_(at) {}
  [[nodiscard]] char* at() const noexcept { return at_; }

  void put(char c) noexcept { *at_++ = c; }
  // Text of ours: written as it is.
  void put(std::string_view text) noexcept {
    if (!text.empty()) std::memcpy(at_, text.data(), text.size());
    at_ += text.size();
  }
  void number(uint64_t value) noexcept;
  void two_digits(uint64_t value) noexcept;           // 00..99
  void three_digits(uint64_t value) noexcept;         // 000..999
  void hex16(uint64_t value) noexcept;                // 16 digits
  void milliseconds(uint64_t microseconds) noexcept;  // 12.345
  void ip(const base::IpAddress& address) noexcept;   // RFC 5952

  // The inside of a JSON string. Valid UTF-8 stays, except for characters that move the cursor,
  // break lines or reorder text (C1 controls, U+2028..U+202E, U+2066..U+2069): \uXXXX. Bytes that
  // are not UTF-8: \u00XX.
  void json_text(std::string_view text) noexcept;
  // As nginx writes its logs: quote, backslash and everything outside printable ASCII is \xXX.
  void clf_text(std::string_view text) noexcept;
  // A value of a text line: bare when it cannot be misread, else in quotes. UTF-8 as in json_text,
  // other bytes \xXX.
  void text_value(std::string_view text) noexcept;
  // A message or component: never quoted, backslash and control bytes escaped.
  void text_message(std::string_view text) noexcept;
  // A key: anything but letters, digits and _ - . becomes an underscore.
  void text_key(std::string_view text) noexcept;

 private:
  enum class Style : uint8_t { kJson, kQuoted, kMessage };

  std::string_view put_plain(std::string_view text) noexcept;
  void escaped(std::string_view text, Style style) noexcept;
  void escape_ascii(uint8_t c, Style style) noexcept;
  void escape_byte(uint8_t c, Style style) noexcept;
  void escape_unit(uint32_t code) noexcept;
  void ip_v6(const base::IpAddress& address) noexcept;

  char* at_;
};

}  // namespace weir::log
