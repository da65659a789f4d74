// The record that a core writes when an exchange is finished, and its encoding in a Channel.
// Values: the strings of an AccessRecord belong to the exchange when writing, to the channel when
// parsed. Writing never allocates or formats; strings beyond their limit are cut and flagged.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include <weir/base/ip.h>
#include <weir/log/channel.h>

namespace weir::log {

// Why an exchange failed or was answered by weir itself. The names (to_string) are what the access
// log shows; keep both in step.
enum class Reason : uint8_t {
  kNone,
  kClientGone,     // the client closed or reset before the response was complete
  kClientTimeout,  // header, body or send deadline of the client side
  kBadRequest,     // malformed or ambiguous request
  kTooLarge,       // head or body beyond its limit
  kUnsupported,    // method, version or coding that weir does not do
  kNoRoute,
  kDenied,  // a policy stage said no
  kRateLimited,
  kLimit,              // a limit of ours (connections, buffers)
  kUpstreamConnect,    // refused, unreachable
  kUpstreamTls,        // its TLS handshake failed, or its certificate is no good
  kUpstreamTimeout,    // connect or response deadline
  kUpstreamReset,      // reset while the response was due
  kUpstreamClosed,     // ended before the response was complete
  kUpstreamMalformed,  // the response broke the protocol
  kUpstreamBusy,       // no connection could be leased, queue or connect bound reached
  kNoUpstream,         // no endpoint is usable
  kIdle,               // nothing moved in a tunnel for its idle timeout
  kShutdown,           // cut by our own shutdown
  kInternal,           // a failure of ours
  kCount
};
std::string_view to_string(Reason reason) noexcept;

struct AccessRecord {
  static constexpr uint64_t kNotMeasured = UINT64_MAX;  // a time that did not come about
  static constexpr uint16_t kNoCore = UINT16_MAX;

  int64_t start_us = 0;  // wall clock, microseconds since 1970
  uint64_t duration_us = 0;
  uint64_t upstream_us = kNotMeasured;          // lease asked for -> last byte of the response
  uint64_t upstream_connect_us = kNotMeasured;  // not measured on a reused connection
  uint64_t upstream_header_us = kNotMeasured;   // lease asked for -> response head complete
  uint64_t bytes_in = 0;                        // from the client, heads included
  uint64_t bytes_out = 0;                       // to the client, heads included
  uint64_t request_id_high = 0;
  uint64_t request_id_low = 0;
  base::IpAddress client;
  uint32_t listener = 0;
  uint16_t client_port = 0;
  uint16_t status = 0;
  uint16_t core = kNoCore;
  uint16_t tls_version = 0;  // 0x0303, 0x0304; 0: no TLS, and the other tls_ fields are not written
  uint8_t protocol_major = 1;
  uint8_t protocol_minor = 1;
  uint8_t tries = 0;  // upstream attempts
  Reason reason = Reason::kNone;
  bool client_is_unix = false;  // the client came by a Unix socket: `client` is meaningless
  bool upstream_reused = false;
  bool tls_kernel = false;  // the kernel does the records; else see tls_why
  bool tls_resumed = false;
  bool truncated = false;  // set by write_access when a string was cut
  std::string_view method;
  std::string_view host;
  std::string_view path;  // with query, as received
  std::string_view user_agent;
  std::string_view referer;
  std::string_view upstream;          // name; empty: no upstream took part
  std::string_view upstream_address;  // as text
  std::string_view tls_cipher;        // the RFC's name
  std::string_view tls_why;           // why the records are done in userspace
  std::string_view tls_client_subject;
  std::string_view tls_client_fingerprint;  // SHA-256, hexadecimal; empty: no client certificate
};

inline constexpr size_t kMethodBytesMax = 32;
inline constexpr size_t kHostBytesMax = 255;
inline constexpr size_t kPathBytesMax = 2048;
inline constexpr size_t kUserAgentBytesMax = 512;
inline constexpr size_t kRefererBytesMax = 1024;
inline constexpr size_t kUpstreamBytesMax = 128;
inline constexpr size_t kUpstreamAddressBytesMax = 128;  // a Unix path is at most 108
inline constexpr size_t kTlsCipherBytesMax = 64;
inline constexpr size_t kTlsWhyBytesMax = 64;
inline constexpr size_t kTlsSubjectBytesMax = 512;
inline constexpr size_t kTlsFingerprintBytesMax = 64;

// Core: false when the channel was full (counted there). Ask channel.take_wake_request() once a
// turn.
bool write_access(Channel& channel, const AccessRecord& record) noexcept;
// Control: the record that write_access() made; empty when the bytes are not one.
std::optional<AccessRecord> parse_access(std::span<const std::byte> bytes) noexcept;

}  // namespace weir::log
