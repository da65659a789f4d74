#include <weir/net/acceptor.h>

#include <cerrno>

#include <sys/socket.h>

#include <weir/runtime/sys.h>

namespace weir::net {

namespace {
// After EMFILE and the like: the backlog keeps the clients, connections end meanwhile.
constexpr uint64_t kPauseMs = 50;

bool passes_by_itself(int32_t result) noexcept {
  // Errors of the connection that was about to be accepted, not of the listener (accept(2)).
  switch (-result) {
    case ECONNABORTED:
    case EINTR:
    case EAGAIN:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case EPERM: return true;
    default: return false;
  }
}
}  // namespace

Acceptor::Acceptor(runtime::Reactor& reactor, int fd, OnAccept on_accept, void* context) noexcept
    : reactor_(reactor),
      fd_(fd),
      on_accept_(on_accept),
      context_(context),
      op_(*this),
      pause_(*this) {}

Acceptor::~Acceptor() {
  WEIR_CHECK(!op_.in_flight());
  reactor_.timers().disarm(pause_);
  reactor_.close_fd(fd_);
}

void Acceptor::start() noexcept { arm(); }

void Acceptor::arm() noexcept {
  io_uring_sqe* entry = reactor_.ring().sqe();
  if (reactor_.receive_strategy() == runtime::ReceiveStrategy::kMultishot) {
    io_uring_prep_multishot_accept(entry, fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  } else {
    io_uring_prep_accept(entry, fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  }
  op_.start(entry);
}

void Acceptor::stop() noexcept {
  stopping_ = true;
  reactor_.timers().disarm(pause_);
  op_.cancel(reactor_.ring());
}

void Acceptor::take_backlog() noexcept {
  WEIR_CHECK(stopped());
  while (true) {
    const int fd = runtime::sys::accept(fd_);
    if (fd < 0) return;
    ++accepted_;
    on_accept_(context_, fd);
  }
}

void Acceptor::on_complete(runtime::Op& op, int32_t result, uint32_t) noexcept {
  Acceptor& self = static_cast<AcceptOp&>(op).acceptor;
  if (result >= 0) {
    ++self.accepted_;
    self.on_accept_(self.context_, result);
  } else if (result != -ECANCELED && !passes_by_itself(result)) {
    ++self.failures_;
    self.last_failure_ = base::from_errno(-result);
    self.on_accept_(self.context_, result);
    if (!self.stopping_ && !self.op_.in_flight()) {
      self.reactor_.timers().arm(self.pause_, self.reactor_.now_ms() + kPauseMs);
      return;
    }
  }
  if (!self.stopping_ && !self.op_.in_flight()) self.arm();
}

void Acceptor::on_pause_over(runtime::Timer& timer) noexcept {
  Acceptor& self = static_cast<Pause&>(timer).acceptor;
  if (!self.stopping_ && !self.op_.in_flight()) self.arm();
}

}  // namespace weir::net
