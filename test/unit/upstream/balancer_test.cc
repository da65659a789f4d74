#include <cstddef>
#include <string>
#include <vector>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include <weir/base/prng.h>
#include <weir/upstream/balancer.h>

using namespace weir::upstream;

namespace {

// Never looked into by the balancer.
Endpoint* some_endpoint() { return reinterpret_cast<Endpoint*>(alignof(std::max_align_t)); }

std::vector<Candidate> weighted(std::initializer_list<uint32_t> weights) {
  std::vector<Candidate> candidates;
  for (const uint32_t weight : weights) {
    candidates.push_back({.endpoint = some_endpoint(), .weight = weight});
  }
  return candidates;
}

std::string choose(std::vector<Candidate>& candidates, int times, uint64_t tried = 0) {
  std::string chosen;
  for (int i = 0; i < times; ++i) {
    const int index = choose_round_robin(candidates, tried);
    chosen += index < 0 ? '-' : static_cast<char>('a' + index);
  }
  return chosen;
}

}  // namespace

TEST_CASE("the example of nginx: 5, 1, 1 gives a a b a c a a, and again") {
  auto candidates = weighted({5, 1, 1});
  CHECK(choose(candidates, 7) == "aabacaa");
  for (const Candidate& candidate : candidates) CHECK(candidate.current == 0);
  CHECK(choose(candidates, 7) == "aabacaa");
}

TEST_CASE("equal weights take turns, one candidate takes all, none is -1") {
  auto three = weighted({1, 1, 1});
  CHECK(choose(three, 6) == "abcabc");
  auto one = weighted({7});
  CHECK(choose(one, 3) == "aaa");
  std::vector<Candidate> none;
  CHECK(choose(none, 2) == "--");
}

TEST_CASE("over a period each gets exactly its weight, spread out") {
  const int seed = GENERATE(Catch::Generators::range(1, 20));
  weir::base::Prng random(static_cast<uint64_t>(seed));
  std::vector<Candidate> candidates;
  uint32_t total = 0;
  for (uint64_t i = 2 + random.below(6); i > 0; --i) {
    const auto weight = static_cast<uint32_t>(1 + random.below(9));
    candidates.push_back({.endpoint = some_endpoint(), .weight = weight});
    total += weight;
  }
  std::vector<uint32_t> counts(candidates.size());
  for (uint32_t i = 0; i < total; ++i) {
    ++counts[static_cast<size_t>(choose_round_robin(candidates, 0))];
    // At no moment is one ahead of its share by more than one turn of everybody.
    for (size_t k = 0; k < counts.size(); ++k) {
      const double share = static_cast<double>(candidates[k].weight) * (i + 1) / total;
      CHECK(counts[k] <= share + 1.0 + static_cast<double>(candidates.size()));
    }
  }
  for (size_t k = 0; k < counts.size(); ++k) CHECK(counts[k] == candidates[k].weight);
}

TEST_CASE("tried, unresolved and weightless ones are passed over") {
  auto candidates = weighted({1, 1, 1});
  CHECK(choose(candidates, 4, 0b001) == "bcbc");
  CHECK(choose(candidates, 2, 0b111) == "--");
  candidates[1].endpoint = nullptr;
  CHECK(choose(candidates, 2, 0b001) == "cc");
  candidates[2].weight = 0;
  CHECK(choose(candidates, 2, 0b001) == "--");
  CHECK(choose(candidates, 2) == "aa");
}

TEST_CASE("a failed try leaves the ratio of the others alone") {
  auto candidates = weighted({3, 1, 1});
  // Each request tries its first choice in vain and takes another.
  std::vector<int> first(3);
  for (int i = 0; i < 50; ++i) {
    const int choice = choose_round_robin(candidates, 0);
    ++first[static_cast<size_t>(choice)];
    const int second = choose_round_robin(candidates, uint64_t{1} << choice);
    CHECK(second != choice);
    CHECK(second >= 0);
  }
  int64_t sum = 0;
  for (const Candidate& candidate : candidates) {
    sum += candidate.current;
    CHECK(candidate.current < 100);
    CHECK(candidate.current > -100);
  }
  CHECK(sum == 0);
}

TEST_CASE("more than 64 candidates: those beyond the mask still take their turn") {
  std::vector<Candidate> candidates(70, Candidate{.endpoint = some_endpoint(), .weight = 1});
  for (int i = 0; i < 70; ++i) CHECK(choose_round_robin(candidates, 0) == i);
  CHECK(choose_round_robin(candidates, ~uint64_t{0}) >= 64);
}
