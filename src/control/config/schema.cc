#include <weir/control/config/schema.h>

#include <array>
#include <bit>
#include <string>

#include <weir/base/check.h>
#include <weir/control/config/config.h>

#include "binding.h"
#include "custom_settings.h"
#include "examples.h"
#include "schema_failover.h"
#include "schema_files.h"
#include "schema_health.h"
#include "schema_parts.h"
#include "schema_routes.h"
#include "schema_service.h"
#include "schema_tls.h"
#include "schema_upstream.h"
#include "suggest.h"
#include "syntax.h"
#include "units.h"

namespace weir::control::config {

namespace {

using enum ValueType;

// Milliseconds of a timeout fit 32 bits in a snapshot.
static_assert(30 * kDay < UINT32_MAX);

// Complaints about values of the right type.

std::string_view check_target(const ScalarValue& value) {
  return value.text.empty() || !is_field_value(value.text) ? "must name a file or a stream" : "";
}

std::string_view check_pseudonym(const ScalarValue& value) {
  return value.text.empty() || is_token(value.text)
             ? ""
             : "must be letters, digits and marks without spaces, or empty";
}

std::string_view check_account(const ScalarValue& value) {
  return value.text.find_first_of(" \t\r\n:/") == std::string_view::npos &&
                 is_field_value(value.text)
             ? ""
             : "is not the name of a user or group";
}

std::string_view check_power_of_two(const ScalarValue& value) {
  return std::has_single_bit(static_cast<uint64_t>(value.number)) ? "" : "must be a power of two";
}

constexpr std::array kListener = {
    Setting{.key = "address",
            .form = "address",
            .doc =
                "Where to listen: `\"0.0.0.0:80\"`, `\"[::]:80\"`, `\"*:80\"` (IPv6 and IPv4) or "
                "`\"unix:/PATH\"` (`\"unix:@NAME\"` for the abstract namespace). Port 0 takes any "
                "free port and logs which. Required.",
            .read = read_listener_address},
    bind<&Listener::name>({.key = "name",
                           .type = kString,
                           .doc = "Name in logs; the address if not given.",
                           .check = check_name}),
    bind<&Listener::backlog>({.key = "backlog",
                              .type = kInteger,
                              .fallback = "4096",
                              .minimum = 1,
                              .maximum = 65535,
                              .restart = true,
                              .doc = "Connections that the kernel holds until weir accepts them. "
                                     "The kernel cuts it to `net.core.somaxconn`."}),
    bind<&Listener::tls>({.key = "tls",
                          .type = kBool,
                          .fallback = "false",
                          .doc = "Speak https here, with the certificates of `[tls]`."}),
    Setting{.key = "redirect_https",
            .fallback = "false",
            .form = "boolean or port",
            .doc = "On a listener without `tls`: send every request to https on the same host, "
                   "with status 301 (GET and HEAD) or 308; `true` means port 443.",
            .read = read_redirect_https},
};

constexpr std::array kServer = {
    Setting{.key = "listen",
            .form = "address or list of addresses",
            .doc = "Short form of `[[listener]]`: one listener for each address, without TLS.",
            .read = read_listen},
    Setting{.key = "threads",
            .fallback = "auto",
            .form = "`\"auto\"` or integer, 1 to 1024",
            .restart = true,
            .doc = "Worker threads, each pinned to a CPU. `\"auto\"`: one for each CPU that the "
                   "process may use (or that `cpus` names).",
            .same = same_member<&ServerSettings::threads>,
            .read = read_threads},
    Setting{.key = "cpus",
            .form = "list of integers, or string such as `\"0-3,8\"`",
            .restart = true,
            .doc = "CPUs to pin the worker threads to. Default: those of the affinity mask.",
            .same = same_member<&ServerSettings::cpus>,
            .read = read_cpus},
    bind<&ServerSettings::shutdown_timeout>(
        {.key = "shutdown_timeout",
         .type = kDuration,
         .fallback = "30s",
         .minimum = 1,
         .maximum = kDay,
         .zero = "at once",
         .aliases = "graceful_shutdown_timeout",
         .doc =
             "How long requests that are under way may take to finish after SIGTERM or SIGINT."}),
    bind<&ServerSettings::client_header_timeout>(
        {.key = "client_header_timeout",
         .type = kDuration,
         .fallback = "30s",
         .minimum = 1,
         .maximum = 30 * kDay,
         .doc = "From the first byte of a request head to its end; then 408."}),
    bind<&ServerSettings::client_body_timeout>(
        {.key = "client_body_timeout",
         .type = kDuration,
         .fallback = "30s",
         .minimum = 1,
         .maximum = 30 * kDay,
         .doc = "Longest pause between two pieces of a request body; then 408."}),
    bind<&ServerSettings::keepalive_timeout>(
        {.key = "keepalive_timeout",
         .type = kDuration,
         .fallback = "60s",
         .minimum = 1,
         .maximum = 30 * kDay,
         .doc = "How long a connection may wait for its next request before it is closed."}),
    bind<&ServerSettings::send_timeout>(
        {.key = "send_timeout",
         .type = kDuration,
         .fallback = "30s",
         .minimum = 1,
         .maximum = 30 * kDay,
         .doc =
             "Longest time for which a client may take no byte of a response; then the connection "
             "is closed."}),
    bind<&ServerSettings::max_header_size>({.key = "max_header_size",
                                            .type = kSize,
                                            .fallback = "32KiB",
                                            .minimum = kKiB,
                                            .maximum = kMiB,
                                            .aliases = "max_request_header_size",
                                            .doc = "Largest request head; beyond it 431."}),
    bind<&ServerSettings::max_header_fields>({.key = "max_header_fields",
                                              .type = kInteger,
                                              .fallback = "100",
                                              .minimum = 8,
                                              .maximum = 128,
                                              .doc = "Most header fields in a request; beyond it "
                                                     "431."}),
    bind<&ServerSettings::max_request_line>(
        {.key = "max_request_line",
         .type = kSize,
         .fallback = "8KiB",
         .minimum = 256,
         .maximum = 64 * kKiB,
         .doc = "Longest request line; beyond it 414. Not more than `max_header_size`."}),
    bind<&ServerSettings::max_body_size>(
        {.key = "max_body_size",
         .type = kSize,
         .fallback = "0",
         .minimum = 1,
         .maximum = 1024 * kTiB,
         .zero = "unlimited",
         .aliases = "max_request_body_size client_max_body_size",
         .doc = "Largest request body; beyond it 413. A route may have its own."}),
    bind<&ServerSettings::max_requests_per_connection>(
        {.key = "max_requests_per_connection",
         .type = kInteger,
         .fallback = "0",
         .minimum = 1,
         .maximum = INT64_MAX,
         .zero = "unlimited",
         .doc = "A connection is closed after so many requests."}),
    bind<&ServerSettings::half_close_grace>(
        {.key = "half_close_grace",
         .type = kDuration,
         .fallback = "1s",
         .minimum = 1,
         .maximum = 30 * kDay,
         .zero = "cancel at once",
         .doc = "How long a client that closed its sending side is waited for while its response "
                "does not come, or does not go on; then the exchange is cancelled."}),
    bind<&ServerSettings::tunnel_idle_timeout>(
        {.key = "tunnel_idle_timeout",
         .type = kDuration,
         .fallback = "10m",
         .minimum = 1,
         .maximum = 30 * kDay,
         .doc = "Longest time for which a tunnel (WebSocket, `CONNECT`) may carry nothing in "
                "either direction; then it is closed."}),
    bind<&ServerSettings::via>({.key = "via",
                                .type = kString,
                                .fallback = "weir",
                                .doc = "Name of this proxy in the `Via` field of requests and "
                                       "responses; empty: no `Via`.",
                                .check = check_pseudonym}),
    bind<&ServerSettings::forwarded>(
        {.key = "forwarded",
         .type = kBool,
         .fallback = "false",
         .doc = "Send the `Forwarded` field (RFC 7239) to upstreams."}),
    bind<&ServerSettings::x_forwarded>(
        {.key = "x_forwarded",
         .type = kBool,
         .fallback = "true",
         .doc = "Send `X-Forwarded-For`, `-Proto`, `-Host` and `X-Real-IP` to upstreams."}),
    bind<&ServerSettings::server_header>(
        {.key = "server_header",
         .type = kString,
         .fallback = "weir",
         .doc = "`Server` field of the responses that weir makes itself; empty: none. Those of "
                "upstreams pass unchanged.",
         .check = check_field_text}),
};

constexpr std::array kLogging = {
    bind<&LoggingSettings::level>({.key = "level",
                                   .type = kChoice,
                                   .fallback = "info",
                                   .choices = "trace debug info warn error off",
                                   .doc = "Least severe messages of the error log."}),
    bind<&LoggingSettings::file_path>({.key = "file_path",
                                       .type = kString,
                                       .fallback = "stderr",
                                       .doc = "Error log: `\"stderr\"`, `\"stdout\"` or a file.",
                                       .check = check_target}),
    bind<&LoggingSettings::access_log>(
        {.key = "access_log",
         .type = kString,
         .fallback = "stdout",
         .doc = "Access log: `\"off\"`, `\"stdout\"`, `\"stderr\"` or a file. The default suits "
                "systemd and containers, which collect it; a busy site writes to a file.",
         .check = check_target}),
    bind<&LoggingSettings::access_format>(
        {.key = "access_format",
         .type = kChoice,
         .fallback = "json",
         .choices = "json common combined",
         .doc = "One JSON object a line, or the formats that Apache and nginx write."}),
    bind<&LoggingSettings::channel_size>(
        {.key = "channel_size",
         .type = kInteger,
         .fallback = "4096",
         .minimum = 128,
         .maximum = 1'000'000,
         .restart = true,
         .doc =
             "Log records that a core may have waiting to be written (reckoned at 256 bytes each, "
             "rounded up to a power of two). When it is full, records are dropped and counted; "
             "requests never wait for a log."}),
    bind<&LoggingSettings::flush_interval>(
        {.key = "flush_interval",
         .type = kDuration,
         .fallback = "100ms",
         .minimum = 1,
         .maximum = kMinute,
         .doc = "How often waiting records are written. Often spelled `flush_interval_ms = 100`."}),
    bind<&LoggingSettings::max_log_size>(
        {.key = "max_log_size",
         .type = kSize,
         .fallback = "100MiB",
         .minimum = 64 * kKiB,
         .maximum = 1024 * kGiB,
         .zero = "never",
         .doc = "A log file that reaches this size is renamed to FILE.1, FILE.1 to FILE.2 and so "
                "on. 0 leaves rotation to others (SIGUSR1 reopens)."}),
    bind<&LoggingSettings::max_log_files>({.key = "max_log_files",
                                           .type = kInteger,
                                           .fallback = "5",
                                           .minimum = 1,
                                           .maximum = 1000,
                                           .doc = "Rotated files that are kept."}),
};

constexpr std::array kPerformanceGeneral = {
    bind<&PerformanceSettings::reuseport_balancing>(
        {.key = "reuseport_balancing",
         .type = kChoice,
         .fallback = "kernel",
         .choices = "kernel cbpf",
         .restart = true,
         .doc = "How new connections are spread over the cores: `\"kernel\"` by a hash of "
                "addresses and ports, `\"cbpf\"` by the client's IP, so that a client stays on one "
                "core. Falls back to `\"kernel\"` with a warning."}),
    bind<&PerformanceSettings::huge_pages_enabled>(
        {.key = "huge_pages_enabled",
         .type = kBool,
         .fallback = "false",
         .restart = true,
         .doc = "Receive buffers in huge pages; normal pages (with a line in the log) where there "
                "are none."}),
    bind<&PerformanceSettings::receive_buffers>(
        {.key = "receive_buffers",
         .type = kInteger,
         .fallback = "1024",
         .minimum = 16,
         .maximum = 32768,
         .restart = true,
         .doc =
             "Receive buffers of 4 KiB for each core, a power of two. More than about 1 MiB in all "
             "costs cache.",
         .check = check_power_of_two}),
    bind<&PerformanceSettings::receive_strategy>(
        {.key = "receive_strategy",
         .type = kChoice,
         .fallback = "auto",
         .choices = "auto multishot oneshot",
         .restart = true,
         .doc = "`\"auto\"` tests at start-up whether the kernel's multishot receive works and "
                "takes one-shot otherwise."}),
};

constexpr std::array kPerformance = concatenated(kPerformanceGeneral, kPerformanceFiles);

constexpr std::array kSecurity = {
    bind<&SecuritySettings::max_concurrent_connections>(
        {.key = "max_concurrent_connections",
         .type = kInteger,
         .fallback = "0",
         .minimum = 1,
         .maximum = 100'000'000,
         .zero = "computed from the limit on open files",
         .doc = "Client connections over all cores (each has an equal share); beyond it new "
                "ones are answered 503."}),
    bind<&SecuritySettings::drop_privileges_user>(
        {.key = "drop_privileges_user",
         .type = kString,
         .restart = true,
         .doc = "User to become once the listeners are open; empty: stay.",
         .check = check_account}),
    bind<&SecuritySettings::drop_privileges_group>(
        {.key = "drop_privileges_group",
         .type = kString,
         .restart = true,
         .doc = "Group to become; empty: the primary group of that user.",
         .check = check_account}),
    Setting{.key = "trusted_proxies",
            .form = "list of addresses and blocks",
            .doc = "Peers whose `X-Forwarded-*` and `Forwarded` fields are believed and extended, "
                   "for example `[\"10.0.0.0/8\", \"::1\"]`. Those of all others are replaced.",
            .read = read_trusted_proxies},
};

constexpr std::array kUpstreamServers = {
    Setting{.key = "servers",
            .form = "list of servers",
            .doc = "Each is `\"IP:PORT\"`, `\"NAME:PORT\"` (all addresses of the name, each a "
                   "server), `\"unix:/PATH\"`, "
                   "`\"https://HOST[:PORT]\"`, or a table, `{address = \"10.0.0.2:80\", weight = "
                   "2}`. Required.",
            .read = read_servers},
};

constexpr std::array kUpstreamGeneral = {
    bind<&UpstreamSettings::connect_timeout>({.key = "connect_timeout",
                                              .type = kDuration,
                                              .fallback = "10s",
                                              .minimum = 1,
                                              .maximum = 30 * kDay,
                                              .doc = "To establish a connection; then 504."}),
    bind<&UpstreamSettings::response_timeout>(
        {.key = "response_timeout",
         .type = kDuration,
         .fallback = "60s",
         .minimum = 1,
         .maximum = 30 * kDay,
         .doc = "From the end of the request to the response head; then 504."}),
    bind<&UpstreamSettings::read_timeout>(
        {.key = "read_timeout",
         .type = kDuration,
         .fallback = "60s",
         .minimum = 1,
         .maximum = 30 * kDay,
         .doc = "Longest pause between two pieces of a response body."}),
    bind<&UpstreamSettings::send_timeout>(
        {.key = "send_timeout",
         .type = kDuration,
         .fallback = "30s",
         .minimum = 1,
         .maximum = 30 * kDay,
         .doc = "Longest time for which a server may take no byte of a request; then 504."}),
    bind<&UpstreamSettings::max_idle_connections_per_host>(
        {.key = "max_idle_connections_per_host",
         .type = kInteger,
         .fallback = "256",
         .minimum = 1,
         .maximum = 1'000'000,
         .zero = "no reuse",
         .doc = "Idle connections kept for each server, over all cores."}),
    bind<&UpstreamSettings::idle_connection_timeout>(
        {.key = "idle_connection_timeout",
         .type = kDuration,
         .fallback = "30s",
         .minimum = 1,
         .maximum = 30 * kDay,
         .doc = "An idle connection is closed after this time; often spelled "
                "`idle_connection_timeout_secs = 30`. Choose less than the server's own."}),
    bind<&UpstreamSettings::max_connection_lifetime>(
        {.key = "max_connection_lifetime",
         .type = kDuration,
         .fallback = "1h",
         .minimum = 1,
         .maximum = 30 * kDay,
         .zero = "unlimited",
         .doc = "A connection older than this is not used again."}),
    bind<&UpstreamSettings::max_connecting>({.key = "max_connecting",
                                             .type = kInteger,
                                             .fallback = "64",
                                             .minimum = 1,
                                             .maximum = 65535,
                                             .doc = "Connections to a server that may be under way "
                                                    "at once, over all cores; further requests "
                                                    "wait."}),
    bind<&UpstreamSettings::host_header>(
        {.key = "host_header",
         .type = kString,
         .doc = "`Host` that the servers see; empty: the client's.",
         .check = check_host_header}),
};

constexpr std::array kUpstreamDefaults =
    concatenated(kUpstreamGeneral, kUpstreamBalance, kUpstreamFailover, kUpstreamLimits,
                 kUpstreamNames, kUpstreamChecks, kUpstreamTlsDefaults);
constexpr std::array kUpstream = concatenated(
    kUpstreamServers, kUpstreamGeneral, kUpstreamBalance, kUpstreamFailover, kUpstreamLimits,
    kUpstreamNames, kUpstreamOwn, kUpstreamChecks, kUpstreamTls, kUpstreamTlsDefaults);

constexpr std::array kUpstreamServerAddress = {
    Setting{.key = "address",
            .form = "address",
            .doc = "As in the plain form. Required.",
            .read = read_server_address},
};

constexpr std::array kUpstreamServer = concatenated(kUpstreamServerAddress, kServerBalance);

constexpr std::array kSections = {
    Section{
        .name = "listener",
        .header = "[[listener]]",
        .doc = "An address to accept connections on. At least one, here or in `[server] listen`.",
        .example = kListenerExample,
        .settings = kListener},
    Section{.name = "server",
            .header = "[server]",
            .doc = "Threads, and how clients are treated.",
            .example = kServerExample,
            .settings = kServer,
            .places = true},
    Section{.name = "tls",
            .header = "[tls]",
            .doc = "Certificates and how TLS is spoken, for every listener that has `tls = true`.",
            .example = kTlsExample,
            .settings = kTlsSettings,
            .places = true},
    Section{.name = "tls.certificates",
            .header = "[[tls.certificates]]",
            .doc = "Further certificates, chosen by the host that the client names (SNI): the "
                   "exact name first, then `*.` and the rest, then the default.",
            .example = kCertificatesExample,
            .settings = kCertificate},
    Section{.name = "logging",
            .header = "[logging]",
            .doc = "Error log and access log.",
            .example = kLoggingExample,
            .settings = kLogging,
            .places = true},
    Section{.name = "performance",
            .header = "[performance]",
            .doc = "The defaults are what measured best.",
            .example = kPerformanceExample,
            .settings = kPerformance,
            .places = true},
    Section{.name = "security",
            .header = "[security]",
            .doc = "Limits and privileges of the process.",
            .example = kSecurityExample,
            .settings = kSecurity,
            .places = true},
    Section{.name = "mime",
            .header = "[mime]",
            .doc = "Content types of files, by their extension.",
            .example = kMimeExample,
            .settings = kMime,
            .places = true},
    Section{.name = "resolver",
            .header = "[resolver]",
            .doc = "How names of servers become addresses.",
            .example = kResolverExample,
            .settings = kResolver,
            .places = true},
    Section{.name = "control",
            .header = "[control]",
            .doc = "Where `weir ctl` reaches the running weir: it lists upstreams and servers, and "
                   "sets servers to up, draining or down, and their weights.",
            .example = kControlExample,
            .settings = kControl,
            .places = true},
    Section{.name = "load_balancer",
            .header = "[load_balancer]",
            .doc = "How servers are chosen, where neither `[upstream_defaults]` nor an "
                   "`[upstream.NAME]` says it.",
            .example = kLoadBalancerExample,
            .settings = kLoadBalancer,
            .places = true},
    Section{.name = "upstream_defaults",
            .header = "[upstream_defaults]",
            .doc = "What every `[upstream.NAME]`, and every URL of a route, starts from.",
            .example = kUpstreamDefaultsExample,
            .settings = kUpstreamDefaults,
            .places = true},
    Section{.name = "upstream.NAME",
            .header = "[upstream.NAME]",
            .doc = "Servers that do the same work, and how to talk to them. What is not given here "
                   "is that of `[upstream_defaults]`.",
            .example = kUpstreamExample,
            .settings = kUpstream,
            .places = true},
    Section{.name = "upstream.NAME.servers[]",
            .header = "{address = ..., weight = ...}",
            .doc = "An entry of `servers` in its table form.",
            .example = "",
            .settings = kUpstreamServer},
    Section{.name = "health_check",
            .header = "[health_check], [upstream.NAME.health_check]",
            .doc = "Active checks: weir asks each server at an interval and sends requests to "
                   "those that are well. `[health_check]` switches them on for every upstream, "
                   "the URLs of routes included, and is what the table of an upstream starts from; "
                   "that one switches them on for this upstream. Without either there are none.",
            .example = kHealthCheckExample,
            .settings = kHealthCheck,
            .places = true},
    Section{.name = "passive_check",
            .header = "[upstream_defaults.passive_check], [upstream.NAME.passive_check]",
            .doc = "What requests themselves tell of a server: one that fails, or that is far "
                   "slower than the others, is ejected for a while. Each core judges by its own "
                   "requests.",
            .example = kPassiveCheckExample,
            .settings = kPassiveCheck,
            .places = true},
    Section{.name = "circuit_breaker",
            .header = "[upstream_defaults.circuit_breaker], [upstream.NAME.circuit_breaker]",
            .doc = "Of each server, on each core. Unlike ejection it knows no floor: all of an "
                   "upstream's circuits may be open, and requests then get 503 at once.",
            .example = kCircuitBreakerExample,
            .settings = kCircuitBreaker,
            .places = true},
    Section{.name = "sticky",
            .header = "[upstream.NAME.sticky]",
            .doc = "A signed cookie keeps a browser with the server that it got first, as long as "
                   "that one is there. This table, even an empty one, switches it on.",
            .example = kStickyExample,
            .settings = kSticky,
            .places = true},
    Section{.name = "route",
            .header = "[[route]]",
            .doc =
                "Which requests, and what happens to them: `proxy`, `redirect`, `respond`, `file` "
                "or `connect`, one of them.",
            .example = kRouteExample,
            .settings = kRoute},
    Section{.name = "route.redirect",
            .header = "[route.redirect]",
            .doc =
                "A redirect in its table form, also inline: `redirect = {url = \"...\", status = "
                "301}`.",
            .example = "",
            .settings = kRedirect},
    Section{.name = "route.respond",
            .header = "[route.respond]",
            .doc = "A fixed response, also inline: `respond = {status = 200, body = \"ok\\n\"}`.",
            .example = kRespondExample,
            .settings = kRespond},
    Section{.name = "route.file",
            .header = "[route.file]",
            .doc = "Static files, also inline: `file = {path = \"/var/www/site\", listing = "
                   "true}`. GET, HEAD and OPTIONS are answered; conditions, ranges and "
                   "precompressed files are dealt with.",
            .example = kFileExample,
            .settings = kFile},
    Section{.name = "route.CONDITION",
            .header = "{prefix = ...}",
            .doc = "A condition on a header or query parameter in its table form.",
            .example = "",
            .settings = kCondition},
    Section{.name = "path_routes.HOST.PATH",
            .header = "[host_routes.\"HOST\"], [path_routes.\"HOST\".\"PATH\"]",
            .doc =
                "The short form of a route: a whole host, or a path prefix of a host. HOST is as "
                "in `[[route]]`, or `\"default\"` for any.",
            .example = kShortExample,
            .settings = kShort},
    Section{.name = "path_routes.HOST.PATH.security",
            .header = "[path_routes.\"HOST\".\"PATH\".security]",
            .doc = "Also `[host_routes.\"HOST\".security]`.",
            .example = "",
            .settings = kShortSecurity},
};

}  // namespace

std::span<const Section> schema() { return kSections; }

const Section& section(std::string_view name) {
  const Section* found = nullptr;
  for (const Section& candidate : kSections) {
    if (candidate.name == name) found = &candidate;
  }
  WEIR_CHECK(found != nullptr);
  return *found;
}

}  // namespace weir::control::config
