// The kernel's side of the ring seam, on liburing 2.3 (Debian 12) or later.
#include <weir/runtime/ring.h>

#include <cerrno>

namespace weir::runtime {

namespace {
constexpr uint64_t kNsPerSecond = 1'000'000'000;
}  // namespace

base::Result<std::unique_ptr<Ring>> Ring::open(const RingOptions& options) {
  std::unique_ptr<Ring> ring(new Ring());
  io_uring_params params{};
  // DEFER_TASKRUN: completions are run when we ask, in batches, not by interrupting the thread
  // (PERFORMANCE.md section 2: without it 0.78). Needs 6.1, the oldest kernel we support.
  params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE;
  params.cq_entries = options.cq_entries;
  const int result = io_uring_queue_init_params(options.entries, &ring->ring_, &params);
  if (result < 0) {
    ring->ring_.ring_fd = -1;
    return base::fail(base::from_errno(-result));
  }
  // A registered ring fd saves a reference per io_uring_enter; without it everything still works.
  io_uring_register_ring_fd(&ring->ring_);
  return ring;
}

Ring::~Ring() {
  if (ring_.ring_fd < 0) return;
  WEIR_CHECK(in_flight_ == 0);
  io_uring_queue_exit(&ring_);
}

void Ring::submit_and_wait(uint64_t timeout_ns) noexcept {
  ++enters_;
  int result;
  if (timeout_ns == 0) {
    // Also runs deferred task work (GETEVENTS), which a plain submit would not.
    result = io_uring_submit_and_get_events(&ring_);
  } else if (timeout_ns == kWaitForever) {
    result = io_uring_submit_and_wait(&ring_, 1);
  } else {
    __kernel_timespec limit{.tv_sec = static_cast<int64_t>(timeout_ns / kNsPerSecond),
                            .tv_nsec = static_cast<int64_t>(timeout_ns % kNsPerSecond)};
    io_uring_cqe* first = nullptr;
    result = io_uring_submit_and_wait_timeout(&ring_, &first, 1, &limit, nullptr);
  }
  // ETIME and EINTR are the normal ends of a wait; EBUSY and EAGAIN: the completion queue
  // overflowed or memory is short: reap first, what is unsubmitted goes with the next call.
  WEIR_CHECK(result >= 0 || result == -ETIME || result == -EINTR || result == -EBUSY ||
             result == -EAGAIN);
}

base::Result<void> Ring::register_buffer_ring(io_uring_buf_ring* memory, uint32_t entries,
                                              uint16_t group) {
  io_uring_buf_reg registration{};
  registration.ring_addr = reinterpret_cast<uint64_t>(memory);
  registration.ring_entries = entries;
  registration.bgid = group;
  const int result = io_uring_register_buf_ring(&ring_, &registration, 0);
  if (result < 0) return base::fail(base::from_errno(-result));
  return {};
}

void Ring::unregister_buffer_ring(uint16_t group) noexcept {
  io_uring_unregister_buf_ring(&ring_, group);
}

}  // namespace weir::runtime
