// The buffer pool with a real ring: completions take buffers, owners give them back, and who finds
// none is woken by the next one that is free.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include "engine.h"

using namespace weir;
using runtime::BufferPool;
using runtime::BufferRef;
using runtime::BufferWaiter;
using runtime::Op;
using runtime::test::Engine;

namespace {

// One-shot receives with a buffer of the pool's, on one end of a socket pair.
struct Receiver : Op {
  explicit Receiver(runtime::Reactor& owner)
      : Op([](Op& op, int32_t got, uint32_t completion) noexcept {
          auto& self = static_cast<Receiver&>(op);
          self.result = got;
          self.flags = completion;
          ++self.completions;
        }),
        reactor(owner) {
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
  }
  ~Receiver() {
    close(fds[0]);
    close(fds[1]);
  }
  void arm() {
    io_uring_sqe* entry = reactor.ring().sqe();
    io_uring_prep_recv(entry, fds[0], nullptr, 0, 0);
    entry->flags |= IOSQE_BUFFER_SELECT;
    entry->buf_group = BufferPool::kGroup;
    start(entry);
  }
  void feed(std::string_view text) {
    REQUIRE(write(fds[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
  runtime::Reactor& reactor;
  int fds[2]{-1, -1};
  int32_t result = 0;
  uint32_t flags = 0;
  int completions = 0;
};

struct Waiter : BufferWaiter {
  explicit Waiter(std::vector<int>& order, int number) noexcept
      : BufferWaiter([](BufferWaiter& waiter) noexcept {
          auto& self = static_cast<Waiter&>(waiter);
          self.log.push_back(self.name);
          return true;
        }),
        log(order),
        name(number) {}
  ~Waiter() { unlink(); }
  std::vector<int>& log;
  int name;
};

// For buffers that are held by nobody but the test.
std::vector<uint16_t> take_all(BufferPool& pool) {
  std::vector<uint16_t> taken;
  while (const auto id = pool.allocate()) taken.push_back(*id);
  return taken;
}

}  // namespace

TEST_CASE("a completion carries a buffer with the bytes, the holder gives it back") {
  Engine engine;
  Receiver receiver(*engine);
  BufferPool& pool = engine->buffers();
  for (int i = 0; i < 1000; ++i) {
    receiver.arm();
    const std::string text = "message " + std::to_string(i);
    receiver.feed(text);
    REQUIRE(engine.run_until([&] { return !receiver.in_flight(); }));
    REQUIRE(receiver.result == static_cast<int32_t>(text.size()));
    REQUIRE((receiver.flags & IORING_CQE_F_BUFFER) != 0);
    CHECK(pool.in_use() == 0);
    const uint16_t id = pool.take_completed(receiver.flags);
    CHECK(pool.in_use() == 1);
    CHECK(pool.meta(id).next == BufferPool::kNone);
    CHECK(std::string_view(pool.data(id), text.size()) == text);
    pool.release(id);
    CHECK(pool.in_use() == 0);
  }
}

TEST_CASE("what was released last is lent first") {
  Engine engine({.buffers = 256, .ring_entries = 16});
  BufferPool& pool = engine->buffers();
  const auto a = pool.allocate();
  const auto b = pool.allocate();
  REQUIRE((a && b && *a != *b));
  pool.release(*a);
  pool.release(*b);
  const auto c = pool.allocate();
  const auto d = pool.allocate();
  CHECK(c == b);
  CHECK(d == a);
  pool.release(*c);
  pool.release(*d);
}

TEST_CASE("lent buffers are distinct, of full size, and all come back") {
  Engine engine({.buffers = 200, .buffer_bytes = 512, .ring_entries = 64});
  BufferPool& pool = engine->buffers();
  std::vector<uint16_t> taken = take_all(pool);
  CHECK(taken.size() == 200 - 64);  // the others are with the kernel
  CHECK(pool.in_use() == taken.size());
  CHECK_FALSE(pool.exhausted());
  std::vector<uint16_t> sorted = taken;
  std::ranges::sort(sorted);
  CHECK(std::ranges::adjacent_find(sorted) == sorted.end());
  for (const uint16_t id : taken) std::memset(pool.data(id), id & 0xff, pool.size());
  for (const uint16_t id : taken) {
    CHECK(pool.data(id)[0] == static_cast<char>(id & 0xff));
    CHECK(pool.data(id)[511] == static_cast<char>(id & 0xff));
  }
  for (const uint16_t id : taken) pool.release(id);
  CHECK(pool.in_use() == 0);
  CHECK(take_all(pool).size() == 200 - 64);
  for (const uint16_t id : taken) pool.release(id);
}

TEST_CASE("a reference gives its buffer back exactly once") {
  Engine engine;
  BufferPool& pool = engine->buffers();
  {
    BufferRef first(pool, *pool.allocate());
    BufferRef second(pool, *pool.allocate());
    CHECK(pool.in_use() == 2);
    CHECK(first.capacity() == pool.size());
    BufferRef moved(std::move(first));
    CHECK_FALSE(first);
    CHECK(moved);
    moved = std::move(second);
    CHECK(pool.in_use() == 1);
    BufferRef& same = moved;
    moved = std::move(same);
    CHECK(moved);
    CHECK(pool.in_use() == 1);
    moved.reset();
    moved.reset();
    CHECK(pool.in_use() == 0);
  }
  CHECK(pool.in_use() == 0);
}

TEST_CASE("an exhausted pool answers ENOBUFS, and a release wakes who waits, first come first") {
  Engine engine({.buffers = 4, .ring_entries = 4});
  BufferPool& pool = engine->buffers();
  std::vector<std::unique_ptr<Receiver>> receivers;
  std::vector<uint16_t> held;
  for (int i = 0; i < 4; ++i) {
    receivers.push_back(std::make_unique<Receiver>(*engine));
    receivers.back()->feed("x");
    receivers.back()->arm();
    REQUIRE(engine.run_until([&] { return !receivers.back()->in_flight(); }));
    held.push_back(pool.take_completed(receivers.back()->flags));
  }
  CHECK(pool.exhausted());
  CHECK(pool.in_use() == 4);
  CHECK_FALSE(pool.allocate());
  Receiver late(*engine);
  late.feed("y");
  late.arm();
  REQUIRE(engine.run_until([&] { return !late.in_flight(); }));
  REQUIRE(late.result == -ENOBUFS);

  std::vector<int> order;
  Waiter first(order, 1);
  Waiter second(order, 2);
  pool.wait_for_buffer(first);
  pool.wait_for_buffer(second);
  pool.wait_for_buffer(first);  // keeps its one place
  CHECK(pool.starved() == 2);
  pool.release(held[0]);
  CHECK(order == std::vector<int>{1});
  // The buffer is with the kernel by then: who was woken can arm at once.
  late.arm();
  REQUIRE(engine.run_until([&] { return !late.in_flight(); }));
  REQUIRE(late.result == 1);
  held[0] = pool.take_completed(late.flags);
  pool.release(held[1]);
  CHECK(order == std::vector<int>{1, 2});
  pool.release(held[2]);
  CHECK(order == std::vector<int>{1, 2});
  pool.release(held[0]);
  pool.release(held[3]);
  CHECK(pool.in_use() == 0);
}

TEST_CASE("few are offered at first, widen() offers more of what is free") {
  Engine engine({.buffers = 1024, .ring_entries = 512});
  BufferPool& pool = engine->buffers();
  const auto free_now = [&] {
    const std::vector<uint16_t> taken = take_all(pool);
    for (const uint16_t id : taken) pool.release(id);
    return taken.size();
  };
  const size_t at_start = free_now();
  CHECK(at_start >= 1024 - 128);
  pool.widen();
  CHECK(free_now() < at_start);
  for (int i = 0; i < 10; ++i) pool.widen();
  CHECK(free_now() == 1024 - 512);  // never more than the ring holds
}

TEST_CASE("the kernel is never offered more than half of them") {
  Engine engine({.buffers = 16, .ring_entries = 16});
  BufferPool& pool = engine->buffers();
  for (int i = 0; i < 10; ++i) pool.widen();
  const std::vector<uint16_t> taken = take_all(pool);
  CHECK(taken.size() == 8);
  for (const uint16_t id : taken) pool.release(id);
}

TEST_CASE("who waits to allocate a buffer gets the next one, before it is offered") {
  Engine engine({.buffers = 16, .ring_entries = 16});
  BufferPool& pool = engine->buffers();
  std::vector<uint16_t> taken = take_all(pool);
  std::vector<int> order;
  struct Taker : Waiter {
    Taker(std::vector<int>& log, int number, BufferPool& from) noexcept
        : Waiter(log, number), pool(from) {
      on_buffer = [](BufferWaiter& waiter) noexcept {
        auto& self = static_cast<Taker&>(waiter);
        self.log.push_back(self.name);
        self.buffer = self.pool.allocate();
        return true;
      };
    }
    BufferPool& pool;
    std::optional<uint16_t> buffer;
  };
  Waiter receiver(order, 1);
  Taker taker(order, 2, pool);
  Taker next(order, 3, pool);
  pool.wait_for_buffer(receiver);
  pool.wait_to_allocate(taker);
  pool.wait_to_allocate(next);
  pool.release(taken.back());
  taken.pop_back();
  CHECK(order.front() == 2);
  REQUIRE(taker.buffer);
  CHECK_FALSE(next.buffer);
  pool.release(*taker.buffer);  // another one waits: it is woken, once
  REQUIRE(next.buffer);
  pool.release(*next.buffer);
  for (const uint16_t id : taken) pool.release(id);
  CHECK(pool.in_use() == 0);
}

TEST_CASE("a burst larger than what is offered meets ENOBUFS, not loss") {
  Engine engine({.buffers = 512, .ring_entries = 512});
  BufferPool& pool = engine->buffers();
  std::vector<std::unique_ptr<Receiver>> receivers;
  for (int i = 0; i < 150; ++i) {
    receivers.push_back(std::make_unique<Receiver>(*engine));
    receivers.back()->feed("z");
    receivers.back()->arm();
  }
  size_t served = 0;
  for (int round = 0; round < 10 && served < receivers.size(); ++round) {
    REQUIRE(engine.run_until([&] {
      return std::ranges::none_of(receivers, [](const auto& r) { return r->in_flight(); });
    }));
    for (auto& receiver : receivers) {
      if (receiver->result == -ENOBUFS) {
        if (!pool.exhausted()) pool.widen();
        receiver->arm();
      } else if (receiver->result == 1) {
        pool.release(pool.take_completed(receiver->flags));
        receiver->result = 0;
        ++served;
      }
    }
  }
  CHECK(served == receivers.size());
  CHECK(pool.in_use() == 0);
}
