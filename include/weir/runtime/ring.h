// One io_uring. The other half of the seam (see sys.h): open(), submit_and_wait(), the register
// calls and the destructor are implemented twice (src/runtime/ring_uring.cc, test/sim/ring_sim.cc);
// the submission and completion queues are plain memory in the kernel's own layout, so that what
// prepares and reaps entries is the same production code in both.
//
// A ring is created and used on one thread only (SINGLE_ISSUER | DEFER_TASKRUN). Completions appear
// only inside submit_and_wait(); an empty queue before it says nothing.
#pragma once

#include <cstdint>
#include <memory>

#include <liburing.h>

#include <weir/base/check.h>
#include <weir/base/result.h>

namespace weir::runtime {

struct RingOptions {
  uint32_t entries = 1024;     // SQ; a full one is submitted early, it is not an error
  uint32_t cq_entries = 8192;  // >= 4x what is expected in flight (PERFORMANCE.md, section 4)
};

// user_data of operations whose completion nobody awaits. They name no memory.
inline constexpr uint64_t kDetached = 0;

inline constexpr uint64_t kWaitForever = UINT64_MAX;

class Ring {
 public:
  static base::Result<std::unique_ptr<Ring>> open(const RingOptions& options);
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  // All operations must have completed: a ring that dies with some in flight is a bug (CHECKed).
  ~Ring();

  // The next free entry, zeroed but for what io_uring_prep_* sets; never null. The caller preps it
  // and sets user_data; it is submitted by the next submit_and_wait() or when the queue is full.
  io_uring_sqe* sqe() noexcept {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    while (__builtin_expect(entry == nullptr, 0)) {
      submit_and_wait(0);
      ++full_submits_;
      entry = io_uring_get_sqe(&ring_);
    }
    ++in_flight_;
    return entry;
  }

  // Submits all, then waits until one completion is there or `timeout_ns` has passed (0: do not
  // wait). One io_uring_enter.
  void submit_and_wait(uint64_t timeout_ns) noexcept;

  // Calls visit(user_data, result, flags) for each completion that is there. The visitor may take
  // entries from sqe().
  template <class Visitor>
  unsigned reap(Visitor&& visit) {
    unsigned count = 0;
    unsigned head = *ring_.cq.khead;
    while (true) {
      const unsigned tail = io_uring_smp_load_acquire(ring_.cq.ktail);
      if (head == tail) break;
      for (; head != tail; ++head, ++count) {
        const io_uring_cqe copy = ring_.cq.cqes[head & *ring_.cq.kring_mask];
        if ((copy.flags & IORING_CQE_F_MORE) == 0) --in_flight_;
        visit(copy.user_data, copy.res, copy.flags);
      }
      io_uring_smp_store_release(ring_.cq.khead, head);
    }
    return count;
  }

  // `memory` holds `entries` io_uring_buf (power of two), page aligned, owned by the caller until
  // unregistered.
  base::Result<void> register_buffer_ring(io_uring_buf_ring* memory, uint32_t entries,
                                          uint16_t group);
  void unregister_buffer_ring(uint16_t group) noexcept;

  // Operations submitted or prepared whose final completion has not been reaped.
  [[nodiscard]] uint32_t in_flight() const noexcept { return in_flight_; }
  [[nodiscard]] uint64_t enters() const noexcept { return enters_; }
  [[nodiscard]] uint64_t full_submits() const noexcept { return full_submits_; }
  [[nodiscard]] int fd() const noexcept { return ring_.ring_fd; }

 private:
  Ring() noexcept = default;

  io_uring ring_{};
  uint32_t in_flight_ = 0;
  uint64_t enters_ = 0;
  uint64_t full_submits_ = 0;
  [[maybe_unused]] void* simulation_ =
      nullptr;  // owned by ring_sim.cc; unused by the kernel's implementation
};

}  // namespace weir::runtime
