// Exchange, second part: which route, and the answers that weir gives itself.
#include <algorithm>

#include <weir/base/text.h>
#include <weir/http/h1/writer.h>
#include <weir/route/match.h>

#include "exchange.h"

namespace weir::proxy {

using http::Method;
using runtime::Task;

namespace {

// A request body that nobody wants is read and dropped up to this size, so that the connection can
// go on; beyond it the connection is closed instead.
constexpr uint64_t kDiscardBytesMax = 64 * 1024;

bool find_field(const void* context, std::string_view name, uint32_t& cursor,
                std::string_view& value) {
  const auto& fields = *static_cast<const http::FieldTable*>(context);
  for (; cursor < fields.size(); ++cursor) {
    if (!base::equals_ignore_case(fields[cursor].name, name)) continue;
    value = fields[cursor].value;
    ++cursor;
    return true;
  }
  return false;
}

constexpr std::string_view kAllow = "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n";

// RFC 9110 7.6.2: such a request must not be passed on; TRACE, the other one, never is.
bool max_forwards_reached(const http::RequestHead& request) noexcept {
  if (request.method != Method::kOptions) return false;
  const auto* hops = request.fields.find(http::KnownField::kMaxForwards);
  return hops != nullptr && base::parse_decimal(hops->value) == uint64_t{0};
}

// "Location: https://HOST[:PORT]PATH[?QUERY]\r\n": what a plain listener answers that sends
// everybody to https, built as the Location of a route is, so that the same bytes are escaped.
// False: the request names no host.
bool https_location(const route::RequestView& request, bool has_query, uint16_t port,
                    std::string& line) {
  using Piece = route::LocationPiece;
  constexpr uint16_t kHttpsPort = 443;
  char digits[8];
  base::ByteWriter port_text(digits, sizeof digits);
  if (port != kHttpsPort) {
    port_text.append(':');
    port_text.append_decimal(port);
  }
  // "OPTIONS *" has an absolute form without path (RFC 9112 3.2.4).
  const bool with_path = request.path != "*";
  const Piece pieces[] = {
      {.kind = Piece::Kind::kLiteral, .text = "https://"},
      {.kind = Piece::Kind::kHost, .text = {}},
      {.kind = Piece::Kind::kLiteral, .text = port_text.view()},
      {.kind = with_path ? Piece::Kind::kPath : Piece::Kind::kLiteral, .text = {}},
      {.kind = Piece::Kind::kLiteral, .text = has_query ? "?" : ""},
      {.kind = Piece::Kind::kQuery, .text = {}}};
  const route::Redirect redirect{.location = pieces};
  route::Route route;
  route.kind = route::ActionKind::kRedirect;
  route.redirect = &redirect;
  line = "Location: ";
  if (!route::expand_location(route, request, line)) return false;
  line += "\r\n";
  return true;
}

}  // namespace

Task<> Exchange::dispatch() {
  // A listener may have turned to TLS since this connection came: it ends with this request.
  const bool outdated = client_->listener.tls && !client_->secure;
  keep_alive_ = request_.keep_alive && !worker_->draining() && !outdated;
  const Settings& settings = pin_->settings;
  if (settings.max_requests_per_connection != 0 &&
      client_->requests >= settings.max_requests_per_connection) {
    keep_alive_ = false;
  }
  request_body_.start(request_.framing, request_.content_length);
  expects_ = request_.expect_continue;
  if (request_.method == Method::kTrace) {
    // It would show the fields we add to whoever can make a browser send it (RFC 9110 9.3.8).
    co_return co_await reply(405, log::Reason::kUnsupported);
  }
  if (!resolve_target()) {
    ++worker_->counters.bad_requests;
    co_return co_await reply(400, log::Reason::kBadRequest);
  }
  client_->know_peer();
  const route::RequestView view{
      .host = host_,
      .path = path_,
      .query = request_.query,
      .method = request_.method_text,
      .client = client_->peer_is_unix ? nullptr : &client_->peer,
      .scheme = client_->scheme(),
      .headers = {.context = &request_.fields, .find = &find_field},
  };
  // Whoever comes without TLS is sent to where it is spoken.
  if (client_->listener.redirect_https != 0 && !client_->secure) [[unlikely]] {
    if (request_.method == Method::kConnect) co_return co_await connect(nullptr);
    const bool safe = request_.method == Method::kGet || request_.method == Method::kHead;
    std::string location;
    if (!https_location(view, request_.has_query, client_->listener.redirect_https, location)) {
      co_return co_await reply(400, log::Reason::kBadRequest);
    }
    if (!co_await settle_request_body()) co_return co_await refuse_body();
    co_return co_await send_reply(safe ? 301 : 308, location, {});
  }
  const route::Route* route = route::match(*pin_->routes, view);
  if (request_.method == Method::kConnect) co_return co_await connect(route);
  if (route == nullptr) co_return co_await reply(404, log::Reason::kNoRoute);
  body_bytes_max_ = route->max_body_bytes;
  if (request_.framing == http::BodyFraming::kLength && request_.content_length > body_bytes_max_) {
    co_return co_await reply(413, log::Reason::kTooLarge);
  }
  if (route->kind == route::ActionKind::kProxy) {
    if (!choose_upgrade(*route)) {
      ++worker_->counters.bad_requests;
      co_return co_await reply(400, log::Reason::kBadRequest);
    }
    if (!max_forwards_reached(request_)) co_return co_await proxy(*route);
    if (!co_await settle_request_body()) co_return co_await refuse_body();
    co_return co_await send_reply(204, kAllow, {});
  }
  if (route->kind == route::ActionKind::kConnect) co_return co_await connect(route);
  if (route->kind == route::ActionKind::kRespond) co_return co_await respond_locally(*route);
  if (route->kind == route::ActionKind::kFile) co_return co_await serve_file(*route);
  std::string location = "Location: ";
  if (!route::expand_location(*route, view, location)) {
    co_return co_await reply(400, log::Reason::kBadRequest);
  }
  location += "\r\n";
  if (!co_await settle_request_body()) co_return co_await refuse_body();
  co_await send_reply(route->status, location, {});
}

Task<> Exchange::respond_locally(const route::Route& route) {
  if (!co_await settle_request_body()) co_return co_await refuse_body();
  co_await send_reply(route.status, route.respond->field_lines, route.respond->body);
}

// Before an answer of our own: the body is read if that is cheap and sure to come, else the
// connection will be closed behind the answer. False: it has to be refused (refuse_body).
Task<bool> Exchange::settle_request_body() {
  if (request_body_.complete()) co_return true;
  const bool cheap = request_body_.framing() == http::BodyFraming::kChunked ||
                     request_body_.left() <= kDiscardBytesMax;
  if (expects_ || !cheap) {
    keep_alive_ = false;
    co_return true;
  }
  Relay relay{.worker = *worker_,
              .from = *client_->transport,
              .to = *client_->transport,
              .body = request_body_,
              .out = OutFraming::kDiscard,
              .read_timeout_ms = pin_->settings.body_timeout_ms,
              .send_timeout_ms = 0,
              .bytes_max = std::min<uint64_t>(body_bytes_max_, kDiscardBytesMax)};
  const RelayEnd end = co_await relay_body(relay);
  if (end != RelayEnd::kComplete || relay.lost_input) keep_alive_ = false;
  if (client_->transport->direct_mode()) client_->transport->start_receiving();
  note_body_fault(end, relay);
  co_return request_error_status_ == 0;
}

// What is wrong with a request body, as the status that says so.
void Exchange::note_body_fault(RelayEnd end, const Relay& relay) noexcept {
  if (end == RelayEnd::kSourceTimeout) {
    ++worker_->counters.client_timeouts;
    request_error_status_ = 408;
  }
  if (end == RelayEnd::kTooLarge && request_body_.content_bytes() > body_bytes_max_) {
    request_error_status_ = 413;
  }
  if (end != RelayEnd::kSourceMalformed) return;
  request_error_status_ = relay.error_status;
  ++worker_->counters.bad_requests;
  WEIR_LOG_LIMITED(worker_->logger, kInfo, "http", "request body refused",
                   {"reason", relay.reason});
}

Task<> Exchange::refuse_body() {
  const log::Reason reason = request_error_status_ == 408   ? log::Reason::kClientTimeout
                             : request_error_status_ == 413 ? log::Reason::kTooLarge
                                                            : log::Reason::kBadRequest;
  keep_alive_ = false;
  co_await reply(request_error_status_, reason);
}

Task<> Exchange::reply(uint16_t status, log::Reason reason) {
  if (record_.reason == log::Reason::kNone) record_.reason = reason;
  co_await reply_with(status, status == 405   ? kAllow
                              : status == 503 ? std::string_view("Retry-After: 1\r\n")
                                              : std::string_view());
}

// A plain answer in words, with more fields.
Task<> Exchange::reply_with(uint16_t status, std::string_view field_lines) {
  if (!request_body_.complete()) keep_alive_ = false;
  char body[128];
  base::ByteWriter text(body, sizeof body);
  text.append_decimal(status);
  text.append(' ');
  text.append(http::h1::reason_phrase(status));
  text.append('\n');
  char lines[160];
  base::ByteWriter fields(lines, sizeof lines);
  fields.append("Content-Type: text/plain; charset=utf-8\r\n");
  fields.append(field_lines);
  co_await send_reply(status, fields.view(), text.view());
}

void Exchange::append_persistence(base::ByteWriter& out) const noexcept {
  if (!keep_alive_) {
    out.append("Connection: close\r\n");
  } else if (head_known_ && request_.minor_version == 0) {
    out.append("Connection: keep-alive\r\n");
  }
}

Task<> Exchange::send_reply(uint16_t status, std::string_view field_lines, std::string_view body) {
  const Settings& settings = pin_->settings;
  record_.status = status;
  answered_ = true;
  const bool no_content = status == 204 || status == 304;
  const bool with_body = !no_content && !(head_known_ && request_.method == Method::kHead);
  if (worker_->draining() || client_->transport->worn_out()) keep_alive_ = false;
  out_.fill(worker_->reactor.buffers(), [&](base::ByteWriter& out) {
    http::h1::append_status_line(out, status);
    out.append(field_lines);
    if (!no_content) http::h1::append_field(out, "Content-Length", body.size());
    http::h1::append_field(out, "Date", worker_->http_date());
    if (!settings.server.empty()) http::h1::append_field(out, "Server", settings.server);
    append_persistence(out);
    out.append("\r\n");
  });
  iovec pieces[2] = {{out_.data(), out_.size()}, {nullptr, 0}};
  unsigned count = 1;
  if (with_body && body.size() <= out_.room()) {
    out_.append(body);
    pieces[0].iov_len = out_.size();
  } else if (with_body) {
    pieces[1] = {const_cast<char*>(body.data()), body.size()};
    count = 2;
  }
  const uint64_t bytes = out_.size() + (count == 2 ? body.size() : 0);
  const auto sent = co_await client_->transport->send(pieces, count, settings.send_timeout_ms);
  if (sent) {
    record_.bytes_out += bytes;
    co_return;
  }
  broken_ = true;
  if (record_.reason == log::Reason::kNone && cancelled_ == log::Reason::kNone) {
    const bool slow = sent.error().code == base::Errc::kTimedOut;
    record_.reason = slow ? log::Reason::kClientTimeout : log::Reason::kClientGone;
  }
}

}  // namespace weir::proxy
