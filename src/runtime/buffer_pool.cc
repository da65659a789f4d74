#include <weir/runtime/buffer_pool.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include <sys/mman.h>

namespace weir::runtime {

namespace {
constexpr size_t kHugePage = 2u << 20;
#ifdef WEIR_HUGE_PAGES
constexpr bool kHugePagesBuilt = true;
#else
constexpr bool kHugePagesBuilt = false;  // Meson option `hugepages`
#endif
// 64 buffers of 4 KiB offered at first: 256 KiB, which stays in a core's second-level cache.
constexpr uint32_t kTargetAtStart = 64;

void* map(size_t bytes, int flags) noexcept {
  void* memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}
}  // namespace

base::Result<std::unique_ptr<BufferPool>> BufferPool::open(Ring& ring,
                                                           const BufferPoolOptions& options) {
  WEIR_CHECK(options.count > 0 && options.count < kNone);
  WEIR_CHECK(std::has_single_bit(options.ring_entries));
  std::unique_ptr<BufferPool> pool(new BufferPool());
  pool->size_ = options.size;
  size_t bytes = static_cast<size_t>(options.count) * options.size;
  if (kHugePagesBuilt && options.huge_pages) {
    const size_t rounded = (bytes + kHugePage - 1) & ~(kHugePage - 1);
    pool->memory_ = static_cast<char*>(map(rounded, MAP_HUGETLB));
    pool->huge_ = pool->memory_ != nullptr;
    if (pool->huge_) bytes = rounded;
  }
  if (pool->memory_ == nullptr) pool->memory_ = static_cast<char*>(map(bytes, 0));
  if (pool->memory_ == nullptr) return base::fail(base::Errc::kNoMemory);
  pool->memory_bytes_ = bytes;
  const size_t page = 4096;
  pool->kernel_ring_bytes_ = (options.ring_entries * sizeof(io_uring_buf) + page - 1) & ~(page - 1);
  pool->kernel_ring_ = static_cast<io_uring_buf_ring*>(map(pool->kernel_ring_bytes_, 0));
  if (pool->kernel_ring_ == nullptr) return base::fail(base::Errc::kNoMemory);
  pool->ring_mask_ = options.ring_entries - 1;
  if (auto done = ring.register_buffer_ring(pool->kernel_ring_, options.ring_entries, kGroup);
      !done) {
    return std::unexpected(done.error());
  }
  pool->ring_ = &ring;
  pool->meta_.resize(options.count);
  pool->free_.reserve(options.count);
  for (uint32_t id = options.count; id-- > 0;) pool->free_.push_back(static_cast<uint16_t>(id));
  // The kernel never has all of them: what was received has to go somewhere (TLS opens records
  // from one buffer into another), and answers are written into some.
  pool->target_max_ = std::min(options.ring_entries, std::max<uint32_t>(1, options.count / 2));
  pool->target_ = std::min(kTargetAtStart, pool->target_max_);
  pool->replenish();
  return pool;
}

BufferPool::~BufferPool() {
  if (ring_ != nullptr) ring_->unregister_buffer_ring(kGroup);
  WEIR_CHECK(in_use_ == 0);
  if (kernel_ring_ != nullptr) munmap(kernel_ring_, kernel_ring_bytes_);
  if (memory_ != nullptr) munmap(memory_, memory_bytes_);
}

uint16_t BufferPool::take_completed(uint32_t cqe_flags) noexcept {
  WEIR_CHECK((cqe_flags & IORING_CQE_F_BUFFER) != 0);
  const auto id = static_cast<uint16_t>(cqe_flags >> IORING_CQE_BUFFER_SHIFT);
  WEIR_CHECK(id < meta_.size() && offered_ > 0);
  --offered_;
  ++in_use_;
  meta_[id].next = kNone;
  return id;
}

void BufferPool::offer(uint16_t id) noexcept {
  io_uring_buf* entry = &kernel_ring_->bufs[tail_ & ring_mask_];
  entry->addr = reinterpret_cast<uint64_t>(data(id));
  entry->len = size_;
  entry->bid = id;
  ++tail_;
  ++offered_;
}

void BufferPool::replenish() noexcept {
  if (offered_ < target_ && !free_.empty()) {
    while (offered_ < target_ && !free_.empty()) {
      offer(free_.back());
      free_.pop_back();
    }
    io_uring_smp_store_release(&kernel_ring_->tail, tail_);
  }
  // One that was woken may have met the end of its stream and taken nothing: the next one may.
  for (uint32_t spare = offered_; spare > 0 && !waiters_.empty();) {
    BufferWaiter* waiter = waiters_.pop_front();
    if (waiter->on_buffer(*waiter)) --spare;
  }
}

void BufferPool::widen() noexcept {
  target_ = std::min<uint32_t>(target_ * 2, target_max_);
  replenish();
}

std::optional<uint16_t> BufferPool::allocate() noexcept {
  if (free_.empty()) return std::nullopt;
  const uint16_t id = free_.back();
  free_.pop_back();
  ++in_use_;
  meta_[id] = Meta{};
  return id;
}

void BufferPool::release(uint16_t id) noexcept {
  WEIR_CHECK(id < meta_.size() && in_use_ > 0);
  --in_use_;
  free_.push_back(id);
  if (!takers_.empty()) wake_takers();
  if (!waiters_.empty() && !waking_) replenish();
}

// Whoever is woken may release buffers in turn: that only lets the loop go on.
void BufferPool::wake_takers() noexcept {
  if (waking_) return;
  waking_ = true;
  while (!takers_.empty() && !free_.empty()) {
    BufferWaiter* waiter = takers_.pop_front();
    waiter->on_buffer(*waiter);
  }
  waking_ = false;
}

void BufferPool::wait_for_buffer(BufferWaiter& waiter) noexcept {
  if (waiter.linked()) return;
  ++starved_;
  waiters_.push_back(waiter);
}

void BufferPool::wait_to_allocate(BufferWaiter& waiter) noexcept {
  if (waiter.linked()) return;
  ++starved_;
  takers_.push_back(waiter);
}

}  // namespace weir::runtime
