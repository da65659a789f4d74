// Keys of features that later releases bring. They are refused by name, so that a configuration
// never seems to have what it has not.
#include <array>

#include <weir/control/config/schema.h>

namespace weir::control::config {

namespace {

constexpr std::string_view kAcme = "the automatic certificates release";
constexpr std::string_view kEarlyData = "the early data release";
constexpr std::string_view kHttp2 = "the HTTP/2 release";
constexpr std::string_view kHttp3 = "the HTTP/3 release";
constexpr std::string_view kAccess = "the access control release";
constexpr std::string_view kHeaders = "the header rules release";
constexpr std::string_view kCompression = "the compression release";
constexpr std::string_view kCache = "the caching release";
constexpr std::string_view kMetrics = "the metrics and administration release";
constexpr std::string_view kPlugins = "the plugin release";
constexpr std::string_view kTcp = "the TCP and UDP release";
constexpr std::string_view kSandbox = "the sandbox release";
constexpr std::string_view kProxyProtocol = "the PROXY protocol release";
constexpr std::string_view kErrorPages = "the error pages release";

constexpr std::array kLater = {
    LaterKey{"", "acme", kAcme},
    LaterKey{"", "http2", kHttp2},
    LaterKey{"", "http3", kHttp3},
    LaterKey{"", "rate_limit", kAccess},
    LaterKey{"", "compression", kCompression},
    LaterKey{"", "cache", kCache},
    LaterKey{"", "metrics", kMetrics},
    LaterKey{"", "admin", kMetrics},
    LaterKey{"", "prometheus", kMetrics},
    LaterKey{"", "plugins", kPlugins},
    LaterKey{"", "wasm", kPlugins},
    LaterKey{"", "tcp", kTcp},
    LaterKey{"", "udp", kTcp},
    LaterKey{"", "l4", kTcp},
    LaterKey{"", "stream", kTcp},
    LaterKey{"", "sandbox", kSandbox},
    LaterKey{"", "error_pages", kErrorPages},

    LaterKey{"listener", "http2*", kHttp2},
    LaterKey{"listener", "http3*", kHttp3},
    LaterKey{"listener", "proxy_protocol", kProxyProtocol},
    LaterKey{"listener", "mode", kTcp},

    LaterKey{"server", "http2*", kHttp2},
    LaterKey{"server", "h2c*", kHttp2},
    LaterKey{"server", "http3*", kHttp3},
    LaterKey{"server", "proxy_protocol", kProxyProtocol},
    LaterKey{"server", "error_pages", kErrorPages},

    LaterKey{"security", "enable_seccomp", kSandbox},
    LaterKey{"security", "seccomp*", kSandbox},
    LaterKey{"security", "enable_landlock", kSandbox},
    LaterKey{"security", "landlock*", kSandbox},
    LaterKey{"security", "enable_sandbox", kSandbox},
    LaterKey{"security", "sandbox*", kSandbox},
    LaterKey{"security", "allow_security_failures", kSandbox},
    LaterKey{"security", "blocked_ips", kAccess},
    LaterKey{"security", "allowed_ips", kAccess},
    LaterKey{"security", "denied_ips", kAccess},
    LaterKey{"security", "rate_limit*", kAccess},

    LaterKey{"tls", "acme*", kAcme},
    LaterKey{"tls", "auto*", kAcme},
    LaterKey{"tls", "early_data*", kEarlyData},

    LaterKey{"upstream.NAME", "protocol", kHttp2},
    LaterKey{"upstream.NAME", "proxy_protocol", kProxyProtocol},

    LaterKey{"route", "rate_limit*", kAccess},
    LaterKey{"route", "auth*", kAccess},
    LaterKey{"route", "basic_auth", kAccess},
    LaterKey{"route", "jwt", kAccess},
    LaterKey{"route", "cors", kAccess},
    LaterKey{"route", "allowed_ips", kAccess},
    LaterKey{"route", "denied_ips", kAccess},
    LaterKey{"route", "security", kAccess},
    LaterKey{"route", "request_headers", kHeaders},
    LaterKey{"route", "response_headers", kHeaders},
    LaterKey{"route", "compress*", kCompression},
    LaterKey{"route", "cache*", kCache},
    LaterKey{"route", "early_data", kEarlyData},
    LaterKey{"route", "plugins", kPlugins},
    LaterKey{"route", "error_pages", kErrorPages},

    LaterKey{"path_routes.HOST.PATH", "compression", kCompression},
    LaterKey{"path_routes.HOST.PATH", "cache", kCache},
    LaterKey{"path_routes.HOST.PATH", "early_data", kEarlyData},
    LaterKey{"path_routes.HOST.PATH", "use_h2c", kHttp2},
    LaterKey{"path_routes.HOST.PATH.security", "allowed_ips", kAccess},
    LaterKey{"path_routes.HOST.PATH.security", "denied_ips", kAccess},
    LaterKey{"path_routes.HOST.PATH.security", "rate_limit*", kAccess},
    LaterKey{"path_routes.HOST.PATH.security", "basic_auth*", kAccess},
    LaterKey{"path_routes.HOST.PATH.security", "jwt*", kAccess},
    LaterKey{"path_routes.HOST.PATH.security", "cors*", kAccess},
    LaterKey{"path_routes.HOST.PATH.security", "add_*", kHeaders},
    LaterKey{"path_routes.HOST.PATH.security", "remove_*", kHeaders},
};

bool fits(std::string_view pattern, std::string_view key) noexcept {
  if (!pattern.ends_with('*')) return pattern == key;
  return key.starts_with(pattern.substr(0, pattern.size() - 1));
}

}  // namespace

std::span<const LaterKey> later_keys() { return kLater; }

std::string_view later_feature(std::string_view section_name, std::string_view key) {
  for (const LaterKey& later : kLater) {
    if (later.section == section_name && fits(later.key, key)) return later.feature;
  }
  return {};
}

}  // namespace weir::control::config
