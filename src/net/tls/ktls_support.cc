// The start-up self-test of kernel TLS. It runs once, before any core, on sockets of its own, with
// real system calls: a simulated kernel has nothing to tell here.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/utsname.h>

#include <weir/base/check.h>
#include <weir/net/tls/ktls.h>
#include <weir/net/tls/ktls_record.h>
#include <weir/runtime/sys.h>

#include "ktls_seal.h"

namespace weir::net::tls {

namespace {

namespace sys = runtime::sys;
using Way = KernelSupport::Way;

// Loopback answers at once; this only keeps a broken kernel from holding the start up for ever.
constexpr int kPatienceMs = 5000;
constexpr int kHalfRecordMs = 10;
constexpr size_t kSampleSize = 1500;
constexpr uint64_t kFirstNumber = 7;  // not 0, so that a record number that is ignored shows

// Two ends of a TCP connection on the loopback interface, IPv4 or else IPv6.
struct Pair {
  int ours = -1;
  int theirs = -1;
  int os = 0;

  Pair() {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    os = open(&v4, sizeof v4);
    if (os == 0) return;
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_addr = in6addr_loopback;
    if (open(&v6, sizeof v6) == 0) os = 0;
  }
  ~Pair() { shut(); }
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;

 private:
  void shut() {
    if (ours >= 0) sys::close(ours);
    if (theirs >= 0) sys::close(theirs);
    ours = theirs = -1;
  }

  int open(void* address, socklen_t size) {
    shut();
    auto* name = static_cast<sockaddr*>(address);
    const int family = name->sa_family;
    const int listener = sys::socket(family, SOCK_STREAM, 0);
    if (listener < 0) return -listener;
    int result = sys::bind(listener, name, size);
    if (result == 0) result = sys::listen(listener, 1);
    if (result == 0) result = sys::getsockname(listener, name, &size);
    if (result == 0) result = theirs = sys::socket(family, SOCK_STREAM, 0);
    if (result >= 0 && theirs >= 0 && ::connect(theirs, name, size) < 0 && errno != EINPROGRESS)
      result = -errno;
    pollfd ready{.fd = listener, .events = POLLIN, .revents = 0};
    if (result >= 0 && ::poll(&ready, 1, kPatienceMs) != 1) result = -ETIMEDOUT;
    if (result >= 0) result = ours = sys::accept(listener);
    sys::close(listener);
    return result < 0 ? -result : 0;
  }
};

// Receives exactly `size` bytes of plain TCP.
std::vector<uint8_t> read_wire(int fd, size_t size) {
  std::vector<uint8_t> wire(size);
  size_t have = 0;
  while (have < size) {
    pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, kPatienceMs) != 1) break;
    const ssize_t got = sys::recv(fd, wire.data() + have, size - have, 0);
    if (got <= 0 && got != -EAGAIN) break;
    if (got > 0) have += static_cast<size_t>(got);
  }
  wire.resize(have);
  return wire;
}

// The next whole record's header and body.
std::vector<uint8_t> read_record(int fd) {
  std::vector<uint8_t> wire = read_wire(fd, 5);
  if (wire.size() != 5) return {};
  const size_t body = size_t{wire[3]} * 256 + wire[4];
  const std::vector<uint8_t> rest = read_wire(fd, body);
  wire.insert(wire.end(), rest.begin(), rest.end());
  return wire;
}

// One receive with its record type; `os` is set if it failed.
OpenedRecord receive_typed(int fd, int& os) {
  OpenedRecord record;
  record.bytes.resize(kSampleSize * 2);
  pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
  if (::poll(&ready, 1, kPatienceMs) != 1) {
    os = ETIMEDOUT;
    return {};
  }
  alignas(cmsghdr) std::array<uint8_t, kRecordControlSize> control{};
  iovec piece{record.bytes.data(), record.bytes.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t got = ::recvmsg(fd, &message, MSG_DONTWAIT);
  if (got < 0) {
    os = errno;
    return {};
  }
  record.bytes.resize(static_cast<size_t>(got));
  const auto parsed = parse_message(message, record.bytes);
  if (!parsed) {
    os = EPROTO;
    return {};
  }
  record.type = parsed->type;
  return record;
}

std::vector<uint8_t> make_sample() {
  std::vector<uint8_t> sample(kSampleSize);
  for (size_t i = 0; i < sample.size(); ++i) sample[i] = static_cast<uint8_t>(i * 7 + i / 251);
  return sample;
}

// Keys that are nobody's. They never leave the machine, so they need not be secret.
KernelKeys make_keys(uint16_t version, KernelCipher cipher) {
  KernelKeys keys;
  keys.version = version;
  keys.cipher = cipher;
  keys.hash = cipher == KernelCipher::kAes256Gcm ? SuiteHash::kSha384 : SuiteHash::kSha256;
  std::array<uint8_t, 48> bytes{};
  uint8_t next = 1;
  for (DirectionKeys* side : {&keys.tx, &keys.rx}) {
    for (uint8_t& byte : bytes) byte = next++;
    const std::span<const uint8_t> all(bytes);
    const bool fits = side->traffic_secret.assign(all.first(suite_hash_size(keys.hash))) &&
                      side->key.assign(all.first(kernel_key_size(cipher))) &&
                      side->iv.assign(all.last(implicit_iv_size(cipher)));
    WEIR_CHECK(fits);
    side->explicit_nonce = 0x0102030405060700 + next;
    side->record_number = kFirstNumber;
  }
  return keys;
}

constexpr Way kWorks{.works = true, .os = 0, .failed = {}};

Way failure(std::string_view step, int os) { return {.works = false, .os = os, .failed = step}; }

// Sends through the kernel, opens with OpenSSL: a data record, then close_notify.
Way check_sending(KernelTls& tls, int ours, int theirs, const KernelKeys& keys) {
  const std::vector<uint8_t> sample = make_sample();
  RecordKey key;
  if (!tls.record_key(keys, Direction::kTx, key)) return failure("deriving keys", 0);
  const ssize_t sent = sys::send(ours, sample.data(), sample.size(), 0);
  if (sent != static_cast<ssize_t>(sample.size())) {
    return failure("sending", sent < 0 ? static_cast<int>(-sent) : 0);
  }
  const AlertBytes bye = alert_bytes(Alert::kCloseNotify);
  const TypedRecord alert(RecordType::kAlert, bye);
  const ssize_t alerted = sys::sendmsg(ours, &alert.message(), 0);
  if (alerted != 2) {
    return failure("sending an alert", alerted < 0 ? static_cast<int>(-alerted) : 0);
  }
  const uint64_t number = keys.tx.record_number;
  const auto data = open_record(keys.version, keys.cipher, key, number, read_record(theirs));
  if (!data || data->type != RecordType::kData || data->bytes != sample) {
    return failure("comparing what was sent", 0);
  }
  const auto end = open_record(keys.version, keys.cipher, key, number + 1, read_record(theirs));
  if (!end || end->type != RecordType::kAlert || end->bytes.size() != 2) {
    return failure("comparing an alert", 0);
  }
  return kWorks;
}

// Seals with OpenSSL, receives through the kernel: a data record, then close_notify.
Way check_receiving(KernelTls& tls, int ours, int theirs, const KernelKeys& keys) {
  const std::vector<uint8_t> sample = make_sample();
  const AlertBytes bye = alert_bytes(Alert::kCloseNotify);
  RecordKey key;
  if (!tls.record_key(keys, Direction::kRx, key)) return failure("deriving keys", 0);
  const uint64_t number = keys.rx.record_number;
  std::vector<uint8_t> wire =
      seal_record(keys.version, keys.cipher, key, number, RecordType::kData, sample);
  const std::vector<uint8_t> alert =
      seal_record(keys.version, keys.cipher, key, number + 1, RecordType::kAlert, bye);
  wire.insert(wire.end(), alert.begin(), alert.end());
  if (sys::send(theirs, wire.data(), wire.size(), 0) != static_cast<ssize_t>(wire.size())) {
    return failure("sending to ourselves", 0);
  }
  int os = 0;
  const OpenedRecord data = receive_typed(ours, os);
  if (os != 0) return failure("receiving", os);
  if (data.type != RecordType::kData || data.bytes != sample) {
    return failure("comparing what was received", 0);
  }
  const OpenedRecord end = receive_typed(ours, os);
  if (os != 0) return failure("receiving an alert", os);
  if (end.type != RecordType::kAlert || end.bytes.size() != 2) {
    return failure("comparing an alert", 0);
  }
  return kWorks;
}

Way check_install(KernelTls& tls, const Pair& pair, Direction direction, const KernelKeys& keys) {
  const auto installed = tls.install(pair.ours, direction, keys);
  if (!installed) return failure("setting keys", installed.error().os);
  return direction == Direction::kTx ? check_sending(tls, pair.ours, pair.theirs, keys)
                                     : check_receiving(tls, pair.ours, pair.theirs, keys);
}

// One direction of one combination, on a pair of its own.
Way check_way(KernelTls& tls, Direction direction, uint16_t version, KernelCipher cipher) {
  const Pair pair;
  if (pair.os != 0) return failure("connecting to ourselves", pair.os);
  if (!attach_ulp(pair.ours)) return failure("attaching to the socket", 0);
  return check_install(tls, pair, direction, make_keys(version, cipher));
}

// A KeyUpdate in each direction with the cipher that every kernel with kTLS has.
Way check_rekey(KernelTls& tls) {
  KernelKeys keys = make_keys(kTls13, KernelCipher::kAes128Gcm);
  const Pair pair;
  if (pair.os != 0 || !attach_ulp(pair.ours)) return failure("connecting to ourselves", pair.os);
  for (const Direction direction : {Direction::kTx, Direction::kRx}) {
    const auto installed = tls.install(pair.ours, direction, keys);
    if (!installed) return failure("setting keys", installed.error().os);
  }
  RecordKey old;
  if (!tls.record_key(keys, Direction::kRx, old)) return failure("deriving keys", 0);
  const std::vector<uint8_t> update =
      seal_record(keys.version, keys.cipher, old, keys.rx.record_number, RecordType::kHandshake,
                  kKeyUpdateAnswer);
  if (sys::send(pair.theirs, update.data(), update.size(), 0) !=
      static_cast<ssize_t>(update.size())) {
    return failure("sending to ourselves", 0);
  }
  int os = 0;
  const OpenedRecord seen = receive_typed(pair.ours, os);
  if (os != 0 || seen.type != RecordType::kHandshake) return failure("receiving KeyUpdate", os);
  for (const Direction direction : {Direction::kRx, Direction::kTx}) {
    const auto changed = tls.rekey(pair.ours, direction, keys);
    if (!changed) return failure("changing keys", changed.error().os);
    const Way way = direction == Direction::kRx ? check_receiving(tls, pair.ours, pair.theirs, keys)
                                                : check_sending(tls, pair.ours, pair.theirs, keys);
    if (!way.works) return way;
  }
  return kWorks;
}

// Everything that comes until the peer has ended, received into one large block.
std::vector<uint8_t> receive_all(int fd) {
  std::vector<uint8_t> all(2 * kSampleSize, 0xee);
  size_t have = 0;
  while (have < all.size()) {
    pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, kPatienceMs) != 1) break;
    const ssize_t got = sys::recv(fd, all.data() + have, all.size() - have, 0);
    if (got <= 0 && got != -EAGAIN) break;
    if (got > 0) have += static_cast<size_t>(got);
  }
  all.resize(have);
  return all;
}

// A padded record (RFC 8446, 5.4) with others behind it, in one receive: each byte in its place?
Way check_padding(KernelTls& tls, size_t content, size_t padding) {
  const Pair pair;
  const KernelKeys keys = make_keys(kTls13, KernelCipher::kAes128Gcm);
  RecordKey key;
  if (pair.os != 0 || !attach_ulp(pair.ours)) return failure("connecting to ourselves", pair.os);
  if (!tls.install(pair.ours, Direction::kRx, keys) || !tls.record_key(keys, Direction::kRx, key)) {
    return failure("setting keys", 0);
  }
  expect_no_pad(pair.ours);
  const auto on = expects_no_pad(pair.ours);
  if (!on) return failure("reading the option", on.error().os);
  if (!*on) return failure("setting the option", 0);
  const std::vector<uint8_t> sample = make_sample();
  const std::span<const uint8_t> all(sample);
  // The inner plaintext is content, type and zeros: the last zero stands where a type would.
  std::vector<uint8_t> inner(all.begin(), all.begin() + static_cast<ptrdiff_t>(content));
  inner.push_back(static_cast<uint8_t>(RecordType::kData));
  inner.resize(inner.size() + padding - 1);
  uint64_t number = keys.rx.record_number;
  std::vector<uint8_t> wire =
      seal_record(keys.version, keys.cipher, key, number, RecordType{0}, inner);
  constexpr size_t kBehind = 50;
  for (size_t at = content; at < content + 2 * kBehind; at += kBehind) {
    const std::vector<uint8_t> next = seal_record(keys.version, keys.cipher, key, ++number,
                                                  RecordType::kData, all.subspan(at, kBehind));
    wire.insert(wire.end(), next.begin(), next.end());
  }
  if (sys::send(pair.theirs, wire.data(), wire.size(), 0) != static_cast<ssize_t>(wire.size())) {
    return failure("sending to ourselves", 0);
  }
  (void)sys::shutdown(pair.theirs, SHUT_WR);
  const std::vector<uint8_t> got = receive_all(pair.ours);
  const bool same = std::ranges::equal(got, all.first(content + 2 * kBehind));
  return same ? kWorks : failure("receiving what is behind a padded record", 0);
}

Way check_no_pad(KernelTls& tls) {
  for (const auto& [content, padding] : {std::pair{1UL, 300UL}, {1UL, 1UL}, {200UL, 700UL}}) {
    const Way way = check_padding(tls, content, padding);
    if (!way.works) return way;
  }
  return kWorks;
}

// Does poll(2) call half a record readable? One that does says so at once.
bool check_half_record(KernelTls& tls) {
  const Pair pair;
  const KernelKeys keys = make_keys(kTls13, KernelCipher::kAes128Gcm);
  RecordKey key;
  if (pair.os != 0 || !attach_ulp(pair.ours) || !tls.install(pair.ours, Direction::kRx, keys) ||
      !tls.record_key(keys, Direction::kRx, key)) {
    return false;
  }
  const std::vector<uint8_t> wire = seal_record(
      keys.version, keys.cipher, key, keys.rx.record_number, RecordType::kData, make_sample());
  (void)sys::send(pair.theirs, wire.data(), wire.size() / 2, 0);
  pollfd ready{.fd = pair.ours, .events = POLLIN, .revents = 0};
  return ::poll(&ready, 1, kHalfRecordMs) == 1;
}

std::string describe(const Way& way) {
  std::string text(way.failed);
  text += " failed";
  if (way.os != 0) {
    std::array<char, 128> room{};
    text += ": ";
    text += ::strerror_r(way.os, room.data(), room.size());
  }
  return text;
}

}  // namespace

KernelSupport KernelSupport::probe() {
  KernelSupport support;
  utsname name{};
  if (::uname(&name) == 0) support.release = name.release;
  {
    const Pair pair;
    support.os = pair.os;
    if (pair.os == 0) {
      support.present = attach_ulp(pair.ours, &support.os);
    }
  }
  if (!support.present) return support;
  KernelTls tls(nullptr);
  for (size_t v = 0; v < kVersions.size(); ++v) {
    for (size_t c = 0; c < kCiphers.size(); ++c) {
      support.table[v][c] = {.tx = check_way(tls, Direction::kTx, kVersions[v], kCiphers[c]),
                             .rx = check_way(tls, Direction::kRx, kVersions[v], kCiphers[c])};
    }
  }
  support.rekey = check_rekey(tls);
  support.no_pad = check_no_pad(tls);
  support.polls_half_records = support.any() && check_half_record(tls);
  return support;
}

bool KernelSupport::any() const noexcept {
  for (const auto& row : table) {
    for (const Combination& one : row) {
      if (one.tx.works && one.rx.works) return true;
    }
  }
  return false;
}

std::vector<std::string> KernelSupport::lines() const {
  std::vector<std::string> out;
  if (!present) {
    std::array<char, 128> room{};
    out.push_back("kernel TLS: not available (" +
                  std::string(::strerror_r(os, room.data(), room.size())) +
                  "); is the module tls loaded or loadable?");
    return out;
  }
  std::string summary = "kernel TLS:";
  std::vector<std::string> faults;
  for (const uint16_t version : kVersions) {
    for (const KernelCipher cipher : kCiphers) {
      const std::string title = std::string(version == kTls13 ? "TLSv1.3" : "TLSv1.2") + " " +
                                std::string(to_string(cipher));
      if (can(version, cipher)) summary += " " + title + ",";
      const Combination& one = at(version, cipher);
      if (!one.tx.works) faults.push_back("no " + title + " sending: " + describe(one.tx));
      if (!one.rx.works) faults.push_back("no " + title + " receiving: " + describe(one.rx));
    }
  }
  if (summary.back() == ',') summary.back() = ';';
  summary += rekey.works ? " with KeyUpdate" : " without KeyUpdate";
  out.push_back(any() ? summary : "kernel TLS: no version and cipher works both ways");
  if (!rekey.works) {
    out.push_back("a connection whose peer sends KeyUpdate is closed: " + describe(rekey));
  }
  if (!no_pad.works) out.push_back("receiving costs more than it has to: " + describe(no_pad));
  if (polls_half_records) {
    out.push_back("kernel " + release +
                  " reports half a record as readable; only multishot receives are used");
  }
  out.insert(out.end(), faults.begin(), faults.end());
  return out;
}

}  // namespace weir::net::tls
