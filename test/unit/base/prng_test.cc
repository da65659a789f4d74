#include <array>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/prng.h>

using weir::base::Prng;

TEST_CASE("the same seed replays the same numbers, another seed does not") {
  Prng a(42), b(42), c(43);
  bool differs = false;
  for (int i = 0; i < 1000; ++i) {
    const uint64_t value = a.next();
    REQUIRE(value == b.next());
    differs |= value != c.next();
  }
  CHECK(differs);
}

TEST_CASE("the first numbers of seed 0 never change: recorded seeds must replay for ever") {
  // Computed from the authors' splitmix64.c and xoshiro256starstar.c.
  constexpr auto first = [] {
    Prng prng(0);
    return std::array{prng.next(), prng.next(), prng.next()};
  }();
  CHECK(first[0] == 0x99ec5f36cb75f2b4ULL);
  CHECK(first[1] == 0xbf6e1f784956452aULL);
  CHECK(first[2] == 0x1a5f849d4933e6e0ULL);
}

TEST_CASE("below stays below, reaches both ends and is even") {
  Prng prng(7);
  std::array<int, 10> count{};
  for (int i = 0; i < 100'000; ++i) {
    const uint64_t value = prng.below(10);
    REQUIRE(value < 10);
    ++count[value];
  }
  for (const int c : count) {  // 10,000 expected, sigma 95: six sigma
    CHECK(c > 9'430);
    CHECK(c < 10'570);
  }
  CHECK(prng.below(1) == 0);
}

TEST_CASE("chance knows never and always") {
  Prng prng(9);
  int hits = 0;
  for (int i = 0; i < 10'000; ++i) {
    REQUIRE_FALSE(prng.chance(0));
    REQUIRE(prng.chance(100));
    hits += prng.chance(25) ? 1 : 0;
  }
  CHECK(hits > 2'200);
  CHECK(hits < 2'800);
}
