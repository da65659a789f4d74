// Exchange: a second try beside the first.
#include "rival.h"

#include <algorithm>

#include <weir/http/head.h>

#include "exchange.h"

namespace weir::proxy {

using base::Result;
using net::ReadEvent;
using runtime::Task;
using upstream::CircuitOutcome;
using upstream::Connection;
using upstream::Endpoint;

void Exchange::stop_rival() noexcept {
  if (rival_ != nullptr) rival_->stop();
}

// What the rival has becomes the exchange's own.
void Exchange::take_over(Rival& rival) noexcept {
  take_turn(std::move(rival.turn));
  ++worker_->counters.failovers;
}

// ---- connecting, by IPv4 and IPv6 or to two servers

// `group`: of the servers that are the same host by another address; 0: hedging. Who is connected
// first has the request then, which nobody has got yet.
Task<Result<std::unique_ptr<Connection>>> Exchange::race_connect(bool fresh, uint32_t group,
                                                                 uint32_t head_start_ms) {
  Rival rival(worker_->reactor);
  rival_ = &rival;
  // Another server's kept connection would win each time over one that has none yet, which then
  // would never get one.
  rival.fresh = fresh || group == 0;
  rival.head_start.wake_at(worker_->reactor.now_ms() + head_start_ms);
  children_.spawn(run_connect_race(rival, group));
  auto leased = co_await endpoint_->acquire(acquire_, fresh, try_deadline_ms());
  const bool over = leased.has_value() || cancelled_ != log::Reason::kNone;
  // Whether another server is asked when the first has failed is a matter for retries.
  const bool for_retries = group == 0 && !rival.turn;
  if (over || for_retries) {
    rival.stop();
  } else {
    rival.head_start.wake();  // the first has failed: not a moment longer
  }
  co_await children_.join();
  rival_ = nullptr;
  if (!rival.connection) co_return leased;
  if (over) {
    // Connected in the same moment; but what is stopped sends nothing any more.
    Endpoint::discard(std::move(rival.connection));
    co_return leased;
  }
  // So that the next ones need not wait for it, unless it was us who had no room for it. A server
  // of its own is there for all that is known, but slow.
  if (failure_of(leased.error()) != TryFailure::kOther) {
    if (group != 0 || leased.error().code != base::Errc::kCancelled) turn_.note_unreachable();
    if (group == 0) turn_.note_latency(worker_->reactor.now_ns());
    turn_.judge(CircuitOutcome::kBad);
  }
  take_over(rival);
  co_return std::move(rival.connection);
}

Task<> Exchange::run_connect_race(Rival& rival, uint32_t group) {
  co_await rival.head_start;
  // It would fail for want of time, which is not its server's fault.
  if (rival.stopped || worker_->reactor.now_ms() >= try_deadline_ms()) co_return;
  if (!choose_rival(rival, group)) co_return;
  auto leased =
      co_await rival.turn.endpoint().acquire(rival.acquire, rival.fresh, try_deadline_ms());
  if (!leased) {
    note_unreached(rival, leased.error());
    rival.turn.end();
    co_return;
  }
  rival.connection = std::move(*leased);
  rival.won = !rival.stopped;
  if (rival.won) acquire_.cancel();
}

// Its server's failure, unless the rival was stopped, or there was no more time for this try.
void Exchange::note_unreached(Rival& rival, const base::Error& error) noexcept {
  if (rival.stopped || failure_of(error) == TryFailure::kOther) return;
  const bool late = worker_->reactor.now_ms() >= try_deadline_ms();
  if (late && error.code == base::Errc::kTimedOut) return;
  rival.turn.note_unreachable();
  rival.turn.judge(CircuitOutcome::kBad);
}

// ---- the same request to another server

bool Exchange::may_hedge() const noexcept {
  if (retry_->hedge_after_ms == 0 || hedged_ || !idempotent(request_.method)) return false;
  if (!request_body_.complete() || request_.framing != http::BodyFraming::kNone) return false;
  if (!upgrade_.empty()) return false;
  // A session's own server may be slow: another one knows nothing of it, and would take it over.
  if (sticky_tag_ != 0 && turn_.tag() == sticky_tag_) return false;
  // It is no retry: also where those are not wanted.
  return tried_count_ < servers_ && tried_count_ < std::max<uint32_t>(retry_->tries_max, 2);
}

// The other address of a host (`group`) costs nothing; another server (0) is a hedged request.
bool Exchange::choose_rival(Rival& rival, uint32_t group) noexcept {
  upstream::Pool* const pool = worker_->upstreams.pool(upstream_id_);
  if (pool == nullptr || (group == 0 && !pool->try_retry())) return false;
  upstream::Pick wanted = pick();
  wanted.race_group = group;
  wanted.sticky_tag = 0;
  wanted.has_place = false;
  rival.turn = pool->choose(wanted);
  if (group != 0) return static_cast<bool>(rival.turn);
  if (!rival.turn) {
    pool->take_back_retry();
    return false;
  }
  hedged_ = true;
  pool->note_hedge();
  ++worker_->counters.hedged;
  record_.tries = static_cast<uint8_t>(record_.tries + (record_.tries < 255 ? 1 : 0));
  return true;
}

// Ends when the first bytes of an answer are here, from the first server or, if that takes long,
// from another one, or when there will be none. The exchange has the connection of the quicker one
// then.
Task<> Exchange::hedge() {
  Rival rival(worker_->reactor);
  rival_ = &rival;
  rival.head_start.wake_at(worker_->reactor.now_ms() + retry_->hedge_after_ms);
  children_.spawn(run_hedge(rival));
  const ReadEvent event = co_await origin_->transport->readable(response_deadline_ms());
  // A first server that has failed before the second was asked is a matter for retries.
  const bool asked = rival.turn || rival.won;
  const bool failed = event == ReadEvent::kEnd || event == ReadEvent::kError;
  if (cancelled_ != log::Reason::kNone || !(rival.won || (failed && asked))) rival.stop();
  co_await children_.join();
  rival_ = nullptr;
  const bool taken = rival.won && event != ReadEvent::kData && cancelled_ == log::Reason::kNone;
  if (!taken) {
    if (rival.connection) Endpoint::discard(std::move(rival.connection));
    rival.turn.end();
    if (cancelled_ == log::Reason::kNone) origin_->transport->clear_interrupt();
    co_return;
  }
  Endpoint::discard(std::move(origin_));
  // Nobody will ever know whether it would have answered: one that always loses must show.
  turn_.judge(CircuitOutcome::kBad);
  turn_.note_latency(worker_->reactor.now_ns());
  take_over(rival);
  origin_ = std::move(rival.connection);
  record_.upstream_reused = origin_->exchanges > 0;
}

Task<> Exchange::run_hedge(Rival& rival) {
  co_await rival.head_start;
  if (rival.stopped || !choose_rival(rival, 0)) co_return;
  Endpoint& endpoint = rival.turn.endpoint();
  rival.connection = endpoint.try_idle();
  if (!rival.connection) {
    auto leased = co_await endpoint.acquire(rival.acquire, false, try_deadline_ms());
    if (!leased) {
      note_unreached(rival, leased.error());
      co_return;
    }
    rival.connection = std::move(*leased);
    if (rival.stopped) co_return;
  }
  net::Transport& origin = *rival.connection->transport;
  rival.turn.restart_clock(worker_->reactor.now_ns());
  iovec piece{const_cast<char*>(request_out_.view().data()), request_out_.size()};
  const bool reused = rival.connection->exchanges > 0;  // its end may have been on the way
  const auto sent = co_await origin.send(&piece, 1, origin_send_timeout_ms_);
  if (rival.stopped) co_return;
  const ReadEvent event =
      sent ? co_await origin.readable(response_deadline_ms()) : ReadEvent::kError;
  if (rival.stopped) co_return;
  if (event != ReadEvent::kData) {
    if (!reused && event != ReadEvent::kTimeout) rival.turn.judge(CircuitOutcome::kBad);
    co_return;
  }
  rival.won = true;
  origin_->transport->interrupt();
}

}  // namespace weir::proxy
