// Paths, hosts and URLs. Pure functions over text the caller owns; results are views into their
// arguments, into the scratch bytes given, or into static storage. Nothing here allocates, and
// nothing may decode a path twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace weir::http {

struct NormalisedPath {
  std::string_view path;
  bool changed = false;  // false: `path` is the very argument
};

// The form in which paths are compared and forwarded. Percent-escapes of unreserved characters
// (RFC 3986 2.3) are decoded, the hex digits of all others written in upper case, then dot segments
// are removed (so "%2e%2e" counts as ".."). Applying it twice changes nothing more.
//
// Empty (answer 400) for: a path that does not start with '/', an invalid escape, a control
// character or a byte >= 0x7f, raw or (controls and DEL only) as an escape, a raw space, '\\', '#'
// or '?', a
// ".." that climbs above the root, and a segment in which ".." stands between escaped slashes or
// backslashes ("/a/..%2Fb"), because an origin that decodes those would climb.
//
// Kept: "%2F", "%5C" and "%25" stay escaped; empty segments ("//") are not merged, since origins
// may tell them apart, and ".." after "//" removes the empty segment (RFC 3986 5.2.4). "*" stays
// "*".
//
// `scratch` must be at least as long as `raw`; it is written only when something changes.
std::optional<NormalisedPath> normalise_path(std::string_view raw,
                                             std::span<char> scratch) noexcept;

// Splits "host", "host:", "host:80", "[::1]:80" and checks both parts: valid_host() and a port of
// at most 65535. `host` keeps the brackets of IPv6, `port` is empty when there is none. False, with
// both untouched, on anything else (userinfo, white space, two hosts, ...).
bool split_host_port(std::string_view authority, std::string_view& host,
                     std::string_view& port) noexcept;

// A reg-name of unreserved characters and sub-delims but the comma, no percent-escapes (they would
// give one host two names), no empty label but one trailing dot; or an IPv4 address, or an IPv6
// address in brackets without zone. At most 255 bytes.
bool valid_host(std::string_view host) noexcept;
inline constexpr size_t kHostBytesMax = 255;

// The form in which hosts are compared: lower case, one trailing dot removed. Returns the argument
// itself when nothing changes; else uses `scratch`, which must be as long as `host`.
std::string_view lowercase_host(std::string_view host, std::span<char> scratch) noexcept;

// "http://host:port/path" of the configuration.
struct Url {
  std::string_view scheme;  // "http" or "https"
  std::string_view host;    // as written; IPv6 keeps its brackets
  uint16_t port = 0;        // 80 or 443 by the scheme when none is written
  std::string_view path;    // raw; "/" when none is written
  bool has_path = false;    // a path was written ("http://o/" has one, "http://o" has none)
};

// Empty for other schemes, userinfo, query, fragment, port 0, a bad host, and characters that
// normalise_path() refuses.
std::optional<Url> parse_url(std::string_view text) noexcept;

}  // namespace weir::http
