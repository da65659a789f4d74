#include <weir/base/utf8.h>

namespace weir::base {

Utf8Character decode_beyond_ascii(std::string_view text) noexcept {
  const auto byte = [text](size_t i) { return static_cast<uint8_t>(text[i]); };
  const auto tail = [&](size_t i) { return i < text.size() && (byte(i) & 0xc0u) == 0x80; };
  const auto six = [&](size_t i) { return byte(i) & 0x3fu; };
  const uint8_t lead = byte(0);
  if (lead < 0xe0) {
    if (lead < 0xc2 || !tail(1)) return {};
    return {(lead & 0x1fu) << 6 | six(1), 2};
  }
  if (lead < 0xf0) {
    if (!tail(1) || !tail(2)) return {};
    const uint32_t code = (lead & 0x0fu) << 12 | six(1) << 6 | six(2);
    if (code < 0x800 || (code >= 0xd800 && code <= 0xdfff)) return {};
    return {code, 3};
  }
  if (lead > 0xf4 || !tail(1) || !tail(2) || !tail(3)) return {};
  const uint32_t code = (lead & 0x07u) << 18 | six(1) << 12 | six(2) << 6 | six(3);
  if (code < 0x10000 || code > 0x10ffff) return {};
  return {code, 4};
}

}  // namespace weir::base
