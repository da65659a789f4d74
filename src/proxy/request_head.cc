// Exchange, first part: from bytes to a request head that may be routed.
#include <cstring>

#include <weir/base/check.h>
#include <weir/http/h1/parser.h>
#include <weir/http/uri.h>

#include "exchange.h"

namespace weir::proxy {

using http::h1::ParseResult;
using net::ReadEvent;
using runtime::Task;

namespace {
constexpr size_t kPathBytesMax = 64 * 1024;  // what max_request_line allows

log::Reason reason_for(uint16_t status) noexcept {
  switch (status) {
    case 413:
    case 414:
    case 431: return log::Reason::kTooLarge;
    case 417:
    case 501:
    case 505: return log::Reason::kUnsupported;
    default: return log::Reason::kBadRequest;
  }
}
}  // namespace

void Exchange::prepare(ClientConnection& connection) {
  client_ = &connection;
  worker_ = &connection.worker;
  pin_ = worker_->generations.pin();
  request_.reset();
  head_known_ = false;
  path_ = host_ = {};
  request_body_.start(http::BodyFraming::kNone, 0);
  request_body_failed_ = false;
  replayable_ = true;
  body_bytes_max_ = UINT64_MAX;
  request_relay_end_ = RelayEnd::kComplete;
  request_error_status_ = 0;
  response_seen_ = origin_reusable_ = answered_ = broken_ = keep_alive_ = expects_ = false;
  close_delimited_ = false;
  upstream_error_ = {};
  endpoint_ = nullptr;
  cancelled_ = log::Reason::kNone;
  grace_.exchange = this;
  record_ = log::AccessRecord{};
  start_ns_ = worker_->reactor.now_ns();
  record_.start_us = worker_->reactor.unix_us();
  record_.core = worker_->core;
  record_.listener = connection.listener.id;
  const auto id = worker_->next_request_id();
  record_.request_id_high = id.high;
  record_.request_id_low = id.low;
}

void Exchange::clear() noexcept {
  WEIR_DCHECK(!turn_);
  if (upstream::Endpoint* held = std::exchange(endpoint_, nullptr)) held->let_go();
  pin_.reset();
  head_buffer_.reset();
  out_.reset();
  request_out_.reset();
  // Large strings are rare; keeping their memory in every spare exchange would add up.
  for (std::string* text :
       {&head_text_, &response_text_, &scratch_aside_, &retained_, &path_storage_}) {
    if (text->capacity() > 1024) {
      *text = std::string();
    } else {
      text->clear();
    }
  }
  request_body_.start(http::BodyFraming::kNone, 0);
  response_body_.start(http::BodyFraming::kNone, 0);
}

Exchange::HeadRead Exchange::refuse_head(const ParseResult& parsed) noexcept {
  ++worker_->counters.bad_requests;
  request_error_status_ = parsed.status;
  WEIR_LOG_LIMITED(worker_->logger, kInfo, "http", "request refused", {"status", parsed.status},
                   {"reason", parsed.reason});
  record_.reason = reason_for(parsed.status);
  return HeadRead::kRefused;
}

// The usual case: the whole head is in the first buffer, and its views stay there.
bool Exchange::parse_in_place(HeadRead& outcome) {
  net::Transport& transport = *client_->transport;
  if (worker_->reactor.buffers().scarce()) return false;  // the head may be needed for long
  const std::string_view bytes = transport.front();
  const ParseResult parsed =
      http::h1::parse_request_head(bytes, 0, pin_->settings.head_limits, request_);
  if (parsed.state == ParseResult::State::kNeedMore) return false;
  if (parsed.state == ParseResult::State::kError) {
    record_.bytes_in += parsed.consumed;
    outcome = refuse_head(parsed);
    return true;
  }
  head_buffer_ = transport.split_front(parsed.consumed);
  if (!head_buffer_) return false;  // no buffer for what follows: copied by the caller's slow path
  record_.bytes_in += parsed.consumed;
  outcome = HeadRead::kComplete;
  return true;
}

Task<Exchange::HeadRead> Exchange::read_request_head(uint64_t deadline_ms) {
  net::Transport& transport = *client_->transport;
  HeadRead outcome = HeadRead::kGone;
  if (parse_in_place(outcome)) co_return outcome;
  // A head in pieces is gathered in memory of its own size, so that many slow clients do not hold
  // many buffers.
  while (true) {
    while (transport.has_data()) {
      const std::string_view bytes = transport.front();
      const size_t before = head_text_.size();
      head_text_.append(bytes);
      const ParseResult parsed =
          http::h1::parse_request_head(head_text_, before, pin_->settings.head_limits, request_);
      if (parsed.state == ParseResult::State::kNeedMore) {
        transport.consume(bytes.size());
        continue;
      }
      record_.bytes_in += parsed.consumed;
      if (parsed.state == ParseResult::State::kError) co_return refuse_head(parsed);
      transport.consume(parsed.consumed - before);
      co_return HeadRead::kComplete;
    }
    const ReadEvent event = co_await transport.readable(deadline_ms);
    if (event == ReadEvent::kData) continue;
    record_.bytes_in += head_text_.size();
    if (event != ReadEvent::kTimeout) {
      record_.reason =
          event == ReadEvent::kInterrupted ? log::Reason::kShutdown : log::Reason::kClientGone;
      co_return HeadRead::kGone;
    }
    ++worker_->counters.client_timeouts;
    record_.reason = log::Reason::kClientTimeout;
    request_error_status_ = 408;
    co_return HeadRead::kRefused;
  }
}

// False: the target cannot be normalised (400).
bool Exchange::resolve_target() noexcept {
  if (request_.host.size() > sizeof host_storage_) return false;
  host_ = http::lowercase_host(request_.host, {host_storage_, sizeof host_storage_});
  if (request_.method == http::Method::kConnect) {
    path_ = "/";  // it has none, and routes are for paths
    return true;
  }
  if (request_.path.size() > kPathBytesMax) return false;
  const auto normal = http::normalise_path(request_.path, {worker_->scratch(), kPathBytesMax});
  if (!normal) return false;
  path_ = normal->path;
  if (normal->changed) {
    path_storage_.assign(normal->path);
    path_ = path_storage_;
  }
  return true;
}

Task<After> Exchange::serve(ClientConnection& connection, uint64_t head_deadline_ms) {
  prepare(connection);
  const HeadRead head = co_await read_request_head(head_deadline_ms);
  if (head == HeadRead::kGone) {
    broken_ = true;
  } else if (head == HeadRead::kRefused) {
    keep_alive_ = false;
    broken_ = false;
    co_await reply(request_error_status_, record_.reason);
    broken_ = true;  // framing is lost
  } else {
    head_known_ = true;
    ++worker_->counters.requests;
    co_await dispatch();
  }
  // Nothing of this exchange may be in flight past this point.
  co_await children_.join();
  worker_->reactor.timers().disarm(grace_);
  const bool silent = head == HeadRead::kGone && record_.bytes_in == 0;
  if (!silent) finish();
  After after = After::kKeepAlive;
  if (broken_ || !keep_alive_ || cancelled_ != log::Reason::kNone) {
    const bool client_done = connection.transport->ended() || connection.transport->failed();
    // A client that did not announce the end itself may have sent its next request by now.
    const bool all_read = request_body_.complete() && !connection.transport->has_data() &&
                          !broken_ && !request_.keep_alive;
    if (broken_ && close_delimited_) {
      clear();
      co_return After::kReset;
    }
    after =
        client_done || (all_read && head == HeadRead::kComplete) ? After::kClose : After::kLinger;
  }
  clear();
  co_return after;
}

}  // namespace weir::proxy
