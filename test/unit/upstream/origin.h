// An origin in the test's own hands: a listening socket on loopback and what it accepted.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <weir/upstream/endpoint.h>

#include "../net/link.h"
#include "../runtime/engine.h"

namespace weir::upstream::test {

using net::test::Peer;
using runtime::Task;
using runtime::test::Engine;

class Origin {
 public:
  explicit Origin(int backlog = 128) {
    const auto opened = net::open_listener(*base::SocketAddress::parse("127.0.0.1:0"),
                                           {.backlog = backlog, .reuse_port = false});
    REQUIRE(opened);
    fd_ = *opened;
    address_ = *net::bound_address(fd_);
  }
  ~Origin() {
    for (const int fd : fillers_) close(fd);
    if (fd_ >= 0) close(fd_);
  }
  [[nodiscard]] const base::SocketAddress& address() const noexcept { return address_; }
  // Accepts what is there.
  void accept() {
    int fd;
    while ((fd = accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
      peers.emplace_back(fd);
    }
  }
  // Connections of others fill the backlog: from now on connects hang.
  void fill() {
    for (int i = 0; i < 4; ++i) {
      const int client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
      static_cast<void>(connect(client, &address_.base, address_.length));
      fillers_.push_back(client);
    }
  }
  void stop() { close(std::exchange(fd_, -1)); }
  std::vector<Peer> peers;

 private:
  int fd_ = -1;
  base::SocketAddress address_;
  std::vector<int> fillers_;
};

// One acquire() and what became of it. Discards the connection that nobody took.
struct Acquire {
  ~Acquire() {
    if (connection) Endpoint::discard(std::move(connection));
  }
  AcquireHandle handle;
  std::unique_ptr<Connection> connection;
  base::Error error{};
  bool done = false;
  unsigned place = 0;  // which one of all to end
};

inline Task<> acquire(Endpoint& endpoint, Acquire& out, bool fresh, unsigned* places = nullptr) {
  auto connection = co_await endpoint.acquire(out.handle, fresh);
  if (connection) {
    out.connection = std::move(*connection);
  } else {
    out.error = connection.error();
  }
  out.done = true;
  if (places != nullptr) out.place = ++*places;
}

// An endpoint with an engine and an origin, and shorthand for what every test does.
struct Bench {
  explicit Bench(const EndpointLimits& limits = {}, int backlog = 128)
      : origin(backlog), endpoint(*engine, "up", "127.0.0.1:1", origin.address()) {
    endpoint.set_limits(limits);
  }
  std::unique_ptr<Connection> take(bool fresh = false) {
    Acquire one;
    REQUIRE(engine.run(acquire(endpoint, one, fresh)));
    REQUIRE(one.connection);
    return std::move(one.connection);
  }
  Engine engine;
  Origin origin;
  Endpoint endpoint;
};

}  // namespace weir::upstream::test
