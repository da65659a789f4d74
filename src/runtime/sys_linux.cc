// The kernel's side of the syscall seam.
#include <weir/runtime/sys.h>

#include <cerrno>
#include <ctime>

#include <sys/eventfd.h>
#include <sys/random.h>
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

int wake_fd() noexcept { return or_errno(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)); }
void wake(int fd) noexcept {
  const uint64_t one = 1;
  // EAGAIN means that the counter is at its maximum: the reader will wake anyway.
  [[maybe_unused]] const ssize_t written = ::write(fd, &one, sizeof one);
}

}  // namespace weir::runtime::sys
