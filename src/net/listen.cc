#include <weir/net/listen.h>

#include <array>
#include <cerrno>

#include <linux/filter.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/runtime/sys.h>

namespace weir::net {

namespace sys = runtime::sys;
using base::fail;
using base::from_errno;
using base::Result;
using base::SocketAddress;

namespace {

class OwnedFd {
 public:
  explicit OwnedFd(int fd) noexcept : fd_(fd) {}
  OwnedFd(const OwnedFd&) = delete;
  OwnedFd& operator=(const OwnedFd&) = delete;
  ~OwnedFd() {
    if (fd_ >= 0) sys::close(fd_);
  }
  [[nodiscard]] int get() const noexcept { return fd_; }
  int release() noexcept { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

int set_flag(int fd, int level, int name) noexcept {
  const int one = 1;
  return sys::setsockopt(fd, level, name, &one, sizeof one);
}

// A socket file left by a process that is gone would make bind fail for ever; one that answers
// belongs to somebody and stays.
void remove_dead_unix_socket(const SocketAddress& address) noexcept {
  if (address.un.sun_path[0] == 0) return;
  struct stat info;
  if (::lstat(address.un.sun_path, &info) != 0 || !S_ISSOCK(info.st_mode)) return;
  const OwnedFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (probe.get() < 0) return;
  if (::connect(probe.get(), &address.base, address.length) != 0 && errno == ECONNREFUSED) {
    ::unlink(address.un.sun_path);
  }
}

}  // namespace

Result<int> open_listener(const SocketAddress& address, const ListenOptions& options) {
  const int family = address.base.sa_family;
  OwnedFd fd(sys::socket(family, SOCK_STREAM, 0));
  if (fd.get() < 0) return fail(from_errno(-fd.get()));
  if (family == AF_UNIX) {
    remove_dead_unix_socket(address);
  } else {
    if (int r = set_flag(fd.get(), SOL_SOCKET, SO_REUSEADDR); r < 0) return fail(from_errno(-r));
    if (options.reuse_port) {
      if (int r = set_flag(fd.get(), SOL_SOCKET, SO_REUSEPORT); r < 0) return fail(from_errno(-r));
    }
    // A listener on one IPv6 address is for IPv6; the wildcard serves both.
    const int v6_only =
        family == AF_INET6 && !IN6_IS_ADDR_UNSPECIFIED(&address.v6.sin6_addr) ? 1 : 0;
    if (family == AF_INET6) {
      sys::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof v6_only);
    }
    set_flag(fd.get(), IPPROTO_TCP, TCP_NODELAY);
  }
  if (int r = sys::bind(fd.get(), &address.base, address.length); r < 0) {
    base::Error error = from_errno(-r);
    // The same errno means "no way there" when it comes from connect(2).
    if (r == -EADDRNOTAVAIL) error.code = base::Errc::kAddressInvalid;
    return fail(error);
  }
  if (family == AF_UNIX && address.un.sun_path[0] != 0) {
    ::chmod(address.un.sun_path, static_cast<mode_t>(options.unix_mode));
  }
  if (int r = sys::listen(fd.get(), options.backlog); r < 0) return fail(from_errno(-r));
  return fd.release();
}

Result<SocketAddress> bound_address(int fd) {
  SocketAddress address;
  address.length = sizeof address.un;
  if (int r = sys::getsockname(fd, &address.base, &address.length); r < 0)
    return fail(from_errno(-r));
  return address;
}

void refuse_new_connections(int fd) noexcept {
  const auto address = bound_address(fd);
  if (!address) return;
  if (address->is_unix()) {
    sys::shutdown(fd, SHUT_RD);
    return;
  }
  // A socket filter sees the TCP header first: drop what has SYN without ACK. The client tries
  // again after a second and meets a closed port or a successor of ours.
  const std::array<sock_filter, 5> program = {{
      {BPF_LD | BPF_B | BPF_ABS, 0, 0, 13},
      {BPF_ALU | BPF_AND | BPF_K, 0, 0, TH_SYN | TH_ACK},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, TH_SYN},
      {BPF_RET | BPF_K, 0, 0, 0},
      {BPF_RET | BPF_K, 0, 0, UINT32_MAX},
  }};
  const sock_fprog filter = {static_cast<unsigned short>(program.size()),
                             const_cast<sock_filter*>(program.data())};
  sys::setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter);
}

Result<void> balance_by_client_ip(int fd, uint32_t sockets) {
  if (sockets == 0) return fail(base::Errc::kInvalid);
  const auto at_network = static_cast<uint32_t>(SKF_NET_OFF);
  // The source address of IPv4 is at offset 12, of IPv6 at 8 (its four words are folded). The sum
  // is multiplied by a large odd number so that neighbouring addresses spread over the cores.
  const std::array<sock_filter, 19> program = {{
      {BPF_LD | BPF_B | BPF_ABS, 0, 0, at_network},
      {BPF_ALU | BPF_RSH | BPF_K, 0, 0, 4},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 2, 4},
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, at_network + 12},
      {BPF_JMP | BPF_JA, 0, 0, 10},
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, at_network + 8},
      {BPF_MISC | BPF_TAX, 0, 0, 0},
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, at_network + 12},
      {BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0},
      {BPF_MISC | BPF_TAX, 0, 0, 0},
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, at_network + 16},
      {BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0},
      {BPF_MISC | BPF_TAX, 0, 0, 0},
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, at_network + 20},
      {BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0},
      {BPF_ALU | BPF_MUL | BPF_K, 0, 0, 0x9e3779b1},
      {BPF_ALU | BPF_RSH | BPF_K, 0, 0, 16},
      {BPF_ALU | BPF_MOD | BPF_K, 0, 0, sockets},
      {BPF_RET | BPF_A, 0, 0, 0},
  }};
  const sock_fprog filter = {static_cast<unsigned short>(program.size()),
                             const_cast<sock_filter*>(program.data())};
  const int r = sys::setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &filter, sizeof filter);
  if (r < 0) return fail(from_errno(-r));
  return {};
}

namespace {

struct ConnectDeadline : runtime::Timer {
  ConnectDeadline(runtime::Reactor& owner, runtime::Op& operation) noexcept
      : Timer([](runtime::Timer& timer) noexcept {
          auto& self = static_cast<ConnectDeadline&>(timer);
          self.passed = true;
          self.op.cancel(self.reactor.ring());
        }),
        reactor(owner),
        op(operation) {}
  runtime::Reactor& reactor;
  runtime::Op& op;
  bool passed = false;
};

}  // namespace

void ConnectHandle::cancel() noexcept {
  if (op_ == nullptr) return;
  cancelled_ = true;
  op_->cancel(reactor_->ring());
}

runtime::Task<Result<int>> connect(runtime::Reactor& reactor, SocketAddress address,
                                   uint32_t timeout_ms, ConnectHandle* handle) {
  OwnedFd fd(sys::socket(address.base.sa_family, SOCK_STREAM, 0));
  if (fd.get() < 0) co_return fail(from_errno(-fd.get()));
  if (!address.is_unix()) set_flag(fd.get(), IPPROTO_TCP, TCP_NODELAY);
  runtime::AwaitOp op;
  ConnectDeadline deadline(reactor, op);
  io_uring_sqe* entry = reactor.ring().sqe();
  io_uring_prep_connect(entry, fd.get(), &address.base, address.length);
  op.start(entry);
  reactor.timers().arm(deadline, reactor.now_ms() + timeout_ms);
  if (handle != nullptr) {
    handle->reactor_ = &reactor;
    handle->op_ = &op;
    handle->cancelled_ = false;
  }
  const int32_t result = co_await op;
  reactor.timers().disarm(deadline);
  if (handle != nullptr) handle->op_ = nullptr;
  // The completion decides: a connect that won the race against its cancel is a connect.
  if (result == 0) co_return fd.release();
  if (handle != nullptr && handle->cancelled_) co_return fail(base::Errc::kCancelled);
  if (deadline.passed) co_return fail(base::Errc::kTimedOut);
  co_return fail(from_errno(-result));
}

}  // namespace weir::net
