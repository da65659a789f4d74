// One coroutine that waits until somebody wakes it or its time is over: co_await it. Lives in the
// coroutine's frame; may stand in a list of those that wait, and leaves it when it is woken. One
// thread.
#pragma once

#include <coroutine>
#include <cstdint>
#include <utility>

#include <weir/base/intrusive_list.h>
#include <weir/runtime/reactor.h>

namespace weir::runtime {

class TimedWait : public base::ListNode {
 public:
  explicit TimedWait(Reactor& reactor) noexcept : reactor_(reactor), deadline_(*this) {}
  ~TimedWait() {
    reactor_.timers().disarm(deadline_);
    unlink();
  }

  // Wakes it then, if nobody has before.
  void wake_at(uint64_t at_ms) noexcept { reactor_.timers().arm(deadline_, at_ms); }
  // Also before it is awaited: then it does not wait at all.
  void wake() noexcept {
    unlink();
    woken_ = true;
    if (waiting_) reactor_.ready(std::exchange(waiting_, {}));
  }
  [[nodiscard]] bool woken() const noexcept { return woken_; }
  [[nodiscard]] bool timed_out() const noexcept { return timed_out_; }

  [[nodiscard]] bool await_ready() const noexcept { return woken_; }
  void await_suspend(std::coroutine_handle<> waiting) noexcept { waiting_ = waiting; }
  void await_resume() const noexcept {}

 private:
  struct Deadline : Timer {
    explicit Deadline(TimedWait& owner) noexcept
        : Timer([](Timer& timer) noexcept {
            TimedWait& self = static_cast<Deadline&>(timer).wait;
            if (self.woken_) return;  // its turn came in the same moment
            self.timed_out_ = true;
            self.wake();
          }),
          wait(owner) {}
    TimedWait& wait;
  };
  Reactor& reactor_;
  std::coroutine_handle<> waiting_;
  bool woken_ = false;
  bool timed_out_ = false;
  Deadline deadline_;
};

}  // namespace weir::runtime
