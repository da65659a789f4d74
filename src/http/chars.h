// Classes of bytes as the grammars of RFC 9110, 9112 and 3986 define them: one table look-up per
// question. Private to the http room; constants only, any thread.
#pragma once

#include <array>
#include <cstdint>

namespace weir::http::chars {

enum Class : uint8_t {
  kToken = 1,       // RFC 9110 5.6.2 tchar
  kFieldValue = 2,  // HTAB, SP, VCHAR, obs-text
  kTarget = 4,      // visible ASCII without '#'
  kUnreserved = 8,  // RFC 3986 2.3
  kRegName = 16,    // unreserved and sub-delims without the comma
  kHexDigit = 32,
  kQuotedText = 64,  // qdtext of RFC 9110 5.6.4
};

namespace detail {
constexpr bool is_one_of(unsigned c, const char* set) {
  for (; *set != 0; ++set) {
    if (static_cast<unsigned char>(*set) == c) return true;
  }
  return false;
}
constexpr std::array<uint8_t, 256> make_table() {
  std::array<uint8_t, 256> table{};
  for (unsigned c = 0; c < 256; ++c) {
    const bool alpha = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool digit = c >= '0' && c <= '9';
    const bool visible = c > 0x20 && c < 0x7f;
    unsigned bits = 0;
    if (alpha || digit || is_one_of(c, "!#$%&'*+-.^_`|~")) bits |= kToken;
    if (visible || c == ' ' || c == '\t' || c >= 0x80) bits |= kFieldValue;
    if (visible && c != '#') bits |= kTarget;
    if (alpha || digit || is_one_of(c, "-._~")) bits |= kUnreserved;
    if (alpha || digit || is_one_of(c, "-._~!$&'()*+;=")) bits |= kRegName;
    if (digit || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')) bits |= kHexDigit;
    if ((bits & kFieldValue) != 0 && c != '"' && c != '\\') bits |= kQuotedText;
    table[c] = static_cast<uint8_t>(bits);
  }
  return table;
}
}  // namespace detail

inline constexpr std::array<uint8_t, 256> kTable = detail::make_table();

constexpr bool is(char c, Class what) noexcept {
  return (kTable[static_cast<uint8_t>(c)] & what) != 0;
}

// The value of a hex digit that is known to be one.
constexpr unsigned hex_value(char c) noexcept {
  const auto byte = static_cast<uint8_t>(c);
  return (byte & 0x0fU) + (byte >> 6) * 9U;
}

}  // namespace weir::http::chars
