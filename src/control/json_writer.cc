#include "json_writer.h"

#include <charconv>

#include <weir/base/utf8.h>

namespace weir::control {

namespace {

constexpr char kHex[] = "0123456789abcdef";

// Also the marks that are seen nowhere but in what they do to their neighbours: the direction of
// Arabic, left-to-right and right-to-left text, and the byte order mark.
constexpr bool acts(uint32_t code) noexcept {
  return base::acts_on_text(code) || code == 0x061c || code == 0x200e || code == 0x200f ||
         code == 0xfeff;
}

void append_unit(std::string& out, uint32_t code) {
  out += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) out += kHex[(code >> shift) & 15];
}

void append_byte(std::string& out, uint8_t byte) {
  out += "\\x";
  out += kHex[byte >> 4];
  out += kHex[byte & 15];
}

}  // namespace

void append_json_text(std::string& out, std::string_view text) {
  while (!text.empty()) {
    const base::Utf8Character one = base::decode_utf8(text);
    const auto first = static_cast<uint8_t>(text.front());
    if (one.bytes == 0) {
      append_unit(out, first);
    } else if (first == '"' || first == '\\') {
      (out += '\\') += text.front();
    } else if (acts(one.code)) {
      append_unit(out, one.code);
    } else {
      out += text.substr(0, one.bytes);
    }
    text.remove_prefix(one.bytes == 0 ? 1 : one.bytes);
  }
}

size_t append_plain_text(std::string& out, std::string_view text) {
  size_t width = 0;
  while (!text.empty()) {
    const base::Utf8Character one = base::decode_utf8(text);
    const size_t before = out.size();
    if (one.bytes == 0 || (acts(one.code) && one.bytes == 1)) {
      append_byte(out, static_cast<uint8_t>(text.front()));
    } else if (acts(one.code)) {
      append_unit(out, one.code);
    } else {
      out += text.substr(0, one.bytes);
      width += 1;
      text.remove_prefix(one.bytes);
      continue;
    }
    width += out.size() - before;
    text.remove_prefix(one.bytes == 0 ? 1 : one.bytes);
  }
  return width;
}

void JsonWriter::separate() {
  if (comma_) out_ += ',';
  comma_ = true;
}

JsonWriter& JsonWriter::begin_object() {
  separate();
  out_ += '{';
  comma_ = false;
  return *this;
}

JsonWriter& JsonWriter::end_object() {
  out_ += '}';
  comma_ = true;
  return *this;
}

JsonWriter& JsonWriter::begin_array() {
  separate();
  out_ += '[';
  comma_ = false;
  return *this;
}

JsonWriter& JsonWriter::end_array() {
  out_ += ']';
  comma_ = true;
  return *this;
}

JsonWriter& JsonWriter::key(std::string_view name) {
  separate();
  out_ += '"';
  append_json_text(out_, name);
  out_ += "\":";
  comma_ = false;
  return *this;
}

JsonWriter& JsonWriter::text(std::string_view value) {
  separate();
  out_ += '"';
  append_json_text(out_, value);
  out_ += '"';
  return *this;
}

JsonWriter& JsonWriter::number(uint64_t value) {
  separate();
  char digits[20];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  out_.append(digits, static_cast<size_t>(end - digits));
  return *this;
}

JsonWriter& JsonWriter::boolean(bool value) {
  separate();
  out_ += value ? "true" : "false";
  return *this;
}

}  // namespace weir::control
