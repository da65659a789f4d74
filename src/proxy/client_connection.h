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

// What upstreams and logs are told of a client's certificate. Text of the client's choice.
struct ClientCertificate {
  std::string subject;  // RFC 2253
  std::string issuer;
  std::string san;          // "DNS:a.example, email:b@a.example"
  std::string fingerprint;  // SHA-256 of the DER, lower case hexadecimal
};

struct ClientConnection : base::ListNode {
  ClientConnection(Worker& owner, ListenerInfo& where, int fd);
  ~ClientConnection();
  // Asks whatever runs on it to end soon.
  void cancel() noexcept;
  // The peer's address; asked of the kernel once, when it is first needed.
  void know_peer() noexcept;
  [[nodiscard]] std::string_view scheme() const noexcept { return secure ? "https" : "http"; }
  // All zero without TLS.
  [[nodiscard]] net::TlsFacts tls() const noexcept { return transport->tls(); }

  Worker& worker;
  ListenerInfo& listener;
  std::unique_ptr<net::Transport> transport;
  Exchange* exchange = nullptr;  // while a request is being served
  uint32_t requests = 0;
  uint16_t peer_port = 0;
  bool peer_known = false;
  bool peer_is_unix = false;
  bool cancelled = false;
  const bool secure;  // TLS is spoken on it
  base::IpAddress peer;
  std::string peer_text;                           // of `peer`; "unknown" for Unix sockets
  std::unique_ptr<ClientCertificate> certificate;  // verified; null: none
};

// Serves a connection until it ends. Owns it.
runtime::Task<> serve_connection(std::unique_ptr<ClientConnection> connection);

}  // namespace weir::proxy
