#include <weir/http/uri.h>

#include <algorithm>
#include <cstring>

#include <weir/base/ip.h>
#include <weir/base/text.h>

#include "chars.h"
#include "scan.h"

namespace weir::http {

namespace {

// What the quick look at a path says: nothing to do, look closer, or not a path.
enum class Look : uint8_t { kPlain, kCloser, kBad };

// Visible ASCII without '#', '?' and '\\'.
bool is_path_char(char c) noexcept { return chars::is(c, chars::kTarget) && c != '?' && c != '\\'; }

Look look_at(std::string_view raw) noexcept {
  const char* p = raw.data();
  const char* const end = p + raw.size();
  bool closer = false;
#ifdef __SSE2__
  unsigned slash_before = 0;  // the byte before this step's first was '/'
  for (; end - p >= 16; p += 16) {
    const __m128i v = scan::load(p);
    const __m128i visible = scan::in_range(v, 0x21, 0x7e - 0x21);
    const __m128i bad = _mm_or_si128(
        _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('#')), _mm_cmpeq_epi8(v, _mm_set1_epi8('?'))),
        _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
    if (scan::mask_of(_mm_andnot_si128(bad, visible)) != 0xffffU) return Look::kBad;
    const unsigned escapes = scan::mask_of(_mm_cmpeq_epi8(v, _mm_set1_epi8('%')));
    const unsigned dots = scan::mask_of(_mm_cmpeq_epi8(v, _mm_set1_epi8('.')));
    const unsigned slashes = scan::mask_of(_mm_cmpeq_epi8(v, _mm_set1_epi8('/')));
    closer |= (escapes | (dots & (slashes << 1 | slash_before))) != 0;
    slash_before = slashes >> 15;
  }
  char previous = slash_before != 0 ? '/' : '\0';
#else
  char previous = '\0';
#endif
  for (; p != end; previous = *p++) {
    if (!is_path_char(*p)) return Look::kBad;
    closer |= *p == '%' || (*p == '.' && previous == '/');
  }
  return closer ? Look::kCloser : Look::kPlain;
}

// Decodes what may be decoded into `out` (never longer than `raw`); 0 when an escape is bad.
size_t decode(std::string_view raw, char* out) noexcept {
  size_t size = 0;
  for (size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] != '%') {
      out[size++] = raw[i];
      continue;
    }
    if (raw.size() - i < 3 || !chars::is(raw[i + 1], chars::kHexDigit) ||
        !chars::is(raw[i + 2], chars::kHexDigit)) {
      return 0;
    }
    const unsigned byte = chars::hex_value(raw[i + 1]) << 4 | chars::hex_value(raw[i + 2]);
    if (byte < 0x20 || byte == 0x7f) return 0;
    if (chars::is(static_cast<char>(byte), chars::kUnreserved)) {
      out[size++] = static_cast<char>(byte);
    } else {
      constexpr const char* kDigits = "0123456789ABCDEF";
      out[size++] = '%';
      out[size++] = kDigits[byte >> 4];
      out[size++] = kDigits[byte & 0x0fU];
    }
    i += 2;
  }
  return size;
}

// Would `segment` hold ".." if its escaped slashes and backslashes were decoded?
bool hides_parent(std::string_view segment) noexcept {
  if (segment.find('%') == std::string_view::npos) return false;
  size_t start = 0;
  for (size_t i = 0;; ++i) {
    const std::string_view escape = segment.substr(std::min(i, segment.size()), 3);
    const bool at_end = i >= segment.size();
    if (!at_end && escape != "%2F" && escape != "%5C") continue;
    if (segment.substr(start, i - start) == "..") return true;
    if (at_end) return false;
    i += 2;
    start = i + 1;
  }
}

// RFC 3986 5.2.4 in place on a path that starts with '/'; 0 when it climbs above the root.
size_t remove_dot_segments(char* path, size_t size) noexcept {
  size_t kept = 0;  // path[0, kept) is done; a segment is kept with the '/' before it
  for (size_t at = 0; at < size;) {
    const char* const start = path + at + 1;  // path[at] is '/'
    const size_t rest = size - at - 1;
    const void* slash = rest == 0 ? nullptr : std::memchr(start, '/', rest);
    const size_t length =
        slash == nullptr ? rest : static_cast<size_t>(static_cast<const char*>(slash) - start);
    const std::string_view segment(start, length);
    const bool last = slash == nullptr;
    at += 1 + length;
    if (segment == "." || segment == "..") {
      if (segment.size() == 2) {
        if (kept == 0) return 0;
        while (path[--kept] != '/') {
        }
      }
      if (last) path[kept++] = '/';
      continue;
    }
    if (hides_parent(segment)) return 0;
    std::memmove(path + kept, start - 1, 1 + length);
    kept += 1 + length;
  }
  return kept;
}

bool is_valid_port(std::string_view port) noexcept {
  if (port.empty()) return true;
  const auto value = base::parse_decimal(port);
  return value && port.size() <= 5 && *value <= 65535;
}

}  // namespace

std::optional<NormalisedPath> normalise_path(std::string_view raw,
                                             std::span<char> scratch) noexcept {
  if (raw == "*") return NormalisedPath{raw, false};
  if (raw.empty() || raw.front() != '/') return std::nullopt;
  switch (look_at(raw)) {
    case Look::kBad: return std::nullopt;
    case Look::kPlain: return NormalisedPath{raw, false};
    case Look::kCloser: break;
  }
  if (scratch.size() < raw.size()) return std::nullopt;
  const size_t decoded = decode(raw, scratch.data());
  if (decoded == 0) return std::nullopt;
  const size_t size = remove_dot_segments(scratch.data(), decoded);
  if (size == 0) return std::nullopt;
  const std::string_view path(scratch.data(), size);
  return path == raw ? NormalisedPath{raw, false} : NormalisedPath{path, true};
}

bool valid_host(std::string_view host) noexcept {
  if (host.empty() || host.size() > kHostBytesMax) return false;
  if (host.front() == '[') {
    if (host.size() < 4 || host.back() != ']') return false;
    const auto inside = host.substr(1, host.size() - 2);
    return inside.find(':') != std::string_view::npos && base::IpAddress::parse(inside).has_value();
  }
  char previous = '.';  // an empty label is a dot after a dot or at the start
  for (char c : host) {
    if (!chars::is(c, chars::kRegName) || (c == '.' && previous == '.')) return false;
    previous = c;
  }
  return true;
}

bool split_host_port(std::string_view authority, std::string_view& host,
                     std::string_view& port) noexcept {
  size_t host_end;
  if (authority.starts_with('[')) {
    const size_t bracket = authority.find(']');
    if (bracket == std::string_view::npos) return false;
    host_end = bracket + 1;
    if (host_end != authority.size() && authority[host_end] != ':') return false;
  } else {
    host_end = std::min(authority.find(':'), authority.size());
  }
  const std::string_view host_part = authority.substr(0, host_end);
  const std::string_view port_part =
      host_end == authority.size() ? std::string_view() : authority.substr(host_end + 1);
  if (!valid_host(host_part) || !is_valid_port(port_part)) return false;
  host = host_part;
  port = port_part;
  return true;
}

std::string_view lowercase_host(std::string_view host, std::span<char> scratch) noexcept {
  if (host.size() > 1 && host.back() == '.') host.remove_suffix(1);
  const auto is_upper = [](char c) { return c >= 'A' && c <= 'Z'; };
  if (std::none_of(host.begin(), host.end(), is_upper)) return host;
  if (scratch.size() < host.size()) return {};
  std::transform(host.begin(), host.end(), scratch.begin(), base::to_lower);
  return {scratch.data(), host.size()};
}

std::optional<Url> parse_url(std::string_view text) noexcept {
  Url url;
  if (text.size() >= 7 && base::equals_ignore_case(text.substr(0, 7), "http://")) {
    url.scheme = "http";
    url.port = 80;
    text.remove_prefix(7);
  } else if (text.size() >= 8 && base::equals_ignore_case(text.substr(0, 8), "https://")) {
    url.scheme = "https";
    url.port = 443;
    text.remove_prefix(8);
  } else {
    return std::nullopt;
  }
  const size_t slash = std::min(text.find('/'), text.size());
  std::string_view port;
  if (!split_host_port(text.substr(0, slash), url.host, port)) return std::nullopt;
  if (!port.empty()) {
    url.port = static_cast<uint16_t>(*base::parse_decimal(port));
    if (url.port == 0) return std::nullopt;
  }
  url.has_path = slash != text.size();
  url.path = url.has_path ? text.substr(slash) : std::string_view("/");
  if (look_at(url.path) == Look::kBad) return std::nullopt;
  return url;
}

}  // namespace weir::http
