// UTF-8 that may have come from anywhere: character by character, and which of them are not what
// they look like on a screen or in a log. Pure functions, for any thread; nothing is allocated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace weir::base {

// A character: its code point and bytes; 0 bytes when malformed (RFC 3629: no overlong forms, no
// surrogates, none above U+10FFFF).
struct Utf8Character {
  uint32_t code = 0;
  size_t bytes = 0;
};

// The first character of a text that is not empty, for one that is not ASCII.
[[nodiscard]] Utf8Character decode_beyond_ascii(std::string_view text) noexcept;

// The first character of `text`; malformed too when the text is empty or ends within it.
[[nodiscard]] inline Utf8Character decode_utf8(std::string_view text) noexcept {
  if (text.empty()) return {};
  const auto first = static_cast<uint8_t>(text.front());
  return first < 0x80 ? Utf8Character{first, 1} : decode_beyond_ascii(text);
}

// Characters that a terminal or a line splitter acts upon: controls (C0, DEL, C1), the separators
// of lines and paragraphs, and the embeddings, overrides and isolates of bidirectional text.
[[nodiscard]] constexpr bool acts_on_text(uint32_t code) noexcept {
  if (code < 0xa0) return code < 0x20 || code >= 0x7f;
  return code >= 0x2028 && code <= 0x2069 && (code <= 0x202e || code >= 0x2066);
}

}  // namespace weir::base
