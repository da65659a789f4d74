// Passive health by simulated time.
#include <array>
#include <optional>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/prng.h>
#include <weir/upstream/outlier.h>

namespace weir::upstream {
namespace {

using Changes = std::vector<OutlierChange>;

struct Bench {
  explicit Bench(const OutlierOptions& options, std::vector<uint64_t> identities)
      : outliers(options), servers(std::move(identities)) {
    Changes changes;
    outliers.set_servers(servers, now_ms, changes);
    CHECK(changes.empty());
  }
  std::optional<OutlierChange> bad(uint64_t identity) {
    return outliers.note(identity, true, 0, now_ms);
  }
  std::optional<OutlierChange> good(uint64_t identity, uint64_t latency_us = 1000) {
    return outliers.note(identity, false, latency_us, now_ms);
  }
  Changes review() {
    Changes changes;
    outliers.review(now_ms, changes);
    return changes;
  }
  Changes set_down(uint64_t identity, bool down) {
    Changes changes;
    outliers.set_down(identity, down, now_ms, changes);
    return changes;
  }
  // So many errors in a row that the server goes; returns until when.
  uint64_t eject(uint64_t identity) {
    for (int i = 0; i < 100; ++i) {
      if (const auto change = bad(identity)) {
        CHECK(change->ejected);
        CHECK(change->identity == identity);
        return change->until_ms;
      }
    }
    FAIL("not ejected");
    return 0;
  }
  [[nodiscard]] bool out(uint64_t identity) const { return outliers.find(identity)->ejected; }
  Outliers outliers;
  std::vector<uint64_t> servers;
  uint64_t now_ms = 1'000'000;
};

OutlierOptions only_row() {
  return {.consecutive_errors = 3, .error_percent = 0, .latency_percent = 0};
}
OutlierOptions only_ratio() {
  return {.consecutive_errors = 0,
          .error_percent = 30,
          .error_requests_min = 10,
          .window_ms = 8'000,
          .latency_percent = 0};
}
OutlierOptions only_latency() {
  return {.consecutive_errors = 0, .error_percent = 0, .window_ms = 8'000, .latency_percent = 400};
}

}  // namespace

TEST_CASE("errors in a row") {
  Bench bench(only_row(), {10, 20, 30});
  CHECK_FALSE(bench.bad(10));
  CHECK_FALSE(bench.bad(10));
  CHECK_FALSE(bench.good(10));  // begins anew
  CHECK_FALSE(bench.bad(10));
  CHECK_FALSE(bench.bad(20));  // another's
  CHECK_FALSE(bench.bad(10));
  const auto change = bench.bad(10);
  REQUIRE(change);
  CHECK(change->ejected);
  CHECK(change->identity == 10);
  CHECK(change->cause == OutlierCause::kConsecutive);
  CHECK(change->until_ms == bench.now_ms + 10'000);
  CHECK(bench.outliers.ejected() == 1);
  // What was under way says nothing new.
  CHECK_FALSE(bench.bad(10));
  CHECK_FALSE(bench.good(10));
  CHECK_FALSE(bench.outliers.note(99, true, 0, bench.now_ms));  // unknown
  bench.now_ms += 9'999;
  CHECK(bench.review().empty());
  bench.now_ms += 1;
  const Changes back = bench.review();
  REQUIRE(back.size() == 1);
  CHECK(back[0].identity == 10);
  CHECK_FALSE(back[0].ejected);
  CHECK_FALSE(bench.out(10));
  // It has to be bad again to go again.
  CHECK_FALSE(bench.bad(10));
  CHECK_FALSE(bench.bad(10));
  CHECK(bench.bad(10));
}

TEST_CASE("a part of errors in the window") {
  Bench bench(only_ratio(), {1, 2, 3});
  // Two of ten are not too many.
  for (int i = 0; i < 100; ++i) {
    const bool error = i % 5 == 0;
    CHECK_FALSE((error ? bench.bad(1) : bench.good(1)));
    bench.now_ms += 10;
  }
  // From now on each second one: out when the window holds 30 %.
  std::optional<OutlierChange> change;
  int more = 0;
  while (!change && more < 200) {
    change = more % 2 == 0 ? bench.bad(1) : bench.good(1);
    ++more;
    bench.now_ms += 10;
  }
  REQUIRE(change);
  CHECK(change->cause == OutlierCause::kRatio);
  CHECK(more > 30);
  CHECK(more < 60);
  // Too few requests say nothing.
  for (int i = 0; i < 9; ++i) CHECK_FALSE(bench.bad(2));
  CHECK(bench.bad(2) == std::nullopt);  // the tenth: the floor (half of three is one)
  CHECK(bench.outliers.spared() == 1);
}

TEST_CASE("old errors leave the window") {
  Bench bench(only_ratio(), {1, 2});
  for (int i = 0; i < 9; ++i) CHECK_FALSE(bench.bad(1));
  bench.now_ms += 8'000;
  for (int i = 0; i < 20; ++i) CHECK_FALSE(bench.good(1));
  CHECK_FALSE(bench.bad(1));
  // They would be most of all if they still counted; a part of the window later they do not.
  OutlierWindow window;
  for (uint64_t slice = 100; slice < 108; ++slice) window.note(true, 0, slice);
  CHECK(window.sum(107).requests == 8);
  CHECK(window.sum(110).requests == 5);
  CHECK(window.sum(114).errors == 1);
  CHECK(window.sum(115).requests == 0);
  window.note(false, 1, 108);  // over the oldest
  CHECK(window.sum(108).requests == 8);
  CHECK(window.sum(108).errors == 7);
}

TEST_CASE("the median is within an eighth") {
  for (const uint64_t latency_us : {130ULL, 1'000ULL, 9'999ULL, 250'000ULL, 1'000'000ULL}) {
    OutlierWindow window;
    for (int i = 0; i < 21; ++i) window.note(false, latency_us, 50);
    for (int i = 0; i < 10; ++i) window.note(false, 100'000'000, 50);
    for (int i = 0; i < 10; ++i) window.note(false, 1, 50);
    const auto median = window.median_us(50, 10);
    REQUIRE(median);
    CHECK(*median * 8 >= latency_us * 7);
    CHECK(*median * 8 <= latency_us * 9);
  }
  OutlierWindow window;
  for (int i = 0; i < 9; ++i) window.note(false, 1000, 50);
  window.note(true, 1000, 50);  // an error's latency is none
  CHECK_FALSE(window.median_us(50, 10));
  // Counts of 16 bits do not overflow.
  for (int i = 0; i < 1'000; ++i) window.note(false, 1'000, 60);
  for (int i = 0; i < 3 * 65'536 + 10; ++i) window.note(false, 1'000'000, 60);
  CHECK(*window.median_us(60, 10) > 800'000);
  CHECK(window.sum(60).requests == 1'000 + 3 * 65'536 + 10);
}

TEST_CASE("one far slower than the others goes within seconds") {
  Bench bench(only_latency(), {1, 2, 3});
  base::Prng chance(7);
  const auto serve = [&](uint64_t slow_us) {
    // 2000 requests a second to each; a slow one answers fewer.
    for (int ms = 0; ms < 1000; ++ms, ++bench.now_ms) {
      for (const uint64_t identity : {2, 3}) {
        for (int i = 0; i < 2; ++i) CHECK_FALSE(bench.good(identity, 1'000 + chance.below(3'000)));
      }
      if (slow_us < 10'000 || ms % 50 == 0) CHECK_FALSE(bench.good(1, slow_us));
    }
    return bench.review();
  };
  for (int second = 0; second < 20; ++second) CHECK(serve(2'000).empty());
  Changes changes;
  int seconds = 0;
  while (changes.empty() && seconds < 20) {
    changes = serve(1'000'000);
    ++seconds;
  }
  REQUIRE(changes.size() == 1);
  CHECK(changes[0].identity == 1);
  CHECK(changes[0].cause == OutlierCause::kLatency);
  CHECK(seconds <= 3);
}

TEST_CASE("slow is what the others are not") {
  Bench bench(only_latency(), {1, 2, 3, 4});
  const auto all = [&](std::array<uint64_t, 4> latency_ms) {
    bench.now_ms += 60'000;  // a window of its own
    for (size_t i = 0; i < 4; ++i) {
      for (int n = 0; n < 20; ++n) CHECK_FALSE(bench.good(i + 1, latency_ms[i] * 1000));
    }
    return bench.review();
  };
  CHECK(all({1000, 1000, 1000, 1000}).empty());  // all are
  CHECK(all({1, 1, 1, 90}).empty());             // 90 times slower, but nobody minds 90 ms
  CHECK(all({100, 100, 100, 300}).empty());      // three times: less than four
  const Changes one = all({100, 100, 600, 100});
  REQUIRE(one.size() == 1);
  CHECK(one[0].identity == 3);
  bench.now_ms += 600'000;
  CHECK(bench.review().size() == 1);  // it is back
  // Two slow ones do not hide behind each other; the slower goes first.
  Bench three(only_latency(), {1, 2, 3});
  for (int n = 0; n < 20; ++n) {
    CHECK_FALSE(three.good(1, 700'000));
    CHECK_FALSE(three.good(2, 900'000));
    CHECK_FALSE(three.good(3, 1'000));
  }
  const Changes slowest = three.review();
  REQUIRE(slowest.size() == 1);
  CHECK(slowest[0].identity == 2);
  CHECK(three.outliers.spared() == 1);
  // Alone, or with too few answers of the others, nobody is.
  Bench few(only_latency(), {1, 2});
  for (int n = 0; n < 20; ++n) CHECK_FALSE(few.good(1, 5'000'000));
  for (int n = 0; n < 9; ++n) CHECK_FALSE(few.good(2, 1'000));
  CHECK(few.review().empty());
  CHECK_FALSE(few.good(2, 1'000));
  CHECK(few.review().size() == 1);
}

TEST_CASE("ejections grow longer, and shorter again with good conduct") {
  OutlierOptions options = only_row();
  options.ejection_ms = 1'000;
  options.ejection_max_ms = 10'000;
  Bench bench(options, {1, 2, 3});
  for (const uint64_t lasts_ms : {1'000, 2'000, 4'000, 8'000, 10'000, 10'000}) {
    CHECK(bench.eject(1) == bench.now_ms + lasts_ms);
    bench.now_ms += lasts_ms;
    CHECK(bench.review().size() == 1);
  }
  CHECK(bench.outliers.find(1)->ejections == 6);
  // Each time that it was well for as long as it was away, one step back.
  CHECK(bench.outliers.find(1)->times == 6);
  for (int i = 0; i < 5; ++i) {
    bench.now_ms += 10'000;
    CHECK(bench.review().empty());
  }
  CHECK(bench.outliers.find(1)->times == 1);
  CHECK(bench.eject(1) == bench.now_ms + 2'000);
}

TEST_CASE("a very long series of ejections does not overflow") {
  OutlierOptions options = only_row();
  options.ejection_max_ms = UINT32_MAX;
  Bench bench(options, {1, 2, 3});
  uint64_t before_ms = 0;
  for (int i = 0; i < 100; ++i) {
    const uint64_t lasts_ms = bench.eject(1) - bench.now_ms;
    CHECK(lasts_ms >= before_ms);
    CHECK(lasts_ms <= UINT32_MAX);
    before_ms = lasts_ms;
    bench.now_ms += lasts_ms;
    CHECK(bench.review().size() == 1);
  }
  CHECK(before_ms == UINT32_MAX);
}

TEST_CASE("some are never ejected") {
  SECTION("the only one") {
    Bench bench(only_row(), {1});
    for (int i = 0; i < 50; ++i) CHECK_FALSE(bench.bad(1));
    CHECK(bench.outliers.spared() == 48);
  }
  SECTION("half of them") {
    Bench bench(only_row(), {1, 2, 3, 4, 5});
    for (int i = 0; i < 50; ++i) {
      for (const uint64_t identity : bench.servers) static_cast<void>(bench.bad(identity));
    }
    CHECK(bench.outliers.ejected() == 2);
  }
  SECTION("so many") {
    OutlierOptions options = only_row();
    options.ejected_percent_max = 100;
    options.servers_left_min = 3;
    Bench bench(options, {1, 2, 3, 4, 5});
    for (int i = 0; i < 50; ++i) {
      for (const uint64_t identity : bench.servers) static_cast<void>(bench.bad(identity));
    }
    CHECK(bench.outliers.ejected() == 2);
    options.servers_left_min = 0;  // one stays all the same
    bench.outliers.set_options(options);
    for (int i = 0; i < 50; ++i) {
      for (const uint64_t identity : bench.servers) static_cast<void>(bench.bad(identity));
    }
    CHECK(bench.outliers.ejected() == 4);
  }
  SECTION("what is down is no server left") {
    OutlierOptions options = only_row();
    options.ejected_percent_max = 100;
    Bench bench(options, {1, 2, 3});
    CHECK(bench.set_down(1, true).empty());
    static_cast<void>(bench.eject(2));
    for (int i = 0; i < 50; ++i) CHECK_FALSE(bench.bad(3));
    // Down itself, it makes room for one that was put aside.
    const Changes changes = bench.set_down(3, true);
    REQUIRE(changes.size() == 1);
    CHECK(changes[0].identity == 2);
    CHECK_FALSE(changes[0].ejected);
    for (int i = 0; i < 50; ++i) CHECK_FALSE(bench.bad(1));  // down: not ejected either
    CHECK(bench.set_down(2, true).empty());                  // all are: nothing to be done
  }
}

TEST_CASE("active checks have the last word") {
  Bench bench(only_row(), {1, 2, 3});
  static_cast<void>(bench.eject(1));
  CHECK(bench.set_down(1, true).empty());
  CHECK(bench.set_down(1, true).empty());
  const Changes up = bench.set_down(1, false);
  REQUIRE(up.size() == 1);
  CHECK(up[0].identity == 1);
  CHECK_FALSE(up[0].ejected);
  CHECK(bench.set_down(77, true).empty());
}

TEST_CASE("servers that stay keep their state") {
  Bench bench(only_row(), {1, 2, 3, 4});
  const uint64_t until_ms = bench.eject(3);
  CHECK_FALSE(bench.bad(2));
  CHECK_FALSE(bench.bad(2));
  Changes changes;
  const std::vector<uint64_t> next = {9, 3, 2, 8, 3};
  bench.outliers.set_servers(next, bench.now_ms, changes);
  CHECK(changes.empty());
  CHECK(bench.outliers.find(1) == nullptr);
  CHECK(bench.outliers.find(3)->until_ms == until_ms);
  CHECK(bench.out(3));
  CHECK(bench.bad(2));  // the third in a row
  // Of those that are left, somebody has to serve.
  const std::vector<uint64_t> last = {2, 3};
  bench.outliers.set_servers(last, bench.now_ms, changes);
  REQUIRE(changes.size() == 1);
  CHECK_FALSE(changes[0].ejected);
}

TEST_CASE("whatever happens, the floor holds and the counts agree") {
  OutlierOptions options;
  options.consecutive_errors = 3;
  options.error_requests_min = 5;
  options.latency_percent = 400;
  options.ejection_ms = 500;
  options.ejected_percent_max = 80;
  Bench bench(options, {1, 2, 3, 4, 5, 6});
  base::Prng chance(42);
  std::array<bool, 7> out{};
  std::array<bool, 7> down{};
  const auto apply = [&](const Changes& changes) {
    for (const OutlierChange& change : changes) {
      CHECK(out[change.identity] != change.ejected);
      out[change.identity] = change.ejected;
    }
  };
  for (int i = 0; i < 20'000; ++i) {
    bench.now_ms += chance.below(20);
    const uint64_t identity = 1 + chance.below(6);
    if (chance.chance(2)) {
      down[identity] = !down[identity];
      apply(bench.set_down(identity, down[identity]));
    }
    if (chance.chance(50)) {
      if (const auto change = bench.bad(identity)) apply({*change});
    } else if (const auto change = bench.good(identity, 100 << chance.below(14))) {
      apply({*change});
    }
    if (chance.chance(10)) apply(bench.review());
    int up = 0;
    int left = 0;
    for (uint64_t one = 1; one <= 6; ++one) {
      REQUIRE(bench.out(one) == out[one]);
      up += !down[one];
      left += !down[one] && !out[one];
    }
    REQUIRE((up == 0 || left >= 1));
    REQUIRE(bench.outliers.ejected() <= 4);
  }
}

}  // namespace weir::upstream
