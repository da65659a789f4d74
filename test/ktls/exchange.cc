#include "exchange.h"

#include <weir/net/tls/ktls_record.h>

#include "tap.h"

namespace weir::test::ktls {

using namespace net::tls;

namespace {

// Around the size of a record, and beyond what the socket holds.
constexpr size_t kSizes[] = {1, 16383, 16384, 16385, 65537, 1500000};
constexpr uint64_t kUpSeed = 5;
constexpr uint64_t kDownSeed = 6;

size_t total() {
  size_t bytes = 0;
  for (const size_t size : kSizes) bytes += size;
  return bytes;
}

}  // namespace

void play_exchange(Peer& peer) {
  Stream up(kUpSeed);
  for (const size_t size : kSizes) peer.write(up.take(size));
  peer.read(total());
  peer.expect_close_notify();
  peer.send_close_notify();
}

namespace {

// Receives the data, passing over tickets. False when anything else comes.
bool receive_data(Tap& tap, PostHandshake& messages, size_t bytes, Digest& digest) {
  while (digest.bytes() < bytes) {
    tap.arm();
    const auto got = tap.next();
    if (!got || got->malformed || got->result < 0) return false;
    if (got->piece.type == RecordType::kHandshake) {
      if (messages.feed(got->piece) != PostHandshake::Event::kNothing) return false;
      continue;
    }
    if (got->piece.type != RecordType::kData || messages.inside_message()) return false;
    digest.add(got->bytes);
  }
  return true;
}

}  // namespace

void run_exchange(Tally& tally, const std::string& name, KernelTls& tls, TcpPair& pair, Peer& peer,
                  const SocketCount& before, const HandedOver& state) {
  const KernelKeys& keys = state.keys;
  const uint16_t version = keys.version;
  const bool server = state.server;
  const bool installed = tls.install(pair.ours, Direction::kTx, keys).has_value() &&
                         tls.install(pair.ours, Direction::kRx, keys).has_value();
  if (!tally.check(installed, name + "keys")) return;
  // Records under the keys of the data that the peer did not count, because they belong to its
  // handshake: Finished with TLS 1.2, and the tickets that a server sends at the end of it.
  const int64_t to_peer = version == kTls12 ? 1 : 0;
  const int64_t from_peer = version == kTls12 ? 1 : server ? 0 : 2;
  {
    Tap tap(pair.ours);
    PostHandshake messages(server ? PostHandshake::Role::kServer : PostHandshake::Role::kClient);
    tally.check(receive_data(tap, messages, total(), state.received), name + "received data only");
    tally.check(state.received.hex() == digest_of(kUpSeed, total()), name + "received data, hash");
    Stream down(kDownSeed);
    bool sent = true;
    for (const size_t size : kSizes) sent &= tap.send(down.take(size)) == 0;
    tally.check(sent, name + "sending");
    tally.check(tap.send_record(RecordType::kAlert, alert_bytes(Alert::kCloseNotify)) == 0,
                name + "close_notify sent");
    tap.arm();
    const auto end = tap.next();
    tally.check(end && !end->malformed && end->piece.type == RecordType::kAlert &&
                    parse_alert(end->piece) == AlertMeaning::kCloseNotify,
                name + "close_notify received");
    peer.join();
    const auto tx = read_record_sequence(pair.ours, Direction::kTx);
    const auto rx = read_record_sequence(pair.ours, Direction::kRx);
    tally.equal(tx ? static_cast<int64_t>(*tx) : -1, to_peer + peer.records_received(),
                name + "record number, sending");
    tally.equal(rx ? static_cast<int64_t>(*rx) : -1, from_peer + peer.records_sent(),
                name + "record number, receiving");
    pair.close_theirs();
    tap.arm();
    const auto fin = tap.next();
    tally.check(fin && fin->result >= 0 && !fin->malformed &&
                    fin->piece.type == RecordType::kNone && fin->bytes.empty(),
                name + "end of TCP is no record");
  }
  tally.check(peer.fault().empty(), name + "peer content", peer.fault());
  tally.check(peer.clean_end(), name + "peer saw close_notify");
  tally.check(peer.digest() == digest_of(kDownSeed, total()), name + "sent data, hash");
  tally.equal(tls_stat("TlsTxSw") - before.tx, 1, name + "TlsTxSw");
  tally.equal(tls_stat("TlsRxSw") - before.rx, 1, name + "TlsRxSw");
}

}  // namespace weir::test::ktls
