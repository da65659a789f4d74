#include <weir/log/access.h>

#include <array>
#include <cstring>
#include <type_traits>

#include <weir/base/check.h>

namespace weir::log {

namespace {

constexpr std::array<std::string_view, static_cast<size_t>(Reason::kCount)> kReasonNames = {
    "none",
    "client_gone",
    "client_timeout",
    "bad_request",
    "too_large",
    "unsupported",
    "no_route",
    "denied",
    "rate_limited",
    "limit",
    "upstream_connect",
    "upstream_tls",
    "upstream_timeout",
    "upstream_reset",
    "upstream_closed",
    "upstream_malformed",
    "upstream_busy",
    "no_upstream",
    "idle_timeout",
    "shutdown",
    "internal",
};
static_assert(!kReasonNames.back().empty());

enum Flag : uint8_t {
  kClientIsUnix = 1,
  kUpstreamReused = 2,
  kTruncated = 4,
  kTlsKernel = 8,
  kTlsResumed = 16
};

// The fixed part of a record; the strings follow in the order of their lengths here. It never
// leaves the process, so byte order and layout are the machine's.
struct Head {
  int64_t start_us;
  uint64_t duration_us;
  uint64_t upstream_us;
  uint64_t upstream_connect_us;
  uint64_t upstream_header_us;
  uint64_t bytes_in;
  uint64_t bytes_out;
  uint64_t request_id_high;
  uint64_t request_id_low;
  std::array<uint8_t, 16> client;
  uint32_t listener;
  uint16_t client_port;
  uint16_t status;
  uint16_t core;
  uint16_t path_bytes;
  uint16_t user_agent_bytes;
  uint16_t referer_bytes;
  uint16_t tls_version;
  uint16_t tls_subject_bytes;
  uint8_t host_bytes;
  uint8_t method_bytes;
  uint8_t upstream_bytes;
  uint8_t upstream_address_bytes;
  uint8_t tls_cipher_bytes;
  uint8_t tls_why_bytes;
  uint8_t tls_fingerprint_bytes;
  uint8_t protocol_major;
  uint8_t protocol_minor;
  uint8_t tries;
  Reason reason;
  uint8_t flags;
};
static_assert(sizeof(Head) == 120);
static_assert(std::has_unique_object_representations_v<Head>);  // no padding, no stack bytes

constexpr size_t kRecordBytesMax = sizeof(Head) + kMethodBytesMax + kHostBytesMax + kPathBytesMax +
                                   kUserAgentBytesMax + kRefererBytesMax + kUpstreamBytesMax +
                                   kUpstreamAddressBytesMax + kTlsCipherBytesMax + kTlsWhyBytesMax +
                                   kTlsSubjectBytesMax + kTlsFingerprintBytesMax;
static_assert(kRecordBytesMax + 64 <= Channel::kCapacityBytesMin / 4);
static_assert(kHostBytesMax <= UINT8_MAX && kMethodBytesMax <= UINT8_MAX);
static_assert(kUpstreamBytesMax <= UINT8_MAX && kUpstreamAddressBytesMax <= UINT8_MAX);
static_assert(kTlsCipherBytesMax <= UINT8_MAX && kTlsWhyBytesMax <= UINT8_MAX);
static_assert(kTlsFingerprintBytesMax <= UINT8_MAX);

template <class Length>
size_t cut(std::string_view text, size_t limit, Length& length, uint8_t& flags) noexcept {
  size_t bytes = text.size();
  if (bytes > limit) {
    bytes = limit;
    flags = static_cast<uint8_t>(flags | kTruncated);
  }
  length = static_cast<Length>(bytes);
  return bytes;
}

std::byte* put(std::byte* to, std::string_view text, size_t bytes) noexcept {
  if (bytes != 0) std::memcpy(to, text.data(), bytes);
  return to + bytes;
}

Head make_head(const AccessRecord& r) noexcept {
  uint8_t flags = 0;
  if (r.client_is_unix) flags |= kClientIsUnix;
  if (r.upstream_reused) flags |= kUpstreamReused;
  if (r.truncated) flags |= kTruncated;
  return {.start_us = r.start_us,
          .duration_us = r.duration_us,
          .upstream_us = r.upstream_us,
          .upstream_connect_us = r.upstream_connect_us,
          .upstream_header_us = r.upstream_header_us,
          .bytes_in = r.bytes_in,
          .bytes_out = r.bytes_out,
          .request_id_high = r.request_id_high,
          .request_id_low = r.request_id_low,
          .client = r.client.bytes,
          .listener = r.listener,
          .client_port = r.client_port,
          .status = r.status,
          .core = r.core,
          .path_bytes = 0,
          .user_agent_bytes = 0,
          .referer_bytes = 0,
          .tls_version = r.tls_version,
          .tls_subject_bytes = 0,
          .host_bytes = 0,
          .method_bytes = 0,
          .upstream_bytes = 0,
          .upstream_address_bytes = 0,
          .tls_cipher_bytes = 0,
          .tls_why_bytes = 0,
          .tls_fingerprint_bytes = 0,
          .protocol_major = r.protocol_major,
          .protocol_minor = r.protocol_minor,
          .tries = r.tries,
          .reason = r.reason,
          .flags = flags};
}

AccessRecord from_head(const Head& head) noexcept {
  AccessRecord r;
  r.start_us = head.start_us;
  r.duration_us = head.duration_us;
  r.upstream_us = head.upstream_us;
  r.upstream_connect_us = head.upstream_connect_us;
  r.upstream_header_us = head.upstream_header_us;
  r.bytes_in = head.bytes_in;
  r.bytes_out = head.bytes_out;
  r.request_id_high = head.request_id_high;
  r.request_id_low = head.request_id_low;
  r.client.bytes = head.client;
  r.listener = head.listener;
  r.client_port = head.client_port;
  r.status = head.status;
  r.core = head.core;
  r.protocol_major = head.protocol_major;
  r.protocol_minor = head.protocol_minor;
  r.tries = head.tries;
  r.reason = head.reason;
  r.client_is_unix = (head.flags & kClientIsUnix) != 0;
  r.upstream_reused = (head.flags & kUpstreamReused) != 0;
  r.truncated = (head.flags & kTruncated) != 0;
  r.tls_version = head.tls_version;
  r.tls_kernel = (head.flags & kTlsKernel) != 0;
  r.tls_resumed = (head.flags & kTlsResumed) != 0;
  return r;
}

// Lengths and flags of the TLS part; returns the bytes of its strings.
size_t cut_tls(const AccessRecord& r, Head& head) noexcept {
  if (r.tls_kernel) head.flags |= kTlsKernel;
  if (r.tls_resumed) head.flags |= kTlsResumed;
  return cut(r.tls_cipher, kTlsCipherBytesMax, head.tls_cipher_bytes, head.flags) +
         cut(r.tls_why, kTlsWhyBytesMax, head.tls_why_bytes, head.flags) +
         cut(r.tls_client_subject, kTlsSubjectBytesMax, head.tls_subject_bytes, head.flags) +
         cut(r.tls_client_fingerprint, kTlsFingerprintBytesMax, head.tls_fingerprint_bytes,
             head.flags);
}

std::byte* put_tls(std::byte* to, const AccessRecord& r, const Head& head) noexcept {
  to = put(to, r.tls_cipher, head.tls_cipher_bytes);
  to = put(to, r.tls_why, head.tls_why_bytes);
  to = put(to, r.tls_client_subject, head.tls_subject_bytes);
  return put(to, r.tls_client_fingerprint, head.tls_fingerprint_bytes);
}

size_t tls_bytes(const Head& head) noexcept {
  return size_t{head.tls_cipher_bytes} + head.tls_why_bytes + head.tls_subject_bytes +
         head.tls_fingerprint_bytes;
}

}  // namespace

std::string_view to_string(Reason reason) noexcept {
  const auto index = static_cast<size_t>(reason);
  return index < kReasonNames.size() ? kReasonNames[index] : "unknown";
}

bool write_access(Channel& channel, const AccessRecord& r) noexcept {
  Head head = make_head(r);
  const size_t method = cut(r.method, kMethodBytesMax, head.method_bytes, head.flags);
  const size_t host = cut(r.host, kHostBytesMax, head.host_bytes, head.flags);
  const size_t path = cut(r.path, kPathBytesMax, head.path_bytes, head.flags);
  const size_t agent = cut(r.user_agent, kUserAgentBytesMax, head.user_agent_bytes, head.flags);
  const size_t referer = cut(r.referer, kRefererBytesMax, head.referer_bytes, head.flags);
  const size_t upstream = cut(r.upstream, kUpstreamBytesMax, head.upstream_bytes, head.flags);
  const size_t address =
      cut(r.upstream_address, kUpstreamAddressBytesMax, head.upstream_address_bytes, head.flags);
  // Before the reservation, and one branch for connections without TLS.
  const size_t tls = r.tls_version == 0 ? 0 : cut_tls(r, head);
  const size_t total =
      sizeof(head) + method + host + path + agent + referer + upstream + address + tls;
  const std::span<std::byte> room = channel.try_reserve(total);
  if (room.data() == nullptr) return false;
  std::byte* to = room.data();
  std::memcpy(to, &head, sizeof(head));
  to = put(to + sizeof(head), r.path, path);
  to = put(to, r.user_agent, agent);
  to = put(to, r.referer, referer);
  to = put(to, r.host, host);
  to = put(to, r.method, method);
  to = put(to, r.upstream, upstream);
  to = put(to, r.upstream_address, address);
  if (tls != 0) to = put_tls(to, r, head);
  WEIR_DCHECK(to == room.data() + total);
  channel.commit(RecordKind::kAccess, total);
  return true;
}

std::optional<AccessRecord> parse_access(std::span<const std::byte> bytes) noexcept {
  Head head;
  if (bytes.size() < sizeof(head)) return std::nullopt;
  std::memcpy(&head, bytes.data(), sizeof(head));
  const size_t strings = size_t{head.path_bytes} + head.user_agent_bytes + head.referer_bytes +
                         head.host_bytes + head.method_bytes + head.upstream_bytes +
                         head.upstream_address_bytes + tls_bytes(head);
  if (bytes.size() != sizeof(head) + strings) return std::nullopt;
  if (head.reason >= Reason::kCount) return std::nullopt;
  AccessRecord r = from_head(head);
  const char* from = reinterpret_cast<const char*>(bytes.data()) + sizeof(head);
  const auto take = [&from](size_t length) {
    const std::string_view text(from, length);
    from += length;
    return text;
  };
  r.path = take(head.path_bytes);
  r.user_agent = take(head.user_agent_bytes);
  r.referer = take(head.referer_bytes);
  r.host = take(head.host_bytes);
  r.method = take(head.method_bytes);
  r.upstream = take(head.upstream_bytes);
  r.upstream_address = take(head.upstream_address_bytes);
  r.tls_cipher = take(head.tls_cipher_bytes);
  r.tls_why = take(head.tls_why_bytes);
  r.tls_client_subject = take(head.tls_subject_bytes);
  r.tls_client_fingerprint = take(head.tls_fingerprint_bytes);
  return r;
}

}  // namespace weir::log
