#include <sim/proxy_client.h>

#include <algorithm>

#include <sim/proxy_server.h>

namespace weir::sim {

namespace {
constexpr uint64_t kContinueWait = kSecond;
}

Client::Client(Run& run, size_t number, ClientPlan plan)
    : run_(run), fate_(run.clients.emplace_back()), plan_(std::move(plan)) {
  fate_.ip = plan_.ipv6 ? "2001:db8::" + std::to_string(number + 1)
                        : "10.0.0." + std::to_string(number + 1);
  fate_.pipelines = plan_.pipelined;
  fate_.port = static_cast<uint16_t>(20'000 + number);
  for (const Request* request : plan_.requests) run_.fate(*request).client = number;
}

void Client::start() {
  run_.kernel.schedule(plan_.start_ns, [this] { connect(); });
}

void Client::connect() {
  const std::string_view to = plan_.ipv6              ? kAddressV6
                              : plan_.second_listener ? kAddressSecond
                                                      : kAddress;
  const std::string port = ":" + std::to_string(fate_.port);
  peer_ = &run_.kernel.connect_client(to, (plan_.ipv6 ? "[" + fate_.ip + "]" : fate_.ip) + port);
  run_.tell("client " + fate_.ip + " connects as peer " + std::to_string(peer_->id()));
  peer_->on_connect = [this](Peer&) {
    fate_.connected = true;
    if (plan_.pipelined) {
      for (Request* request : plan_.requests) {
        enqueue(*request);
        if (request->asks_close()) break;
      }
    } else if (!plan_.requests.empty()) {
      enqueue(*plan_.requests[0]);
    }
    pump();
  };
  peer_->on_data = [this](Peer&) { read(); };
  peer_->on_end = [this](Peer&) { on_end(); };
  if (!plan_.requests.empty()) reader_.next(plan_.requests[0]->method == "HEAD");
  plan_departure();
}

void Client::plan_departure() {
  if (plan_.leaving != Leaving::kStays && plan_.leaves_after_bytes == 0) {
    run_.kernel.schedule(plan_.leaves_after_ns, [this] { leave(); });
  }
  if (plan_.stall_at_ns == 0) return;
  run_.kernel.schedule(plan_.stall_at_ns, [this] {
    if (done_) return;
    fate_.slow = true;
    peer_->stall();
  });
  run_.kernel.schedule(plan_.stall_at_ns + plan_.stall_ns, [this] { peer_->resume(); });
}

void Client::leave() {
  if (done_ || stopped_) return;
  static constexpr const char* kHow[] = {"stays",    "closes",      "resets",
                                         "vanishes", "half-closes", "stops"};
  run_.tell("client " + fate_.ip + " " + kHow[static_cast<size_t>(plan_.leaving)]);
  const bool midway = !outbox_.empty() && run_.fate(*outbox_.front().request).begun;
  outbox_.clear();
  stopped_ = true;
  fate_.left = plan_.leaving != Leaving::kHalfCloses || midway;
  switch (plan_.leaving) {
    case Leaving::kStays:
    case Leaving::kStops: return;
    case Leaving::kHalfCloses:
      fate_.half_closed_ns = run_.kernel.now_ns();
      peer_->shutdown_write();
      return;
    case Leaving::kCloses:
      fate_.gone_ns = run_.kernel.now_ns();
      fate_.gone_by_fin = true;
      peer_->close();
      break;
    case Leaving::kResets:
      fate_.gone_ns = run_.kernel.now_ns();
      peer_->reset();
      break;
    case Leaving::kVanishes: peer_->vanish(); break;
  }
  done_ = true;
  check_part();
}

bool Client::done() const { return done_ || (peer_ != nullptr && peer_->vanished()); }

void Client::close_books() {
  if (peer_ == nullptr) return;
  fate_.disturbed = peer_->disturbed();
  fate_.error = peer_->error();
  fate_.responses = answered_;
  if (answered_ < plan_.requests.size()) check_part();
}

// ---- sending

void Client::enqueue(Request& request) {
  ++begun_;
  if (!cookie_.empty() && request.refused == 0) {
    request.head.insert(request.head.size() - 2, "Cookie: a=b; " + cookie_ + "\r\n");
  }
  const bool waits = request.expect && !plan_.pipelined;
  const size_t first = outbox_.size();
  enqueue_cut(request, waits ? request.head : request.head + request.wire_body, !waits);
  outbox_[first].delay_ns = request.think_ns;
  if (!waits) return;
  const size_t body = outbox_.size();
  enqueue_cut(request, request.wire_body, true);
  outbox_[body].awaits_continue = true;
  released_ = awaiting_ = false;
}

void Client::enqueue_cut(Request& request, const std::string& bytes, bool last) {
  size_t at = 0;
  for (unsigned left = request.pieces; left > 0 && at < bytes.size(); --left) {
    const size_t rest = bytes.size() - at;
    const size_t size = left == 1 ? rest : 1 + run_.kernel.below(rest);
    const uint64_t delay = at == 0 ? 0 : run_.kernel.below(request.gap_ns + 1);
    outbox_.push_back({delay, bytes.substr(at, size), &request, false, false});
    at += size;
  }
  outbox_.back().last = last;
}

void Client::pump() {
  if (pumping_ || stopped_ || done_ || outbox_.empty()) return;
  const Piece& next = outbox_.front();
  if (next.awaits_continue && !released_) {
    if (awaiting_) return;
    awaiting_ = true;
    run_.kernel.schedule(kContinueWait, [this, at = next.request] {
      if (!outbox_.empty() && outbox_.front().request == at) release();
    });
    return;
  }
  if (next.delay_ns == 0) return send_piece();
  pumping_ = true;
  run_.kernel.schedule(next.delay_ns, [this] {
    pumping_ = false;
    send_piece();
  });
}

void Client::send_piece() {
  if (stopped_ || done_ || outbox_.empty()) return;
  const Piece piece = std::move(outbox_.front());
  outbox_.pop_front();
  Fate& fate = run_.fate(*piece.request);
  if (!fate.begun) fate.begun_at_ns = run_.kernel.now_ns();
  fate.begun = true;
  if (piece.last) {
    fate.sent = true;
    fate.sent_at_ns = run_.kernel.now_ns();
    run_.tell("client " + fate_.ip + " has sent request " + std::to_string(piece.request->id));
  }
  peer_->send(piece.bytes);
  pump();
}

void Client::release() {
  released_ = true;
  pump();
}

// ---- receiving

void Client::read() {
  const std::string bytes = peer_->take();
  received_ += bytes.size();
  std::string_view in = bytes;
  while (!in.empty()) {
    if (fate_.busy) return;  // with content even for HEAD: the request was not looked at
    // The same where weir could not know that the request would be a HEAD.
    if (answered_ > 0 && fate_.said_close) {
      const Request& last = *plan_.requests[answered_ - 1];
      if (last.method == "HEAD" && run_.fate(last).status == 408) return;
    }
    if (answered_ == plan_.requests.size() || fate_.said_close) {
      run_.violation("client " + fate_.ip + ": bytes behind the last response");
      return;
    }
    in.remove_prefix(reader_.feed(in));
    if (!reader_.complaint().empty()) {
      run_.violation(*plan_.requests[answered_], "weir's response: " + reader_.complaint());
      return;
    }
    if (reader_.complete()) take_message();
  }
  if (plan_.leaves_after_bytes != 0 && received_ >= plan_.leaves_after_bytes) leave();
}

void Client::take_message() {
  Request& request = *plan_.requests[answered_];
  if (reader_.status() >= 200) return take_response(request);
  Fate& fate = run_.fate(request);
  ++fate.interims;
  interim_bytes_ += reader_.wire_bytes();
  if (request.minor == 0) run_.violation(request, "an interim response to HTTP/1.0");
  if (reader_.field("x-id") != std::to_string(request.id)) {
    run_.violation(request, "an interim response of another exchange");
  }
  if (fate.interims > fate.interims_sent) run_.violation(request, "an interim nobody sent");
  const bool go_on = reader_.status() == 100;
  reader_.next(request.method == "HEAD");
  if (go_on && request.expect) release();
}

void Client::take_response(Request& request) {
  Fate& fate = run_.fate(request);
  fate.status = reader_.status();
  fate.complete = true;
  fate.local = !reader_.has("x-id");
  fate.response_bytes = reader_.wire_bytes() + std::exchange(interim_bytes_, 0);
  note_busy(fate);
  run_.tell("client " + fate_.ip + " has response " + std::to_string(fate.status) +
            (fate.local ? " of weir" : "") + " to " + std::to_string(request.id));
  if (!fate.begun && !fate.busy) run_.violation(request, "answered before it was asked");
  check_response(request, fate.local);
  const bool stays = request.minor == 0 ? reader_.connection_says("keep-alive")
                                        : !reader_.connection_says("close");
  const bool by_close = reader_.framing() == Framing::kUntilClose;
  ++answered_;
  const bool more = answered_ < plan_.requests.size();
  reader_.next(more && plan_.requests[answered_]->method == "HEAD");
  if (!stays || by_close) {
    fate_.said_close = true;
    outbox_.clear();
    stopped_ = true;
    return;
  }
  if (!fate.sent) run_.violation(request, "the connection is kept, with content outstanding");
  if (request.asks_close()) run_.violation(request, "the connection is kept against its wish");
  constexpr uint64_t kKnowsByThen = 20 * kMillisecond;
  if (run_.draining && fate.begun_at_ns > run_.drain_at_ns + kKnowsByThen &&
      run_.kernel.fault_counts().clock_jump == 0) {
    run_.violation(request, "the connection is kept, and the drain had begun before");
  }
  if (!more) return finish();
  if (plan_.pipelined || stopped_) return;
  enqueue(*plan_.requests[answered_]);
  pump();
}

// A connection beyond the limit is answered before its request is looked at.
void Client::note_busy(Fate& fate) {
  fate.busy = run_.setup.connections_max != 0 && reader_.status() == 503 && !reader_.has("x-id") &&
              reader_.field("content-length") == "20";
  fate_.busy |= fate.busy;
}

void Client::check_response(const Request& request, bool local) {
  const auto wrong = [&](const std::string& what) { run_.violation(request, what); };
  if (local) {
    const bool at_respond = request.place == Place::kRespond && reader_.status() == 200;
    if (at_respond && request.method != "HEAD" && reader_.body() != kRespondBody) {
      wrong("the local answer is not the configured one");
    }
    return;
  }
  if (reader_.field("x-id") != std::to_string(request.id)) {
    wrong("the response of " + reader_.field("x-id"));
  }
  const Answer& answer = request.answer;
  const bool error = is_error(request);
  if (reader_.status() != answer.status && !error) wrong("a status that the origin did not send");
  const bool bare =
      request.method == "HEAD" || (!error && (answer.status == 204 || answer.status == 304));
  const std::string body = bare ? "" : body_of(request);
  if (reader_.body() != body) {
    wrong("the response looks complete, but its content is not the origin's (" +
          std::to_string(reader_.body().size()) + " bytes of " + std::to_string(body.size()) + ")");
  }
  if (!reader_.has("via")) wrong("no Via");
  if (!reader_.has("date")) wrong("no Date");
  if (reader_.has("x-hop") || reader_.has("keep-alive")) wrong("a hop-by-hop field of the origin");
  const route::StickySpec& sticky = run_.setup.policies[request.upstream()].spec.sticky;
  const std::string bound = reader_.field("set-cookie");
  if (!bound.empty() && sticky.cookie.empty()) wrong("a cookie that nobody configured");
  if (!bound.empty()) cookie_ = bound.substr(0, bound.find(';'));
  if (error) return;
  if (answer.trailers && !answer.hop && !bare && request.minor == 1 &&
      reader_.trailer("x-trail") != std::to_string(request.id)) {
    wrong("the origin's trailer is missing");
  }
  if (answer.framing == Framing::kLength && !bare && reader_.framing() != Framing::kLength) {
    wrong("the origin's Content-Length is missing");
  }
}

// An origin's answer with another status than the planned one.
bool Client::is_error(const Request& request) const {
  return run_.fate(request).errors_sent != 0 && reader_.status() == request.answer.error_status;
}

std::string Client::body_of(const Request& request) const {
  const Answer& answer = request.answer;
  return is_error(request) ? make_body(request.id, 'e', answer.error_bytes)
                           : make_body(request.id, 'r', answer.body_bytes);
}

// Of a response that did not become complete: what came of it must be right as far as it goes.
void Client::check_part() const {
  if (answered_ >= plan_.requests.size() || !reader_.head_done() || reader_.complete()) return;
  const Request& request = *plan_.requests[answered_];
  if (reader_.status() < 200 || !reader_.has("x-id")) return;
  if (reader_.field("x-id") != std::to_string(request.id)) {
    run_.violation(request, "part of the response of " + reader_.field("x-id"));
  }
  const std::string body = body_of(request);
  if (!std::string_view(body).starts_with(reader_.body())) {
    const auto differ = std::ranges::mismatch(body, reader_.body()).in1 - body.begin();
    run_.violation(request, "an incomplete response with content that is not the origin's, from " +
                                std::to_string(differ) + " of " + std::to_string(body.size()) +
                                ": " + reader_.body().substr(static_cast<size_t>(differ)));
  }
}

void Client::finish() {
  fate_.finished = true;
  if (plan_.lingers) return;
  peer_->close();
  done_ = true;
}

void Client::on_end() {
  if (done_) return;
  run_.tell("client " + fate_.ip + " sees the end, error " + std::to_string(peer_->error()));
  if (peer_->error() == 0 && answered_ < plan_.requests.size()) {
    reader_.end_of_stream();
    if (reader_.complete()) take_message();
  }
  done_ = true;
  outbox_.clear();
  if (answered_ < plan_.requests.size() && reader_.head_done()) {
    Fate& fate = run_.fate(*plan_.requests[answered_]);
    fate.status = reader_.status();
    note_busy(fate);
  }
  peer_->close();
}

}  // namespace weir::sim
