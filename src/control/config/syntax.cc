#include "syntax.h"

#include <algorithm>
#include <utility>

#include <weir/base/text.h>
#include <weir/http/uri.h>
#include <weir/route/snapshot.h>

#include "suggest.h"

namespace weir::control::config {

namespace {

constexpr std::string_view kHttps = "https://";

constexpr size_t kHostNameBytesMax = 253;  // RFC 1035 2.3.4, in text form

bool is_alphanumeric(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

// "10.1" and "1.2.3.4.5" are not names: a resolver would read them as addresses.
bool looks_numeric(std::string_view host) noexcept {
  const std::string_view last = host.substr(host.rfind('.') + 1);
  return !last.empty() && std::ranges::all_of(last, is_digit);
}

struct HostPort {
  std::string_view host;
  std::optional<std::string_view> port;
};

// Cuts at the colon before the port; the host keeps its brackets.
HostPort split_port(std::string_view text) noexcept {
  const size_t bracket = text.rfind(']');
  const size_t colon = text.rfind(':');
  const bool has_port =
      colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket);
  if (!has_port) return {.host = text, .port = std::nullopt};
  return {.host = text.substr(0, colon), .port = text.substr(colon + 1)};
}

std::optional<uint16_t> parse_port(std::string_view text) noexcept {
  const auto port = base::parse_decimal(text);
  if (!port || *port == 0 || *port > 65535) return std::nullopt;
  return static_cast<uint16_t>(*port);
}

// An IPv4 address or a bracketed IPv6 address.
std::optional<base::IpAddress> parse_ip_host(std::string_view host) noexcept {
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    const auto ip = base::IpAddress::parse(host.substr(1, host.size() - 2));
    return host.find(':') != std::string_view::npos ? ip : std::nullopt;
  }
  if (host.find(':') != std::string_view::npos) return std::nullopt;
  return base::IpAddress::parse(host);
}

std::string check_host(std::string_view host) {
  if (host.empty()) return "has no host";
  if (parse_ip_host(host) || is_host_name(host)) return {};
  if (host.find(':') != std::string_view::npos) {
    return quoted(host) + " is not an IPv6 address in brackets";
  }
  return quoted(host) + " is not a host name or IP address";
}

// What stands behind "https://".
std::expected<UpstreamServer, std::string> parse_https_server(std::string_view text) {
  if (text.find_first_of("/?#@") != std::string_view::npos || text.starts_with("unix:")) {
    return std::unexpected("must be written without path, as in \"https://10.0.0.1:443\"");
  }
  auto server =
      parse_server(split_port(text).port ? std::string(text) : std::string(text) + ":443");
  if (server) server->https = true;
  return server;
}

}  // namespace

bool is_token(std::string_view text) noexcept {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::ranges::all_of(text, [kMarks](char c) {
    return is_alphanumeric(c) || kMarks.find(c) != std::string_view::npos;
  });
}

bool is_field_value(std::string_view text) noexcept {
  return std::ranges::all_of(text, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return c == '\t' || (byte >= 0x20 && byte != 0x7f);
  });
}

bool is_host_name(std::string_view text) noexcept {
  if (text.empty() || text.size() > kHostNameBytesMax || looks_numeric(text)) return false;
  while (true) {
    const size_t dot = text.find('.');
    const std::string_view label = text.substr(0, dot);
    if (label.empty() || label.size() > 63 || label.front() == '-' || label.back() == '-') {
      return false;
    }
    if (!std::ranges::all_of(label,
                             [](char c) { return is_alphanumeric(c) || c == '-' || c == '_'; })) {
      return false;
    }
    if (dot == std::string_view::npos) return true;
    text.remove_prefix(dot + 1);
  }
}

bool is_variable_name(std::string_view text) noexcept {
  if (text.empty() || is_digit(text.front())) return false;
  return std::ranges::all_of(text, [](char c) { return is_alphanumeric(c) || c == '_'; });
}

std::expected<std::string, std::string> parse_route_host(std::string_view text) {
  if (text == "*") return std::string("*");
  const std::string_view name = text.starts_with("*.") ? text.substr(2) : text;
  const bool wildcard = name.size() != text.size();
  if (is_host_name(name) && text.size() <= kHostNameBytesMax) return base::lowercase(text);
  if (const auto ip = wildcard ? std::nullopt : parse_ip_host(text)) {
    return ip->is_v4() ? ip->to_string() : "[" + ip->to_string() + "]";
  }
  if (text.find("://") != std::string_view::npos || text.find('/') != std::string_view::npos) {
    return std::unexpected(quoted(text) + " is not a host: write it without scheme and path");
  }
  if (name.find(':') != std::string_view::npos) {
    return std::unexpected(
        quoted(text) + " is not a host: write it without port, an IPv6 address " + "in brackets");
  }
  if (std::ranges::any_of(name, [](char c) { return static_cast<unsigned char>(c) >= 0x80; })) {
    return std::unexpected(quoted(text) + " is not a host: write it in its ASCII form (xn--...)");
  }
  if (name.find('*') != std::string_view::npos) {
    return std::unexpected(quoted(text) + " is not a host: a star stands only at the beginning, " +
                           "as in \"*.example.com\"");
  }
  return std::unexpected(quoted(text) + " is not a host such as \"example.com\", " +
                         "\"*.example.com\" or \"*\"");
}

std::expected<std::string, std::string> parse_path(std::string_view text) {
  if (!text.starts_with('/')) {
    return std::unexpected("must begin with \"/\", not " + quoted(text));
  }
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80) {
      return std::unexpected("must have bytes beyond ASCII percent-encoded, as in \"/caf%C3%A9\"");
    }
    if (byte <= 0x20 || byte == 0x7f || c == '?' || c == '#' || c == '\\') {
      return std::unexpected("must not contain " + (byte < 0x20 || byte == 0x7f
                                                        ? "a control character"
                                                        : quoted({&c, 1})));
    }
  }
  if (text.size() > route::kRoutePathBytesMax) return std::unexpected("is longer than 8192 bytes");
  std::string scratch(text.size(), '\0');
  const auto normal = http::normalise_path(text, scratch);
  if (!normal) {
    return std::unexpected("must be a path that requests can have, not " + quoted(text) +
                           ": it climbs above the root or has a bad percent-escape");
  }
  if (normal->path.find("//") != std::string_view::npos) {
    return std::unexpected("must not contain an empty segment (\"//\")");
  }
  return std::string(normal->path);
}

std::string check_location(std::string_view text) {
  constexpr std::string_view kNotInUri = " \"<>\\^`{|}";
  if (text.empty()) return "must be a URL";
  // Such a redirect could be made to lead anywhere by whoever writes the link.
  if (text.starts_with("${query}") || text.starts_with("${host}")) {
    return "must not begin with ${query} or ${host}";
  }
  while (!text.empty()) {
    const size_t placeholder = text.find("${");
    for (const char c : text.substr(0, placeholder)) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte < 0x20 || byte >= 0x7f || kNotInUri.find(c) != std::string_view::npos) {
        return "must be a URL with its spaces and other special characters percent-encoded";
      }
    }
    if (placeholder == std::string_view::npos) break;
    const size_t end = text.find('}', placeholder);
    const std::string_view name = text.substr(placeholder + 2, end - placeholder - 2);
    if (end == std::string_view::npos || !has_word(kRedirectPlaceholders, name)) {
      return "has an unknown placeholder; there are ${scheme}, ${host}, ${path}, ${query}, ${uri}";
    }
    text.remove_prefix(end + 1);
  }
  return {};
}

std::expected<UpstreamServer, std::string> parse_server(std::string_view text) {
  if (text.starts_with(kHttps)) return parse_https_server(text.substr(kHttps.size()));
  UpstreamServer server;
  server.text = text;
  if (text.starts_with("http://")) {
    return std::unexpected("must be written without \"http://\", as in \"10.0.0.1:80\"");
  }
  if (text.starts_with("unix:")) {
    const auto address = base::SocketAddress::parse(text);
    if (!address) return std::unexpected("must be \"unix:/PATH\" with a path of 1 to 107 bytes");
    server.kind = UpstreamServer::Kind::kUnix;
    server.address = *address;
    return server;
  }
  const HostPort parts = split_port(text);
  if (!parts.port) return std::unexpected("needs a port, as in \"10.0.0.1:80\"");
  const auto port = parse_port(*parts.port);
  if (!port) return std::unexpected("has a port that is not a number between 1 and 65535");
  std::string_view host = parts.host;
  server.absolute =
      host.size() > 1 && host.ends_with('.') && is_host_name(host.substr(0, host.size() - 1));
  if (server.absolute) host.remove_suffix(1);
  if (const std::string complaint = check_host(host); !complaint.empty()) {
    return std::unexpected(complaint);
  }
  server.port = *port;
  if (const auto ip = parse_ip_host(host)) {
    server.address = base::SocketAddress::from_ip(*ip, *port);
  } else {
    server.kind = UpstreamServer::Kind::kName;
    server.host = base::lowercase(host);
  }
  return server;
}

std::expected<UpstreamServer, std::string> parse_srv_server(std::string_view text) {
  const bool https = text.starts_with(kHttps);
  const std::string_view name = https ? text.substr(kHttps.size()) : text;
  if (is_host_name(name)) {
    UpstreamServer server;
    server.kind = UpstreamServer::Kind::kName;
    server.text = name;
    server.host = base::lowercase(name);
    server.https = https;
    return server;
  }
  auto server = parse_server(text);
  if (server && server->kind == UpstreamServer::Kind::kName) {
    return std::unexpected("has a port, but with resolve_srv = true the SRV records say it: give " +
                           quoted(std::string(https ? kHttps : "") + server->host));
  }
  return server;
}

std::optional<base::SocketAddress> parse_name_server(std::string_view text) {
  constexpr uint16_t kDnsPort = 53;
  if (const auto ip = base::IpAddress::parse(text)) {
    return base::SocketAddress::from_ip(*ip, kDnsPort);
  }
  const HostPort parts = split_port(text);
  const auto ip = parse_ip_host(parts.host);
  const auto port = parts.port ? parse_port(*parts.port) : kDnsPort;
  if (!ip || !port) return std::nullopt;
  return base::SocketAddress::from_ip(*ip, *port);
}

std::expected<ProxyUrl, std::string> parse_proxy_url(std::string_view text) {
  const bool https = text.starts_with(kHttps);
  if (!https && !text.starts_with("http://")) {
    return std::unexpected("must be the name of an upstream or a URL such as " +
                           std::string("\"http://127.0.0.1:3000\", not ") + quoted(text));
  }
  ProxyUrl url{.https = https, .host = {}, .port = {}, .path = {}};
  const std::string_view rest = text.substr(https ? 8 : 7);
  const size_t end = std::min(rest.find_first_of("/?#"), rest.size());
  const std::string_view authority = rest.substr(0, end);
  if (authority.find('@') != std::string_view::npos) {
    return std::unexpected("must not contain a user name");
  }
  if (end < rest.size()) {
    auto path = parse_path(rest.substr(end));
    if (!path) return std::unexpected("path " + path.error());
    url.path = std::move(*path);
  }
  const HostPort parts = split_port(authority);
  if (parts.port) {
    url.port = parse_port(*parts.port);
    if (!url.port) return std::unexpected("has a port that is not a number between 1 and 65535");
  }
  if (const std::string complaint = check_host(parts.host); !complaint.empty()) {
    return std::unexpected(complaint);
  }
  url.host = parts.host;
  return url;
}

std::optional<route::HashKeySpec> parse_hash_key(std::string_view text) {
  using Source = route::HashKeySpec::Source;
  if (text == "client_ip") return route::HashKeySpec{.source = Source::kClientIp};
  if (text == "uri") return route::HashKeySpec{.source = Source::kUri};
  if (text == "path") return route::HashKeySpec{.source = Source::kPath};
  for (const auto& [prefix, source] : {std::pair{std::string_view("header:"), Source::kHeader},
                                       std::pair{std::string_view("cookie:"), Source::kCookie}}) {
    if (!text.starts_with(prefix)) continue;
    const std::string_view name = text.substr(prefix.size());
    if (!is_token(name)) return std::nullopt;
    return route::HashKeySpec{.source = source, .name = std::string(name)};
  }
  return std::nullopt;
}

}  // namespace weir::control::config
