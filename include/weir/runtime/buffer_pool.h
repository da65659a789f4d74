// The byte buffers of one core: fixed size, numbered, in one mapping (huge pages by option). Part
// of them is offered to the kernel as a provided-buffer ring; receive completions hand them to
// streams, which chain them by number (meta()), so a stream without data owns no buffer at all. The
// same pool lends buffers for output. Free buffers are reused last in, first out, and few are
// offered at a time: what is hot in the cache stays hot (PERFORMANCE.md, finding 5).
//
// When all are in use, receivers park (wait_for_buffer) and are woken one per release: an empty
// pool is back-pressure, not an error.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <weir/base/intrusive_list.h>
#include <weir/base/result.h>
#include <weir/runtime/ring.h>

namespace weir::runtime {

struct BufferPoolOptions {
  uint32_t count = 4096;         // buffers; memory is touched only when used
  uint32_t size = 4096;          // bytes each
  uint32_t ring_entries = 1024;  // most that are ever offered to the kernel; power of two
  bool huge_pages = false;
};

// Someone who could not arm a receive for want of a buffer. on_buffer is called once, later; false
// means that the buffer is of no use there any more, and the next in the queue is asked.
class BufferWaiter : public base::ListNode {
 public:
  using Handler = bool (*)(BufferWaiter& waiter) noexcept;
  explicit BufferWaiter(Handler handler) noexcept : on_buffer(handler) {}
  Handler on_buffer;
};

class BufferPool {
 public:
  static constexpr uint16_t kNone = 0xffff;
  static constexpr uint16_t kGroup = 1;

  struct Meta {  // belongs to whoever holds the buffer
    uint16_t next = kNone;
    uint32_t offset = 0;  // where unread bytes begin
    uint32_t length = 0;  // how many there are
  };

  static base::Result<std::unique_ptr<BufferPool>> open(Ring& ring,
                                                        const BufferPoolOptions& options);
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;
  ~BufferPool();  // every buffer must be back

  [[nodiscard]] char* data(uint16_t id) noexcept {
    return memory_ + static_cast<size_t>(id) * size_;
  }
  [[nodiscard]] Meta& meta(uint16_t id) noexcept { return meta_[id]; }
  [[nodiscard]] uint32_t size() const noexcept { return size_; }
  [[nodiscard]] uint32_t in_use() const noexcept { return in_use_; }
  [[nodiscard]] bool huge() const noexcept { return huge_; }
  [[nodiscard]] bool exhausted() const noexcept { return free_.empty() && offered_ == 0; }
  // Less than a quarter is left. What can do with heap memory or less buffers does, so that what is
  // held for long (heads of requests that wait, long streams) never uses up what receives need.
  [[nodiscard]] bool scarce() const noexcept { return free_.size() + offered_ < meta_.size() / 4; }

  // The buffer that a completion carries (flags has IORING_CQE_F_BUFFER); the caller holds it now.
  uint16_t take_completed(uint32_t cqe_flags) noexcept;
  // Refills the kernel's ring from the free list; once per turn, after completions are reaped.
  void replenish() noexcept;
  // A receive met ENOBUFS although buffers are free: offer more of them from now on.
  void widen() noexcept;

  // For output. Empty when the pool is used up.
  std::optional<uint16_t> allocate() noexcept;
  void release(uint16_t id) noexcept;

  // Calls waiter.on_buffer when a buffer has become free. At most one place in the queue each.
  void wait_for_buffer(BufferWaiter& waiter) noexcept;
  // The same for who wants to allocate() it, not to receive into it; served first.
  void wait_to_allocate(BufferWaiter& waiter) noexcept;
  [[nodiscard]] uint64_t starved() const noexcept { return starved_; }

 private:
  BufferPool() noexcept = default;
  void offer(uint16_t id) noexcept;
  void wake_takers() noexcept;

  Ring* ring_ = nullptr;
  char* memory_ = nullptr;
  size_t memory_bytes_ = 0;
  io_uring_buf_ring* kernel_ring_ = nullptr;
  size_t kernel_ring_bytes_ = 0;
  uint32_t ring_mask_ = 0;
  uint16_t tail_ = 0;
  uint32_t size_ = 0;
  uint32_t offered_ = 0;  // in the kernel's ring now
  uint32_t target_ = 0;   // how many we try to have there
  uint32_t in_use_ = 0;
  uint32_t target_max_ = 0;
  bool huge_ = false;
  bool waking_ = false;
  uint64_t starved_ = 0;
  std::vector<Meta> meta_;
  std::vector<uint16_t> free_;                 // a stack
  base::IntrusiveList<BufferWaiter> waiters_;  // to receive
  base::IntrusiveList<BufferWaiter> takers_;   // to allocate
};

// A buffer held by one owner; given back when it dies.
class BufferRef {
 public:
  BufferRef() noexcept = default;
  BufferRef(BufferPool& pool, uint16_t id) noexcept : pool_(&pool), id_(id) {}
  BufferRef(BufferRef&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)), id_(other.id_) {}
  BufferRef& operator=(BufferRef&& other) noexcept {
    if (this != &other) {
      reset();
      pool_ = std::exchange(other.pool_, nullptr);
      id_ = other.id_;
    }
    return *this;
  }
  ~BufferRef() { reset(); }

  explicit operator bool() const noexcept { return pool_ != nullptr; }
  [[nodiscard]] char* data() const noexcept { return pool_->data(id_); }
  [[nodiscard]] uint32_t capacity() const noexcept { return pool_->size(); }
  void reset() noexcept {
    if (BufferPool* pool = std::exchange(pool_, nullptr)) pool->release(id_);
  }

 private:
  BufferPool* pool_ = nullptr;
  uint16_t id_ = 0;
};

}  // namespace weir::runtime
