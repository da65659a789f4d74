// A health checker on a reactor of the test's own, and servers to be checked: listening sockets
// whose connections do what the test says.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/health.h>
#include <weir/net/listen.h>

#include "../net/link.h"
#include "../runtime/engine.h"

namespace weir::control::test {

using net::test::Peer;

inline std::string answer(const std::string& status, const std::string& content = "") {
  return "HTTP/1.1 " + status + "\r\nContent-Length: " + std::to_string(content.size()) +
         "\r\n\r\n" + content;
}

class CheckedServer {
 public:
  struct Visit {
    Peer peer;
    bool answered = false;
    [[nodiscard]] bool asked() const { return peer.text.contains("\r\n\r\n"); }
    void say(const std::string& text, bool then_close = true) {
      if (answered || !asked()) return;
      answered = true;
      peer.send_all(text);
      if (then_close) peer.finish();
    }
  };
  using Behaviour = std::function<void(Visit&)>;

  explicit CheckedServer(Behaviour how, const std::string& where = "127.0.0.1:0", int backlog = 128)
      : behaviour(std::move(how)) {
    const auto opened = net::open_listener(*base::SocketAddress::parse(where),
                                           {.backlog = backlog, .reuse_port = false});
    REQUIRE(opened);
    fd_ = *opened;
    address = *net::bound_address(fd_);
  }
  CheckedServer(const CheckedServer&) = delete;
  CheckedServer& operator=(const CheckedServer&) = delete;
  ~CheckedServer() {
    for (const int fd : fillers_) close(fd);
    stop();
  }
  // Accepts what is there, reads what came, behaves.
  void poll() {
    int fd;
    while (fd_ >= 0 && (fd = accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
      visits.push_back({.peer = Peer(fd)});
    }
    size_t live = 0;
    for (Visit& visit : visits) {
      if (visit.peer.fd() < 0 || visit.peer.over()) continue;
      visit.peer.take();
      if (visit.peer.over()) continue;
      ++live;
      behaviour(visit);
    }
    most_at_once = std::max(most_at_once, live);
  }
  // Connections of others fill the backlog: from now on connects hang.
  void fill() {
    for (int i = 0; i < 4; ++i) {
      const int client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
      static_cast<void>(connect(client, &address.base, address.length));
      fillers_.push_back(client);
    }
  }
  void stop() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }
  // Every connection that came has been closed by the other side.
  [[nodiscard]] bool all_gone() const {
    for (const Visit& visit : visits) {
      if (visit.peer.fd() >= 0 && !visit.peer.over()) return false;
    }
    return true;
  }
  [[nodiscard]] int door() const noexcept { return fd_; }
  Behaviour behaviour;
  base::SocketAddress address;
  std::vector<Visit> visits;
  size_t most_at_once = 0;

 private:
  int fd_ = -1;
  std::vector<int> fillers_;
};

inline CheckedServer::Behaviour says(const std::string& text, bool then_close = true) {
  return [=](CheckedServer::Visit& visit) { visit.say(text, then_close); };
}

struct HealthRig {
  explicit HealthRig(const HealthOptions& options = {}, net::tls::Engine* tls = nullptr) {
    checker = std::make_unique<HealthChecker>(*engine, tls, options, [this](const auto& change) {
      changes.push_back(change);
      if (on_change) on_change(change);
    });
  }
  ~HealthRig() { close(); }
  void close() {
    if (!checker) return;
    checker->stop();
    CHECK(until([&] { return checker->stopped(); }));
    CHECK(checker->in_flight() == 0);
    checker.reset();
    CHECK(until([&] { return engine->disposing == 0; }));
  }
  // Turns, and lets the servers act, until it holds.
  [[nodiscard]] bool until(const std::function<bool()>& holds, uint64_t limit_ms = 10'000) {
    return engine.run_until(
        [&] {
          for (CheckedServer* server : servers) server->poll();
          engine->wake();
          return holds();
        },
        limit_ms);
  }
  // Quick ones; the number is also the identity.
  static HealthTarget target(const CheckedServer& server, uint64_t identity = 1) {
    HealthTarget out;
    out.identity = identity;
    out.address = server.address;
    out.interval_ms = 10;
    out.timeout_ms = 2'000;
    out.jitter_percent = 0;
    return out;
  }
  // What the first check says.
  HealthState first(const HealthTarget& one, uint64_t limit_ms = 10'000) {
    checker->set_targets({one});
    HealthState state;
    REQUIRE(until(
        [&] {
          state = *checker->find(one.identity);
          return state.last != HealthResult::kNone;
        },
        limit_ms));
    return state;
  }
  const HealthState& state(uint64_t identity = 1) { return *checker->find(identity); }

  runtime::test::Engine engine{{.buffers = 16, .ring_entries = 16}};
  std::vector<CheckedServer*> servers;
  std::vector<HealthChange> changes;
  std::function<void(const HealthChange&)> on_change;
  std::unique_ptr<HealthChecker> checker;
};

}  // namespace weir::control::test
