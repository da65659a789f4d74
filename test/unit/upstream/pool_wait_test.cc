// Requests that wait for a server with room: order, who may not come between, cancels, timeouts and
// ends at every moment.
#include <memory>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/prng.h>

#include "pool_rig.h"

using namespace weir;
using namespace weir::upstream;
using namespace weir::upstream::rig;

namespace {

constexpr auto kUp = ServerState::kUp;
constexpr auto kDown = ServerState::kDown;
constexpr auto kDraining = ServerState::kDraining;

// One request that waits.
struct Request {
  WaitHandle handle;
  Turn turn;
  NoServer missing = NoServer::kNone;
  bool done = false;
  int place = 0;  // which one of all to end
};

// As the proxy does it.
Task<> try_or_wait(Pool& pool, Request& request, Pick pick, uint64_t deadline_ms, int* places) {
  Turn turn = pool.choose(pick);
  if (turn.missing() == NoServer::kFull) {
    turn = co_await pool.wait(request.handle, pick, deadline_ms);
  }
  request.missing = turn.missing();
  request.turn = std::move(turn);
  request.done = true;
  if (places != nullptr) request.place = ++*places;
}

// One server that takes one request at a time, which it has.
struct Queue : PoolRig {
  Queue(size_t servers, uint32_t cores, const Change& change)
      : PoolRig(servers, cores, [&](route::UpstreamSpec& wanted) {
          for (route::ServerSpec& server : wanted.servers) server.max_connections = 1;
          wanted.pending_timeout_ms = 60'000;
          change(wanted);
        }) {
    while (Turn turn = choose()) held.push_back(std::move(turn));
  }
  explicit Queue(const Change& change) : Queue(1, 1, change) {}
  Queue() : Queue([](route::UpstreamSpec&) {}) {}
  // Nothing may be left when a test ends.
  ~Queue() {
    held.clear();
    for (auto& request : requests) request->handle.cancel();
    engine.settle();
    for (auto& request : requests) {
      CHECK(request->done);
      request->turn.end();
    }
    const UpstreamScrape left = sample();
    CHECK(left.upstreams[0].active == 0);
    CHECK(left.upstreams[0].pending == 0);
  }

  // It waits from the next turn on.
  Request& queue(uint64_t deadline_ms = UINT64_MAX, uint64_t sticky_tag = 0) {
    Request& request = *requests.emplace_back(std::make_unique<Request>());
    Pick wanted = pick();
    wanted.sticky_tag = sticky_tag;
    return queue(request, wanted, deadline_ms);
  }
  // One that has tried `tried`.
  Request& queue_again(std::span<const uint64_t> tried) {
    Request& request = *requests.emplace_back(std::make_unique<Request>());
    Pick wanted = pick();
    wanted.tried = tried;
    return queue(request, wanted, UINT64_MAX);
  }
  Request& queue(Request& request, const Pick& wanted, uint64_t deadline_ms) {
    engine.tasks.spawn(try_or_wait(pool, request, wanted, deadline_ms, &places));
    return request;
  }
  [[nodiscard]] uint32_t pending() const { return sample().upstreams[0].pending; }
  [[nodiscard]] uint64_t refused() const { return sample().upstreams[0].pending_refused; }

  std::vector<Turn> held;
  std::vector<std::unique_ptr<Request>> requests;
  int places = 0;
};

}  // namespace

TEST_CASE("requests get their server in the order in which they came") {
  Queue rig;
  REQUIRE(rig.choose().missing() == NoServer::kFull);
  for (int i = 0; i < 5; ++i) rig.queue();
  rig.engine.settle();
  CHECK(rig.pending() == 5);
  rig.held.clear();
  for (int i = 0; i < 5; ++i) {
    Request& request = *rig.requests[static_cast<size_t>(i)];
    REQUIRE(rig.engine.run_until([&] { return request.done; }));
    CHECK(request.place == i + 1);
    REQUIRE(request.turn);
    CHECK(request.turn.endpoint().address_text() == "a");
    CHECK(rig.at('a').active == 1);
    CHECK(rig.pending() == static_cast<uint32_t>(4 - i));
    request.turn.end();
  }
  CHECK(rig.sample().upstreams[0].waited == 5);
  CHECK(rig.refused() == 0);
  CHECK(rig.choose());
}

TEST_CASE("a request that has lost its server waits before the others, and keeps nobody waiting") {
  Queue rig(2, 1, [](route::UpstreamSpec&) {});
  const auto held_by = [&](std::string_view name) -> Turn& {
    for (Turn& turn : rig.held) {
      if (turn && turn.endpoint().address_text() == name) return turn;
    }
    FAIL("nobody has it");
    return rig.held[0];
  };
  const uint64_t tried[] = {PoolRig::name('a')};
  Request& fresh = rig.queue();
  Request& again = rig.queue_again(tried);
  Request& last = rig.queue();
  rig.engine.settle();
  REQUIRE(rig.pending() == 3);
  held_by("a").end();  // of no use to it
  rig.engine.settle();
  CHECK(fresh.done);
  CHECK_FALSE(again.done);
  held_by("b").end();
  rig.engine.settle();
  REQUIRE(again.done);
  REQUIRE(again.turn);
  CHECK(again.turn.endpoint().address_text() == "b");
  CHECK_FALSE(last.done);
}

TEST_CASE("there is nothing to wait for once all others are down") {
  Queue rig(2, 1, [](route::UpstreamSpec&) {});
  const uint64_t tried[] = {PoolRig::name('a')};
  Request& again = rig.queue_again(tried);
  rig.engine.settle();
  CHECK_FALSE(again.done);
  rig.say('b', kDown);
  rig.engine.settle();
  CHECK(again.done);
  CHECK(again.missing == NoServer::kTried);
}

TEST_CASE("those who wait for an upstream that is gone are sent away") {
  Queue rig;
  const uint64_t tried[] = {PoolRig::name('x')};
  Request& one = rig.queue();
  Request& other = rig.queue_again(tried);
  rig.engine.settle();
  rig.pool.send_waiters_away();
  rig.engine.settle();
  CHECK(one.missing == NoServer::kDown);
  CHECK(other.missing == NoServer::kDown);
}

TEST_CASE("nobody comes between the end of one request and the next that waits") {
  Queue rig;
  Request& first = rig.queue();
  Request& second = rig.queue();
  rig.engine.settle();
  rig.held.clear();
  // It is not resumed yet, but the place is its own.
  CHECK_FALSE(first.done);
  CHECK(rig.choose().missing() == NoServer::kFull);
  CHECK(rig.at_server('a').missing() == NoServer::kFull);
  rig.engine.settle();
  REQUIRE(first.turn);
  CHECK_FALSE(second.done);
  // The second one waits, and there is room at a server that has just come: it goes first.
  rig.add("b");
  rig.spec.servers[1].max_connections = 1;
  rig.set();
  CHECK(rig.choose().missing() == NoServer::kFull);
  rig.engine.settle();
  REQUIRE(second.turn);
  CHECK(second.turn.endpoint().address_text() == "b");
}

TEST_CASE("who comes while others wait gets in line, also when there is room") {
  // A waiter that wants nothing in particular would have been served: the limit of the upstream is
  // what holds them all.
  Queue rig(2, 1, [](route::UpstreamSpec& spec) {
    spec.max_connections = 1;
    spec.servers[0].max_connections = spec.servers[1].max_connections = 0;
  });
  CHECK(rig.held.size() == 1);
  Request& first = rig.queue();
  Request& second = rig.queue();
  rig.engine.settle();
  rig.held.clear();
  CHECK(rig.choose().missing() == NoServer::kFull);
  rig.engine.settle();
  CHECK(first.turn);
  CHECK_FALSE(second.done);
  first.turn.end();
  rig.engine.settle();
  CHECK(second.turn);
  second.turn.end();
  CHECK(rig.choose());
}

TEST_CASE("a wait that is cancelled at every moment") {
  Queue rig;
  Request& cancelled = rig.queue();
  Request& next = rig.queue();
  rig.engine.settle();
  SECTION("before anything has happened, twice") {
    cancelled.handle.cancel();
    cancelled.handle.cancel();
    rig.engine.settle();
    CHECK(cancelled.done);
    CHECK_FALSE(cancelled.turn);
    CHECK(cancelled.missing == NoServer::kFull);
    CHECK(rig.refused() == 1);
    CHECK_FALSE(next.done);
    rig.held.clear();
  }
  SECTION("and the server ends in the same turn, before the request is resumed") {
    cancelled.handle.cancel();
    rig.held.clear();
    rig.engine.settle();
    CHECK(cancelled.done);
    CHECK_FALSE(cancelled.turn);
  }
  SECTION("after it was given its server, before it is resumed") {
    rig.held.clear();
    cancelled.handle.cancel();
    CHECK(rig.at('a').active == 1);
    rig.engine.settle();
    REQUIRE(cancelled.done);
    REQUIRE(cancelled.turn);  // it has to be given on
    CHECK_FALSE(next.done);
    cancelled.turn.end();
  }
  SECTION("when it is over: too late") {
    rig.held.clear();
    rig.engine.settle();
    REQUIRE(cancelled.turn);
    cancelled.handle.cancel();
    rig.engine.settle();
    CHECK(cancelled.turn);
    CHECK_FALSE(next.done);
    cancelled.turn.end();
  }
  rig.engine.settle();
  REQUIRE(next.turn);
  CHECK(rig.at('a').active == 1);
}

TEST_CASE("a handle is used again") {
  Queue rig;
  Request request;
  for (int i = 0; i < 3; ++i) {
    request.done = false;
    rig.engine.tasks.spawn(try_or_wait(rig.pool, request, rig.pick(), UINT64_MAX, nullptr));
    rig.engine.settle();
    CHECK_FALSE(request.done);
    if (i == 1) {
      rig.held.clear();
    } else {
      request.handle.cancel();
    }
    rig.engine.settle();
    REQUIRE(request.done);
    CHECK(static_cast<bool>(request.turn) == (i == 1));
    if (request.turn) rig.held.push_back(std::move(request.turn));
  }
}

TEST_CASE("nobody waits for ever") {
  Queue rig([](route::UpstreamSpec& spec) { spec.pending_timeout_ms = 40; });
  rig.engine->turn(false);
  const uint64_t begin = rig.engine->now_ms();
  Request& by_setting = rig.queue();
  Request& by_deadline = rig.queue(begin + 10);
  Request& late = rig.queue(begin - 1);
  REQUIRE(rig.engine.run_until([&] { return late.done; }));
  CHECK(rig.engine->now_ms() - begin < 10);
  REQUIRE(rig.engine.run_until([&] { return by_deadline.done; }));
  CHECK(rig.engine->now_ms() - begin >= 10);
  CHECK_FALSE(by_setting.done);
  REQUIRE(rig.engine.run_until([&] { return by_setting.done; }));
  CHECK(rig.engine->now_ms() - begin >= 40);
  for (const auto& request : rig.requests) {
    CHECK_FALSE(request->turn);
    CHECK(request->missing == NoServer::kFull);
  }
  CHECK(rig.refused() == 3);
  CHECK(rig.pending() == 0);
}

TEST_CASE("the queue has room for this core's share") {
  Queue rig(1, 4, [](route::UpstreamSpec& spec) { spec.max_pending = 9; });
  for (int i = 0; i < 4; ++i) rig.queue();
  rig.engine.settle();
  CHECK(rig.pending() == 3);
  CHECK(rig.requests[3]->done);
  CHECK(rig.requests[3]->missing == NoServer::kFull);
  CHECK(rig.refused() == 1);
  CHECK(rig.sample().upstreams[0].waited == 3);
  // One leaves: there is room again.
  rig.requests[1]->handle.cancel();
  rig.engine.settle();
  Request& another = rig.queue();
  rig.engine.settle();
  CHECK_FALSE(another.done);
  CHECK(rig.pending() == 3);
}

TEST_CASE("without a queue nobody waits") {
  Queue rig([](route::UpstreamSpec& spec) { spec.max_pending = 0; });
  Request& request = rig.queue();
  rig.engine.settle();
  CHECK(request.done);
  CHECK(request.missing == NoServer::kFull);
  CHECK(rig.refused() == 1);
}

TEST_CASE("where there is nothing to wait for, nobody waits on") {
  Queue rig;
  for (int i = 0; i < 3; ++i) rig.queue();
  rig.engine.settle();
  SECTION("down") { rig.say('a', kDown); }
  SECTION("draining") { rig.say('a', kDraining); }
  SECTION("no weight") { rig.say('a', kUp, 0); }
  SECTION("the server left") {
    rig.spec.servers.clear();
    rig.set();
  }
  SECTION("the upstream left") { rig.pool.retire(); }
  rig.engine.settle();
  for (const auto& request : rig.requests) {
    CHECK(request->done);
    CHECK(request->missing == NoServer::kDown);
  }
  CHECK(rig.refused() == 3);
}

TEST_CASE(
    "all that are up go and one that was down comes, by one configuration: nobody is sent away") {
  Queue rig(2, 1, [](route::UpstreamSpec& spec) { spec.servers[1].state = kDown; });
  Request& request = rig.queue();
  rig.engine.settle();
  rig.spec.servers[0].state = kDown;
  rig.spec.servers[1].state = kUp;
  rig.set();
  rig.engine.settle();
  REQUIRE(request.turn);
  CHECK(request.turn.endpoint().address_text() == "b");
}

TEST_CASE("an ejection of the last one by a circuit breaker ends the wait; its trial serves one") {
  Queue rig([](route::UpstreamSpec& spec) {
    spec.servers[0].max_connections = 2;
    spec.circuit = {.failures = 1, .open_ms = 30, .trials_max = 1, .successes = 1};
  });
  REQUIRE(rig.held.size() == 2);
  Request& request = rig.queue();
  rig.engine.settle();
  rig.held[0].judge(CircuitOutcome::kBad);
  rig.held[0].end();
  rig.engine.settle();
  CHECK(request.done);
  CHECK(request.missing == NoServer::kDown);
}

TEST_CASE("more room, by whatever, wakes as many as there is room for") {
  Queue rig;
  for (int i = 0; i < 4; ++i) rig.queue();
  rig.engine.settle();
  size_t served = 0;
  SECTION("a higher limit") {
    rig.spec.servers[0].max_connections = 3;
    rig.set();
    served = 2;
  }
  SECTION("no limit") {
    rig.spec.servers[0].max_connections = 0;
    rig.set();
    served = 4;
  }
  SECTION("another server") {
    rig.add("b");
    rig.spec.servers[1].max_connections = 3;
    rig.set();
    served = 3;
  }
  rig.engine.settle();
  for (size_t i = 0; i < rig.requests.size(); ++i) {
    CHECK(rig.requests[i]->done == (i < served));
    CHECK(static_cast<bool>(rig.requests[i]->turn) == (i < served));
  }
}

TEST_CASE("a server that comes up, by control, serves who waits for another") {
  Queue rig(2, 1, [](route::UpstreamSpec& spec) { spec.servers[1].state = kDown; });
  REQUIRE(rig.held.size() == 1);
  Request& request = rig.queue();
  rig.engine.settle();
  CHECK_FALSE(request.done);
  rig.say('b', kUp);
  CHECK(rig.choose().missing() == NoServer::kFull);
  rig.engine.settle();
  REQUIRE(request.turn);
  CHECK(request.turn.endpoint().address_text() == "b");
}

TEST_CASE("a server whose ejection ends serves who waits for another") {
  Queue rig(2, 1, [](route::UpstreamSpec& spec) {
    spec.outliers = {
        .enabled = true, .consecutive_errors = 1, .error_percent = 0, .ejection_ms = 40};
  });
  REQUIRE(rig.held.size() == 2);
  const char gone = rig.held[1].endpoint().address_text()[0];
  rig.held[1].judge(CircuitOutcome::kBad);
  rig.held[1].end();
  REQUIRE(rig.state(gone) == ServerState::kEjected);
  Request& request = rig.queue();
  rig.engine.settle();
  CHECK_FALSE(request.done);
  REQUIRE(rig.engine.run_until([&] { return request.done; }));
  REQUIRE(request.turn);
  CHECK(request.turn.endpoint().address_text()[0] == gone);
}

TEST_CASE("a session waits for a place, at its own server if that has one") {
  Queue rig(2, 1, [](route::UpstreamSpec& spec) {
    spec.sticky.cookie = "s";
    spec.sticky.key = "sixteen bytes of key at least";
  });
  const uint64_t tag = rig.held[1].tag();
  const std::string own = rig.held[1].endpoint().address_text();
  Request& session = rig.queue(UINT64_MAX, tag);
  rig.engine.settle();
  rig.held.clear();  // both have room, in this moment
  rig.engine.settle();
  REQUIRE(session.turn);
  // The first that has room takes it: it does not wait for its own.
  CHECK((session.turn.tag() == tag) == (session.turn.endpoint().address_text() == own));
}

TEST_CASE("a session that waits for a drained server does not pass the upstream's limit") {
  PoolRig rig(2, [](route::UpstreamSpec& spec) {
    spec.max_connections = 1;
    spec.pending_timeout_ms = 60'000;
    spec.sticky.cookie = "s";
    spec.sticky.key = "sixteen bytes of key at least";
  });
  Turn held = rig.at_server('b');
  REQUIRE(held);
  Request request;
  Pick wanted = rig.pick();
  wanted.sticky_tag = rig.at('a').facts.tag;
  rig.engine.tasks.spawn(try_or_wait(rig.pool, request, wanted, UINT64_MAX, nullptr));
  rig.engine.settle();
  CHECK(rig.sample().upstreams[0].pending == 1);
  rig.say('a', kDraining);
  rig.say('b', kDraining);
  rig.engine.settle();
  CHECK(rig.sample().upstreams[0].active == 1);
  request.handle.cancel();
  rig.engine.settle();
  CHECK(request.done);
}

TEST_CASE(
    "a server that was given in the moment in which it left is there until it is given back") {
  Queue rig;
  Request& request = rig.queue();
  rig.engine.settle();
  rig.held.clear();
  CHECK_FALSE(rig.endpoints[0]->unused());  // nobody may sweep it
  rig.spec.servers.clear();
  rig.set();
  rig.engine.settle();
  REQUIRE(request.turn);
  CHECK(request.turn.endpoint().address_text() == "a");
  CHECK_FALSE(rig.pool.unused());
  request.turn.end();
  CHECK(rig.endpoints[0]->unused());
  CHECK(rig.pool.unused());
}

// Everything at random, in one turn or in several: what is counted is what is there, and whoever
// can be served is.
TEST_CASE("requests, ends, cancels and words of control in any order") {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    CAPTURE(seed);
    base::Prng rng(seed);
    Queue rig(3, 1, [&](route::UpstreamSpec& spec) {
      for (auto& server : spec.servers) server.max_connections = 1 + seed % 3;
      if (seed % 2 == 0) spec.max_connections = 2;
      if (seed % 5 == 0) spec.max_pending = 3;
      if (seed % 7 == 0) spec.pending_timeout_ms = 1;
    });
    for (int step = 0; step < 200; ++step) {
      const auto any = [&] { return static_cast<char>('a' + rng.below(3)); };
      Request* one =
          rig.requests.empty() ? nullptr : rig.requests[rng.below(rig.requests.size())].get();
      switch (rng.below(9)) {
        case 0:
        case 1: rig.queue(); break;
        case 2:
          if (!rig.held.empty()) rig.held.pop_back();
          break;
        case 3:
          if (one != nullptr) one->handle.cancel();
          break;
        case 4:
          if (one != nullptr) one->turn.end();
          break;
        case 5: rig.say(any(), rng.chance(70) ? kUp : kDown); break;
        case 6:
          if (Turn turn = rig.choose()) rig.held.push_back(std::move(turn));
          break;
        case 7: {
          auto& server = rig.spec.servers[rng.below(3)];
          server.max_connections = static_cast<uint32_t>(1 + rng.below(3));
          server.state = rng.chance(80) ? kUp : kDown;
          rig.set();
          break;
        }
        default: rig.engine->turn(false); break;
      }
    }
    rig.engine.settle();
    // Nobody waits while there is room.
    const UpstreamSample sum = rig.sample().upstreams[0];
    uint32_t waiting = 0;
    uint32_t active = static_cast<uint32_t>(rig.held.size());
    for (const auto& request : rig.requests) {
      if (!request->done) ++waiting;
      if (request->turn) ++active;
    }
    CHECK(sum.pending == waiting);
    CHECK(sum.active == active);
    if (waiting > 0) {
      const bool held_back = rig.spec.max_connections != 0 && active >= rig.spec.max_connections;
      const bool no_room = rig.pool.balancer().choose(rig.pick()).missing == NoServer::kFull;
      CHECK((held_back || no_room));
    }
  }
}
