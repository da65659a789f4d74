// Two connected stream sockets: one end for the transport under test, the other in the test's own
// hands (non-blocking, plain system calls).
#pragma once

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/ip.h>
#include <weir/net/listen.h>

namespace weir::net::test {

enum class LinkKind { kUnix, kTcp };

// The test's end of a connection.
class Peer {
 public:
  explicit Peer(int fd = -1) noexcept : fd_(fd) {}
  Peer(Peer&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Peer& operator=(Peer&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Peer() { close(); }

  [[nodiscard]] int fd() const noexcept { return fd_; }
  void close() noexcept {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  void reset() noexcept {
    const linger none{.l_onoff = 1, .l_linger = 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    close();
  }
  void finish() const noexcept { ::shutdown(fd_, SHUT_WR); }
  // As much as the kernel takes now; returns how much.
  size_t send(std::string_view bytes) const noexcept {
    size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t part =
          ::send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (part <= 0) break;
      sent += static_cast<size_t>(part);
    }
    return sent;
  }
  void send_all(std::string_view bytes) const { REQUIRE(send(bytes) == bytes.size()); }
  // Whatever is there now goes to `text`; notes the end and an error.
  void take(size_t most = SIZE_MAX) {
    char buffer[16384];
    while (most > 0) {
      const ssize_t got = ::recv(fd_, buffer, std::min(most, sizeof buffer), MSG_DONTWAIT);
      if (got < 0) {
        if (errno != EAGAIN) error = errno;
        return;
      }
      if (got == 0) {
        ended = true;
        return;
      }
      text.append(buffer, static_cast<size_t>(got));
      most -= static_cast<size_t>(got);
    }
  }
  [[nodiscard]] bool over() const noexcept { return ended || error != 0; }

  std::string text;
  bool ended = false;
  int error = 0;

 private:
  int fd_;
};

struct Link {
  int fd = -1;  // for the transport, which closes it
  Peer peer;
};

inline Link make_link(LinkKind kind) {
  if (kind == LinkKind::kUnix) {
    int fds[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    return {fds[0], Peer(fds[1])};
  }
  const auto any = *base::SocketAddress::parse("127.0.0.1:0");
  const auto listener = open_listener(any, {.backlog = 4, .reuse_port = false});
  REQUIRE(listener);
  const auto address = bound_address(*listener);
  REQUIRE(address);
  // A blocking connect, so that both ends are established when this returns.
  const int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(connect(client, &address->base, address->length) == 0);
  int server = -1;
  while ((server = accept4(*listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) < 0) {
    REQUIRE(errno == EAGAIN);
  }
  close(*listener);
  const int one = 1;
  setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return {server, Peer(client)};
}

// Open descriptors of this process: what a test opened must be closed at its end.
inline size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

inline std::string pattern(size_t bytes, uint64_t seed = 0) {
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) {
    text[i] = static_cast<char>('a' + (i * 7 + i / 251 + seed) % 26);
  }
  return text;
}

}  // namespace weir::net::test
