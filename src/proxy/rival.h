// A second try beside the first: a connect to the same host by the other address family (RFC 8305),
// or the same request to another server (hedging). It begins after a head start, as a child of the
// exchange, and lives in the frame that waits for the first.
#pragma once

#include <memory>

#include <weir/runtime/timed_wait.h>
#include <weir/upstream/registry.h>

namespace weir::proxy {

struct Rival {
  explicit Rival(runtime::Reactor& reactor) noexcept : head_start(reactor) {}

  // It is not wanted any more: ends soon.
  void stop() noexcept {
    stopped = true;
    head_start.wake();
    acquire.cancel();
    if (connection) {
      connection->transport->cancel_sends();
      connection->transport->interrupt();
    }
  }

  runtime::TimedWait head_start;
  upstream::AcquireHandle acquire;
  upstream::Turn turn;
  std::unique_ptr<upstream::Connection> connection;
  bool fresh = false;  // a connection that was kept will not do
  bool stopped = false;
  bool won = false;  // connected, or answered, before the first
};

}  // namespace weir::proxy
