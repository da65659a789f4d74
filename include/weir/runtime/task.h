// Task<T>: a lazy coroutine with one owner. Awaiting a task starts it on the caller's stack, like a
// function call; if it suspends, the caller suspends too, and only the reactor resumes anything
// later (a trampoline: when a task ends, its parent is what the reactor resumes next, so stacks
// stay flat at every optimisation level). A started task is never destroyed before it is done
// (CHECKed).
//
// Coroutines here are named functions, never capturing lambdas; parameters are taken by value or
// refer to what the caller's frame keeps until the task ends.
#pragma once

#include <coroutine>
#include <optional>
#include <utility>

#include <weir/base/check.h>

namespace weir::runtime {

namespace detail {

// The coroutine that the resume loop shall continue with; set when a task ends.
extern thread_local std::coroutine_handle<> next_to_resume;

struct PromiseBase {
  std::coroutine_handle<> continuation;
  bool started = false;

  struct FinalAwaiter {
    bool await_ready() const noexcept { return false; }
    template <class Promise>
    void await_suspend(std::coroutine_handle<Promise> handle) const noexcept {
      next_to_resume = handle.promise().continuation;
    }
    void await_resume() const noexcept {}
  };
  std::suspend_always initial_suspend() const noexcept { return {}; }
  FinalAwaiter final_suspend() const noexcept { return {}; }
  void unhandled_exception() const noexcept {
    ::weir::base::check_failed(__FILE__, __LINE__, "exception in a coroutine");
  }
};

template <class T>
struct Promise : PromiseBase {
  std::optional<T> value;
  std::coroutine_handle<Promise> get_return_object() noexcept {
    return std::coroutine_handle<Promise>::from_promise(*this);
  }
  template <class U>
  void return_value(U&& result) noexcept {
    value.emplace(std::forward<U>(result));
  }
  T take() noexcept { return std::move(*value); }
};

template <>
struct Promise<void> : PromiseBase {
  std::coroutine_handle<Promise> get_return_object() noexcept {
    return std::coroutine_handle<Promise>::from_promise(*this);
  }
  void return_void() const noexcept {}
  void take() const noexcept {}
};

}  // namespace detail

template <class T = void>
class [[nodiscard]] Task {
 public:
  using promise_type = detail::Promise<T>;
  using Handle = std::coroutine_handle<promise_type>;

  // Made by the compiler from what the promise gives: not explicit.
  Task(Handle handle) noexcept : handle_(handle) {}  // NOLINT(google-explicit-constructor)
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Task& operator=(Task&&) = delete;
  ~Task() {
    if (!handle_) return;
    WEIR_CHECK(!handle_.promise().started || handle_.done());
    handle_.destroy();
  }

  class Awaiter {
   public:
    explicit Awaiter(Handle handle) noexcept : handle_(handle) {}
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> parent) noexcept {
      Handle handle = handle_;
      handle.promise().continuation = parent;
      handle.promise().started = true;
      handle.resume();
      // The parent cannot have been resumed meanwhile: only the reactor resumes parents, later.
      if (!handle.done()) return true;
      detail::next_to_resume = nullptr;
      return false;
    }
    T await_resume() noexcept { return handle_.promise().take(); }

   private:
    Handle handle_;
  };
  Awaiter operator co_await() && noexcept { return Awaiter(handle_); }

  // For owners that run a task without awaiting it (TaskGroup): gives up the handle.
  Handle release() && noexcept { return std::exchange(handle_, {}); }

 private:
  Handle handle_;
};

// Resumes `handle` and, one after the other, the parents whose children ended. The reactor is the
// only caller.
inline void resume_flat(std::coroutine_handle<> handle) noexcept {
  while (handle) {
    handle.resume();
    handle = std::exchange(detail::next_to_resume, {});
  }
}

}  // namespace weir::runtime
