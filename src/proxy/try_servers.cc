// Exchange: one server after the other, until one has answered or there is no point in going on,
// and what a failure means for the client.
#include <algorithm>

#include "exchange.h"
#include "rival.h"

namespace weir::proxy {

using base::Errc;
using base::Error;
using base::Result;
using http::Method;
using runtime::Task;
using upstream::CircuitOutcome;
using upstream::Connection;
using upstream::Endpoint;
using upstream::NoServer;

namespace {

// nginx's number for "the client closed the connection"; only in the log.
constexpr uint16_t kStatusClientGone = 499;

uint16_t status_for(Error error) noexcept {
  switch (error.code) {
    case Errc::kTimedOut: return 504;
    case Errc::kLimit:
    case Errc::kNoFiles:
    case Errc::kNoMemory:
    case Errc::kNoBuffers: return 503;
    default: return 502;
  }
}

log::Reason reason_for(Error error) noexcept {
  switch (error.code) {
    case Errc::kTimedOut: return log::Reason::kUpstreamTimeout;
    case Errc::kReset: return log::Reason::kUpstreamReset;
    case Errc::kClosed: return log::Reason::kUpstreamClosed;
    case Errc::kMalformed: return log::Reason::kUpstreamMalformed;
    case Errc::kLimit: return log::Reason::kUpstreamBusy;
    case Errc::kHandshake: return log::Reason::kUpstreamTls;
    default: return log::Reason::kUpstreamConnect;
  }
}

// Not the server's fault, but want of something on our side.
bool is_ours(Error error) noexcept {
  return error.code == Errc::kLimit || error.code == Errc::kNoFiles ||
         error.code == Errc::kNoMemory || error.code == Errc::kNoBuffers;
}

}  // namespace

TryFailure failure_of(Error error) noexcept {
  switch (error.code) {
    case Errc::kTimedOut: return TryFailure::kTimeout;
    case Errc::kMalformed: return TryFailure::kOther;
    default: return is_ours(error) ? TryFailure::kOther : TryFailure::kReset;
  }
}

// RFC 9110 9.2.2. Unknown methods are not assumed to be.
bool idempotent(Method method) noexcept {
  return method == Method::kGet || method == Method::kHead || method == Method::kPut ||
         method == Method::kDelete || method == Method::kOptions;
}

void Exchange::begin_tries(const route::UpstreamSpec& spec) noexcept {
  retry_ = &spec.retry;
  sticky_ = spec.sticky.cookie.empty() ? nullptr : &spec.sticky;
  upstream_id_ = spec.id;
  tried_count_ = 0;
  servers_ = 0;
  failure_ = TryFailure::kNone;
  connects_only_ = true;
  sent_once_ = false;
  sticky_tag_ = 0;
  balance_key_ = balance_key(spec.balance);
  const uint64_t now_ms = worker_->reactor.now_ms();
  total_deadline_ms_ =
      retry_->total_timeout_ms == 0 ? UINT64_MAX : now_ms + retry_->total_timeout_ms;
  upstream::Pool* const pool = worker_->upstreams.pool(spec.id);
  if (pool == nullptr) return;
  servers_ = static_cast<uint32_t>(pool->servers());
  pool->note_request();
  if (pool->sticky()) read_sticky_cookie(*pool, spec.sticky.cookie);
}

Task<> Exchange::try_servers(const route::UpstreamSpec& spec) {
  // A tunnel never gets a connection that has served others.
  const bool connect = request_.method == Method::kConnect;
  bool fresh = connect;
  begin_tries(spec);
  if (!choose_server(spec) && !co_await wait_for_server(spec)) co_return co_await answer_failure();
  while (true) {
    if (cancelled_ != log::Reason::kNone) co_return co_await answer_failure();
    begin_try();
    std::unique_ptr<Connection> connection = fresh ? nullptr : endpoint_->try_idle();
    if (!connection) {
      auto leased = co_await lease(spec, fresh);
      if (!leased) {
        upstream_error_ = leased.error();
        failure_ = is_ours(upstream_error_) ? TryFailure::kOther : TryFailure::kConnect;
        if (cancelled_ == log::Reason::kNone) note_connect_failure(*endpoint_);
        if (!next_server(spec) && !co_await wait_for_server(spec)) {
          co_return co_await answer_failure();
        }
        fresh = connect;
        continue;
      }
      connection = std::move(*leased);
      if (cancelled_ != log::Reason::kNone) {  // while the connect won the race
        Endpoint::discard(std::move(connection));
        co_return co_await answer_failure();
      }
    }
    const Attempt outcome = connect ? co_await answer_connect(std::move(connection))
                                    : co_await attempt(std::move(connection));
    if (outcome == Attempt::kDone) {
      turn_.end();  // unless it ended with the connection given back early
      co_return;
    }
    if (outcome == Attempt::kRetryFresh) {
      ++worker_->counters.stale_retries;
      fresh = true;
      continue;
    }
    if (outcome == Attempt::kRetryOther) {
      take_turn(std::move(next_turn_));
    } else if (!next_server(spec) && !co_await wait_for_server(spec)) {
      co_return co_await answer_failure();
    }
    fresh = connect;
  }
}

void Exchange::begin_try() noexcept {
  record_.tries = static_cast<uint8_t>(std::min<unsigned>(record_.tries + 1u, 255));
  try_begin_ms_ = worker_->reactor.now_ms();
  failure_ = TryFailure::kNone;
  hedged_ = false;
}

// Until when the answer of this try has to begin, as far as the policy says.
uint64_t Exchange::try_deadline_ms() const noexcept {
  const uint64_t of_try =
      retry_->try_timeout_ms == 0 ? UINT64_MAX : try_begin_ms_ + retry_->try_timeout_ms;
  return std::min(of_try, total_deadline_ms_);
}

// A client's content has passed: the time it took is not the server's.
void Exchange::restart_clocks() noexcept {
  // It is over, also for an answer that proved bad before its head was sent: the policy is gone.
  if (answered_ || retry_ == nullptr) return;
  if (turn_) turn_.restart_clock(worker_->reactor.now_ns());
  try_begin_ms_ = worker_->reactor.now_ms();
  if (retry_->total_timeout_ms != 0) total_deadline_ms_ = try_begin_ms_ + retry_->total_timeout_ms;
}

// There are tries and servers left, whatever the failure will be.
bool Exchange::may_try_more() const noexcept {
  return tried_count_ < retry_->tries_max && tried_count_ < servers_;
}

// The policy has nothing against another try after this failure, and nothing was lost.
bool Exchange::may_try_again(TryFailure failure) const noexcept {
  if (retry_ == nullptr) return false;  // an answer has begun, and the policy is gone
  if (cancelled_ != log::Reason::kNone || request_error_status_ != 0 || answered_) return false;
  if (!replayable_ || !may_try_more()) return false;
  if (worker_->reactor.now_ms() >= total_deadline_ms_) return false;
  if (sent_once_ && !idempotent(request_.method) && !retry_->non_idempotent) return false;
  switch (failure) {
    case TryFailure::kNone:
    case TryFailure::kOther: return false;
    case TryFailure::kConnect: return retry_->on_connect;
    case TryFailure::kReset: return retry_->on_reset;
    case TryFailure::kTimeout: return retry_->on_timeout;
    case TryFailure::kStatus:
      return std::ranges::find(retry_->on_status, response_.status) != retry_->on_status.end();
  }
  return false;
}

// After a try that has failed: true: another server has the turn now.
bool Exchange::next_server(const route::UpstreamSpec& spec) noexcept {
  if (failure_ != TryFailure::kConnect) connects_only_ = false;
  judge_turn();
  missing_ = NoServer::kNone;
  if (!may_try_again(failure_)) return false;
  upstream::Pool* const pool = worker_->upstreams.pool(spec.id);
  if (pool == nullptr || !pool->try_retry()) return false;
  // The place in the upstream is kept: nobody who waits is to have it before this request goes on.
  if (!choose_server(spec)) {
    if (missing_ != NoServer::kFull) pool->take_back_retry();  // else it may wait
    return false;
  }
  ++worker_->counters.failovers;
  return true;
}

void Exchange::note_connect_failure(const Endpoint& endpoint) noexcept {
  if (upstream_error_.code == Errc::kHandshake) {
    WEIR_LOG_LIMITED(worker_->logger, kWarn, "upstream", "TLS handshake failed",
                     {"upstream", endpoint.upstream_name()}, {"address", endpoint.address_text()},
                     {"detail", endpoint.handshake_failure()});
    return;
  }
  WEIR_LOG_LIMITED(worker_->logger, kWarn, "upstream", "connect failed",
                   {"upstream", endpoint.upstream_name()}, {"address", endpoint.address_text()},
                   {"error", upstream_error_.code});
}

// What it means for the server that a try has failed: who keeps requests waiting is slow, who
// refuses them is not fast.
void Exchange::judge_turn() noexcept {
  const bool servers_own = cancelled_ == log::Reason::kNone && request_error_status_ == 0 &&
                           failure_ != TryFailure::kNone && !is_ours(upstream_error_);
  if (turn_ && servers_own) {
    if (upstream_error_.code == Errc::kTimedOut) turn_.note_latency(worker_->reactor.now_ns());
    if (failure_ == TryFailure::kConnect) {
      turn_.note_unreachable();
    } else if (failure_ != TryFailure::kOther) {
      WEIR_LOG_LIMITED(worker_->logger, kWarn, "upstream", "a try has failed",
                       {"upstream", endpoint_->upstream_name()},
                       {"address", endpoint_->address_text()}, {"error", upstream_error_.code});
    }
    turn_.judge(CircuitOutcome::kBad);
  }
}

// ---- a connection

Task<Result<std::unique_ptr<Connection>>> Exchange::lease(const route::UpstreamSpec& spec,
                                                          bool fresh) {
  // Also with content to come: nobody reads it yet.
  client_->transport->watch_end(&Exchange::on_client_end, this);
  if (cancelled_ != log::Reason::kNone) co_return base::fail(Errc::kCancelled);
  const uint64_t begin = worker_->reactor.now_ns();
  // The way by the other address comes first, where there is one: it is the same server.
  const bool race = spec.connect_race_ms != 0 && turn_.race_group() != 0;
  const uint32_t group = race ? turn_.race_group() : 0;
  const uint32_t head_start_ms = race ? spec.connect_race_ms : retry_->hedge_after_ms;
  auto leased = race || may_hedge()
                    ? co_await race_connect(fresh, group, head_start_ms)
                    : co_await endpoint_->acquire(acquire_, fresh, try_deadline_ms());
  if (!request_body_.complete()) client_->transport->unwatch_end();
  if (leased) record_.upstream_connect_us = (worker_->reactor.now_ns() - begin) / 1000;
  co_return leased;
}

// ---- no answer

// No response of the origin can be passed on: say why, if anybody is still there.
Task<> Exchange::answer_failure() {
  unwatch_client();
  judge_turn();
  turn_.end();
  if (answered_) {
    broken_ = true;
    co_return;
  }
  if (cancelled_ != log::Reason::kNone) {
    broken_ = true;
    record_.reason = cancelled_;
    record_.status = cancelled_ == log::Reason::kShutdown ? 503 : kStatusClientGone;
    co_return;
  }
  if (request_error_status_ != 0) co_return co_await refuse_body();
  if (tried_count_ == 0 && missing_ != NoServer::kFull) {
    co_await settle_request_body();
    co_return co_await reply(503, log::Reason::kNoUpstream);
  }
  ++worker_->counters.upstream_errors;
  if (upstream_error_.code == Errc::kTimedOut) ++worker_->counters.upstream_timeouts;
  co_await settle_request_body();
  // One server that cannot be reached is a bad gateway; several are an upstream that is not there.
  const bool none_there =
      connects_only_ && tried_count_ > 1 && upstream_error_.code != Errc::kTimedOut;
  co_await reply(none_there ? 503 : status_for(upstream_error_), reason_for(upstream_error_));
}

}  // namespace weir::proxy
