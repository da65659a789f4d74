// Shares and weights while requests are under way: a simulation by events, with fixed seeds.
#include <algorithm>
#include <cmath>
#include <queue>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "balance_rig.h"

using namespace weir::upstream;
using namespace weir::upstream::rig;

namespace {

constexpr double kMeanNs = 10.0 * kMs;

struct Load {
  double in_flight = 1;         // exactly so many (`arrivals` false), or as a mean
  bool arrivals = false;        // requests come by themselves, at random moments
  bool random_service = false;  // exponential
  uint64_t seed = 1;
};

class Simulation {
 public:
  Simulation(Balancer& balancer, const Load& start)
      : load(start),
        slowness(balancer.servers().size(), 1.0),
        balancer_(balancer),
        random_(start.seed * 77) {}

  std::vector<uint32_t> run(int requests) {
    std::vector<uint32_t> counts(balancer_.servers().size());
    for (int i = 0; i < requests; ++i) {
      advance();
      const Choice choice = balancer_.choose({.now_ns = now_ns_, .key = key_of(key_++)});
      if (!choice) FAIL("no server");
      const auto place = static_cast<size_t>(choice.place);
      ++counts[place];
      balancer_.begin(choice);
      const double part = load.random_service ? exponential() : 1.0;
      const auto service_ns = static_cast<uint64_t>(kMeanNs * slowness[place] * part) + 1;
      flying_.push({.end_ns = now_ns_ + service_ns, .begin_ns = now_ns_, .choice = choice});
    }
    return counts;
  }
  void drain() {
    while (!flying_.empty()) end_one();
  }

  Load load;
  std::vector<double> slowness;  // of each server

 private:
  struct Flight {
    uint64_t end_ns;
    uint64_t begin_ns;
    Choice choice;
    bool operator<(const Flight& other) const { return end_ns > other.end_ns; }
  };

  double exponential() {
    return -std::log((static_cast<double>(random_.next() >> 11) + 0.5) * 0x1p-53);
  }
  void end_one() {
    const Flight flight = flying_.top();
    flying_.pop();
    now_ns_ = flight.end_ns;
    balancer_.end(flight.choice, flight.end_ns - flight.begin_ns, now_ns_);
  }
  void advance() {
    const double gap_ns = kMeanNs / load.in_flight;
    if (load.arrivals) {
      arrival_ns_ += gap_ns * exponential();
      const auto next_ns = std::max(now_ns_, static_cast<uint64_t>(arrival_ns_));
      while (!flying_.empty() && flying_.top().end_ns <= next_ns) end_one();
      now_ns_ = next_ns;
    } else if (static_cast<double>(flying_.size()) >= load.in_flight) {
      end_one();
    } else {
      now_ns_ += static_cast<uint64_t>(gap_ns);
    }
  }

  Balancer& balancer_;
  weir::base::Prng random_;
  std::priority_queue<Flight> flying_;
  uint64_t now_ns_ = 0;
  double arrival_ns_ = 0;
  int key_ = 0;
};

// The greatest distance of a server from its share, in percentage points.
double worst_error(std::span<const uint32_t> counts, std::span<const uint32_t> weights) {
  double weight_sum = 0;
  double total = 0;
  for (const uint32_t weight : weights) weight_sum += weight;
  for (const uint32_t count : counts) total += count;
  double worst = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    worst = std::max(worst, 100 * std::abs(counts[i] / total - weights[i] / weight_sum));
  }
  return worst;
}

const std::vector<uint32_t> kWeightSets[] = {{5, 3, 2, 1, 1}, {1, 1, 1, 1, 1}};

}  // namespace

TEST_CASE("shares are within one percentage point of the weights, however many are in flight") {
  const Algorithm algorithm =
      GENERATE(Algorithm::kRoundRobin, Algorithm::kLeastConnections, Algorithm::kTwoChoices,
               Algorithm::kIpHash, Algorithm::kConsistentHash, Algorithm::kRandom);
  const bool by_load =
      algorithm == Algorithm::kLeastConnections || algorithm == Algorithm::kTwoChoices;
  for (const auto& weights : kWeightSets) {
    for (const double in_flight : {1.0, 3.0, 8.0, 13.0, 30.0, 200.0}) {
      // Nobody else looks at it.
      if (!by_load && in_flight != 8) continue;
      for (const int how : {0, 1, 2, 3}) {
        Balancer balancer = balancer_of({.algorithm = algorithm}, servers_of(weights));
        const Load load{.in_flight = in_flight,
                        .arrivals = (how & 1) != 0,
                        .random_service = (how & 2) != 0,
                        .seed = static_cast<uint64_t>(in_flight) + 1};
        const double worst = worst_error(Simulation(balancer, load).run(kChoices), weights);
        CAPTURE(static_cast<int>(algorithm), weights[0], in_flight, how);
        CHECK(worst < 1.0);
      }
    }
  }
}

TEST_CASE("a server that is ten times slower gets less than half of its share") {
  const Algorithm algorithm = GENERATE(Algorithm::kLeastConnections, Algorithm::kTwoChoices);
  for (const auto& weights : kWeightSets) {
    for (const size_t slow : {size_t{0}, size_t{4}}) {
      for (const double in_flight : {8.0, 30.0, 200.0}) {
        for (const int how : {0, 1, 2, 3}) {
          Balancer balancer = balancer_of({.algorithm = algorithm}, servers_of(weights));
          Simulation simulation(balancer, {.in_flight = in_flight,
                                           .arrivals = (how & 1) != 0,
                                           .random_service = (how & 2) != 0});
          simulation.slowness[slow] = 10;
          const auto counts = simulation.run(20'000);
          double weight_sum = 0;
          for (const uint32_t weight : weights) weight_sum += weight;
          CAPTURE(static_cast<int>(algorithm), weights[0], slow, in_flight, how);
          CHECK(counts[slow] < 20'000 * weights[slow] / weight_sum / 2);
        }
      }
    }
  }
}

TEST_CASE("a server that was slow gets no burst when it has recovered") {
  const Algorithm algorithm = GENERATE(Algorithm::kLeastConnections, Algorithm::kTwoChoices);
  const size_t slow = GENERATE(size_t{0}, size_t{4});
  for (const auto& weights : kWeightSets) {
    Balancer balancer = balancer_of({.algorithm = algorithm}, servers_of(weights));
    Simulation simulation(balancer, {.in_flight = 8, .random_service = true});
    simulation.slowness[slow] = 10;
    simulation.run(20'000);
    simulation.drain();
    // One after the other, where nothing but its turn holds it back.
    simulation.slowness[slow] = 1;
    simulation.load.in_flight = 1;
    const auto counts = simulation.run(1000);
    double weight_sum = 0;
    for (const uint32_t weight : weights) weight_sum += weight;
    CAPTURE(static_cast<int>(algorithm), weights[0], slow);
    CHECK(counts[slow] < 1000 * weights[slow] / weight_sum + 34);
  }
}

TEST_CASE("least connections: one that gets all while the others are slow waits no long time") {
  Balancer balancer =
      balancer_of({.algorithm = Algorithm::kLeastConnections}, servers_of({1, 1, 1, 1, 1}));
  Simulation simulation(balancer, {.in_flight = 8});
  for (size_t i = 1; i < 5; ++i) simulation.slowness[i] = 100;
  CHECK(simulation.run(5000)[0] > 4000);
  simulation.drain();
  for (size_t i = 1; i < 5; ++i) simulation.slowness[i] = 1;
  simulation.load.in_flight = 1;
  const auto counts = simulation.run(200);
  // Eight for each of the others at most.
  CHECK(counts[0] >= (200 - 4 * 8) / 5 - 2);
}
