// What follows a hand-over: data of many sizes both ways by hash, close_notify both ways, and the
// kernel's own record numbers and counters against what the OpenSSL peer saw.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <weir/net/tls/ktls.h>

#include "peer.h"
#include "rig.h"

namespace weir::test::ktls {

// How many sockets the kernel has been given keys for, so far.
struct SocketCount {
  int64_t tx = tls_stat("TlsTxSw");
  int64_t rx = tls_stat("TlsRxSw");
};

// The part of the peer.
void play_exchange(Peer& peer);

struct HandedOver {
  bool server = false;  // we are
  const net::tls::KernelKeys& keys;
  Digest& received;  // the data that was read before the keys were set, if any
};
// Installs the keys and plays our part. Every finding is a result of `tally`.
void run_exchange(Tally& tally, const std::string& name, net::tls::KernelTls& tls, TcpPair& pair,
                  Peer& peer, const SocketCount& before, const HandedOver& state);

}  // namespace weir::test::ktls
