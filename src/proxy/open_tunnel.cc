// Exchange: requests that become tunnels, by Upgrade or by CONNECT. Raw bytes pass only behind the
// origin's own consent (its 101 to the protocol that was asked for, or the connection to a listed
// target), and the origin's connection serves nobody afterwards.
#include <algorithm>

#include <weir/base/text.h>
#include <weir/http/h1/writer.h>

#include "exchange.h"
#include "head_writer.h"
#include "tunnel.h"

namespace weir::proxy {

using http::Field;
using http::KnownField;
using net::Linger;
using runtime::Task;

namespace {

// Calls visit(protocol) for every element of all Upgrade fields; stops when it returns false.
template <class Visitor>
void for_each_protocol(const http::FieldTable& fields, Visitor&& visit) noexcept {
  for (const Field& field : fields) {
    if (field.known != KnownField::kUpgrade) continue;
    std::string_view list = field.value;
    while (!list.empty()) {
      const size_t comma = list.find(',');
      const std::string_view element = base::trim(list.substr(0, comma));
      if (!element.empty() && !visit(element)) return;
      if (comma == std::string_view::npos) break;
      list.remove_prefix(comma + 1);
    }
  }
}

// HTTP/2 in an upgraded connection would pass requests by that no route has seen.
bool never_allowed(std::string_view protocol) noexcept {
  return base::equals_ignore_case(protocol, "h2c");
}

// `authority` is that of a target: lower case, with a port.
bool same_authority(std::string_view authority, std::string_view host,
                    std::string_view port) noexcept {
  return authority.size() == host.size() + 1 + port.size() && authority.starts_with(host) &&
         authority[host.size()] == ':' && authority.ends_with(port);
}

}  // namespace

// Which protocol the origin is offered, if any. False: the request has to be refused, since its
// body could be taken for the first bytes of that protocol.
bool Exchange::choose_upgrade(const route::Route& route) noexcept {
  upgrade_ = {};
  if (!request_.has_upgrade) return true;
  for_each_protocol(request_.fields, [&](std::string_view protocol) noexcept {
    const bool allowed = std::ranges::any_of(route.upgrades, [&](std::string_view one) {
      return base::equals_ignore_case(one, protocol);
    });
    if (allowed && !never_allowed(protocol)) upgrade_ = protocol;
    return upgrade_.empty();
  });
  return upgrade_.empty() || request_body_.complete();
}

// The origin has answered 101.
Task<Exchange::Attempt> Exchange::switch_protocols() {
  if (upgrade_.empty()) co_return response_malformed("101 without an upgrade");
  bool same = response_.has_upgrade;
  unsigned count = 0;
  for_each_protocol(response_.fields, [&](std::string_view protocol) noexcept {
    same = same && base::equals_ignore_case(protocol, upgrade_) && ++count == 1;
    return same;
  });
  if (!same || count != 1) co_return response_malformed("101 to another protocol");
  record_.status = response_.status;
  record_.upstream_header_us = (worker_->reactor.now_ns() - upstream_start_ns_) / 1000;
  turn_.note_latency(worker_->reactor.now_ns());
  turn_.judge(upstream::CircuitOutcome::kGood);
  turn_.settle_trial();
  const std::string sticky = sticky_line();
  out_.fill(worker_->reactor.buffers(), [&](base::ByteWriter& out) {
    write_switching_head(out, response_, upgrade_, pin_->settings, sticky);
  });
  consume_response_head();
  const std::string early(std::exchange(scratch_input_, {}));
  co_await join_origin(early);
  co_return Attempt::kDone;
}

// A route that is for CONNECT, or a CONNECT, for whose host `route` is; null: none.
Task<> Exchange::connect(const route::Route* route) {
  if (request_.method != http::Method::kConnect) {
    if (!co_await settle_request_body()) co_return co_await refuse_body();
    record_.reason = log::Reason::kUnsupported;
    co_return co_await reply_with(405, "Allow: CONNECT\r\n");
  }
  // A client that does not wait for the answer has sent bytes which are no request.
  keep_alive_ = false;
  if (route == nullptr || route->kind != route::ActionKind::kConnect) {
    co_return co_await reply(405, log::Reason::kUnsupported);
  }
  const auto targets = route->connect->targets;
  const auto target = std::ranges::find_if(targets, [&](const auto& one) {
    return same_authority(one.authority, host_, request_.port);
  });
  if (target == targets.end()) co_return co_await reply(403, log::Reason::kDenied);
  const route::UpstreamSpec& spec = pin_->routes->upstream(target->upstream);
  upstream_start_ns_ = worker_->reactor.now_ns();
  origin_send_timeout_ms_ = spec.send_timeout_ms;
  co_await try_servers(spec);
}

Task<Exchange::Attempt> Exchange::answer_connect(std::unique_ptr<upstream::Connection> leased) {
  origin_ = std::move(leased);
  record_.status = 200;
  record_.upstream_header_us = (worker_->reactor.now_ns() - upstream_start_ns_) / 1000;
  turn_.note_latency(worker_->reactor.now_ns());
  turn_.judge(upstream::CircuitOutcome::kGood);
  turn_.settle_trial();
  out_.fill(worker_->reactor.buffers(), [](base::ByteWriter& out) {
    http::h1::append_status_line(out, 200, "Connection established");
    out.append("\r\n");
  });
  co_await join_origin({});
  client_->transport->clear_interrupt();
  co_return Attempt::kDone;
}

// What the log wants of the head, in memory of its size: a tunnel may last for days.
void Exchange::keep_for_log() {
  const Field* agent = request_.fields.find(KnownField::kUserAgent);
  const Field* referer = request_.fields.find(KnownField::kReferer);
  const std::string_view parts[] = {request_.method_text, request_.authority, request_.target,
                                    agent != nullptr ? agent->value : std::string_view(),
                                    referer != nullptr ? referer->value : std::string_view()};
  constexpr size_t kPartBytesMax = log::kPathBytesMax + 1;  // more is cut, and the log says so
  std::string text;
  for (const std::string_view part : parts) text.append(part.substr(0, kPartBytesMax));
  const uint8_t minor_version = request_.minor_version;
  const bool with_agent = agent != nullptr;
  const bool with_referer = referer != nullptr;
  size_t at = 0;
  std::string_view kept[std::size(parts)];
  head_text_ = std::move(text);  // the parts may have been in it
  for (size_t i = 0; i < std::size(parts); ++i) {
    kept[i] = std::string_view(head_text_).substr(at, std::min(parts[i].size(), kPartBytesMax));
    at += kept[i].size();
  }
  head_buffer_.reset();
  request_.reset();
  request_.fields.release();
  response_.fields.release();
  request_.minor_version = minor_version;
  request_.method_text = kept[0];
  request_.authority = kept[1];
  request_.target = kept[2];
  if (with_agent) {
    (void)request_.fields.push({"user-agent", kept[3], KnownField::kUserAgent, false});
  }
  if (with_referer) {
    (void)request_.fields.push({"referer", kept[4], KnownField::kReferer, false});
  }
  path_ = host_ = upgrade_ = {};
}

// Sends the head that is in out_ and, behind it, what the origin has said already; then the two
// connections are one until it ends.
Task<> Exchange::join_origin(std::string_view early) {
  unwatch_client();
  keep_alive_ = false;
  answered_ = true;
  // What follows our head lasts until the connection ends: an end that is not the origin's must not
  // look like one.
  close_delimited_ = broken_ = true;
  iovec pieces[2] = {{out_.data(), out_.size()}, {const_cast<char*>(early.data()), early.size()}};
  const uint32_t send_timeout = pin_->settings.send_timeout_ms;
  const auto sent = co_await client_->transport->send(pieces, 2, send_timeout);
  if (sent) record_.bytes_out += out_.size() + early.size();
  if (!sent || cancelled_ != log::Reason::kNone) {
    if (!sent) client_failed(sent.error().code == base::Errc::kTimedOut);
    upstream::Endpoint::discard(std::move(origin_), Linger::kReset);
    co_return;
  }
  Tunnel tunnel{.worker = *worker_,
                .client = *client_->transport,
                .origin = *origin_->transport,
                .idle_timeout_ms = pin_->settings.tunnel_idle_timeout_ms,
                .client_send_timeout_ms = send_timeout,
                .origin_send_timeout_ms = origin_send_timeout_ms_,
                .splice = pin_->settings.splice_min != 0};
  // It may last for long: it keeps neither routes nor buffers.
  out_.reset();
  request_out_.reset();
  keep_for_log();
  retry_ = nullptr;
  sticky_ = nullptr;
  pin_.reset();
  tunnel_ = &tunnel;
  co_await run_tunnel(tunnel);
  tunnel_ = nullptr;
  pin_ = worker_->generations.pin();
  upstream::Endpoint::discard(std::move(origin_),
                              tunnel.client_said_all ? Linger::kNo : Linger::kReset);
  record_.bytes_in += tunnel.bytes_from_client;
  record_.bytes_out += tunnel.bytes_to_client;
  record_.upstream_us = (worker_->reactor.now_ns() - upstream_start_ns_) / 1000;
  close_delimited_ = !tunnel.origin_said_all;
  broken_ = close_delimited_ || !tunnel.client_said_all;
  note_tunnel_end(tunnel.end);
}

void Exchange::note_tunnel_end(TunnelEnd end) noexcept {
  if (cancelled_ != log::Reason::kNone) return;  // finish() says why
  Counters& counters = worker_->counters;
  switch (end) {
    case TunnelEnd::kOpen: break;
    case TunnelEnd::kIdle: record_.reason = log::Reason::kIdle; break;
    case TunnelEnd::kClientSlow: client_failed(true); break;
    case TunnelEnd::kClientFailed: client_failed(false); break;
    case TunnelEnd::kOriginFailed:
      ++counters.upstream_errors;
      record_.reason = log::Reason::kUpstreamReset;
      break;
    case TunnelEnd::kOriginSlow:
      ++counters.upstream_errors;
      ++counters.upstream_timeouts;
      record_.reason = log::Reason::kUpstreamTimeout;
      break;
    case TunnelEnd::kStopped: record_.reason = log::Reason::kShutdown; break;
  }
}

}  // namespace weir::proxy
