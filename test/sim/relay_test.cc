// The simulation at work: a relay, scripted clients and an echoing origin, many seeds with every
// fault class. Each run must end, lose nothing, and replay exactly.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <sim/sim_kernel.h>

#include <catch2/catch_test_macros.hpp>

#include "relay.h"

namespace {

using namespace weir::sim;

struct Outcome {
  uint64_t digest = 0;
  uint64_t completions = 0;
  uint64_t echoed = 0;
  uint64_t finished = 0;
  FaultCounts counts;
};

std::string payload_of(Kernel& kernel) {
  std::string payload(kernel.chance(70) ? kernel.below(3000) : kernel.below(40000), '\0');
  for (size_t i = 0; i < payload.size(); ++i) {
    payload[i] = static_cast<char>('a' + (i * 7 + payload.size()) % 26);
  }
  return payload;
}

void script_origin(Kernel& kernel, bool& dirty) {
  kernel.listen_origin("127.0.0.1:9000", [&dirty](Peer& origin) {
    origin.on_data = [](Peer& self) { self.send(self.take()); };
    origin.on_end = [&dirty](Peer& self) {
      if (self.error() != 0 || self.disturbed()) dirty = true;
      self.close();
    };
  });
}

void script_client(Kernel& kernel, Peer& client, const std::string& payload) {
  size_t at = 0;
  uint64_t when = 0;
  while (at < payload.size()) {
    const size_t piece = std::min<size_t>(payload.size() - at, 1 + kernel.below(8000));
    kernel.schedule(when, [&client, text = payload.substr(at, piece)] { client.send(text); });
    at += piece;
    when += kernel.below(3 * kMillisecond);
  }
  kernel.schedule(when, [&client] { client.shutdown_write(); });
  if (kernel.chance(20)) {
    client.stall();
    kernel.schedule(kernel.below(3 * kSecond), [&client] { client.resume(); });
  }
}

bool kills_connections(const Faults& faults) {
  return faults.reset != 0 || faults.vanish != 0 || faults.refuse != 0 ||
         faults.connect_hang != 0 || faults.clock_jump != 0;
}

Outcome run(uint64_t seed, const Faults& faults) {
  Kernel kernel(seed, faults);
  kernel.expect_all_buffers_back();
  Outcome outcome;
  bool dirty = false;
  script_origin(kernel, dirty);
  {
    relay::Relay program(relay::Options{.multishot_recv = kernel.chance(50)});
    const size_t count = 1 + kernel.below(6);
    std::vector<std::string> payloads;
    std::vector<Peer*> clients;
    for (size_t i = 0; i < count; ++i) {
      payloads.push_back(payload_of(kernel));
      clients.push_back(&kernel.connect_client("127.0.0.1:8080"));
      script_client(kernel, *clients.back(), payloads.back());
    }
    const auto all_ended = [&] {
      return std::all_of(clients.begin(), clients.end(), [](Peer* peer) { return peer->ended(); });
    };
    REQUIRE(kernel.run_until([&] { program.turn(); }, all_ended, 900 * kSecond));
    for (size_t i = 0; i < count; ++i) {
      INFO("seed " << seed << ", client " << i);
      const std::string& got = clients[i]->received();
      REQUIRE(payloads[i].compare(0, got.size(), got) == 0);
      if (!kills_connections(faults)) {
        REQUIRE(clients[i]->error() == 0);
        REQUIRE(got == payloads[i]);
      }
      if (got == payloads[i]) ++outcome.echoed;
    }
    kernel.calm();
    program.stop();
    REQUIRE(kernel.run_until([&] { program.turn(); }, [&] { return program.drained(); }, kSecond));
    outcome.finished = program.finished();
    REQUIRE((kills_connections(faults) || program.aborted() == 0));
  }
  REQUIRE(kernel.finish() == "");
  outcome.digest = kernel.digest();
  outcome.completions = kernel.completions();
  outcome.counts = kernel.fault_counts();
  return outcome;
}

}  // namespace

TEST_CASE("sim: without faults everything is echoed") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Outcome outcome = run(seed, Faults::none());
    REQUIRE(outcome.finished == outcome.echoed);
    REQUIRE(outcome.echoed > 0);
  }
}

// WEIR_SIM_SEED=n runs that seed alone; WEIR_SIM_SEEDS=n runs so many.
TEST_CASE("sim: with faults nothing is lost, and every class of them strikes") {
  uint64_t first = 1;
  uint64_t last = 300;
  if (const char* one = std::getenv("WEIR_SIM_SEED"))
    first = last = std::strtoull(one, nullptr, 10);
  if (const char* many = std::getenv("WEIR_SIM_SEEDS")) last = std::strtoull(many, nullptr, 10);
  FaultCounts sum;
  uint64_t echoed = 0;
  for (uint64_t seed = first; seed <= last; ++seed) {
    const Outcome outcome = run(seed, Faults::swarm(seed));
    const auto* from = reinterpret_cast<const uint64_t*>(&outcome.counts);
    auto* to = reinterpret_cast<uint64_t*>(&sum);
    for (size_t i = 0; i < sizeof sum / sizeof(uint64_t); ++i) to[i] += from[i];
    echoed += outcome.echoed;
  }
  if (last - first < 100) return;
  REQUIRE(echoed > last - first);
  CHECK(sum.short_send > 0);
  CHECK(sum.short_recv > 0);
  CHECK(sum.reorder > 0);
  CHECK(sum.delay > 0);
  CHECK(sum.small_batch > 0);
  CHECK(sum.spurious_wake > 0);
  CHECK(sum.multishot_end > 0);
  CHECK(sum.no_buffers > 0);
  CHECK(sum.no_files > 0);
  CHECK(sum.cancel_race > 0);
  CHECK(sum.refuse > 0);
  CHECK(sum.connect_hang > 0);
  CHECK(sum.reset > 0);
  CHECK(sum.vanish > 0);
  CHECK(sum.slow_peer > 0);
  CHECK(sum.small_socket > 0);
  CHECK(sum.clock_jump > 0);
  CHECK(sum.full_queue > 0);
  CHECK(sum.slow_connect > 0);
}

TEST_CASE("sim: a seed replays exactly") {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    const Outcome once = run(seed, Faults::swarm(seed));
    const Outcome again = run(seed, Faults::swarm(seed));
    REQUIRE(once.digest == again.digest);
    REQUIRE(once.completions == again.completions);
    REQUIRE(run(seed + 1, Faults::swarm(seed)).digest != once.digest);
  }
}
