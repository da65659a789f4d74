#include <weir/upstream/balancer.h>

namespace weir::upstream {

int choose_round_robin(std::span<Candidate> candidates, uint64_t tried) noexcept {
  int64_t total = 0;
  int best = -1;
  for (size_t i = 0; i < candidates.size(); ++i) {
    Candidate& candidate = candidates[i];
    if (candidate.endpoint == nullptr || candidate.weight == 0) continue;
    if (i < 64 && ((tried >> i) & 1) != 0) continue;
    candidate.current += candidate.weight;
    total += candidate.weight;
    if (best < 0 || candidate.current > candidates[static_cast<size_t>(best)].current) {
      best = static_cast<int>(i);
    }
  }
  if (best >= 0) candidates[static_cast<size_t>(best)].current -= total;
  return best;
}

}  // namespace weir::upstream
