#include <weir/control/fd_reader.h>

#include <cerrno>
#include <utility>

namespace weir::control {

FdReader::FdReader(runtime::Reactor& reactor, int fd, OnBytes on_bytes)
    : reactor_(reactor), fd_(fd), on_bytes_(std::move(on_bytes)), op_(*this) {
  arm();
}

FdReader::~FdReader() { reactor_.close_fd(fd_); }

void FdReader::arm() noexcept {
  io_uring_sqe* entry = reactor_.ring().sqe();
  io_uring_prep_read(entry, fd_, buffer_.data(), static_cast<unsigned>(buffer_.size()), 0);
  op_.start(entry);
}

void FdReader::stop() noexcept {
  stopping_ = true;
  op_.cancel(reactor_.ring());
}

void FdReader::on_complete(runtime::Op& op, int32_t result, uint32_t) noexcept {
  FdReader& self = static_cast<ReadOp&>(op).reader;
  if (result > 0) self.on_bytes_({self.buffer_.data(), static_cast<size_t>(result)});
  const bool transient = result > 0 || result == -EINTR || result == -EAGAIN;
  if (!self.stopping_ && transient) self.arm();
}

}  // namespace weir::control
