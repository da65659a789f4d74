// Examples of the reference page, one for each section. A test loads every one of them.
#pragma once

#include <string_view>

namespace weir::control::config {

inline constexpr std::string_view kListenerExample = R"([[listener]]
address = "0.0.0.0:80"

[[listener]]
name = "local"
address = "unix:/run/weir/http.sock"
)";

inline constexpr std::string_view kServerExample = R"([server]
listen = ["0.0.0.0:80", "[::]:8080"]
threads = "auto"
shutdown_timeout = "30s"
max_body_size = "64MiB"
)";

inline constexpr std::string_view kTlsExample = R"([[listener]]
address = "0.0.0.0:443"
tls = true

[[listener]]
address = "0.0.0.0:80"
redirect_https = true

[tls]
cert_path = "/etc/weir/tls/example.com.crt"
key_path = "/etc/weir/tls/example.com.key"
)";

inline constexpr std::string_view kCertificatesExample = R"([[tls.certificates]]
hostname = ["example.org", "*.example.org"]
cert_path = "/etc/weir/tls/example.org.crt"
key_path = "/etc/weir/tls/example.org.key"
)";

inline constexpr std::string_view kLoggingExample = R"([logging]
level = "info"
access_log = "/var/log/weir/access.log"
access_format = "json"
max_log_size = "100MiB"
)";

inline constexpr std::string_view kPerformanceExample = R"([performance]
reuseport_balancing = "cbpf"
open_file_cache_valid = "10s"
)";

inline constexpr std::string_view kSecurityExample = R"([security]
max_concurrent_connections = 100_000
drop_privileges_user = "weir"
trusted_proxies = ["10.0.0.0/8"]
)";

inline constexpr std::string_view kLoadBalancerExample = R"([load_balancer]
type = "least_connections"
)";

inline constexpr std::string_view kUpstreamDefaultsExample = R"([upstream_defaults]
connect_timeout = "2s"
)";

inline constexpr std::string_view kUpstreamExample = R"([upstream.app]
servers = ["10.0.0.1:3000", {address = "10.0.0.2:3000", weight = 2}, "app.internal:3000"]
response_timeout = "5m"
retry_on = ["connect", "reset", 503]
total_timeout = "6m"

[upstream.cached]
servers = [
  "10.0.0.4:80",
  {address = "10.0.0.5:80", max_connections = 500},
  {address = "10.0.1.4:80", backup = true},
]
balance = "consistent_hash"
hash_key = "uri"
hash_load_bound = 150

[upstream.api]
servers = ["https://api.internal", "https://10.0.0.3:8443"]
tls_server_name = "api.internal"
tls_ca_path = "/etc/weir/tls/internal-ca.crt"
)";

inline constexpr std::string_view kResolverExample = R"([resolver]
servers = ["10.0.0.53", "[fd00::53]:53"]
max_ttl = "1m"
)";

inline constexpr std::string_view kControlExample = R"([control]
socket = "/run/weir/control.sock"
socket_mode = "0660"
)";

inline constexpr std::string_view kHealthCheckExample = R"([health_check]
path = "/healthz"
interval = "2s"
timeout = "1s"

[upstream.app]
servers = ["10.0.0.1:3000", "10.0.0.2:3000"]

[upstream.app.health_check]
headers = {Authorization = "Bearer ${CHECK_TOKEN:-none}"}
expected_status = [200, 204]

[upstream.mail]
servers = ["10.0.0.3:8025"]
health_check = {type = "tcp"}

[upstream.legacy]
servers = ["10.0.0.4:80"]
health_check = {enabled = false}
)";

inline constexpr std::string_view kPassiveCheckExample = R"([upstream.app]
servers = ["10.0.0.1:3000", "10.0.0.2:3000", "10.0.0.3:3000"]

[upstream.app.passive_check]
consecutive_errors = 3
slow_percent = 400
max_ejected_percent = 34
)";

inline constexpr std::string_view kCircuitBreakerExample = R"([upstream_defaults.circuit_breaker]
failures = 10
open_time = "2s"
)";

inline constexpr std::string_view kStickyExample = R"([upstream.shop]
servers = ["10.0.0.1:3000", "10.0.0.2:3000"]

[upstream.shop.sticky]
cookie = "shop_server"
max_age = "1h"
secure = true
)";

inline constexpr std::string_view kRouteExample = R"([[route]]
host = ["example.com", "*.example.com"]
path = "/api/"
methods = ["GET", "HEAD", "POST"]
headers = {"X-Version" = "2"}
proxy = "http://127.0.0.1:3000/v2/"

[[route]]
host = "old.example.com"
redirect = {url = "https://example.com${uri}", status = 301}

[[route]]
path = "/health"
match = "exact"
source = "10.0.0.0/8"
respond = {status = 200, body = "ok\n"}

[[route]]
path = "/chat"
proxy = "http://127.0.0.1:3001"
upgrade = ["websocket"]

[[route]]
connect = ["db.internal:5432", "10.0.0.1:443"]
source = "10.0.0.0/8"
)";

inline constexpr std::string_view kRespondExample = R"([[route]]
path = "/hello"

[route.respond]
status = 200
content_type = "text/html"
headers = {"Cache-Control" = "no-store"}
body = "<h1>Hello</h1>"
)";

inline constexpr std::string_view kFileExample = R"([[route]]
host = "www.example.com"
file = "/var/www/site"

[[route]]
host = "app.example.com"

[route.file]
path = "/var/www/app"
fallback = "index.html"
cache_control = "no-cache"
error_pages = {403 = "errors/403.html"}

[[route]]
host = "app.example.com"
path = "/assets/"
file = {path = "/var/www/app/assets", expires = "365d", mode = "memory"}
)";

inline constexpr std::string_view kMimeExample = R"([mime]
default_type = "text/plain"

[mime.types]
md = "text/markdown"
glb = "model/gltf-binary"
)";

inline constexpr std::string_view kShortExample = R"([host_routes."example.com"]
type = "Proxy"
url = "http://127.0.0.1:3000"

[path_routes."example.com"."/old/"]
type = "Redirect"
url = "/new/"
status = 301

[path_routes."example.com"."/api/"]
type = "Proxy"
url = "http://127.0.0.1:4000"
security = {allowed_methods = ["GET", "HEAD"], max_request_body_size = "1MiB"}

[path_routes."example.com"."/static/"]
type = "File"
path = "/var/www/static"
mode = "memory"
)";

// The opening of the page: a whole configuration.
inline constexpr std::string_view kWholeExample = R"([[listener]]
address = "0.0.0.0:8080"

[upstream.app]
servers = ["127.0.0.1:3000", "127.0.0.1:3001"]

[[route]]
path = "/"
proxy = "app"
)";

}  // namespace weir::control::config
