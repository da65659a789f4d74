// Numbers of one core's upstreams at one moment: plain values that the core fills in when control
// asks (rarely: it allocates) and control adds up over the cores.
#pragma once

#include <cstdint>
#include <vector>

#include <weir/route/spec.h>
#include <weir/upstream/circuit.h>
#include <weir/upstream/outlier.h>

namespace weir::upstream {

// Since the core knows the server.
struct ServerCounts {
  uint64_t requests = 0;        // begun, retries included
  uint64_t answers = 0;         // that came, whatever they said
  uint64_t failures = 0;        // of the server: connect, reset, timeout, 502, 503, 504
  uint64_t latency_us_sum = 0;  // of the answers, until their head
  uint64_t latency_us = 0;      // moving average of the same; 0: none yet
};

struct ServerSample {
  uint32_t upstream = 0;  // id
  uint64_t identity = 0;
  route::ServerState state = route::ServerState::kUp;  // as the core treats it, ejection included
  CircuitState circuit = CircuitState::kClosed;
  OutlierCause cause = OutlierCause::kNone;  // of the ejection
  uint32_t weight = 0;
  uint32_t active = 0;  // requests under way
  uint32_t idle = 0;    // connections kept
  uint64_t ejections = 0;
  ServerCounts counts;
};

struct UpstreamSample {
  uint32_t upstream = 0;  // id
  uint32_t active = 0;
  uint32_t pending = 0;          // that wait for a server with room
  uint64_t waited = 0;           // all that have ever waited
  uint64_t pending_refused = 0;  // no room in the queue, or waited in vain
  uint64_t retries = 0;
  uint64_t retries_refused = 0;  // by the budget
  uint64_t hedged = 0;
};

struct UpstreamScrape {
  std::vector<ServerSample> servers;
  std::vector<UpstreamSample> upstreams;
};

}  // namespace weir::upstream
