// Children of one owner: tasks that run beside it and are joined before it goes. A group counts, it
// does not keep the frames: each child destroys itself when it ends. The group must outlive them
// (CHECKed) and stopping them is the owner's business: ask (cancel, interrupt), then join().
#pragma once

#include <coroutine>
#include <cstdint>

#include <weir/runtime/reactor.h>
#include <weir/runtime/task.h>

namespace weir::runtime {

class TaskGroup {
 public:
  TaskGroup() noexcept = default;
  TaskGroup(const TaskGroup&) = delete;
  TaskGroup& operator=(const TaskGroup&) = delete;
  ~TaskGroup() { WEIR_CHECK(running_ == 0); }

  // Starts `task` in the run queue of this thread: nothing runs inside the caller's stack.
  void spawn(Task<> task) {
    ++running_;
    Root root = run(*this, std::move(task));
    current_reactor().ready(root.handle);
  }
  [[nodiscard]] uint32_t running() const noexcept { return running_; }

  // co_await group.join(): resumes when no child runs. One waiter at a time.
  auto join() noexcept {
    struct Awaiter {
      TaskGroup& group;
      bool await_ready() const noexcept { return group.running_ == 0; }
      void await_suspend(std::coroutine_handle<> handle) const noexcept {
        WEIR_CHECK(!group.joiner_);
        group.joiner_ = handle;
      }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this};
  }

 private:
  // A coroutine without an owner: its frame frees itself at the end.
  struct Root {
    struct promise_type {
      Root get_return_object() noexcept {
        return {std::coroutine_handle<promise_type>::from_promise(*this)};
      }
      std::suspend_always initial_suspend() const noexcept { return {}; }
      std::suspend_never final_suspend() const noexcept { return {}; }
      void return_void() const noexcept {}
      void unhandled_exception() const noexcept {
        ::weir::base::check_failed(__FILE__, __LINE__, "exception in a task");
      }
    };
    std::coroutine_handle<promise_type> handle;
  };

  static Root run(TaskGroup& group, Task<> task) {
    co_await std::move(task);
    group.ended();
  }
  void ended() noexcept {
    WEIR_CHECK(running_ > 0);
    if (--running_ == 0 && joiner_) current_reactor().ready(std::exchange(joiner_, {}));
  }

  uint32_t running_ = 0;
  std::coroutine_handle<> joiner_;
};

}  // namespace weir::runtime
