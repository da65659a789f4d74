#include "pen.h"

#include <array>
#include <charconv>

#include <weir/base/utf8.h>

namespace weir::log {

namespace {

constexpr char kHex[] = "0123456789abcdef";
constexpr char kHexUpper[] = "0123456789ABCDEF";

constexpr std::array<char, 200> kPairs = [] {
  std::array<char, 200> pairs{};
  for (size_t i = 0; i < 100; ++i) {
    pairs[2 * i] = static_cast<char>('0' + i / 10);
    pairs[2 * i + 1] = static_cast<char>('0' + i % 10);
  }
  return pairs;
}();

// Plain bytes stand for themselves in every format: printable ASCII but quote and backslash.
constexpr bool plain(uint8_t c) noexcept { return c >= 0x20 && c < 0x7f && c != '"' && c != '\\'; }

constexpr uint64_t kOnes = 0x0101010101010101ULL;
constexpr uint64_t kHighs = 0x8080808080808080ULL;

// Are all eight bytes plain? Exact when there is no byte >= 0x80, and such bytes are not plain.
constexpr bool all_plain(uint64_t word) noexcept {
  const uint64_t below_space = word - kOnes * 0x20;
  const uint64_t is_delete = word + kOnes;  // 0x7f + 1 sets the high bit
  const uint64_t quote = (word ^ (kOnes * '"')) - kOnes;
  const uint64_t backslash = (word ^ (kOnes * '\\')) - kOnes;
  return ((word | below_space | is_delete | quote | backslash) & kHighs) == 0;
}

// Of two to four bytes: fewer than are worth a call of memcpy.
char* copy_character(char* to, std::string_view character) noexcept {
  to[0] = character[0];
  to[1] = character[1];
  if (character.size() > 2) to[2] = character[2];
  if (character.size() > 3) to[3] = character[3];
  return to + character.size();
}

// A byte that can stand in an unquoted value. The colon may: addresses would be ugly without.
constexpr bool bare(uint8_t c) noexcept { return c != ' ' && c != '=' && plain(c); }

}  // namespace

void Pen::number(uint64_t value) noexcept {
  at_ = std::to_chars(at_, at_ + kNumberBytesMax, value).ptr;
}

void Pen::two_digits(uint64_t value) noexcept {
  std::memcpy(at_, &kPairs[2 * value], 2);
  at_ += 2;
}

void Pen::three_digits(uint64_t value) noexcept {
  *at_++ = static_cast<char>('0' + value / 100);
  two_digits(value % 100);
}

void Pen::hex16(uint64_t value) noexcept {
  for (int shift = 60; shift >= 0; shift -= 4) *at_++ = kHex[(value >> shift) & 15];
}

void Pen::milliseconds(uint64_t microseconds) noexcept {
  number(microseconds / 1000);
  *at_++ = '.';
  three_digits(microseconds % 1000);
}

void Pen::ip(const base::IpAddress& address) noexcept {
  if (!address.is_v4()) {
    ip_v6(address);
    return;
  }
  for (size_t i = 12; i < 16; ++i) {
    const uint8_t octet = address.bytes[i];
    if (i != 12) *at_++ = '.';
    if (octet >= 100) {
      three_digits(octet);
    } else if (octet >= 10) {
      two_digits(octet);
    } else {
      *at_++ = static_cast<char>('0' + octet);
    }
  }
}

// The longest run of two or more zero groups (the first of equals) becomes "::".
void Pen::ip_v6(const base::IpAddress& address) noexcept {
  std::array<uint32_t, 8> groups;
  for (size_t i = 0; i < 8; ++i) {
    groups[i] = static_cast<uint32_t>(address.bytes[2 * i]) << 8 | address.bytes[2 * i + 1];
  }
  size_t best = 8;
  size_t best_count = 1;
  for (size_t i = 0; i < 8; ++i) {
    size_t count = 0;
    while (i + count < 8 && groups[i + count] == 0) ++count;
    if (count > best_count) {
      best = i;
      best_count = count;
    }
    i += count;
  }
  for (size_t i = 0; i < 8;) {
    if (i == best) {
      put(std::string_view("::"));
      i += best_count;
      continue;
    }
    if (i != 0 && i != best + best_count) *at_++ = ':';
    at_ = std::to_chars(at_, at_ + 4, groups[i], 16).ptr;
    ++i;
  }
}

// Copies the plain beginning of `text` and returns the rest. Eight bytes at a time; the last,
// partial word overlaps the one before it.
std::string_view Pen::put_plain(std::string_view text) noexcept {
  const char* from = text.data();
  size_t left = text.size();
  uint64_t word;
  while (left >= 8) {
    std::memcpy(&word, from, 8);
    if (!all_plain(word)) break;
    std::memcpy(at_, &word, 8);
    at_ += 8;
    from += 8;
    left -= 8;
  }
  if (left != 0 && left < 8 && text.size() >= 8) {
    const size_t back = 8 - left;
    std::memcpy(&word, from - back, 8);
    if (all_plain(word)) {
      std::memcpy(at_ - back, &word, 8);
      at_ += left;
      return {};
    }
  }
  while (left != 0 && plain(static_cast<uint8_t>(*from))) {
    *at_++ = *from++;
    --left;
  }
  return {from, left};
}

void Pen::json_text(std::string_view text) noexcept { escaped(text, Style::kJson); }

void Pen::escaped(std::string_view text, Style style) noexcept {
  while (!(text = put_plain(text)).empty()) {
    const auto c = static_cast<uint8_t>(text.front());
    if (c < 0x80) {
      escape_ascii(c, style);
      text.remove_prefix(1);
      continue;
    }
    const base::Utf8Character decoded = base::decode_utf8(text);
    if (decoded.bytes == 0) {
      escape_byte(c, style);
      text.remove_prefix(1);
      continue;
    }
    if (base::acts_on_text(decoded.code)) {
      escape_unit(decoded.code);
    } else {
      at_ = copy_character(at_, text.substr(0, decoded.bytes));
    }
    text.remove_prefix(decoded.bytes);
  }
}

void Pen::escape_ascii(uint8_t c, Style style) noexcept {
  char letter = 0;
  switch (c) {
    case '"':
      if (style == Style::kMessage) {
        put('"');
        return;
      }
      letter = '"';
      break;
    case '\\': letter = '\\'; break;
    case '\n': letter = 'n'; break;
    case '\r': letter = 'r'; break;
    case '\t': letter = 't'; break;
    default: escape_byte(c, style); return;
  }
  put('\\');
  put(letter);
}

void Pen::escape_byte(uint8_t c, Style style) noexcept {
  if (style == Style::kJson) {
    escape_unit(c);
    return;
  }
  put(std::string_view("\\x"));
  put(kHexUpper[c >> 4]);
  put(kHexUpper[c & 15]);
}

void Pen::escape_unit(uint32_t code) noexcept {
  put(std::string_view("\\u"));
  for (int shift = 12; shift >= 0; shift -= 4) put(kHex[(code >> shift) & 15]);
}

void Pen::clf_text(std::string_view text) noexcept {
  while (!(text = put_plain(text)).empty()) {
    escape_byte(static_cast<uint8_t>(text.front()), Style::kQuoted);
    text.remove_prefix(1);
  }
}

void Pen::text_value(std::string_view text) noexcept {
  bool needs_quotes = text.empty();
  for (const char c : text) needs_quotes = needs_quotes || !bare(static_cast<uint8_t>(c));
  if (!needs_quotes) {
    put(text);
    return;
  }
  put('"');
  escaped(text, Style::kQuoted);
  put('"');
}

void Pen::text_message(std::string_view text) noexcept { escaped(text, Style::kMessage); }

void Pen::text_key(std::string_view text) noexcept {
  for (const char c : text) {
    const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '_' || c == '-' || c == '.';
    put(good ? c : '_');
  }
}

}  // namespace weir::log
