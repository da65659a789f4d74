// The hand-over of a real connection: handshake with OpenSSL over memory BIOs, keys to the kernel,
// then data of many sizes both ways against an OpenSSL peer, compared by hash, and close_notify
// both ways. The kernel's counters and record numbers prove that it was the kernel that did the
// records.
#include <string>

#include <weir/net/tls/ktls.h>

#include "exchange.h"
#include "peer.h"
#include "rig.h"

using namespace weir::net::tls;
using namespace weir::test::ktls;

namespace {

void run_case(Tally& tally, KernelTls& tls, bool server, uint16_t version, KernelCipher cipher) {
  const std::string name = title(version, cipher) + (server ? " server: " : " client: ");
  const SocketCount before;
  TcpPair pair;
  tally.check(attach_ulp(pair.ours), name + "ULP at accept");
  Peer peer(pair.theirs, !server, version, cipher, play_exchange);
  const Context context = make_context(server, version, cipher);
  const auto keys = shake_hands(context.get(), pair.ours, server);
  if (!tally.check(keys.has_value(), name + "handshake")) return;
  tally.equal(static_cast<int64_t>(keys->tx.record_number),
              version == kTls12 ? 1
              : server          ? 2
                                : 0,
              name + "first record number");
  Digest received;
  run_exchange(tally, name, tls, pair, peer, before,
               {.server = server, .keys = *keys, .received = received});
}

}  // namespace

int main() {
  Tally tally;
  KernelTls tls(nullptr);
  const int64_t errors_before = tls_stat("TlsDecryptError");
  for (const uint16_t version : KernelSupport::kVersions) {
    for (const KernelCipher cipher : KernelSupport::kCiphers) {
      for (const bool server : {true, false}) run_case(tally, tls, server, version, cipher);
    }
  }
  tally.equal(tls_stat("TlsDecryptError"), errors_before, "no decryption error");
  tally.check(tls_stat_becomes("TlsCurrTxSw", 0) && tls_stat_becomes("TlsCurrRxSw", 0),
              "no socket is left");
  return tally.finish();
}
