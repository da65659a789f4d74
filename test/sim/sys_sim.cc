// The simulated kernel's side of the syscall seam.
#include <weir/runtime/sys.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <linux/filter.h>
#include <netinet/tcp.h>

#include <weir/base/check.h>

#include <sim/world.h>

namespace weir::runtime::sys {

namespace {

using sim::File;
using sim::FileKind;
using sim::World;

constexpr int64_t kStartOfTimeUs = 1'700'000'000'000'000;  // November 2023
constexpr uint64_t kStartOfClockNs = 1'000'000'000'000;

// An operation on a descriptor that is no socket; the real answer.
int not_a_socket(const File& file) { return file.kind == FileKind::kEvent ? -ENOTSOCK : 0; }

bool known_option(int level, int name) {
  static constexpr std::pair<int, int> kKnown[] = {
      {SOL_SOCKET, SO_REUSEADDR},
      {SOL_SOCKET, SO_REUSEPORT},
      {SOL_SOCKET, SO_KEEPALIVE},
      {SOL_SOCKET, SO_LINGER},
      {SOL_SOCKET, SO_RCVBUF},
      {SOL_SOCKET, SO_SNDBUF},
      {SOL_SOCKET, SO_INCOMING_CPU},
      {SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF},
      {SOL_SOCKET, SO_ATTACH_FILTER},
      {SOL_SOCKET, SO_BUSY_POLL},
      {IPPROTO_IPV6, IPV6_V6ONLY},
      {IPPROTO_IP, IP_FREEBIND},
      {IPPROTO_TCP, TCP_NODELAY},
      {IPPROTO_TCP, TCP_CORK},
      {IPPROTO_TCP, TCP_QUICKACK},
      {IPPROTO_TCP, TCP_DEFER_ACCEPT},
      {IPPROTO_TCP, TCP_FASTOPEN},
      {IPPROTO_TCP, TCP_KEEPIDLE},
      {IPPROTO_TCP, TCP_KEEPINTVL},
      {IPPROTO_TCP, TCP_KEEPCNT},
      {IPPROTO_TCP, TCP_USER_TIMEOUT},
      {IPPROTO_TCP, TCP_NOTSENT_LOWAT},
      {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT},
  };
  return std::find(std::begin(kKnown), std::end(kKnown), std::pair(level, name)) !=
         std::end(kKnown);
}

int give_address(const base::SocketAddress& from, sockaddr* address, socklen_t* length) {
  std::memcpy(address, &from.base, std::min(*length, from.length));
  *length = from.length;
  return 0;
}

bool gone(const sim::Stream& stream) {
  return stream.dead || (stream.fin_sent && stream.fin_arrived);
}

ssize_t send_parts(int fd, const iovec* parts, size_t count, int flags, const char* who) {
  World& world = World::current();
  File& file = world.file(fd, who);
  if (const int error = not_a_socket(file); error != 0) return error;
  if ((flags & ~(MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE)) != 0) {
    world.die("send with these flags is not simulated", fd, flags);
  }
  if (!file.connected) return file.connecting ? -EAGAIN : -EPIPE;
  size_t limit = SIZE_MAX;
  size_t total = 0;
  for (size_t i = 0; i < count; ++i) total += parts[i].iov_len;
  if (total > 1 && world.strike(world.faults.short_send, world.counts.short_send)) {
    limit = 1 + world.rng.below(total - 1);
  }
  size_t sent = 0;
  for (size_t i = 0; i < count && sent < limit; ++i) {
    const std::string_view bytes(static_cast<const char*>(parts[i].iov_base),
                                 std::min(parts[i].iov_len, limit - sent));
    if (bytes.empty()) continue;
    const int64_t result = world.stream_send(*file.stream, bytes);
    if (result < 0 && sent == 0) return result;
    if (result <= 0) break;
    sent += static_cast<size_t>(result);
    if (static_cast<size_t>(result) < bytes.size()) break;
  }
  world.trace(who, fd, static_cast<int64_t>(sent));
  return static_cast<ssize_t>(sent);
}

}  // namespace

uint64_t monotonic_ns() noexcept { return World::current().now; }

int64_t realtime_us() noexcept {
  const World& world = World::current();
  return kStartOfTimeUs + static_cast<int64_t>((world.now - kStartOfClockNs) / 1000) +
         world.wall_offset_us;
}

void random_bytes(void* out, size_t bytes) noexcept {
  WEIR_CHECK(bytes <= 256);
  auto* at = static_cast<uint8_t*>(out);
  for (size_t i = 0; i < bytes; ++i) {
    at[i] = static_cast<uint8_t>(World::current().random_bytes.next());
  }
}

int socket(int family, int type, int protocol) noexcept {
  World& world = World::current();
  constexpr int kFlags = SOCK_NONBLOCK | SOCK_CLOEXEC;
  const bool known = family == AF_INET || family == AF_INET6 || family == AF_UNIX;
  if (!known || (type & ~kFlags) != SOCK_STREAM || (protocol != 0 && protocol != IPPROTO_TCP)) {
    world.die("a socket of this kind is not simulated (family, type)", family, type);
  }
  File& file = world.open_file(FileKind::kSocket);
  file.family = family;
  world.trace("socket", file.fd, family);
  return file.fd;
}

int bind(int fd, const sockaddr* address, socklen_t length) noexcept {
  World& world = World::current();
  File& file = world.file(fd, "bind");
  base::SocketAddress where;
  if (const int error = not_a_socket(file); error != 0) return error;
  if (length > sizeof where.un || address->sa_family != file.family) return -EINVAL;
  std::memcpy(&where.base, address, length);
  where.length = length;
  return world.bind(file, where);
}

int listen(int fd, int backlog) noexcept {
  World& world = World::current();
  File& file = world.file(fd, "listen");
  const int error = not_a_socket(file);
  return error != 0 ? error : world.listen(file, backlog);
}

int getsockname(int fd, sockaddr* address, socklen_t* length) noexcept {
  const File& file = World::current().file(fd, "getsockname");
  if (const int error = not_a_socket(file); error != 0) return error;
  if (file.bound) return give_address(file.local, address, length);
  base::SocketAddress none;
  none.base.sa_family = static_cast<sa_family_t>(file.family);
  none.length = file.family == AF_INET    ? sizeof(sockaddr_in)
                : file.family == AF_INET6 ? sizeof(sockaddr_in6)
                                          : sizeof(sa_family_t);
  return give_address(none, address, length);
}

int getpeername(int fd, sockaddr* address, socklen_t* length) noexcept {
  const File& file = World::current().file(fd, "getpeername");
  if (const int error = not_a_socket(file); error != 0) return error;
  if (!file.connected || (!file.stream->connection->unix_domain && gone(*file.stream))) {
    return -ENOTCONN;
  }
  return give_address(file.remote, address, length);
}

int setsockopt(int fd, int level, int name, const void* value, socklen_t length) noexcept {
  World& world = World::current();
  File& file = world.file(fd, "setsockopt");
  if (const int error = not_a_socket(file); error != 0) return error;
  if (!known_option(level, name)) world.die("setsockopt: an option not simulated", level, name);
  if (level == IPPROTO_TCP && file.family == AF_UNIX) return -EOPNOTSUPP;
  int stored = 1;
  if (level == SOL_SOCKET && name == SO_LINGER) {
    linger how{};
    if (length < sizeof how) return -EINVAL;
    std::memcpy(&how, value, sizeof how);
    if (how.l_onoff != 0 && how.l_linger != 0) world.die("SO_LINGER with a time is not simulated");
    stored = how.l_onoff;
  } else if (level == SOL_SOCKET && name == SO_ATTACH_FILTER) {
    // Nothing is filtered: what a listener drops while it closes may as well arrive.
    if (length != sizeof(sock_fprog)) return -EINVAL;
  } else if (level == SOL_SOCKET && name == SO_ATTACH_REUSEPORT_CBPF) {
    // Which socket of the group gets a connection stays random: a program may not rely on more.
    if (length != sizeof(sock_fprog)) return -EINVAL;
  } else {
    if (length < sizeof stored) return -EINVAL;
    std::memcpy(&stored, value, sizeof stored);
  }
  file.options[{level, name}] = stored;
  return 0;
}

int getsockopt(int fd, int level, int name, void* value, socklen_t* length) noexcept {
  World& world = World::current();
  File& file = world.file(fd, "getsockopt");
  if (const int error = not_a_socket(file); error != 0) return error;
  int result = 0;
  if (level == SOL_SOCKET && name == SO_ERROR) {
    if (file.stream != nullptr) {
      result = std::exchange(file.stream->error, 0);
    } else if (file.connect_result < 0) {
      result = -std::exchange(file.connect_result, 1);
    }
  } else if (level == SOL_SOCKET && name == SO_ACCEPTCONN) {
    result = file.kind == FileKind::kListener ? 1 : 0;
  } else if (level == SOL_SOCKET && name == SO_TYPE) {
    result = SOCK_STREAM;
  } else if (level == SOL_SOCKET && name == SO_DOMAIN) {
    result = file.family;
  } else if (known_option(level, name)) {
    const auto found = file.options.find({level, name});
    result = found == file.options.end() ? 0 : found->second;
  } else {
    world.die("getsockopt: an option not simulated", level, name);
  }
  if (*length < sizeof result) return -EINVAL;
  std::memcpy(value, &result, sizeof result);
  *length = sizeof result;
  return 0;
}

int accept(int fd) noexcept {
  World& world = World::current();
  File& file = world.file(fd, "accept");
  if (const int error = not_a_socket(file); error != 0) return error;
  if (file.kind != FileKind::kListener || file.shut) return -EINVAL;
  if (file.queue.empty()) return -EAGAIN;
  if (world.strike(world.faults.no_files, world.counts.no_files)) return -EMFILE;
  return world.accept(file, nullptr);
}

int shutdown(int fd, int how) noexcept {
  World& world = World::current();
  File& file = world.file(fd, "shutdown");
  const int error = not_a_socket(file);
  return error != 0 ? error : world.shutdown(file, how);
}

int close(int fd) noexcept { return World::current().close_file(fd, "close"); }

ssize_t recv(int fd, void* out, size_t bytes, int flags) noexcept {
  World& world = World::current();
  File& file = world.file(fd, "recv");
  if (const int error = not_a_socket(file); error != 0) return error;
  if ((flags & ~(MSG_PEEK | MSG_DONTWAIT | MSG_NOSIGNAL)) != 0) {
    world.die("recv with these flags is not simulated", fd, flags);
  }
  if (!file.connected && file.shut) return 0;
  if (!file.connected) return file.connecting ? -EAGAIN : -ENOTCONN;
  if (bytes == 0) world.die("recv of no bytes", fd);
  sim::Stream& stream = *file.stream;
  if (bytes > 1 && stream.arrived > 1 &&
      world.strike(world.faults.short_recv, world.counts.short_recv)) {
    bytes = 1 + world.rng.below(std::min(bytes, stream.arrived) - 1);
  }
  const int64_t result =
      world.stream_recv(stream, static_cast<char*>(out), bytes, (flags & MSG_PEEK) != 0);
  world.trace("recv", fd, result);
  return result;
}

ssize_t send(int fd, const void* data, size_t bytes, int flags) noexcept {
  const iovec part{const_cast<void*>(data), bytes};
  return send_parts(fd, &part, 1, flags, "send");
}

ssize_t sendmsg(int fd, const msghdr* message, int flags) noexcept {
  if (message->msg_controllen != 0 || message->msg_namelen != 0) {
    World::current().die("sendmsg with a name or control data is not simulated", fd);
  }
  return send_parts(fd, message->msg_iov, message->msg_iovlen, flags, "sendmsg");
}

// Only sockets of kernel TLS are read with it, and there is none here.
ssize_t recvmsg(int fd, msghdr* /*message*/, int /*flags*/) noexcept {
  World::current().die("recvmsg is not simulated", fd);
}

// Files and pipes are not in this world: routes to files and splicing are for the real kernel.
int fstat(int fd, struct ::stat* /*out*/) noexcept {
  World::current().die("fstat is not simulated", fd);
}
ssize_t sendfile(int fd, int /*file*/, uint64_t /*offset*/, size_t /*bytes*/) noexcept {
  World::current().die("sendfile is not simulated", fd);
}
ssize_t pread_cached(int fd, void* /*out*/, size_t /*bytes*/, uint64_t /*offset*/) noexcept {
  World::current().die("pread is not simulated", fd);
}
ssize_t pread(int fd, void* /*out*/, size_t /*bytes*/, uint64_t /*offset*/) noexcept {
  World::current().die("pread is not simulated", fd);
}
void set_blocking(int fd) noexcept { World::current().die("fcntl is not simulated", fd); }
// Socket buffers of both sides are one here, so that it is what the other end has read.
int64_t acknowledged(int fd) noexcept {
  World& world = World::current();
  const File& file = world.file(fd, "getsockopt");
  if (file.stream == nullptr || file.stream->connection->unix_domain) return -EOPNOTSUPP;
  return static_cast<int64_t>(file.stream->other->rx.dropped());
}
void cork(int fd, bool /*on*/) noexcept { World::current().die("TCP_CORK is not simulated", fd); }
int pipe(int* /*ends*/) noexcept { return -EMFILE; }
int pipe_capacity(int fd, int /*bytes*/) noexcept {
  World::current().die("pipes are not simulated", fd);
}
ssize_t splice(int fd, int /*to*/, size_t /*bytes*/, bool /*more*/) noexcept {
  World::current().die("splice is not simulated", fd);
}

int wake_fd() noexcept {
  const File& file = World::current().open_file(FileKind::kEvent);
  return file.fd;
}

void wake(int fd) noexcept {
  World& world = World::current();
  File& file = world.file(fd, "wake");
  if (file.kind != FileKind::kEvent) world.die("wake of a descriptor that is no eventfd", fd);
  world.trace("wake", fd);
  ++file.counter;
}

}  // namespace weir::runtime::sys
