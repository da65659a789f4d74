// The ring, ops and cancellation against the real kernel: the facts that STYLE 2.5 is built on.
#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <vector>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include "death.h"
#include "engine.h"

using namespace weir;
using runtime::AwaitOp;
using runtime::Op;
using runtime::Task;
using runtime::test::Engine;

namespace {

struct Pair {
  Pair() { REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0); }
  ~Pair() {
    for (const int fd : fds) {
      if (fd >= 0) close(fd);
    }
  }
  void feed(std::string_view text) const {
    REQUIRE(write(fds[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
  int fds[2]{-1, -1};
};

// An op that remembers each of its completions.
struct Remembered : Op {
  explicit Remembered(runtime::Reactor& owner) noexcept
      : Op([](Op& op, int32_t result, uint32_t flags) noexcept {
          auto& self = static_cast<Remembered&>(op);
          self.results.push_back(result);
          self.more = (flags & IORING_CQE_F_MORE) != 0;
        }),
        reactor(owner) {}
  void recv(int fd) {
    io_uring_sqe* entry = reactor.ring().sqe();
    io_uring_prep_recv(entry, fd, buffer.data(), buffer.size(), 0);
    start(entry);
  }
  void poll(int fd) {
    io_uring_sqe* entry = reactor.ring().sqe();
    io_uring_prep_poll_add(entry, fd, POLLIN);
    start(entry);
  }
  void poll_multishot(int fd) {
    io_uring_sqe* entry = reactor.ring().sqe();
    io_uring_prep_poll_multishot(entry, fd, POLLIN);
    start(entry);
  }
  runtime::Reactor& reactor;
  std::array<char, 256> buffer{};
  std::vector<int32_t> results;
  bool more = false;
};

struct Reading {
  explicit Reading(runtime::Reactor& owner) noexcept : reactor(owner) {}
  runtime::Reactor& reactor;
  AwaitOp op;
  std::array<char, 64> buffer{};
  int32_t result = 1;
};

Task<> read_into(Reading& reading, int fd) {
  io_uring_sqe* entry = reading.reactor.ring().sqe();
  io_uring_prep_recv(entry, fd, reading.buffer.data(), reading.buffer.size(), 0);
  reading.op.start(entry);
  reading.result = co_await reading.op;
}

Task<> read_twice(runtime::Reactor& reactor, int fd, std::string& out) {
  char buffer[8];
  AwaitOp op;
  for (int i = 0; i < 2; ++i) {
    io_uring_sqe* entry = reactor.ring().sqe();
    io_uring_prep_recv(entry, fd, buffer, sizeof buffer, 0);
    op.start(entry);
    const int32_t got = co_await op;
    if (got > 0) out.append(buffer, static_cast<size_t>(got));
  }
}

}  // namespace

TEST_CASE("a coroutine awaits a real operation, and the op can be used again") {
  Engine engine;
  Pair pair;
  std::string text;
  engine.tasks.spawn(read_twice(*engine, pair.fds[0], text));
  engine.settle(2);
  pair.feed("one ");
  REQUIRE(engine.run_until([&] { return text == "one "; }));
  pair.feed("two");
  REQUIRE(engine.run_until([&] { return engine.tasks.running() == 0; }));
  CHECK(text == "one two");
}

TEST_CASE("a cancelled op ends with ECANCELED, once, through its own completion") {
  Engine engine;
  Pair pair;
  Reading reading(*engine);
  engine.tasks.spawn(read_into(reading, pair.fds[0]));
  engine.settle(2);
  CHECK(reading.op.in_flight());
  reading.op.cancel(engine->ring());
  CHECK(reading.op.in_flight());  // the cancel is only a question
  REQUIRE(engine.run_until([&] { return engine.tasks.running() == 0; }));
  CHECK(reading.result == -ECANCELED);
  reading.op.cancel(engine->ring());  // nothing is in flight: nothing is submitted
  const uint32_t in_flight = engine->ring().in_flight();
  CHECK(in_flight == 1);  // the wake-up read
}

TEST_CASE("the completion decides: data that came before the cancel is delivered") {
  Engine engine;
  Pair pair;
  Remembered op(*engine);
  pair.feed("here");
  op.recv(pair.fds[0]);
  op.cancel(engine->ring());  // in the same batch, behind it
  REQUIRE(engine.run_until([&] { return !op.in_flight(); }));
  CHECK(op.results == std::vector<int32_t>{4});
  engine.settle();
  CHECK(op.results.size() == 1);
}

TEST_CASE("cancelling twice, and an op that has ended, harms nobody") {
  Engine engine;
  Pair pair;
  Remembered op(*engine);
  op.recv(pair.fds[0]);
  op.cancel(engine->ring());
  op.cancel(engine->ring());
  REQUIRE(engine.run_until([&] { return !op.in_flight(); }));
  CHECK(op.results == std::vector<int32_t>{-ECANCELED});
  // The second cancel's answer (ENOENT) is nobody's; the next op at the same address is not hit.
  op.recv(pair.fds[0]);
  engine.settle();
  CHECK(op.in_flight());
  pair.feed("x");
  REQUIRE(engine.run_until([&] { return !op.in_flight(); }));
  CHECK(op.results.back() == 1);
}

TEST_CASE("a stale cancel submitted in front of a new op at the same address does not hit it") {
  Engine engine;
  Pair pair;
  Remembered op(*engine);
  pair.feed("a");
  op.recv(pair.fds[0]);
  engine->turn(false);
  if (op.in_flight()) {
    op.cancel(engine->ring());
    REQUIRE(engine.run_until([&] { return !op.in_flight(); }));
  }
  // What a transport does: the cancel is queued first, the op ends by itself, and is started anew.
  op.recv(pair.fds[0]);
  engine.settle(1);
  pair.feed("b");
  op.cancel(engine->ring());
  REQUIRE(engine.run_until([&] { return !op.in_flight(); }));
  op.recv(pair.fds[0]);
  engine.settle();
  if (op.results.back() == -ECANCELED) pair.feed("c");
  pair.feed("d");
  REQUIRE(engine.run_until([&] { return !op.in_flight(); }));
  CHECK(op.results.back() >= 1);
}

TEST_CASE("shutdown(2) completes a pending receive, close(2) alone does not") {
  Engine engine;
  Pair pair;
  Remembered op(*engine);
  op.recv(pair.fds[0]);
  engine.settle();
  REQUIRE(op.in_flight());
  const int closed = std::exchange(pair.fds[0], -1);
  close(closed);
  engine.settle();
  CHECK(op.in_flight());  // it holds the file
  close(std::exchange(pair.fds[1], -1));
  REQUIRE(engine.run_until([&] { return !op.in_flight(); }));
  CHECK(op.results == std::vector<int32_t>{0});

  Pair other;
  op.recv(other.fds[0]);
  engine.settle();
  REQUIRE(op.in_flight());
  REQUIRE(shutdown(other.fds[0], SHUT_RDWR) == 0);
  REQUIRE(engine.run_until([&] { return !op.in_flight(); }));
  CHECK(op.results.back() == 0);
}

TEST_CASE("shutdown(2) completes a poll as well, and cancel ends one") {
  Engine engine;
  Pair pair;
  Remembered op(*engine);
  op.poll(pair.fds[0]);
  engine.settle();
  REQUIRE(op.in_flight());
  REQUIRE(shutdown(pair.fds[0], SHUT_RDWR) == 0);
  REQUIRE(engine.run_until([&] { return !op.in_flight(); }));
  CHECK((op.results.back() & POLLHUP) != 0);

  Pair other;
  op.poll(other.fds[0]);
  engine.settle();
  op.cancel(engine->ring());
  REQUIRE(engine.run_until([&] { return !op.in_flight(); }));
  CHECK(op.results.back() == -ECANCELED);
}

TEST_CASE("a multishot op stays in flight until a completion without F_MORE") {
  Engine engine;
  Pair pair;
  Remembered op(*engine);
  op.poll_multishot(pair.fds[0]);
  pair.feed("1");
  REQUIRE(engine.run_until([&] { return !op.results.empty(); }));
  CHECK(op.more);
  CHECK(op.in_flight());
  op.cancel(engine->ring());
  REQUIRE(engine.run_until([&] { return !op.in_flight(); }));
  CHECK(op.results.back() == -ECANCELED);
  CHECK_FALSE(op.more);
}

TEST_CASE("a full submission queue is submitted early, and every op completes") {
  Engine engine({.sq_entries = 4});
  constexpr size_t kOps = 500;
  Pair pair;
  std::vector<std::unique_ptr<Remembered>> ops;
  for (size_t i = 0; i < kOps; ++i) {
    ops.push_back(std::make_unique<Remembered>(*engine));
    ops.back()->poll(pair.fds[0]);
  }
  CHECK(engine->ring().full_submits() >= kOps / 4 - 2);
  CHECK(engine->ring().in_flight() >= kOps);
  pair.feed("go");
  REQUIRE(engine.run_until(
      [&] { return std::ranges::none_of(ops, [](const auto& op) { return op->in_flight(); }); }));
  for (const auto& op : ops) CHECK(op->results == std::vector<int32_t>{POLLIN});
  CHECK(engine->ring().in_flight() == 1);
}

TEST_CASE("ops that are started while completions are reaped survive a full queue") {
  Engine engine({.sq_entries = 4});
  Pair pair;
  pair.feed("x");
  struct Chain : Op {
    explicit Chain(runtime::Reactor& owner, int descriptor) noexcept
        : Op([](Op& op, int32_t, uint32_t) noexcept {
            auto& self = static_cast<Chain&>(op);
            if (--self.left > 0) self.arm();
          }),
          reactor(owner),
          fd(descriptor) {}
    void arm() noexcept {
      io_uring_sqe* entry = reactor.ring().sqe();
      io_uring_prep_poll_add(entry, fd, POLLIN);
      start(entry);
    }
    runtime::Reactor& reactor;
    int fd;
    int left = 50;
  };
  std::vector<std::unique_ptr<Chain>> chains;
  for (int i = 0; i < 64; ++i) {
    chains.push_back(std::make_unique<Chain>(*engine, pair.fds[0]));
    chains.back()->arm();
  }
  REQUIRE(engine.run_until([&] {
    return std::ranges::none_of(chains, [](const auto& chain) { return chain->in_flight(); });
  }));
  for (const auto& chain : chains) CHECK(chain->left == 0);
}

TEST_CASE("more completions than the queue holds overflow into the kernel and still arrive") {
  // The engine's completion queue has 4096 entries.
  Engine engine({.sq_entries = 256});
  Pair pair;
  pair.feed("x");
  std::vector<std::unique_ptr<Remembered>> ops;
  for (size_t i = 0; i < 6000; ++i) {
    ops.push_back(std::make_unique<Remembered>(*engine));
    ops.back()->poll(pair.fds[0]);
  }
  REQUIRE(engine.run_until(
      [&] { return std::ranges::none_of(ops, [](const auto& op) { return op->in_flight(); }); }));
  CHECK(std::ranges::all_of(ops, [](const auto& op) { return op->results.size() == 1; }));
}

TEST_CASE("an op must not die in flight, nor be started twice, nor a ring with ops") {
  CHECK(runtime::test::aborts([] {
    Engine engine;
    Pair pair;
    Remembered op(*engine);
    op.recv(pair.fds[0]);
    op.recv(pair.fds[0]);
  }));
  CHECK(runtime::test::aborts([] {
    auto ring = *runtime::Ring::open({.entries = 8, .cq_entries = 16});
    io_uring_sqe* entry = ring->sqe();
    io_uring_prep_nop(entry);
    entry->user_data = runtime::kDetached;
    ring.reset();
  }));
}
