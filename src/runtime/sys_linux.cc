// The kernel's side of the syscall seam.
#include <weir/runtime/sys.h>

#include <cerrno>
#include <cstddef>
#include <ctime>

#include <fcntl.h>
#include <linux/tcp.h>  // that of <netinet/tcp.h> ends before tcpi_bytes_acked
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <weir/base/check.h>

namespace weir::runtime::sys {

namespace {
constexpr uint64_t kNsPerSecond = 1'000'000'000;
template <class T>
T or_errno(T result) noexcept {
  return result < 0 ? static_cast<T>(-errno) : result;
}
}  // namespace

uint64_t monotonic_ns() noexcept {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<uint64_t>(now.tv_nsec);
}

int64_t realtime_us() noexcept {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000;
}

void random_bytes(void* out, size_t bytes) noexcept {
  // Up to 256 bytes are never interrupted or short once the pool is ready (getrandom(2)).
  WEIR_CHECK(bytes <= 256);
  WEIR_CHECK(getrandom(out, bytes, 0) == static_cast<ssize_t>(bytes));
}

int socket(int family, int type, int protocol) noexcept {
  return or_errno(::socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol));
}
int bind(int fd, const sockaddr* address, socklen_t length) noexcept {
  return or_errno(::bind(fd, address, length));
}
int listen(int fd, int backlog) noexcept { return or_errno(::listen(fd, backlog)); }
int getsockname(int fd, sockaddr* address, socklen_t* length) noexcept {
  return or_errno(::getsockname(fd, address, length));
}
int getpeername(int fd, sockaddr* address, socklen_t* length) noexcept {
  return or_errno(::getpeername(fd, address, length));
}
int setsockopt(int fd, int level, int name, const void* value, socklen_t length) noexcept {
  return or_errno(::setsockopt(fd, level, name, value, length));
}
int getsockopt(int fd, int level, int name, void* value, socklen_t* length) noexcept {
  return or_errno(::getsockopt(fd, level, name, value, length));
}
int accept(int fd) noexcept {
  return or_errno(::accept4(fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
}
int shutdown(int fd, int how) noexcept { return or_errno(::shutdown(fd, how)); }
int close(int fd) noexcept { return or_errno(::close(fd)); }

ssize_t recv(int fd, void* out, size_t bytes, int flags) noexcept {
  return or_errno(::recv(fd, out, bytes, flags | MSG_DONTWAIT));
}
ssize_t send(int fd, const void* data, size_t bytes, int flags) noexcept {
  return or_errno(::send(fd, data, bytes, flags | MSG_DONTWAIT | MSG_NOSIGNAL));
}
ssize_t sendmsg(int fd, const msghdr* message, int flags) noexcept {
  return or_errno(::sendmsg(fd, message, flags | MSG_DONTWAIT | MSG_NOSIGNAL));
}
ssize_t recvmsg(int fd, msghdr* message, int flags) noexcept {
  return or_errno(::recvmsg(fd, message, flags | MSG_DONTWAIT));
}

ssize_t sendfile(int socket_fd, int file_fd, uint64_t offset, size_t bytes) noexcept {
  auto at = static_cast<off_t>(offset);
  return or_errno(::sendfile(socket_fd, file_fd, &at, bytes));
}
int fstat(int fd, struct ::stat* out) noexcept { return or_errno(::fstat(fd, out)); }
ssize_t pread_cached(int file_fd, void* out, size_t bytes, uint64_t offset) noexcept {
  const iovec piece{out, bytes};
  return or_errno(::preadv2(file_fd, &piece, 1, static_cast<off_t>(offset), RWF_NOWAIT));
}
ssize_t pread(int file_fd, void* out, size_t bytes, uint64_t offset) noexcept {
  return or_errno(::pread(file_fd, out, bytes, static_cast<off_t>(offset)));
}
void set_blocking(int fd) noexcept {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags >= 0) (void)::fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
}
int64_t acknowledged(int fd) noexcept {
  tcp_info info{};
  socklen_t length = sizeof info;
  const int result = sys::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length);
  if (result < 0) return result;
  constexpr size_t kNeeded = offsetof(tcp_info, tcpi_bytes_acked) + sizeof info.tcpi_bytes_acked;
  return length < kNeeded ? -EOPNOTSUPP : static_cast<int64_t>(info.tcpi_bytes_acked);
}
void cork(int socket_fd, bool on) noexcept {
  const int value = on ? 1 : 0;
  (void)::setsockopt(socket_fd, IPPROTO_TCP, TCP_CORK, &value, sizeof value);
}
int pipe(int ends[2]) noexcept { return or_errno(::pipe2(ends, O_NONBLOCK | O_CLOEXEC)); }
int pipe_capacity(int fd, int bytes) noexcept {
  if (::fcntl(fd, F_SETPIPE_SZ, bytes) >= 0) return or_errno(::fcntl(fd, F_GETPIPE_SZ));
  return or_errno(::fcntl(fd, F_GETPIPE_SZ));
}
ssize_t splice(int from_fd, int to_fd, size_t bytes, bool more) noexcept {
  const unsigned flags = SPLICE_F_NONBLOCK | SPLICE_F_MOVE | (more ? SPLICE_F_MORE : 0u);
  return or_errno(::splice(from_fd, nullptr, to_fd, nullptr, bytes, flags));
}

int wake_fd() noexcept { return or_errno(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)); }
void wake(int fd) noexcept {
  const uint64_t one = 1;
  // EAGAIN means that the counter is at its maximum: the reader will wake anyway.
  [[maybe_unused]] const ssize_t written = ::write(fd, &one, sizeof one);
}

}  // namespace weir::runtime::sys
