// Turns: what is resumed when, how long a turn sleeps, what wakes it.
#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/runtime/mailbox.h>
#include <weir/runtime/sys.h>

#include "engine.h"

using namespace weir;
using runtime::Reactor;
using runtime::Task;
using runtime::Timer;
using runtime::test::Engine;
using runtime::test::EngineOptions;

namespace {

Task<> yield_often(Reactor& reactor, int times, std::vector<int>& log, int name) {
  for (int i = 0; i < times; ++i) {
    log.push_back(name);
    co_await reactor.yield();
  }
}

Task<> count_up(Reactor& reactor, const bool& stop, uint64_t& count) {
  while (!stop) {
    ++count;
    co_await reactor.yield();
  }
}

Task<> note(int& count) {
  ++count;
  co_return;
}

// A coroutine that spawns its successor, for ever: never more than one in the queue.
Task<> endless(runtime::TaskGroup& group, const bool& stop, uint64_t& count) {
  ++count;
  if (!stop) group.spawn(endless(group, stop, count));
  co_return;
}

struct Alarm : Timer {
  explicit Alarm(Reactor& owner) noexcept
      : Timer([](Timer& timer) noexcept {
          auto& self = static_cast<Alarm&>(timer);
          self.fired_ns = self.reactor.now_ns();
        }),
        reactor(owner) {}
  Reactor& reactor;
  uint64_t fired_ns = 0;
};

}  // namespace

TEST_CASE("yield lets the others have their turn") {
  Engine engine;
  std::vector<int> log;
  engine.tasks.spawn(yield_often(*engine, 3, log, 1));
  engine.tasks.spawn(yield_often(*engine, 3, log, 2));
  REQUIRE(engine.run_until([&] { return engine.tasks.running() == 0; }));
  CHECK(log == std::vector<int>{1, 2, 1, 2, 1, 2});
}

TEST_CASE("who yields is resumed once a turn, and a turn with such work does not sleep") {
  Engine engine;
  bool stop = false;
  uint64_t count = 0;
  engine.tasks.spawn(count_up(*engine, stop, count));
  engine->turn(true);
  const uint64_t before = count;
  for (int i = 0; i < 50; ++i) engine->turn(true);  // would hang if one of them slept
  CHECK(count == before + 50);
  stop = true;
  REQUIRE(engine.run_until([&] { return engine.tasks.running() == 0; }));
}

TEST_CASE("a turn is bounded even when work makes work") {
  Engine engine;
  bool stop = false;
  uint64_t count = 0;
  engine.tasks.spawn(endless(engine.tasks, stop, count));
  engine->turn(true);
  CHECK(count >= 1000);
  CHECK(count <= 10'000);
  const uint64_t first = count;
  engine->turn(true);  // goes on where it stopped, without sleeping
  CHECK(count > first);
  stop = true;
  REQUIRE(engine.run_until([&] { return engine.tasks.running() == 0; }));
}

TEST_CASE("more tasks than a turn resumes are all resumed in the turns after it") {
  Engine engine;
  int count = 0;
  for (int i = 0; i < 20'000; ++i) engine.tasks.spawn(note(count));
  REQUIRE(engine.run_until([&] { return engine.tasks.running() == 0; }));
  CHECK(count == 20'000);
}

TEST_CASE("a sleeping turn ends when a timer is due, never before") {
  Engine engine;
  for (const uint64_t ms : {1, 3, 20}) {
    Alarm alarm(*engine);
    engine->turn(false);
    const uint64_t due = engine->now_ms() + ms;
    engine->timers().arm(alarm, due);
    REQUIRE(engine.run_until([&] { return alarm.fired_ns != 0; }));
    CHECK(alarm.fired_ns / 1'000'000 >= due);
    // A turn wakes for what next_ms() says, at most one step per level of the wheel.
    CHECK(engine->turns() < 200);
  }
}

TEST_CASE("turn(false) does not sleep although nothing is to be done") {
  Engine engine;
  const uint64_t start = runtime::sys::monotonic_ns();
  for (int i = 0; i < 1000; ++i) engine->turn(false);
  CHECK(runtime::sys::monotonic_ns() - start < 5'000'000'000);
  CHECK(engine->turns() == 1000);
}

TEST_CASE("wake() before a turn is not lost") {
  Engine engine;
  for (int i = 0; i < 100; ++i) {
    engine->wake();
    engine->wake();
    engine->turn(true);  // no timer is armed: would sleep for ever
  }
  SUCCEED();
}

TEST_CASE("a reactor stops and starts again without a trace, also with a wake-up pending") {
  for (int i = 0; i < 20; ++i) {
    Engine engine({.buffers = 64, .ring_entries = 64, .sq_entries = 8});
    if (i % 2 == 0) engine->wake();
    if (i % 3 == 0) engine->turn(false);
  }
  SUCCEED();
}

TEST_CASE("two reactors on one thread: the last one opened is the current one") {
  Engine first;
  {
    Engine second;
    CHECK(&runtime::current_reactor() == &*second);
  }
  runtime::set_current_reactor(&*first);
  CHECK(&runtime::current_reactor() == &*first);
}

TEST_CASE("another thread's messages and wake-ups all arrive", "[threads]") {
  constexpr uint32_t kMessages = 20'000;
  runtime::Mailbox<uint64_t, 64> mailbox;
  std::atomic<Reactor*> receiver{nullptr};
  std::atomic<bool> sent{false};
  uint64_t sum = 0;
  uint64_t out_of_order = 0;
  std::thread thread([&] {
    Engine engine;
    receiver.store(&*engine, std::memory_order_release);
    uint64_t expected = 0;
    while (expected < kMessages) {
      engine->turn(true);  // hangs if a wake-up is lost
      mailbox.drain([&](uint64_t message) {
        if (message != expected) ++out_of_order;
        ++expected;
        sum += message;
      });
    }
    // The last wake-up must find its descriptor.
    while (!sent.load(std::memory_order_acquire)) std::this_thread::yield();
  });
  while (receiver.load(std::memory_order_acquire) == nullptr) std::this_thread::yield();
  const int wake_fd = receiver.load()->wake_fd();
  for (uint64_t i = 0; i < kMessages; ++i) {
    while (!mailbox.try_post(i)) std::this_thread::yield();
    runtime::sys::wake(wake_fd);
  }
  sent.store(true, std::memory_order_release);
  thread.join();
  CHECK(sum == uint64_t{kMessages} * (kMessages - 1) / 2);
  CHECK(out_of_order == 0);
}

TEST_CASE("each thread has its own reactor, and they wake each other", "[threads]") {
  std::atomic<Reactor*> reactors[2] = {nullptr, nullptr};
  runtime::Mailbox<int, 4> boxes[2];
  std::atomic<int> ended{0};
  std::mutex checking;  // an engine checks when it begins and ends, and Catch2 is for one thread
  const auto run = [&](size_t me) {
    std::optional<Engine> own;
    {
      const std::scoped_lock lock(checking);
      own.emplace(EngineOptions{.buffers = 64, .ring_entries = 64});
    }
    Engine& engine = *own;
    reactors[me].store(&*engine, std::memory_order_release);
    while (reactors[1 - me].load(std::memory_order_acquire) == nullptr) std::this_thread::yield();
    Reactor& other = *reactors[1 - me].load();
    if (me == 0) {
      boxes[1].try_post(0);
      other.wake();
    }
    int last = 0;
    while (last < 2000) {
      engine->turn(true);
      const uint32_t got = boxes[me].drain([&](int value) { last = value + 1; });
      if (got == 0) continue;
      boxes[1 - me].try_post(last);
      other.wake();
    }
    // The other's last wake() must find the descriptor still there.
    ended.fetch_add(1);
    while (ended.load() < 2) std::this_thread::yield();
    const std::scoped_lock lock(checking);
    own.reset();
  };
  std::thread thread([&] { run(1); });
  run(0);
  thread.join();
  CHECK(ended.load() == 2);
}
