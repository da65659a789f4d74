// One thread's engine: ring, run queue, timers, buffers, wake-ups. It is the only place that
// resumes coroutines. Created and used on one thread; wake() alone may be called from others.
//
// A turn: submit and wait (one io_uring_enter; completions are only marked), expire timers, resume
// what is ready, then the owner's on_turn hook (mail, snapshot). Time is read once per turn.
#pragma once

#include <coroutine>
#include <cstdint>
#include <memory>
#include <vector>

#include <weir/base/result.h>
#include <weir/runtime/buffer_pool.h>
#include <weir/runtime/op.h>
#include <weir/runtime/ring.h>
#include <weir/runtime/timer_wheel.h>

namespace weir::runtime {

enum class ReceiveStrategy : uint8_t { kMultishot, kOneShot };

struct ReactorOptions {
  RingOptions ring;
  BufferPoolOptions buffers;
  ReceiveStrategy receive = ReceiveStrategy::kMultishot;
  // A descriptor of sys::wake_fd() that outlives the reactor, for wakers that may be late; -1: the
  // reactor makes its own.
  int wake_fd = -1;
};

class Reactor {
 public:
  static base::Result<std::unique_ptr<Reactor>> open(const ReactorOptions& options);
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;
  ~Reactor();

  [[nodiscard]] Ring& ring() noexcept { return *ring_; }
  [[nodiscard]] TimerWheel& timers() noexcept { return timers_; }
  [[nodiscard]] BufferPool& buffers() noexcept { return *buffers_; }
  [[nodiscard]] ReceiveStrategy receive_strategy() const noexcept { return receive_; }

  [[nodiscard]] uint64_t now_ns() const noexcept { return now_ns_; }
  [[nodiscard]] uint64_t now_ms() const noexcept { return now_ns_ / 1'000'000; }
  [[nodiscard]] int64_t unix_us() const noexcept { return unix_us_; }

  // Queues a coroutine to be resumed in this turn (or the next, past the limit per turn).
  void ready(std::coroutine_handle<> handle) { run_queue_.push_back(handle); }

  // The same for the next turn, after the ring was looked at: how long work lets others in.
  void ready_next_turn(std::coroutine_handle<> handle) { next_turn_.push_back(handle); }
  // co_await reactor.yield()
  auto yield() noexcept {
    struct Awaiter {
      Reactor& reactor;
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> handle) const { reactor.ready_next_turn(handle); }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this};
  }

  // One turn. `may_wait`: sleep until something happens; false when the owner has work of its own.
  void turn(bool may_wait);
  // Thread-safe: makes a sleeping turn() return. Cheap enough to call per message.
  void wake() noexcept;
  // The descriptor behind wake(), for those who outlive knowledge of the reactor.
  [[nodiscard]] int wake_fd() const noexcept { return wake_fd_; }

  // Closes a descriptor that no op uses any more.
  void close_fd(int fd) noexcept;

  // Ends the reactor's own ops (the wake-up read) so that it can be destroyed.
  void stop();
  [[nodiscard]] uint64_t turns() const noexcept { return turns_; }

  // Connections given up by their owners that still await the kernel (net::Transport::dispose).
  uint32_t disposing = 0;

 private:
  Reactor() noexcept;
  void arm_wake() noexcept;
  void run_ready();

  std::unique_ptr<Ring> ring_;
  std::unique_ptr<BufferPool> buffers_;
  uint64_t now_ns_;
  int64_t unix_us_;
  TimerWheel timers_;
  ReceiveStrategy receive_ = ReceiveStrategy::kMultishot;
  std::vector<std::coroutine_handle<>> run_queue_;
  std::vector<std::coroutine_handle<>> running_;
  std::vector<std::coroutine_handle<>> next_turn_;
  uint64_t turns_ = 0;
  int wake_fd_ = -1;
  bool owns_wake_fd_ = false;
  uint64_t wake_count_ = 0;
  bool stopping_ = false;
  struct WakeOp : Op {
    explicit WakeOp(Reactor& owner) noexcept;
    Reactor& reactor;
  };
  WakeOp wake_op_;
};

// The reactor of this thread. The only thread-local the program has besides the trampoline.
Reactor& current_reactor() noexcept;
void set_current_reactor(Reactor* reactor) noexcept;

}  // namespace weir::runtime
