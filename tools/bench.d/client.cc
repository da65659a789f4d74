#include "client.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "clock.h"

namespace weir::bench {

namespace {

// Source addresses in turn: one address has some 55,000 ports, and a port in TIME_WAIT is gone for
// a minute.
constexpr uint32_t kSourceAddresses = 64;
// A proxy that fails every request must not become a loop of reconnects.
constexpr uint64_t kErrorsBeforeGivingUp = 1000;

}  // namespace

Clients::Clients(Poller& poller, const ClientPlan& plan)
    : poller_(poller),
      plan_(plan),
      receive_buffer_(kReceiveBytes),
      request_(make_request(plan.body_bytes, plan.connection_per_request)) {
  if (plan.tls) tls_ = std::make_unique<TlsSettings>();
  target_.sin_family = AF_INET;
  target_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  (void)body_pattern();  // built before the clock runs
}

Clients::~Clients() {
  for (const auto& c : connections_) {
    if (c.fd >= 0) close(c.fd);
  }
}

void Clients::open(size_t count, uint64_t requests) noexcept {
  for (size_t i = 0; i < count; ++i) {
    const bool second = plan_.second_port != 0 && connections_.size() % 2 != 0;
    auto& c = connections_.emplace_back();
    c.port = htons(second ? plan_.second_port : plan_.target_port);
    c.requests_left = requests;
    ++busy_;
    connect(c);
  }
}

bool Clients::ask_again(size_t index) noexcept {
  auto& c = connections_[index];
  if (c.state != State::kIdle) return false;
  c.requests_left = 1;
  ++busy_;
  start_request(c);
  return true;
}

void Clients::connect(Connection& c) noexcept {
  c.fd = make_socket();
  sockaddr_in source{};
  source.sin_family = AF_INET;
  source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + source_turn_++ % kSourceAddresses);
  // The port is then chosen by connect(), when the destination is known: ports can be shared.
  const int on = 1;
  if (setsockopt(c.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) != 0) {
    fail("IP_BIND_ADDRESS_NO_PORT");
  }
  if (bind(c.fd, reinterpret_cast<sockaddr*>(&source), sizeof source) != 0) fail("bind source");
  target_.sin_port = c.port;
  c.started_ns = now_ns();
  c.sent = 0;
  c.state = State::kConnecting;
  if (::connect(c.fd, reinterpret_cast<sockaddr*>(&target_), sizeof target_) != 0 &&
      errno != EINPROGRESS) {
    drop(c, errors_.connect);
    return;
  }
  // On loopback the handshake is over by now although connect() says "in progress", so the request
  // goes out at once; only if it does not is EPOLLOUT needed.
  if (plan_.tls) begin_handshake(c);
  const bool sent = plan_.tls ? send_tls(c) : send_request(c);
  if (c.state == State::kClosed) return;
  poller_.add(c, sent ? EPOLLIN | EPOLLRDHUP : EPOLLIN | EPOLLOUT | EPOLLRDHUP);
}

void Clients::start_request(Connection& c) noexcept {
  c.started_ns = now_ns();
  c.sent = 0;
  c.state = State::kHead;
  if (plan_.tls) {
    send_tls_request(c);
    return;
  }
  // A request is far smaller than a socket buffer that was empty a moment ago.
  if (!send_request(c) && c.state != State::kClosed) drop(c, errors_.closed);
}

bool Clients::send_request(Connection& c) noexcept {
  while (c.sent < request_.size()) {
    const ssize_t count =
        send(c.fd, request_.data() + c.sent, request_.size() - c.sent, MSG_NOSIGNAL);
    if (count < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return false;
      drop(c, c.state == State::kConnecting ? errors_.connect : errors_.closed);
      return false;
    }
    c.sent += static_cast<size_t>(count);
  }
  c.state = State::kHead;
  c.body_seen = 0;
  c.head_part.clear();
  return true;
}

void Clients::on_event(Endpoint& endpoint, uint32_t events) noexcept {
  auto& c = static_cast<Connection&>(endpoint);
  if (c.state == State::kClosed) return;
  if (c.state == State::kConnecting && !(plan_.tls ? send_tls(c) : send_request(c))) return;
  if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
    const bool ended = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    plan_.tls ? receive_tls(c, ended) : receive(c, ended);
  }
}

void Clients::receive(Connection& c, bool ended) noexcept {
  for (;;) {
    const bool in_body = c.state == State::kBody;
    const bool compare = !in_window_ || plan_.body_bytes <= kCompareAlwaysBytes;
    // Of a body, no more than what is missing is asked for, so that surplus bytes stay visible.
    // TCP drops the bytes uncopied with MSG_TRUNC: the client is then as light as it can be.
    const size_t room = in_body   ? plan_.body_bytes - c.body_seen
                        : compare ? receive_buffer_.size()
                                  : kHeadBytesMax;
    const int flags = in_body && !compare ? MSG_TRUNC : 0;
    const ssize_t count = recv(c.fd, receive_buffer_.data(), room, flags);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) {
      drop(c, errors_.closed);
      return;
    }
    const auto size = static_cast<size_t>(count);
    const std::string_view bytes(receive_buffer_.data(), size);
    if (in_window_) window_bytes_ += size;
    if (c.state == State::kIdle) {
      drop(c, errors_.length);  // bytes that nobody asked for
      return;
    }
    const bool more = in_body ? take_body(c, bytes, compare) : take_head(c, bytes);
    // An idle connection that the proxy closed together with its response is no idle connection.
    if (!more && !(ended && c.state == State::kIdle)) return;
    if (size < room && !ended) return;
  }
}

bool Clients::take_head(Connection& c, std::string_view bytes) noexcept {
  if (!c.head_part.empty()) {
    c.head_part.append(bytes);
    bytes = c.head_part;
  }
  ResponseHead head;
  switch (parse_response_head(bytes, head)) {
    case HeadState::kIncomplete:
      if (c.head_part.empty()) c.head_part.assign(bytes);
      return true;
    case HeadState::kMalformed: drop(c, errors_.malformed); return false;
    case HeadState::kComplete: break;
  }
  if (head.status != 200) {
    drop(c, errors_.status);
    return false;
  }
  const std::string_view body = bytes.substr(head.bytes);
  if (head.content_length != plan_.body_bytes || body.size() > plan_.body_bytes) {
    drop(c, errors_.length);
    return false;
  }
  c.state = State::kBody;
  c.response_bytes = head.bytes + plan_.body_bytes;
  return take_body(c, body, true);
}

bool Clients::take_body(Connection& c, std::string_view bytes, bool compare) noexcept {
  if (compare && bytes != body_pattern().substr(c.body_seen, bytes.size())) {
    drop(c, errors_.content);
    return false;
  }
  c.body_seen += bytes.size();
  if (c.body_seen < plan_.body_bytes) return true;
  complete(c);
  return false;
}

void Clients::complete(Connection& c) noexcept {
  ++responses_;
  if (in_window_) latency_.record(now_ns() - c.started_ns);
  if (!c.proven) {
    c.proven = true;
    ++proven_;
  }
  if (c.requests_left != kUnlimited) --c.requests_left;
  if (plan_.connection_per_request) {
    if (plan_.tls) {
      c.state = State::kEnding;
      return;
    }
    hang_up(c);
  }
  go_on(c);
}

void Clients::go_on(Connection& c) noexcept {
  if (c.requests_left == 0) {
    if (c.state != State::kClosed) c.state = State::kIdle;
    --busy_;
  } else if (plan_.connection_per_request) {
    connect(c);
  } else {
    start_request(c);
  }
}

void Clients::drop(Connection& c, uint64_t& counter) noexcept {
  ++counter;
  const bool was_idle = c.state == State::kIdle;
  hang_up(c);
  if (was_idle) return;
  if (errors_.total() < kErrorsBeforeGivingUp && c.requests_left == kUnlimited) {
    retries_.push_back(&c);
  } else {
    --busy_;
  }
}

void Clients::end_turn() noexcept {
  if (retries_.empty()) return;
  std::vector<Connection*> retries;
  retries.swap(retries_);
  for (Connection* c : retries) connect(*c);
}

void Clients::hang_up(Connection& c) noexcept {
  close(c.fd);
  c.fd = -1;
  c.state = State::kClosed;
  c.skimming = false;
  c.tls.reset();
}

void Clients::begin_window() noexcept {
  in_window_ = true;
  window_bytes_ = 0;
  tls_counts_ = {};
}

size_t Clients::stalled(uint64_t age_ns) const noexcept {
  const uint64_t now = now_ns();
  return static_cast<size_t>(
      std::count_if(connections_.begin(), connections_.end(), [now, age_ns](const Connection& c) {
        return c.state != State::kClosed && c.state != State::kIdle && now - c.started_ns > age_ns;
      }));
}

}  // namespace weir::bench
