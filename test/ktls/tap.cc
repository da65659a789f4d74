#include "tap.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include <sys/mman.h>

namespace weir::test::ktls {

using net::tls::RecordType;
using net::tls::TypedRecord;

namespace {
constexpr size_t kProvidedBytes = 4096;

void require(int result, const char* what) {
  if (result >= 0) return;
  std::fprintf(stderr, "%s: %d\n", what, result);
  std::exit(1);
}
}  // namespace

Tap::Tap(int fd, uint32_t buffer_size)
    : fd_(fd), buffer_size_(buffer_size), memory_(size_t{kBuffers} * buffer_size) {
  require(io_uring_queue_init(64, &ring_, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN),
          "io_uring_queue_init");
  void* room =
      mmap(nullptr, kProvidedBytes, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
  if (room == MAP_FAILED) require(-ENOMEM, "mmap");
  provided_ = static_cast<io_uring_buf_ring*>(room);
  io_uring_buf_reg registration{};
  registration.ring_addr = reinterpret_cast<uintptr_t>(provided_);
  registration.ring_entries = kBuffers;
  registration.bgid = 1;
  require(io_uring_register_buf_ring(&ring_, &registration, 0), "io_uring_register_buf_ring");
  for (unsigned i = 0; i < kBuffers; ++i) {
    io_uring_buf_ring_add(provided_, &memory_[size_t{i} * buffer_size_], buffer_size_,
                          static_cast<unsigned short>(i), io_uring_buf_ring_mask(kBuffers),
                          static_cast<int>(i));
  }
  io_uring_buf_ring_advance(provided_, kBuffers);
}

Tap::~Tap() {
  io_uring_queue_exit(&ring_);
  munmap(provided_, kProvidedBytes);
}

void Tap::arm() {
  if (armed_) return;
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  io_uring_prep_recvmsg_multishot(entry, fd_, &form_.message, 0);
  entry->flags |= IOSQE_BUFFER_SELECT;
  entry->buf_group = 1;
  entry->user_data = kReceive;
  armed_ = true;
  require(io_uring_submit(&ring_), "io_uring_submit");
}

std::optional<Received> Tap::next(int timeout_ms) {
  while (queue_.empty()) {
    if (!reap(timeout_ms)) return std::nullopt;
  }
  Received first = std::move(queue_.front());
  queue_.pop_front();
  first.piece.bytes = first.bytes;
  return first;
}

bool Tap::reap(int timeout_ms) {
  __kernel_timespec limit{timeout_ms / 1000, (timeout_ms % 1000) * 1000000LL};
  io_uring_cqe* completion = nullptr;
  if (io_uring_submit_and_wait_timeout(&ring_, &completion, 1, &limit, nullptr) < 0 ||
      completion == nullptr) {
    return false;
  }
  if (completion->user_data == kReceive) {
    on_receive(*completion);
  } else {
    sent_ = completion->res;
  }
  io_uring_cqe_seen(&ring_, completion);
  return true;
}

void Tap::on_receive(const io_uring_cqe& completion) {
  if ((completion.flags & IORING_CQE_F_MORE) == 0) armed_ = false;
  Received received;
  received.result = completion.res;
  if ((completion.flags & IORING_CQE_F_BUFFER) != 0) {
    const unsigned id = completion.flags >> IORING_CQE_BUFFER_SHIFT;
    uint8_t* buffer = &memory_[size_t{id} * buffer_size_];
    const auto parsed = net::tls::parse_multishot({buffer, buffer_size_}, completion.res);
    if (parsed) {
      received.piece = *parsed;
      received.bytes.assign(parsed->bytes.begin(), parsed->bytes.end());
    } else {
      received.malformed = true;
    }
    io_uring_buf_ring_add(provided_, buffer, buffer_size_, static_cast<unsigned short>(id),
                          io_uring_buf_ring_mask(kBuffers), 0);
    io_uring_buf_ring_advance(provided_, 1);
  }
  if (completion.res == -ENOBUFS) {
    arm();
    return;
  }
  queue_.push_back(std::move(received));
}

int Tap::finish_send() {
  sent_.reset();
  require(io_uring_submit(&ring_), "io_uring_submit");
  while (!sent_) {
    if (!reap(20000)) return -ETIMEDOUT;
  }
  return *std::exchange(sent_, std::nullopt);
}

int Tap::send(std::span<const uint8_t> bytes, int flags) {
  while (!bytes.empty()) {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    io_uring_prep_send(entry, fd_, bytes.data(), bytes.size(), flags | MSG_NOSIGNAL);
    entry->user_data = kSend;
    const int result = finish_send();
    if (result < 0) return result;
    bytes = bytes.subspan(static_cast<size_t>(result));
  }
  return 0;
}

int Tap::send_record(RecordType type, std::span<const uint8_t> bytes) {
  const TypedRecord record(type, bytes);
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  io_uring_prep_sendmsg(entry, fd_, &record.message(), MSG_NOSIGNAL);
  entry->user_data = kSend;
  const int result = finish_send();
  if (result < 0) return result;
  return static_cast<size_t>(result) == bytes.size() ? 0 : -EIO;
}

}  // namespace weir::test::ktls
