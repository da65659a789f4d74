#include <sim/ring_sim.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include <weir/base/check.h>

#include <sim/sim_kernel.h>

namespace weir::sim {

namespace {
constexpr size_t kPostedPerEnter = 64;
constexpr uint32_t kOverlookedMax = 64;
constexpr int kFirstRingFd = 2'000'000'000;
}  // namespace

RingSim::RingSim(World& world, io_uring& ring, const runtime::RingOptions& options)
    : world_(world), ring_(ring) {
  uint32_t entries = options.entries;
  if (world.strike(world.faults.full_queue, world.counts.full_queue)) entries = 4;
  sq_entries_ = std::bit_ceil(entries);
  cq_entries_ = std::bit_ceil(options.cq_entries);
  sq_mask_ = sq_entries_ - 1;
  cq_mask_ = cq_entries_ - 1;
  sq_array_.resize(sq_entries_);
  sqes_.resize(sq_entries_);
  // The kernel promises nothing about an entry's old contents: what is not set must show.
  std::memset(static_cast<void*>(sqes_.data()), 0xa5, sq_entries_ * sizeof(io_uring_sqe));
  cqes_.resize(cq_entries_);
  io_uring_sq& sq = ring.sq;
  sq.khead = &sq_head_;
  sq.ktail = &sq_tail_;
  sq.kring_mask = &sq_mask_;
  sq.kring_entries = &sq_entries_;
  sq.kflags = &sq_flags_;
  sq.kdropped = &sq_dropped_;
  sq.array = sq_array_.data();
  sq.sqes = sqes_.data();
  sq.ring_mask = sq_mask_;
  sq.ring_entries = sq_entries_;
  io_uring_cq& cq = ring.cq;
  cq.khead = &cq_head_;
  cq.ktail = &cq_tail_;
  cq.kring_mask = &cq_mask_;
  cq.kring_entries = &cq_entries_;
  cq.kflags = &cq_flags_;
  cq.koverflow = &cq_overflow_;
  cq.cqes = cqes_.data();
  cq.ring_mask = cq_mask_;
  cq.ring_entries = cq_entries_;
  ring.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  ring.ring_fd = ring.enter_ring_fd = kFirstRingFd + static_cast<int>(world.rings.size());
  wait_deadline_ = world.now;
  world.rings.push_back(this);
}

RingSim::~RingSim() {
  if (in_flight() != 0) {
    world_.die("a ring ends with operations in flight", static_cast<int64_t>(in_flight()));
  }
  for (const auto& [id, group] : groups_) {
    world_.complaints.push_back("buffer group " + std::to_string(id) + " outlives its ring");
  }
  std::erase(world_.rings, this);
}

bool RingSim::names_unsubmitted(int fd) const noexcept {
  for (unsigned at = sq_head_; at != ring_.sq.sqe_tail; ++at) {
    const io_uring_sqe& entry = sqes_[at & sq_mask_];
    if (entry.fd == fd && entry.opcode != IORING_OP_CLOSE) return true;
  }
  return false;
}

void RingSim::describe_leftovers(const std::function<void(const std::string&)>& add) const {
  for (const auto& op : ops_) {
    add("operation " + std::to_string(op->id) + " (opcode " + std::to_string(op->entry.opcode) +
        ", fd " + std::to_string(op->entry.fd) + ") is still in flight");
  }
  if (!posted_.empty()) add(std::to_string(posted_.size()) + " completions were not taken");
  for (const auto& [id, group] : groups_) {
    const auto tail = __atomic_load_n(&group.memory->tail, __ATOMIC_ACQUIRE);
    const auto left = static_cast<uint16_t>(tail - group.head);
    if (world_.all_buffers_back && left != group.known) {
      add("buffer group " + std::to_string(id) + ": " + std::to_string(group.known - left) +
          " buffers were not given back");
    }
  }
}

// --- provided buffers ---

int RingSim::register_group(io_uring_buf_ring* memory, uint32_t entries, uint16_t id) {
  if (reinterpret_cast<uintptr_t>(memory) % 4096 != 0) return -EINVAL;
  if (!std::has_single_bit(entries) || entries >= 65536) return -EINVAL;
  if (groups_.contains(id)) return -EEXIST;
  Group& group = groups_[id];
  group.memory = memory;
  group.entries = entries;
  world_.trace("register buffers", id, entries);
  return 0;
}

int RingSim::unregister_group(uint16_t id) {
  const auto found = groups_.find(id);
  if (found == groups_.end()) return -ENOENT;
  Group& group = found->second;
  absorb(group, id);
  if (world_.all_buffers_back && group.left() != group.known) {
    world_.complaints.push_back("buffer group " + std::to_string(id) + " unregistered with " +
                                std::to_string(group.known - group.left()) +
                                " buffers not given back");
  }
  groups_.erase(found);
  return 0;
}

// Sees what the program has given (back) since the last time.
void RingSim::absorb(Group& group, uint16_t id) {
  const uint16_t tail = __atomic_load_n(&group.memory->tail, __ATOMIC_ACQUIRE);
  if (static_cast<uint16_t>(tail - group.head) > group.entries) {
    world_.die("a buffer ring holds more than it can (group, entries)", id, group.entries);
  }
  for (; group.seen_tail != tail; ++group.seen_tail) {
    const uint16_t buffer = group.memory->bufs[group.seen_tail & (group.entries - 1)].bid;
    if (buffer >= group.available.size()) group.available.resize(buffer + 1u, 2);
    uint8_t& state = group.available[buffer];
    if (state == 1)
      world_.die("a buffer was given to the kernel twice (group, buffer)", id, buffer);
    if (state == 2) ++group.known;
    state = 1;
  }
}

// --- submission and completion ---

void RingSim::consume() {
  const unsigned tail = ring_.sq.sqe_tail;
  while (sq_head_ != tail) {
    io_uring_sqe& slot = sqes_[sq_head_ & sq_mask_];
    const io_uring_sqe entry = slot;
    std::memset(static_cast<void*>(&slot), 0xa5, sizeof slot);
    __atomic_store_n(&sq_head_, sq_head_ + 1, __ATOMIC_RELEASE);
    issue(entry);
  }
  sq_tail_ = ring_.sq.sqe_head = tail;
}

bool RingSim::due(Operation& op) {
  if (op.answered) return world_.now >= op.not_before;
  if (op.give_up_at != 0 && world_.now >= op.give_up_at) {
    op.answered = true;
    op.answer = -ECANCELED;
    op.not_before = 0;
    return true;
  }
  if (!ready(op)) return false;
  if (!op.diced) {
    op.diced = true;
    if (world_.strike(world_.faults.delay, world_.counts.delay)) {
      op.not_before = world_.now + 1 + world_.rng.below(2 * kMillisecond);
    }
  }
  return world_.now >= op.not_before;
}

void RingSim::complete_ready() {
  std::vector<Operation*> chosen;
  while (posted_.size() < kPostedPerEnter) {
    chosen.clear();
    for (const auto& op : ops_) {
      if (!op->finished && due(*op)) chosen.push_back(op.get());
    }
    if (chosen.empty()) break;
    if (chosen.size() > 1 && world_.strike(world_.faults.reorder, world_.counts.reorder)) {
      for (size_t i = chosen.size() - 1; i > 0; --i) {
        std::swap(chosen[i], chosen[world_.rng.below(i + 1)]);
      }
    }
    // One may undo what another waits for (two receives, one piece of data).
    for (Operation* op : chosen) {
      if (!op->finished && due(*op)) execute(*op);
    }
  }
  sweep();
}

void RingSim::sweep() {
  std::erase_if(ops_, [](const std::unique_ptr<Operation>& op) { return op->finished; });
}

// Makes completions visible, as far as there is room. True if the program has some to reap.
bool RingSim::flush() {
  const unsigned head = __atomic_load_n(&cq_head_, __ATOMIC_ACQUIRE);
  size_t room = cq_entries_ - (cq_tail_ - head);
  if (posted_.size() > 1 && room > 1 &&
      world_.strike(world_.faults.small_batch, world_.counts.small_batch)) {
    room = 1;
  }
  for (; room > 0 && !posted_.empty(); --room) {
    const Posted& posted = posted_.front();
    io_uring_cqe& slot = cqes_[cq_tail_ & cq_mask_];
    slot.user_data = posted.user_data;
    slot.res = posted.result;
    slot.flags = posted.flags;
    if ((posted.flags & IORING_CQE_F_MORE) == 0 && posted.file != nullptr) --posted.file->ops;
    world_.trace("completion", static_cast<int64_t>(posted.op), posted.result, posted.flags);
    ++world_.completions;
    posted_.pop_front();
    __atomic_store_n(&cq_tail_, cq_tail_ + 1, __ATOMIC_RELEASE);
  }
  return cq_tail_ != head;
}

// --- waiting ---

uint64_t RingSim::next_own() const {
  uint64_t next = UINT64_MAX;
  for (const auto& op : ops_) {
    if (op->finished) continue;
    if (op->not_before > world_.now) next = std::min(next, op->not_before);
    if (op->give_up_at != 0 && !op->answered) next = std::min(next, op->give_up_at);
    if (op->fires_at != 0) next = std::min(next, op->fires_at);
  }
  return next;
}

bool RingSim::has_work() const {
  if (!posted_.empty()) return true;
  for (const auto& op : ops_) {
    if ((op->answered || ready(*op)) && op->not_before <= world_.now) return true;
  }
  return false;
}

// Several cores take turns in one thread: none may let time pass that another has work for.
bool RingSim::others_have_work() const {
  for (RingSim* other : world_.rings) {
    if (other == this || other->overlooked_ >= kOverlookedMax || !other->has_work()) continue;
    ++other->overlooked_;
    return true;
  }
  return false;
}

uint64_t RingSim::deadline_of_others() const {
  uint64_t earliest = UINT64_MAX;
  for (RingSim* other : world_.rings) {
    if (other == this || other->overlooked_ >= kOverlookedMax) continue;
    earliest = std::min({earliest, other->wait_deadline_, other->next_own()});
    if (other->wait_deadline_ <= world_.now) ++other->overlooked_;
  }
  return earliest;
}

// Lets time pass until something happens. False when the wait is over.
bool RingSim::wait_once(uint64_t deadline) {
  if (others_have_work()) return false;
  const uint64_t others = deadline_of_others();
  const uint64_t until = std::min({deadline, next_own(), others, world_.run_limit});
  if (deadline == UINT64_MAX && others == UINT64_MAX && next_own() == UINT64_MAX &&
      world_.next_event() == UINT64_MAX) {
    if (!world_.run_done) world_.die("a ring waits for ever and nothing will ever happen");
    world_.stuck = true;
    return false;
  }
  world_.advance(until);
  complete_ready();
  if (flush() || world_.interrupted()) return false;
  return world_.now < deadline && world_.now < others;
}

void RingSim::enter(uint64_t timeout_ns) {
  overlooked_ = 0;
  for (auto& [id, group] : groups_) absorb(group, id);
  consume();
  world_.now += 100 + world_.rng.below(2 * kMicrosecond);  // what the program's turn took
  world_.run_due();
  complete_ready();
  wait_deadline_ = world_.now;
  if (flush() || timeout_ns == 0) return;
  const uint64_t now = world_.now;
  uint64_t deadline = timeout_ns >= UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
  deadline = std::min(deadline, std::exchange(yielded_until_, UINT64_MAX));
  wait_deadline_ = deadline;
  if (world_.strike(world_.faults.spurious_wake, world_.counts.spurious_wake)) {
    world_.advance(std::min(deadline, now + world_.rng.below(50 * kMicrosecond)));
    yielded_until_ = deadline;
    return;
  }
  while (wait_once(deadline)) {
  }
  if (cq_tail_ != cq_head_ || world_.now >= deadline) {
    wait_deadline_ = world_.now;  // this core runs on: others must not let time pass it by
  } else {
    yielded_until_ = deadline;  // it only let others go first: this wait goes on with the next
  }
  if (world_.rng.chance(1) && world_.strike(world_.faults.clock_jump, world_.counts.clock_jump)) {
    const uint64_t until = world_.now + world_.rng.below(3 * kSecond);
    world_.wall_offset_us += static_cast<int64_t>(world_.rng.below(7'200'000'000)) - 3'600'000'000;
    world_.trace("fault: clock jump", static_cast<int64_t>(until - world_.now));
    while (world_.now < until) world_.advance(until);
  }
}

}  // namespace weir::sim

// --- the seam ---

namespace weir::runtime {

base::Result<std::unique_ptr<Ring>> Ring::open(const RingOptions& options) {
  std::unique_ptr<Ring> ring(new Ring());
  ring->simulation_ = new sim::RingSim(sim::World::current(), ring->ring_, options);
  return ring;
}

Ring::~Ring() {
  if (simulation_ == nullptr) return;
  WEIR_CHECK(in_flight_ == 0);
  delete static_cast<sim::RingSim*>(simulation_);
}

void Ring::submit_and_wait(uint64_t timeout_ns) noexcept {
  ++enters_;
  static_cast<sim::RingSim*>(simulation_)->enter(timeout_ns);
}

base::Result<void> Ring::register_buffer_ring(io_uring_buf_ring* memory, uint32_t entries,
                                              uint16_t group) {
  const int result =
      static_cast<sim::RingSim*>(simulation_)->register_group(memory, entries, group);
  if (result < 0) return base::fail(base::from_errno(-result));
  return {};
}

void Ring::unregister_buffer_ring(uint16_t group) noexcept {
  static_cast<sim::RingSim*>(simulation_)->unregister_group(group);
}

}  // namespace weir::runtime
