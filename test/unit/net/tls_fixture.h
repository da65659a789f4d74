// A transport that is a TLS server on a loopback connection, and its peer: OpenSSL's own client
// over memory BIOs, so that the test decides about every byte between the two.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <weir/net/handshake.h>

#include "../tls/peers.h"
#include "transport_fixture.h"

namespace weir::net::test {

using tls_test::PlainClient;

inline EngineOptions few_buffers(uint32_t count, ReceiveStrategy receive) {
  return {.buffers = count, .ring_entries = 64, .receive = receive};
}

// What it takes to be a server: one per test, outlives the transports.
struct TlsServer {
  explicit TlsServer(const tls::ServerPolicy& policy = tls_test::server_policy(),
                     uint32_t timeout_ms = 5000) {
    const auto& world = tls_test::World::get();
    settings = std::make_shared<tls::ServerContext>();
    settings->certificates = std::shared_ptr<const tls::CertificateSet>(
        std::shared_ptr<const void>(), world.certificates.get());
    auto made = tls::Context::make_server(engine.library, policy, *world.certificates, tickets);
    REQUIRE(made.has_value());
    settings->context = std::move(*made);
    settings->handshake_timeout_ms = timeout_ms;
  }
  [[nodiscard]] const tls::Counters::Side& counted() const { return engine.counters.clients; }

  tls::Engine engine;
  tls::TicketKeyRing tickets = tls_test::ring(1);
  std::shared_ptr<tls::ServerContext> settings;
};

inline Task<> accept_once(Transport& transport, TlsServer& server, HandshakeOutcome& out,
                          bool& done) {
  out = co_await accept_tls(transport, server.engine, server.settings, 1'700'000'000'000'000);
  done = true;
}

// The client's end. Plaintext goes in by write(), ciphertext waits in `out` until push().
class TlsPeer {
 public:
  explicit TlsPeer(Peer end, int version = TLS1_3_VERSION) : socket(std::move(end)) {
    SSL_CTX_set_min_proto_version(client.context(), version);
    SSL_CTX_set_max_proto_version(client.context(), version);
    client.connect("a.example");
  }
  SSL* ssl() { return client.ssl(); }

  // Encrypts; the bytes are in `out` then.
  void write(std::string_view plaintext) {
    while (!plaintext.empty()) {
      const int wrote = SSL_write(ssl(), plaintext.data(), static_cast<int>(plaintext.size()));
      REQUIRE(wrote > 0);
      plaintext.remove_prefix(static_cast<size_t>(wrote));
    }
    out += client.take();
  }
  // As much as the socket takes now, at most `most`; returns how much.
  size_t push(size_t most = SIZE_MAX) {
    const size_t sent = socket.send(std::string_view(out).substr(0, most));
    out.erase(0, sent);
    return sent;
  }
  // Reads what is there: ciphertext from the socket, plaintext to `text`.
  void pull() {
    socket.take();
    if (!socket.text.empty()) client.feed(std::exchange(socket.text, {}));
    if (!done) {
      ERR_clear_error();
      const int result = SSL_do_handshake(ssl());
      out += client.take();
      done = result == 1;
      if (result != 1 && SSL_get_error(ssl(), result) == SSL_ERROR_SSL) note_failure();
      if (!done) return;
    }
    while (!closed && !failed) {
      ERR_clear_error();
      const int got = SSL_read(ssl(), block_, sizeof block_);
      if (got > 0) {
        text.append(block_, static_cast<size_t>(got));
        continue;
      }
      switch (SSL_get_error(ssl(), got)) {
        case SSL_ERROR_ZERO_RETURN: closed = true; break;
        case SSL_ERROR_WANT_READ: return;
        default: note_failure();
      }
    }
  }
  void close_notify() {
    SSL_shutdown(ssl());
    out += client.take();
  }
  // Reads until the stream is over. Only for a transport that is gone or will not send any more.
  void pull_to_end() {
    while (!socket.over()) pull();
  }

  Peer socket;
  PlainClient client;
  std::string out;
  std::string text;
  bool done = false;    // the handshake
  bool closed = false;  // close_notify came
  bool failed = false;
  int alert = -1;  // that made it fail, RFC 8446 6

 private:
  void note_failure() {
    failed = true;
    const int reason = ERR_GET_REASON(ERR_peek_error());
    if (reason >= SSL_AD_REASON_OFFSET) alert = reason - SSL_AD_REASON_OFFSET;
    out += client.take();
  }
  char block_[16384];
};

// A server's transport and its peer.
struct Secured {
  Secured(Engine& owner, TlsServer& owner_tls, int version = TLS1_3_VERSION)
      : Secured(owner, owner_tls, make_link(LinkKind::kTcp), version) {}
  Secured(Engine& owner, TlsServer& owner_tls, Link link, int version)
      : engine(owner),
        server(owner_tls),
        transport(std::make_unique<Transport>(*owner, link.fd)),
        peer(std::move(link.peer), version) {}
  ~Secured() {
    if (!transport) return;
    // A test that failed may leave coroutines.
    if (engine.tasks.running() != 0) {
      transport->interrupt();
      transport->cancel_sends();
      static_cast<void>(engine.run_until([&] { return engine.tasks.running() == 0; }, 1000));
    }
    Transport::dispose(std::move(transport), Linger::kNo);
    static_cast<void>(engine.run_until([&] { return engine->disposing == 0; }));
  }

  void begin() { engine.tasks.spawn(accept_once(*transport, server, outcome, accepted)); }
  // Turns and lets the peer send and read until it holds.
  [[nodiscard]] bool drive(const std::function<bool()>& holds, uint64_t limit_ms = 10'000) {
    return engine.run_until(
        [&] {
          if (!peer.failed) peer.push();
          peer.pull();
          engine->wake();
          return holds();
        },
        limit_ms);
  }
  // Until the client is done; its last flight is in peer.out.
  void shake_almost() {
    begin();
    REQUIRE(engine.run_until([&] {
      if (!peer.done) {
        peer.push();
        peer.pull();
      }
      engine->wake();
      return peer.done;
    }));
    REQUIRE(!peer.out.empty());
  }
  // The whole handshake, and what it leaves behind on the wire.
  void shake_hands() {
    begin();
    REQUIRE(drive([&] { return accepted && peer.done && peer.out.empty(); }));
    REQUIRE(outcome.end == HandshakeEnd::kDone);
    REQUIRE(transport->secured());
  }
  // shake_hands(), then receiving.
  void open() {
    shake_hands();
    transport->start_receiving();
  }
  [[nodiscard]] size_t queued_bytes() const {
    std::string_view views[256];
    size_t sum = 0;
    const size_t count = transport->queued(views);
    for (size_t i = 0; i < count; ++i) sum += views[i].size();
    return sum;
  }
  void dispose(Linger linger) { Transport::dispose(std::move(transport), linger); }
  // Turns until the transport is gone.
  void gone() {
    REQUIRE(drive([&] { return engine->disposing == 0; }));
  }

  Engine& engine;
  TlsServer& server;
  std::unique_ptr<Transport> transport;
  TlsPeer peer;
  HandshakeOutcome outcome;
  bool accepted = false;
};

// Reads by the queue until it ends.
inline Task<> read_all(Transport& transport, Reading& out) {
  while (true) {
    const ReadEvent event = co_await transport.readable(transport.reactor().now_ms() + 9000);
    if (event != ReadEvent::kData) {
      out.events.push_back(event);
      co_return;
    }
    while (transport.has_data()) {
      out.text.append(transport.front());
      transport.consume(transport.front().size());
    }
  }
}

// Reads as an origin's reader does: the queue first, and in direct mode, whoever has turned it on,
// straight from the transport.
inline Task<> read_any(Transport& transport, size_t block_bytes, Reading& out) {
  const auto block = std::make_unique<char[]>(block_bytes);
  while (true) {
    while (transport.has_data()) {
      out.text.append(transport.front());
      transport.consume(transport.front().size());
    }
    if (transport.direct_mode()) {
      const ssize_t got = transport.recv_direct(block.get(), block_bytes);
      if (got > 0) {
        out.text.append(block.get(), static_cast<size_t>(got));
        continue;
      }
    }
    const ReadEvent event = co_await transport.readable(transport.reactor().now_ms() + 9000);
    if (event == ReadEvent::kData) continue;
    out.events.push_back(event);
    co_return;
  }
}

inline Task<> read_direct(Transport& transport, size_t block_bytes, Reading& out) {
  co_await transport.enter_direct_mode();
  co_await read_any(transport, block_bytes, out);
}

inline Task<> send_nothing(Transport& transport, uint32_t timeout_ms, Sending& out) {
  const auto sent = co_await transport.send(nullptr, 0, timeout_ms);
  if (!sent) out.error = sent.error();
  out.done = true;
}

inline Task<> say_goodbye(Transport& transport, uint32_t timeout_ms, Sending& out) {
  const auto sent = co_await transport.send_close_notify(timeout_ms);
  if (!sent) out.error = sent.error();
  out.done = true;
}

}  // namespace weir::net::test
