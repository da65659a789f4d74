// The three loops over bytes that a head spends its time in, 16 bytes a step with SSE2 (part of
// every x86-64) and by table elsewhere. They never read at or past `end`. Private to the http room.
#pragma once

#include <cstdint>

#include "chars.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace weir::http::scan {

#ifdef __SSE2__
inline __m128i load(const char* p) noexcept {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
// Bytes of `v` that are `low` <= byte <= `low` + `span`.
inline __m128i in_range(__m128i v, char low, char span) noexcept {
  const __m128i offset = _mm_sub_epi8(v, _mm_set1_epi8(low));
  return _mm_cmpeq_epi8(_mm_min_epu8(offset, _mm_set1_epi8(span)), offset);
}
inline unsigned mask_of(__m128i v) noexcept { return static_cast<unsigned>(_mm_movemask_epi8(v)); }
inline const char* at_first(const char* p, unsigned mask) noexcept {
  return p + __builtin_ctz(mask);
}
#endif

// The first byte that may not stand in a field value, or `end`.
inline const char* past_field_value(const char* p, const char* end) noexcept {
#ifdef __SSE2__
  for (; end - p >= 16; p += 16) {
    const __m128i v = load(p);
    const __m128i control = in_range(v, 0, 0x1f);
    const __m128i tab = _mm_cmpeq_epi8(v, _mm_set1_epi8('\t'));
    const __m128i del = _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f));
    const unsigned bad = mask_of(_mm_or_si128(_mm_andnot_si128(tab, control), del));
    if (bad != 0) return at_first(p, bad);
  }
#endif
  while (p != end && chars::is(*p, chars::kFieldValue)) ++p;
  return p;
}

// The first byte that may not stand in a request target, or `end`.
inline const char* past_target(const char* p, const char* end) noexcept {
#ifdef __SSE2__
  for (; end - p >= 16; p += 16) {
    const __m128i v = load(p);
    const __m128i visible = in_range(v, 0x21, 0x7e - 0x21);
    const __m128i hash = _mm_cmpeq_epi8(v, _mm_set1_epi8('#'));
    const unsigned bad = mask_of(_mm_andnot_si128(hash, visible)) ^ 0xffffU;
    if (bad != 0) return at_first(p, bad);
  }
#endif
  while (p != end && chars::is(*p, chars::kTarget)) ++p;
  return p;
}

// The first byte that may not stand in a token, or `end`. `underscore` is set when '_' was passed.
inline const char* past_token(const char* p, const char* end, bool& underscore) noexcept {
#ifdef __SSE2__
  // Letters, digits and '-' are nearly every name; the rest of the token characters go by table.
  for (; end - p >= 16; p += 16) {
    const __m128i v = load(p);
    const __m128i letter = in_range(_mm_or_si128(v, _mm_set1_epi8(0x20)), 'a', 'z' - 'a');
    const __m128i digit = in_range(v, '0', 9);
    const __m128i dash = _mm_cmpeq_epi8(v, _mm_set1_epi8('-'));
    const unsigned other = mask_of(_mm_or_si128(_mm_or_si128(letter, digit), dash)) ^ 0xffffU;
    if (other != 0) {
      p = at_first(p, other);
      break;
    }
  }
#endif
  while (p != end && chars::is(*p, chars::kToken)) {
    underscore |= *p == '_';
    ++p;
  }
  return p;
}

}  // namespace weir::http::scan
