#include <array>
#include <memory>
#include <string>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/utf8.h>

using weir::base::acts_on_text;
using weir::base::decode_utf8;
using weir::base::Utf8Character;

namespace {

constexpr uint32_t kLast = 0x10ffff;

// Any number in so many bytes, also where that is a byte too many for it: RFC 3629 3, the table.
std::string encode(uint32_t code, size_t bytes) {
  if (bytes == 1) return {static_cast<char>(code)};
  std::string out(bytes, '\0');
  for (size_t i = bytes - 1; i > 0; --i, code >>= 6) out[i] = static_cast<char>(0x80 | (code & 63));
  out[0] = static_cast<char>((0xff00 >> bytes & 0xff) | code);
  return out;
}

size_t shortest(uint32_t code) {
  return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : code < 0x200000 ? 4 : 5;
}

struct Range {
  uint8_t low = 1;
  uint8_t high = 0;  // below `low`: no such byte
};

// RFC 3629 4, the grammar: all that is UTF-8, byte by byte.
constexpr Range kTail{0x80, 0xbf};
constexpr std::array<std::array<Range, 4>, 9> kGrammar{{
    {{{0x00, 0x7f}, {}, {}, {}}},
    {{{0xc2, 0xdf}, kTail, {}, {}}},
    {{{0xe0, 0xe0}, {0xa0, 0xbf}, kTail, {}}},
    {{{0xe1, 0xec}, kTail, kTail, {}}},
    {{{0xed, 0xed}, {0x80, 0x9f}, kTail, {}}},
    {{{0xee, 0xef}, kTail, kTail, {}}},
    {{{0xf0, 0xf0}, {0x90, 0xbf}, kTail, kTail}},
    {{{0xf1, 0xf3}, kTail, kTail, kTail}},
    {{{0xf4, 0xf4}, {0x80, 0x8f}, kTail, kTail}},
}};

size_t bytes_by_grammar(std::string_view text) {
  for (const auto& form : kGrammar) {
    size_t bytes = 0;
    while (bytes < 4 && form[bytes].low <= form[bytes].high) ++bytes;
    bool fits = text.size() >= bytes;
    for (size_t i = 0; fits && i < bytes; ++i) {
      const auto byte = static_cast<uint8_t>(text[i]);
      fits = byte >= form[i].low && byte <= form[i].high;
    }
    if (fits) return bytes;
  }
  return 0;
}

// A REQUIRE for each of millions would take minutes.
void is(std::string_view text, uint32_t code, size_t bytes) {
  const Utf8Character got = decode_utf8(text);
  if (got.code == code && got.bytes == bytes) return;
  CAPTURE(std::string(text), code, bytes, got.code, got.bytes);
  FAIL("decoded otherwise");
}

// In memory of its own, so that a sanitizer sees a byte read behind its end.
void is_malformed(std::string_view text) {
  const auto copy = std::make_unique<char[]>(text.size());
  text.copy(copy.get(), text.size());
  is({copy.get(), text.size()}, 0, 0);
}

}  // namespace

TEST_CASE("every code point is decoded from its one form, and from no other") {
  for (uint32_t code = 0; code < 0x200000; ++code) {
    const bool exists = code <= kLast && (code < 0xd800 || code > 0xdfff);
    for (size_t bytes = shortest(code); bytes <= 4; ++bytes) {
      const std::string text = encode(code, bytes);
      if (exists && bytes == shortest(code)) {
        is(text, code, bytes);
      } else {
        is_malformed(text);
      }
    }
  }
}

TEST_CASE("a character ends where it ends, and is none when it is cut off") {
  for (const uint32_t code : {0x00u, 0x7fu, 0x80u, 0x7ffu, 0x800u, 0xd7ffu, 0xe000u, 0xfeffu,
                              0xffffu, 0x10000u, 0x3ffffu, 0x40000u, 0xfffffu, 0x100000u, kLast}) {
    const std::string text = encode(code, shortest(code));
    for (size_t bytes = 0; bytes < text.size(); ++bytes) {
      const std::string begin = text.substr(0, bytes);
      is_malformed(begin);
      if (bytes != 0) is_malformed(begin + "xxx");
    }
    for (int next = 0; next < 256; ++next) is(text + static_cast<char>(next), code, text.size());
  }
  is_malformed({});
}

TEST_CASE("what is UTF-8 is what the grammar of RFC 3629 says") {
  constexpr std::array<uint8_t, 11> kEdges{0x00, 0x61, 0x7f, 0x80, 0x8f, 0x90,
                                           0x9f, 0xa0, 0xbf, 0xc0, 0xff};
  std::array<char, 4> text;
  size_t good = 0;
  for (int lead = 0; lead < 256; ++lead) {
    text[0] = static_cast<char>(lead);
    is({text.data(), 1}, lead < 0x80 ? static_cast<uint32_t>(lead) : 0, lead < 0x80 ? 1 : 0);
    for (int second = 0; second < 256; ++second) {
      text[1] = static_cast<char>(second);
      for (const uint8_t third : kEdges) {
        text[2] = static_cast<char>(third);
        for (const uint8_t fourth : kEdges) {
          text[3] = static_cast<char>(fourth);
          for (size_t size = 2; size <= 4; ++size) {
            const std::string_view view(text.data(), size);
            const size_t bytes = bytes_by_grammar(view);
            const Utf8Character got = decode_utf8(view);
            const bool same = got.bytes == bytes && (bytes != 0 || got.code == 0) &&
                              (bytes == 0 || encode(got.code, bytes) == view.substr(0, bytes));
            good += bytes != 0;
            if (same) continue;
            CAPTURE(lead, second, third, fourth, size, bytes, got.code, got.bytes);
            FAIL("decoded otherwise");
          }
        }
      }
    }
  }
  CHECK(good > 0);
}

TEST_CASE("forms that have been used to deceive are malformed") {
  for (const char* text : {"\xc0\x80",
                           "\xc0\xae",
                           "\xc0\xaf",
                           "\xc1\xbf",
                           "\xe0\x80\xaf",
                           "\xe0\x9f\xbf",
                           "\xf0\x80\x80\xaf",
                           "\xf0\x8f\xbf\xbf",  // overlong
                           "\xed\xa0\x80",
                           "\xed\xbf\xbf",
                           "\xed\xa0\xbd\xed\xb8\x80",  // halves
                           "\xf4\x90\x80\x80",
                           "\xf5\x80\x80\x80",
                           "\xf7\xbf\xbf\xbf",  // too high
                           "\xf8\x88\x80\x80\x80",
                           "\xfc\x84\x80\x80\x80\x80",
                           "\xfe",
                           "\xff",
                           "\x80",
                           "\xbf",
                           "\xc3(",
                           "\xe2(\xa1",
                           "\xe2\x82(",
                           "\xf0\x90(\xbc"}) {
    is_malformed(text);
  }
}

// Of the general categories Cc, Zl and Zp, and of Bidi_Control those that open or close something.
TEST_CASE("characters that act on the text around them") {
  std::vector<bool> expected(kLast + 1);
  for (uint32_t code = 0; code < 32; ++code) expected[code] = expected[0x80 + code] = true;
  for (const uint32_t code : {0x7f,                                    // DEL
                              0x2028, 0x2029,                          // LS PS
                              0x202a, 0x202b, 0x202c, 0x202d, 0x202e,  // LRE RLE PDF LRO RLO
                              0x2066, 0x2067, 0x2068, 0x2069}) {       // LRI RLI FSI PDI
    expected[code] = true;
  }
  for (uint32_t code = 0; code <= kLast; ++code) {
    if (acts_on_text(code) == expected[code]) continue;
    CAPTURE(code);
    FAIL("judged otherwise");
  }
}
