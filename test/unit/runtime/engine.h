// What the tests of all rooms above runtime share: a reactor on the real kernel that is turned by
// hand, on the test's own thread, until something holds. No test sleeps: a turn waits for the
// kernel, and a guard timer ends what never comes.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include <catch2/catch_test_macros.hpp>

#include <weir/runtime/reactor.h>
#include <weir/runtime/task_group.h>

namespace weir::runtime::test {

struct EngineOptions {
  uint32_t buffers = 256;
  uint32_t buffer_bytes = 4096;
  uint32_t ring_entries = 256;
  uint32_t sq_entries = 256;
  ReceiveStrategy receive = ReceiveStrategy::kMultishot;
};

class Engine {
 public:
  explicit Engine(const EngineOptions& options = {}) : guard_(*this) {
    auto opened = Reactor::open({.ring = {.entries = options.sq_entries, .cq_entries = 4096},
                                 .buffers = {.count = options.buffers,
                                             .size = options.buffer_bytes,
                                             .ring_entries = options.ring_entries},
                                 .receive = options.receive});
    REQUIRE(opened);
    reactor_ = std::move(*opened);
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  // Whatever a test left with the kernel (connections being closed) must end by itself.
  ~Engine() {
    const bool ended =
        run_until([this] { return reactor_->disposing == 0 && tasks.running() == 0; });
    reactor_->timers().disarm(guard_);
    CHECK(ended);
    reactor_->stop();
    CHECK(reactor_->buffers().in_use() == 0);
    CHECK(reactor_->timers().armed() == 0);
  }

  Reactor& operator*() noexcept { return *reactor_; }
  Reactor* operator->() noexcept { return reactor_.get(); }
  Reactor& get() noexcept { return *reactor_; }

  // Turns until `done()`; false when that does not come true in time.
  template <class Done>
  [[nodiscard]] bool run_until(Done&& done, uint64_t limit_ms = 10'000) {
    expired_ = false;
    reactor_->timers().arm(guard_, reactor_->now_ms() + limit_ms);
    while (!done() && !expired_) reactor_->turn(true);
    reactor_->timers().disarm(guard_);
    return done();
  }
  // What is due now, without waiting: enough turns for a completion to cause another.
  void settle(unsigned turns = 8) {
    for (unsigned i = 0; i < turns; ++i) reactor_->turn(false);
  }
  // Lets `ms` of real time pass in turns (for what must not happen meanwhile, or for a timer).
  void pass(uint64_t ms) {
    const uint64_t end = reactor_->now_ms() + ms;
    static_cast<void>(run_until([&] { return reactor_->now_ms() >= end; }, ms + 1));
  }
  // Runs one task to its end.
  [[nodiscard]] bool run(Task<> task, uint64_t limit_ms = 10'000) {
    tasks.spawn(std::move(task));
    return run_until([this] { return tasks.running() == 0; }, limit_ms);
  }

  TaskGroup tasks;

 private:
  struct Guard : Timer {
    explicit Guard(Engine& owner) noexcept
        : Timer([](Timer& timer) noexcept { static_cast<Guard&>(timer).engine.expired_ = true; }),
          engine(owner) {}
    Engine& engine;
  };
  std::unique_ptr<Reactor> reactor_;
  Guard guard_;
  bool expired_ = false;
};

}  // namespace weir::runtime::test
