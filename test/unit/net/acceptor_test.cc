// Accepting: connections arrive, stop() ends it without losing one, want of descriptors pauses it.
#include <vector>

#include <sys/resource.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <weir/net/acceptor.h>

#include "../runtime/engine.h"
#include "link.h"

using namespace weir;
using namespace weir::net;
using namespace weir::net::test;
using runtime::ReceiveStrategy;
using runtime::test::Engine;

namespace {

struct Door {
  explicit Door(Engine& owner) : engine(owner) {
    auto fd = open_listener(*base::SocketAddress::parse("127.0.0.1:0"), {.backlog = 128});
    REQUIRE(fd);
    address = *bound_address(*fd);
    acceptor = std::make_unique<Acceptor>(*owner, *fd, &Door::on_accept, this);
  }
  ~Door() {
    if (acceptor) stop();
    for (const int fd : accepted) close(fd);
    for (const int fd : clients) close(fd);
  }
  static void on_accept(void* context, int fd) noexcept {
    Door& self = *static_cast<Door*>(context);
    if (fd < 0) {
      ++self.failures_told;
    } else {
      self.accepted.push_back(fd);
    }
  }
  void knock() {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(fd >= 0);
    REQUIRE(connect(fd, &address.base, address.length) == 0);  // the backlog takes it
    clients.push_back(fd);
  }
  void stop() {
    acceptor->stop();
    REQUIRE(engine.run_until([&] { return acceptor->stopped(); }));
  }

  Engine& engine;
  base::SocketAddress address;
  std::unique_ptr<Acceptor> acceptor;
  std::vector<int> accepted;
  std::vector<int> clients;
  uint64_t failures_told = 0;
};

// From now on no descriptor can be opened. Returns the limit to be put back.
rlimit forbid_descriptors() {
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  const int lowest_free = dup(0);
  rlimit none = before;
  none.rlim_cur = static_cast<rlim_t>(lowest_free);
  close(lowest_free);
  REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
  return before;
}

ReceiveStrategy strategy() {
  return GENERATE(ReceiveStrategy::kMultishot, ReceiveStrategy::kOneShot);
}

}  // namespace

TEST_CASE("connections are accepted, non-blocking and without delay") {
  Engine engine({.receive = strategy()});
  Door door(engine);
  door.acceptor->start();
  for (int i = 0; i < 50; ++i) {
    door.knock();
    if (i % 7 == 0) engine.settle(2);
  }
  REQUIRE(engine.run_until([&] { return door.accepted.size() == 50; }));
  CHECK(door.acceptor->accepted() == 50);
  CHECK(door.acceptor->failures() == 0);
  for (const int fd : door.accepted) {
    int flag = 0;
    socklen_t size = sizeof flag;
    REQUIRE(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &flag, &size) == 0);
    CHECK(flag != 0);
    char byte;
    CHECK(recv(fd, &byte, 1, 0) == -1);
    CHECK(errno == EAGAIN);
  }
}

TEST_CASE("after stop() nothing is accepted by itself; the backlog can still be taken") {
  Engine engine({.receive = strategy()});
  Door door(engine);
  door.acceptor->start();
  engine.settle();
  door.knock();
  REQUIRE(engine.run_until([&] { return door.accepted.size() == 1; }));
  CHECK_FALSE(door.acceptor->stopped());
  door.stop();
  const size_t before = door.accepted.size();
  for (int i = 0; i < 5; ++i) door.knock();
  engine.settle();
  CHECK(door.accepted.size() == before);
  door.acceptor->take_backlog();
  CHECK(door.accepted.size() == before + 5);
  CHECK(door.acceptor->accepted() == before + 5);
  door.acceptor->take_backlog();
  CHECK(door.accepted.size() == before + 5);
}

TEST_CASE("connections that arrive while the stop is under way are not lost") {
  Engine engine({.receive = strategy()});
  Door door(engine);
  door.acceptor->start();
  engine.settle();
  for (int i = 0; i < 10; ++i) door.knock();
  door.acceptor->stop();
  for (int i = 0; i < 10; ++i) door.knock();
  REQUIRE(engine.run_until([&] { return door.acceptor->stopped(); }));
  door.acceptor->take_backlog();
  CHECK(door.accepted.size() == 20);
}

TEST_CASE("an acceptor that never started is stopped at once") {
  Engine engine;
  Door door(engine);
  CHECK_FALSE(door.acceptor->stopped());
  door.acceptor->stop();
  CHECK(door.acceptor->stopped());
}

TEST_CASE("without descriptors it pauses, counts, and goes on when there are some") {
  Engine engine({.receive = strategy()});
  Door door(engine);
  for (int i = 0; i < 4; ++i) door.clients.push_back(socket(AF_INET, SOCK_STREAM, 0));
  const rlimit before = forbid_descriptors();
  door.acceptor->start();  // the kernel keeps the limit of this moment with the operation
  engine.settle();
  for (size_t i = 0; i < 4; ++i) {
    REQUIRE(connect(door.clients[i], &door.address.base, door.address.length) == 0);
  }
  const bool failed = engine.run_until([&] { return door.acceptor->failures() >= 2; });
  const uint64_t turns = engine->turns();
  engine.pass(120);
  const uint64_t spent = engine->turns() - turns;
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(failed);
  CHECK(door.acceptor->last_failure().code == base::Errc::kNoFiles);
  CHECK(spent < 60);  // it does not spin
  CHECK(door.failures_told == door.acceptor->failures());
  CHECK(door.accepted.empty());
  REQUIRE(engine.run_until([&] { return door.accepted.size() == 4; }));
}

TEST_CASE("a pause can be stopped") {
  Engine engine;
  Door door(engine);
  door.clients.push_back(socket(AF_INET, SOCK_STREAM, 0));
  const rlimit before = forbid_descriptors();
  door.acceptor->start();
  engine.settle();
  REQUIRE(connect(door.clients[0], &door.address.base, door.address.length) == 0);
  const bool failed = engine.run_until([&] { return door.acceptor->failures() >= 1; });
  door.acceptor->stop();
  const bool stopped = engine.run_until([&] { return door.acceptor->stopped(); });
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(failed);
  CHECK(stopped);
  door.acceptor->take_backlog();
  CHECK(door.accepted.size() == 1);
}
