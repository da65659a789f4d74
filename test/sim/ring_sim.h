// The kernel's side of one simulated ring: takes submission entries from the shared queue, holds
// the operations in flight, and posts completions. Made by Ring::open, ended by ~Ring. It acts only
// inside enter(), as the kernel does with DEFER_TASKRUN. It must never guess: an operation, flag or
// combination that it does not know ends the run with a message.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <liburing.h>

#include <weir/runtime/ring.h>

#include <sim/world.h>

namespace weir::sim {

class RingSim {
 public:
  RingSim(World& world, io_uring& ring, const runtime::RingOptions& options);
  RingSim(const RingSim&) = delete;
  RingSim& operator=(const RingSim&) = delete;
  ~RingSim();

  void enter(uint64_t timeout_ns);
  int register_group(io_uring_buf_ring* memory, uint32_t entries, uint16_t group);
  int unregister_group(uint16_t group);
  [[nodiscard]] size_t in_flight() const noexcept { return ops_.size() + posted_.size(); }
  [[nodiscard]] bool names_unsubmitted(int fd) const noexcept;
  void describe_leftovers(const std::function<void(const std::string&)>& add) const;

 private:
  struct Operation {
    uint64_t id = 0;
    io_uring_sqe entry{};
    File* file = nullptr;
    bool answered = false;  // `answer` is the final result, whatever the file says
    int32_t answer = 0;
    bool diced = false;        // whether the present completion is delayed has been decided
    uint64_t not_before = 0;   // delayed until
    uint64_t give_up_at = 0;   // a cancel that takes its time; 0: none
    uint64_t fires_at = 0;     // TIMEOUT
    size_t transferred = 0;    // of a MSG_WAITALL transfer
    std::vector<iovec> parts;  // SENDMSG, copied at submission as the kernel does
    bool armed = false;        // waits for the file's readiness
    bool finished = false;
  };
  struct Posted {
    uint64_t user_data;
    int32_t result;
    uint32_t flags;
    uint64_t op;
    File* file;  // released when the final completion is delivered
  };
  struct Group {
    io_uring_buf_ring* memory = nullptr;
    uint32_t entries = 0;
    uint16_t head = 0;  // the kernel's own, not in the shared memory
    uint16_t seen_tail = 0;
    std::vector<uint8_t> available;  // by buffer id
    uint32_t known = 0;              // distinct buffers ever given

    [[nodiscard]] uint32_t left() const noexcept { return static_cast<uint16_t>(seen_tail - head); }
  };

  // ring_sim.cc: queues and waiting
  void consume();
  void complete_ready();
  bool flush();
  bool wait_once(uint64_t deadline);
  [[nodiscard]] uint64_t next_own() const;
  [[nodiscard]] uint64_t deadline_of_others() const;
  [[nodiscard]] bool others_have_work() const;
  [[nodiscard]] bool due(Operation& op);
  [[nodiscard]] bool has_work() const;
  void sweep();

  // ring_ops.cc: what each operation means
  void issue(const io_uring_sqe& entry);
  void prepare(Operation& op);
  void prepare_transfer(Operation& op);
  void prepare_accept(Operation& op);
  void prepare_connect(Operation& op);
  void prepare_timeout(Operation& op);
  [[nodiscard]] bool ready(const Operation& op) const;
  void execute(Operation& op);
  void execute_accept(Operation& op);
  void execute_recv(Operation& op);
  void execute_send(Operation& op);
  void execute_read(Operation& op);
  void finish(Operation& op, int32_t result, uint32_t flags = 0);
  int32_t cancel(const io_uring_sqe& entry);
  int32_t cancel_one(Operation& target);
  void absorb(Group& group, uint16_t id);
  [[nodiscard]] bool out_of_buffers(Group* group);
  Group* group_of(const Operation& op);
  [[noreturn]] void unknown(const Operation& op, const char* what) const;

  World& world_;
  io_uring& ring_;
  unsigned sq_head_ = 0, sq_tail_ = 0, sq_flags_ = 0, sq_dropped_ = 0, sq_mask_ = 0,
           sq_entries_ = 0;
  unsigned cq_head_ = 0, cq_tail_ = 0, cq_flags_ = 0, cq_overflow_ = 0, cq_mask_ = 0,
           cq_entries_ = 0;
  std::vector<unsigned> sq_array_;
  std::vector<io_uring_sqe> sqes_;
  std::vector<io_uring_cqe> cqes_;
  std::vector<std::unique_ptr<Operation>> ops_;  // oldest first
  std::deque<Posted> posted_;
  std::map<uint16_t, Group> groups_;
  uint64_t wait_deadline_ = 0;           // until when this core last said it would wait
  uint64_t yielded_until_ = UINT64_MAX;  // until when it would have waited, had it been alone
  uint32_t overlooked_ = 0;              // times that other rings waited on it in vain
};

}  // namespace weir::sim
