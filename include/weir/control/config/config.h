// The configuration as typed values: what a TOML file means once every key was checked and every
// default filled in. Built by load_config() on the control thread (or by a command line tool),
// then turned into a snapshot; the data path never sees it.
// The defaults, ranges and doc lines of the settings stand in one place, the table of schema.h; the
// constructors below take them from there, so that a default-constructed object equals an empty
// file section.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <weir/base/ip.h>
#include <weir/log/error_log.h>
#include <weir/log/format.h>
#include <weir/route/spec.h>

namespace weir::control::config {

using Milliseconds = std::chrono::milliseconds;

// Where in the file something stands; both counted from 1, the column in characters. 0 = nowhere
// (a default).
struct Place {
  uint32_t line = 0;
  uint32_t column = 0;
  friend auto operator<=>(const Place&, const Place&) = default;
};

// [[listener]], or an entry of [server] listen.
struct Listener {
  Place place;
  std::string name;  // the address text where the file gives none
  std::string address_text;
  base::SocketAddress address;  // port 0: any free port
  uint32_t backlog;
  bool tls;                     // then TlsSettings::certificates is not empty
  uint16_t redirect_https = 0;  // port of https to send every request to; 0 = serve it here

  Listener();
};

struct ServerSettings {
  uint32_t threads;            // 0 = "auto": one for each CPU of the affinity mask (or of `cpus`)
  std::vector<uint32_t> cpus;  // empty = the affinity mask; no number twice
  Milliseconds shutdown_timeout;
  Milliseconds client_header_timeout;
  Milliseconds client_body_timeout;
  Milliseconds keepalive_timeout;
  Milliseconds send_timeout;
  uint32_t max_header_size;
  uint32_t max_header_fields;
  uint32_t max_request_line;
  uint64_t max_body_size;                // 0 = unlimited
  uint64_t max_requests_per_connection;  // 0 = unlimited
  Milliseconds half_close_grace;
  Milliseconds tunnel_idle_timeout;
  std::string via;  // empty = no Via field
  bool forwarded;
  bool x_forwarded;
  std::string server_header;  // empty = no Server field on weir's own answers

  ServerSettings();
};

// An access log record is 150 to 400 bytes; the channel that holds them counts bytes.
inline constexpr uint64_t kLogRecordBytes = 256;

struct LoggingSettings {
  log::Level level;
  std::string file_path;   // "stderr", "stdout" or a path
  std::string access_log;  // "off", "stdout", "stderr" or a path
  log::AccessFormat access_format;
  uint32_t channel_size;  // records a core may have waiting, reckoned at kLogRecordBytes each
  Milliseconds flush_interval;
  uint64_t max_log_size;  // 0 = no rotation
  uint32_t max_log_files;

  LoggingSettings();
};

enum class ReuseportBalancing : uint8_t { kKernel, kCbpf };
enum class ReceiveStrategy : uint8_t { kAuto, kMultishot, kOneshot };

inline constexpr uint32_t kOpenFilesMax = 1'000'000;

struct PerformanceSettings {
  ReuseportBalancing reuseport_balancing;
  bool huge_pages_enabled;
  uint32_t receive_buffers;  // per core, a power of two
  ReceiveStrategy receive_strategy;
  uint64_t splice_threshold;         // 0 = never
  uint32_t open_file_cache_entries;  // per core
  Milliseconds open_file_cache_valid;
  uint64_t file_memory;           // bytes per core
  uint64_t file_memory_max_size;  // bytes of one file

  PerformanceSettings();
};

struct SecuritySettings {
  uint64_t max_concurrent_connections;  // 0 = computed from RLIMIT_NOFILE
  std::string drop_privileges_user;     // empty = stay
  std::string drop_privileges_group;    // empty = the primary group of the user
  std::vector<base::Cidr> trusted_proxies;

  SecuritySettings();
};

struct MimeType {
  Place place;
  std::string extension;  // lowercase, without a dot at its start; none twice
  std::string type;
};

// [mime]. The system's file is read when the configuration is applied.
struct MimeSettings {
  std::vector<MimeType> types;
  std::string default_type;  // empty = no Content-Type
  std::string charset;       // empty = none is named
  std::string system_file;   // empty = none

  MimeSettings();
};

// The numbers of the protocol: OpenSSL and net/tls use the same.
enum class TlsVersion : uint8_t { kTls12, kTls13 };
constexpr uint16_t wire_version(TlsVersion version) noexcept {
  return version == TlsVersion::kTls12 ? 0x0303 : 0x0304;
}

enum class ClientAuth : uint8_t { kOff, kOptional, kRequired };

// [[tls.certificates]]. Paths only: control reads the files when it applies the configuration, and
// again when they change.
struct CertificateFiles {
  Place place;
  std::vector<std::string> hostnames;  // lowercase, exact or "*.name"; empty: the certificate's own
  bool is_default = false;             // also for clients that name no host, or an unknown one
  std::string cert_path;               // never empty
  std::string key_path;                // empty: in cert_path
  std::string key_passphrase_file;     // empty: the key is not encrypted
  std::string ocsp_response_path;      // empty: nothing is stapled
};

// [tls]: for every listener that has `tls`; ktls_* also for connections to upstreams.
struct TlsSettings {
  Place place;  // line 0: the file has no [tls]
  // The default certificate, which is also the first of `certificates`.
  std::string cert_path;
  std::string key_path;
  std::string key_passphrase_file;
  std::string ocsp_response_path;
  std::vector<CertificateFiles> certificates;  // that of [tls] first, then [[tls.certificates]]
  TlsVersion min_version;
  TlsVersion max_version;
  std::string ciphers;            // OpenSSL's names with ':' between them, never empty; TLS 1.2
  std::string ciphersuites;       // the same for TLS 1.3
  std::string groups;             // the same
  std::vector<std::string> alpn;  // empty = ALPN is not spoken
  Milliseconds handshake_timeout;
  bool session_tickets;
  Milliseconds session_lifetime;              // whole seconds
  std::vector<std::string> ticket_key_files;  // the first seals; empty: weir makes keys itself
  Milliseconds ticket_rotation;               // of weir's own keys
  bool ktls_enabled;
  bool ktls_fallback_enabled;
  ClientAuth client_auth;
  std::string client_ca_path;    // never empty where client_auth is not kOff
  std::string client_crl_path;   // empty: revocation is not checked
  uint32_t client_verify_depth;  // certificates between the client's and the trusted one
  bool client_cert_headers;

  TlsSettings();
  // Previous keys that have to be kept so that every ticket opens for session_lifetime.
  [[nodiscard]] uint32_t previous_ticket_keys() const noexcept;
};

// As many as fit a net::tls::TicketKeyRing.
inline constexpr uint32_t kTicketKeysMax = 8;

// How a server is asked whether it is well. kAuto: kHttps where the upstream speaks TLS, else
// kHttp.
enum class HealthType : uint8_t { kAuto, kHttp, kHttps, kTcp, kTls };

struct ExpectedStatus {
  uint16_t first = 200;  // both included
  uint16_t last = 299;
  friend bool operator==(const ExpectedStatus&, const ExpectedStatus&) = default;
};

// [health_check], and what each [upstream.NAME.health_check] may override.
struct HealthSettings {
  bool enabled;  // in effect: false where neither table is there
  HealthType type;
  std::string method;
  std::string path;  // with a query, if there is one
  std::string host;  // of the Host field; empty: host_header, or else the server's name or address
  std::vector<std::pair<std::string, std::string>> headers;
  std::vector<ExpectedStatus> expected_status;  // at least one; sorted, without overlap
  std::string expected_body;                    // has to be in the content; empty: any
  uint16_t port;                                // 0 = the server's; never of a Unix socket
  Milliseconds interval;
  Milliseconds timeout;
  uint32_t jitter_percent;
  uint32_t unhealthy_threshold;
  uint32_t healthy_threshold;
  bool initially_healthy;

  HealthSettings();
  friend bool operator==(const HealthSettings&, const HealthSettings&) = default;
};

struct RetrySettings {
  uint32_t retries = 0;  // further tries; this and the others: defaults in the schema
  bool on_connect = true;
  bool on_reset = true;
  bool on_timeout = false;
  std::vector<uint16_t> on_status;  // 500 to 599, sorted, none twice
  bool non_idempotent = false;
  uint32_t budget_percent = 0;
  uint32_t budget_per_second = 0;
  Milliseconds try_timeout{};    // 0 = response_timeout alone
  Milliseconds total_timeout{};  // 0 = none
  Milliseconds hedge_after{};    // 0 = never

  friend bool operator==(const RetrySettings&, const RetrySettings&) = default;
};

// [upstream.NAME.sticky]
struct StickySettings {
  bool enabled = false;  // the table is there
  std::string cookie;
  std::string key_file;  // empty: the key that this process has made for itself
  std::string key;       // what key_file holds; as many bytes as a StickySigner needs, at least
  Milliseconds max_age;  // whole seconds; 0 = of the browser's session
  std::string path;
  bool secure;
  std::string same_site;  // "Lax", "Strict", "None"; empty: not said

  StickySettings();
  friend bool operator==(const StickySettings&, const StickySettings&) = default;
};

// Which addresses of a name are used.
enum class NameFamily : uint8_t { kAny, kIpv4, kIpv6 };

// One entry of `servers`. A name is resolved later, by the owner of the upstreams.
struct UpstreamServer {
  enum class Kind : uint8_t { kIp, kUnix, kName };

  Place place;
  Kind kind = Kind::kIp;
  std::string text;  // as written (without scheme): "10.0.0.1:80", "unix:/run/app.sock", "app:3000"
  std::string host;  // kName: lowercase name without port and without a dot at its end
  bool absolute = false;  // kName: written with that dot, which keeps resolv.conf's domains out
  uint16_t port = 0;      // 0 for Unix sockets, and for names of SRV records
  base::SocketAddress address;  // kIp and kUnix
  uint32_t weight = 1;
  uint32_t max_connections = 0;  // over all cores; 0 = unlimited
  uint32_t priority = 0;         // lower ones first
  bool backup = false;
  bool https = false;  // written as "https://HOST[:PORT]"
};

// [upstream_defaults], and what each [upstream.NAME] may override. The first three are no defaults:
// only an [upstream.NAME] has them.
struct UpstreamSettings {
  bool tls = false;             // also true where the servers are written as https://
  std::string tls_server_name;  // empty = each server's own name or address
  StickySettings sticky;
  Milliseconds connect_timeout;
  Milliseconds response_timeout;
  Milliseconds read_timeout;
  Milliseconds send_timeout;
  uint32_t max_idle_connections_per_host;  // over all cores; 0 = no reuse
  Milliseconds idle_connection_timeout;
  Milliseconds max_connection_lifetime;  // 0 = unlimited
  uint32_t max_connecting;
  std::string host_header;  // empty = the client's Host
  route::Balance balance;   // also [load_balancer] type
  std::string hash_key;     // as written: parse_hash_key() in lower.h takes it apart
  uint32_t hash_load_bound;
  Milliseconds slow_start;
  RetrySettings retry;
  uint32_t max_connections;  // requests under way, over all cores; 0 = unlimited
  uint32_t max_pending;      // requests that wait, over all cores; 0 = none waits
  Milliseconds pending_timeout;
  Milliseconds connect_race;  // 0 = no race
  NameFamily resolve_family;
  bool resolve_srv;            // never of an implicit upstream: a URL names its port
  route::OutlierSpec passive;  // [upstream.NAME.passive_check]
  route::CircuitSpec circuit;  // [upstream.NAME.circuit_breaker]; no trial_timeout_ms yet
  HealthSettings health;       // its defaults are those of [health_check]
  bool tls_verify;
  std::string tls_ca_path;    // empty = the system's
  std::string tls_cert_path;  // empty = no client certificate
  std::string tls_key_path;   // empty = in tls_cert_path
  TlsVersion tls_min_version;

  UpstreamSettings();
  friend bool operator==(const UpstreamSettings&, const UpstreamSettings&) = default;
};

struct Upstream : UpstreamSettings {
  Place place;
  std::string name;  // implicit ones are named by their URL: "http://127.0.0.1:3000"
  bool implicit = false;
  std::vector<UpstreamServer> servers;  // at least one
};

// [resolver]: how names of servers become addresses.
struct ResolverSettings {
  std::vector<std::string> servers;  // "IP:PORT" or "[IPv6]:PORT"; empty: those of resolv.conf
  Milliseconds timeout;              // of one try
  uint32_t tries;
  Milliseconds min_ttl;
  Milliseconds max_ttl;
  std::string hosts;  // a file

  ResolverSettings();
  friend bool operator==(const ResolverSettings&, const ResolverSettings&) = default;
};

// [control]: the socket of `weir ctl`.
struct ControlSettings {
  std::string socket;    // an absolute path that fits a socket address; empty = none
  uint32_t socket_mode;  // permissions, at most 0777

  ControlSettings();
};

// [[route]], or a table of the short form: the spec that the routing room builds from, with the
// upstream of a ProxyAction as index in Config::upstreams. What the file leaves open and another
// section decides (max_body_bytes, origin_text) is filled in by lower_routes().
struct Route {
  Place place;
  std::string key;                        // "route[3]", path_routes."example.com"."/api/"
  std::optional<uint64_t> max_body_size;  // overrides the server's; 0 = unlimited
  route::RouteSpec spec;
};

struct Config {
  std::string file;  // as given to load_config()
  std::vector<Listener> listeners;
  ServerSettings server;
  LoggingSettings logging;
  PerformanceSettings performance;
  SecuritySettings security;
  MimeSettings mime;
  TlsSettings tls;
  ResolverSettings resolver;
  ControlSettings control;
  UpstreamSettings upstream_defaults;
  std::vector<Upstream> upstreams;  // named ones in file order, then implicit ones
  std::vector<Route> routes;        // [[route]] in file order, then those of the short form
  // Dotted key of each setting that the file gives ("server.threads",
  // "upstream.api.max_connecting") and its place, for messages about values that only prove wrong
  // later. Not those of routes.
  std::map<std::string, Place, std::less<>> places;
};

// Settings whose value differs between the two and that take effect only after a restart, as dotted
// keys in the order of the schema. A listener counts only where both have it (by address).
std::vector<std::string> restart_needed(const Config& running, const Config& next);

}  // namespace weir::control::config
