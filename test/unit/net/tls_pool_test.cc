// TLS with next to no buffers: what cannot be opened waits, goes on when a buffer comes back, and a
// reader that can do without buffers does.
#include <optional>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <weir/base/prng.h>

#include "tls_fixture.h"

using namespace weir;
using namespace weir::net;
using namespace weir::net::test;

namespace {

ReceiveStrategy any_strategy() {
  return GENERATE(ReceiveStrategy::kMultishot, ReceiveStrategy::kOneShot);
}

// Reads as relays do, one buffer at a time, and gives the others a turn in between.
Task<> read_slowly(Transport& transport, Reading& out) {
  while (true) {
    const ReadEvent event = co_await transport.readable(transport.reactor().now_ms() + 9000);
    if (event != ReadEvent::kData) {
      out.events.push_back(event);
      co_return;
    }
    const std::string text(transport.front());
    const runtime::BufferRef held = transport.take_front();
    out.text += text;
    co_await transport.reactor().yield();
  }
}

// Whatever the pool has free, until it has more; offered ones too.
size_t free_of(Engine& engine, uint32_t count) { return count - engine->buffers().in_use(); }

}  // namespace

TEST_CASE("a pool of a few buffers is enough for one connection") {
  const uint32_t count = GENERATE(1u, 2u, 8u, 16u, 65u);
  const bool slow = GENERATE(false, true);
  CAPTURE(count, slow);
  Engine engine(few_buffers(count, any_strategy()));
  TlsServer server;
  Reading reading;
  Sending sending;
  Secured pair(engine, server, GENERATE(TLS1_2_VERSION, TLS1_3_VERSION));
  pair.open();
  if (slow) {
    engine.tasks.spawn(read_slowly(*pair.transport, reading));
  } else {
    engine.tasks.spawn(read_all(*pair.transport, reading));
  }
  const std::string text = pattern(200'000);
  pair.peer.write("short");
  REQUIRE(pair.drive([&] { return reading.text == "short"; }, 3000));
  pair.peer.write(text);
  CHECK(pair.drive([&] { return reading.text.size() >= text.size() + 5; }, 3000));
  CHECK((reading.text == "short" + text));
  engine.tasks.spawn(send_text(*pair.transport, text, 1000, sending));
  CHECK(pair.drive([&] { return pair.peer.text.size() >= text.size(); }, 3000));
  CHECK((pair.peer.text == text));
  pair.peer.close_notify();
  REQUIRE(pair.drive([&] { return !reading.events.empty(); }, 3000));
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
}

TEST_CASE("many connections share a few buffers") {
  Engine engine(few_buffers(GENERATE(2u, 8u, 70u), any_strategy()));
  TlsServer server;
  std::vector<std::unique_ptr<Secured>> pairs;
  std::vector<Reading> readings(12);
  const std::string text = pattern(60'000);
  for (Reading& reading : readings) {
    Secured& pair = *pairs.emplace_back(std::make_unique<Secured>(engine, server));
    pair.open();
    engine.tasks.spawn(read_slowly(*pair.transport, reading));
  }
  for (const auto& pair : pairs) {
    pair->peer.write(text);
    pair->peer.close_notify();
  }
  CHECK(engine.run_until(
      [&] {
        for (const auto& pair : pairs) pair->peer.push(3000);
        engine->wake();
        return engine.tasks.running() == 0;
      },
      8000));
  for (const Reading& reading : readings) {
    CHECK((reading.text == text));
    CHECK(reading.events == std::vector{ReadEvent::kEnd});
  }
}

TEST_CASE("with every buffer held by others, data flows on when one is released") {
  const uint32_t count = GENERATE(8u, 16u);
  const size_t bytes = GENERATE(size_t{10}, size_t{5000}, size_t{70'000});
  const bool half_record = GENERATE(false, true);
  CAPTURE(count, bytes, half_record);
  Engine engine(few_buffers(count, any_strategy()));
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  pair.open();
  Hogs hogs(engine);
  REQUIRE(free_of(engine, count) == 0);
  engine.tasks.spawn(read_slowly(*pair.transport, reading));
  const std::string text = pattern(bytes);
  pair.peer.write(text);
  std::string rest;
  if (half_record) {
    rest = pair.peer.out.substr(pair.peer.out.size() / 2);
    pair.peer.out.resize(pair.peer.out.size() - rest.size());
  }
  pair.peer.push();
  engine.settle();
  CHECK(reading.text.empty());
  hogs.let_go_of_one();
  engine.settle();
  pair.peer.out += rest;
  CHECK(pair.drive([&] { return reading.text.size() >= text.size(); }, 3000));
  CHECK((reading.text == text));
  pair.peer.close_notify();
  REQUIRE(pair.drive([&] { return !reading.events.empty(); }, 3000));
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
}

TEST_CASE("buffers that run out in the middle of a record") {
  const uint32_t count = GENERATE(8u, 16u);
  CAPTURE(count);
  Engine engine(few_buffers(count, any_strategy()));
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  pair.open();
  // The reader does not read: the queue holds what it may, the rest waits.
  const std::string text = pattern(100'000);
  pair.peer.write(text);
  for (int i = 0; i < 20; ++i) {
    pair.peer.push(5000);
    engine.settle(2);
  }
  CHECK(pair.queued_bytes() > 0);
  Hogs hogs(engine);
  engine.settle();
  engine.tasks.spawn(read_slowly(*pair.transport, reading));
  CHECK(pair.drive([&] { return reading.text.size() >= text.size(); }, 3000));
  CHECK((reading.text == text));
  pair.peer.close_notify();
  REQUIRE(pair.drive([&] { return !reading.events.empty(); }, 3000));
}

TEST_CASE("a reader without buffers goes on in direct mode") {
  const uint32_t count = GENERATE(8u, 16u, 70u);
  const bool release = GENERATE(false, true);
  const uint64_t seed = GENERATE(1u, 2u, 3u);
  CAPTURE(count, release, seed);
  Engine engine(few_buffers(count, any_strategy()));
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  pair.transport->set_direct_when_starved();
  pair.open();
  std::optional<Hogs> hogs;
  engine.tasks.spawn(read_any(*pair.transport, 3000, reading));
  const std::string text = pattern(300'000, seed);
  pair.peer.write(text);
  pair.peer.close_notify();
  base::Prng random(seed);
  if (count <= 16) hogs.emplace(engine);
  CHECK(engine.run_until(
      [&] {
        pair.peer.push(1 + random.below(9000));
        if (release && hogs && random.below(8) == 0) hogs->let_go_of_one();
        engine->wake();
        return !reading.events.empty();
      },
      5000));
  CHECK((reading.text == text));
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
}

TEST_CASE("starved with the receive under way: records are opened where they were received") {
  Engine engine(few_buffers(80, any_strategy()));
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  pair.transport->set_direct_when_starved();
  pair.open();
  engine.settle();
  // All that are not the kernel's: it can still receive, but nothing can be opened.
  std::vector<uint16_t> held;
  while (const auto id = engine->buffers().allocate()) held.push_back(*id);
  engine.tasks.spawn(read_any(*pair.transport, 2000, reading));
  std::string all;
  for (uint64_t i = 0; i < 20; ++i) {
    const std::string text = pattern(1000, i);
    pair.peer.write(text);
    all += text;
    REQUIRE(pair.drive([&] { return reading.text.size() >= all.size(); }, 2000));
    if (i % 5 == 4) pair.transport->start_receiving();
  }
  CHECK(reading.text == all);
  for (const uint16_t id : held) engine->buffers().release(id);
  pair.peer.close_notify();
  REQUIRE(pair.drive([&] { return !reading.events.empty(); }, 2000));
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
}

TEST_CASE("the end of TCP does not overtake records that wait for a buffer") {
  const bool direct_when_starved = GENERATE(false, true);
  const bool notify = GENERATE(false, true);
  const bool reset = GENERATE(false, true);
  CAPTURE(direct_when_starved, notify, reset);
  Engine engine(few_buffers(80, any_strategy()));
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  if (direct_when_starved) pair.transport->set_direct_when_starved();
  pair.open();
  engine.settle();
  std::vector<uint16_t> held;
  while (const auto id = engine->buffers().allocate()) held.push_back(*id);
  pair.peer.write("last words");
  if (notify) pair.peer.close_notify();
  pair.peer.push();
  if (reset) {
    pair.peer.socket.reset();
  } else {
    pair.peer.socket.finish();
  }
  engine.settle();
  engine.tasks.spawn(read_any(*pair.transport, 100, reading));
  engine.settle();
  for (const uint16_t id : held) engine->buffers().release(id);
  REQUIRE(engine.run_until([&] { return !reading.events.empty(); }));
  CHECK(reading.text == "last words");
  CHECK(reading.events == std::vector{notify ? ReadEvent::kEnd : ReadEvent::kError});
  CHECK(server.counted().truncated == (notify || reset ? 0 : 1));
  if (!notify && reset) CHECK(pair.transport->error().code == base::Errc::kReset);
}

TEST_CASE("starved in the middle: back to the queue and out of it again") {
  const uint64_t seed = GENERATE(1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u);
  CAPTURE(seed);
  Engine engine(few_buffers(80, any_strategy()));
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  pair.transport->set_direct_when_starved();
  pair.open();
  base::Prng random(seed);
  // What others hold, more or less of it.
  std::vector<uint16_t> held;
  runtime::BufferPool& pool = engine->buffers();
  const std::string text = pattern(400'000, seed);
  pair.peer.write(text);
  pair.peer.close_notify();
  engine.tasks.spawn(read_any(*pair.transport, 2000, reading));
  CHECK(engine.run_until(
      [&] {
        pair.peer.push(1 + random.below(20'000));
        if (random.below(2) == 0) {
          while (const auto id = pool.allocate()) held.push_back(*id);
        } else {
          for (uint64_t n = random.below(20); n > 0 && !held.empty(); --n) {
            pool.release(held.back());
            held.pop_back();
          }
        }
        if (random.below(4) == 0 && pair.transport->direct_mode() && !pair.transport->has_data()) {
          pair.transport->start_receiving();
        }
        engine->wake();
        return !reading.events.empty();
      },
      5000));
  for (const uint16_t id : held) pool.release(id);
  CHECK((reading.text == text));
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
}

TEST_CASE("starved while on the way into direct mode") {
  const uint64_t seed = GENERATE(1u, 2u, 3u, 4u);
  Engine engine(few_buffers(80, any_strategy()));
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  if (GENERATE(false, true)) pair.transport->set_direct_when_starved();
  pair.open();
  engine.settle();
  base::Prng random(seed);
  std::vector<uint16_t> held;
  runtime::BufferPool& pool = engine->buffers();
  while (const auto id = pool.allocate()) held.push_back(*id);
  const std::string text = pattern(100'000, seed);
  pair.peer.write(text);
  pair.peer.close_notify();
  pair.peer.push();
  engine.settle(static_cast<unsigned>(random.below(3)));
  engine.tasks.spawn(read_direct(*pair.transport, 2000, reading));
  engine.settle(1);
  CHECK(pair.drive(
      [&] {
        if (!held.empty()) {
          pool.release(held.back());
          held.pop_back();
        }
        return !reading.events.empty();
      },
      5000));
  for (const uint16_t id : held) pool.release(id);
  CHECK((reading.text == text));
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
}

TEST_CASE("disposed while it waits for a buffer") {
  const Linger linger = GENERATE(Linger::kNo, Linger::kReset, Linger::kYes);
  const bool direct_when_starved = GENERATE(false, true);
  Engine engine(few_buffers(8, any_strategy()));
  TlsServer server;
  {
    Secured pair(engine, server);
    if (direct_when_starved) pair.transport->set_direct_when_starved();
    pair.open();
    pair.peer.write(pattern(200'000));
    for (int i = 0; i < 10; ++i) {
      pair.peer.push(9000);
      engine.settle(2);
    }
    pair.dispose(linger);
    pair.peer.socket.close();
    REQUIRE(engine.run_until([&] { return engine->disposing == 0; }));
  }
  CHECK(engine->buffers().in_use() == 0);
}
