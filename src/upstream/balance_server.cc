#include <weir/upstream/balance_server.h>

#include <algorithm>
#include <cmath>

namespace weir::upstream {

std::string_view to_string(ServerState state) noexcept {
  switch (state) {
    case ServerState::kUp: return "up";
    case ServerState::kDraining: return "draining";
    case ServerState::kDown: return "down";
    case ServerState::kEjected: return "ejected";
  }
  return "unknown";
}

void PeakLatency::observe(uint64_t latency_ns, uint64_t now_ns, uint64_t decay_ns) noexcept {
  const auto latency = static_cast<double>(latency_ns);
  if (latency >= average_ns_ || decay_ns == 0) {
    average_ns_ = latency;
  } else {
    const uint64_t passed_ns = now_ns > seen_ns_ ? now_ns - seen_ns_ : 0;
    const double kept = std::exp(-static_cast<double>(passed_ns) / static_cast<double>(decay_ns));
    average_ns_ = average_ns_ * kept + latency * (1 - kept);
  }
  seen_ns_ = std::max(seen_ns_, now_ns);
}

double PeakLatency::read(uint64_t now_ns, uint64_t decay_ns) const noexcept {
  if (now_ns <= seen_ns_ + decay_ns || decay_ns == 0) return average_ns_;
  const double idle =
      static_cast<double>(now_ns - seen_ns_ - decay_ns) / static_cast<double>(decay_ns);
  return average_ns_ * std::exp(-idle);
}

uint32_t BalancedServer::ramp_part(uint64_t now_ns) const noexcept {
  if (now_ns <= ramp_begin_ns) return kRampFloor;
  const uint64_t passed = now_ns - ramp_begin_ns;
  const uint64_t whole = ramp_end_ns - ramp_begin_ns;
  const auto part = static_cast<uint32_t>(static_cast<unsigned __int128>(passed) * kFull / whole);
  return std::max(part, kRampFloor);
}

}  // namespace weir::upstream
