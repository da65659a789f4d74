// Active health checks: control asks every server at its interval, over a connection of its own,
// and tells when one has become healthy or not. One per control thread, on its reactor, owned by
// the table of upstreams: stop(), turn the reactor until stopped(), then destroy. Bounds:
// in_flight_max checks at a time (others wait their turn), one at a time for each server, one
// deadline over a whole check, kHeadBytesMax and body_bytes_max of an answer.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <weir/base/ip.h>
#include <weir/base/prng.h>
#include <weir/net/tls/engine.h>
#include <weir/runtime/reactor.h>
#include <weir/runtime/task_group.h>

namespace weir::control {

enum class HealthKind : uint8_t {
  kTcp,    // a connection is made
  kTls,    // and a TLS handshake, with the certificate verified as `tls` says
  kHttp,   // an HTTP/1.1 request is answered as expected
  kHttps,  // the same over TLS
};

struct StatusRange {
  uint16_t first = 200;
  uint16_t last = 299;
  friend bool operator==(const StatusRange&, const StatusRange&) = default;
};

struct HealthHeader {
  std::string name;
  std::string value;
  friend bool operator==(const HealthHeader&, const HealthHeader&) = default;
};

struct HealthTarget {
  uint64_t identity = 0;  // upstream::server_identity()
  base::SocketAddress address;
  HealthKind kind = HealthKind::kHttp;
  std::string method = "GET";
  std::string path = "/_health";           // with a query, if there is one
  std::string host;                        // of the Host field; empty: the address
  std::vector<HealthHeader> headers;       // added; Host and what frames the request are ours
  std::vector<StatusRange> status = {{}};  // good ones
  // Has to be in the content, within its first body_bytes_max bytes. Empty: the head decides.
  std::string body;
  uint32_t body_bytes_max = 65'536;
  uint32_t interval_ms = 5'000;  // from begin to begin
  uint32_t timeout_ms = 3'000;   // over connect, handshake, request and answer together
  uint32_t jitter_percent = 10;  // of the interval, at most added to it
  uint32_t unhealthy_threshold = 3;
  uint32_t healthy_threshold = 2;
  bool initially_healthy = true;
  // Of the control thread's engine, without kernel TLS. For kTls and kHttps only.
  std::shared_ptr<net::tls::ClientContext> tls;
  std::string tls_name;  // SNI, and what the certificate has to be for; empty: neither

  friend bool operator==(const HealthTarget&, const HealthTarget&) = default;
};

// What is wrong with the settings (not with the server), as a sentence; empty: nothing.
std::string problem_of(const HealthTarget& target);

enum class HealthResult : uint8_t {
  kNone,  // never checked
  kPassed,
  kRefused,
  kUnreachable,
  kTimedOut,
  kClosed,     // closed or reset where more was due
  kHandshake,  // TLS
  kMalformed,  // the answer is not HTTP/1, or too long
  kStatus,
  kBody,
  kLocal,  // we could not even ask (descriptors, memory): counts neither way
};
std::string_view to_text(HealthResult result) noexcept;

// What is known of a server. Times are the reactor's (now_ms).
struct HealthState {
  bool healthy = true;
  bool checking = false;
  HealthResult last = HealthResult::kNone;
  std::string reason;        // of the last check, a phrase
  uint16_t status = 0;       // of the last check's answer; 0: there was none
  uint32_t passed_row = 0;   // in a row, up to now
  uint32_t failed_row = 0;   //
  uint64_t passed = 0;       // since it is a target
  uint64_t failed = 0;       //
  uint64_t changes = 0;      // of `healthy`
  uint64_t since_ms = 0;     // that it is healthy, or not
  uint64_t checked_ms = 0;   // when the last check ended
  uint64_t duration_us = 0;  // of the last check
  uint64_t next_ms = 0;      // when the next one is due
};

struct HealthChange {
  uint64_t identity = 0;
  bool healthy = false;
  bool turned = true;  // false: as before, but a pass was awaited
  std::string reason;  // of the check that turned it
};

struct HealthOptions {
  // As many sockets, and as many times 100 KiB, at most.
  size_t in_flight_max = 64;
};

struct CheckPlan;
struct CheckRun;
struct CheckResult;

class HealthChecker {
 public:
  static constexpr size_t kHeadBytesMax = 16'384;
  // Called on a turn of the reactor; it may call set_targets() and stop(), but not destroy the
  // checker.
  using OnChange = std::function<void(const HealthChange&)>;

  // `engine` may be null if no target speaks TLS; else it outlives all the reactor's connections.
  HealthChecker(runtime::Reactor& reactor, net::tls::Engine* engine, const HealthOptions& options,
                OnChange on_change);
  HealthChecker(const HealthChecker&) = delete;
  HealthChecker& operator=(const HealthChecker&) = delete;
  ~HealthChecker();  // stopped

  // problem_of() each is empty; of those with one identity the first counts. One that was a target
  // before keeps its state, also if it is asked in another way now; a check of the old kind that is
  // under way is given up. The others are forgotten without a report.
  void set_targets(const std::vector<HealthTarget>& targets);
  // The next check that the server passes is reported, whatever it was before.
  void await_pass(uint64_t identity) noexcept;
  [[nodiscard]] const HealthState* find(uint64_t identity) const;  // null: no target
  [[nodiscard]] size_t targets() const noexcept { return entries_.size(); }
  [[nodiscard]] size_t in_flight() const noexcept { return in_flight_; }
  [[nodiscard]] size_t waiting() const noexcept { return queue_.size(); }

  // Gives up all checks, now and for good.
  void stop() noexcept;
  [[nodiscard]] bool stopped() const noexcept { return stopping_ && tasks_.running() == 0; }

 private:
  friend struct CheckRun;
  struct Entry;
  struct EntryTimer : runtime::Timer {
    explicit EntryTimer(Entry& owner) noexcept;
    Entry& entry;
  };
  struct Entry {
    Entry(HealthChecker& owner, const HealthTarget& target);
    HealthChecker& checker;
    std::shared_ptr<const CheckPlan> plan;
    HealthState state;
    CheckRun* run = nullptr;  // under way
    bool queued = false;
    bool pass_awaited = false;
    EntryTimer timer;
  };
  void due(Entry& entry);
  void begin(Entry& entry);
  void begin_queued();
  void replan(Entry& entry, const HealthTarget& target);
  void forget(Entry& entry);
  void wait_for_next(Entry& entry, uint64_t delay_ms);
  runtime::Task<> check_once(std::unique_ptr<CheckRun> run);
  // True: it turned.
  bool take(Entry& entry, CheckResult& result, uint64_t began_ns);

  runtime::Reactor& reactor_;
  net::tls::Engine* engine_;
  HealthOptions options_;
  OnChange on_change_;
  base::Prng chance_;
  std::map<uint64_t, std::unique_ptr<Entry>> entries_;
  std::deque<Entry*> queue_;  // due, but too many are in flight
  size_t in_flight_ = 0;
  bool stopping_ = false;
  runtime::TaskGroup tasks_;
};

}  // namespace weir::control
