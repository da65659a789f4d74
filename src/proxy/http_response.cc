// Exchange, fourth part: the origin's answer, from its first byte to the client's last.
#include <weir/http/h1/parser.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "exchange.h"
#include "head_writer.h"

namespace weir::proxy {

using base::Errc;
using http::BodyFraming;
using http::Method;
using http::h1::ParseResult;
using net::ReadEvent;
using net::Transport;
using runtime::Task;
using upstream::CircuitOutcome;

namespace {
// 1xx responses to one request; more is an origin gone wrong.
constexpr unsigned kInterimMax = 16;

uint32_t step_ms(const route::RetrySpec& retry) noexcept {
  uint32_t least = UINT32_MAX;
  for (const uint32_t limit : {retry.try_timeout_ms, retry.total_timeout_ms}) {
    if (limit != 0) least = std::min(least, std::max<uint32_t>(limit / 16, 1));
  }
  return least;
}

// What an answer says of the server's health: these three are for want of it.
CircuitOutcome outcome_of(uint16_t status) noexcept {
  return status >= 502 && status <= 504 ? CircuitOutcome::kBad : CircuitOutcome::kGood;
}
}  // namespace

// Looks at what has arrived of the response head. kNeedMore: all of it was taken aside.
ParseResult Exchange::parse_response(Transport& origin) {
  const std::string_view bytes = scratch_input_.empty() ? origin.front() : scratch_input_;
  constexpr http::h1::HeadLimits limits;  // the settings are about requests
  response_seen_ = true;
  ParseResult parsed;
  size_t before = 0;
  if (response_text_.empty()) {
    parsed = http::h1::parse_response_head(bytes, 0, limits, request_.method, response_);
    if (parsed.state == ParseResult::State::kNeedMore) response_text_.assign(bytes);
  } else {
    before = response_text_.size();
    response_text_.append(bytes);
    parsed =
        http::h1::parse_response_head(response_text_, before, limits, request_.method, response_);
  }
  response_head_bytes_ = bytes.size();
  if (parsed.state == ParseResult::State::kNeedMore) consume_response_head();
  if (parsed.state == ParseResult::State::kComplete)
    response_head_bytes_ = parsed.consumed - before;
  return parsed;
}

// Drops the bytes of the head (or of a part of it) from where they came.
void Exchange::consume_response_head() noexcept {
  if (scratch_input_.empty()) {
    origin_->transport->consume(response_head_bytes_);
  } else {
    scratch_input_.remove_prefix(response_head_bytes_);
  }
}

// Before a suspension. Not to buffers of the stream: direct mode is also where starved streams are.
void Exchange::put_scratch_aside() {
  if (scratch_input_.empty()) return;
  std::string rest(scratch_input_);
  scratch_aside_ = std::move(rest);
  scratch_input_ = scratch_aside_;
}

Exchange::Attempt Exchange::response_malformed(const char* reason) noexcept {
  ++worker_->counters.bad_responses;
  WEIR_LOG_LIMITED(worker_->logger, kWarn, "upstream", "malformed response", {"reason", reason},
                   {"upstream", endpoint_->upstream_name()},
                   {"address", endpoint_->address_text()});
  upstream_error_ = {.code = Errc::kMalformed, .side = base::Side::kUpstream};
  failure_ = TryFailure::kOther;
  return Attempt::kFailed;
}

Task<Exchange::Attempt> Exchange::read_response() {
  unsigned interims = 0;
  if (may_hedge() && !origin_->transport->has_data()) co_await hedge();
  Transport& origin = *origin_->transport;
  uint64_t deadline = response_deadline_ms();
  while (true) {
    if (!origin.has_data() && scratch_input_.empty()) {
      const ReadEvent event = co_await origin.readable(deadline);
      if (event == ReadEvent::kTimeout && request_error_status_ == 0) {
        deadline = response_deadline_ms();
        if (deadline > worker_->reactor.now_ms()) continue;
      }
      if (event != ReadEvent::kData) co_return response_failed(event);
      if (origin.direct_mode() && !origin.has_data()) {
        const ssize_t got = origin.recv_direct(worker_->scratch(), Worker::kScratchBytes);
        if (got == -EAGAIN) continue;
        if (got <= 0) co_return response_failed(got == 0 ? ReadEvent::kEnd : ReadEvent::kError);
        scratch_input_ = {worker_->scratch(), static_cast<size_t>(got)};
      }
    }
    const ParseResult parsed = parse_response(origin);
    if (parsed.state == ParseResult::State::kNeedMore) continue;
    if (parsed.state == ParseResult::State::kError) co_return response_malformed(parsed.reason);
    if (response_.status >= 200) co_return co_await answer();
    if (response_.status == 101) co_return co_await switch_protocols();
    if (++interims > kInterimMax) co_return response_malformed("too many 1xx responses");
    if (!co_await pass_interim()) co_return Attempt::kFailed;
  }
}

// The time counts from the end of the request; while that is still being sent, its own timeouts
// watch over it.
uint64_t Exchange::response_deadline_ms() const noexcept {
  const bool sending = children_.running() != 0 && rival_ == nullptr;
  // Whoever sends it does not wake us when it is done: the shorter limits are looked at in steps.
  if (sending) return worker_->reactor.now_ms() + std::min(response_timeout_ms_, step_ms(*retry_));
  return std::min(request_end_ms_ + response_timeout_ms_, try_deadline_ms());
}

Exchange::Attempt Exchange::response_failed(ReadEvent event) noexcept {
  switch (event) {
    case ReadEvent::kInterrupted: return Attempt::kFailed;
    case ReadEvent::kTimeout:
      upstream_error_ = {.code = Errc::kTimedOut};
      failure_ = TryFailure::kTimeout;
      return Attempt::kFailed;
    case ReadEvent::kError: upstream_error_ = origin_->transport->error(); break;
    default: upstream_error_ = {.code = Errc::kClosed}; break;
  }
  failure_ = failure_of(upstream_error_);
  return may_retry_stale() ? Attempt::kRetryFresh : Attempt::kFailed;
}

Task<bool> Exchange::pass_interim() {
  const bool wanted = request_.minor_version >= 1;  // RFC 9110 15.2: never to HTTP/1.0
  if (response_.status == 100) expects_ = false;
  if (wanted) {
    out_.fill(worker_->reactor.buffers(),
              [&](base::ByteWriter& out) { write_interim_head(out, response_, pin_->settings); });
  }
  consume_response_head();
  response_text_.clear();
  put_scratch_aside();
  if (!wanted) co_return true;
  iovec piece{out_.data(), out_.size()};
  const auto sent = co_await client_->transport->send(&piece, 1, pin_->settings.send_timeout_ms);
  if (!sent) {
    const bool slow = sent.error().code == Errc::kTimedOut;
    if (cancelled_ == log::Reason::kNone) {
      cancelled_ = slow ? log::Reason::kClientTimeout : log::Reason::kClientGone;
    }
    co_return false;
  }
  record_.bytes_out += out_.size();
  co_return true;
}

// An answer that only says that the server cannot: another one is asked, if there is one. Its
// connection is kept where the rest of the answer is here already.
bool Exchange::wants_other_answer() noexcept {
  if (response_.status < 500 || retry_->on_status.empty()) return false;
  // With content under way it is not sure yet that it can be repeated.
  if (children_.running() != 0 || !request_body_.complete()) return false;
  if (!may_try_again(TryFailure::kStatus)) return false;
  upstream::Pool* const pool = worker_->upstreams.pool(upstream_id_);
  if (pool == nullptr || !pool->try_retry()) return false;
  upstream::Turn next = pool->choose(pick());
  if (!next) {
    pool->take_back_retry();
    return false;
  }
  ++worker_->counters.failovers;
  WEIR_LOG_LIMITED(worker_->logger, kWarn, "upstream", "another server is asked",
                   {"upstream", endpoint_->upstream_name()}, {"address", endpoint_->address_text()},
                   {"status", response_.status});
  next_turn_ = std::move(next);
  connects_only_ = false;
  turn_.note_latency(worker_->reactor.now_ns());
  turn_.judge(outcome_of(response_.status));
  response_body_.start(response_.framing, response_.content_length);
  consume_response_head();
  const std::string_view ready = scratch_input_.empty() ? origin_->transport->front() : "";
  if (!response_body_.complete() && response_.framing == BodyFraming::kLength &&
      response_body_.left() <= ready.size()) {
    origin_->transport->consume(response_body_.take(ready).consumed);
  }
  origin_reusable_ = response_.keep_alive && response_body_.complete() && scratch_input_.empty();
  return true;
}

// The final head is here: write ours, then move the body.
Task<Exchange::Attempt> Exchange::answer() {
  if (wants_other_answer()) co_return Attempt::kRetryOther;
  unwatch_client();
  const BodyFraming framing = response_.framing;
  response_body_.start(framing, response_.content_length);
  const bool old_client = request_.minor_version == 0;
  const bool unknown_length =
      framing == BodyFraming::kChunked || framing == BodyFraming::kUntilClose;
  const bool chunked = unknown_length && !old_client;
  close_delimited_ = unknown_length && old_client;
  if (close_delimited_) keep_alive_ = false;
  if (!request_body_.complete() || worker_->draining() || client_->transport->worn_out()) {
    keep_alive_ = false;
  }
  origin_reusable_ = response_.keep_alive && framing != BodyFraming::kUntilClose;
  const bool with_length =
      framing == BodyFraming::kLength ||
      (framing == BodyFraming::kNone && response_.fields.has(http::KnownField::kContentLength) &&
       (request_.method == Method::kHead || response_.status == 304));
  const Persistence persistence = !keep_alive_ ? Persistence::kSayClose
                                  : old_client ? Persistence::kSayKeepAlive
                                               : Persistence::kDefault;
  const std::string sticky = sticky_line();
  out_.fill(worker_->reactor.buffers(), [&](base::ByteWriter& out) {
    write_response_head(out, response_, chunked, with_length, persistence, pin_->settings,
                        worker_->http_date(), sticky);
  });
  keep_trailers_ = !http::connection_nominates(response_.fields);
  record_.status = response_.status;
  record_.upstream_header_us = (worker_->reactor.now_ns() - upstream_start_ns_) / 1000;
  turn_.note_latency(worker_->reactor.now_ns());
  turn_.judge(outcome_of(response_.status));
  turn_.settle_trial();
  answered_ = true;
  request_out_.reset();  // it is never sent again
  consume_response_head();
  const uint64_t sent_before = record_.bytes_out;
  const bool whole = co_await send_response(chunked);
  if (!whole && record_.reason == log::Reason::kUpstreamMalformed &&
      record_.bytes_out == sent_before) {
    // The body was broken from its first byte on, and the head was still here: a 502 is possible.
    answered_ = false;
    --worker_->counters.upstream_errors;  // answer_failure() counts it
    co_return Attempt::kFailed;
  }
  if (!whole) broken_ = true;
  record_.upstream_us = (worker_->reactor.now_ns() - upstream_start_ns_) / 1000;
  co_return Attempt::kDone;
}

// A body that is here whole and fits behind the head goes with it in one buffer, and the origin's
// connection is given back before the client has taken anything.
Task<bool> Exchange::send_response(bool chunked) {
  if (!scratch_input_.empty()) {
    // One piece must be all of it: a chunked body (of which an HTTP/1.0 client gets the content
    // only) is many.
    if (!chunked && response_body_.framing() != BodyFraming::kChunked) {
      co_return co_await send_from_scratch();
    }
    // Not to buffers of the stream: direct mode is also where starved streams are.
    const std::string aside(std::exchange(scratch_input_, {}));
    co_return co_await relay_response(chunked, out_.view(), aside);
  }
  Transport& origin = *origin_->transport;
  const std::string_view ready = origin.front();
  const bool small =
      response_body_.complete() ||
      (response_body_.framing() == BodyFraming::kLength && response_body_.left() <= ready.size() &&
       response_body_.left() <= out_.room());
  if (!small || chunked) co_return co_await relay_response(chunked, out_.view(), {});
  if (!response_body_.complete()) {
    const BodyReader::Piece piece = response_body_.take(ready);
    out_.append(piece.data);
    origin.consume(piece.consumed);
  }
  release_origin();
  iovec piece{out_.data(), out_.size()};
  const auto sent = co_await client_->transport->send(&piece, 1, pin_->settings.send_timeout_ms);
  if (!sent) {
    client_failed(sent.error().code == Errc::kTimedOut);
    co_return false;
  }
  record_.bytes_out += out_.size();
  co_return true;
}

void Exchange::client_failed(bool timed_out) noexcept {
  if (record_.reason != log::Reason::kNone || cancelled_ != log::Reason::kNone) return;
  record_.reason = timed_out ? log::Reason::kClientTimeout : log::Reason::kClientGone;
  if (timed_out) ++worker_->counters.client_timeouts;
}

// The origin's connection is given back early, when nothing of it is needed any more.
void Exchange::release_origin() noexcept {
  if (!origin_reusable_ || children_.running() != 0 || !request_body_.complete()) return;
  // An origin that answers before it has the whole request waits for the rest of it.
  if (request_relay_end_ != RelayEnd::kComplete) return;
  give_back_origin();
}

// An origin whose last answer was large is likely to send another: it stays in direct mode.
void Exchange::give_back_origin() noexcept {
  constexpr uint64_t kStillLarge = 16 * 1024;
  Transport& origin = *origin_->transport;
  if (origin.direct_mode() && response_body_.content_bytes() < kStillLarge)
    origin.start_receiving();
  endpoint_->release(std::move(origin_));
  turn_.end();
}

// Direct mode: head and body go out in one message, straight from the scratch. What the client does
// not take at once is copied aside before anybody else may use the scratch.
Task<bool> Exchange::send_from_scratch() {
  const BodyReader::Piece piece = response_body_.take(scratch_input_);
  if (piece.consumed < scratch_input_.size()) origin_reusable_ = false;  // bytes behind the answer
  scratch_input_ = {};
  iovec pieces[2] = {{out_.data(), out_.size()},
                     {const_cast<char*>(piece.data.data()), piece.data.size()}};
  const size_t bytes = out_.size() + piece.data.size();
  const ssize_t sent = client_->transport->send_direct(pieces, 2);
  if (sent < 0 && sent != -EAGAIN) {
    client_failed(false);
    co_return false;
  }
  worker_->counters.body_bytes_direct += piece.data.size();
  const size_t taken = sent > 0 ? static_cast<size_t>(sent) : 0;
  std::string rest;
  if (taken < bytes) {
    const size_t of_head = std::min(taken, out_.size());
    rest.reserve(bytes - taken);
    rest.append(out_.view().substr(of_head));
    rest.append(piece.data.substr(taken - of_head));
  }
  record_.bytes_out += bytes - rest.size();
  if (rest.empty() && client_->transport->unsent()) {
    const uint32_t timeout = pin_->settings.send_timeout_ms;
    const auto later = co_await client_->transport->send(nullptr, 0, timeout);
    if (!later) {
      client_failed(later.error().code == Errc::kTimedOut);
      co_return false;
    }
  }
  if (response_body_.complete() && rest.empty()) {
    release_origin();
    co_return true;
  }
  co_return co_await relay_response(false, rest, {});
}

Task<bool> Exchange::relay_response(bool chunked, std::string_view head, std::string_view input) {
  Relay relay{.worker = *worker_,
              .from = *origin_->transport,
              .to = *client_->transport,
              .body = response_body_,
              .out = chunked ? OutFraming::kChunked : OutFraming::kRaw,
              .read_timeout_ms = read_timeout_ms_,
              .send_timeout_ms = pin_->settings.send_timeout_ms,
              .head = head,
              .input = input,
              .splice_min = pin_->settings.splice_min,
              .nothing_behind = true,
              .keep_trailers = keep_trailers_};
  // The rest needs nothing of the routes, and a long download must not hold an old configuration:
  // finish() looks at the settings of then.
  retry_ = nullptr;
  sticky_ = nullptr;
  pin_.reset();
  watch_client();  // it may leave while the origin pauses
  const RelayEnd end = co_await relay_body(relay);
  unwatch_client();
  pin_ = worker_->generations.pin();
  record_.bytes_out += relay.bytes_sent;
  // Bytes behind the answer.
  if (!relay.input.empty() || relay.lost_input) origin_reusable_ = false;
  // Our own cancel ends the origin's stream too: that completes nothing.
  const bool cut =
      cancelled_ != log::Reason::kNone && response_body_.framing() == BodyFraming::kUntilClose;
  if (end == RelayEnd::kComplete && !cut) co_return true;
  if (cancelled_ != log::Reason::kNone) co_return false;  // finish() says why
  ++worker_->counters.upstream_errors;
  const bool clients = end == RelayEnd::kSinkError || end == RelayEnd::kSinkTimeout;
  if (!clients) turn_.judge(CircuitOutcome::kBad);
  switch (end) {
    case RelayEnd::kSinkError:
    case RelayEnd::kSinkTimeout:
      --worker_->counters.upstream_errors;
      client_failed(end == RelayEnd::kSinkTimeout);
      break;
    case RelayEnd::kSourceTimeout: record_.reason = log::Reason::kUpstreamTimeout; break;
    case RelayEnd::kSourceEnded: record_.reason = log::Reason::kUpstreamClosed; break;
    case RelayEnd::kSourceMalformed:
      record_.reason = log::Reason::kUpstreamMalformed;
      response_malformed(relay.reason);
      break;
    default: record_.reason = log::Reason::kUpstreamReset; break;
  }
  co_return false;
}

}  // namespace weir::proxy
