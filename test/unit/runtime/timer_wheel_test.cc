// The wheel against a naive model (a list of times), over random histories; and the cases that a
// wheel gets wrong when it gets one wrong.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include <weir/base/prng.h>
#include <weir/runtime/timer_wheel.h>

using namespace weir;
using runtime::Timer;
using runtime::TimerWheel;

namespace {

struct Recorder;

struct Recorded : Timer {
  explicit Recorded(Recorder& owner) noexcept;
  Recorder& recorder;
  std::optional<uint64_t> due;  // by the model: the tick at which it fires
};

// The model: each armed timer has the tick at which it is to fire.
struct Recorder {
  explicit Recorder(uint64_t start) : wheel(start), now(start) {}

  void arm(Recorded& timer, uint64_t expires) noexcept {
    wheel.arm(timer, expires);
    timer.due = std::max(expires, now + 1);
  }
  void disarm(Recorded& timer) noexcept {
    wheel.disarm(timer);
    timer.due.reset();
  }
  [[nodiscard]] uint64_t earliest() const noexcept {
    uint64_t best = UINT64_MAX;
    for (const auto& timer : timers) best = std::min(best, timer->due.value_or(UINT64_MAX));
    return best;
  }
  [[nodiscard]] uint32_t armed() const noexcept {
    return static_cast<uint32_t>(
        std::ranges::count_if(timers, [](const auto& timer) { return timer->due.has_value(); }));
  }

  TimerWheel wheel;
  uint64_t now;         // the tick being run, or the last one
  uint64_t target = 0;  // what expire() was called with
  bool expiring = false;
  unsigned fired = 0;
  unsigned faults = 0;  // fired early, late, out of order, or unarmed
  void (*on_fire)(Recorder& recorder, Recorded& timer) noexcept = nullptr;
  base::Prng random{1};
  std::vector<std::unique_ptr<Recorded>> timers;
};

Recorded::Recorded(Recorder& owner) noexcept
    : Timer([](Timer& timer) noexcept {
        auto& self = static_cast<Recorded&>(timer);
        Recorder& all = self.recorder;
        ++all.fired;
        const uint64_t due = self.due.value_or(0);
        // Neither before its tick, nor after expire() had passed it, nor behind a later one.
        if (!all.expiring || !self.due || due > all.target || due < all.now) ++all.faults;
        all.now = std::max(all.now, due);
        self.due.reset();
        if (self.armed()) ++all.faults;
        if (all.on_fire != nullptr) all.on_fire(all, self);
      }),
      recorder(owner) {}

void expire(Recorder& all, uint64_t target) {
  all.target = target;
  all.expiring = true;
  const unsigned before = all.fired;
  const unsigned told = all.wheel.expire(target);
  all.expiring = false;
  CHECK(told == all.fired - before);
  all.now = std::max(all.now, target);
}

void verify(Recorder& all) {
  const uint64_t next = all.wheel.next_ms();
  REQUIRE(all.faults == 0);
  REQUIRE(all.wheel.armed() == all.armed());
  REQUIRE(all.earliest() > all.now);
  REQUIRE(next <= all.earliest());
  REQUIRE(next > all.now);
  if (all.armed() == 0) REQUIRE(next == UINT64_MAX);
  for (const auto& timer : all.timers) REQUIRE(timer->armed() == timer->due.has_value());
}

uint64_t random_time(Recorder& all) noexcept {
  const uint64_t now = all.now;
  const uint64_t edge = uint64_t{1} << (6 * (1 + all.random.below(7)));
  switch (all.random.below(8)) {
    case 0: return now + all.random.below(4);
    case 1: return now + all.random.below(200);
    case 2: return now + all.random.below(70'000);
    case 3: return now - std::min<uint64_t>(now, all.random.below(1000));  // past
    case 4: return now + edge - 1 + all.random.below(3);
    case 5: return (now | (edge - 1)) + all.random.below(3);  // a boundary of the wheel itself
    case 6: return now + all.random.below(uint64_t{1} << 40);
    default: return UINT64_MAX - all.random.below(2);
  }
}

void rearm_at_random(Recorder& all, Recorded& timer) noexcept {
  if (all.random.below(4) == 0) all.arm(timer, random_time(all));
  Recorded& other = *all.timers[all.random.below(all.timers.size())];
  switch (all.random.below(6)) {
    case 0: all.disarm(other); break;  // it may be due in this very tick
    case 1: all.arm(other, random_time(all)); break;
    case 2: all.arm(other, all.now); break;
    default: break;
  }
}

uint64_t random_step(Recorder& all) {
  const uint64_t next = all.wheel.next_ms();
  switch (all.random.below(6)) {
    case 0: return all.now;
    case 1: return all.now + 1;
    case 2: return all.now + all.random.below(300);
    case 3: return all.now + all.random.below(uint64_t{1} << (6 * (1 + all.random.below(7))));
    default: return next == UINT64_MAX ? all.now + 1 : next;
  }
}

}  // namespace

TEST_CASE("a wheel fires what a list of times would, over random histories") {
  const uint64_t seed = static_cast<uint64_t>(GENERATE(Catch::Generators::range(1, 41)));
  CAPTURE(seed);
  base::Prng starts(seed);
  Recorder all(seed % 4 == 0 ? 0 : starts.below(uint64_t{1} << (8 + seed)));
  all.random = base::Prng(seed * 977);
  all.on_fire = &rearm_at_random;
  for (int i = 0; i < 40; ++i) all.timers.push_back(std::make_unique<Recorded>(all));
  for (int step = 0; step < 600; ++step) {
    for (uint64_t changes = all.random.below(4); changes > 0; --changes) {
      Recorded& timer = *all.timers[all.random.below(all.timers.size())];
      if (all.random.below(3) == 0) {
        all.disarm(timer);
      } else {
        all.arm(timer, random_time(all));
      }
    }
    verify(all);
    expire(all, random_step(all));
    verify(all);
  }
  for (auto& timer : all.timers) all.disarm(*timer);
  verify(all);
}

TEST_CASE("following next_ms() alone, every timer fires at its own tick") {
  Recorder all(123'456'789);
  all.random = base::Prng(5);
  for (int i = 0; i < 200; ++i) {
    all.timers.push_back(std::make_unique<Recorded>(all));
    all.arm(*all.timers.back(), all.now + 1 + all.random.below(uint64_t{1} << (1 + i % 34)));
  }
  unsigned steps = 0;
  while (all.wheel.armed() > 0) {
    const uint64_t next = all.wheel.next_ms();
    const unsigned before = all.fired;
    const uint64_t earliest = all.earliest();
    expire(all, next);
    // A step that fires nothing only moves timers down a level.
    if (next == earliest) REQUIRE(all.fired > before);
    if (next < earliest) REQUIRE(all.fired == before);
    REQUIRE(all.faults == 0);
    ++steps;
  }
  REQUIRE(all.fired == 200);
  REQUIRE(steps <= 200 * TimerWheel::kLevels);
}

TEST_CASE("a timer far beyond the wheel's span neither fires early nor is lost") {
  Recorder all(1000);
  all.timers.push_back(std::make_unique<Recorded>(all));
  const uint64_t due = 1000 + (uint64_t{5} << 36) + 17;
  all.arm(*all.timers[0], due);
  unsigned steps = 0;
  while (all.wheel.armed() > 0 && steps++ < 1000) expire(all, all.wheel.next_ms());
  REQUIRE(all.fired == 1);
  REQUIRE(all.now == due);
  REQUIRE(all.faults == 0);
}

TEST_CASE("a handler may disarm a timer that is due in the same tick, and later ones of the jump") {
  Recorder all(0);
  for (int i = 0; i < 4; ++i) all.timers.push_back(std::make_unique<Recorded>(all));
  all.arm(*all.timers[0], 10);
  all.arm(*all.timers[1], 10);
  all.arm(*all.timers[2], 11);
  all.arm(*all.timers[3], 500);
  all.on_fire = [](Recorder& recorder, Recorded&) noexcept {
    for (auto& timer : recorder.timers) recorder.disarm(*timer);
  };
  expire(all, 1000);
  REQUIRE(all.fired == 1);
  verify(all);
}

TEST_CASE("a timer that re-arms itself in the past fires once a tick, not for ever") {
  Recorder all(100);
  all.timers.push_back(std::make_unique<Recorded>(all));
  all.arm(*all.timers[0], 0);
  all.on_fire = [](Recorder& recorder, Recorded& timer) noexcept { recorder.arm(timer, 0); };
  expire(all, 101);
  REQUIRE(all.fired == 1);
  expire(all, 101);
  REQUIRE(all.fired == 1);
  expire(all, 105);
  REQUIRE(all.fired == 5);
  verify(all);
  all.disarm(*all.timers[0]);
}

TEST_CASE("arming again moves a timer, and disarming twice changes nothing") {
  Recorder all(0);
  all.timers.push_back(std::make_unique<Recorded>(all));
  Recorded& timer = *all.timers[0];
  all.arm(timer, 50);
  all.arm(timer, 5000);
  REQUIRE(all.wheel.armed() == 1);
  expire(all, 4999);
  REQUIRE(all.fired == 0);
  expire(all, 5000);
  REQUIRE(all.fired == 1);
  all.disarm(timer);
  all.disarm(timer);
  verify(all);
}
