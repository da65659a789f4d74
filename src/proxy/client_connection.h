// A client's connection: what outlives its requests. Kept small, since idle ones are many: what a
// request needs is in its Exchange.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <weir/base/intrusive_list.h>
#include <weir/base/ip.h>
#include <weir/net/transport.h>
#include <weir/proxy/worker.h>

namespace weir::proxy {

struct ClientConnection : base::ListNode {
  ClientConnection(Worker& owner, ListenerInfo& where, int fd);
  ~ClientConnection();
  // Asks whatever runs on it to end soon.
  void cancel() noexcept;
  // The peer's address; asked of the kernel once, when it is first needed.
  void know_peer() noexcept;

  Worker& worker;
  ListenerInfo& listener;
  std::unique_ptr<net::Transport> transport;
  Exchange* exchange = nullptr;  // while a request is being served
  uint32_t requests = 0;
  uint16_t peer_port = 0;
  bool peer_known = false;
  bool peer_is_unix = false;
  bool cancelled = false;
  base::IpAddress peer;
  std::string peer_text;  // of `peer`; "unknown" for Unix sockets
};

// Serves a connection until it ends. Owns it.
runtime::Task<> serve_connection(std::unique_ptr<ClientConnection> connection);

}  // namespace weir::proxy
