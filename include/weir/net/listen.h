// Listening sockets, outgoing connections, and the options they share. Addresses are values of
// base.
#pragma once

#include <cstdint>
#include <span>

#include <weir/base/ip.h>
#include <weir/base/result.h>
#include <weir/runtime/reactor.h>
#include <weir/runtime/task.h>

namespace weir::net {

struct ListenOptions {
  int backlog = 4096;
  bool reuse_port = true;  // one socket per core on the same address; not for Unix sockets
  int unix_mode = 0666;    // permissions of a Unix socket's file
};

// A bound, listening, non-blocking socket; TCP_NODELAY set, which accepted sockets inherit. An
// existing Unix socket file is replaced only if nobody listens on it. Caller owns the descriptor.
base::Result<int> open_listener(const base::SocketAddress& address, const ListenOptions& options);

// The address a socket is bound to (the port that port 0 became).
base::Result<base::SocketAddress> bound_address(int fd);

// The first step of closing a listener: no new connection begins (its SYN is dropped; on a Unix
// socket it is refused), those that have begun still come to accept(2). Closing at once would reset
// a client that has connected and has perhaps sent its request.
void refuse_new_connections(int fd) noexcept;

// Same client address -> same socket of the SO_REUSEPORT group, by a classic BPF program attached
// through any one of its `sockets` members (socket(7), SO_ATTACH_REUSEPORT_CBPF). The index that
// the program returns is the order in which the sockets were bound.
base::Result<void> balance_by_client_ip(int fd, uint32_t sockets);

// What a connect under way can be stopped by. It outlives the connect.
class ConnectHandle {
 public:
  // The connect under way, if any, ends soon with kCancelled.
  void cancel() noexcept;

 private:
  friend runtime::Task<base::Result<int>> connect(runtime::Reactor&, base::SocketAddress, uint32_t,
                                                  ConnectHandle*);
  runtime::Reactor* reactor_ = nullptr;
  runtime::Op* op_ = nullptr;
  bool cancelled_ = false;
};

// Connects within `timeout_ms`. The descriptor is the caller's. `handle` may be null.
runtime::Task<base::Result<int>> connect(runtime::Reactor& reactor, base::SocketAddress address,
                                         uint32_t timeout_ms, ConnectHandle* handle);

}  // namespace weir::net
