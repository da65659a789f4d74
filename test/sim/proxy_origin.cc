#include <sim/proxy_origin.h>

#include <algorithm>
#include <charconv>

namespace weir::sim {

OriginServer::OriginServer(Run& run, size_t upstream, std::string address)
    : run_(run), upstream_(upstream), address_(std::move(address)) {}

void OriginServer::up() {
  up_ = true;
  run_.kernel.listen_origin(address_, [this](Peer& peer) { accept(peer); });
}

void OriginServer::down() {
  up_ = false;
  run_.kernel.stop_origin(address_);
}

void OriginServer::accept(Peer& peer) {
  Link& link = *links_.emplace_back(std::make_unique<Link>(*this, peer));
  run_.tell("origin " + address_ + " has peer " + std::to_string(peer.id()));
  peer.on_data = [this, &link](Peer&) { read(link); };
  peer.on_end = [this, &link](Peer&) { end(link); };
}

void OriginServer::close_books() {
  for (const auto& link : links_) {
    if (link->peer.disturbed()) run_.origin_hit = true;
    if (link->request != nullptr && !link->reader.complete()) check_body(*link, false);
  }
}

// ---- reading

void OriginServer::read(Link& link) {
  const std::string bytes = link.peer.take();
  std::string_view in = bytes;
  while (!in.empty() && !link.over) {
    if (link.reader.complete()) {
      link.over = link.trouble == Trouble::kExtraBytes;  // those may come any time later
      run_.extra_bytes |= link.over;
      if (link.over) return link.peer.close();
      run_.violation(*link.request, "another request on its connection before the answer ended");
      return;
    }
    in.remove_prefix(link.reader.feed(in));
    if (!link.reader.complaint().empty()) {
      run_.violation("origin " + address_ + ", a request of weir: " + link.reader.complaint());
      link.over = true;
      return;
    }
    if (link.reader.head_done() && link.request == nullptr) begin(link);
    if (link.over) return;
    if (link.reader.complete()) request_done(link);
  }
}

void OriginServer::begin(Link& link) {
  const std::string text = link.reader.field("x-id");
  uint64_t id = 0;
  std::from_chars(text.data(), text.data() + text.size(), id);
  if (!run_.known(id)) {
    run_.violation("an origin sees a request that nobody planned: " + link.reader.target());
    link.over = true;
    return;
  }
  Request& request = run_.request(id);
  link.request = &request;
  Fate& fate = run_.fate(request);
  ++fate.seen;
  run_.tell("origin " + address_ + " sees " + text + " on peer " + std::to_string(link.peer.id()));
  check_head(link);
  const Answer& plan = request.answer;
  // A later attempt gets what the first was denied.
  link.trouble = fate.seen <= plan.trouble_times ? plan.trouble : Trouble::kNone;
  if (!plan.interims.empty() && plan.interims.front() == 100 && link.trouble == Trouble::kNone) {
    ++fate.interims_sent;
    link.outbox.push_back({0, "HTTP/1.1 100 Continue\r\nX-Id: " + text + "\r\n\r\n"});
    pump(link);
  }
  link.begun_at_ns = run_.kernel.now_ns();
  if (plan.stall_ns != 0) {
    link.stalls = true;
    link.peer.stall();
    run_.kernel.schedule(plan.stall_ns, [&link] { link.peer.resume(); });
  }
  if (plan.early && !link.answering) answer(link);
}

void OriginServer::check_head(const Link& link) {
  const Request& request = *link.request;
  const WireReader& reader = link.reader;
  const auto wrong = [&](const std::string& what) { run_.violation(request, what); };
  Fate& fate = run_.fate(request);
  if (request.refused != 0 && !request.wrong_body) wrong("an origin sees a malformed request");
  if (request.place > Place::kSmall) wrong("an origin sees a request of another route");
  const route::RetrySpec& retry = run_.setup.policies[upstream_].spec.retry;
  if (fate.seen > 1 && !request.idempotent() && !retry.non_idempotent) {
    wrong("not idempotent, and an origin sees it again");
  }
  // Each once more where a kept connection had been closed.
  if (fate.seen > 2 * retry.tries_max) wrong("too many attempts");
  if (!fate.begun) wrong("an origin sees it before it was sent");
  if (reader.method() != request.method) wrong("an origin sees another method");
  std::string target = request.head.substr(request.method.size() + 1);
  target.resize(target.find(' '));
  if (request.place == Place::kSecond) target.replace(0, sizeof("/second") - 1, "/app");
  if (reader.target() != target) wrong("an origin sees the target " + reader.target());
  if ((request.place == Place::kSecond) != (upstream_ == 1)) wrong("it went to another upstream");
  if (reader.field("host") != "sim.example") wrong("an origin sees another Host");
  if (reader.has("x-hop")) wrong("an origin sees a field that Connection named");
  if (!reader.has("via")) wrong("an origin sees no Via");
  if (reader.framing() != request.framing) wrong("an origin sees another framing");
  if (request.framing == Framing::kLength && reader.length() != request.body_bytes) {
    wrong("an origin sees another Content-Length");
  }
  const std::string& ip = run_.clients[fate.client].ip;
  const std::string from = reader.field("x-forwarded-for");
  if (from != ip && from != "unknown") wrong("X-Forwarded-For: " + from);
}

void OriginServer::check_body(const Link& link, bool whole) {
  const Request& request = *link.request;
  const std::string body = make_body(request.id, 'q', request.body_bytes);
  const bool right =
      whole ? link.reader.body() == body : std::string_view(body).starts_with(link.reader.body());
  if (!right) run_.violation(request, "an origin sees content that the client did not send");
}

void OriginServer::request_done(Link& link) {
  Request& request = *link.request;
  Fate& fate = run_.fate(request);
  ++fate.whole;
  run_.tell("origin " + address_ + " has the whole of " + std::to_string(request.id));
  check_body(link, true);
  if (request.wrong_body) run_.violation(request, "a spoiled body looks complete to an origin");
  if (!fate.sent) run_.violation(request, "complete for an origin before the client sent all");
  if (request.trailers && !request.hop &&
      link.reader.trailer("x-trail") != std::to_string(request.id)) {
    run_.violation(request, "the client's trailer is missing");
  }
  if (!link.answering) answer(link);
  settle(link);
}

// ---- answering

void OriginServer::answer(Link& link) {
  link.answering = true;
  const Answer& plan = link.request->answer;
  Fate& fate = run_.fate(*link.request);
  if (link.trouble == Trouble::kErrorStatus) {
    ++fate.errors_sent;
  } else if (link.trouble == Trouble::kNone) {
    for (const unsigned status : plan.interims) {
      if (status == 100) continue;
      ++fate.interims_sent;
      link.outbox.push_back({plan.delay_ns / 2, "HTTP/1.1 " + std::to_string(status) +
                                                    " Wait\r\nX-Id: " +
                                                    std::to_string(link.request->id) + "\r\n\r\n"});
    }
  } else {
    fate.trouble_struck = true;
  }
  std::string wire = write_answer(link);
  cut(link, wire);
  size_t at = 0;
  for (unsigned left = plan.pieces; left > 0 && at < wire.size(); --left) {
    const size_t rest = wire.size() - at;
    const size_t size = left == 1 ? rest : 1 + run_.kernel.below(rest);
    const uint64_t delay = at == 0 ? plan.delay_ns : run_.kernel.below(plan.gap_ns + 1);
    link.outbox.push_back({delay, wire.substr(at, size)});
    at += size;
  }
  if (wire.empty()) link.outbox.push_back({plan.delay_ns, {}});
  pump(link);
}

std::string OriginServer::write_answer(const Link& link) {
  const Request& request = *link.request;
  const Answer& plan = request.answer;
  if (link.trouble == Trouble::kGarbage) return "this is no HTTP\r\n\r\nat all";
  if (link.trouble == Trouble::kSwitches) {
    return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
  }
  if (link.trouble == Trouble::kErrorStatus) return write_error(link);
  std::string wire = plan.old_version ? "HTTP/1.0 " : "HTTP/1.1 ";
  wire += std::to_string(plan.status) + " As planned\r\nX-Id: " + std::to_string(request.id) +
          "\r\nKeep-Alive: timeout=5\r\n";
  if (link.trouble == Trouble::kTwoLengths) wire += "Content-Length: 7\r\nContent-Length: 8\r\n";
  if (link.trouble == Trouble::kHugeHead) wire += "X-Pad: " + std::string(40'000, 'p') + "\r\n";
  if (plan.afterwards == Afterwards::kSaysClose) wire += "Connection: close\r\n";
  if (plan.hop) wire += "X-Hop: 1\r\nConnection: X-Hop\r\n";
  if (run_.kernel.chance(20)) wire += "Date: Tue, 14 Nov 2023 22:13:20 GMT\r\n";
  if (run_.kernel.chance(10))
    wire += "X-Pad: " + std::string(run_.kernel.below(6000), 'p') + "\r\n";
  const bool bare = request.method == "HEAD" || plan.status == 204 || plan.status == 304;
  std::string body = bare ? "" : make_body(request.id, 'r', plan.body_bytes);
  const bool two = link.trouble == Trouble::kTwoLengths;
  if (plan.framing == Framing::kLength && !two) {
    wire += "Content-Length: " + std::to_string(plan.body_bytes) + "\r\n";
  } else if (plan.framing == Framing::kChunked && !two) {
    wire += "Transfer-Encoding: chunked\r\n";
    if (!bare) {
      const uint64_t most = 1 + run_.kernel.below(plan.body_bytes + 2);
      const std::string trailers =
          plan.trailers ? "X-Trail: " + std::to_string(request.id) + "\r\n" : std::string();
      body = write_chunked(body, trailers, [&] { return 1 + run_.kernel.below(most); });
      if (link.trouble == Trouble::kBadChunk) {
        const size_t last = body.rfind("\r\n0\r\n");
        body.replace(last == std::string::npos ? 0 : last + 2, 1, "0x0");
      }
    }
  }
  return wire + "\r\n" + body;
}

std::string OriginServer::write_error(const Link& link) {
  const Request& request = *link.request;
  const Answer& plan = request.answer;
  std::string wire = "HTTP/1.1 " + std::to_string(plan.error_status) +
                     " Not now\r\nX-Id: " + std::to_string(request.id) + "\r\n";
  if (plan.afterwards == Afterwards::kSaysClose) wire += "Connection: close\r\n";
  wire += "Content-Length: " + std::to_string(plan.error_bytes) + "\r\n\r\n";
  return request.method == "HEAD" ? wire : wire + make_body(request.id, 'e', plan.error_bytes);
}

// Shortens the answer to where trouble strikes.
void OriginServer::cut(Link& link, std::string& wire) const {
  const size_t head = wire.find("\r\n\r\n") + 4;
  const size_t body = wire.size() - head;
  switch (link.trouble) {
    case Trouble::kCloseBefore:
    case Trouble::kResetBefore:
    case Trouble::kSilence: wire.clear(); break;
    case Trouble::kCloseInHead:
    case Trouble::kResetInHead: wire.resize(1 + run_.kernel.below(head - 2)); break;
    case Trouble::kCloseInBody:
    case Trouble::kResetInBody:
    case Trouble::kStallInBody:
      if (body != 0) wire.resize(head + run_.kernel.below(body));
      [[fallthrough]];
    case Trouble::kBadChunk:
      if (body == 0) link.trouble = Trouble::kNone;
      break;
    case Trouble::kExtraBytes: wire += "more than was announced\r\n\r\n"; break;
    default: break;
  }
}

void OriginServer::pump(Link& link) {
  if (link.pumping || link.over) return;
  if (link.outbox.empty()) {
    if (link.answering && !link.answered) answer_done(link);
    return;
  }
  link.pumping = true;
  run_.kernel.schedule(link.outbox.front().delay_ns, [this, &link] {
    link.pumping = false;
    if (link.over) return;
    const Piece piece = std::move(link.outbox.front());
    link.outbox.pop_front();
    link.peer.send(piece.bytes);
    pump(link);
  });
}

void OriginServer::answer_done(Link& link) {
  link.answered = true;
  ++link.exchanges;
  const Answer& plan = link.request->answer;
  run_.tell("origin " + address_ + " has answered " + std::to_string(link.request->id));
  const bool error = link.trouble == Trouble::kErrorStatus;
  if (link.trouble != Trouble::kNone && !error) return make_trouble(link);
  const bool bare = link.request->method == "HEAD" || plan.status == 204 || plan.status == 304;
  const bool ends = plan.old_version || (plan.framing == Framing::kUntilClose && !bare);
  if (plan.afterwards == Afterwards::kSaysClose || (ends && !error)) {
    link.over = true;
    link.peer.close();
    return;
  }
  if (plan.afterwards == Afterwards::kClosesSilently) {
    run_.origin_closed = true;
    link.over = true;
    link.peer.close();
    return;
  }
  if (plan.afterwards == Afterwards::kClosesLater) {
    // Often about when the connection is taken for the next request.
    const uint64_t when = run_.kernel.chance(60) ? run_.kernel.below(2 * kMillisecond)
                                                 : kMicrosecond << run_.kernel.below(20);
    run_.kernel.schedule(when, [this, &link, exchange = link.exchanges] {
      if (link.over || link.request != nullptr || link.exchanges != exchange) return;
      run_.tell("origin closes peer " + std::to_string(link.peer.id()));
      run_.origin_closed = true;
      link.over = true;
      link.peer.close();
    });
  }
  settle(link);
}

void OriginServer::make_trouble(Link& link) {
  run_.tell("origin " + address_ + " makes trouble " +
            std::to_string(static_cast<int>(link.trouble)));
  switch (link.trouble) {
    case Trouble::kSilence:
    case Trouble::kStallInBody: link.over = true; break;
    case Trouble::kResetBefore:
    case Trouble::kResetInHead:
    case Trouble::kResetInBody:
      link.over = true;
      link.peer.reset();
      break;
    case Trouble::kExtraBytes:
      run_.extra_bytes = true;
      settle(link);
      break;
    default:
      link.over = true;
      link.peer.close();
      break;
  }
}

// Both sides of the exchange are through: the next one may come.
void OriginServer::settle(Link& link) {
  if (!link.answered || !link.reader.complete() || link.over) return;
  link.reader.next();
  link.request = nullptr;
  link.answering = link.answered = false;
}

void OriginServer::end(Link& link) {
  // Of a try that weir gave up: the connection is of no use, and has to go with the try.
  if (link.request != nullptr && !link.answered && !link.stalls && !link.peer.disturbed()) {
    run_.fate(*link.request).abandoned.push_back({link.begun_at_ns, run_.kernel.now_ns()});
  }
  if (link.request != nullptr && !link.reader.complete()) check_body(link, false);
  link.over = true;
  link.peer.close();
}

}  // namespace weir::sim
