// The syscall seam. Every system call of the data path that does not go through the ring is one of
// these; they are declared once and implemented twice, chosen at link time:
// src/runtime/sys_linux.cc (the kernel) and test/sim/sys_sim.cc (the simulated kernel). Calls
// return a value >= 0 or -errno, never touch errno's meaning, and never block.
#pragma once

#include <cstddef>
#include <cstdint>

#include <sys/socket.h>
#include <sys/stat.h>
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
// Bytes that the peer has acknowledged since the connection began (TCP_INFO, tcp(7)). -errno where
// the kernel does not say, as for a Unix socket.
int64_t acknowledged(int fd) noexcept;
int close(int fd) noexcept;

// MSG_DONTWAIT (and MSG_NOSIGNAL for sends) are always added to `flags`.
ssize_t recv(int fd, void* out, size_t bytes, int flags) noexcept;
ssize_t send(int fd, const void* data, size_t bytes, int flags) noexcept;
ssize_t sendmsg(int fd, const msghdr* message, int flags) noexcept;
ssize_t recvmsg(int fd, msghdr* message, int flags) noexcept;

// Bytes of a file, from `offset`, to a socket; the file's own position is not used. Never blocks on
// the socket; it does on pages that are not in memory, so ask pread_cached() first.
ssize_t sendfile(int socket_fd, int file_fd, uint64_t offset, size_t bytes) noexcept;
int fstat(int fd, struct ::stat* out) noexcept;
// pread(2) of what is in memory (preadv2(2), RWF_NOWAIT). -EAGAIN: it is not; -EOPNOTSUPP: the file
// system cannot say.
ssize_t pread_cached(int file_fd, void* out, size_t bytes, uint64_t offset) noexcept;
// Takes O_NONBLOCK off.
void set_blocking(int fd) noexcept;
// TCP_CORK, tcp(7).
void cork(int socket_fd, bool on) noexcept;
// May wait for a disk.
ssize_t pread(int file_fd, void* out, size_t bytes, uint64_t offset) noexcept;
// Ends: [0] is read from. Non-blocking.
int pipe(int ends[2]) noexcept;
// Sets and returns the bytes that a pipe can hold; less than asked for is possible.
int pipe_capacity(int fd, int bytes) noexcept;
// Between a pipe and a socket, non-blocking on both. `more`: the socket may hold back a last short
// segment.
ssize_t splice(int from_fd, int to_fd, size_t bytes, bool more) noexcept;

// A counter that wakes a ring (read through the ring). wake() may be called from any thread.
int wake_fd() noexcept;
void wake(int fd) noexcept;

}  // namespace weir::runtime::sys
