// Transport, bytes that pass without being copied to userspace: file to socket, socket to pipe,
// pipe to socket. Direct system calls, as the ring would give each to a kernel thread.
#include <algorithm>
#include <cerrno>

#include <poll.h>
#include <sys/socket.h>

#include <weir/net/transport.h>
#include <weir/runtime/sys.h>

namespace weir::net {

namespace {

// For kernel TLS. What the next receive would say: 0 at the end, -EAGAIN if not (await readable()),
// else -errno.
ssize_t peek(int fd) noexcept {
  char byte;
  const ssize_t result = runtime::sys::recv(fd, &byte, 1, MSG_PEEK);
  // EIO: a record that only recvmsg(2) reads.
  return result > 0 || result == -EINTR || result == -EIO ? -EAGAIN : result;
}

}  // namespace

ssize_t Transport::send_file(int file_fd, uint64_t offset, size_t bytes) noexcept {
  WEIR_CHECK(sending_ == nullptr && may_splice());
  if (sends_cancelled_) return -ECANCELED;
  if (tls::kKernelTlsBuilt && tls_ && tls_->answer_due()) return -EAGAIN;  // writable() sends it
  if (tls::kKernelTlsBuilt && tls_ && tls_->used_up()) return -EMSGSIZE;
  const ssize_t result = runtime::sys::sendfile(fd_, file_fd, offset, bytes);
  note_sent(result);
  return result == -EINTR ? -EAGAIN : result;
}

void Transport::cork(bool on) noexcept { runtime::sys::cork(fd_, on); }

ssize_t Transport::splice_from(int pipe_fd, size_t bytes, bool more) noexcept {
  WEIR_CHECK(sending_ == nullptr && may_splice());
  if (sends_cancelled_) return -ECANCELED;
  if (tls::kKernelTlsBuilt && tls_ && tls_->answer_due()) return -EAGAIN;  // writable() sends it
  if (tls::kKernelTlsBuilt && tls_ && tls_->used_up()) return -EMSGSIZE;
  const ssize_t result = runtime::sys::splice(pipe_fd, fd_, bytes, more);
  note_sent(result);
  return result == -EINTR ? -EAGAIN : result;
}

ssize_t Transport::splice_to(int pipe_fd, size_t bytes) noexcept {
  WEIR_CHECK(direct_ && !has_data() && may_splice());
  while (!ended_ && !failed()) {
    const ssize_t result = runtime::sys::splice(fd_, pipe_fd, bytes, false);
    if (result > 0) return result;
    if (result == -EAGAIN || result == -EINTR) return -EAGAIN;
    if (tls::kKernelTlsBuilt && tls_ && result == 0) {
      // A record without data, which is no end, is spliced as 0 bytes too.
      const ssize_t next = peek(fd_);
      if (next == -EAGAIN) return next;
      if (next == 0) {
        note_receive_end();
      } else {
        note_kernel_fault(static_cast<int32_t>(next));
      }
    } else if (result == 0) {
      note_receive_end();
    } else if (tls::kKernelTlsBuilt && tls_ && result == -EINVAL) {
      if (!read_control_record()) return -EAGAIN;  // not data: only recvmsg(2) reads it
    } else if (tls::kKernelTlsBuilt && tls_) {
      note_kernel_fault(static_cast<int32_t>(result));
    } else {
      fail_receive(base::from_errno(static_cast<int>(-result)));
    }
  }
  if (!failed()) return 0;
  return error_.os != 0 ? -error_.os : -EIO;
}

SendOp Transport::writable(uint32_t timeout_ms) noexcept {
  return {*this, SendOp::WaitForRoom{}, timeout_ms};
}

SendOp::SendOp(Transport& transport, WaitForRoom, uint32_t timeout_ms) noexcept
    : Op(&SendOp::on_complete), transport_(transport), timeout_ms_(timeout_ms), poll_(Poll::kDue) {}

SendOp::Next SendOp::next_poll() noexcept {
  if (poll_ == Poll::kUnderWay) return Next::kDone;
  const RecordLayer* layer = transport_.tls_.get();
  if (tls::kKernelTlsBuilt && layer != nullptr &&
      (layer->answer_due() || control_ != RecordLayer::Control::kNone)) {
    return next_kernel();
  }
  poll_ = Poll::kUnderWay;
  io_uring_sqe* entry = transport_.reactor_.ring().sqe();
  io_uring_prep_poll_add(entry, transport_.fd_, POLLOUT);
  submitted(entry);
  return Next::kSubmitted;
}

}  // namespace weir::net
