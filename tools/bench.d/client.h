// The client half of the load generator: N connections through the proxy, each with one request
// under way, every response checked. Owned by main, runs on its thread; never blocks or sleeps.
#pragma once

#include <netinet/in.h>

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "histogram.h"
#include "poller.h"
#include "tls_stream.h"
#include "wire.h"

namespace weir::bench {

struct ClientPlan {
  uint16_t target_port = 0;
  uint16_t second_port = 0;  // for every other connection, unless 0
  uint64_t body_bytes = 128;
  bool connection_per_request = false;
  bool tls = false;
  bool resume = false;  // every connection but the first one of each slot, by ticket
};

// Every way a request can go wrong, counted apart: a benchmark with errors proves nothing.
struct ClientErrors {
  uint64_t connect = 0;  // refused, reset or timed out while connecting
  uint64_t closed = 0;   // the proxy closed where a response, or nothing, was due
  uint64_t malformed = 0;
  uint64_t status = 0;  // not 200
  uint64_t length = 0;  // wrong Content-Length, or bytes behind the body
  uint64_t content = 0;
  uint64_t handshake = 0;   // of TLS, failed
  uint64_t resumption = 0;  // full where it had to be resumed, or the other way round
  [[nodiscard]] uint64_t total() const noexcept {
    return connect + closed + malformed + status + length + content + handshake + resumption;
  }
};

// TLS connections in the measured window.
struct TlsCounts {
  uint64_t handshakes = 0;
  uint64_t resumed = 0;
  uint64_t clean_ends = 0;  // by a close_notify of the server's
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
  // is compared; within, the bodies above 1 KiB are only counted, to be a light peer: with TLS the
  // length of their records is added up, and they are not decrypted.
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
  [[nodiscard]] const TlsCounts& tls_counts() const noexcept { return tls_counts_; }

 private:
  enum class State : uint8_t {
    kClosed,
    kConnecting,
    kHandshake,
    kHead,
    kBody,
    kIdle,
    kEnding,  // TLS, a connection per request: answered, waiting for the server to end it
  };

  struct Connection : Endpoint {
    Connection() noexcept : Endpoint(EndpointKind::kClient) {}
    State state = State::kClosed;
    bool proven = false;
    uint16_t port = 0;  // of the proxy, as the network has it
    size_t sent = 0;    // bytes of the request
    uint64_t body_seen = 0;
    uint64_t requests_left = 0;
    uint64_t started_ns = 0;
    std::string head_part;  // of a head that comes in pieces

    std::unique_ptr<TlsStream> tls;
    TlsTicket ticket;
    // Head and body of the last response that was decrypted; the next ones have to be as long.
    uint64_t response_bytes = 0;
    bool skimming = false;         // the response under way is not decrypted
    uint64_t skimmed = 0;          // bytes of plaintext in the records so far
    size_t record_left = 0;        // of the record's body
    size_t header_bytes = 0;       // of `header`
    std::array<char, 5> header{};  // of the record
  };

  void connect(Connection& c) noexcept;
  void start_request(Connection& c) noexcept;
  // False when the request could not be sent in full yet, or the connection failed.
  bool send_request(Connection& c) noexcept;
  void receive(Connection& c, bool ended) noexcept;
  // With TLS, client_tls.cc.
  void begin_handshake(Connection& c) noexcept;
  void receive_tls(Connection& c, bool ended) noexcept;
  void go_on_with_handshake(Connection& c) noexcept;
  void send_tls_request(Connection& c) noexcept;
  // False when not all has been sent yet, or the connection failed.
  bool send_tls(Connection& c) noexcept;
  void take_tls(Connection& c) noexcept;
  void take_tls_end(Connection& c) noexcept;
  void skim(Connection& c) noexcept;
  bool take_record_header(Connection& c) noexcept;
  // These return false when the connection has left the state it was in.
  bool take_head(Connection& c, std::string_view bytes) noexcept;
  bool take_body(Connection& c, std::string_view bytes, bool compare) noexcept;
  void complete(Connection& c) noexcept;
  void go_on(Connection& c) noexcept;
  void drop(Connection& c, uint64_t& counter) noexcept;
  void hang_up(Connection& c) noexcept;

  // A client never shares the proxy's limits: what is there is taken in one piece.
  static constexpr size_t kReceiveBytes = kBodyBytesMax + kHeadBytesMax;
  // Bodies up to this size are compared in the measured window, too.
  static constexpr uint64_t kCompareAlwaysBytes = 1024;

  Poller& poller_;
  ClientPlan plan_;
  std::vector<char> receive_buffer_;
  std::string request_;
  sockaddr_in target_{};
  std::unique_ptr<TlsSettings> tls_;    // outlives the connections
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
  TlsCounts tls_counts_;
};

}  // namespace weir::bench
