// What hosts, paths, header names, server addresses and URLs may look like. Pure functions; a
// complaint is a text that follows "KEY: ", empty when there is none.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

#include <weir/control/config/config.h>

namespace weir::control::config {

// What a redirect's URL may hold as ${...}.
inline constexpr std::string_view kRedirectPlaceholders = "scheme host path query uri";

bool is_token(std::string_view text) noexcept;          // RFC 9110 5.6.2
bool is_field_value(std::string_view text) noexcept;    // no CR, LF, NUL or other control byte
bool is_host_name(std::string_view text) noexcept;      // labels of letters, digits, '-' and '_'
bool is_variable_name(std::string_view text) noexcept;  // of an environment variable

// A route's host: "example.com", "*.example.com", "*", "192.0.2.1", "[::1]"; lowercase on return.
std::expected<std::string, std::string> parse_route_host(std::string_view text);
// A route's path, or the path of a proxy URL, in the normal form of request paths.
std::expected<std::string, std::string> parse_path(std::string_view text);

// The URL of a redirect, with its ${...} placeholders; a complaint or empty.
std::string check_location(std::string_view text);

// An entry of `servers`: "IP:PORT", "[IPv6]:PORT", "NAME:PORT", "unix:/PATH" and
// "https://HOST[:PORT]".
std::expected<UpstreamServer, std::string> parse_server(std::string_view text);

// The same where names have SRV records, and therefore no port.
std::expected<UpstreamServer, std::string> parse_srv_server(std::string_view text);

// A name server: "IP", "IP:PORT", "[IPv6]:PORT"; with its port on return.
std::optional<base::SocketAddress> parse_name_server(std::string_view text);

// "http://HOST[:PORT][/PATH]", or https.
struct ProxyUrl {
  bool https = false;
  std::string_view host;  // as written, brackets around IPv6
  std::optional<uint16_t> port;
  std::optional<std::string> path;
};
std::expected<ProxyUrl, std::string> parse_proxy_url(std::string_view text);

// "client_ip", "uri", "path", "header:NAME" or "cookie:NAME".
std::optional<route::HashKeySpec> parse_hash_key(std::string_view text);

}  // namespace weir::control::config
