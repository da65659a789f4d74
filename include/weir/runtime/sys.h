// The syscall seam. Every system call of the data path that does not go through the ring is one of
// these; they are declared once and implemented twice, chosen at link time:
// src/runtime/sys_linux.cc (the kernel) and test/sim/sys_sim.cc (the simulated kernel). Calls
// return a value >= 0 or -errno, never touch errno's meaning, and never block.
#pragma once

#include <cstddef>
#include <cstdint>

#include <sys/socket.h>
#include <sys/uio.h>

namespace weir::runtime::sys {

uint64_t monotonic_ns() noexcept;
int64_t realtime_us() noexcept;  // microseconds since 1970, wall clock
void random_bytes(void* out, size_t bytes) noexcept;

// SOCK_NONBLOCK | SOCK_CLOEXEC are always added to `type`.
int socket(int family, int type, int protocol) noexcept;
int bind(int fd, const sockaddr* address, socklen_t length) noexcept;
int listen(int fd, int backlog) noexcept;
int getsockname(int fd, sockaddr* address, socklen_t* length) noexcept;
int getpeername(int fd, sockaddr* address, socklen_t* length) noexcept;
int setsockopt(int fd, int level, int name, const void* value, socklen_t length) noexcept;
int getsockopt(int fd, int level, int name, void* value, socklen_t* length) noexcept;
int accept(int fd) noexcept;  // the next connection, if one waits
int shutdown(int fd, int how) noexcept;
int close(int fd) noexcept;

// MSG_DONTWAIT (and MSG_NOSIGNAL for sends) are always added to `flags`.
ssize_t recv(int fd, void* out, size_t bytes, int flags) noexcept;
ssize_t send(int fd, const void* data, size_t bytes, int flags) noexcept;
ssize_t sendmsg(int fd, const msghdr* message, int flags) noexcept;
ssize_t recvmsg(int fd, msghdr* message, int flags) noexcept;

// A counter that wakes a ring (read through the ring). wake() may be called from any thread.
int wake_fd() noexcept;
void wake(int fd) noexcept;

}  // namespace weir::runtime::sys
