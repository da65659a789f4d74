// The whole HTTP/1.1 proxy path on the simulated kernel: production cores between scripted clients
// and origins, under swarms of faults, reloads and ends at any moment.
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <string>

#include <sim/proxy_client.h>
#include <sim/proxy_oracle.h>
#include <sim/proxy_server.h>
#include <sim/sim_kernel.h>

#include <catch2/catch_test_macros.hpp>

namespace {

using namespace weir;
using namespace weir::sim;

struct Outcome {
  uint64_t digest = 0;
  uint64_t completed = 0;  // responses of origins
  uint64_t begun = 0;      // requests
  Proxy::Coverage coverage;
};

// Clients get so long (virtual time) under faults, and then so long in calm.
constexpr uint64_t kFaultsMax = 40 * kSecond;
constexpr uint64_t kClientsMax = 1'200 * kSecond;
constexpr uint64_t kDrainMax = 600 * kSecond;

void make_clients(Run& run, std::deque<Client>& clients) {
  for (uint32_t i = 0; i < run.setup.clients; ++i) {
    ClientPlan plan;
    choose_client(run.kernel, run.setup, plan);
    const uint64_t count = 1 + run.kernel.below(run.kernel.chance(40) ? 24 : 6);
    for (uint64_t k = 0; k < count; ++k) {
      Request& request = run.add_request();
      choose_request(run.kernel, run.setup, k + 1 == count, request);
      plan.requests.push_back(&request);
    }
    clients.emplace_back(run, i, std::move(plan)).start();
  }
}

void make_events(Run& run, Proxy& proxy) {
  Kernel& kernel = run.kernel;
  const auto sometime = [&] { return kMicrosecond << kernel.below(22); };
  if (run.setup.reloads) {
    for (uint64_t count = 1 + kernel.below(6); count > 0; --count) {
      kernel.schedule(sometime(), [&proxy] { proxy.reload(); });
    }
  }
  if (run.setup.servers_fail) {
    for (uint64_t count = 1 + kernel.below(5); count > 0; --count) {
      kernel.schedule(sometime(), [&proxy] { proxy.change_server(); });
    }
  }
  for (uint64_t count = kernel.below(8); count > 0; --count) {
    kernel.schedule(sometime(), [&proxy] { proxy.change_state(); });
  }
  for (uint64_t count = kernel.below(4); count > 0; --count) {
    kernel.schedule(sometime(), [&proxy] { proxy.change_servers(); });
  }
  kernel.schedule(sometime(), [&proxy] { proxy.scrape(); });
  if (run.setup.ending == Ending::kDrainMidway) {
    kernel.schedule(run.setup.ending_at_ns, [&proxy] { proxy.drain(); });
    if (kernel.chance(30)) {
      kernel.schedule(run.setup.ending_at_ns + sometime(), [&proxy] { proxy.cancel(); });
    }
  } else if (run.setup.ending == Ending::kCancelMidway) {
    kernel.schedule(run.setup.ending_at_ns, [&proxy] { proxy.cancel(); });
  }
}

bool all_done(const std::deque<Client>& clients) {
  for (const Client& client : clients) {
    if (!client.done()) return false;
  }
  return true;
}

// False: something did not end in time; why is on stderr.
bool play(Run& run, Proxy& proxy, std::deque<Client>& clients) {
  Kernel& kernel = run.kernel;
  const auto turn = [&proxy] { proxy.turn(); };
  const uint64_t calm_at = kernel.now_ns() + kFaultsMax;
  const auto enough = [&] { return all_done(clients) || kernel.now_ns() >= calm_at; };
  if (!kernel.run_until(turn, enough, 2 * kFaultsMax)) return false;
  kernel.calm();
  run.tell("calm");
  if (!kernel.run_until(turn, [&] { return all_done(clients); }, kClientsMax)) return false;
  proxy.drain();
  if (!kernel.run_until(turn, [&] { return proxy.quiet(); }, kDrainMax)) return false;
  proxy.stop();
  return kernel.run_until(turn, [&] { return proxy.stopped(); }, kSecond);
}

void report(const Run& run, uint64_t seed) {
  std::string text;
  for (const std::string& violation : run.violations) text += "\n  " + violation;
  FAIL_CHECK("seed " << seed << " (WEIR_SIM_SEED=" << seed
                     << " replays it, WEIR_SIM_TRACE=1 tells all):" << text);
}

// From here on runs without faults of the network: nothing may go wrong but what the scripts do.
constexpr uint64_t kCalmSeeds = 1'000'000;

Outcome run_once(uint64_t seed) {
  Outcome outcome;
  INFO("seed " << seed << ": replay with WEIR_SIM_SEED=" << seed);
  Kernel kernel(seed, seed > kCalmSeeds ? Faults::none() : Faults::swarm(seed));
  Run run(kernel, seed);
  Proxy proxy(run);
  std::deque<Client> clients;
  proxy.start();
  make_clients(run, clients);
  make_events(run, proxy);
  if (!play(run, proxy, clients)) {
    std::fprintf(stderr,
                 "seed %llu: it does not end; WEIR_SIM_SEED=%llu WEIR_SIM_TRACE=1 tells all\n",
                 static_cast<unsigned long long>(seed), static_cast<unsigned long long>(seed));
    std::quick_exit(1);  // cores with connections cannot be taken down
  }
  proxy.close();
  for (Client& client : clients) client.close_books();
  judge(run);
  if (const std::string left = kernel.finish(); !left.empty()) run.violation(left);
  if (proxy.coverage().records_dropped != 0) run.violation("access records were dropped");
  // Nobody spins: the work is in proportion to what was asked for.
  if (kernel.completions() > 200'000) run.violation("too many completions");
  if (!run.violations.empty()) report(run, seed);
  for (const Fate& fate : run.fates) {
    outcome.completed += fate.complete && !fate.local ? 1 : 0;
    outcome.begun += fate.begun ? 1 : 0;
  }
  outcome.digest = kernel.digest();
  outcome.coverage = proxy.coverage();
  return outcome;
}

uint64_t number(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

}  // namespace

// WEIR_SIM_SEED=n runs that seed alone; WEIR_SIM_SEEDS=n runs so many, from WEIR_SIM_FIRST on.
TEST_CASE("sim: the proxy under faults") {
  const uint64_t one = number("WEIR_SIM_SEED", 0);
  const uint64_t first = one != 0 ? one : number("WEIR_SIM_FIRST", 1);
  const uint64_t last = one != 0 ? one : first - 1 + number("WEIR_SIM_SEEDS", 2000);
  Outcome all;
  for (uint64_t seed = first; seed <= last; ++seed) {
    const Outcome outcome = run_once(seed);
    all.completed += outcome.completed;
    all.begun += outcome.begun;
    all.coverage.add(outcome.coverage);
  }
  INFO(all.completed << " of " << all.begun << " requests were answered by an origin");
  if (last - first + 1 < 100) return;
  REQUIRE(all.completed * 4 > all.begun);
  // Each way that a run can take was taken.
  const Proxy::Coverage& seen = all.coverage;
  CHECK(seen.bad_requests > 0);
  CHECK(seen.bad_responses > 0);
  CHECK(seen.client_timeouts > 0);
  CHECK(seen.upstream_timeouts > 0);
  CHECK(seen.stale_retries > 0);
  CHECK(seen.failovers > 0);
  CHECK(seen.hedged > 0);
  CHECK(seen.ejections > 0);
  CHECK(seen.waited > 0);
  CHECK(seen.pending_refused > 0);
  CHECK(seen.retries_refused > 0);
  CHECK(seen.refused > 0);
  CHECK(seen.body_bytes_buffered > 0);
  CHECK(seen.body_bytes_direct > 0);
  CHECK(seen.starved > 0);
}

TEST_CASE("sim: the proxy in calm") {
  for (uint64_t seed = kCalmSeeds + 1; seed <= kCalmSeeds + 20; ++seed) run_once(seed);
}

TEST_CASE("sim: the proxy replays exactly") {
  for (uint64_t seed = 1; seed <= 10; ++seed)
    REQUIRE(run_once(seed).digest == run_once(seed).digest);
}
