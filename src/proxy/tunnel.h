// Two connections joined: whatever comes from one goes to the other, both ways, until both have
// ended, one fails, nothing moves for too long, or somebody stops it. Belongs to the exchange that
// opened it, on its core's thread.
//
// Each direction waits for input, sends it, and only then takes more; while it waits for input it
// holds neither a buffer nor a pipe. A direction that has moved kBusyBytes without a pause reads
// directly from its socket and, where both ends allow it, moves the bytes by splice(2).
#pragma once

#include <cstdint>

#include <weir/net/transport.h>
#include <weir/proxy/worker.h>

namespace weir::proxy {

// Why a tunnel ended; the first reason counts.
enum class TunnelEnd : uint8_t {
  kOpen,  // it has not, or (at the end) nothing went wrong: both directions came to their end
  kIdle,  // nothing moved in either direction for idle_timeout_ms
  kClientFailed,
  kClientSlow,  // it took nothing for its send timeout
  kOriginFailed,
  kOriginSlow,
  kStopped,  // stop() or an interrupt from outside
};

struct Tunnel {
  // Ends both directions soon. From outside run_tunnel(), same thread.
  void stop(TunnelEnd why) noexcept;

  Worker& worker;
  net::Transport& client;
  net::Transport& origin;
  uint32_t idle_timeout_ms;  // over both directions together
  uint32_t client_send_timeout_ms;
  uint32_t origin_send_timeout_ms;
  bool splice;  // may be used: a busy direction is copied otherwise
  // Results.
  TunnelEnd end = TunnelEnd::kOpen;
  uint64_t bytes_from_client = 0;  // that were passed on
  uint64_t bytes_to_client = 0;
  // All that one side said was passed on, and so was its end. Where this is false, the other side
  // must not take the end of its connection for the end of what was said.
  bool client_said_all = false;
  bool origin_said_all = false;
  // Inside.
  bool stopping = false;
  uint64_t moved_ms = 0;  // when something moved last
};

// Both transports are receiving or in direct mode, nobody else reads them or writes to them, and
// what is in their queues goes first. Afterwards they can only be disposed of.
runtime::Task<> run_tunnel(Tunnel& tunnel);

}  // namespace weir::proxy
