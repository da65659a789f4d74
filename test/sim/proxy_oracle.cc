#include <sim/proxy_oracle.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace weir::sim {

using log::Reason;

void Run::violation(const std::string& what) {
  tell("VIOLATION: " + what);
  violations.push_back(what);
}

void Run::violation(const Request& at, const std::string& what) {
  violation("request " + std::to_string(at.id) + " (" + at.method + ", " +
            (at.wrong[0] == 0 ? "good" : at.wrong) + "): " + what);
}

void Run::tell(const std::string& what) const {
  static const bool wanted = std::getenv("WEIR_SIM_TRACE") != nullptr;
  if (!wanted) return;
  std::fprintf(stderr, "* %12.6f ms  %s\n",
               static_cast<double>(kernel.now_ns() % 1'000'000'000'000) / 1e6, what.c_str());
}

namespace {

// One client's connection, with the log lines of it.
class Judge {
 public:
  Judge(Run& run, const ClientFate& client) : run_(run), client_(client) {}
  std::vector<const LogLine*> lines;
  std::vector<const Request*> requests;

  void judge();

 private:
  void judge_exchange(const Request& request, const LogLine& line);
  void judge_end(const Request& request, const LogLine& line);
  void judge_success(const Request& request, const LogLine& line);
  void judge_failure(const Request& request, const LogLine& line);
  void judge_unstarted(size_t at);
  [[nodiscard]] bool plausible(const Request& request, const LogLine& line) const;
  [[nodiscard]] bool status_fits(const Request& request, const LogLine& line) const;
  [[nodiscard]] bool of_origin(const Request& request, unsigned status) const;
  void judge_abandoned(const Request& request, const LogLine& line);
  [[nodiscard]] bool few_buffers() const { return run_.starved || run_.setup.buffers <= 64; }
  // The response behind it had to be cut by a reset, which may take earlier ones with it.
  [[nodiscard]] bool cut_by_next(const LogLine& line) const {
    return client_.error != 0 && lines.back() != &line && lines.back()->reason != Reason::kNone;
  }
  // The client was there to the end and read all that came.
  [[nodiscard]] bool watched() const {
    return client_.connected && !client_.left && !client_.disturbed;
  }
  [[nodiscard]] bool all_slow() const {
    const FaultCounts& counts = run_.kernel.fault_counts();
    return run_.setup.short_times || counts.slow_peer != 0 || counts.clock_jump != 0;
  }

  Run& run_;
  const ClientFate& client_;
};

void Judge::judge() {
  for (size_t i = 0; i < requests.size(); ++i) {
    const Request& request = *requests[i];
    if (i >= lines.size()) {
      judge_unstarted(i);
      continue;
    }
    const LogLine& line = *lines[i];
    if (line.id != request.id && line.id != 0) {
      run_.violation(request, "the log has request " + std::to_string(line.id) + " in its place");
      return;
    }
    const bool nameless = request.refused != 0 && !request.wrong_body;
    if (line.id == 0 && !nameless && i + 1 != lines.size()) {
      run_.violation(request, "its head was never known, yet the connection went on");
    }
    judge_exchange(request, line);
  }
  if (lines.size() > requests.size()) {
    run_.violation("client " + client_.ip + ": more access records than requests");
  }
}

void Judge::judge_unstarted(size_t at) {
  const Request& request = *requests[at];
  const Fate& fate = run_.fate(request);
  if (fate.seen != 0) run_.violation(request, "an origin saw it, and no record says so");
  // The record of a head that was refused has no name when the connection broke meanwhile.
  if (fate.status != 0 && !fate.busy && client_.error == 0) {
    run_.violation(request, "answered without a record");
  }
  if (at != client_.responses || !fate.begun || !watched() || client_.said_close || client_.busy)
    return;
  // Its connection ended without a word before it began.
  const FaultCounts& counts = run_.kernel.fault_counts();
  const bool idle =
      run_.setup.short_times || counts.clock_jump != 0 || client_.slow || run_.starved;
  const bool never_accepted = (run_.listeners_closed || run_.draining) && counts.no_files != 0;
  // What was on its way when the drain began must have been looked at.
  constexpr uint64_t kTravel = 50 * kMillisecond;
  const bool late = run_.draining && fate.sent_at_ns + kTravel >
                                         run_.drain_at_ns + run_.drain_grace_ms * kMillisecond;
  const bool unfinished = run_.draining && (!fate.sent || counts.slow_peer != 0);
  // The answer to a connection beyond the limit is not waited for.
  const bool refused = run_.setup.connections_max != 0 && client_.responses == 0;
  // What was read behind a large chunked body is dropped where there is no buffer for it, or when
  // the origin does not take the body.
  const bool behind_large = at > 0 && requests[at - 1]->framing == Framing::kChunked &&
                            requests[at - 1]->body_bytes > 30'000;
  const bool dropped = client_.pipelines && (few_buffers() || behind_large);
  if (late || unfinished || run_.cancelled || idle || never_accepted || refused || dropped) return;
  run_.violation(request, "sent in full on a kept connection, and neither answered nor recorded");
}

void Judge::judge_exchange(const Request& request, const LogLine& line) {
  const Fate& fate = run_.fate(request);
  if (fate.seen > line.tries) run_.violation(request, "origins saw more attempts than were made");
  if (!plausible(request, line)) {
    run_.violation(request, "it failed for " + std::string(to_string(line.reason)) + " (status " +
                                std::to_string(line.status) + "), of which there was no cause");
  }
  judge_end(request, line);
  judge_abandoned(request, line);
  if (!status_fits(request, line)) {
    run_.violation(request, "status " + std::to_string(line.status) + " with reason " +
                                std::string(to_string(line.reason)));
  }
  if (fate.status != 0 && fate.status != line.status && !fate.busy) {
    run_.violation(request, "the log says " + std::to_string(line.status) +
                                ", the client was told " + std::to_string(fate.status));
  }
  if (line.reason == Reason::kNone) {
    judge_success(request, line);
  } else {
    judge_failure(request, line);
  }
}

// Nobody works for a client that is gone: at most for the half-close grace, and once more each time
// that the answer moved. But where nothing is read from it (its queue is full, there are no
// buffers, its content is not wanted yet), nobody can know.
void Judge::judge_end(const Request& request, const LogLine& line) {
  if (client_.gone_ns == 0 || client_.disturbed || client_.slow || all_slow()) return;
  const bool content = client_.gone_by_fin && request.framing != Framing::kNone;
  const bool large = request.wire_body.size() > 2 * run_.setup.buffer_bytes;
  if (client_.pipelines || few_buffers() || content || large) return;
  const uint64_t patience = 3 * run_.setup.times.half_close_grace + 200;
  const uint64_t late = line.at_ns - std::min(line.at_ns, client_.gone_ns);
  if (late <= patience * kMillisecond) return;
  run_.violation(request, "its client left " + std::to_string(late / kMillisecond) +
                              " ms before weir noticed");
}

// A try that is not wanted any more, be it the loser of two or the last of all, goes with its
// connection: no origin is kept at work for nobody.
void Judge::judge_abandoned(const Request& request, const LogLine& line) {
  if (all_slow()) return;
  constexpr uint64_t kTravel = 500 * kMillisecond;
  for (const Fate::Abandoned& attempt : run_.fate(request).abandoned) {
    const uint64_t since_ns = std::max(line.at_ns, attempt.begun_ns);
    if (attempt.ended_ns <= since_ns + kTravel) continue;
    run_.violation(request, "an origin was left at it for " +
                                std::to_string((attempt.ended_ns - since_ns) / kMillisecond) +
                                " ms after its end");
  }
}

void Judge::judge_success(const Request& request, const LogLine& line) {
  const Fate& fate = run_.fate(request);
  if (fate.complete && fate.response_bytes != line.bytes_out) {
    run_.violation(request, "the log says " + std::to_string(line.bytes_out) +
                                " bytes, the client " + "has " +
                                std::to_string(fate.response_bytes));
  }
  if (fate.whole != 0 && request.place <= Place::kSmall &&
      line.bytes_in != request.head.size() + request.body_bytes) {
    run_.violation(request, "bytes_in is " + std::to_string(line.bytes_in) + ", sent were " +
                                std::to_string(request.head.size()) + " + " +
                                std::to_string(request.body_bytes));
  }
  if (fate.complete && !fate.local && request.minor == 1 && fate.seen == 1 &&
      fate.interims != fate.interims_sent) {
    run_.violation(request, "interim responses were lost");
  }
  if (request.place <= Place::kSmall && fate.seen == 0) {
    run_.violation(request, "a success that no origin knows of");
  }
  if (!watched() || fate.complete || run_.cancelled) return;
  // What was sent may still be lost when the client does not read and weir's patience ends.
  if (cut_by_next(line)) return;
  if (client_.slow || run_.kernel.fault_counts().slow_peer != 0) return;
  run_.violation(request, "a success in the log that the client does not have");
}

void Judge::judge_failure(const Request& request, const LogLine& line) {
  const Fate& fate = run_.fate(request);
  const bool ended_by_others =
      line.reason == Reason::kClientGone || line.reason == Reason::kShutdown;
  if (fate.complete && !fate.local && !ended_by_others) {
    run_.violation(request, "a failure in the log, and a complete response at the client");
  }
  const bool told = !of_origin(request, line.status) && !ended_by_others;
  if (!watched() || fate.status != 0 || !told || fate.seen != 0 || run_.cancelled) return;
  if (cut_by_next(line)) return;
  if (client_.slow || all_slow()) return;
  run_.violation(request, "status " + std::to_string(line.status) +
                              " in the log, and the client was not told");
}

bool Judge::of_origin(const Request& request, unsigned status) const {
  const Answer& answer = request.answer;
  if (status == answer.status) return true;
  return run_.fate(request).errors_sent != 0 && status == answer.error_status;
}

bool Judge::status_fits(const Request& request, const LogLine& line) const {
  const bool passed_on = request.place <= Place::kSmall;
  switch (line.reason) {
    case Reason::kNone:
      if (request.refused != 0 && !request.wrong_body) return false;
      if (request.place == Place::kRespond) return line.status == 200;
      if (request.place == Place::kRedirect) return line.status == 302;
      return of_origin(request, line.status);
    case Reason::kBadRequest: return line.status == 400;
    case Reason::kTooLarge:
    case Reason::kUnsupported: return line.status == request.refused;
    case Reason::kNoRoute: return line.status == 404;
    default: break;
  }
  if (passed_on && of_origin(request, line.status)) return true;  // failed after the head
  switch (line.reason) {
    case Reason::kClientGone: return line.status == 499 || line.status == 0 || !passed_on;
    case Reason::kClientTimeout: return line.status == 408 || line.status == 499 || !passed_on;
    case Reason::kShutdown: return line.status == 503 || line.status == 0 || !passed_on;
    case Reason::kUpstreamTimeout: return line.status == 504;
    case Reason::kUpstreamBusy:
    case Reason::kNoUpstream: return line.status == 503;
    // Several that cannot be reached are an upstream that is not there.
    case Reason::kUpstreamConnect:
      return line.status == 502 || (line.status == 503 && line.tries > 1);
    default: return line.status == 502;
  }
}

bool Judge::plausible(const Request& request, const LogLine& line) const {
  const Fate& fate = run_.fate(request);
  const FaultCounts& counts = run_.kernel.fault_counts();
  const Setup& setup = run_.setup;
  const size_t upstream = request.upstream();
  const Policy& policy = setup.policies[upstream];
  const route::RetrySpec& retry = policy.spec.retry;
  switch (line.reason) {
    case Reason::kNone: return true;
    case Reason::kClientGone: {
      // Whole milliseconds: up to one less.
      const uint64_t grace = setup.times.half_close_grace * kMillisecond;
      const bool given_up = client_.half_closed_ns != 0 &&
                            line.at_ns + kMillisecond >= client_.half_closed_ns + grace;
      return client_.left || client_.disturbed || given_up;
    }
    case Reason::kClientTimeout:
      // Where others hold all buffers for too long, content waits in the socket.
      return client_.left || client_.disturbed || client_.slow || all_slow() ||
             setup.slow_clients || run_.starved;
    case Reason::kBadRequest:
    case Reason::kTooLarge:
    case Reason::kUnsupported: return request.refused == line.status;
    case Reason::kNoRoute: return request.place == Place::kNowhere;
    case Reason::kUpstreamConnect:
      // Where not all servers may be tried, or others have failed in another way, one that is down
      // is enough.
      return counts.refuse != 0 || run_.all_down[upstream] ||
             (run_.any_down[upstream] &&
              (!policy.plain || run_.retries_refused[upstream] || fate.seen != 0)) ||
             (setup.servers_fail && (counts.connect_hang != 0 || all_slow()));
    case Reason::kUpstreamBusy: return policy.limited();
    case Reason::kNoUpstream: return run_.told_down[upstream] || policy.spec.circuit.failures != 0;
    case Reason::kUpstreamTimeout:
      if (retry.try_timeout_ms != 0 || retry.total_timeout_ms != 0) return true;
      return all_slow() || counts.connect_hang != 0 || run_.origin_hit || setup.slow_origins ||
             fate.trouble_struck;
    case Reason::kUpstreamReset:
    case Reason::kUpstreamClosed: {
      // What may be repeated survives a connection that its origin closed meanwhile.
      const bool once = !request.idempotent() || request.body_bytes > 60'000;
      return run_.origin_hit || fate.trouble_struck || request.answer.early || run_.extra_bytes ||
             (run_.origin_closed && once);
    }
    case Reason::kUpstreamMalformed: return fate.trouble_struck || run_.extra_bytes;
    case Reason::kShutdown: return run_.cancelled;
    default: return false;
  }
}

}  // namespace

void judge(Run& run) {
  std::deque<Judge> judges;
  for (const ClientFate& client : run.clients) judges.emplace_back(run, client);
  for (const Request& request : run.requests) {
    judges[run.fate(request).client].requests.push_back(&request);
  }
  size_t nameless = 0;
  for (const LogLine& line : run.log) {
    if (line.id != 0 && !run.known(line.id)) {
      run.violation("a record of a request that nobody made");
      continue;
    }
    size_t index = run.clients.size();
    if (line.id != 0) {
      index = run.fate(line.id).client;
      const ClientFate& client = run.clients[index];
      if (line.port != 0 && (line.port != client.port || line.ip != client.ip)) {
        run.violation(run.request(line.id), "the record names another client");
      }
    } else {
      const auto found = std::ranges::find_if(
          run.clients, [&](const ClientFate& c) { return c.port == line.port && c.ip == line.ip; });
      index = static_cast<size_t>(found - run.clients.begin());
    }
    if (index < judges.size()) {
      judges[index].lines.push_back(&line);
    } else {
      ++nameless;
    }
  }
  for (Judge& one : judges) one.judge();
  // A client that is gone by the time it is first asked for has no name.
  const auto gone = std::ranges::count_if(
      run.clients, [](const ClientFate& c) { return c.left || c.disturbed || c.error != 0; });
  if (nameless > static_cast<size_t>(gone)) run.violation("access records of nobody");
}

}  // namespace weir::sim
