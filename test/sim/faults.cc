#include <sim/faults.h>

#include <weir/base/prng.h>

namespace weir::sim {

Faults Faults::swarm(uint64_t seed) noexcept {
  // A stream of its own, so that a new fault class at the end leaves the older seeds' choices
  // alone.
  base::Prng rng(seed ^ 0x5377'4152'4d00ULL);
  Faults faults;
  const auto often = [&rng](uint8_t& rate) {
    static constexpr uint8_t kRates[] = {2, 10, 30, 70};
    const bool on = rng.chance(35);
    const uint8_t chosen = kRates[rng.below(4)];
    rate = on ? chosen : uint8_t{0};
  };
  // Classes that end an exchange stay rare, or nothing would ever succeed in such a run.
  const auto seldom = [&rng](uint8_t& rate) {
    static constexpr uint8_t kRates[] = {2, 5, 15, 30};
    const bool on = rng.chance(30);
    const uint8_t chosen = kRates[rng.below(4)];
    rate = on ? chosen : uint8_t{0};
  };
  often(faults.short_send);
  often(faults.short_recv);
  often(faults.reorder);
  often(faults.delay);
  often(faults.small_batch);
  often(faults.spurious_wake);
  often(faults.multishot_end);
  often(faults.no_buffers);
  seldom(faults.no_files);
  often(faults.cancel_race);
  seldom(faults.refuse);
  seldom(faults.connect_hang);
  seldom(faults.reset);
  seldom(faults.vanish);
  seldom(faults.slow_peer);
  often(faults.small_socket);
  seldom(faults.clock_jump);
  often(faults.full_queue);
  often(faults.slow_connect);
  return faults;
}

}  // namespace weir::sim
