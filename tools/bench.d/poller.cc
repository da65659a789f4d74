#include "poller.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace weir::bench {

void fail(const char* what) noexcept {
  std::fprintf(stderr, "loadgen: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

Poller::Poller() : fd_(epoll_create1(EPOLL_CLOEXEC)) {
  if (fd_ < 0) fail("epoll_create1");
}

Poller::~Poller() { close(fd_); }

void Poller::add(Endpoint& endpoint, uint32_t events) noexcept {
  epoll_event event{};
  event.events = events | EPOLLET;
  event.data.ptr = &endpoint;
  if (epoll_ctl(fd_, EPOLL_CTL_ADD, endpoint.fd, &event) != 0) fail("epoll_ctl");
}

int Poller::wait(int timeout_ms) noexcept {
  const int count = epoll_wait(fd_, events_.data(), kEventsMax, timeout_ms);
  if (count < 0 && errno != EINTR) fail("epoll_wait");
  return count < 0 ? 0 : count;
}

int make_socket() noexcept {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  set_no_delay(fd);
  return fd;
}

void set_no_delay(int fd) noexcept {
  const int on = 1;
  if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) fail("TCP_NODELAY");
}

}  // namespace weir::bench
