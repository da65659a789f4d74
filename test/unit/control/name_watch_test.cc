// Names over time: asked again when their answers are old, only changes told, stale answers kept
// while DNS fails.
#include <algorithm>
#include <map>
#include <memory>

#include <weir/control/name_watch.h>

#include "resolver_rig.h"

using namespace weir;
using control::NameWatch;
using control::NameWatchOptions;
using control::ResolvedAddress;
using control::ResolveError;
using control::WatchedName;
using control::test::a;
using control::test::aaaa;
using control::test::kTypeA;
using control::test::kTypeAaaa;
using control::test::ResolverRig;
using control::test::srv;
using Texts = std::vector<std::string>;

namespace {

WatchedName named(const std::string& name) { return {.name = name, .port = 80}; }

struct WatchRig : ResolverRig {
  explicit WatchRig(const NameWatchOptions& how = {.retry_min_ms = 20,
                                                   .retry_max_ms = 60,
                                                   .absent_hold_ms = 300})
      : ResolverRig({.try_timeout_ms = 1'000,
                     .tries = 2,
                     .total_timeout_ms = 500,
                     .min_ttl_ms = 30,
                     .max_ttl_ms = 60}) {
    watch = std::make_unique<NameWatch>(
        *engine, *resolver, how,
        [this](const WatchedName& name, const std::vector<ResolvedAddress>& addresses) {
          ++changes;
          told[name.name] = texts(addresses);
          if (on_change) on_change();
        },
        [this](const WatchedName&, ResolveError error) { troubles.push_back(error); });
  }
  ~WatchRig() { watch.reset(); }
  // As many queries (of any kind) from now on: it was asked again.
  bool asked_again(int times = 4) {
    const int now = server.queries();
    return engine.run_until([&] { return server.queries() >= now + times; });
  }
  std::unique_ptr<NameWatch> watch;
  std::map<std::string, Texts> told;
  std::vector<ResolveError> troubles;
  std::function<void()> on_change;
  int changes = 0;
};

}  // namespace

TEST_CASE("asked again when old; only changes are told") {
  WatchRig rig;
  rig.server.set("x.test", {a("10.0.0.1", 1), a("10.0.0.2", 1)});
  rig.watch->set_names({named("x.test"), named("x.test")});
  CHECK(rig.watch->unasked() == 1);
  REQUIRE(rig.engine.run_until([&] { return rig.changes == 1; }));
  CHECK(rig.told["x.test"] == Texts{"10.0.0.1:80", "10.0.0.2:80"});
  CHECK(rig.watch->unasked() == 0);
  rig.server.set("x.test", {a("10.0.0.2", 1), a("10.0.0.1", 1)});  // the same, in another order
  REQUIRE(rig.asked_again(8));
  CHECK(rig.changes == 1);
  rig.server.set("x.test", {a("10.0.0.3", 1), aaaa("::1", 1)});
  REQUIRE(rig.engine.run_until(
      [&] { return rig.told["x.test"] != Texts{"10.0.0.1:80", "10.0.0.2:80"}; }));
  REQUIRE(
      rig.engine.run_until([&] { return rig.told["x.test"] == Texts{"10.0.0.3:80", "[::1]:80"}; }));
  CHECK(rig.troubles.empty());
  CHECK(rig.watch->find(named("x.test"))->addresses.size() == 2);
  CHECK(rig.watch->find(named("y.test")) == nullptr);
}

TEST_CASE("the time to live is waited for, and jitter is added to it") {
  WatchRig rig({.jitter_percent = 50});
  rig.server.set("x.test", {a("10.0.0.1", 1)});  // 60 ms, the most
  rig.watch->set_names({named("x.test")});
  std::vector<uint64_t> waits;
  for (int i = 0; i < 12; ++i) {
    const uint64_t before = i == 0 ? 0 : rig.watch->find(named("x.test"))->answer_ms;
    REQUIRE(
        rig.engine.run_until([&] { return rig.watch->find(named("x.test"))->answer_ms > before; }));
    const NameWatch::State& state = *rig.watch->find(named("x.test"));
    waits.push_back(state.next_ms - state.answer_ms);
    CHECK(waits.back() >= 60);
    CHECK(waits.back() <= 90);
  }
  CHECK(std::ranges::count(waits, waits[0]) < 12);
}

TEST_CASE("stale answers stay while DNS fails, and it is asked with back-off") {
  WatchRig rig;
  rig.server.set("x.test", {a("10.0.0.1", 0)});
  rig.watch->set_names({named("x.test")});
  REQUIRE(rig.engine.run_until([&] { return rig.changes == 1; }));
  SECTION("the server is gone") { rig.server.die(); }
  SECTION("it fails") {
    rig.server.set("x.test", kTypeA, {.rcode = 2});
    rig.server.set("x.test", kTypeAaaa, {.rcode = 2});
  }
  SECTION("it is silent") {
    rig.server.set("x.test", kTypeA, {.silent = true});
    rig.server.set("x.test", kTypeAaaa, {.silent = true});
  }
  const auto failures = [&] { return rig.watch->find(named("x.test"))->failures; };
  REQUIRE(rig.engine.run_until([&] { return failures() >= 4; }));
  CHECK(rig.changes == 1);
  CHECK(rig.watch->find(named("x.test"))->addresses.size() == 1);
  CHECK(rig.watch->find(named("x.test"))->error != ResolveError::kNone);
  // One word when it begins; two if the last query of before was lost, and timed out.
  CHECK(rig.troubles.size() <= 2);
  CHECK(std::ranges::count(rig.troubles, ResolveError::kNone) == 0);
  const uint64_t wait_ms = rig.watch->find(named("x.test"))->next_ms - rig.engine->now_ms();
  CHECK(wait_ms <= 75);
  rig.server.die();
  rig.server.set("x.test", {a("10.0.0.2", 0)});
  rig.server.live();
  REQUIRE(rig.engine.run_until([&] { return rig.told["x.test"] == Texts{"10.0.0.2:80"}; }));
  CHECK(rig.changes == 2);
  CHECK(rig.troubles.back() == ResolveError::kNone);
  CHECK(failures() == 0);
}

TEST_CASE("a name that is gone is given up after a while, not at once") {
  WatchRig rig;
  rig.server.set("x.test", {a("10.0.0.1", 0)});
  rig.watch->set_names({named("x.test")});
  REQUIRE(rig.engine.run_until([&] { return rig.changes == 1; }));
  rig.server.clear();
  REQUIRE(rig.engine.run_until([&] { return !rig.troubles.empty(); }));
  CHECK(is_absent(rig.troubles[0]));
  const uint64_t began_ms = rig.engine->now_ms();
  CHECK(rig.told["x.test"].size() == 1);
  REQUIRE(rig.engine.run_until([&] { return rig.changes == 2; }));
  CHECK(rig.engine->now_ms() - began_ms >= 290);
  CHECK(rig.told["x.test"].empty());
  rig.server.set("x.test", {a("10.0.0.1", 0)});
  REQUIRE(rig.engine.run_until([&] { return rig.changes == 3; }));
  CHECK(rig.told["x.test"] == Texts{"10.0.0.1:80"});
}

TEST_CASE("absent for less than that: nothing is told") {
  WatchRig rig({.retry_min_ms = 20, .retry_max_ms = 60, .absent_hold_ms = 60'000});
  rig.server.set("x.test", {a("10.0.0.1", 0)});
  rig.watch->set_names({named("x.test")});
  REQUIRE(rig.engine.run_until([&] { return rig.changes == 1; }));
  rig.server.clear();
  REQUIRE(rig.engine.run_until([&] { return rig.watch->find(named("x.test"))->failures >= 3; }));
  rig.server.set("x.test", {a("10.0.0.1", 0)});
  REQUIRE(rig.engine.run_until([&] { return rig.troubles.back() == ResolveError::kNone; }));
  CHECK(rig.changes == 1);
}

TEST_CASE("the half that cannot be learnt keeps its addresses, the other half changes") {
  WatchRig rig;
  rig.server.set("x.test", {a("10.0.0.1", 0), aaaa("2001:db8::1", 0)});
  rig.watch->set_names({named("x.test")});
  REQUIRE(rig.engine.run_until([&] { return rig.changes == 1; }));
  rig.server.set("x.test", kTypeAaaa, {.rcode = 2});
  rig.server.set("x.test", kTypeA, {.records = {a("10.0.0.2", 0)}});
  REQUIRE(rig.engine.run_until([&] { return rig.changes == 2; }));
  CHECK(rig.told["x.test"] == Texts{"10.0.0.2:80", "[2001:db8::1]:80"});
  rig.server.set("x.test", kTypeAaaa, {});
  REQUIRE(rig.engine.run_until([&] { return rig.changes == 3; }));
  CHECK(rig.told["x.test"] == Texts{"10.0.0.2:80"});
}

TEST_CASE("SRV: a target that cannot be resolved keeps its addresses") {
  WatchRig rig;
  rig.server.set("_h._tcp.test", {srv(1, 1, 81, "one.test", 0), srv(1, 3, 82, "two.test", 0)});
  rig.server.set("one.test", {a("10.0.0.1", 0)});
  rig.server.set("two.test", {a("10.0.0.2", 0)});
  const WatchedName name{.name = "_h._tcp.test", .port = 0, .srv = true};
  rig.watch->set_names({name});
  REQUIRE(rig.engine.run_until([&] { return rig.changes == 1; }));
  CHECK(rig.told["_h._tcp.test"] == Texts{"10.0.0.1:81", "10.0.0.2:82"});
  rig.server.set("two.test", kTypeA, {.rcode = 2});
  rig.server.set("one.test", {a("10.0.0.9", 0)});
  REQUIRE(rig.engine.run_until([&] { return rig.changes == 2; }));
  CHECK(rig.told["_h._tcp.test"] == Texts{"10.0.0.2:82", "10.0.0.9:81"});
  CHECK(rig.watch->find(name)->addresses[0].weight == 3);
}

TEST_CASE("a first failure is trouble, not a change; the name comes up later") {
  WatchRig rig;
  rig.watch->set_names({named("later.test")});
  REQUIRE(rig.engine.run_until([&] { return rig.watch->unasked() == 0; }));
  CHECK(rig.changes == 0);
  CHECK(rig.troubles == std::vector{ResolveError::kNoSuchName});
  REQUIRE(rig.asked_again());
  CHECK(rig.troubles.size() == 1);
  rig.server.set("later.test", {a("10.0.0.1", 0)});
  REQUIRE(rig.engine.run_until([&] { return rig.changes == 1; }));
}

TEST_CASE("names come and go; those that stay keep what is known of them") {
  WatchRig rig;
  for (const char* name : {"a.test", "b.test", "c.test"}) rig.server.set(name, {a("10.0.0.1", 0)});
  rig.watch->set_names({named("a.test"), named("b.test")});
  REQUIRE(rig.engine.run_until([&] { return rig.changes == 2; }));
  rig.server.hold();  // what is taken away may have a query in flight
  REQUIRE(rig.engine.run_until([&] { return rig.watch->in_flight() > 0; }));
  rig.watch->set_names({named("b.test"), named("c.test")});
  CHECK(rig.watch->find(named("a.test")) == nullptr);
  CHECK(rig.watch->find(named("b.test"))->addresses.size() == 1);
  CHECK(rig.watch->unasked() == 1);
  rig.server.release();
  REQUIRE(rig.engine.run_until([&] { return rig.changes == 3; }));
  CHECK(rig.told.contains("c.test"));
  rig.watch->set_names({});
  CHECK(rig.watch->in_flight() == 0);
  rig.engine.pass(100);
  CHECK(rig.changes == 3);
}

TEST_CASE("a callback takes all names away") {
  WatchRig rig;
  std::vector<WatchedName> names;
  for (int i = 0; i < 50; ++i) {
    names.push_back(named("n" + std::to_string(i) + ".test"));
    rig.server.set(names.back().name, {a("10.0.0.1", 0)});
  }
  rig.on_change = [&] { rig.watch->set_names({}); };
  rig.watch->set_names(names);
  REQUIRE(rig.engine.run_until([&] { return rig.changes == 1; }));
  rig.engine.pass(100);
  CHECK(rig.changes == 1);
  CHECK(rig.watch->in_flight() == 0);
}

TEST_CASE("many names: so many at a time, and all in the end") {
  WatchRig rig({.in_flight_max = 32});
  std::vector<WatchedName> names;
  for (int i = 0; i < 500; ++i) {
    names.push_back(named("n" + std::to_string(i) + ".test"));
    rig.server.set(names.back().name,
                   {a("10.0." + std::to_string(i / 250) + "." + std::to_string(i % 250), 3600)});
  }
  rig.server.hold();
  rig.watch->set_names(names);
  CHECK(rig.watch->in_flight() == 32);
  REQUIRE(rig.engine.run_until([&] { return rig.server.most_names_waiting() >= 64; }));
  rig.engine.pass(20);
  CHECK(rig.watch->in_flight() == 32);
  rig.server.release();
  REQUIRE(rig.engine.run_until([&] { return rig.told.size() == 500; }, 20'000));
  CHECK(rig.told["n499.test"] == Texts{"10.0.1.249:80"});
}

TEST_CASE("another resolver: what is known stays until that one has answered") {
  WatchRig rig;
  control::test::DnsServer other;
  other.set("x.test", {a("10.0.0.9", 0)});
  rig.server.set("x.test", {a("10.0.0.1", 0)});
  rig.watch->set_names({named("x.test"), named("late.test")});
  REQUIRE(rig.engine.run_until([&] { return rig.watch->unasked() == 0; }));
  rig.server.hold();  // one is in flight when it happens
  REQUIRE(rig.engine.run_until([&] { return rig.watch->in_flight() > 0; }));
  control::ResolverOptions options = rig.options;
  options.servers = {other.address()};
  std::string error;
  auto next = control::Resolver::open(*rig.engine, options, error);
  REQUIRE(next);
  rig.watch->use(*next);
  CHECK(rig.resolver->in_flight() == 0);
  CHECK(rig.watch->in_flight() == 2);
  CHECK(rig.watch->find(named("x.test"))->addresses.size() == 1);
  REQUIRE(rig.engine.run_until([&] { return rig.told["x.test"] == Texts{"10.0.0.9:80"}; }));
  CHECK(rig.changes == 2);
  rig.server.release();
  rig.engine.pass(100);
  CHECK(rig.changes == 2);
  rig.watch.reset();
  next->stop();
  CHECK(rig.engine.run_until([&] { return next->stopped(); }));
}

TEST_CASE("asked at once by refresh(); destroyed in flight") {
  WatchRig rig;
  rig.server.set("x.test", {a("10.0.0.1", 0)});
  rig.watch->set_names({named("x.test"), named("gone.test")});
  REQUIRE(rig.engine.run_until([&] { return rig.watch->unasked() == 0; }));
  rig.server.hold();
  rig.watch->refresh();
  rig.watch->refresh();
  CHECK(rig.watch->in_flight() == 2);
  REQUIRE(rig.engine.run_until([&] { return rig.server.most_names_waiting() >= 4; }));
  rig.watch.reset();
  CHECK(rig.resolver->in_flight() == 0);
  rig.server.release();
  rig.engine.pass(50);
}
