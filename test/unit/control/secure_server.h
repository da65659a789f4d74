// A server to be checked that speaks TLS.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <weir/net/handshake.h>

#include "../tls/peers.h"
#include "health_rig.h"

namespace weir::control::test {

// Serves TLS with the certificates of tls_test::World, on the reactor of a test, one of whose
// servers it is.
class SecureServer {
 public:
  SecureServer(runtime::test::Engine& engine, std::vector<CheckedServer*>& servers,
               std::string what)
      : reactor_(engine),
        servers_(servers),
        text_(std::move(what)),
        door_([this](auto& visit) { open(visit); }) {
    const auto& world = tls_test::World::get();
    settings_ = std::make_shared<net::tls::ServerContext>();
    settings_->certificates = std::shared_ptr<const net::tls::CertificateSet>(
        std::shared_ptr<const void>(), world.certificates.get());
    auto made = net::tls::Context::make_server(engine_.library, tls_test::server_policy(),
                                               *world.certificates, tickets_);
    REQUIRE(made.has_value());
    settings_->context = std::move(*made);
    servers_.push_back(&door_);
  }
  SecureServer(const SecureServer&) = delete;
  SecureServer& operator=(const SecureServer&) = delete;
  ~SecureServer() {
    std::erase(servers_, &door_);
    for (net::Transport* one : live_) {
      one->interrupt();
      one->cancel_sends();
    }
    CHECK(reactor_.run_until([&] { return reactor_.tasks.running() == 0; }));
    CHECK(reactor_.run_until([&] { return reactor_->disposing == 0; }));
  }
  [[nodiscard]] const CheckedServer& door() const { return door_; }
  [[nodiscard]] const net::tls::Counters::Side& counted() const { return engine_.counters.clients; }
  std::vector<std::string> requests;
  bool hold = false;
  bool cut = false;  // ends TCP without close_notify

 private:
  void open(CheckedServer::Visit& visit) {
    const int fd = dup(visit.peer.fd());
    visit.peer.close();
    reactor_.tasks.spawn(serve(std::make_unique<net::Transport>(*reactor_, fd)));
  }
  runtime::Task<> serve(std::unique_ptr<net::Transport> transport) {
    live_.push_back(transport.get());
    const auto outcome =
        co_await net::accept_tls(*transport, engine_, settings_, tls_test::now_s() * 1'000'000);
    if (outcome.end == net::HandshakeEnd::kDone) {
      transport->start_receiving();
      std::string request;
      while (!request.contains("\r\n\r\n")) {
        const auto event = co_await transport->readable(net::Transport::kNoDeadline);
        if (event != net::ReadEvent::kData) break;
        request.append(transport->front());
        transport->consume(transport->front().size());
      }
      requests.push_back(request);
      iovec piece{text_.data(), text_.size()};
      if (!request.empty()) static_cast<void>(co_await transport->send(&piece, 1, 1'000));
      // Until the other side goes.
      if (cut) transport->abort();
      if (hold) static_cast<void>(co_await transport->readable(net::Transport::kNoDeadline));
    }
    std::erase(live_, transport.get());
    net::Transport::dispose(std::move(transport), net::Linger::kYes);
  }

  runtime::test::Engine& reactor_;
  std::vector<CheckedServer*>& servers_;
  std::string text_;
  net::tls::Engine engine_;
  net::tls::TicketKeyRing tickets_ = tls_test::ring(1);
  std::shared_ptr<net::tls::ServerContext> settings_;
  std::vector<net::Transport*> live_;
  CheckedServer door_;
};

}  // namespace weir::control::test
