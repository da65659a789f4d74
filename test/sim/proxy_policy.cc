// How weir treats the upstreams of a simulated run: retries, hedging, limits, passive checks.
#include <sim/proxy_plan.h>

#include <weir/base/prng.h>

namespace weir::sim {

namespace {

// From 1 to 2^doublings, each order of magnitude as likely.
uint32_t some_ms(base::Prng& rng, uint32_t doublings) {
  return static_cast<uint32_t>(1 + rng.below(uint64_t{1} << rng.below(doublings + 1)));
}

uint32_t up_to(base::Prng& rng, uint32_t most) {
  return static_cast<uint32_t>(1 + rng.below(most));
}

void choose_retries(base::Prng& rng, route::RetrySpec& retry) {
  retry.tries_max = up_to(rng, 5);
  retry.on_connect = rng.chance(85);
  retry.on_reset = rng.chance(75);
  retry.on_timeout = rng.chance(50);
  static constexpr uint16_t kStatuses[] = {500, 502, 503, 504};
  for (const uint16_t status : kStatuses) {
    if (rng.chance(40)) retry.on_status.push_back(status);
  }
  retry.non_idempotent = rng.chance(15);
  if (rng.chance(30)) retry.try_timeout_ms = some_ms(rng, 12);
  if (rng.chance(30)) retry.total_timeout_ms = some_ms(rng, 13);
  if (rng.chance(60)) retry.hedge_after_ms = some_ms(rng, 6);
  if (rng.chance(30)) {
    retry.budget_percent = rng.chance(50) ? 10 : 0;
    retry.budget_per_second = rng.chance(50) ? 1 : 0;
  }
}

void choose_limits(base::Prng& rng, Policy& policy) {
  route::UpstreamSpec& spec = policy.spec;
  if (rng.chance(30)) spec.max_connections = up_to(rng, 4);
  if (rng.chance(30)) policy.server_limit = up_to(rng, 3);
  if (rng.chance(50)) spec.max_pending = static_cast<uint32_t>(rng.below(12));
  spec.pending_timeout_ms = rng.chance(50) ? 30'000 : some_ms(rng, 13);
  policy.races = rng.chance(50);
  spec.connect_race_ms = rng.chance(70) ? some_ms(rng, 9) : 0;
}

void choose_checks(base::Prng& rng, route::UpstreamSpec& spec) {
  if (rng.chance(50)) {
    spec.outliers = {.enabled = true,
                     .consecutive_errors = static_cast<uint32_t>(rng.below(4)),
                     .error_percent = rng.chance(50) ? 30u : 0u,
                     .error_requests_min = up_to(rng, 5),
                     .window_ms = 100 + some_ms(rng, 12),
                     .latency_percent = rng.chance(40) ? 200u : 0u,
                     .latency_floor_ms = 1,
                     .latency_requests_min = up_to(rng, 4),
                     .ejection_ms = some_ms(rng, 10),
                     .ejection_max_ms = some_ms(rng, 13),
                     .ejected_percent_max = rng.chance(50) ? 100u : 50u,
                     .servers_left_min = up_to(rng, 2)};
  }
  if (!rng.chance(40)) return;
  spec.circuit = {.failures = up_to(rng, 3),
                  .open_ms = some_ms(rng, 10),
                  .open_max_ms = some_ms(rng, 12),
                  .trials_max = up_to(rng, 2),
                  .successes = up_to(rng, 2),
                  .trial_timeout_ms = some_ms(rng, 14)};
}

}  // namespace

void choose_policies(uint64_t seed, Setup& setup) {
  base::Prng rng(seed ^ 0x706f'6c69'6379ULL);
  for (size_t which = 0; which < 2; ++which) {
    Policy& policy = setup.policies[which];
    route::UpstreamSpec& spec = policy.spec;
    // Enough for whatever happens, so that what fails has a reason of its own.
    spec.retry = {.tries_max = 5, .budget_percent = 100, .budget_per_second = 1000};
    spec.outliers.enabled = false;
    policy.plain = rng.chance(35);
    if (policy.plain) continue;
    setup.servers[which] = up_to(rng, kServersMax);
    spec.balance.algorithm = static_cast<route::Balance>(rng.below(6));
    if (rng.chance(30)) spec.balance.slow_start_ms = some_ms(rng, 10);
    if (rng.chance(30)) spec.balance.load_bound_percent = 125;
    choose_retries(rng, spec.retry);
    choose_limits(rng, policy);
    choose_checks(rng, spec);
    if (rng.chance(40)) {
      spec.sticky.cookie = "weir_sticky";
      spec.sticky.key = "a key of this simulation alone";
    }
    policy.talkative = rng.chance(50);
  }
}

}  // namespace weir::sim
