// One upstream as one core sees it: its servers and how they are chosen, what passive checks and
// circuit breakers say of them, the budget for retries, and the requests that wait for a server
// with room. Everything belongs to the core's thread. Bounds: the servers of a balancer, this
// core's share of max_pending waiting requests, each with a deadline.
#pragma once

#include <coroutine>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <weir/base/intrusive_list.h>
#include <weir/net/tls/engine.h>
#include <weir/runtime/reactor.h>
#include <weir/runtime/task.h>
#include <weir/upstream/balance.h>
#include <weir/upstream/balance_sticky.h>
#include <weir/upstream/endpoint.h>
#include <weir/upstream/outlier.h>
#include <weir/upstream/retry_budget.h>
#include <weir/upstream/sample.h>

namespace weir::upstream {

class Pool;

// A server that was chosen for a request, which it counts as its own until end() or the destructor,
// whichever comes first.
class Turn {
 public:
  Turn() noexcept = default;
  Turn(Turn&& other) noexcept { swap(other); }
  Turn& operator=(Turn&& other) noexcept {
    end();
    swap(other);
    return *this;
  }
  ~Turn() { end(); }

  // Nothing was chosen, or it has ended.
  explicit operator bool() const noexcept { return pool_ != nullptr; }
  // Why nothing was chosen.
  [[nodiscard]] NoServer missing() const noexcept { return choice_.missing; }
  // Those below are for one that has not ended.
  [[nodiscard]] Endpoint& endpoint() const noexcept { return *endpoint_; }
  [[nodiscard]] uint64_t identity() const noexcept { return choice_.identity; }
  [[nodiscard]] uint64_t tag() const noexcept { return tag_; }  // in sticky cookies; 0: none
  [[nodiscard]] uint32_t race_group() const noexcept { return race_group_; }
  // The server's time counts from here, not from the choice.
  void restart_clock(uint64_t now_ns) noexcept { begin_ns_ = now_ns; }
  // It has answered, or was waited for in vain; a turn that ends without says nothing of its speed.
  void note_latency(uint64_t now_ns) noexcept {
    latency_ns_ = now_ns > begin_ns_ ? now_ns - begin_ns_ : 1;
  }
  // Nothing could be connected: a check that can shows that this is over.
  void note_unreachable() noexcept { unreachable_ = true; }
  // What it says of the server's health; nothing by default.
  void judge(CircuitOutcome outcome) noexcept { outcome_ = outcome; }
  // It has answered; a circuit's trial is over with that, however long what follows may last.
  void settle_trial() noexcept;
  void end() noexcept;

 private:
  friend class Pool;
  void swap(Turn& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(endpoint_, other.endpoint_);
    std::swap(choice_, other.choice_);
    std::swap(tag_, other.tag_);
    std::swap(race_group_, other.race_group_);
    std::swap(circuit_round_, other.circuit_round_);
    std::swap(outcome_, other.outcome_);
    std::swap(unreachable_, other.unreachable_);
    std::swap(begin_ns_, other.begin_ns_);
    std::swap(latency_ns_, other.latency_ns_);
  }

  Pool* pool_ = nullptr;
  Endpoint* endpoint_ = nullptr;
  Choice choice_;
  uint64_t tag_ = 0;
  uint32_t race_group_ = 0;
  uint32_t circuit_round_ = 0;
  CircuitOutcome outcome_ = CircuitOutcome::kUnknown;
  bool unreachable_ = false;
  uint64_t begin_ns_ = 0;
  uint64_t latency_ns_ = 0;
};

// What a waiting request can be stopped by; a field of the exchange.
class WaitHandle {
 public:
  WaitHandle() noexcept = default;
  WaitHandle(const WaitHandle&) = delete;
  WaitHandle& operator=(const WaitHandle&) = delete;
  // Makes the wait under way, if any, end soon, without a server.
  void cancel() noexcept;

 private:
  friend class Pool;
  struct Waiter;
  Waiter* waiter_ = nullptr;
};

// A server was put aside, or is back.
struct PoolEvent {
  std::string_view upstream;
  std::string_view address;
  std::string_view cause;  // "consecutive_errors", "error_ratio", "latency", "circuit_breaker"
  uint32_t upstream_id = 0;
  uint64_t identity = 0;
  bool ejected = false;
  bool unreachable = false;  // of an ejection: nothing could be connected
  uint64_t for_ms = 0;       // of an ejection
};

class Pool {
 public:
  using OnEvent = void (*)(void* context, const PoolEvent& event);

  Pool(runtime::Reactor& reactor, uint32_t cores, uint64_t random_seed, OnEvent on_event,
       void* context);
  Pool(const Pool&) = delete;  // turns know where it is
  Pool& operator=(const Pool&) = delete;
  ~Pool();  // no turn is under way, nobody waits

  // Takes over settings and servers; `endpoints` has one for each of spec.servers (null: none yet).
  void set(const route::UpstreamSpec& spec, std::span<Endpoint* const> endpoints);
  // The newest configuration does not name it: nobody waits for it any longer.
  void send_waiters_away() noexcept;
  // And nobody else does either: nothing is chosen from now on.
  void retire();
  // What control says of a server. False: there is none.
  bool set_server(uint64_t identity, ServerState state, uint32_t weight);
  // A check has reached the server: an ejection because it could not be reached is over.
  void note_reached(uint64_t identity);

  // Chooses a server and counts the request there.
  Turn choose(const Pick& pick) noexcept;
  // When choose() said kFull: waits for a server with room, not longer than pending_timeout and
  // `deadline_ms`; first come first served, but those that have tried a server before the others. A
  // turn that is none says kFull (no room in the queue, waited in vain, cancelled), kDown or
  // kTried.
  runtime::Task<Turn> wait(WaitHandle& handle, Pick pick, uint64_t deadline_ms);

  // Of the retry budget: a request, and whether one more try may be made.
  void note_request() noexcept { budget_.note_request(reactor_.now_ms()); }
  bool try_retry() noexcept;
  // It was not made after all.
  void take_back_retry() noexcept;
  void note_hedge() noexcept { ++counts_.hedged; }

  // Of the sticky cookie; empty and 0 where there is none. `now_s`: since 1970.
  [[nodiscard]] bool sticky() const noexcept { return signer_.has_value(); }
  [[nodiscard]] uint64_t read_cookie(std::string_view value, uint32_t now_s) noexcept;
  void write_cookie(std::span<char, StickySigner::kValueBytes> out, uint64_t tag,
                    uint32_t now_s) noexcept;

  [[nodiscard]] Balancer& balancer() noexcept { return balancer_; }
  [[nodiscard]] size_t servers() const noexcept { return balancer_.servers().size(); }
  [[nodiscard]] const std::shared_ptr<net::tls::ClientContext>& tls() const noexcept {
    return tls_;
  }
  void set_tls(std::shared_ptr<net::tls::ClientContext> tls) noexcept { tls_ = std::move(tls); }
  // Nothing refers to it, nobody waits, and it has no servers.
  [[nodiscard]] bool unused() const noexcept {
    return balancer_.unused() && active_ == 0 && waiting_ == 0;
  }
  void sample(uint32_t id, UpstreamScrape& out) const;

 private:
  friend class Turn;
  friend class WaitHandle;
  struct ReviewTimer : runtime::Timer {
    explicit ReviewTimer(Pool& owner) noexcept : Timer(&Pool::on_review), pool(owner) {}
    Pool& pool;
  };
  void set_rules(const route::UpstreamSpec& spec);
  std::vector<ServerFacts> facts_of(const route::UpstreamSpec& spec,
                                    std::span<Endpoint* const> endpoints);
  void set_outliers(const route::OutlierSpec& spec);
  static void on_review(runtime::Timer& timer) noexcept;
  void review() noexcept;
  void review_by(uint64_t at_ms) noexcept;
  void take_word(BalancedServer& server, ServerState state, uint32_t weight);
  Turn begin(const Choice& choice, uint64_t now_ns) noexcept;
  void end(const Turn& turn) noexcept;
  void judge(BalancedServer& server, const Turn& turn) noexcept;
  void settle_trial(Turn& turn) noexcept;
  void note_circuit(BalancedServer& server, uint32_t round, CircuitOutcome outcome) noexcept;
  void note_outcome(const Turn& turn) noexcept;
  void apply(const OutlierChange& change) noexcept;
  void refresh(BalancedServer& server) noexcept;
  void tell(const BalancedServer& server, std::string_view cause, bool ejected,
            uint64_t for_ms) noexcept;
  void serve_waiters() noexcept;
  bool serve(WaitHandle::Waiter& waiter) noexcept;
  [[nodiscard]] bool full(bool has_place = false) const noexcept {
    return active_max_ != 0 && active_ - (has_place ? 1 : 0) >= active_max_;
  }

  runtime::Reactor& reactor_;
  const uint32_t cores_;
  const OnEvent on_event_;
  void* const context_;
  std::string name_;
  uint32_t id_ = 0;
  Balancer balancer_;
  std::shared_ptr<net::tls::ClientContext> tls_;
  route::OutlierSpec outlier_spec_;
  route::CircuitSpec circuit_;
  route::StickySpec sticky_spec_;
  std::unique_ptr<Outliers> outliers_;  // null: no passive checks
  std::vector<OutlierChange> changes_;
  RetryBudget budget_{{}};
  std::optional<StickySigner> signer_;
  uint32_t active_ = 0;
  uint32_t active_max_ = 0;  // this core's share; 0: no limit
  uint32_t waiting_ = 0;
  uint32_t waiting_max_ = 0;
  uint32_t wait_timeout_ms_ = 0;
  base::IntrusiveList<WaitHandle::Waiter> waiters_;
  base::IntrusiveList<WaitHandle::Waiter> retrying_;  // that have tried some server
  UpstreamSample counts_;
  ReviewTimer review_timer_;
};

inline void Turn::end() noexcept {
  if (pool_ == nullptr) return;
  // What it is told of may be asked in return.
  Pool& pool = *std::exchange(pool_, nullptr);
  pool.end(*this);
}

}  // namespace weir::upstream
