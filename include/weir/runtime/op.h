// One kernel operation (STYLE 2.5). An Op lives inside the object or coroutine frame that owns what
// the operation points to; its address is the user_data, so it never moves, and it must not die
// while the kernel has it. The completion handler is a plain function called while completions are
// reaped: it stores the outcome and pushes waiters to the reactor's run queue, it never resumes.
#pragma once

#include <coroutine>
#include <cstdint>

#include <weir/base/check.h>
#include <weir/runtime/ring.h>

namespace weir::runtime {

class Op {
 public:
  // `result` is >= 0 or -errno; `flags` are the CQE's. With IORING_CQE_F_MORE more will follow.
  using Handler = void (*)(Op& op, int32_t result, uint32_t flags) noexcept;

  explicit Op(Handler handler) noexcept : handler_(handler) {}
  Op(const Op&) = delete;
  Op& operator=(const Op&) = delete;
  ~Op() { WEIR_CHECK(!in_flight_); }

  [[nodiscard]] bool in_flight() const noexcept { return in_flight_; }

  // Binds a prepared entry to this op. At most one submission at a time.
  void start(io_uring_sqe* entry) noexcept {
    WEIR_CHECK(!in_flight_);
    in_flight_ = true;
    entry->user_data = reinterpret_cast<uint64_t>(this);
  }
  // Called by the reactor only.
  void complete(int32_t result, uint32_t flags) noexcept {
    WEIR_CHECK(in_flight_);
    if ((flags & IORING_CQE_F_MORE) == 0) in_flight_ = false;
    handler_(*this, result, flags);
  }
  // Asks the kernel to give up. Whatever it answers (0, ENOENT, EALREADY), the op's own completion
  // decides, so the caller still waits for that one.
  void cancel(Ring& ring) noexcept {
    if (!in_flight_) return;
    io_uring_sqe* entry = ring.sqe();
    io_uring_prep_cancel64(entry, reinterpret_cast<uint64_t>(this), 0);
    entry->user_data = kDetached;
  }

 private:
  Handler handler_;
  bool in_flight_ = false;
};

// A one-shot op that a coroutine awaits: prepare an entry, start(), co_await.
class AwaitOp : public Op {
 public:
  AwaitOp() noexcept : Op(&AwaitOp::on_complete) {}

  bool await_ready() const noexcept { return !in_flight(); }
  void await_suspend(std::coroutine_handle<> handle) noexcept { waiter_ = handle; }
  int32_t await_resume() const noexcept { return result_; }
  [[nodiscard]] uint32_t flags() const noexcept { return flags_; }

 private:
  static void on_complete(Op& op, int32_t result, uint32_t flags) noexcept;
  std::coroutine_handle<> waiter_;
  int32_t result_ = 0;
  uint32_t flags_ = 0;
};

}  // namespace weir::runtime
