// The edges of kernel TLS that the hand-over has to stand: keys too early, too late, twice or
// incomplete; records that are broken, cut off, padded, empty, split or of an odd type; what is
// left of a socket after an error. The peer is a plain TCP socket; its records are made and opened
// with OpenSSL's ciphers.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

#include <weir/net/tls/ktls.h>
#include <weir/net/tls/ktls_record.h>

#include "ktls_seal.h"
#include "rig.h"
#include "tap.h"

using namespace weir::net::tls;
using namespace weir::test::ktls;
using weir::base::Errc;

namespace {

constexpr KernelCipher kCipher = KernelCipher::kAes128Gcm;
using Bytes = std::vector<uint8_t>;

// A kernel socket with known keys, and its peer in userspace.
struct Line {
  TcpPair pair;
  KernelKeys keys;
  RecordKey tx;
  RecordKey rx;
  uint64_t sent = 0;  // by the peer

  Line(Tally& tally, KernelTls& tls, uint16_t version = kTls13, KernelCipher cipher = kCipher)
      : keys(known_keys(version, cipher)) {
    const bool ready = attach_ulp(pair.ours) && tls.record_key(keys, Direction::kTx, tx) &&
                       tls.record_key(keys, Direction::kRx, rx) &&
                       tls.install(pair.ours, Direction::kTx, keys) &&
                       tls.install(pair.ours, Direction::kRx, keys);
    if (!ready) tally.check(false, "a socket with keys");
  }
  Bytes sealed(RecordType type, const Bytes& bytes) {
    return seal_record(keys.version, keys.cipher, rx, keys.rx.record_number + sent++, type, bytes);
  }
  void put(const Bytes& wire) const { put(pair.theirs, wire); }
  static void put(int fd, const Bytes& wire) {
    if (send(fd, wire.data(), wire.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(wire.size())) {
      std::perror("send");
    }
  }
  // The next record that the kernel sent, as it was on the wire.
  [[nodiscard]] Bytes wire() const {
    Bytes record(5);
    if (recv(pair.theirs, record.data(), 5, MSG_WAITALL) != 5) return {};
    const size_t body = size_t{record[3]} * 256 + record[4];
    record.resize(5 + body);
    if (recv(pair.theirs, &record[5], body, MSG_WAITALL) != static_cast<ssize_t>(body)) return {};
    return record;
  }
  [[nodiscard]] std::optional<OpenedRecord> opened(uint64_t number) const {
    return open_record(keys.version, keys.cipher, tx, keys.tx.record_number + number, wire());
  }
};

bool is_data(const std::optional<Received>& got, const Bytes& expected) {
  return got && got->result >= 0 && !got->malformed && got->piece.type == RecordType::kData &&
         got->bytes == expected;
}

void check_set_up(Tally& tally, KernelTls& tls) {
  const KernelKeys keys = known_keys(kTls13, kCipher);
  {
    TcpPair pair;
    const auto early = tls.install(pair.ours, Direction::kTx, keys);
    tally.check(
        !early && early.error().code == Errc::kUnsupported && early.error().os == ENOPROTOOPT,
        "keys without ULP");
    tally.check(!read_record_sequence(pair.ours, Direction::kTx), "no record number without ULP");
  }
  {
    TcpPair pair;
    tally.check(attach_ulp(pair.ours), "ULP");
    int32_t os = 0;
    tally.check(!attach_ulp(pair.ours, &os) && os == EEXIST, "ULP twice");
    Line::put(pair.ours, {1, 2, 3});
    Line::put(pair.theirs, {4, 5});
    Bytes at_theirs(3);
    Bytes at_ours(2);
    recv(pair.theirs, at_theirs.data(), 3, MSG_WAITALL);
    recv(pair.ours, at_ours.data(), 2, MSG_WAITALL);
    tally.check(at_theirs == Bytes{1, 2, 3} && at_ours == Bytes{4, 5}, "ULP alone is plain TCP");
    pair.close_theirs();
    Bytes none(1);
    tally.check(recv(pair.ours, none.data(), 1, 0) == 0, "the peer is gone");
    tally.check(tls.install(pair.ours, Direction::kTx, keys) &&
                    tls.install(pair.ours, Direction::kRx, keys),
                "keys after the peer's FIN");
  }
  {
    TcpPair pair;
    pair.close_theirs();
    Bytes none(1);
    tally.check(recv(pair.ours, none.data(), 1, 0) == 0, "the peer is gone");
    int32_t os = 0;
    tally.check(!attach_ulp(pair.ours, &os) && os == ENOTCONN, "ULP after the peer's FIN");
  }
  {
    TcpPair pair;
    tally.check(attach_ulp(pair.ours), "ULP once more");
    const KernelKeys other = known_keys(kTls13, KernelCipher::kAes256Gcm);
    tally.check(tls.install(pair.ours, Direction::kTx, keys).has_value(), "keys for sending");
    const auto mixed = tls.install(pair.ours, Direction::kRx, other);
    tally.check(!mixed && mixed.error().code == Errc::kInvalid, "another cipher for receiving");
    KernelKeys wrong = known_keys(kTls13, kCipher);
    wrong.version = 0x0302;
    tally.check(!tls.install(pair.ours, Direction::kRx, wrong), "another version");
    KernelKeys empty;
    empty.version = kTls12;
    const auto incomplete = tls.install(pair.ours, Direction::kRx, empty);
    tally.check(!incomplete && incomplete.error().code == Errc::kInvalid, "incomplete keys");
    const auto on = expects_no_pad(pair.ours);
    tally.check(!on || !*on, "padding is expected before there are keys");
    tally.check(tls.install(pair.ours, Direction::kRx, keys).has_value(), "keys for receiving");
    tally.check(expects_no_pad(pair.ours) == false, "nor with them, unless it is asked for");
    expect_no_pad(pair.ours);
    tally.check(expects_no_pad(pair.ours) == true, "no padding is expected");
  }
}

// Records that came with the handshake's last bytes are in the socket before the keys are.
void check_queued(Tally& tally, KernelTls& tls) {
  const KernelKeys keys = known_keys(kTls13, kCipher);
  RecordKey rx;
  TcpPair pair;
  tally.check(attach_ulp(pair.ours) && tls.record_key(keys, Direction::kRx, rx), "ULP first");
  const Bytes first(1000, 'a');
  const Bytes second(300, 'b');
  Line::put(pair.theirs, seal_record(kTls13, kCipher, rx, 3, RecordType::kData, first));
  const Bytes rest = seal_record(kTls13, kCipher, rx, 4, RecordType::kData, second);
  Line::put(pair.theirs, {rest.begin(), rest.begin() + 100});
  char peeked[1100];
  recv(pair.ours, peeked, sizeof peeked, MSG_PEEK | MSG_WAITALL);
  tally.check(tls.install(pair.ours, Direction::kRx, keys).has_value(), "keys behind the data");
  Tap tap(pair.ours);
  tap.arm();
  tally.check(is_data(tap.next(), first), "a record that was there before");
  tally.check(!tap.next(200), "half a record brings nothing");
  Line::put(pair.theirs, {rest.begin() + 100, rest.end()});
  tally.check(is_data(tap.next(), second), "and its other half");
}

void check_explicit_nonce(Tally& tally, KernelTls& tls) {
  for (const KernelCipher cipher : {KernelCipher::kAes128Gcm, KernelCipher::kAes256Gcm}) {
    Line line(tally, tls, kTls12, cipher);
    uint64_t expected = line.keys.tx.explicit_nonce;
    bool equal = true;
    for (int i = 0; i < 3; ++i, ++expected) {
      Line::put(line.pair.ours, {1, 2, 3});
      const Bytes wire = line.wire();
      uint64_t nonce = 0;
      for (size_t at = 5; at < 13 && at < wire.size(); ++at) nonce = nonce << 8 | wire[at];
      const auto record = open_record(kTls12, cipher, line.tx,
                                      line.keys.tx.record_number + static_cast<uint64_t>(i), wire);
      equal &= nonce == expected && record && record->bytes == Bytes{1, 2, 3};
    }
    tally.check(equal, title(kTls12, cipher) + ": the explicit nonce goes on where it stood");
  }
}

void check_broken(Tally& tally, KernelTls& tls) {
  struct Case {
    const char* name;
    int os;
    Alert alert;
    Bytes wire;
  };
  const Case cases[] = {
      {"a changed bit", EBADMSG, Alert::kBadRecordMac, {}},
      {"a record too long", EMSGSIZE, Alert::kRecordOverflow, {23, 3, 3, 0x7f, 0xff, 1, 2, 3}},
      {"no TLS at all", EINVAL, Alert::kUnexpectedMessage, {'G', 'E', 'T', ' ', '/', ' ', 'H'}},
  };
  for (const Case& one : cases) {
    Line line(tally, tls);
    Bytes wire = one.wire;
    if (wire.empty()) {
      wire = line.sealed(RecordType::kData, Bytes(100, 'x'));
      wire[50] ^= 1;
    }
    Tap tap(line.pair.ours);
    tap.arm();
    line.put(wire);
    const auto got = tap.next();
    tally.equal(got ? got->result : 0, -one.os, std::string(one.name) + ": errno");
    tally.check(got && got->bytes.empty(), std::string(one.name) + ": no bytes");
    const ReceiveFault fault = receive_fault(one.os);
    tally.check(fault.kind == ReceiveFault::Kind::kBadRecord && fault.alert == one.alert,
                std::string(one.name) + ": alert");
    clear_socket_error(line.pair.ours);
    tally.equal(tap.send_record(RecordType::kAlert, alert_bytes(fault.alert)), 0,
                std::string(one.name) + ": the alert can be sent");
    const auto seen = line.opened(0);
    tally.check(seen && seen->type == RecordType::kAlert &&
                    seen->bytes == Bytes{2, static_cast<uint8_t>(one.alert)},
                std::string(one.name) + ": and arrives");
  }
}

void check_ends(Tally& tally, KernelTls& tls) {
  for (const bool inside : {false, true}) {
    const std::string name = inside ? "FIN inside a record" : "FIN without close_notify";
    Line line(tally, tls);
    Tap tap(line.pair.ours);
    tap.arm();
    line.put(line.sealed(RecordType::kData, {1, 2, 3}));
    if (inside) {
      Bytes cut = line.sealed(RecordType::kData, Bytes(100, 'x'));
      cut.resize(60);
      line.put(cut);
    }
    line.pair.close_theirs();
    tally.check(is_data(tap.next(), {1, 2, 3}), name + ": what came whole is data");
    tap.arm();
    const auto end = tap.next();
    tally.check(end && end->result >= 0 && !end->malformed &&
                    end->piece.type == RecordType::kNone && end->bytes.empty(),
                name + ": an end without a record");
  }
  Line line(tally, tls);
  Tap tap(line.pair.ours);
  tap.arm();
  const linger hard{.l_onoff = 1, .l_linger = 0};
  setsockopt(line.pair.theirs, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  line.pair.close_theirs();
  const auto reset = tap.next();
  tally.equal(reset ? reset->result : 0, -ECONNRESET, "a reset is a reset");
}

void check_pieces(Tally& tally, KernelTls& tls) {
  Line line(tally, tls);
  Tap tap(line.pair.ours, 4096);
  tap.arm();
  const Bytes large = Stream(3).take(16384);
  line.put(line.sealed(RecordType::kData, large));
  Bytes all;
  int pieces = 0;
  bool early_end = false;
  bool last_ends = false;
  while (all.size() < large.size()) {
    const auto got = tap.next();
    if (!got || got->result < 0 || got->malformed || got->piece.type != RecordType::kData) break;
    early_end |= last_ends;
    last_ends = got->piece.record_ends;
    all.insert(all.end(), got->bytes.begin(), got->bytes.end());
    ++pieces;
  }
  tally.check(all == large, "a record larger than a buffer, in pieces");
  tally.equal(pieces, 5, "of a buffer less the overhead each");
  tally.check(last_ends && !early_end, "only the last piece ends the record");

  // A type of its own is never merged with what is before or behind it.
  Bytes wire = line.sealed(RecordType::kData, {1});
  for (const Bytes& next :
       {line.sealed(RecordType::kHandshake, {kKeyUpdateAnswer.begin(), kKeyUpdateAnswer.end()}),
        line.sealed(RecordType::kAlert, {1, 0})}) {
    wire.insert(wire.end(), next.begin(), next.end());
  }
  line.put(wire);
  tally.check(is_data(tap.next(), {1}), "data before KeyUpdate");
  const auto update = tap.next();
  tally.check(update && update->piece.type == RecordType::kHandshake && update->piece.record_ends &&
                  PostHandshake(PostHandshake::Role::kServer).feed(update->piece) ==
                      PostHandshake::Event::kKeyUpdate,
              "KeyUpdate is one piece of its own");
}

void check_odd_records(Tally& tally, KernelTls& tls) {
  {
    const int64_t before = tls_stat("TlsRxNoPadViolation");
    Line line(tally, tls);
    expect_no_pad(line.pair.ours);
    Tap tap(line.pair.ours);
    tap.arm();
    // Padding is zeros behind the type; sealing type 0 with the real type before it makes some.
    Bytes padded{'h', 'i', static_cast<uint8_t>(RecordType::kData)};
    padded.resize(40);
    line.put(line.sealed(RecordType::kNone, padded));
    tally.check(is_data(tap.next(), {'h', 'i'}), "a padded record");
    tally.equal(tls_stat("TlsRxNoPadViolation") - before, 1, "TlsRxNoPadViolation");
    line.put(line.sealed(RecordType::kData, {}));
    line.put(line.sealed(RecordType::kData, {'o', 'n'}));
    tally.check(is_data(tap.next(), {'o', 'n'}) && tap.armed(), "an empty record is passed over");
  }
  {
    Line line(tally, tls);
    Tap tap(line.pair.ours);
    tap.arm();
    line.put(line.sealed(RecordType{25}, {1, 2, 3}));
    const auto got = tap.next();
    tally.check(got && (got->malformed || got->result < 0) && got->bytes.empty(),
                "a record of unknown type is refused");
  }
  {
    // A server's ticket that begins in one record and ends in the next, as a client sees it.
    Line line(tally, tls);
    Tap tap(line.pair.ours);
    tap.arm();
    Bytes ticket{4, 0, 0, 50};
    ticket.resize(54, 9);
    line.put(line.sealed(RecordType::kHandshake, {ticket.begin(), ticket.begin() + 2}));
    line.put(line.sealed(RecordType::kHandshake, {ticket.begin() + 2, ticket.end()}));
    line.put(line.sealed(RecordType::kData, {7}));
    PostHandshake messages(PostHandshake::Role::kClient);
    bool good = true;
    auto got = tap.next();
    for (; got && got->piece.type == RecordType::kHandshake; got = tap.next()) {
      good &= messages.feed(got->piece) == PostHandshake::Event::kNothing;
    }
    tally.check(good && !messages.inside_message() && is_data(got, {7}), "a ticket in two records");
  }
}

void check_open_record(Tally& tally, KernelTls& tls) {
  Line line(tally, tls);
  Tap tap(line.pair.ours);
  tally.check(tap.send(Bytes(100, 'm'), MSG_MORE) == 0, "an open record");
  tally.check(tap.send_record(RecordType::kAlert, alert_bytes(Alert::kCloseNotify)) == 0,
              "close_notify behind it");
  const auto data = line.opened(0);
  const auto alert = line.opened(1);
  tally.check(data && data->type == RecordType::kData && data->bytes == Bytes(100, 'm'),
              "the open record is sent first");
  tally.check(alert && alert->type == RecordType::kAlert && alert->bytes == Bytes{1, 0},
              "then close_notify");
  const auto number = read_record_sequence(line.pair.ours, Direction::kTx);
  tally.check(number && *number == line.keys.tx.record_number + 2, "two records");
}

}  // namespace

int main() {
  Tally tally;
  KernelTls tls(nullptr);
  const int64_t errors_before = tls_stat("TlsDecryptError");
  check_set_up(tally, tls);
  check_queued(tally, tls);
  check_explicit_nonce(tally, tls);
  check_broken(tally, tls);
  check_ends(tally, tls);
  check_pieces(tally, tls);
  check_odd_records(tally, tls);
  check_open_record(tally, tls);
  tally.equal(tls_stat("TlsDecryptError") - errors_before, 1,
              "one decryption error, the one that was made");
  return tally.finish();
}
