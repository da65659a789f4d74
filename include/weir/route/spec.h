// The builder's input: upstreams and routes as control (configuration, discovery) wants them, in
// plain structs without behaviour. Owned by whoever fills them; handed to build_snapshot
// (snapshot.h) on the control thread. The data path never sees these: it sees the built Snapshot.
//
// Strings are what the user meant, already unescaped. Route paths are in the same normal form as
// the paths of requests (dot segments removed, percent-encoding normalised); control runs them
// through the same function that requests go through.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <weir/base/ip.h>

namespace weir::route {

// How a server is chosen for a request.
enum class Balance : uint8_t {
  kRoundRobin,        // smooth weighted
  kLeastConnections,  // least active / weight; ties by round robin
  kTwoChoices,        // the better of two random ones by latency x requests in flight / weight
  kIpHash,            // by the client's address; all keys move when the set of servers changes
  kConsistentHash,    // by a key; few move
  kRandom,            // weighted
};

// What of a request is hashed by kConsistentHash. A request without that header or cookie is taken
// by its client's address.
struct HashKeySpec {
  enum class Source : uint8_t { kClientIp, kUri, kPath, kHeader, kCookie };
  Source source = Source::kClientIp;
  std::string name{};  // of the header (case-insensitive) or the cookie (case-sensitive)

  friend bool operator==(const HashKeySpec&, const HashKeySpec&) = default;
};

struct BalanceSpec {
  Balance algorithm = Balance::kRoundRobin;
  HashKeySpec hash_key{};           // kConsistentHash
  uint32_t load_bound_percent = 0;  // kConsistentHash: at most this of the mean load; 0: unbounded
  uint32_t slow_start_ms = 0;       // 0: a server that joins has its full weight at once
};

inline constexpr uint32_t kTriesMax = 16;  // at servers, of one request

// When a request that a server has failed goes to another one.
struct RetrySpec {
  uint32_t tries_max = 3;  // the first one included, at most kTriesMax; 1: no retries
  // Refused, unreachable, no TLS, not in time: nothing of the request was sent.
  bool on_connect = true;
  bool on_reset = true;               // the connection ended before an answer came
  bool on_timeout = false;            // no answer came in time
  std::vector<uint16_t> on_status{};  // 500 to 599
  // Also requests that are not to be repeated (RFC 9110 9.2.2), once something of them was sent.
  bool non_idempotent = false;
  uint32_t try_timeout_ms = 0;      // of one try, until its answer begins; 0: response_timeout
  uint32_t total_timeout_ms = 0;    // waiting and all tries, until an answer begins; 0: none
  uint32_t budget_percent = 20;     // of the requests may be retries
  uint32_t budget_per_second = 10;  // and so many besides, over all cores
  uint32_t hedge_after_ms = 0;      // idempotent ones without content: also to another; 0: never
};

// Passive health: what the requests themselves tell of a server (upstream/outlier.h).
struct OutlierSpec {
  bool enabled = true;
  uint32_t consecutive_errors = 5;     // 0: not judged by that
  uint32_t error_percent = 50;         // of the requests in the window; 0: not judged by that
  uint32_t error_requests_min = 20;    // so many at least
  uint32_t window_ms = 10'000;         //
  uint32_t latency_percent = 0;        // median against the median of the others'; 0: not judged
  uint32_t latency_floor_ms = 100;     // below that nobody is slow
  uint32_t latency_requests_min = 10;  // in the window; of the others as well
  uint32_t ejection_ms = 10'000;       // the first time; doubled each time
  uint32_t ejection_max_ms = 300'000;
  uint32_t ejected_percent_max = 50;  // of all servers
  uint32_t servers_left_min = 1;      // neither down nor ejected; at least 1

  friend bool operator==(const OutlierSpec&, const OutlierSpec&) = default;
};

// The circuit breaker of each server (upstream/circuit.h).
struct CircuitSpec {
  uint32_t failures = 0;     // in a row; 0: no circuit breaker
  uint32_t open_ms = 1'000;  // the first time; doubled while it does not close
  uint32_t open_max_ms = 30'000;
  uint32_t trials_max = 1;  // half-open: at a time
  uint32_t successes = 2;   // half-open: until it closes
  // A trial of which nothing is heard for so long is given up; longer than a request may take.
  uint32_t trial_timeout_ms = 60'000;

  friend bool operator==(const CircuitSpec&, const CircuitSpec&) = default;
};

// Sessions that stay with their server by a signed cookie (upstream/balance_sticky.h).
struct StickySpec {
  std::string cookie{};    // its name; empty: none
  std::string key{};       // bytes; at least StickySigner::kKeyBytesMin
  std::string path = "/";  // Path of the cookie
  uint32_t age_max_s = 0;  // 0: of the browser's session
  bool secure = false;
  std::string same_site{};  // "Lax", "Strict", "None"; empty: not said

  friend bool operator==(const StickySpec&, const StickySpec&) = default;
};

// What control knows of a server beside its configuration.
enum class ServerState : uint8_t {
  kUp,
  kDraining,  // no new requests, except those that a sticky session binds to it
  kDown,      // health checks or an operator said so
  kEjected,   // passive checks or a circuit breaker said so (of one core)
};

struct ServerSpec {
  std::string address_text;     // "10.0.0.1:80", "unix:/x"; of a name without address "host:80"
  std::string name{};           // as configured, where that differs: "host:80"
  base::SocketAddress address;  // meaningful when `resolved`
  bool resolved = false;        // false: a name that has to be looked up
  uint32_t weight = 1;          // 0 takes no traffic; the sum over an upstream must not be 0
  uint32_t endpoint_id = 0;     // assigned by control: stable over reloads, process-wide, dense
  // With UpstreamSpec::tls: the name or IP address (no brackets) that the server's certificate has
  // to have; a name is also sent as SNI. Empty: neither.
  std::string tls_name{};
  uint32_t max_connections = 0;          // requests under way at once, over all cores; 0: no limit
  uint32_t priority = 0;                 // lower ones first
  bool backup = false;                   // after all that are none, whatever the priorities
  ServerState state = ServerState::kUp;  // as control knows it; never kEjected
  // Servers with the same number are one host by IPv4 and IPv6: connects may race (RFC 8305). 0: no
  // such host.
  uint32_t race_group = 0;
};

// How TLS is spoken to the servers of an upstream. Files are only named here; control reads them.
struct UpstreamTlsSpec {
  bool verify = true;
  std::string ca_path;            // empty: the system's
  std::string cert_path;          // empty: no client certificate
  std::string key_path;           // empty: in cert_path
  uint16_t min_version = 0x0303;  // as on the wire: TLS 1.2

  friend bool operator==(const UpstreamTlsSpec&, const UpstreamTlsSpec&) = default;
};

inline constexpr size_t kServersMax = 10'000;  // of one upstream

struct UpstreamSpec {
  std::string name;
  uint32_t id = 0;  // assigned by control: stable over reloads, unique in one snapshot
  std::vector<ServerSpec> servers;
  uint32_t connect_timeout_ms = 10'000;
  uint32_t response_timeout_ms = 60'000;
  uint32_t read_timeout_ms = 60'000;
  uint32_t send_timeout_ms = 60'000;
  uint32_t idle_timeout_ms = 30'000;
  uint32_t lifetime_ms = 0;  // 0: a pooled connection is kept as long as it is used
  uint32_t max_idle_per_host = 256;
  uint32_t max_connecting = 64;
  std::string host_header;  // empty: pass the client's Host
  BalanceSpec balance;
  RetrySpec retry{};
  OutlierSpec outliers{};
  CircuitSpec circuit{};
  StickySpec sticky{};
  uint32_t max_connections = 0;  // requests under way, over all cores; 0: no limit
  uint32_t max_pending = 1024;   // that wait for a server with room, over all cores
  uint32_t pending_timeout_ms = 5'000;
  uint32_t connect_race_ms = 250;  // head start of the first connect of a race; 0: no race
  bool tls = false;
  UpstreamTlsSpec tls_settings;  // meaningful with `tls`
};

enum class ValueMatch : uint8_t {
  kExact,    // some value of that name equals `value`
  kPrefix,   // some value of that name begins with `value`
  kPresent,  // the name occurs
  kAbsent,   // the name does not occur
};

// A condition on a header (name case-insensitive, value case-sensitive) or on a query parameter
// (both case-sensitive, compared after percent-decoding, '+' being a space). Where a name occurs
// more than once, one fitting value is enough.
struct NameValueCondition {
  std::string name;
  std::optional<std::string> value;  // required by kExact and kPrefix, refused by the others
  ValueMatch match = ValueMatch::kExact;
};

struct ProxyAction {
  uint32_t upstream = 0;  // index into the UpstreamSpec vector given to the same build
  // The URI part, as in nginx's proxy_pass with a URI (rules: rewrite_path in match.h). Without
  // it the path is passed unchanged.
  std::optional<std::string> target_path;
};

struct RedirectAction {
  uint16_t status = 302;  // 301, 302, 303, 307 or 308
  std::string location;   // may hold ${scheme} ${host} ${path} ${query} ${uri} (path?query)
};

struct RespondAction {
  uint16_t status = 200;  // 200 to 599
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
};

// Symbolic links on the way from `root` to a file.
enum class FileLinks : uint8_t { kBelowRoot, kAnywhere, kNone };

struct FileAction {
  // An absolute path: a directory, below which the rest of the request's path is looked up, or a
  // file, which is served for exactly the route's path.
  std::string root;
  std::vector<std::string> index{"index.html"};  // names tried in a directory, in order
  std::string fallback;                          // relative to root: instead of a 404; empty: none
  std::vector<std::pair<uint16_t, std::string>> error_pages;  // relative to root, by status
  std::string cache_control;                                  // of 200 and 206; empty: none
  uint32_t expires_s = 0;                                     // 0: no Expires
  FileLinks links = FileLinks::kBelowRoot;
  bool listing = false;         // of directories without an index
  bool hidden = false;          // names that begin with a dot
  bool redirect_slash = false;  // a directory asked for without its slash
  bool precompressed = true;    // NAME.br, NAME.zst, NAME.gz
  bool in_memory = false;       // contents are kept, within the budget
};

// CONNECT to one of these and no other.
struct ConnectTarget {
  std::string authority;  // "host:port", lower case
  uint32_t upstream = 0;  // index into the UpstreamSpec vector given to the same build
};
struct ConnectAction {
  std::vector<ConnectTarget> targets;
};

// A new kind of action is a new struct here, a new ActionKind in snapshot.h and one more case in
// src/route/compile.cc.
using Action = std::variant<ProxyAction, RedirectAction, RespondAction, FileAction, ConnectAction>;

struct RouteSpec {
  // "example.com", "*.example.com" (one or more labels in place of the star) or "*" (any host).
  // Empty: any host.
  std::vector<std::string> hosts;
  // Prefix at segment boundaries ("/api" and "/api/" are the same route) or, with `exact`, the
  // whole path and nothing else (there "/api" and "/api/" differ).
  std::string path = "/";
  bool exact = false;
  std::vector<std::string> methods;  // case-sensitive; empty: any. GET does not imply HEAD.
  std::vector<NameValueCondition> headers;
  std::vector<NameValueCondition> query;
  std::vector<base::Cidr> source;  // empty: any. A client without an IP fits none.
  Action action;
  // Protocols to which a request may switch (Upgrade), lower case; of a ProxyAction.
  std::vector<std::string> upgrades{"websocket"};
  // The stages of this route (policy settings) will be a member `plan` here.
  std::string origin_text;               // "weir.toml:12": for explain, logs and build errors
  std::string name;                      // for logs and metrics; may be empty
  uint64_t max_body_bytes = UINT64_MAX;  // UINT64_MAX: no limit
};

}  // namespace weir::route
