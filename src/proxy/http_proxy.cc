// Exchange, third part: one attempt at one origin. Send the request, read the answer, give the
// connection back.
#include <algorithm>

#include <weir/http/h1/chunked.h>

#include "exchange.h"
#include "head_writer.h"

namespace weir::proxy {

using base::Result;
using http::BodyFraming;
using net::Transport;
using runtime::Task;
using upstream::Connection;
using upstream::Endpoint;

namespace {

// Content kept for a retry on a fresh connection; more than that cannot be replayed.
constexpr size_t kRetainedMax = 64 * 1024;
}  // namespace

// ---- the client leaves

void Exchange::watch_client() noexcept {
  if (request_body_.complete()) client_->transport->watch_end(&Exchange::on_client_end, this);
}

void Exchange::unwatch_client() noexcept {
  client_->transport->unwatch_end();
  worker_->reactor.timers().disarm(grace_);
}

void Exchange::on_client_end(void* context, bool failed) noexcept {
  auto* self = static_cast<Exchange*>(context);
  if (failed) return self->cancel(log::Reason::kClientGone);
  // Where content is due, whoever reads it finds out whether this end came too early.
  if (!self->request_body_.complete()) return;
  // A FIN may be a client that only closed its sending side: it gets a moment for the answer.
  self->arm_grace();
}

void Exchange::arm_grace() noexcept {
  const Settings& settings = worker_->generations.current().settings;
  grace_.moved_bytes = response_body_.content_bytes() + record_.bytes_out;
  worker_->reactor.timers().arm(grace_, worker_->reactor.now_ms() + settings.half_close_grace_ms);
}

void Exchange::on_grace_over(runtime::Timer& timer) noexcept {
  Exchange& self = *static_cast<GraceTimer&>(timer).exchange;
  // An answer that has begun may take its time as long as it moves.
  const bool moves =
      self.client_->transport->sending() ||
      self.response_body_.content_bytes() + self.record_.bytes_out != self.grace_.moved_bytes;
  const bool grace = self.worker_->generations.current().settings.half_close_grace_ms != 0;
  if (self.answered_ && moves && grace) return self.arm_grace();
  self.cancel(log::Reason::kClientGone);
}

void Exchange::cancel(log::Reason reason) noexcept {
  if (cancelled_ != log::Reason::kNone) return;
  cancelled_ = reason;
  acquire_.cancel();
  wait_.cancel();
  stop_rival();
  if (tunnel_ != nullptr) return tunnel_->stop(TunnelEnd::kStopped);
  if (origin_) {
    origin_->transport->interrupt();
    origin_->transport->abort();
  }
}

void Exchange::prepare_request(const route::Route& route, const route::UpstreamSpec& spec) {
  read_timeout_ms_ = spec.read_timeout_ms;
  response_timeout_ms_ = spec.response_timeout_ms;
  origin_send_timeout_ms_ = spec.send_timeout_ms;
  const Settings& settings = pin_->settings;
  body_timeout_ms_ = settings.body_timeout_ms;
  splice_min_ = settings.splice_min;
  client_->know_peer();
  const bool trusted = !client_->peer_is_unix &&
                       std::ranges::any_of(settings.trusted_proxies, [&](const base::Cidr& block) {
                         return block.contains(client_->peer);
                       });
  const ForwardedFacts facts{.settings = &settings,
                             .client = client_->peer_text,
                             .client_is_v6 = !client_->peer_is_unix && !client_->peer.is_v4(),
                             .client_trusted = trusted,
                             .scheme = client_->scheme(),
                             .certificate = client_->certificate.get()};
  std::string_view host = spec.host_header;
  if (host.empty()) host = request_.authority;
  // Only HTTP/1.0 may lack a Host.
  if (host.empty()) {
    const route::ServerSpec& server = spec.servers.front();
    host = server.address.is_unix() ? std::string_view("localhost")
           : server.name.empty()    ? server.address_text
                                    : server.name;
  }
  const bool chunked = request_.framing == BodyFraming::kChunked;
  const route::Rewrite path = route::rewrite_path(route, path_);
  request_out_.fill(worker_->reactor.buffers(), [&](base::ByteWriter& out) {
    write_request_head(out, request_, path, host, chunked, facts, upgrade_);
  });
}

Task<> Exchange::proxy(const route::Route& route) {
  const route::UpstreamSpec& spec = pin_->routes->upstream(route.upstream);
  upstream_start_ns_ = worker_->reactor.now_ns();
  prepare_request(route, spec);
  co_await try_servers(spec);
}

// ---- one attempt

Task<Exchange::Attempt> Exchange::attempt(std::unique_ptr<Connection> leased) {
  origin_ = std::move(leased);
  response_seen_ = origin_reusable_ = false;
  response_text_.clear();
  scratch_input_ = {};  // of an attempt that ended in the middle of a head
  request_relay_end_ = RelayEnd::kComplete;
  record_.upstream_reused = origin_->exchanges > 0;
  Transport& origin = *origin_->transport;
  Attempt result = Attempt::kFailed;
  const auto sent = co_await send_request(origin);
  request_end_ms_ = worker_->reactor.now_ms();
  sent_once_ = true;
  if (!sent && !origin.has_data()) {
    // An origin that closes without a word; if it said something first, that is read below.
    upstream_error_ = sent.error();
    failure_ = failure_of(upstream_error_);
    result = may_retry_stale() ? Attempt::kRetryFresh : Attempt::kFailed;
  } else {
    if (!sent) request_relay_end_ = RelayEnd::kSinkError;
    if (!request_body_.complete() && sent) children_.spawn(relay_request_body());
    watch_client();
    result = co_await read_response();
  }
  const bool good = result == Attempt::kDone || result == Attempt::kRetryOther;
  co_await end_attempt(good && origin_reusable_ && !broken_);
  // Only now, with the child at its end, is it sure what became of the request body: more of it may
  // have passed than is kept, it may have proved bad, or its sender may have left.
  const bool may_retry =
      replayable_ && request_error_status_ == 0 && cancelled_ == log::Reason::kNone;
  if (result == Attempt::kRetryFresh && !may_retry) result = Attempt::kFailed;
  co_return result;
}

// Content that is sent is kept, since it may have to be sent again.
bool Exchange::may_repeat() const noexcept {
  if (retry_ == nullptr) return false;  // an answer has begun, and the policy is gone
  if (!replayable_ || !(idempotent(request_.method) || retry_->non_idempotent)) return false;
  return origin_->exchanges > 0 || may_try_more();
}

bool Exchange::may_retry_stale() const noexcept {
  return origin_->exchanges > 0 && !response_seen_ && replayable_ &&
         cancelled_ == log::Reason::kNone && request_error_status_ == 0 &&
         idempotent(request_.method);
}

// The head, what is to be said again after a failed attempt, and a body that is already here whole.
Task<Result<void>> Exchange::send_request(Transport& origin) {
  iovec pieces[6];
  unsigned count = 0;
  const auto add = [&](std::string_view bytes) {
    if (!bytes.empty()) pieces[count++] = {const_cast<char*>(bytes.data()), bytes.size()};
  };
  add(request_out_.view());
  const bool chunked = request_.framing == BodyFraming::kChunked;
  char size_line[http::h1::kChunkHeadBytesMax];
  if (!retained_.empty()) {
    if (chunked) add({size_line, http::h1::write_chunk_head(size_line, retained_.size())});
    add(retained_);
    if (chunked) add(http::h1::kChunkEnd);
  }
  OutBuffer last;
  if (chunked && request_body_.complete()) {
    const bool keep = !http::connection_nominates(request_.fields);
    last.fill(worker_->reactor.buffers(), [&](base::ByteWriter& out) {
      http::h1::append_last_chunk(out, keep ? request_body_.trailers() : nullptr);
    });
    add(last.view());
  }
  size_t consumed = 0;
  const std::string_view ready = client_->transport->front();
  if (request_.framing == BodyFraming::kLength && !request_body_.complete() &&
      ready.size() >= request_body_.left()) {
    const BodyReader::Piece piece = request_body_.take(ready);
    add(piece.data);
    consumed = piece.consumed;
  }
  const auto sent = co_await origin.send(pieces, count, origin_send_timeout_ms_);
  if (consumed > 0) {
    if (may_repeat()) {
      retained_.append(client_->transport->front().substr(0, consumed));
    } else {
      replayable_ = false;
    }
    client_->transport->consume(consumed);
  }
  co_return sent;
}

Task<> Exchange::relay_request_body() {
  Transport& client = *client_->transport;
  Relay relay{
      .worker = *worker_,
      .from = client,
      .to = *origin_->transport,
      .body = request_body_,
      .out = request_.framing == BodyFraming::kChunked ? OutFraming::kChunked : OutFraming::kRaw,
      .read_timeout_ms = body_timeout_ms_,
      .send_timeout_ms = origin_send_timeout_ms_,
      .bytes_max = body_bytes_max_,
      .splice_min = splice_min_,
      .keep_trailers = !http::connection_nominates(request_.fields)};
  if (may_repeat()) {
    relay.retain = &retained_;
    relay.retain_max = kRetainedMax;
  }
  const RelayEnd end = co_await relay_body(relay);
  restart_clocks();  // what the client took is its own
  if (relay.retain == nullptr) replayable_ = false;
  if (relay.lost_input) keep_alive_ = replayable_ = false;
  if (client.direct_mode()) client.start_receiving();
  request_relay_end_ = end;
  request_end_ms_ = worker_->reactor.now_ms();
  switch (end) {
    case RelayEnd::kComplete: watch_client(); co_return;
    case RelayEnd::kInterrupted: co_return;
    case RelayEnd::kSinkError: co_return;  // the reader of the response finds out what it means
    case RelayEnd::kSinkTimeout:
      upstream_error_ = relay.error;
      failure_ = TryFailure::kTimeout;
      break;
    case RelayEnd::kSourceTimeout:
    case RelayEnd::kSourceMalformed:
    case RelayEnd::kTooLarge: note_body_fault(end, relay); break;
    case RelayEnd::kSourceEnded:
    case RelayEnd::kSourceError:
      if (cancelled_ == log::Reason::kNone) cancelled_ = log::Reason::kClientGone;
      break;
  }
  origin_->transport->interrupt();
}

// Stops the child if it still runs, and gives the origin's connection back or up.
Task<> Exchange::end_attempt(bool reusable) {
  if (children_.running() != 0 && (!request_body_.complete() || !reusable)) {
    reusable = false;
    client_->transport->interrupt();
    origin_->transport->abort();
  }
  co_await children_.join();
  client_->transport->clear_interrupt();
  unwatch_client();
  if (!origin_) co_return;  // given back early
  if (request_relay_end_ != RelayEnd::kComplete || !request_body_.complete()) reusable = false;
  if (reusable) {
    give_back_origin();
  } else {
    // In the middle of an answer an origin that waits for a full window to open would wait for that
    // of a closed connection: a reset tells it, a FIN does not.
    const bool cut = answered_ && !response_body_.complete();
    Endpoint::discard(std::move(origin_), cut ? net::Linger::kReset : net::Linger::kNo);
  }
}

}  // namespace weir::proxy
