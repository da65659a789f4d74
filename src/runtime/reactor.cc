#include <weir/runtime/reactor.h>

#include <weir/runtime/sys.h>
#include <weir/runtime/task.h>

namespace weir::runtime {

namespace detail {
thread_local std::coroutine_handle<> next_to_resume;
}

namespace {
thread_local Reactor* current = nullptr;
// Bounds a turn so that timers, completions and mail are looked at in time.
constexpr size_t kResumesPerTurnMax = 4096;
}  // namespace

Reactor& current_reactor() noexcept { return *current; }
void set_current_reactor(Reactor* reactor) noexcept { current = reactor; }

void AwaitOp::on_complete(Op& op, int32_t result, uint32_t flags) noexcept {
  auto& self = static_cast<AwaitOp&>(op);
  self.result_ = result;
  self.flags_ = flags;
  if (self.waiter_) current_reactor().ready(std::exchange(self.waiter_, {}));
}

Reactor::WakeOp::WakeOp(Reactor& owner) noexcept
    : Op([](Op& op, int32_t, uint32_t) noexcept {
        Reactor& reactor = static_cast<WakeOp&>(op).reactor;
        if (!reactor.stopping_) reactor.arm_wake();
      }),
      reactor(owner) {}

Reactor::Reactor() noexcept
    : now_ns_(sys::monotonic_ns()),
      unix_us_(sys::realtime_us()),
      timers_(now_ns_ / 1'000'000),
      wake_op_(*this) {}

base::Result<std::unique_ptr<Reactor>> Reactor::open(const ReactorOptions& options) {
  std::unique_ptr<Reactor> reactor(new Reactor());
  WEIR_TRY(reactor->ring_, Ring::open(options.ring));
  WEIR_TRY(reactor->buffers_, BufferPool::open(*reactor->ring_, options.buffers));
  reactor->receive_ = options.receive;
  reactor->owns_wake_fd_ = options.wake_fd < 0;
  reactor->wake_fd_ = reactor->owns_wake_fd_ ? sys::wake_fd() : options.wake_fd;
  if (reactor->wake_fd_ < 0) return base::fail(base::from_errno(-reactor->wake_fd_));
  reactor->arm_wake();
  set_current_reactor(reactor.get());
  return reactor;
}

Reactor::~Reactor() {
  if (owns_wake_fd_ && wake_fd_ >= 0) sys::close(wake_fd_);
  if (current == this) current = nullptr;
}

void Reactor::arm_wake() noexcept {
  io_uring_sqe* entry = ring_->sqe();
  io_uring_prep_read(entry, wake_fd_, &wake_count_, sizeof wake_count_, 0);
  wake_op_.start(entry);
}

void Reactor::wake() noexcept { sys::wake(wake_fd_); }

void Reactor::close_fd(int fd) noexcept {
  const int result = sys::close(fd);
  WEIR_CHECK(result != -9 /* EBADF: somebody closed it twice */);
}

void Reactor::run_ready() {
  size_t resumed = 0;
  while (!run_queue_.empty() && resumed < kResumesPerTurnMax) {
    running_.swap(run_queue_);
    for (std::coroutine_handle<> handle : running_) resume_flat(handle);
    resumed += running_.size();
    running_.clear();
  }
}

void Reactor::turn(bool may_wait) {
  ++turns_;
  uint64_t wait_ns = 0;
  if (may_wait && run_queue_.empty() && next_turn_.empty()) {
    const uint64_t next = timers_.next_ms();
    if (next == UINT64_MAX) {
      wait_ns = kWaitForever;
    } else {
      const uint64_t next_ns = next * 1'000'000;
      wait_ns = next_ns > now_ns_ ? next_ns - now_ns_ : 0;
    }
  }
  ring_->submit_and_wait(wait_ns);
  now_ns_ = sys::monotonic_ns();
  unix_us_ = sys::realtime_us();
  ring_->reap([](uint64_t user_data, int32_t result, uint32_t flags) {
    if (user_data != kDetached) reinterpret_cast<Op*>(user_data)->complete(result, flags);
  });
  buffers_->replenish();
  timers_.expire(now_ms());
  run_queue_.insert(run_queue_.end(), next_turn_.begin(), next_turn_.end());
  next_turn_.clear();
  run_ready();
}

void Reactor::stop() {
  stopping_ = true;
  wake_op_.cancel(*ring_);
  while (ring_->in_flight() != 0) turn(true);
}

}  // namespace weir::runtime
