#include "origin.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace weir::bench {

Origin::Origin(Poller& poller, uint16_t port)
    : poller_(poller), listener_(EndpointKind::kListener) {
  listener_.fd = make_socket();
  const int on = 1;
  if (setsockopt(listener_.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) fail("SO_REUSEADDR");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener_.fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    fail("bind origin port");
  }
  if (listen(listener_.fd, 4096) != 0) fail("listen");
  poller_.add(listener_, EPOLLIN);
  (void)body_pattern();  // built before the clock runs, not on the first request
}

Origin::~Origin() {
  for (const auto& peer : peers_) close(peer->fd);
  close(listener_.fd);
}

void Origin::on_accept() noexcept {
  for (;;) {
    const int fd = accept4(listener_.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EAGAIN) return;
      fail("accept4");
    }
    ++accepted_;
    auto peer = std::make_unique<Peer>();
    peer->fd = fd;
    peer->slot = peers_.size();
    set_no_delay(fd);
    poller_.add(*peer, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
    peers_.push_back(std::move(peer));
  }
}

void Origin::on_peer_event(Endpoint& endpoint, uint32_t events) noexcept {
  auto& peer = static_cast<Peer&>(endpoint);
  if (peer.fd < 0) return;
  if (!peer.out.empty()) {
    // Output left over from before. What arrived meanwhile is read once it is gone: the mask of
    // an edge holds everything that is ready by then, not only what raised it.
    if (!flush(peer) || !answer_requests(peer)) return;
  }
  if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
    read_requests(peer, (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
  }
}

void Origin::read_requests(Peer& peer, bool ended) noexcept {
  for (;;) {
    const size_t room = peer.in.size() - peer.in_bytes;
    const ssize_t count = recv(peer.fd, peer.in.data() + peer.in_bytes, room, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) {
      if (peer.in_bytes != 0) ++bad_requests_;
      close_peer(peer);
      return;
    }
    peer.in_bytes += static_cast<size_t>(count);
    if (!answer_requests(peer)) return;
    // A short read has emptied the socket; whatever comes later raises a new edge.
    if (static_cast<size_t>(count) < room && !ended) return;
  }
}

bool Origin::answer_requests(Peer& peer) noexcept {
  size_t used = 0;
  bool open = true;
  while (open && used < peer.in_bytes && peer.out.empty()) {
    RequestHead head;
    const HeadState state =
        parse_request_head(std::string_view(peer.in.data() + used, peer.in_bytes - used), head);
    if (state == HeadState::kIncomplete) break;
    peer.out = state == HeadState::kComplete ? response_for(head.path) : std::string_view{};
    if (peer.out.empty()) {
      ++bad_requests_;
      close_peer(peer);
      return false;
    }
    ++requests_;
    used += head.bytes;
    peer.close_after = head.close;
    open = flush(peer);
  }
  if (peer.fd < 0) return false;
  peer.in_bytes -= used;
  if (used != 0 && peer.in_bytes != 0) {
    std::memmove(peer.in.data(), peer.in.data() + used, peer.in_bytes);
  }
  return open;
}

bool Origin::flush(Peer& peer) noexcept {
  while (!peer.out.empty()) {
    const ssize_t count = send(peer.fd, peer.out.data(), peer.out.size(), MSG_NOSIGNAL);
    if (count < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return false;
      close_peer(peer);
      return false;
    }
    peer.out.remove_prefix(static_cast<size_t>(count));
  }
  if (!peer.close_after) return true;
  close_peer(peer);
  return false;
}

void Origin::close_peer(Peer& peer) noexcept {
  close(peer.fd);
  peer.fd = -1;
  const size_t slot = peer.slot;
  closed_.push_back(std::move(peers_[slot]));
  if (slot + 1 != peers_.size()) {
    peers_[slot] = std::move(peers_.back());
    peers_[slot]->slot = slot;
  }
  peers_.pop_back();
}

void Origin::end_turn() noexcept { closed_.clear(); }

}  // namespace weir::bench
