// What the parts of one simulated run of the proxy share: the plan, and what happened so far. Owned
// by the run (proxy_test.cc), one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include <weir/log/access.h>

#include <sim/proxy_plan.h>
#include <sim/sim_kernel.h>

namespace weir::sim {

// What became of a request.
struct Fate {
  // Of the client's script.
  size_t client = 0;
  bool begun = false;  // something of it was sent ...
  uint64_t begun_at_ns = 0;
  bool sent = false;  // ... and all of it
  uint64_t sent_at_ns = 0;
  unsigned status = 0;    // of the final response whose head came; 0: none
  bool complete = false;  // that response looks complete
  bool local = false;     // weir's own answer
  bool busy = false;      // ... to a connection beyond the limit
  unsigned interims = 0;
  uint64_t response_bytes = 0;  // on the wire, interim ones included, when complete
  // Of the origins' scripts.
  unsigned seen = 0;   // heads of it
  unsigned whole = 0;  // complete ones
  unsigned interims_sent = 0;
  unsigned errors_sent = 0;  // answers with error_status
  bool trouble_struck = false;
  // Attempts that weir gave up before the answer had ended.
  struct Abandoned {
    uint64_t begun_ns;
    uint64_t ended_ns;
  };
  std::vector<Abandoned> abandoned;
};

// How a client's connection ended, seen from the client.
struct ClientFate {
  std::string ip;
  uint16_t port = 0;
  bool pipelines = false;
  bool connected = false;
  bool left = false;            // by its script, or it stopped half-way
  uint64_t gone_ns = 0;         // when it closed or reset its connection; 0: it did not
  bool gone_by_fin = false;     // what it had sent may still be good, and weir may still try
  uint64_t half_closed_ns = 0;  // when, behind complete requests; 0: never
  bool slow = false;            // it stopped reading or sending for a while
  bool said_close = false;      // a response announced the end
  bool busy = false;            // refused for the connection limit
  bool finished = false;        // it had all that it wanted
  bool disturbed = false;       // by a fault of the network
  int error = 0;
  size_t responses = 0;  // complete final ones
};

struct LogLine {
  std::string ip;
  uint16_t port = 0;
  uint64_t id = 0;  // 0: the head was never known
  unsigned status = 0;
  log::Reason reason = log::Reason::kNone;
  uint64_t bytes_in = 0;
  uint64_t bytes_out = 0;
  unsigned tries = 0;
  uint64_t at_ns = 0;  // when it was read, by the virtual clock
};

struct Run {
  Run(Kernel& of, uint64_t seed) : kernel(of), setup(choose_setup(of, seed)) {}
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  static constexpr uint64_t kFirstId = 1001;
  Request& add_request() {
    requests.emplace_back();
    fates.emplace_back();
    requests.back().id = kFirstId + requests.size() - 1;
    return requests.back();
  }
  [[nodiscard]] bool known(uint64_t id) const {
    return id >= kFirstId && id - kFirstId < requests.size();
  }
  Request& request(uint64_t id) { return requests[id - kFirstId]; }
  Fate& fate(uint64_t id) { return fates[id - kFirstId]; }
  Fate& fate(const Request& of) { return fate(of.id); }

  void violation(const std::string& what);
  void violation(const Request& at, const std::string& what);
  // For people, with WEIR_SIM_TRACE in the environment.
  void tell(const std::string& what) const;

  Kernel& kernel;
  const Setup setup;
  std::deque<Request> requests;
  std::deque<Fate> fates;
  std::deque<ClientFate> clients;
  std::vector<LogLine> log;
  std::vector<std::string> violations;
  // What may excuse a failure.
  bool draining = false;
  uint64_t drain_at_ns = 0;
  uint64_t drain_grace_ms = 0;
  bool cancelled = false;
  bool listeners_closed = false;       // some were, for a time or for good
  bool origin_hit = false;             // an origin's connection was, by a fault of the network
  bool origin_closed = false;          // a connection without a word, between two exchanges
  bool extra_bytes = false;            // came from an origin
  bool starved = false;                // the buffers ran out
  bool all_down[2] = {false, false};   // the servers of an upstream, each at some time
  bool any_down[2] = {false, false};   // one of them, at some time
  bool told_down[2] = {false, false};  // control said so of one of them
  bool retries_refused[2] = {false, false};  // by the budget
};

}  // namespace weir::sim
