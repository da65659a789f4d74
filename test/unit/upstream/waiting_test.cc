// The bound on connects under way and its queue: order, timeouts, cancels, and no lost wake-up.
#include <algorithm>
#include <memory>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include "origin.h"

using namespace weir;
using namespace weir::upstream;
using namespace weir::upstream::test;

namespace {

// A bench whose origin takes no connection any more: connects hang until they are cancelled.
struct Stuck : Bench {
  explicit Stuck(const EndpointLimits& limits) : Bench(limits, 0) {}
  void block() {
    origin.accept();
    origin.fill();
  }
};

// Comes `turns` turns later, in a turn's run queue behind what the kernel has completed: between
// the moment in which a place becomes free and the one in which who waits for it is resumed.
Task<> acquire_later(Bench& bench, Acquire& out, int turns, unsigned& places) {
  for (int i = 0; i < turns; ++i) co_await bench.engine->yield();
  co_await acquire(bench.endpoint, out, true, &places);
}

bool all_done(const std::vector<std::unique_ptr<Acquire>>& all) {
  return std::ranges::all_of(all, [](const auto& one) { return one->done; });
}

}  // namespace

TEST_CASE("beyond the bound acquires wait, and are served in order") {
  Bench bench({.connecting_max = 2});
  std::vector<std::unique_ptr<Acquire>> all;
  unsigned places = 0;
  for (int i = 0; i < 20; ++i) {
    all.push_back(std::make_unique<Acquire>());
    bench.engine.tasks.spawn(acquire(bench.endpoint, *all.back(), false, &places));
  }
  bench.engine->turn(false);
  CHECK(bench.endpoint.counters().connects == 2);
  REQUIRE(bench.engine.run_until([&] { return all_done(all); }));
  CHECK(bench.endpoint.counters().connects == 20);
  CHECK(bench.endpoint.leased() == 20);
  for (unsigned i = 0; i < all.size(); ++i) {
    CHECK(all[i]->connection != nullptr);
    // Two are under way at a time, so that neighbours may change places.
    CHECK(all[i]->place + 2 > i);
    CHECK(all[i]->place < i + 4);
  }
}

TEST_CASE("who came first is not overtaken by those who come later") {
  Bench bench({.connecting_max = 1});
  std::vector<std::unique_ptr<Acquire>> all;
  unsigned places = 0;
  for (int i = 0; i < 40; ++i) {
    all.push_back(std::make_unique<Acquire>());
    bench.engine.tasks.spawn(acquire_later(bench, *all.back(), i < 2 ? 0 : i - 1, places));
  }
  REQUIRE(bench.engine.run_until([&] { return all_done(all); }));
  CHECK(all[0]->place == 1);
  // One that comes in the very moment may get in between, but not again and again.
  for (unsigned i = 0; i < all.size(); ++i) CHECK(all[i]->place <= i + 6);
  CHECK(bench.endpoint.counters().waits <= all.size());
}

TEST_CASE("a waiter gets a connection that is given back") {
  Stuck bench({.connect_timeout_ms = 60'000, .connecting_max = 1});
  auto leased = bench.take();
  Connection* const same = leased.get();
  bench.block();
  Acquire hanging;
  Acquire waiting;
  bench.engine.tasks.spawn(acquire(bench.endpoint, hanging, true));
  bench.engine.tasks.spawn(acquire(bench.endpoint, waiting, false));
  bench.engine.settle();
  CHECK(bench.endpoint.counters().waits == 1);
  bench.endpoint.release(std::move(leased));
  REQUIRE(bench.engine.run_until([&] { return waiting.done; }));
  CHECK(waiting.connection.get() == same);
  hanging.handle.cancel();
  REQUIRE(bench.engine.run_until([&] { return hanging.done; }));
  CHECK(hanging.error.code == base::Errc::kCancelled);
}

TEST_CASE("a connection that is given back goes past who wants a fresh one to who can use it") {
  Stuck bench({.connect_timeout_ms = 60'000, .connecting_max = 1});
  auto leased = bench.take();
  bench.block();
  Acquire hanging;
  Acquire wants_fresh;
  Acquire takes_any;
  bench.engine.tasks.spawn(acquire(bench.endpoint, hanging, true));
  bench.engine.tasks.spawn(acquire(bench.endpoint, wants_fresh, true));
  bench.engine.tasks.spawn(acquire(bench.endpoint, takes_any, false));
  bench.engine.settle();
  CHECK(bench.endpoint.counters().waits == 2);
  bench.endpoint.release(std::move(leased));
  CHECK(bench.engine.run_until([&] { return takes_any.done; }, 2000));
  CHECK(takes_any.connection != nullptr);
  CHECK_FALSE(wants_fresh.done);
  for (Acquire* one : {&hanging, &wants_fresh, &takes_any}) one->handle.cancel();
  REQUIRE(bench.engine.run_until([&] { return bench.engine.tasks.running() == 0; }));
}

TEST_CASE("a connection that was given back for one who is cancelled goes to the next") {
  Stuck bench({.connect_timeout_ms = 60'000, .connecting_max = 1});
  auto leased = bench.take();
  bench.block();
  Acquire hanging;
  Acquire cancelled;
  Acquire next;
  bench.engine.tasks.spawn(acquire(bench.endpoint, hanging, true));
  bench.engine.tasks.spawn(acquire(bench.endpoint, cancelled, false));
  bench.engine.tasks.spawn(acquire(bench.endpoint, next, false));
  bench.engine.settle();
  bench.endpoint.release(std::move(leased));
  cancelled.handle.cancel();
  CHECK(bench.engine.run_until([&] { return next.done; }, 2000));
  CHECK(cancelled.error.code == base::Errc::kCancelled);
  CHECK(next.connection != nullptr);
  for (Acquire* one : {&hanging, &next}) one->handle.cancel();
  REQUIRE(bench.engine.run_until([&] { return bench.engine.tasks.running() == 0; }));
}

TEST_CASE("a higher bound from a reload lets those in who wait") {
  Stuck bench({.connect_timeout_ms = 60'000, .connecting_max = 1});
  bench.block();
  Acquire first;
  Acquire second;
  bench.engine.tasks.spawn(acquire(bench.endpoint, first, false));
  bench.engine.tasks.spawn(acquire(bench.endpoint, second, false));
  bench.engine.settle();
  const uint64_t before = bench.endpoint.counters().connects;
  bench.endpoint.set_limits({.connect_timeout_ms = 60'000, .connecting_max = 4});
  CHECK(bench.engine.run_until([&] { return bench.endpoint.counters().connects > before; }, 2000));
  for (Acquire* one : {&first, &second}) one->handle.cancel();
  REQUIRE(bench.engine.run_until([&] { return bench.engine.tasks.running() == 0; }));
}

TEST_CASE("waiting counts towards the connect timeout") {
  Stuck bench({.connect_timeout_ms = 50, .connecting_max = 1});
  bench.block();
  Acquire first;
  Acquire second;
  bench.engine->turn(false);
  const uint64_t start = bench.engine->now_ms();
  bench.engine.tasks.spawn(acquire(bench.endpoint, first, false));
  bench.engine.tasks.spawn(acquire(bench.endpoint, second, false));
  REQUIRE(bench.engine.run_until([&] { return first.done && second.done; }));
  CHECK(first.error.code == base::Errc::kTimedOut);
  CHECK(second.error.code == base::Errc::kTimedOut);
  CHECK(bench.engine->now_ms() - start >= 50);
  CHECK(bench.engine->now_ms() - start < 1000);
  CHECK(bench.endpoint.unused());
}

TEST_CASE("a cancelled waiter makes room, whether it was woken already or not") {
  Stuck bench({.connect_timeout_ms = 60'000, .connecting_max = 1});
  bench.block();
  Acquire hanging;
  Acquire cancelled;
  Acquire next;
  bench.engine.tasks.spawn(acquire(bench.endpoint, hanging, true));
  bench.engine.tasks.spawn(acquire(bench.endpoint, cancelled, true));
  bench.engine.tasks.spawn(acquire(bench.endpoint, next, true));
  bench.engine.settle();
  const uint64_t before = bench.endpoint.counters().connects;

  SECTION("while it waits") {
    cancelled.handle.cancel();
    cancelled.handle.cancel();
    REQUIRE(bench.engine.run_until([&] { return cancelled.done; }));
    CHECK(bench.endpoint.counters().connects == before);
    hanging.handle.cancel();
  }
  SECTION("in the moment in which it gets the place") {
    hanging.handle.cancel();
    cancelled.handle.cancel();
  }
  REQUIRE(bench.engine.run_until([&] { return bench.endpoint.counters().connects > before; }));
  CHECK(cancelled.done);
  CHECK(cancelled.error.code == base::Errc::kCancelled);
  CHECK_FALSE(next.done);  // it is the one that connects now
  next.handle.cancel();
  REQUIRE(bench.engine.run_until([&] { return bench.engine.tasks.running() == 0; }));
  CHECK(bench.endpoint.unused());
}

TEST_CASE("a failed connect passes its place on") {
  Bench bench({.connecting_max = 1});
  bench.origin.stop();
  std::vector<std::unique_ptr<Acquire>> all;
  for (int i = 0; i < 10; ++i) {
    all.push_back(std::make_unique<Acquire>());
    bench.engine.tasks.spawn(acquire(bench.endpoint, *all.back(), i % 2 == 0));
  }
  REQUIRE(bench.engine.run_until([&] { return all_done(all); }));
  for (const auto& one : all) CHECK(one->error.code == base::Errc::kRefused);
  CHECK(bench.endpoint.unused());
}

TEST_CASE("an endpoint is in use as long as somebody waits, also when just woken") {
  Stuck bench({.connect_timeout_ms = 60'000, .connecting_max = 1});
  auto leased = bench.take();
  bench.block();
  Acquire hanging;
  Acquire waiting;
  bench.engine.tasks.spawn(acquire(bench.endpoint, hanging, true));
  bench.engine.tasks.spawn(acquire(bench.endpoint, waiting, false));
  bench.engine.settle();
  hanging.handle.cancel();
  REQUIRE(bench.engine.run_until([&] { return hanging.done; }));
  // `waiting` connects in vain now; it is woken and cancelled in one moment.
  CHECK_FALSE(bench.endpoint.unused());
  waiting.handle.cancel();
  CHECK_FALSE(bench.endpoint.unused());
  Endpoint::discard(std::move(leased));
  CHECK_FALSE(bench.endpoint.unused());
  REQUIRE(bench.engine.run_until([&] { return waiting.done; }));
  CHECK(bench.endpoint.unused());
}

TEST_CASE("the queue is bounded") {
  Stuck bench({.connect_timeout_ms = 60'000, .connecting_max = 1});
  bench.block();
  std::vector<std::unique_ptr<Acquire>> all;
  for (uint32_t i = 0; i < Endpoint::kWaitersMax + 2; ++i) {
    all.push_back(std::make_unique<Acquire>());
    bench.engine.tasks.spawn(acquire(bench.endpoint, *all.back(), true));
  }
  REQUIRE(bench.engine.run_until([&] { return all.back()->done; }));
  CHECK(all.back()->error.code == base::Errc::kLimit);
  CHECK(std::ranges::count_if(all, [](const auto& one) { return one->done; }) == 1);
  for (auto& one : all) one->handle.cancel();
  REQUIRE(bench.engine.run_until([&] { return all_done(all); }));
  CHECK(bench.endpoint.unused());
}
