// Many checks of many servers: when a server turns, what stays when the targets change, and the
// end with checks under way.
#include <string>
#include <vector>

#include <sys/resource.h>

#include <catch2/catch_test_macros.hpp>

#include "health_rig.h"

namespace weir::control {
namespace {

using namespace test;
using Visit = CheckedServer::Visit;

CheckedServer::Behaviour silent() {
  return [](Visit&) {};
}

}  // namespace

TEST_CASE("a server turns after so many results in a row") {
  bool good = true;
  CheckedServer server([&](Visit& visit) { visit.say(answer(good ? "200 OK" : "500 Oh")); });
  HealthRig rig;
  rig.servers = {&server};
  rig.checker->set_targets({HealthRig::target(server)});
  REQUIRE(rig.until([&] { return rig.state().passed >= 3; }));
  CHECK(rig.changes.empty());
  CHECK(rig.state().since_ms <= rig.engine->now_ms());
  const uint64_t failed_before = rig.state().failed;
  good = false;
  REQUIRE(rig.until([&] { return rig.changes.size() == 1; }));
  CHECK(rig.state().failed == failed_before + 3);
  CHECK(rig.changes[0].identity == 1);
  CHECK_FALSE(rig.changes[0].healthy);
  CHECK(rig.changes[0].reason == "status 500, expected 200-299");
  CHECK_FALSE(rig.state().healthy);
  CHECK(rig.state().since_ms == rig.state().checked_ms);
  REQUIRE(rig.until([&] { return rig.state().failed_row >= 6; }));
  CHECK(rig.changes.size() == 1);  // told once
  good = true;
  REQUIRE(rig.until([&] { return rig.changes.size() == 2; }));
  CHECK(rig.changes[1].healthy);
  CHECK(rig.state().passed_row == 2);
  CHECK(rig.state().changes == 2);
}

TEST_CASE("a server that flaps does not turn") {
  unsigned turn = 0;
  // Two bad ones, a good one, and again: never three in a row.
  CheckedServer server([&](Visit& visit) {
    if (!visit.answered && visit.asked()) {
      visit.say(answer(++turn % 3 == 0 ? "200 OK" : "500 Oh"));
    }
  });
  HealthRig rig;
  rig.servers = {&server};
  HealthTarget target = HealthRig::target(server);
  target.interval_ms = 2;
  rig.checker->set_targets({target});
  REQUIRE(rig.until([&] { return rig.state().failed >= 20; }));
  CHECK(rig.changes.empty());
  CHECK(rig.state().healthy);
  CHECK(rig.state().passed >= 9);
}

TEST_CASE("a server counts as down until it has passed, by option") {
  CheckedServer server(says(answer("200 OK")));
  HealthRig rig;
  rig.servers = {&server};
  HealthTarget target = HealthRig::target(server);
  target.initially_healthy = false;
  rig.checker->set_targets({target});
  CHECK_FALSE(rig.state().healthy);
  REQUIRE(rig.until([&] { return rig.changes.size() == 1; }));
  CHECK(rig.changes[0].healthy);
  CHECK(rig.state().passed == 2);
}

TEST_CASE("what stays a target keeps its state") {
  CheckedServer bad(says(answer("500 Oh")));
  CheckedServer good(says(answer("200 OK")));
  HealthRig rig;
  rig.servers = {&bad, &good};
  const HealthTarget first = HealthRig::target(bad, 1);
  rig.checker->set_targets({first, HealthRig::target(good, 2), HealthRig::target(good, 1)});
  CHECK(rig.checker->targets() == 2);
  REQUIRE(rig.until([&] { return rig.changes.size() == 1; }));
  const HealthState before = rig.state(1);
  rig.checker->set_targets({first, HealthRig::target(good, 3)});
  CHECK(rig.checker->find(2) == nullptr);
  CHECK(rig.checker->find(3)->last == HealthResult::kNone);
  CHECK_FALSE(rig.state(1).healthy);
  CHECK(rig.state(1).since_ms == before.since_ms);
  CHECK(rig.state(1).failed == before.failed);
  CHECK(rig.state(1).next_ms == before.next_ms);
  // Asked in another way: still down, and what counts towards a turn begins anew.
  HealthTarget changed = first;
  changed.status = {{500, 500}};
  changed.interval_ms = 20;
  rig.checker->set_targets({changed});
  CHECK_FALSE(rig.state(1).healthy);
  CHECK(rig.state(1).passed_row == 0);
  CHECK(rig.state(1).since_ms == before.since_ms);
  REQUIRE(rig.until([&] { return rig.changes.size() == 2; }));
  CHECK(rig.changes[1].healthy);
  CHECK(rig.state(1).passed == 2);
}

TEST_CASE("a check of the old kind does not count any more") {
  CheckedServer server(silent());
  HealthRig rig;
  rig.servers = {&server};
  HealthTarget target = HealthRig::target(server);
  target.unhealthy_threshold = 1;
  target.timeout_ms = 60'000;
  rig.checker->set_targets({target});
  REQUIRE(rig.until([&] { return server.visits.size() == 1 && server.visits[0].asked(); }));
  CHECK(rig.state().checking);
  target.path = "/other";
  rig.checker->set_targets({target});
  server.behaviour = [](Visit& visit) {
    if (visit.asked()) visit.say(answer(visit.peer.text.contains("/other") ? "200 OK" : "500 Oh"));
  };
  REQUIRE(rig.until([&] { return rig.state().passed >= 2; }));
  CHECK(rig.state().failed == 0);
  CHECK(rig.changes.empty());
}

TEST_CASE("a target that goes while it is checked") {
  CheckedServer server(silent());
  HealthRig rig;
  rig.servers = {&server};
  HealthTarget target = HealthRig::target(server);
  target.timeout_ms = 60'000;
  rig.checker->set_targets({target});
  REQUIRE(rig.until([&] { return server.visits.size() == 1 && server.visits[0].asked(); }));
  CHECK(rig.checker->in_flight() == 1);
  rig.checker->set_targets({});
  CHECK(rig.checker->find(1) == nullptr);
  CHECK(rig.until([&] { return rig.checker->in_flight() == 0 && server.all_gone(); }));
  CHECK(rig.changes.empty());
  CHECK_FALSE(rig.checker->stopped());
}

TEST_CASE("a target that goes while it is sent a request") {
  CheckedServer server(silent());
  HealthRig rig;
  HealthTarget target = HealthRig::target(server);
  target.timeout_ms = 60'000;
  target.headers = {{"X-Long", std::string(16 << 20, 'a')}};
  rig.checker->set_targets({target});
  // It sends, and nobody reads.
  Peer peer;
  char byte;
  REQUIRE(rig.until([&] {
    if (peer.fd() < 0) peer = Peer(accept4(server.door(), nullptr, nullptr, SOCK_NONBLOCK));
    return peer.fd() >= 0 && recv(peer.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
  }));
  rig.engine.pass(20);
  CHECK(rig.checker->in_flight() == 1);
  rig.checker->set_targets({});
  CHECK(rig.until([&] { return rig.checker->in_flight() == 0; }));
}

TEST_CASE("stopped with checks under way, at any stage") {
  const size_t descriptors = net::test::open_descriptors();
  for (unsigned turns = 0; turns < 12; ++turns) {
    CheckedServer hangs(silent());
    CheckedServer full(silent(), "127.0.0.1:0", 0);
    full.fill();
    CheckedServer half(says("HTTP/1.1 200 OK\r\n\r\nhalf", false));
    HealthRig rig({.in_flight_max = 3});
    std::vector<HealthTarget> targets;
    uint64_t identity = 0;
    for (const CheckedServer* server : {&hangs, &full, &half, &hangs, &half}) {
      targets.push_back(HealthRig::target(*server, ++identity));
      targets.back().timeout_ms = 60'000;
      targets.back().body = "whole";
    }
    rig.servers = {&hangs, &half};  // who accepts from `full` would empty it
    rig.checker->set_targets(targets);
    for (unsigned i = 0; i < turns; ++i) {
      hangs.poll();
      half.poll();
      rig.engine->turn(false);
    }
    rig.checker->stop();
    CHECK(rig.checker->find(1) == nullptr);
    rig.checker->set_targets(targets);  // too late
    CHECK(rig.checker->targets() == 0);
    REQUIRE(rig.until([&] { return rig.checker->stopped(); }));
  }
  CHECK(net::test::open_descriptors() == descriptors);
}

TEST_CASE("at most so many checks at a time, each in its turn") {
  CheckedServer server(silent());
  HealthRig rig({.in_flight_max = 2});
  rig.servers = {&server};
  std::vector<HealthTarget> targets;
  for (uint64_t identity = 1; identity <= 7; ++identity) {
    targets.push_back(HealthRig::target(server, identity));
    targets.back().interval_ms = 60'000;
    targets.back().timeout_ms = 60;
  }
  rig.checker->set_targets(targets);
  size_t most = 0;
  size_t waited = 0;
  REQUIRE(rig.until([&] {
    most = std::max(most, rig.checker->in_flight());
    waited = std::max(waited, rig.checker->waiting());
    for (const HealthTarget& target : targets) {
      if (rig.state(target.identity).last == HealthResult::kNone) return false;
    }
    return true;
  }));
  CHECK(most == 2);
  CHECK(waited == 5);
  CHECK(server.visits.size() == 7);
  for (const HealthTarget& target : targets) {
    CHECK(rig.state(target.identity).last == HealthResult::kTimedOut);
    CHECK(rig.state(target.identity).failed == 1);
  }
}

TEST_CASE("servers that get requests are checked before those that get none") {
  CheckedServer hangs(silent());
  CheckedServer good(says(answer("200 OK")));
  HealthRig rig({.in_flight_max = 1});
  rig.servers = {&hangs, &good};
  std::vector<HealthTarget> targets;
  for (uint64_t identity = 1; identity <= 4; ++identity) {
    targets.push_back(HealthRig::target(hangs, identity));
    targets.back().initially_healthy = false;
    targets.back().interval_ms = 60'000;
    targets.back().timeout_ms = 200;
  }
  rig.checker->set_targets(targets);
  REQUIRE(rig.until([&] { return rig.checker->waiting() == 3; }));
  for (const uint64_t identity : {5, 6}) {
    targets.push_back(HealthRig::target(good, identity));
    targets.back().interval_ms = 60'000;
  }
  rig.checker->set_targets(targets);
  REQUIRE(rig.until([&] { return rig.checker->waiting() == 5; }));
  REQUIRE(rig.until([&] { return rig.state(6).passed == 1; }));
  CHECK(rig.state(5).passed == 1);
  CHECK(hangs.visits.size() == 1);
  // And then these.
  CHECK(rig.until([&] { return hangs.visits.size() == 4; }));
}

TEST_CASE("targets that wait their turn can go") {
  CheckedServer server(silent());
  HealthRig rig({.in_flight_max = 1});
  rig.servers = {&server};
  HealthTarget one = HealthRig::target(server, 1);
  one.timeout_ms = 60'000;
  HealthTarget two = one;
  two.identity = 2;
  rig.checker->set_targets({one, two});
  REQUIRE(rig.until([&] { return rig.checker->waiting() == 1; }));
  rig.checker->set_targets({one});
  CHECK(rig.checker->waiting() == 0);
  server.behaviour = says(answer("200 OK"));
  REQUIRE(rig.until([&] { return rig.state(1).passed >= 2; }));
}

TEST_CASE("one that hangs does not hold up the others") {
  CheckedServer hangs(silent());
  CheckedServer good(says(answer("200 OK")));
  HealthRig rig;
  rig.servers = {&hangs, &good};
  HealthTarget stuck = HealthRig::target(hangs, 1);
  stuck.timeout_ms = 100;
  rig.checker->set_targets({stuck, HealthRig::target(good, 2)});
  REQUIRE(rig.until([&] { return rig.changes.size() == 1; }));
  CHECK(rig.changes[0].identity == 1);
  CHECK(rig.changes[0].reason == "timed out after 100 ms while waiting for the answer");
  CHECK(rig.state(2).passed >= 3);
  CHECK(rig.state(2).failed == 0);
  CHECK(hangs.most_at_once == 1);  // never two checks of one server
}

TEST_CASE("the callback may change the targets, or end it all") {
  CheckedServer server(says(answer("500 Oh")));
  HealthRig rig;
  rig.servers = {&server};
  SECTION("others") {
    rig.on_change = [&](const HealthChange& change) {
      if (change.identity == 1) rig.checker->set_targets({HealthRig::target(server, 2)});
    };
    rig.checker->set_targets({HealthRig::target(server, 1)});
    REQUIRE(rig.until([&] { return rig.changes.size() == 2; }));
    CHECK(rig.changes[1].identity == 2);
    CHECK(rig.checker->find(1) == nullptr);
  }
  SECTION("none") {
    rig.on_change = [&](const HealthChange&) { rig.checker->stop(); };
    rig.checker->set_targets({HealthRig::target(server, 1), HealthRig::target(server, 2)});
    REQUIRE(rig.until([&] { return rig.checker->stopped(); }));
    CHECK(rig.changes.size() == 1);
  }
}

TEST_CASE("a server that dies and comes back turns twice") {
  auto server = std::make_unique<CheckedServer>(says(answer("200 OK")));
  const std::string address = server->address.to_string();
  HealthRig rig;
  rig.servers = {server.get()};
  rig.checker->set_targets({HealthRig::target(*server)});
  REQUIRE(rig.until([&] { return rig.state().passed >= 1; }));
  rig.servers = {};
  server.reset();
  REQUIRE(rig.until([&] { return rig.changes.size() == 1; }));
  CHECK_FALSE(rig.changes[0].healthy);
  server = std::make_unique<CheckedServer>(says(answer("200 OK")), address);
  rig.servers = {server.get()};
  REQUIRE(rig.until([&] { return rig.changes.size() == 2; }));
  CHECK(rig.changes[1].healthy);
}

TEST_CASE("want of descriptors is not held against a server") {
  CheckedServer server(says(answer("200 OK")));
  HealthRig rig;
  rig.servers = {&server};
  HealthTarget target = HealthRig::target(server);
  target.unhealthy_threshold = 1;
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  rlimit none = before;
  none.rlim_cur = 0;
  rig.checker->set_targets({target});
  REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
  const bool seen = rig.until([&] { return rig.state().last == HealthResult::kLocal; });
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
  REQUIRE(seen);
  CHECK(rig.state().failed == 0);
  REQUIRE(rig.until([&] { return rig.state().passed >= 2; }));
  CHECK(rig.changes.empty());
}

TEST_CASE("checks are spread in time by the jitter") {
  CheckedServer server(says(answer("200 OK")));
  HealthRig rig;
  rig.servers = {&server};
  std::vector<HealthTarget> targets;
  for (uint64_t identity = 1; identity <= 32; ++identity) {
    targets.push_back(HealthRig::target(server, identity));
    targets.back().interval_ms = 1'000'000;
    targets.back().jitter_percent = 50;
  }
  rig.checker->set_targets(targets);
  const uint64_t now_ms = rig.engine->now_ms();
  uint64_t least = UINT64_MAX;
  uint64_t most = 0;
  for (const HealthTarget& target : targets) {
    const uint64_t due_ms = rig.state(target.identity).next_ms - now_ms;
    least = std::min(least, due_ms);
    most = std::max(most, due_ms);
  }
  CHECK(most <= 500'000);
  CHECK(most - least > 200'000);  // by chance less once in 2^20 runs or so
}

}  // namespace weir::control
