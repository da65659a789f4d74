// A ring on one kernel TLS socket, as weir uses it: a multishot recvmsg with provided buffers and
// room for the record type, and one send at a time. For one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include <liburing.h>

#include <weir/net/tls/ktls_record.h>

namespace weir::test::ktls {

// One completion of the receive. `piece.bytes` are in `bytes`.
struct Received {
  int32_t result = 0;  // the completion's: -errno, or bytes with header and control data
  bool malformed = false;
  net::tls::ReceivedPiece piece;
  std::vector<uint8_t> bytes;
};

class Tap {
 public:
  static constexpr unsigned kBuffers = 16;

  explicit Tap(int fd, uint32_t buffer_size = 4096);
  ~Tap();
  Tap(const Tap&) = delete;
  Tap& operator=(const Tap&) = delete;

  void arm();  // if it is not
  [[nodiscard]] bool armed() const { return armed_; }
  // The next completion of the receive, in order; nothing within the time. ENOBUFS is not reported,
  // the receive is armed again.
  std::optional<Received> next(int timeout_ms = 20000);

  // Sends all of it; 0 or -errno.
  int send(std::span<const uint8_t> bytes, int flags = 0);
  int send_record(net::tls::RecordType type, std::span<const uint8_t> bytes);

 private:
  static constexpr uint64_t kReceive = 1;
  static constexpr uint64_t kSend = 2;
  bool reap(int timeout_ms);
  void on_receive(const io_uring_cqe& completion);
  int finish_send();

  int fd_;
  uint32_t buffer_size_;
  io_uring ring_{};
  io_uring_buf_ring* provided_ = nullptr;
  std::vector<uint8_t> memory_;
  net::tls::MultishotTemplate form_;
  bool armed_ = false;
  std::optional<int32_t> sent_;
  std::deque<Received> queue_;
};

}  // namespace weir::test::ktls
