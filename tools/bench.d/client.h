// The client half of the load generator: N connections through the proxy, each with one request
// under way, every response checked. Owned by main, runs on its thread; never blocks or sleeps.
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "histogram.h"
#include "poller.h"
#include "wire.h"

namespace weir::bench {

struct ClientPlan {
  uint16_t target_port = 0;
  uint64_t body_bytes = 128;
  bool connection_per_request = false;
};

// Every way a request can go wrong, counted apart: a benchmark with errors proves nothing.
struct ClientErrors {
  uint64_t connect = 0;  // refused, reset or timed out while connecting
  uint64_t closed = 0;   // the proxy closed where a response, or nothing, was due
  uint64_t malformed = 0;
  uint64_t status = 0;  // not 200
  uint64_t length = 0;  // wrong Content-Length, or bytes behind the body
  uint64_t content = 0;
  [[nodiscard]] uint64_t total() const noexcept {
    return connect + closed + malformed + status + length + content;
  }
};

class Clients {
 public:
  static constexpr uint64_t kUnlimited = UINT64_MAX;

  Clients(Poller& poller, const ClientPlan& plan);
  ~Clients();
  Clients(const Clients&) = delete;
  Clients& operator=(const Clients&) = delete;

  // Opens `count` more connections, each of which does `requests` requests and then stays open
  // and idle (keep-alive) or is not opened again (connection per request).
  void open(size_t count, uint64_t requests) noexcept;
  // One more request on an idle connection; false when it is gone or busy.
  bool ask_again(size_t index) noexcept;
  void on_event(Endpoint& endpoint, uint32_t events) noexcept;
  // Opens anew what failed during the turn.
  void end_turn() noexcept;

  // Between the two, responses are timed and counted as measured. Before, every byte of every body
  // is compared; within, the bodies above 1 KiB are only counted, to be a light peer.
  void begin_window() noexcept;
  void end_window() noexcept { in_window_ = false; }

  [[nodiscard]] size_t size() const noexcept { return connections_.size(); }
  [[nodiscard]] size_t busy() const noexcept { return busy_; }
  // Connections that have had at least one good response.
  [[nodiscard]] size_t proven() const noexcept { return proven_; }
  // Connections that have waited for a response for longer than `age_ns`.
  [[nodiscard]] size_t stalled(uint64_t age_ns) const noexcept;
  [[nodiscard]] uint64_t responses() const noexcept { return responses_; }
  [[nodiscard]] uint64_t window_responses() const noexcept { return latency_.total(); }
  [[nodiscard]] uint64_t window_bytes() const noexcept { return window_bytes_; }
  [[nodiscard]] const Histogram& latency() const noexcept { return latency_; }
  [[nodiscard]] const ClientErrors& errors() const noexcept { return errors_; }

 private:
  enum class State : uint8_t { kClosed, kConnecting, kHead, kBody, kIdle };

  struct Connection : Endpoint {
    Connection() noexcept : Endpoint(EndpointKind::kClient) {}
    State state = State::kClosed;
    bool proven = false;
    size_t sent = 0;  // bytes of the request
    uint64_t body_seen = 0;
    uint64_t requests_left = 0;
    uint64_t started_ns = 0;
    std::string head_part;  // of a head that comes in pieces
  };

  void connect(Connection& c) noexcept;
  void start_request(Connection& c) noexcept;
  // False when the request could not be sent in full yet, or the connection failed.
  bool send_request(Connection& c) noexcept;
  void receive(Connection& c, bool ended) noexcept;
  // These return false when the connection has left the state it was in.
  bool take_head(Connection& c, std::string_view bytes) noexcept;
  bool take_body(Connection& c, std::string_view bytes, bool compare) noexcept;
  void complete(Connection& c) noexcept;
  void drop(Connection& c, uint64_t& counter) noexcept;
  void hang_up(Connection& c) noexcept;

  Poller& poller_;
  ClientPlan plan_;
  std::string request_;
  sockaddr_in target_{};
  std::deque<Connection> connections_;  // addresses stay valid while it grows
  std::vector<Connection*> retries_;
  uint32_t source_turn_ = 0;
  size_t busy_ = 0;
  size_t proven_ = 0;
  uint64_t responses_ = 0;
  uint64_t window_bytes_ = 0;
  bool in_window_ = false;
  Histogram latency_;
  ClientErrors errors_;
};

}  // namespace weir::bench
