// KeyUpdate (TLS 1.3) from an OpenSSL peer, both kinds. A kernel that takes new keys (6.14 and
// later) goes on with the data, hash for hash, and answers where that is asked; an older one
// refuses cleanly: the keys stay as they were, the peer gets close_notify and not one wrong byte.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <string>
#include <vector>

#include <weir/net/tls/ktls.h>
#include <weir/net/tls/ktls_record.h>

#include "peer.h"
#include "rig.h"
#include "tap.h"

using namespace weir::net::tls;
using namespace weir::test::ktls;

namespace {

constexpr size_t kBlock = 40000;
constexpr int kRounds = 4;
constexpr uint64_t kUpSeed = 7;
constexpr uint64_t kDownSeed = 8;

struct Counters {
  int64_t rx_rekeys = tls_stat("TlsRxRekeyOk");
  int64_t tx_rekeys = tls_stat("TlsTxRekeyOk");
  int64_t announced = tls_stat("TlsRxRekeyReceived");
  int64_t decrypt_errors = tls_stat("TlsDecryptError");
};

// One connection handed to the kernel, our side.
struct Session {
  Tally& tally;
  KernelTls& tls;
  Tap& tap;
  KernelKeys& keys;
  int fd;
  Counters before;  // from before the peer could do anything
  PostHandshake messages{PostHandshake::Role::kServer};
  int answers = 0;
  int updates = 0;
  int expired = 0;  // receives that ended because the new keys were not there yet

  bool change_keys(PostHandshake::Event event) {
    if (event == PostHandshake::Event::kNothing) return true;
    ++updates;
    if (!tls.rekey(fd, Direction::kRx, keys)) return false;
    if (event != PostHandshake::Event::kKeyUpdateRequested) return true;
    ++answers;
    return tap.send_record(RecordType::kHandshake, kKeyUpdateAnswer) == 0 &&
           tls.rekey(fd, Direction::kTx, keys).has_value();
  }

  bool receive(size_t bytes, Digest& digest) {
    const uint64_t until = digest.bytes() + bytes;
    while (digest.bytes() < until) {
      tap.arm();
      const auto got = tap.next();
      if (!got || got->malformed) return false;
      if (got->result < 0) {
        if (receive_fault(-got->result).kind != ReceiveFault::Kind::kNeedsKeys) return false;
        ++expired;
        continue;
      }
      if (got->piece.type == RecordType::kData) {
        digest.add(got->bytes);
        continue;
      }
      const auto event = messages.feed(got->piece);
      if (!event || !change_keys(*event)) return false;
    }
    return true;
  }
};

void play_updates(Peer& peer) {
  Stream up(kUpSeed);
  for (int round = 0; round < kRounds; ++round) {
    peer.key_update(round % 2 == 1);
    peer.write(up.take(kBlock));
    peer.read(kBlock);
  }
  peer.expect_close_notify();
  peer.send_close_notify();
}

void check_rekeying(Session& session, Peer& peer, const std::string& name) {
  Tally& tally = session.tally;
  Digest digest;
  Stream down(kDownSeed);
  bool good = true;
  for (int round = 0; round < kRounds && good; ++round) {
    good = session.receive(kBlock, digest) && session.tap.send(down.take(kBlock)) == 0;
  }
  tally.check(good, name + "data around KeyUpdate");
  tally.equal(session.updates, kRounds, name + "updates");
  tally.equal(session.answers, kRounds / 2, name + "answers");
  tally.check(digest.hex() == digest_of(kUpSeed, kBlock * kRounds), name + "received, hash");
  const auto rx = read_record_sequence(session.fd, Direction::kRx);
  // Each block is three records, and the last KeyUpdate of either side was followed by one block.
  tally.equal(rx ? static_cast<int64_t>(*rx) : -1, 3,
              name + "record number starts over, receiving");
  const auto tx = read_record_sequence(session.fd, Direction::kTx);
  tally.equal(tx ? static_cast<int64_t>(*tx) : -1, 3, name + "record number starts over, sending");
  tally.check(session.tap.send_record(RecordType::kAlert, alert_bytes(Alert::kCloseNotify)) == 0,
              name + "close_notify sent");
  session.tap.arm();
  const auto end = session.tap.next();
  tally.check(end && end->piece.type == RecordType::kAlert &&
                  parse_alert(end->piece) == AlertMeaning::kCloseNotify,
              name + "close_notify received");
  peer.join();
  tally.check(peer.fault().empty(), name + "peer content", peer.fault());
  tally.check(peer.digest() == digest_of(kDownSeed, kBlock * kRounds), name + "sent, hash");
  tally.equal(tls_stat("TlsRxRekeyOk") - session.before.rx_rekeys, kRounds, name + "TlsRxRekeyOk");
  tally.equal(tls_stat("TlsTxRekeyOk") - session.before.tx_rekeys, kRounds / 2,
              name + "TlsTxRekeyOk");
  tally.equal(tls_stat("TlsRxRekeyReceived") - session.before.announced, kRounds,
              name + "TlsRxRekeyReceived");
}

void play_refused(Peer& peer) {
  peer.key_update(true);
  peer.write(Stream(kUpSeed).take(kBlock));
  peer.expect_close_notify();
}

void check_refusal(Session& session, Peer& peer, const std::string& name) {
  Tally& tally = session.tally;
  const auto got = session.tap.next();
  const bool handshake =
      got && !got->malformed && got->result >= 0 && got->piece.type == RecordType::kHandshake;
  if (!tally.check(handshake, name + "KeyUpdate arrives")) return;
  const auto event = session.messages.feed(got->piece);
  tally.check(event == PostHandshake::Event::kKeyUpdateRequested, name + "it is recognised");
  for (const Direction direction : {Direction::kRx, Direction::kTx}) {
    const DirectionKeys& kept = direction == Direction::kRx ? session.keys.rx : session.keys.tx;
    const std::vector<uint8_t> before(kept.traffic_secret.bytes().begin(),
                                      kept.traffic_secret.bytes().end());
    const auto changed = session.tls.rekey(session.fd, direction, session.keys);
    tally.check(!changed && changed.error().code == weir::base::Errc::kUnsupported &&
                    changed.error().os == EBUSY,
                name + "new keys are refused");
    const auto now = kept.traffic_secret.bytes();
    tally.check(std::equal(now.begin(), now.end(), before.begin(), before.end()),
                name + "the old secret stays");
  }
  // What the peer sends with its new keys cannot be opened, and never comes out as data.
  session.tap.arm();
  const auto next = session.tap.next();
  tally.check(next && next->result == -EBADMSG && next->bytes.empty(),
              name + "the next record fails");
  tally.at_least(tls_stat("TlsDecryptError") - session.before.decrypt_errors, 1,
                 name + "TlsDecryptError");
  clear_socket_error(session.fd);
  tally.check(session.tap.send_record(RecordType::kAlert, alert_bytes(Alert::kCloseNotify)) == 0,
              name + "close_notify sent");
  peer.join();
  tally.check(peer.clean_end(), name + "the peer sees a clean end", peer.fault());
}

void run_case(Tally& tally, KernelTls& tls, KernelCipher cipher) {
  const std::string name = title(kTls13, cipher) + ": ";
  const Counters before;
  TcpPair pair;
  Peer peer(pair.theirs, false, kTls13, cipher, kernel_rekeys() ? play_updates : play_refused);
  const Context context = make_context(true, kTls13, cipher);
  tally.check(attach_ulp(pair.ours), name + "ULP at accept");
  auto keys = shake_hands(context.get(), pair.ours, true);
  if (!tally.check(keys && tls.install(pair.ours, Direction::kTx, *keys) &&
                       tls.install(pair.ours, Direction::kRx, *keys),
                   name + "hand-over")) {
    pair.close_ours();
    return;
  }
  Tap tap(pair.ours);
  tap.arm();
  Session session{tally, tls, tap, *keys, pair.ours, before};
  kernel_rekeys() ? check_rekeying(session, peer, name) : check_refusal(session, peer, name);
  std::printf("  %sreceives ended for want of keys: %d\n", name.c_str(), session.expired);
}

// With TLS 1.2 there is no KeyUpdate, and keys are never taken twice.
void check_tls12(Tally& tally, KernelTls& tls) {
  const KernelCipher cipher = KernelCipher::kAes128Gcm;
  TcpPair pair;
  KernelKeys keys = known_keys(kTls12, cipher);
  tally.check(attach_ulp(pair.ours) && tls.install(pair.ours, Direction::kTx, keys),
              "TLSv1.2: keys");
  const auto again = tls.install(pair.ours, Direction::kTx, keys);
  tally.check(
      !again && again.error().code == weir::base::Errc::kUnsupported && again.error().os == EBUSY,
      "TLSv1.2: a second time");
  const auto update = tls.rekey(pair.ours, Direction::kTx, keys);
  tally.check(!update && update.error().code == weir::base::Errc::kInvalid, "TLSv1.2: rekey()");
}

}  // namespace

int main() {
  Tally tally;
  KernelTls tls(nullptr);
  for (const KernelCipher cipher : KernelSupport::kCiphers) run_case(tally, tls, cipher);
  check_tls12(tally, tls);
  return tally.finish();
}
