// The circuit breaker by simulated time.
#include <catch2/catch_test_macros.hpp>

#include <weir/upstream/circuit.h>

namespace weir::upstream {
namespace {

using enum CircuitOutcome;

struct Bench {
  CircuitBreaker::Pass pass() { return breaker.try_pass(options, now_ms); }
  void note(uint32_t round, CircuitOutcome outcome) {
    breaker.note(options, round, outcome, now_ms);
  }
  // One request, through and back.
  bool request(CircuitOutcome outcome) {
    const bool would = breaker.would_pass(options, now_ms);
    const auto one = pass();
    CHECK(one.allowed == would);
    if (one.allowed) note(one.round, outcome);
    return one.allowed;
  }
  void open() {
    for (uint32_t i = 0; i < options.failures; ++i) CHECK(request(kBad));
    CHECK(breaker.state() == CircuitState::kOpen);
  }
  CircuitOptions options{.failures = 3, .open_ms = 100, .open_max_ms = 500};
  CircuitBreaker breaker;
  uint64_t now_ms = 5'000;
};

}  // namespace

TEST_CASE("it opens after failures in a row") {
  Bench bench;
  CHECK(bench.request(kBad));
  CHECK(bench.request(kBad));
  CHECK(bench.request(kGood));
  CHECK(bench.request(kBad));
  CHECK(bench.request(kUnknown));  // says nothing
  CHECK(bench.request(kBad));
  CHECK(bench.breaker.state() == CircuitState::kClosed);
  CHECK(bench.request(kBad));
  CHECK(bench.breaker.state() == CircuitState::kOpen);
  CHECK(bench.breaker.until_ms() == 5'100);
  bench.now_ms += 99;
  CHECK_FALSE(bench.request(kGood));
  bench.now_ms += 1;
  CHECK(bench.request(kGood));
}

TEST_CASE("half-open lets few through, and closes after successes") {
  Bench bench;
  bench.open();
  bench.now_ms += 100;
  const auto first = bench.pass();
  CHECK(first.allowed);
  CHECK(bench.breaker.state() == CircuitState::kHalfOpen);
  CHECK_FALSE(bench.pass().allowed);  // one at a time
  bench.note(first.round, kUnknown);
  const auto second = bench.pass();
  CHECK(second.allowed);
  bench.note(second.round, kGood);
  CHECK(bench.breaker.state() == CircuitState::kHalfOpen);
  CHECK(bench.request(kGood));
  CHECK(bench.breaker.state() == CircuitState::kClosed);
  // As new: it takes three again, and the shortest time.
  bench.open();
  CHECK(bench.breaker.until_ms() == bench.now_ms + 100);
}

TEST_CASE("a failed trial opens it again, for longer") {
  Bench bench;
  bench.open();
  for (const uint64_t lasts_ms : {100, 200, 400, 500, 500}) {
    CHECK(bench.breaker.until_ms() == bench.now_ms + lasts_ms);
    bench.now_ms += lasts_ms - 1;
    CHECK_FALSE(bench.request(kBad));
    bench.now_ms += 1;
    CHECK(bench.request(kBad));
    CHECK(bench.breaker.state() == CircuitState::kOpen);
  }
}

TEST_CASE("results of a round before do not count") {
  Bench bench;
  const auto old_one = bench.pass();
  const auto old_two = bench.pass();
  bench.open();
  bench.note(old_one.round, kGood);
  CHECK(bench.breaker.state() == CircuitState::kOpen);
  bench.now_ms += 100;
  const auto trial = bench.pass();
  bench.note(old_two.round, kBad);
  CHECK(bench.breaker.state() == CircuitState::kHalfOpen);
  CHECK_FALSE(bench.pass().allowed);  // nor do they free a place
  bench.note(trial.round, kGood);
  CHECK(bench.request(kGood));
  CHECK(bench.breaker.state() == CircuitState::kClosed);
}

TEST_CASE("a trial that nobody hears of does not keep it half-open") {
  Bench bench;
  bench.open();
  bench.now_ms += 100;
  const auto lost = bench.pass();
  bench.now_ms += bench.options.trial_timeout_ms - 1;
  CHECK_FALSE(bench.pass().allowed);
  bench.now_ms += 1;
  const auto next = bench.pass();
  CHECK(next.allowed);
  bench.note(lost.round, kBad);  // too late
  CHECK(bench.breaker.state() == CircuitState::kHalfOpen);
  bench.note(next.round, kGood);
  CHECK(bench.request(kGood));
  CHECK(bench.breaker.state() == CircuitState::kClosed);
}

TEST_CASE("several trials at a time; switched off it lets everything through") {
  Bench bench;
  bench.options.trials_max = 2;
  bench.open();
  bench.now_ms += 100;
  const auto one = bench.pass();
  const auto two = bench.pass();
  CHECK(one.allowed);
  CHECK(two.allowed);
  CHECK_FALSE(bench.pass().allowed);
  bench.note(one.round, kGood);
  bench.note(two.round, kBad);
  CHECK(bench.breaker.state() == CircuitState::kOpen);
  bench.options.failures = 0;
  for (int i = 0; i < 50; ++i) CHECK(bench.request(kBad));
}

}  // namespace weir::upstream
