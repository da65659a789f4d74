// The pool of one origin on one core: what is reused, what is not, and who waits for a connect.
#include <catch2/catch_test_macros.hpp>

#include "origin.h"

using namespace weir;
using namespace weir::upstream;
using namespace weir::upstream::test;

TEST_CASE("a connection is opened, leased, given back and reused") {
  Bench bench;
  CHECK(bench.endpoint.unused());
  auto connection = bench.take();
  CHECK(bench.endpoint.leased() == 1);
  CHECK(connection->exchanges == 0);
  Connection* const same = connection.get();
  bench.endpoint.release(std::move(connection));
  CHECK(bench.endpoint.idle() == 1);
  CHECK(bench.endpoint.leased() == 0);
  connection = bench.take();
  CHECK(connection.get() == same);
  CHECK(connection->exchanges == 1);
  CHECK(bench.endpoint.counters().connects == 1);
  CHECK(bench.endpoint.counters().reuses == 1);
  Endpoint::discard(std::move(connection));
  CHECK(bench.endpoint.unused());
}

TEST_CASE("the connection that was used last is reused first") {
  Bench bench;
  auto first = bench.take();
  auto second = bench.take();
  auto third = bench.take();
  Connection* const expected[] = {second.get(), third.get(), first.get()};
  bench.endpoint.release(std::move(first));
  bench.endpoint.release(std::move(third));
  bench.endpoint.release(std::move(second));
  for (Connection* const connection : expected) {
    auto taken = bench.endpoint.try_idle();
    CHECK(taken.get() == connection);
    Endpoint::discard(std::move(taken));
  }
  CHECK(bench.endpoint.try_idle() == nullptr);
}

TEST_CASE("fresh is a new connection although an idle one is there") {
  Bench bench;
  bench.endpoint.release(bench.take());
  auto fresh = bench.take(true);
  CHECK(fresh->exchanges == 0);
  CHECK(bench.endpoint.idle() == 1);
  CHECK(bench.endpoint.counters().connects == 2);
  bench.endpoint.release(std::move(fresh));
}

TEST_CASE("an idle connection ends after its time, not before, each at its own") {
  Bench bench({.idle_timeout_ms = 60});
  auto first = bench.take();
  auto second = bench.take();
  bench.endpoint.release(std::move(first));
  const uint64_t start = bench.engine->now_ms();
  bench.engine.pass(30);
  bench.endpoint.release(std::move(second));
  const uint64_t later = bench.engine->now_ms();
  REQUIRE(bench.engine.run_until([&] { return bench.endpoint.idle() == 1; }));
  CHECK(bench.engine->now_ms() - start >= 60);
  REQUIRE(bench.engine.run_until([&] { return bench.endpoint.idle() == 0; }));
  CHECK(bench.engine->now_ms() - later >= 60);
  CHECK(bench.engine->now_ms() - later < 1000);
  bench.origin.accept();
  REQUIRE(bench.origin.peers.size() == 2);
  for (Peer& peer : bench.origin.peers) {
    REQUIRE(bench.engine.run_until([&] {
      peer.take();
      bench.engine->wake();
      return peer.over();
    }));
    CHECK(peer.ended);
  }
  CHECK(bench.endpoint.unused());
}

TEST_CASE("using a connection now and then keeps it") {
  Bench bench({.idle_timeout_ms = 60});
  bench.endpoint.release(bench.take());
  for (int i = 0; i < 5; ++i) {
    bench.engine.pass(35);
    auto connection = bench.endpoint.try_idle();
    REQUIRE(connection);
    bench.endpoint.release(std::move(connection));
  }
  CHECK(bench.endpoint.counters().connects == 1);
}

TEST_CASE("a connection past its lifetime is neither kept nor handed out") {
  Bench bench({.lifetime_ms = 30});
  bench.endpoint.release(bench.take());
  CHECK(bench.endpoint.idle() == 1);
  bench.engine.pass(35);
  CHECK(bench.endpoint.try_idle() == nullptr);
  auto old = bench.take();
  bench.engine.pass(35);
  bench.endpoint.release(std::move(old));
  CHECK(bench.endpoint.idle() == 0);
  CHECK(bench.endpoint.unused());
}

TEST_CASE("no more than idle_max are kept, none with 0") {
  Bench bench({.idle_max = 2});
  auto a = bench.take();
  auto b = bench.take();
  auto c = bench.take();
  bench.endpoint.release(std::move(a));
  bench.endpoint.release(std::move(b));
  bench.endpoint.release(std::move(c));
  CHECK(bench.endpoint.idle() == 2);
  CHECK(bench.endpoint.leased() == 0);
  Bench none({.idle_max = 0});
  none.endpoint.release(none.take());
  CHECK(none.endpoint.idle() == 0);
  CHECK(none.endpoint.unused());
}

TEST_CASE("the origin ends an idle connection: it is gone soon, and never handed out") {
  Bench bench;
  auto first = bench.take();
  auto second = bench.take();
  auto third = bench.take();
  bench.origin.accept();
  REQUIRE(bench.origin.peers.size() == 3);
  Connection* const good = first.get();
  bench.endpoint.release(std::move(first));
  bench.endpoint.release(std::move(second));
  bench.endpoint.release(std::move(third));
  bench.engine.settle();
  bench.origin.peers[1].close();
  bench.origin.peers[2].reset();
  REQUIRE(bench.engine.run_until([&] { return bench.endpoint.idle() == 1; }));
  CHECK(bench.endpoint.counters().idle_closed == 2);
  auto connection = bench.endpoint.try_idle();
  CHECK(connection.get() == good);
  Endpoint::discard(std::move(connection));
}

TEST_CASE("an end that is seen in the turn of the lease is seen by the lease") {
  Bench bench;
  bench.endpoint.release(bench.take());
  bench.origin.accept();
  bench.engine.settle();
  bench.origin.peers[0].close();
  bench.engine->turn(false);
  // The timer that sweeps it has not fired yet.
  CHECK(bench.endpoint.try_idle() == nullptr);
  CHECK(bench.endpoint.unused());
  bench.engine.pass(5);
}

TEST_CASE("bytes on an idle connection spoil it") {
  Bench bench;
  bench.endpoint.release(bench.take());
  bench.origin.accept();
  bench.origin.peers[0].send_all("HTTP/1.1 408 Request Timeout\r\n\r\n");
  REQUIRE(bench.engine.run_until([&] {
    bench.engine->wake();
    return bench.engine->buffers().in_use() > 0;
  }));
  CHECK(bench.endpoint.try_idle() == nullptr);
  CHECK(bench.endpoint.unused());
}

TEST_CASE("a connection with bytes left over, ended or failed, is not kept") {
  Bench bench;
  auto noisy = bench.take();
  auto ended = bench.take();
  bench.origin.accept();
  bench.origin.peers[0].send_all("extra");
  bench.origin.peers[1].close();
  REQUIRE(bench.engine.run_until(
      [&] { return noisy->transport->has_data() && ended->transport->ended(); }));
  bench.endpoint.release(std::move(noisy));
  bench.endpoint.release(std::move(ended));
  CHECK(bench.endpoint.idle() == 0);
  CHECK(bench.endpoint.unused());
}

TEST_CASE("an interrupt that nobody took does not travel to the next exchange") {
  Bench bench;
  auto connection = bench.take();
  connection->transport->interrupt();
  bench.endpoint.release(std::move(connection));
  connection = bench.endpoint.try_idle();
  REQUIRE(connection);
  bench.origin.accept();
  bench.origin.peers[0].send_all("x");
  REQUIRE(bench.engine.run_until([&] { return connection->transport->has_data(); }));
  Endpoint::discard(std::move(connection));
}

TEST_CASE("close_idle ends all of them, leased ones stay") {
  Bench bench;
  auto leased = bench.take();
  auto idle = bench.take();
  bench.endpoint.release(std::move(idle));
  bench.endpoint.close_idle();
  CHECK(bench.endpoint.idle() == 0);
  CHECK(bench.endpoint.leased() == 1);
  CHECK_FALSE(bench.endpoint.unused());
  bench.endpoint.release(std::move(leased));
  CHECK(bench.endpoint.idle() == 1);
}

TEST_CASE("an origin that refuses is an error, and leaves no count behind") {
  Bench bench;
  bench.origin.stop();
  for (int i = 0; i < 3; ++i) {
    Acquire one;
    REQUIRE(bench.engine.run(acquire(bench.endpoint, one, false)));
    CHECK(one.error.code == base::Errc::kRefused);
  }
  CHECK(bench.endpoint.unused());
  CHECK(bench.endpoint.counters().connects == 3);
  CHECK(bench.endpoint.counters().connect_failures == 3);
}
