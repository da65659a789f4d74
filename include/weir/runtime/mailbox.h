// A bounded queue of fixed-size messages from one thread to one other (SPSC). Neither side ever
// waits: a full mailbox is an answer (try_post returns false) that the sender counts and retries.
// The receiver is woken by the sender through the receiver's reactor.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <utility>

namespace weir::runtime {

template <class Message, uint32_t kCapacity = 256>
class Mailbox {
  static_assert(std::has_single_bit(kCapacity));

 public:
  // Sender's thread.
  bool try_post(Message message) noexcept {
    const uint32_t tail = tail_.load(std::memory_order_relaxed);
    if (tail - head_seen_ == kCapacity) {
      head_seen_ = head_.load(std::memory_order_acquire);
      if (tail - head_seen_ == kCapacity) return false;
    }
    slots_[tail & (kCapacity - 1)] = std::move(message);
    tail_.store(tail + 1, std::memory_order_release);
    return true;
  }

  // Receiver's thread. Calls visit(Message&&) for what is there now, at most `most` of them.
  template <class Visitor>
  uint32_t drain(Visitor&& visit, uint32_t most = kCapacity) {
    uint32_t head = head_.load(std::memory_order_relaxed);
    uint32_t count = 0;
    const uint32_t tail = tail_.load(std::memory_order_acquire);
    while (head != tail && count < most) {
      Message message = std::move(slots_[head & (kCapacity - 1)]);
      ++head;
      ++count;
      head_.store(head, std::memory_order_release);
      visit(std::move(message));
    }
    return count;
  }

 private:
  alignas(64) std::atomic<uint32_t> tail_{0};  // written by the sender
  uint32_t head_seen_ = 0;                     // the sender's copy of head_
  alignas(64) std::atomic<uint32_t> head_{0};  // written by the receiver
  alignas(64) std::array<Message, kCapacity> slots_{};
};

}  // namespace weir::runtime
