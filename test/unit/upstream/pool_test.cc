// A pool: what control, passive checks and circuit breakers say of a server together, with real
// timers; sticky cookies, the retry budget and the numbers.
#include <catch2/catch_test_macros.hpp>

#include "pool_rig.h"

using namespace weir;
using namespace weir::upstream;
using namespace weir::upstream::rig;

namespace {

constexpr auto kUp = ServerState::kUp;
constexpr auto kDown = ServerState::kDown;
constexpr auto kDraining = ServerState::kDraining;
constexpr auto kEjected = ServerState::kEjected;
constexpr auto kGood = CircuitOutcome::kGood;
constexpr auto kBad = CircuitOutcome::kBad;
constexpr auto kUnknown = CircuitOutcome::kUnknown;

// Three errors put a server aside for 40 ms, then 80, ...
void passive_checks(route::UpstreamSpec& spec) {
  spec.outliers = {.enabled = true,
                   .consecutive_errors = 3,
                   .error_percent = 0,
                   .ejection_ms = 40,
                   .ejection_max_ms = 1'000};
}

// Ejections that last.
void long_ejections(route::UpstreamSpec& spec) {
  passive_checks(spec);
  spec.outliers.ejection_ms = spec.outliers.ejection_max_ms = 600'000;
}

void circuit_breaker(route::UpstreamSpec& spec) {
  spec.circuit = {.failures = 2,
                  .open_ms = 40,
                  .open_max_ms = 1'000,
                  .trials_max = 2,
                  .successes = 2,
                  .trial_timeout_ms = 600'000};
}

}  // namespace

// ---- passive checks

TEST_CASE("errors in a row put a server aside until its time is over") {
  PoolRig rig(3, passive_checks);
  rig.fail('b', 2);
  rig.ask('b', kGood);
  rig.fail('b', 2);
  CHECK(rig.state('b') == kUp);
  CHECK(rig.told.empty());
  rig.fail('b', 1);
  CHECK(rig.state('b') == kEjected);
  REQUIRE(rig.told.size() == 1);
  CHECK(rig.told[0].upstream == "app");
  CHECK(rig.told[0].address == "b");
  CHECK(rig.told[0].cause == "consecutive_errors");
  CHECK(rig.told[0].ejected);
  CHECK(rig.told[0].for_ms == 40);
  for (int i = 0; i < 10; ++i) CHECK(rig.choose().endpoint().address_text() != "b");
  CHECK_FALSE(rig.at_server('b'));

  const uint64_t begin = rig.engine->now_ms();
  REQUIRE(rig.becomes('b', kUp));
  CHECK(rig.engine->now_ms() - begin >= 39);
  REQUIRE(rig.told.size() == 2);
  CHECK(rig.told[1].address == "b");
  CHECK_FALSE(rig.told[1].ejected);
  CHECK(rig.at_server('b'));

  // Longer the next time.
  rig.fail('b', 3);
  CHECK(rig.state('b') == kEjected);
  REQUIRE(rig.told.size() == 3);
  CHECK(rig.told[2].for_ms == 80);
  REQUIRE(rig.becomes('b', kUp));
}

TEST_CASE("a request that was sent before the ejection changes nothing more") {
  PoolRig rig(3, passive_checks);
  Turn late = rig.at_server('b');
  Turn unknown = rig.at_server('b');
  rig.fail('b', 3);
  CHECK(rig.at('b').active == 2);
  late.judge(kGood);
  late.end();
  unknown.end();
  CHECK(rig.state('b') == kEjected);
  CHECK(rig.told.size() == 1);
  CHECK(rig.at('b').active == 0);
}

TEST_CASE("a check that reaches a server ends an ejection because it could not be reached") {
  const auto unreachable = [](PoolRig& rig, char server) {
    Turn turn = rig.at_server(server);
    REQUIRE(turn);
    turn.note_unreachable();
    turn.judge(kBad);
  };
  PoolRig rig(3, long_ejections);
  for (int i = 0; i < 3; ++i) unreachable(rig, 'b');
  CHECK(rig.state('b') == kEjected);
  rig.pool.note_reached(PoolRig::name('b'));
  CHECK(rig.state('b') == kUp);
  REQUIRE(rig.told.size() == 2);
  CHECK_FALSE(rig.told[1].ejected);
  rig.pool.note_reached(PoolRig::name('b'));
  CHECK(rig.told.size() == 2);
  // Bad answers are no matter of connecting.
  rig.fail('a', 3);
  CHECK(rig.state('a') == kEjected);
  rig.pool.note_reached(PoolRig::name('a'));
  CHECK(rig.state('a') == kEjected);
}

TEST_CASE("a check that reaches a server closes its circuit, but brings back none that is down") {
  PoolRig rig(2, circuit_breaker);
  for (int i = 0; i < 2; ++i) {
    Turn turn = rig.at_server('a');
    turn.note_unreachable();
    turn.judge(kBad);
  }
  CHECK(rig.state('a') == kEjected);
  rig.say('a', kDown);
  rig.pool.note_reached(PoolRig::name('a'));
  CHECK(rig.state('a') == kDown);
  rig.say('a', kUp);
  CHECK(rig.state('a') == kUp);
}

TEST_CASE("some servers stay, however bad all are") {
  PoolRig rig(4, passive_checks);
  for (const char server : {'a', 'b', 'c', 'd'}) {
    for (int i = 0; i < 6 && rig.state(server) == kUp; ++i) rig.ask(server, kBad);
  }
  CHECK(rig.told.size() == 2);  // half of them at most
  CHECK(rig.state('c') == kUp);
  CHECK(rig.state('d') == kUp);
}

TEST_CASE("the slow one is found out by the timer") {
  PoolRig rig(3, [](route::UpstreamSpec& spec) {
    passive_checks(spec);
    spec.outliers.latency_percent = 300;
    spec.outliers.latency_floor_ms = 10;
    spec.outliers.latency_requests_min = 5;
    spec.outliers.ejection_ms = spec.outliers.ejection_max_ms = 600'000;
  });
  for (const char server : {'a', 'b', 'c'}) {
    for (int i = 0; i < 6; ++i) {
      Turn turn = rig.at_server(server);
      turn.restart_clock(rig.engine->now_ns() - (server == 'c' ? 400'000'000u : 1'000'000u));
      turn.note_latency(rig.engine->now_ns());
      turn.judge(kGood);
    }
  }
  CHECK(rig.told.empty());
  REQUIRE(rig.becomes('c', kEjected));
  REQUIRE(rig.told.size() == 1);
  CHECK(rig.told[0].cause == "latency");
  CHECK(rig.told[0].for_ms == 600'000);
  CHECK(rig.sample().servers[2].cause == OutlierCause::kLatency);
}

// ---- what control says, with it

TEST_CASE("down and draining are stronger than an ejection, and outlast it") {
  PoolRig rig(4, passive_checks);
  rig.fail('a', 3);
  REQUIRE(rig.state('a') == kEjected);
  SECTION("down") {
    rig.say('a', kDown);
    CHECK(rig.state('a') == kDown);
    // The ejection ends by the timer meanwhile, and the server stays down.
    REQUIRE(rig.engine.run_until([&] { return rig.told.size() == 2; }, 5'000));
    CHECK(rig.state('a') == kDown);
    rig.say('a', kUp);
    CHECK(rig.state('a') == kUp);
  }
  SECTION("draining") {
    rig.say('a', kDraining);
    CHECK(rig.state('a') == kDraining);
    REQUIRE(rig.engine.run_until([&] { return rig.told.size() == 2; }, 5'000));
    CHECK(rig.state('a') == kDraining);
    rig.say('a', kUp);
    CHECK(rig.state('a') == kUp);
  }
  SECTION("the same word again") {
    rig.say('a', kUp);
    CHECK(rig.state('a') == kEjected);
    REQUIRE(rig.becomes('a', kUp));
  }
}

TEST_CASE("up, after down, ends an ejection at once") {
  PoolRig rig(4, long_ejections);
  rig.fail('a', 3);
  rig.say('a', kDown);
  CHECK(rig.told.size() == 1);
  rig.say('a', kUp);
  CHECK(rig.state('a') == kUp);
  REQUIRE(rig.told.size() == 2);
  CHECK_FALSE(rig.told[1].ejected);
  rig.fail('a', 2);
  CHECK(rig.state('a') == kUp);  // it begins anew
}

TEST_CASE("what is down cannot be what the others rest on") {
  PoolRig rig(2, long_ejections);
  rig.say('a', kDown);
  rig.fail('b', 5);
  CHECK(rig.state('b') == kUp);
  rig.say('a', kUp);
  rig.fail('b', 1);  // it has had enough already
  CHECK(rig.state('b') == kEjected);
  rig.say('a', kDown);  // now it is needed
  CHECK(rig.state('b') == kUp);
  REQUIRE(rig.told.size() == 2);
  CHECK_FALSE(rig.told[1].ejected);
}

TEST_CASE("a new configuration keeps ejections; without passive checks there are none") {
  PoolRig rig(3, long_ejections);
  rig.fail('a', 3);
  rig.add("d");
  rig.set();
  CHECK(rig.state('a') == kEjected);
  CHECK(rig.state('d') == kUp);
  rig.spec.outliers.enabled = false;
  rig.set();
  CHECK(rig.state('a') == kUp);
  rig.fail('a', 10);
  CHECK(rig.state('a') == kUp);
}

TEST_CASE("passive checks that are switched on know who is down") {
  PoolRig rig(2);
  rig.spec.servers[0].state = kDown;
  rig.set();
  REQUIRE(rig.state('a') == kDown);
  long_ejections(rig.spec);
  rig.set();
  rig.fail('b', 5);
  CHECK(rig.state('b') == kUp);
}

TEST_CASE("two lines with one server are two servers, each with its own state and weight") {
  PoolRig rig(2);
  rig.spec.servers.push_back(rig.spec.servers[0]);
  rig.spec.servers[2].state = kDown;
  rig.spec.servers[0].weight = 3;
  rig.set();
  REQUIRE(rig.pool.servers() == 3);
  const uint64_t again = next_hash(PoolRig::name('a') + 1);
  const int place = rig.pool.balancer().find(again);
  REQUIRE(place >= 0);
  CHECK(rig.state('a') == kUp);
  CHECK(rig.at('a').facts.weight == 3);
  CHECK(rig.pool.balancer().at(place).facts.state == kDown);
  CHECK(rig.pool.balancer().at(place).facts.weight == 1);
  CHECK(rig.pool.set_server(again, kUp, 2));
  CHECK(rig.pool.balancer().at(place).facts.state == kUp);
  CHECK(rig.at('a').facts.weight == 3);
}

TEST_CASE("a word about nobody") {
  PoolRig rig(1);
  CHECK_FALSE(rig.say('x', kDown));
  CHECK(rig.say('a', kDown));
  CHECK(rig.choose().missing() == NoServer::kDown);
}

// ---- circuit breakers

TEST_CASE("a circuit opens, lets its trials through, and closes") {
  PoolRig rig(2, circuit_breaker);
  rig.fail('a', 1);
  rig.ask('a', kGood);
  rig.fail('a', 1);
  CHECK(rig.state('a') == kUp);
  rig.fail('a', 1);
  CHECK(rig.state('a') == kEjected);
  CHECK(rig.at('a').circuit.state() == CircuitState::kOpen);
  REQUIRE(rig.told.size() == 1);
  CHECK(rig.told[0].cause == "circuit_breaker");
  CHECK(rig.told[0].address == "a");
  CHECK(rig.told[0].ejected);
  CHECK(rig.told[0].for_ms == 40);
  CHECK_FALSE(rig.at_server('a'));
  const uint64_t begin = rig.engine->now_ms();
  REQUIRE(rig.becomes('a', kUp));
  CHECK(rig.engine->now_ms() - begin >= 39);

  Turn first = rig.at_server('a');
  Turn second = rig.at_server('a');
  REQUIRE(first);
  REQUIRE(second);
  CHECK(rig.at('a').circuit.state() == CircuitState::kHalfOpen);
  CHECK(rig.state('a') == kEjected);
  CHECK_FALSE(rig.at_server('a'));
  first.judge(kGood);
  first.end();
  Turn third = rig.at_server('a');  // there is room for another
  REQUIRE(third);
  CHECK_FALSE(rig.at_server('a'));
  third.end();  // of which nothing is known
  CHECK(rig.at('a').circuit.state() == CircuitState::kHalfOpen);
  CHECK(rig.told.size() == 1);
  second.judge(kGood);
  second.end();
  CHECK(rig.at('a').circuit.state() == CircuitState::kClosed);
  CHECK(rig.state('a') == kUp);
  REQUIRE(rig.told.size() == 2);
  CHECK(rig.told[1].cause == "circuit_breaker");
  CHECK_FALSE(rig.told[1].ejected);
}

TEST_CASE("a trial that fails opens the circuit again, for longer") {
  PoolRig rig(2, circuit_breaker);
  rig.fail('a', 2);
  REQUIRE(rig.becomes('a', kUp));
  Turn other = rig.at_server('a');
  rig.fail('a', 1);
  CHECK(rig.state('a') == kEjected);
  REQUIRE(rig.told.size() == 2);
  CHECK(rig.told[1].ejected);
  CHECK(rig.told[1].for_ms == 80);
  other.judge(kGood);  // of a round that is over
  other.end();
  CHECK(rig.at('a').circuit.state() == CircuitState::kOpen);
  REQUIRE(rig.becomes('a', kUp));
}

TEST_CASE("requests that end by themselves do not keep the trials' places") {
  PoolRig rig(2, [](route::UpstreamSpec& spec) {
    circuit_breaker(spec);
    spec.circuit.trials_max = 1;
  });
  rig.fail('a', 2);
  REQUIRE(rig.becomes('a', kUp));
  for (int i = 0; i < 5; ++i) {
    rig.ask('a', kUnknown);
    CHECK(rig.state('a') == kUp);
  }
  CHECK(rig.at('a').circuit.state() == CircuitState::kHalfOpen);
}

TEST_CASE("a trial of which nothing is heard is given up") {
  PoolRig rig(2, [](route::UpstreamSpec& spec) {
    circuit_breaker(spec);
    spec.circuit.trials_max = 1;
    spec.circuit.trial_timeout_ms = 20;
  });
  rig.fail('a', 2);
  REQUIRE(rig.becomes('a', kUp));
  Turn lost = rig.at_server('a');
  CHECK(rig.state('a') == kEjected);
  REQUIRE(rig.becomes('a', kUp));
  Turn next = rig.at_server('a');
  REQUIRE(next);
  lost.judge(kBad);
  lost.end();
  CHECK(rig.at('a').circuit.state() == CircuitState::kHalfOpen);
}

TEST_CASE("up, after down, closes a circuit, and says so") {
  PoolRig rig(2, circuit_breaker);
  rig.fail('a', 2);
  rig.say('a', kDown);
  CHECK(rig.state('a') == kDown);
  CHECK(rig.told.size() == 1);
  rig.say('a', kUp);
  CHECK(rig.state('a') == kUp);
  CHECK(rig.at('a').circuit.state() == CircuitState::kClosed);
  REQUIRE(rig.told.size() == 2);
  CHECK_FALSE(rig.told[1].ejected);
  rig.fail('a', 1);
  CHECK(rig.state('a') == kUp);
}

TEST_CASE("an ejection and an open circuit: both have to be over") {
  PoolRig rig(3, [](route::UpstreamSpec& spec) {
    circuit_breaker(spec);
    spec.circuit.failures = 3;
    passive_checks(spec);
    spec.outliers.ejection_ms = 150;
  });
  rig.fail('a', 3);
  CHECK(rig.told.size() == 2);
  const uint64_t begin = rig.engine->now_ms();
  REQUIRE(rig.becomes('a', kUp));
  CHECK(rig.engine->now_ms() - begin >= 149);
  CHECK(rig.at('a').circuit.state() == CircuitState::kOpen);  // until somebody tries
  rig.ask('a', kGood);
  rig.ask('a', kGood);
  CHECK(rig.at('a').circuit.state() == CircuitState::kClosed);
}

TEST_CASE("a circuit breaker that is switched off holds nobody back") {
  PoolRig rig(1, circuit_breaker);
  rig.fail('a', 2);
  REQUIRE(rig.state('a') == kEjected);
  rig.spec.circuit.failures = 0;
  rig.set();
  CHECK(rig.state('a') == kUp);
  rig.fail('a', 10);
  CHECK(rig.state('a') == kUp);
}

// ---- sticky sessions

namespace {
void sticky(route::UpstreamSpec& spec) {
  spec.sticky.cookie = "weir_sticky";
  spec.sticky.key = "sixteen bytes of key at least";
}
constexpr uint32_t kNow = 1'700'000'000;

std::string cookie_of(Pool& pool, uint64_t tag, uint32_t now_s = kNow) {
  std::string value(StickySigner::kValueBytes, ' ');
  pool.write_cookie(std::span<char, StickySigner::kValueBytes>(value.data(), value.size()), tag,
                    now_s);
  return value;
}
}  // namespace

TEST_CASE("a cookie leads back to its server") {
  PoolRig rig(3, sticky);
  REQUIRE(rig.pool.sticky());
  Turn first = rig.at_server('b');
  REQUIRE(first.tag() != 0);
  const std::string value = cookie_of(rig.pool, first.tag());
  Pick pick = rig.pick();
  pick.sticky_tag = rig.pool.read_cookie(value, kNow + 1000);
  CHECK(pick.sticky_tag == first.tag());
  for (int i = 0; i < 5; ++i) {
    CHECK(rig.pool.choose(pick).endpoint().address_text() == "b");
  }
  rig.say('b', kDraining);  // sessions may end there
  CHECK(rig.pool.choose(pick).endpoint().address_text() == "b");
  CHECK(rig.choose().endpoint().address_text() != "b");
  rig.say('b', kDown);
  CHECK(rig.pool.choose(pick).endpoint().address_text() != "b");
  rig.say('b', kUp);
  const uint64_t tried[] = {PoolRig::name('b')};
  pick.tried = tried;
  CHECK(rig.pool.choose(pick).endpoint().address_text() != "b");
}

TEST_CASE("a cookie that is not ours, or too old, says nothing") {
  PoolRig rig(2, sticky);
  const Turn turn = rig.at_server('a');
  std::string value = cookie_of(rig.pool, turn.tag());
  CHECK(rig.pool.read_cookie("", kNow) == 0);
  std::string forged = value;
  forged[5] = forged[5] == '0' ? '1' : '0';
  CHECK(rig.pool.read_cookie(forged, kNow) == 0);
  rig.spec.sticky.age_max_s = 60;
  rig.set();
  CHECK(rig.pool.read_cookie(value, kNow + 60) == turn.tag());
  CHECK(rig.pool.read_cookie(value, kNow + 61) == 0);
  // Of an upstream with another name, and of another key.
  rig.spec.name = "other";
  rig.set();
  CHECK(rig.pool.read_cookie(value, kNow) == 0);
  rig.spec.name = "app";
  rig.spec.sticky.key = "another key, also long enough";
  rig.set();
  CHECK(rig.pool.read_cookie(value, kNow) == 0);
  CHECK(rig.at_server('a').tag() != turn.tag());
  rig.spec.sticky = {};
  rig.set();
  CHECK_FALSE(rig.pool.sticky());
  CHECK(rig.pool.read_cookie(value, kNow) == 0);
  CHECK(rig.at_server('a').tag() == 0);
}

// ---- limits, budget, numbers

TEST_CASE("requests under way at once: the upstream's limit beside its servers'") {
  PoolRig rig(2, 2, [](route::UpstreamSpec& spec) { spec.max_connections = 5; });
  std::vector<Turn> turns;
  for (int i = 0; i < 3; ++i) turns.push_back(rig.choose());  // half of five, rounded up
  CHECK(rig.choose().missing() == NoServer::kFull);
  CHECK(rig.at_server('a').missing() == NoServer::kFull);
  turns.pop_back();
  CHECK(rig.choose());
  rig.spec.max_connections = 1;
  rig.set();
  turns.pop_back();
  CHECK(rig.choose().missing() == NoServer::kFull);
  turns.pop_back();
  CHECK(rig.choose());
}

TEST_CASE("the budget for retries is divided by the cores") {
  PoolRig rig(1, 4, [](route::UpstreamSpec& spec) {
    spec.retry.budget_percent = 50;
    spec.retry.budget_per_second = 0;
  });
  for (int i = 0; i < 10; ++i) CHECK(rig.pool.try_retry());
  CHECK_FALSE(rig.pool.try_retry());
  rig.pool.note_request();
  CHECK_FALSE(rig.pool.try_retry());
  rig.pool.note_request();
  CHECK(rig.pool.try_retry());
  const UpstreamScrape scrape = rig.sample();
  CHECK(scrape.upstreams[0].retries == 11);
  CHECK(scrape.upstreams[0].retries_refused == 2);
}

TEST_CASE("no budget at all is none") {
  PoolRig rig(1, [](route::UpstreamSpec& spec) {
    spec.retry.budget_percent = spec.retry.budget_per_second = 0;
  });
  rig.pool.note_request();
  CHECK_FALSE(rig.pool.try_retry());
}

TEST_CASE("the numbers of a pool") {
  PoolRig rig(2, passive_checks);
  rig.ask('a', kGood);
  for (const uint64_t ms : {8, 16}) {
    Turn turn = rig.at_server('b');
    turn.restart_clock(rig.engine->now_ns() - ms * 1'000'000);
    turn.note_latency(rig.engine->now_ns());
    turn.judge(kGood);
  }
  rig.ask('b', kBad);
  rig.ask('b', kUnknown);
  const Turn held = rig.at_server('b');
  rig.pool.note_hedge();
  rig.say('b', kUp, 7);
  UpstreamScrape scrape = rig.sample();
  REQUIRE(scrape.upstreams.size() == 1);
  REQUIRE(scrape.servers.size() == 2);
  CHECK(scrape.upstreams[0].upstream == 3);
  CHECK(scrape.upstreams[0].active == 1);
  CHECK(scrape.upstreams[0].pending == 0);
  CHECK(scrape.upstreams[0].hedged == 1);
  CHECK(scrape.servers[0].upstream == 3);
  CHECK(scrape.servers[0].identity == PoolRig::name('a'));
  CHECK(scrape.servers[0].counts.answers == 1);
  const ServerSample& b = scrape.servers[1];
  CHECK(b.identity == PoolRig::name('b'));
  CHECK(b.state == kUp);
  CHECK(b.circuit == CircuitState::kClosed);
  CHECK(b.cause == OutlierCause::kNone);
  CHECK(b.weight == 7);
  CHECK(b.active == 1);
  CHECK(b.ejections == 0);
  CHECK(b.counts.requests == 5);
  CHECK(b.counts.answers == 2);
  CHECK(b.counts.failures == 1);
  CHECK(b.counts.latency_us_sum == 24'000);
  CHECK(b.counts.latency_us == 9'000);  // an eighth of the way from 8 to 16 ms

  rig.fail('b', 2);
  scrape = rig.sample();
  CHECK(scrape.servers[1].state == kEjected);
  CHECK(scrape.servers[1].cause == OutlierCause::kConsecutive);
  CHECK(scrape.servers[1].ejections == 1);
}

TEST_CASE("a pool that retired chooses nobody, and is unused when all is back") {
  PoolRig rig(2, [](route::UpstreamSpec& spec) {
    passive_checks(spec);
    circuit_breaker(spec);
  });
  rig.fail('b', 2);
  REQUIRE(rig.state('b') == kEjected);
  Turn turn = rig.at_server('a');
  CHECK_FALSE(rig.pool.unused());
  rig.pool.retire();
  CHECK(rig.choose().missing() == NoServer::kDown);
  CHECK(rig.pool.servers() == 0);
  CHECK_FALSE(rig.pool.unused());
  rig.engine.pass(60);  // a review of nobody
  turn.judge(kBad);
  turn.end();
  CHECK(rig.pool.unused());
  rig.set();  // it is back, and begins anew
  CHECK(rig.state('b') == kUp);
  CHECK(rig.at('a').active == 0);
  CHECK(rig.choose());
}

// ---- what a review found

TEST_CASE("the only server with a weight, or with an address, is never put aside") {
  SECTION("a weight") {
    PoolRig rig(2, [](route::UpstreamSpec& spec) {
      passive_checks(spec);
      spec.servers[1].weight = 0;
    });
    for (int i = 0; i < 10 && rig.state('a') == kUp; ++i) rig.ask('a', kBad);
    CHECK(rig.choose());
  }
  SECTION("an address") {
    PoolRig rig(2, passive_checks);
    Endpoint* const places[] = {rig.endpoints[0].get(), nullptr};
    rig.pool.set(rig.spec, places);
    for (int i = 0; i < 10 && rig.state('a') == kUp; ++i) rig.ask('a', kBad);
    CHECK(rig.choose());
  }
}

TEST_CASE("ejections are forgiven with time, also without latencies to judge") {
  PoolRig rig(3, passive_checks);
  rig.fail('b', 3);
  REQUIRE(rig.told.back().for_ms == 40);
  REQUIRE(rig.becomes('b', kUp));
  const uint64_t begin = rig.engine->now_ms();
  (void)rig.engine.run_until([&] { return rig.engine->now_ms() > begin + 400; }, 5'000);
  rig.ask('b', kGood);
  rig.fail('b', 3);
  CHECK(rig.told.back().for_ms == 40);
}

TEST_CASE("the slow one is found out while another is put aside for long") {
  PoolRig rig(4, [](route::UpstreamSpec& spec) {
    long_ejections(spec);
    spec.outliers.latency_percent = 300;
    spec.outliers.latency_floor_ms = 10;
    spec.outliers.latency_requests_min = 5;
  });
  rig.fail('d', 3);
  REQUIRE(rig.state('d') == kEjected);
  (void)rig.becomes('c', kEjected, 1'500);  // whatever timer there was
  for (const char server : {'a', 'b', 'c'}) {
    for (int i = 0; i < 6; ++i) {
      Turn turn = rig.at_server(server);
      REQUIRE(turn);
      turn.restart_clock(rig.engine->now_ns() - (server == 'c' ? 400'000'000u : 1'000'000u));
      turn.note_latency(rig.engine->now_ns());
      turn.judge(kGood);
    }
  }
  CHECK(rig.becomes('c', kEjected, 3'000));
}

TEST_CASE("a breaker that was off for a while begins anew") {
  PoolRig rig(1, [](route::UpstreamSpec& spec) {
    circuit_breaker(spec);
    spec.circuit.trials_max = spec.circuit.successes = 1;
  });
  rig.fail('a', 2);
  REQUIRE(rig.becomes('a', kUp));
  Turn trial = rig.choose();
  REQUIRE(trial);
  REQUIRE(rig.at('a').circuit.state() == CircuitState::kHalfOpen);
  rig.spec.circuit.failures = 0;
  rig.set();
  REQUIRE(rig.state('a') == kUp);
  trial.judge(kGood);
  trial.end();
  rig.spec.circuit.failures = 2;
  rig.set();
  CHECK(rig.state('a') == kUp);
  CHECK(rig.at('a').circuit.state() == CircuitState::kClosed);
}

TEST_CASE("requests of before a word of control say nothing of the time after") {
  PoolRig rig(1, circuit_breaker);
  Turn one = rig.choose();
  Turn other = rig.choose();
  rig.fail('a', 2);
  REQUIRE(rig.state('a') == kEjected);
  rig.say('a', kDown);
  rig.say('a', kUp);
  REQUIRE(rig.state('a') == kUp);
  one.judge(kBad);
  one.end();
  other.judge(kBad);
  other.end();
  CHECK(rig.state('a') == kUp);
}
