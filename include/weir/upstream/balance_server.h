// One server of an upstream as the balancer of one core sees it: what the configuration says, the
// state that health checks and operators gave it, and what this core measured. Plain values of that
// core's thread; times are the caller's (monotonic nanoseconds).
#pragma once

#include <cstdint>
#include <string_view>

#include <weir/route/spec.h>
#include <weir/upstream/circuit.h>
#include <weir/upstream/sample.h>

namespace weir::upstream {

class Endpoint;

using route::ServerState;
std::string_view to_string(ServerState state) noexcept;

// What control knows of a server.
struct ServerFacts {
  Endpoint* endpoint = nullptr;  // null: no address yet, takes nothing. Never looked into.
  uint64_t identity = 0;         // server_identity(): the same on every core and after a restart
  uint64_t tag = 0;              // its name in sticky cookies (StickySigner::tag); 0: none
  uint32_t weight = 1;           // 0 takes nothing; more than kWeightMax counts as that
  uint32_t max_connections = 0;  // this core's share; 0: no limit
  uint32_t priority = 0;         // lower ones first
  bool backup = false;           // after all that are none, whatever the priorities
  uint32_t race_group = 0;       // as in route::ServerSpec
  ServerState state = ServerState::kUp;  // of one that was not there before; others keep theirs
};

// Peak-EWMA of latency: goes up at once, comes down in the decay time.
class PeakLatency {
 public:
  void observe(uint64_t latency_ns, uint64_t now_ns, uint64_t decay_ns) noexcept;
  // A server that nobody asks keeps its value for one decay time, then loses it by and by: it has
  // to be tried again at some point. 0: nothing known.
  [[nodiscard]] double read(uint64_t now_ns, uint64_t decay_ns) const noexcept;

 private:
  double average_ns_ = 0;
  uint64_t seen_ns_ = 0;
};

struct BalancedServer {
  static constexpr uint32_t kWeightMax = 1'000'000;
  static constexpr uint32_t kFull = 1024;      // weights are counted in 1/1024, for slow start
  static constexpr uint32_t kRampFloor = 102;  // slow start begins with a tenth

  ServerFacts facts;
  bool open = false;  // up, with an address and a weight
  uint32_t active = 0;
  uint64_t ramp_begin_ns = 0;
  uint64_t ramp_end_ns = 0;  // 0: at full weight
  int64_t turn = 0;          // of smooth weighted round robin
  PeakLatency latency;
  // What makes up facts.state (Pool): what control said, passive checks, the circuit breaker.
  ServerState told = ServerState::kUp;
  bool ejected = false;
  bool unreachable = false;  // its last failure was that nothing could be connected
  CircuitBreaker circuit;
  ServerCounts counts;

  void refresh_open() noexcept {
    open = facts.state == ServerState::kUp && facts.endpoint != nullptr && facts.weight != 0;
  }
  [[nodiscard]] bool full() const noexcept {
    return facts.max_connections != 0 && active >= facts.max_connections;
  }
  // kRampFloor..kFull, never falling as time goes on.
  [[nodiscard]] uint32_t ramp(uint64_t now_ns) const noexcept {
    return ramp_end_ns == 0 || now_ns >= ramp_end_ns ? kFull : ramp_part(now_ns);
  }
  [[nodiscard]] uint64_t effective_weight(uint64_t now_ns) const noexcept {
    return uint64_t{facts.weight} * ramp(now_ns);
  }

 private:
  [[nodiscard]] uint32_t ramp_part(uint64_t now_ns) const noexcept;
};

}  // namespace weir::upstream
