// The retry budget by simulated time.
#include <catch2/catch_test_macros.hpp>

#include <weir/upstream/retry_budget.h>

namespace weir::upstream {

TEST_CASE("an outage is not multiplied") {
  RetryBudget budget({.percent = 20, .per_second = 3, .burst = 30});
  uint64_t retries = 0;
  // A minute of 1000 requests a second, each of which would be tried three times more.
  for (uint64_t ms = 1; ms <= 60'000; ++ms) {
    budget.note_request(ms);
    for (int i = 0; i < 3 && budget.try_retry(ms); ++i) ++retries;
  }
  const uint64_t most = 60'000 / 5 + 3 * 60 + 30;
  CHECK(retries <= most);
  CHECK(retries >= most - 2);
  CHECK(budget.refused() > 40'000);
}

TEST_CASE("few requests may be tried again as well") {
  RetryBudget budget({.percent = 0, .per_second = 2, .burst = 4});
  uint64_t now_ms = 1'000;
  for (int i = 0; i < 4; ++i) CHECK(budget.try_retry(now_ms));
  CHECK_FALSE(budget.try_retry(now_ms));
  now_ms += 499;
  CHECK_FALSE(budget.try_retry(now_ms));
  now_ms += 1;
  CHECK(budget.try_retry(now_ms));
  CHECK_FALSE(budget.try_retry(now_ms));
  now_ms += 1'000'000'000;  // no more than can be saved up
  for (int i = 0; i < 4; ++i) CHECK(budget.try_retry(now_ms));
  CHECK_FALSE(budget.try_retry(now_ms));
  CHECK_FALSE(budget.try_retry(now_ms - 5'000));  // a clock read earlier brings nothing
  CHECK_FALSE(budget.try_retry(now_ms));
}

TEST_CASE("a part of the requests, to the one") {
  RetryBudget budget({.percent = 10, .per_second = 0, .burst = 5});
  while (budget.try_retry(1)) {
  }
  for (int i = 0; i < 9; ++i) budget.note_request(1);
  CHECK_FALSE(budget.try_retry(1));
  budget.note_request(1);
  CHECK(budget.try_retry(1));
}

TEST_CASE("what is saved up: the burst, or the part of the last ten seconds' requests") {
  RetryBudget budget({.percent = 10, .per_second = 0, .burst = 5});
  uint64_t now_ms = 1'000'000;
  for (int i = 0; i < 20; ++i) budget.note_request(now_ms);
  CHECK(budget.tokens() == 5);  // a tenth of 20 is less
  for (int i = 0; i < 980; ++i) budget.note_request(now_ms);
  // All that are under way to a server that dies may be tried again.
  CHECK(budget.tokens() >= 99);
  CHECK(budget.tokens() <= 105);
  // In the window after that it is kept ...
  now_ms += 10'000;
  budget.note_request(now_ms);
  CHECK(budget.tokens() >= 99);
  // ... and then goes with the traffic.
  now_ms += 10'000;
  budget.note_request(now_ms);
  CHECK(budget.tokens() == 5);
  for (int i = 0; i < 1'000; ++i) budget.note_request(now_ms);
  CHECK(budget.tokens() >= 100);
  now_ms += 3'600'000;  // nobody asked for an hour
  budget.note_request(now_ms);
  CHECK(budget.tokens() == 5);
  budget.set_options({.percent = 10, .per_second = 0, .burst = 2});
  CHECK(budget.tokens() == 2);
}

TEST_CASE("no budget, no retry") {
  RetryBudget budget({.percent = 0, .per_second = 0, .burst = 0});
  for (int i = 0; i < 100; ++i) budget.note_request(1);
  CHECK_FALSE(budget.try_retry(1'000'000));
}

}  // namespace weir::upstream
