#include "client_connection.h"

#include <algorithm>

#include <weir/net/handshake.h>
#include <weir/net/listen.h>
#include <weir/runtime/sys.h>

#include "exchange.h"

namespace weir::proxy {

using net::Linger;
using net::ReadEvent;
using net::Transport;

ClientConnection::ClientConnection(Worker& owner, ListenerInfo& where, int fd)
    : worker(owner),
      listener(where),
      transport(std::make_unique<Transport>(owner.reactor, fd)),
      secure(where.tls) {
  worker.clients_.push_back(*this);
  ++worker.connection_count_;
  ++listener.connections;
}

ClientConnection::~ClientConnection() {
  unlink();
  --worker.connection_count_;
  --listener.connections;
}

void ClientConnection::cancel() noexcept {
  cancelled = true;
  if (exchange != nullptr) exchange->cancel(log::Reason::kShutdown);
  transport->cancel_sends();
  transport->interrupt();
}

void ClientConnection::know_peer() noexcept {
  if (peer_known) return;
  peer_known = true;
  peer_text = "unknown";  // RFC 7239 6.2
  base::SocketAddress address;
  address.length = sizeof address.un;
  if (runtime::sys::getpeername(transport->fd(), &address.base, &address.length) < 0) return;
  peer_is_unix = address.is_unix();
  if (const auto ip = address.ip()) {
    peer = *ip;
    peer_text = ip->to_string();
  }
  peer_port = address.port();
}

namespace {

// Waits for the first byte of a request. The first one of a connection has the head's time, later
// ones the keep-alive time; both start now.
uint64_t wait_deadline(const ClientConnection& connection) noexcept {
  const Settings& settings = connection.worker.generations.current().settings;
  uint64_t timeout =
      connection.requests == 0 ? settings.header_timeout_ms : settings.keepalive_timeout_ms;
  // A response whose head had promised to keep the connection has ended after the drain began:
  // those that were idle then are closed by a timer, this one by itself.
  const Worker& worker = connection.worker;
  if (worker.draining()) timeout = std::min(timeout, worker.drain_grace_ms());
  return connection.worker.reactor.now_ms() + timeout;
}

constexpr std::string_view kPlainOnTls =
    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 49\r\n"
    "Connection: close\r\n\r\n400 This port speaks https, the request was http\n";

std::unique_ptr<ClientCertificate> describe(const net::tls::PeerCertificate& peer) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  auto result = std::make_unique<ClientCertificate>();
  result->subject = peer.subject;
  result->issuer = peer.issuer;
  for (const std::string& name : peer.alternative_names) {
    if (!result->san.empty()) result->san += ", ";
    result->san += name;
  }
  for (const uint8_t byte : peer.sha256) {
    result->fingerprint += kDigits[byte >> 4];
    result->fingerprint += kDigits[byte & 15];
  }
  return result;
}

// The handshake. False: nothing can be served, only ended. Not inlined, nor is say_goodbye(): the
// compiler would put their frames (and those of what they await) into that of serve_connection(),
// which every idle connection keeps: 700 bytes.
[[gnu::noinline]] runtime::Task<bool> make_secure(ClientConnection& connection) {
  Worker& worker = connection.worker;
  const auto settings = worker.core_tls().server;
  // Between two generations: the listener has turned to TLS, its certificate is on its way.
  if (settings == nullptr || worker.tls == nullptr) co_return false;
  auto outcome = co_await net::accept_tls(*connection.transport, *worker.tls, settings,
                                          worker.reactor.unix_us());
  if (outcome.end == net::HandshakeEnd::kDone) {
    if (outcome.certificate) connection.certificate = describe(*outcome.certificate);
    co_return true;
  }
  if (outcome.end == net::HandshakeEnd::kFailed) {
    connection.know_peer();
    WEIR_LOG_LIMITED(worker.logger, kInfo, "tls", "handshake failed",
                     {"client", connection.peer_text},
                     {"cause", net::tls::to_string(outcome.cause)}, {"detail", outcome.text});
    if (outcome.cause == net::tls::FailureCause::kPlainHttp) {
      connection.transport->send_direct(kPlainOnTls.data(), kPlainOnTls.size());
    }
  }
  co_return false;
}

// The end of a body may be the connection's: dispose() would not wait for a full socket.
[[gnu::noinline]] runtime::Task<> say_goodbye(ClientConnection& connection) {
  if (connection.transport->failed()) co_return;
  const uint32_t timeout = connection.worker.generations.current().settings.send_timeout_ms;
  (void)co_await connection.transport->send_close_notify(timeout);
}

}  // namespace

runtime::Task<> serve_connection(std::unique_ptr<ClientConnection> connection) {
  Worker& worker = connection->worker;
  if (connection->secure && !co_await make_secure(*connection)) {
    // The alert must not be eaten by a reset.
    const Linger linger = connection->cancelled ? Linger::kNo : Linger::kYes;
    Transport::dispose(std::move(connection->transport), linger);
    co_return;
  }
  connection->transport->start_receiving();
  const uint64_t opened_ms = worker.reactor.now_ms();
  After after = After::kKeepAlive;
  while (after == After::kKeepAlive) {
    const uint64_t deadline = wait_deadline(*connection);
    const ReadEvent event = co_await connection->transport->readable(deadline);
    const bool drained = event == ReadEvent::kInterrupted && !connection->cancelled;
    if (event != ReadEvent::kData && !(drained && connection->transport->has_data())) {
      // A request may be on its way to a connection that we end for being idle: no reset then.
      after = drained || event == ReadEvent::kTimeout ? After::kLinger : After::kClose;
      break;
    }
    // Not the deadline above: a drain shortens the wait for a request, not the request.
    const uint64_t head_deadline =
        (connection->requests == 0 ? opened_ms : worker.reactor.now_ms()) +
        worker.generations.current().settings.header_timeout_ms;
    ++connection->requests;
    auto exchange = worker.take_exchange();
    connection->exchange = exchange.get();
    after = co_await exchange->serve(*connection, head_deadline);
    connection->exchange = nullptr;
    worker.give_back(std::move(exchange));
    if (connection->cancelled && after != After::kReset) after = After::kClose;
  }
  if (connection->secure && after != After::kReset) co_await say_goodbye(*connection);
  const Linger linger = after == After::kLinger  ? Linger::kYes
                        : after == After::kReset ? Linger::kReset
                                                 : Linger::kNo;
  Transport::dispose(std::move(connection->transport), linger);
}

}  // namespace weir::proxy
