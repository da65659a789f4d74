// Names that people bring along from nginx, HAProxy, Traefik, Caddy and Envoy, and what weir calls
// them. A test holds every target against the schema.
#include <algorithm>
#include <array>

#include <weir/base/text.h>

#include "suggest.h"

namespace weir::control::config {

namespace {

constexpr std::string_view kOwn = "";  // the section where the name is typed

// Where what belongs to an upstream is typed: there, at one of its servers, or, as in Caddy and
// nginx, in the route.
constexpr std::string_view kUpstreams = "upstream.NAME upstream_defaults";
constexpr std::string_view kServers = "upstream.NAME upstream_defaults upstream.NAME.servers[]";
constexpr std::string_view kProxying =
    "upstream.NAME upstream_defaults upstream.NAME.servers[] route path_routes.HOST.PATH";
constexpr std::string_view kUpstream = "upstream.NAME";
// Where what belongs to the process, or to a site, is typed.
constexpr std::string_view kProcess = ". server";
constexpr std::string_view kSite = ". server listener";
constexpr std::string_view kCertificates = "tls tls.certificates";

constexpr std::string_view kOpposite = ", with the opposite meaning";
constexpr std::string_view kWithPort = " with the port in it";

constexpr std::array kChoosing = {
    ForeignKey{kProxying,
               "lb_policy lb_method lb_algorithm policy strategy load_balancing load_balancer "
               "load_balancing_policy least_conn least_connections ip_hash round_robin "
               "random consistent_hash hash_type",
               kUpstream, "balance"},
    ForeignKey{kUpstreams, "method", kUpstream, "balance"},
    ForeignKey{kProxying, "hash hash_on hash_policy hash_by", kUpstream, "hash_key"},
    ForeignKey{kProxying, "hash_balance_factor bounded_load", kUpstream, "hash_load_bound"},
    ForeignKey{"upstream.NAME.servers[]", "slow_start slow_start_window", kUpstream, "slow_start"},
    ForeignKey{kUpstreams, "slow_start_config slow_start_window", kUpstream, "slow_start"},
    ForeignKey{"upstream.NAME",
               "endpoints targets hosts backends nodes members load_assignment lb_endpoints urls",
               kOwn, "servers"},
    ForeignKey{"upstream.NAME.servers[]", "server url uri host addr ip target endpoint", kOwn,
               "address"},
    ForeignKey{"upstream.NAME.servers[]", "port", kOwn, "address", kWithPort},
    ForeignKey{"upstream.NAME.servers[]", "load_balancing_weight", kOwn, "weight"},
    ForeignKey{"load_balancer",
               "balance algorithm method policy strategy lb_policy lb_method load_balancing_policy",
               kOwn, "type"},
};

constexpr std::array kConnections = {
    ForeignKey{kProxying, "proxy_connect_timeout timeout_connect dial_timeout", kUpstream,
               "connect_timeout"},
    ForeignKey{kProxying, "proxy_read_timeout timeout_server", kUpstream,
               "response_timeout read_timeout"},
    ForeignKey{kProxying, "timeout request_timeout proxy_timeout", kUpstream,
               "response_timeout total_timeout"},
    ForeignKey{kProxying, "response_header_timeout", kUpstream, "response_timeout"},
    ForeignKey{kProxying, "proxy_send_timeout write_timeout", kUpstream, "send_timeout"},
    ForeignKey{kServers,
               "keepalive keepalive_idle_conns keepalive_idle_conns_per_host max_idle_conns "
               "max_idle_conns_per_host max_idle_connections pool_max_conn pool_size",
               kUpstream, "max_idle_connections_per_host"},
    ForeignKey{kServers,
               "keepalive_timeout keepalive_idle_timeout idle_timeout idle_conn_timeout "
               "pool_purge_delay",
               kUpstream, "idle_connection_timeout"},
    ForeignKey{kServers, "keepalive_time max_connection_duration max_lifetime", kUpstream,
               "max_connection_lifetime"},
    ForeignKey{kServers, "maxconn max_conns max_conns_per_host fullconn", kOwn, "max_connections"},
    ForeignKey{kServers, "maxqueue queue queue_size max_pending_requests", kUpstream,
               "max_pending"},
    ForeignKey{kServers, "timeout_queue queue_timeout", kUpstream, "pending_timeout"},
    ForeignKey{kProxying,
               "pass_host_header preserve_host preserve_host_header host_rewrite "
               "host_rewrite_literal upstream_host",
               kUpstream, "host_header"},
    ForeignKey{kServers, "dns_lookup_family resolve_prefer address_family ip_family", kUpstream,
               "resolve_family"},
    ForeignKey{kServers, "srv service dynamic_srv", kUpstream, "resolve_srv"},
    ForeignKey{kServers, "dns_refresh_rate", "resolver", "max_ttl"},
};

constexpr std::array kRetrying = {
    ForeignKey{kProxying, "proxy_next_upstream", kUpstream, "retry_on"},
    ForeignKey{kProxying, "proxy_next_upstream_tries lb_retries num_retries max_retries attempts",
               kUpstream, "retries"},
    ForeignKey{kProxying, "proxy_next_upstream_timeout lb_try_duration", kUpstream,
               "total_timeout"},
    ForeignKey{kProxying, "per_try_timeout", kUpstream, "try_timeout"},
    ForeignKey{kProxying, "non_idempotent", kUpstream, "retry_non_idempotent"},
    ForeignKey{kUpstreams, "retry_policy", kUpstream, "retries retry_on"},
    ForeignKey{kProxying, "hedge_policy hedging", kUpstream, "hedge_after"},
    ForeignKey{kUpstreams, "budget_percent", kUpstream, "retry_budget"},
};

constexpr std::array kUpstreamTlsNames = {
    ForeignKey{kServers, "ssl https use_tls use_ssl transport_socket", kUpstream, "tls"},
    ForeignKey{"upstream.NAME.servers[]", "tls", kUpstream, "tls"},
    ForeignKey{kServers, "verify ssl_verify", kUpstream, "tls_verify"},
    ForeignKey{kProxying, "proxy_ssl_verify", kUpstream, "tls_verify"},
    ForeignKey{kProxying, "insecure_skip_verify tls_insecure_skip_verify", kUpstream, "tls_verify",
               kOpposite},
    ForeignKey{kServers, "ca ca_file ca_cert root_ca root_cas trusted_ca", kUpstream,
               "tls_ca_path"},
    ForeignKey{kProxying, "proxy_ssl_trusted_certificate tls_trusted_ca_certs", kUpstream,
               "tls_ca_path"},
    ForeignKey{kServers, "crt cert client_cert certificate", kUpstream, "tls_cert_path"},
    ForeignKey{kProxying, "proxy_ssl_certificate", kUpstream, "tls_cert_path"},
    ForeignKey{kServers, "key client_key private_key", kUpstream, "tls_key_path"},
    ForeignKey{kProxying, "proxy_ssl_certificate_key", kUpstream, "tls_key_path"},
    ForeignKey{kServers, "sni server_name", kUpstream, "tls_server_name"},
    ForeignKey{kProxying, "proxy_ssl_name", kUpstream, "tls_server_name"},
    ForeignKey{kProxying, "proxy_ssl_protocols", kUpstream, "tls_min_version"},
};

// Active checks, typed where nginx, HAProxy and Caddy have them, and in the table itself.
constexpr std::array kHealthNames = {
    ForeignKey{kProxying, "check health health_checks active_health_check active_health_checks",
               "health_check", ""},
    ForeignKey{"upstream_defaults upstream.NAME.servers[] route path_routes.HOST.PATH",
               "healthcheck", "health_check", ""},
    ForeignKey{kProxying, "inter health_interval health_check_interval check_interval",
               "health_check", "interval"},
    ForeignKey{kProxying, "fastinter downinter", "health_check", "interval",
               ", the same in every state"},
    ForeignKey{kProxying, "fall", "health_check", "unhealthy_threshold"},
    ForeignKey{kProxying, "rise", "health_check", "healthy_threshold"},
    ForeignKey{kProxying, "timeout_check health_timeout health_check_timeout check_timeout",
               "health_check", "timeout"},
    ForeignKey{kProxying, "httpchk option_httpchk health_uri health_path health_check_path",
               "health_check", "path"},
    ForeignKey{kProxying, "health_port health_check_port check_port", "health_check", "port"},
    ForeignKey{kProxying, "health_status http_check_expect", "health_check", "expected_status"},
    ForeignKey{kProxying, "health_body", "health_check", "expected_body"},
    ForeignKey{kProxying, "health_headers", "health_check", "headers"},
    ForeignKey{kProxying, "health_method", "health_check", "method"},

    ForeignKey{"health_check", "inter check_interval period", kOwn, "interval"},
    ForeignKey{"health_check", "fastinter downinter", kOwn, "interval",
               ", the same in every state"},
    ForeignKey{"health_check",
               "fall fails max_fails failures retries failure_threshold max_failures", kOwn,
               "unhealthy_threshold"},
    ForeignKey{"health_check", "rise passes successes success_threshold", kOwn,
               "healthy_threshold"},
    ForeignKey{"health_check", "timeout_check check_timeout", kOwn, "timeout"},
    ForeignKey{"health_check", "uri url endpoint httpchk option_httpchk", kOwn, "path"},
    ForeignKey{"health_check", "expect http_check_expect match status codes", kOwn,
               "expected_status"},
    ForeignKey{"health_check", "body receive match_body expect_string", kOwn, "expected_body"},
    ForeignKey{"health_check", "hostname host_header server_name", kOwn, "host"},
    ForeignKey{"health_check", "scheme mode protocol", kOwn, "type"},
    ForeignKey{"health_check", "interval_jitter interval_jitter_percent initial_jitter", kOwn,
               "jitter"},
    ForeignKey{"health_check", "http_headers request_headers request_headers_to_add", kOwn,
               "headers"},
    ForeignKey{"health_check", "http_method verb", kOwn, "method"},
    ForeignKey{"health_check", "mandatory", kOwn, "initially_healthy", kOpposite},
};

constexpr std::array kPassiveNames = {
    ForeignKey{kProxying,
               "outlier_detection outlier observe passive_health_check passive_health_checks",
               "passive_check", ""},
    ForeignKey{kProxying, "max_fails error_limit max_failed_attempts consecutive_5xx",
               "passive_check", "consecutive_errors"},
    ForeignKey{kProxying, "fail_timeout fail_duration", "passive_check", "ejection_time window"},
    ForeignKey{kProxying, "base_ejection_time", "passive_check", "ejection_time"},
    ForeignKey{kProxying, "max_ejection_percent", "passive_check", "max_ejected_percent"},
    ForeignKey{"passive_check",
               "consecutive_5xx consecutive_5xx_errors consecutive_gateway_failure "
               "consecutive_gateway_errors consecutive_local_origin_failure consecutive_failures "
               "max_fails fails error_limit max_failed_attempts failures",
               kOwn, "consecutive_errors"},
    ForeignKey{"passive_check", "fail_timeout fail_duration", kOwn, "ejection_time window"},
    ForeignKey{"passive_check", "interval failure_window", kOwn, "window"},
    ForeignKey{"passive_check", "base_ejection_time", kOwn, "ejection_time"},
    ForeignKey{"passive_check", "max_ejection_time", kOwn, "ejection_time_max"},
    ForeignKey{"passive_check", "max_ejection_percent", kOwn, "max_ejected_percent"},
    ForeignKey{"passive_check", "failure_percentage_threshold error_rate error_ratio", kOwn,
               "error_percent"},
    ForeignKey{"passive_check",
               "failure_percentage_request_volume success_rate_request_volume request_volume "
               "min_requests",
               kOwn, "error_requests_min"},
};

constexpr std::array kCircuitNames = {
    ForeignKey{"circuit_breaker",
               "max_failures consecutive_failures consecutive_errors failure_threshold threshold "
               "max_fails consecutive_5xx",
               kOwn, "failures"},
    ForeignKey{"circuit_breaker",
               "timeout fallback_duration sleep_window reset_timeout break_duration open_timeout",
               kOwn, "open_time"},
    ForeignKey{"circuit_breaker", "half_open_requests half_open_max_requests", kOwn, "trials"},
    ForeignKey{"circuit_breaker", "success_threshold", kOwn, "successes"},
    ForeignKey{"circuit_breaker", "max_connections", kUpstream, "max_connections"},
    ForeignKey{"circuit_breaker", "max_pending max_pending_requests", kUpstream, "max_pending"},
    ForeignKey{"circuit_breaker", "max_retries", kUpstream, "retry_budget"},
};

constexpr std::array kStickyNames = {
    ForeignKey{kUpstreams, "session_affinity affinity sticky_sessions stickiness", "sticky", ""},
    ForeignKey{kUpstreams, "sticky_cookie cookie_name", "sticky", "cookie"},
    ForeignKey{"sticky", "name cookie_name", kOwn, "cookie"},
    ForeignKey{"sticky", "expires expire ttl lifetime", kOwn, "max_age"},
    ForeignKey{"sticky", "secret secret_file key", kOwn, "key_file"},
};

constexpr std::array kServiceNames = {
    ForeignKey{"resolver", "nameserver nameservers address addresses resolver dns", kOwn,
               "servers"},
    ForeignKey{"resolver", "resolver_timeout timeout_resolve timeout_retry", kOwn, "timeout"},
    ForeignKey{"resolver", "retries resolve_retries attempts", kOwn, "tries"},
    ForeignKey{"resolver", "valid hold_valid ttl refresh dns_refresh_rate", kOwn, "max_ttl"},
    ForeignKey{"resolver", "hosts_file", kOwn, "hosts"},
    ForeignKey{"resolver", "ipv4 ipv6 dns_lookup_family resolve_prefer", "upstream_defaults",
               "resolve_family"},
    ForeignKey{"control",
               "path stats_socket unix_socket admin_socket socket_path listen bind address", kOwn,
               "socket"},
    ForeignKey{"control", "mode permissions", kOwn, "socket_mode"},
    ForeignKey{kProcess, "stats_socket", "control", "socket"},
};

constexpr std::array kListenerNames = {
    ForeignKey{"listener", "listen bind addr host ip interface", kOwn, "address"},
    ForeignKey{"listener", "port", kOwn, "address", kWithPort},
    ForeignKey{"listener", "ssl https", kOwn, "tls"},
    ForeignKey{"listener", "force_ssl https_redirect redirect_to_https redirect_scheme", kOwn,
               "redirect_https"},
    ForeignKey{"server", "bind address addr", kOwn, "listen"},
    ForeignKey{"server", "port", kOwn, "listen", kWithPort},
    ForeignKey{kSite, "ssl_certificate cert certificate crt cert_file", "tls", "cert_path"},
    ForeignKey{kSite, "ssl_certificate_key key private_key certificate_key", "tls", "key_path"},
    ForeignKey{kSite, "server_name", "route", "host"},
    ForeignKey{kSite, "location", "route", ""},
    ForeignKey{kSite, "proxy_pass reverse_proxy use_backend default_backend", "route", "proxy"},
    ForeignKey{kSite, "root document_root file_server", "route", "file"},
    ForeignKey{kSite, "maxconn worker_connections max_connections", "security",
               "max_concurrent_connections"},
};

constexpr std::array kProcessNames = {
    ForeignKey{"server", "worker_processes workers worker_threads nbthread nbproc concurrency",
               kOwn, "threads"},
    ForeignKey{". performance",
               "worker_processes workers worker_threads nbthread nbproc concurrency", "server",
               "threads"},
    ForeignKey{"server", "worker_cpu_affinity cpu_map cpu_affinity", kOwn, "cpus"},
    ForeignKey{". performance", "worker_cpu_affinity cpu_map cpu_affinity", "server", "cpus"},
    ForeignKey{"server", "server_tokens", kOwn, "server_header"},
    ForeignKey{"server", "keepalive_requests", kOwn, "max_requests_per_connection"},
    ForeignKey{"server", "timeout_http_keep_alive idle_timeout keepalive", kOwn,
               "keepalive_timeout"},
    ForeignKey{"server", "timeout_http_request read_header_timeout", kOwn, "client_header_timeout"},
    ForeignKey{"server", "timeout_client", kOwn, "client_body_timeout send_timeout"},
    ForeignKey{"server", "write_timeout", kOwn, "send_timeout"},
    ForeignKey{"server", "timeout_tunnel", kOwn, "tunnel_idle_timeout"},
    ForeignKey{"server",
               "large_client_header_buffers client_header_buffer_size max_header_bytes "
               "max_request_headers_kb",
               kOwn, "max_header_size"},
    ForeignKey{"server", "max_headers max_headers_count maxhdr", kOwn, "max_header_fields"},
    ForeignKey{"server",
               "hard_stop_after worker_shutdown_timeout grace_period grace_timeout drain_time "
               "stop_timeout",
               kOwn, "shutdown_timeout"},
    ForeignKey{"server", "forwardfor option_forwardfor use_remote_address", kOwn, "x_forwarded"},
    ForeignKey{"security", "maxconn max_connections worker_connections", kOwn,
               "max_concurrent_connections"},
    ForeignKey{"security", "user", kOwn, "drop_privileges_user"},
    ForeignKey{"security", "group", kOwn, "drop_privileges_group"},
    ForeignKey{kProcess, "user", "security", "drop_privileges_user"},
    ForeignKey{kProcess, "group", "security", "drop_privileges_group"},
    ForeignKey{"security", "set_real_ip_from trusted_ips", kOwn, "trusted_proxies"},
    ForeignKey{kProcess, "set_real_ip_from trusted_ips", "security", "trusted_proxies"},
    ForeignKey{kProcess, "error_log", "logging", "file_path"},
    ForeignKey{kProcess, "log_level", "logging", "level"},
    ForeignKey{kProcess, "log_format", "logging", "access_format"},
    ForeignKey{"logging", "error_log file path output log_file", kOwn, "file_path"},
    ForeignKey{"logging", "format log_format", kOwn, "access_format"},
    ForeignKey{"logging", "log_level severity", kOwn, "level"},
    ForeignKey{"logging", "max_size roll_size", kOwn, "max_log_size"},
    ForeignKey{"logging", "max_backups max_files roll_keep", kOwn, "max_log_files"},
    ForeignKey{"performance", "reuseport", kOwn, "reuseport_balancing"},
    ForeignKey{"performance", "open_file_cache", kOwn, "open_file_cache_entries"},
    ForeignKey{"mime", "mime_types", kOwn, "types"},
};

// Tables.
constexpr std::array kTopNames = {
    ForeignKey{".", "backend backends cluster clusters pool pools services", kUpstream, ""},
    ForeignKey{".", "locations routers virtual_hosts vhost sites", "route", ""},
    ForeignKey{".", "frontend frontends entrypoint entrypoints bind", "listener", ""},
    ForeignKey{".", "global events", "server", ""},
    ForeignKey{".", "defaults", "upstream_defaults", ""},
    ForeignKey{".", "ssl certs", "tls", ""},
    ForeignKey{".", "log logs", "logging", ""},
    ForeignKey{".", "dns nameservers", "resolver", ""},
    ForeignKey{".", "health health_checks", "health_check", ""},
    ForeignKey{".", "outlier_detection passive_health_check", "passive_check", ""},
    ForeignKey{".", "lb_policy lb_method", "load_balancer", "type"},
};

constexpr std::array kTlsNames = {
    ForeignKey{kCertificates,
               "cert certificate cert_file certificate_file crt ssl_certificate fullchain", kOwn,
               "cert_path"},
    ForeignKey{kCertificates,
               "key key_file private_key certificate_key ssl_certificate_key privkey", kOwn,
               "key_path"},
    ForeignKey{kCertificates, "ssl_password_file passphrase password key_password", kOwn,
               "key_passphrase_file"},
    ForeignKey{kCertificates, "ssl_stapling_file ocsp ocsp_file ocsp_staple", kOwn,
               "ocsp_response_path"},
    ForeignKey{"tls.certificates", "sni host hosts domain domains server_name names", kOwn,
               "hostname"},
    ForeignKey{"tls", "protocols ssl_protocols", kOwn, "min_version max_version"},
    ForeignKey{"tls", "min_tls_version ssl_min_ver tls_minimum_protocol_version", kOwn,
               "min_version"},
    ForeignKey{"tls", "max_tls_version ssl_max_ver tls_maximum_protocol_version", kOwn,
               "max_version"},
    ForeignKey{"tls", "ssl_ciphers", kOwn, "ciphers"},
    ForeignKey{"tls", "ecdh_curves ssl_ecdh_curve curve_preferences", kOwn, "groups"},
    ForeignKey{"tls", "ssl_session_tickets tickets", kOwn, "session_tickets"},
    ForeignKey{"tls", "ssl_session_timeout session_timeout", kOwn, "session_lifetime"},
    ForeignKey{"tls", "ssl_session_ticket_key session_ticket_key ticket_keys tls_ticket_keys", kOwn,
               "ticket_key_files"},
    ForeignKey{"tls", "ca ca_file client_ca ssl_client_certificate trusted_ca", kOwn,
               "client_ca_path"},
    ForeignKey{"tls", "crl crl_file ssl_crl", kOwn, "client_crl_path"},
    ForeignKey{"tls", "verify verify_client ssl_verify_client require_client_certificate", kOwn,
               "client_auth"},
    ForeignKey{"tls", "verify_depth ssl_verify_depth", kOwn, "client_verify_depth"},
    ForeignKey{"tls", "ktls", kOwn, "ktls_enabled"},
};

constexpr std::array kRouteNames = {
    ForeignKey{"route",
               "proxy_pass reverse_proxy upstream backend use_backend default_backend cluster "
               "service proxy_url",
               kOwn, "proxy"},
    ForeignKey{"path_routes.HOST.PATH",
               "proxy_pass reverse_proxy proxy backend use_backend default_backend cluster service "
               "proxy_url",
               kOwn, "url"},
    ForeignKey{"route", "server_name hostname domain domains server_names", kOwn, "host"},
    ForeignKey{"route", "location uri prefix path_prefix", kOwn, "path"},
    ForeignKey{"route", "root alias document_root file_server static", kOwn, "file"},
    ForeignKey{"path_routes.HOST.PATH route.file", "root alias document_root directory", kOwn,
               "path"},
    ForeignKey{"route", "return", kOwn, "redirect respond"},
    ForeignKey{"route", "redir", kOwn, "redirect"},
    ForeignKey{"route", "remote_ip remote_addr src client_ip", kOwn, "source"},
    ForeignKey{"route", "query_string query_params query_parameters args", kOwn, "query"},
    ForeignKey{"route", "limit_except request_method", kOwn, "methods"},
    ForeignKey{"route", "websocket websockets upgrade_configs", kOwn, "upgrade"},
    ForeignKey{"route", "try_files", "route.file", "fallback"},
    ForeignKey{"route", "autoindex browse", "route.file", "listing"},
    ForeignKey{"path_routes.HOST.PATH route.file", "try_files", kOwn, "fallback"},
    ForeignKey{"path_routes.HOST.PATH route.file", "autoindex browse directory_listing", kOwn,
               "listing"},
    ForeignKey{"path_routes.HOST.PATH route.file", "index_names", kOwn, "index"},
    ForeignKey{"path_routes.HOST.PATH route.file", "disable_symlinks follow_symlinks", kOwn,
               "symlinks"},
    ForeignKey{"path_routes.HOST.PATH route.file", "gzip_static brotli_static", kOwn,
               "precompressed"},
    ForeignKey{"path_routes.HOST.PATH route.file", "max_age", kOwn, "expires cache_control"},
    ForeignKey{"path_routes.HOST.PATH.security", "limit_except methods", kOwn, "allowed_methods"},
    ForeignKey{"route.redirect", "to target location uri", kOwn, "url"},
    ForeignKey{"route.redirect route.respond path_routes.HOST.PATH",
               "code status_code response_code", kOwn, "status"},
    ForeignKey{"route.respond", "text content", kOwn, "body"},
    ForeignKey{"route.respond", "default_type type mime_type", kOwn, "content_type"},
};

template <size_t... N>
constexpr auto joined_rows(const std::array<ForeignKey, N>&... parts) {
  std::array<ForeignKey, (N + ...)> result{};
  auto at = result.begin();
  ((at = std::ranges::copy(parts, at).out), ...);
  return result;
}

constexpr auto kForeignKeys =
    joined_rows(kChoosing, kConnections, kRetrying, kUpstreamTlsNames, kHealthNames, kPassiveNames,
                kCircuitNames, kStickyNames, kServiceNames, kListenerNames, kProcessNames,
                kTopNames, kTlsNames, kRouteNames);

constexpr std::string_view kByBalance = "balance type";

constexpr std::array kForeignValues = {
    ForeignValue{kByBalance, "roundrobin rr wrr weighted_round_robin static_rr", "round_robin"},
    ForeignValue{kByBalance, "leastconn least_connection", "least_connections"},
    ForeignValue{kByBalance, "least_request", "least_connections two_choices"},
    ForeignValue{kByBalance,
                 "p2c power_of_two power_of_two_choices random_choose random_two least_time ewma "
                 "peak_ewma",
                 "two_choices"},
    ForeignValue{kByBalance, "source source_ip client_ip client_ip_hash", "ip_hash"},
    ForeignValue{kByBalance, "maglev ring_hash ketama hrw rendezvous consistent hash",
                 "consistent_hash"},
    ForeignValue{kByBalance, "uri uri_hash", "consistent_hash", " with hash_key = \"uri\""},
    ForeignValue{kByBalance, "hdr header", "consistent_hash", " with hash_key = \"header:NAME\""},
    ForeignValue{kByBalance, "cookie cookie_hash", "consistent_hash",
                 " with hash_key = \"cookie:NAME\""},
    ForeignValue{kByBalance, "rand", "random"},
    ForeignValue{"type", "httpchk", "http"},
    ForeignValue{"type", "ssl ssl_hello_chk", "tls"},
    ForeignValue{"type", "connect l4 tcp_check", "tcp"},
    ForeignValue{"resolve_family", "auto all both", "any"},
    ForeignValue{"resolve_family", "v4 v4_only ipv4_only inet", "ipv4"},
    ForeignValue{"resolve_family", "v6 v6_only ipv6_only inet6", "ipv6"},
    ForeignValue{"level", "notice", "info"},
    ForeignValue{"level", "err crit critical alert emerg fatal panic", "error"},
    ForeignValue{"level", "none disabled", "off"},
    ForeignValue{"access_format", "main", "combined"},
    ForeignValue{"access_format", "clf ncsa httplog", "common"},
    ForeignValue{"min_version max_version tls_min_version", "tlsv1.2 tls1.2 tls12 versiontls12",
                 "1.2"},
    ForeignValue{"min_version max_version tls_min_version", "tlsv1.3 tls1.3 tls13 versiontls13",
                 "1.3"},
    ForeignValue{"client_auth", "on require verify require_and_verify", "required"},
    ForeignValue{"client_auth", "request verify_if_given optional_no_ca", "optional"},
    ForeignValue{"client_auth", "none no_client_cert", "off"},
    ForeignValue{"match", "path_prefix starts_with", "prefix"},
    ForeignValue{"match", "equal equals full", "exact"},
};

// Without regard to case and to how words are joined: "failTimeout" is "fail_timeout".
bool same_name(std::string_view a, std::string_view b) noexcept {
  const auto skip_joints = [](std::string_view& text) {
    while (text.starts_with('_') || text.starts_with('-') || text.starts_with(' ')) {
      text.remove_prefix(1);
    }
  };
  while (true) {
    skip_joints(a);
    skip_joints(b);
    if (a.empty() || b.empty()) return a.empty() && b.empty();
    if (base::to_lower(a.front()) != base::to_lower(b.front())) return false;
    a.remove_prefix(1);
    b.remove_prefix(1);
  }
}

bool has_name(std::string_view names, std::string_view name) noexcept {
  while (!names.empty()) {
    const size_t space = names.find(' ');
    if (same_name(names.substr(0, space), name)) return true;
    names.remove_prefix(space == std::string_view::npos ? names.size() : space + 1);
  }
  return false;
}

bool has_setting(const Section& section, std::string_view key) noexcept {
  return std::ranges::find(section.settings, key, &Setting::key) != section.settings.end();
}

// "a" or "b"
std::string alternatives(std::string_view words) {
  std::string result;
  for (const std::string_view word : split_words(words)) {
    result.append(result.empty() ? "" : " or ").append(quoted(word));
  }
  return result;
}

// Some tables exist for all upstreams and for one: the one that is nearer to where the reader is.
std::string_view nearer_header(const Section& target, const Section& here) noexcept {
  const size_t comma = target.header.find(", ");
  if (comma == std::string_view::npos) return target.header;
  const bool general = here.name.empty() || here.name == "upstream_defaults";
  return general ? target.header.substr(0, comma) : target.header.substr(comma + 2);
}

// Whether what [upstream.NAME] has, or another section, is a matter of `here` itself.
bool is_own(const ForeignKey& row, const Section& here) {
  if (row.section.empty() || row.section == here.name) return true;
  if (row.section != kUpstream || here.name != "upstream_defaults") return false;
  const auto words = split_words(row.settings);
  return !words.empty() && std::ranges::all_of(words, [&here](std::string_view word) {
    return has_setting(here, word);
  });
}

}  // namespace

std::span<const ForeignKey> foreign_keys() { return kForeignKeys; }

std::span<const ForeignValue> foreign_values() { return kForeignValues; }

std::string foreign_key_hint(const Section& here, std::string_view key) {
  const std::string_view where = here.name.empty() ? "." : here.name;
  for (const ForeignKey& row : kForeignKeys) {
    if (!has_word(row.where, where) || !has_name(row.names, key)) continue;
    std::string hint = "did you mean " + alternatives(row.settings);
    if (!is_own(row, here)) {
      hint.append(row.settings.empty() ? "" : " in ");
      hint.append(nearer_header(section(row.section), here));
    }
    return hint.append(row.remark).append("?");
  }
  return {};
}

std::string foreign_value_hint(const Setting& setting, std::string_view value) {
  for (const ForeignValue& row : kForeignValues) {
    if (!has_word(row.keys, setting.key) || !has_name(row.names, value)) continue;
    const auto choices = split_words(row.choices);
    if (!std::ranges::all_of(choices, [&setting](std::string_view choice) {
          return has_word(setting.choices, choice);
        })) {
      continue;
    }
    return "did you mean " + alternatives(row.choices).append(row.remark) + "?";
  }
  return {};
}

}  // namespace weir::control::config
