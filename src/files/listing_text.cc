#include "listing_text.h"

#include <algorithm>
#include <array>

#include <weir/base/text.h>
#include <weir/base/utf8.h>
#include <weir/http/h1/writer.h>

namespace weir::files {

namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

bool is_unreserved(char c) noexcept {
  const char low = base::to_lower(c);
  return (low >= 'a' && low <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' ||
         c == '~';
}

void append_escape(std::string& out, char c) {
  constexpr const char* kDigits = "0123456789ABCDEF";
  const auto byte = static_cast<uint8_t>(c);
  out += '%';
  out += kDigits[byte >> 4];
  out += kDigits[byte & 0x0fU];
}

int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  const char low = base::to_lower(c);
  return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

}  // namespace

void append_html(std::string& out, std::string_view text) {
  while (!text.empty()) {
    const base::Utf8Character character = base::decode_utf8(text);
    if (character.bytes == 0 || base::acts_on_text(character.code)) {
      out += kReplacement;
      text.remove_prefix(std::max<size_t>(character.bytes, 1));
      continue;
    }
    switch (text[0]) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += text.substr(0, character.bytes);
    }
    text.remove_prefix(character.bytes);
  }
}

void append_json(std::string& out, std::string_view text) {
  constexpr const char* kDigits = "0123456789abcdef";
  while (!text.empty()) {
    const base::Utf8Character character = base::decode_utf8(text);
    const uint32_t point = character.code;
    if (character.bytes == 0) {
      out += kReplacement;
      text.remove_prefix(1);
      continue;
    }
    if (point == '"' || point == '\\') {
      out += '\\';
      out += text[0];
    } else if (point < 0x20 || point == 0x7f || point == '<' || point == '>' || point == '&') {
      out += "\\u00";
      out += kDigits[point >> 4];
      out += kDigits[point & 0x0fU];
    } else if (point == 0x2028 || point == 0x2029) {  // would end a line of JavaScript
      out += point == 0x2028 ? "\\u2028" : "\\u2029";
    } else {
      out += text.substr(0, character.bytes);
    }
    text.remove_prefix(character.bytes);
  }
}

void append_percent_encoded(std::string& out, std::string_view bytes) {
  for (char c : bytes) {
    if (is_unreserved(c)) {
      out += c;
    } else {
      append_escape(out, c);
    }
  }
}

void append_reencoded(std::string& out, std::string_view segment) {
  for (char c : segment) {
    if (is_unreserved(c) || c == '%') {
      out += c;
    } else {
      append_escape(out, c);
    }
  }
}

std::string percent_decoded(std::string_view segment) {
  std::string out;
  out.reserve(segment.size());
  for (size_t i = 0; i < segment.size(); ++i) {
    if (segment[i] == '%' && segment.size() - i >= 3) {
      const int high = hex_digit(segment[i + 1]);
      const int low = hex_digit(segment[i + 2]);
      if (high >= 0 && low >= 0) {
        out += static_cast<char>(high << 4 | low);
        i += 2;
        continue;
      }
    }
    out += segment[i];
  }
  return out;
}

void append_human_size(std::string& out, uint64_t bytes) {
  constexpr std::array<std::string_view, 7> kUnits{" B",   " KiB", " MiB", " GiB",
                                                   " TiB", " PiB", " EiB"};
  size_t unit = 0;
  uint64_t size = 1;
  // The next unit as soon as this one would be rounded up to it.
  while (unit + 1 < kUnits.size() && bytes >= size * 1024 - (unit == 0 ? 0 : size / 2)) {
    size *= 1024;
    ++unit;
  }
  // In tenths, rounded; without the 128 bits, 2^64 - 1 would overflow.
  const auto tenths =
      static_cast<uint64_t>((static_cast<unsigned __int128>(bytes) * 10 + size / 2) / size);
  if (unit == 0) {
    out += std::to_string(bytes);
  } else if (tenths < 100) {
    out += std::to_string(tenths / 10);
    out += '.';
    out += std::to_string(tenths % 10);
  } else {
    out += std::to_string(bytes / size + (bytes % size >= (size + 1) / 2 ? 1 : 0));
  }
  out += kUnits[unit];
}

void append_iso_time(std::string& out, int64_t seconds) {
  constexpr std::string_view kMonths = "JanFebMarAprMayJunJulAugSepOctNovDec";
  std::array<char, http::h1::kHttpDateBytes> date;  // Sun, 06 Nov 1994 08:49:37 GMT
  http::h1::format_http_date(date.data(), seconds);
  const std::string_view text(date.data(), date.size());
  const size_t month = kMonths.find(text.substr(8, 3)) / 3 + 1;
  out += text.substr(12, 4);
  out += '-';
  out += static_cast<char>('0' + month / 10);
  out += static_cast<char>('0' + month % 10);
  out += '-';
  out += text.substr(5, 2);
  out += 'T';
  out += text.substr(17, 8);
  out += 'Z';
}

ListingLinks::ListingLinks(const ListingPage& page) : here_("./") {
  std::string_view route = page.route_path;
  if (route.ends_with('/')) route.remove_suffix(1);
  std::string_view path = page.path;
  if (path.ends_with('/')) {
    path.remove_suffix(1);
  } else {
    append_reencoded(here_, path.substr(path.rfind('/') + 1));
    here_ += '/';
  }
  below_ = path.starts_with(route) ? path.substr(route.size()) : std::string_view();
  if (below_.starts_with('/')) below_.remove_prefix(1);
  if (!below_.empty()) {
    depth_ = static_cast<size_t>(std::count(below_.begin(), below_.end(), '/')) + 1;
  }
}

void ListingLinks::append_up(std::string& out, size_t levels) const {
  // Without a slash at the end of the path, "./" is the parent already.
  const size_t own = here_ == "./" ? 0 : 1;
  if (levels == 0) {
    out += here_;
  } else if (levels == own) {
    out += "./";
  }
  for (size_t i = own; i < levels; ++i) out += "../";
}

void ListingLinks::append_entry(std::string& out, const ListingEntry& entry) const {
  out += here_;
  append_percent_encoded(out, entry.name);
  if (entry.is_directory) out += '/';
}

std::string_view ListingLinks::segment(size_t index) const noexcept {
  std::string_view rest = below_;
  for (; index > 0; --index) rest.remove_prefix(std::min(rest.find('/'), rest.size() - 1) + 1);
  return rest.substr(0, rest.find('/'));
}

}  // namespace weir::files
