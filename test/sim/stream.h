// One direction-pair of a simulated stream connection. Plain state; the rules that move it are in
// network.cc. Owned by the World; one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <weir/base/ip.h>

namespace weir::sim {

class Peer;
struct Connection;

// Bytes on their way to one end and arrived there, in order.
class ByteQueue {
 public:
  [[nodiscard]] size_t size() const noexcept { return data_.size() - head_; }
  void append(std::string_view bytes) { data_.append(bytes); }
  [[nodiscard]] std::string_view front(size_t bytes) const noexcept {
    return std::string_view(data_).substr(head_, bytes);
  }
  [[nodiscard]] uint64_t dropped() const noexcept { return dropped_; }
  void drop(size_t bytes) noexcept {
    head_ += bytes;
    dropped_ += bytes;
    if (head_ == data_.size()) {
      data_.clear();
      head_ = 0;
    } else if (head_ > 65536) {
      data_.erase(0, head_);
      head_ = 0;
    }
  }
  void truncate(size_t bytes) noexcept { data_.resize(head_ + bytes); }

 private:
  std::string data_;
  size_t head_ = 0;
  uint64_t dropped_ = 0;  // ever
};

// One end. `rx` is what the other end sent: the first `arrived` bytes can be read, the rest is on
// its way. Its size is bounded by `capacity` (both socket buffers in one).
struct Stream {
  Connection* connection = nullptr;
  Stream* other = nullptr;
  Peer* peer = nullptr;  // the script that holds this end; null: a descriptor, or nobody yet
  base::SocketAddress local;
  ByteQueue rx;
  size_t arrived = 0;
  size_t capacity = 0;
  uint64_t last_arrival = 0;  // of what is on its way here: nothing overtakes
  int error = 0;              // SO_ERROR
  bool established = false;   // this end knows that the connection stands
  bool fin_sent = false;      // by this end (SEND_SHUTDOWN)
  bool fin_arrived = false;   // the other end's
  bool shut_read = false;     // shutdown(SHUT_RD) here
  bool dead = false;          // reset
  bool cut = false;           // a reset took what had not arrived here, a FIN included
  bool closed = false;        // nobody holds this end any more
  bool vanished = false;      // neither sends nor receives, and says nothing about it

  [[nodiscard]] bool can_read() const noexcept {
    return arrived > 0 || fin_arrived || error != 0 || shut_read || dead;
  }
  [[nodiscard]] size_t room() const noexcept {
    return other->rx.size() < other->capacity ? other->capacity - other->rx.size() : 0;
  }
  [[nodiscard]] bool can_send() const noexcept {
    return error != 0 || fin_sent || dead || room() > 0;
  }
  // As the kernel wakes writers: when a third of the buffer is free.
  [[nodiscard]] bool writable() const noexcept {
    return error != 0 || fin_sent || dead || room() * 3 >= other->capacity;
  }
};

struct Connection {
  Stream client;
  Stream server;
  uint64_t id = 0;
  uint64_t latency_ns = 0;
  bool unix_domain = false;
};

}  // namespace weir::sim
