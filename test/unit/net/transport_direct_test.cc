// Direct mode: in and out, with data on its way, with a poll under way.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <weir/base/prng.h>

#include "transport_fixture.h"

using namespace weir;
using namespace weir::net;
using namespace weir::net::test;

namespace {

EngineOptions strategy() {
  return {.receive = GENERATE(ReceiveStrategy::kMultishot, ReceiveStrategy::kOneShot)};
}
LinkKind any_link() { return GENERATE(LinkKind::kUnix, LinkKind::kTcp); }

// The reader of a large body: what is queued first, then straight from the socket.
Task<> read_directly(Transport& transport, Reading& out) {
  co_await transport.enter_direct_mode();
  char block[8192];
  while (true) {
    while (transport.has_data()) {
      out.text.append(transport.front());
      transport.consume(transport.front().size());
    }
    const ssize_t got = transport.recv_direct(block, sizeof block);
    if (got > 0) {
      out.text.append(block, static_cast<size_t>(got));
      continue;
    }
    const ReadEvent event = co_await transport.readable(transport.reactor().now_ms() + 10'000);
    if (event == ReadEvent::kData) continue;
    out.events.push_back(event);
    co_return;
  }
}

// Goes in and out of direct mode all the time.
Task<> alternate(Transport& transport, base::Prng& random, Reading& out) {
  char block[5000];
  bool over = false;
  while (!over) {
    co_await transport.enter_direct_mode();
    while (transport.has_data()) {
      out.text.append(transport.front());
      transport.consume(transport.front().size());
    }
    for (uint64_t reads = random.below(4); reads > 0; --reads) {
      const ssize_t got = transport.recv_direct(block, 1 + random.below(sizeof block));
      if (got > 0) out.text.append(block, static_cast<size_t>(got));
      if (got == -EAGAIN) {
        // Often ends by the deadline: the poll is still under way when receiving starts again.
        static_cast<void>(co_await transport.readable(transport.reactor().now_ms() + 1));
      }
      if (got == 0) co_return;
    }
    transport.start_receiving();
    for (uint64_t reads = random.below(4); reads > 0 && !over; --reads) {
      const ReadEvent event = co_await transport.readable(transport.reactor().now_ms() + 1);
      if (event == ReadEvent::kData && transport.has_data()) {
        const size_t bytes = 1 + random.below(transport.front().size());
        out.text.append(transport.front().substr(0, bytes));
        transport.consume(bytes);
      }
      over = event == ReadEvent::kEnd || event == ReadEvent::kError;
    }
  }
}

}  // namespace

TEST_CASE("direct mode entered with data in flight loses and reorders nothing") {
  Engine engine(strategy());
  Subject subject(engine, any_link());
  subject.transport->start_receiving();
  const std::string text = pattern(1'500'000);
  size_t sent = subject.peer.send(text);
  engine.settle(1);  // some of it is queued, some is on its way
  Reading reading;
  engine.tasks.spawn(read_directly(*subject.transport, reading));
  REQUIRE(engine.run_until([&] {
    if (sent < text.size()) sent += subject.peer.send(std::string_view(text).substr(sent));
    if (sent == text.size()) subject.peer.finish();
    return engine.tasks.running() == 0;
  }));
  CHECK(reading.text == text);
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
  CHECK(engine->buffers().in_use() == 0);
}

TEST_CASE("going in and out of direct mode loses and reorders nothing") {
  const uint64_t seed = GENERATE(1u, 2u, 3u, 4u, 5u, 6u);
  Engine engine(strategy());
  Subject subject(engine, any_link());
  subject.transport->start_receiving();
  const std::string text = pattern(300'000, seed);
  base::Prng random(seed);
  Reading reading;
  engine.tasks.spawn(alternate(*subject.transport, random, reading));
  size_t sent = 0;
  base::Prng pieces(seed + 100);
  const bool ended = engine.run_until([&] {
    if (sent < text.size() && pieces.below(3) == 0) {
      const size_t piece = std::min<size_t>(text.size() - sent, 1 + pieces.below(20'000));
      sent += subject.peer.send(std::string_view(text).substr(sent, piece));
      if (sent == text.size()) subject.peer.finish();
    }
    engine->wake();
    return engine.tasks.running() == 0;
  });
  CAPTURE(seed, sent, reading.text.size());
  REQUIRE(ended);
  CHECK(reading.text == text);
}

TEST_CASE("in direct mode the ring says when there is something to read") {
  Engine engine(strategy());
  Subject subject(engine, any_link());
  Transport& transport = *subject.transport;
  transport.start_receiving();
  bool quiet = false;
  REQUIRE(engine.run(quiesce(transport, quiet)));
  CHECK(transport.direct_mode());
  char block[16];
  CHECK(transport.recv_direct(block, sizeof block) == -EAGAIN);
  Reading reading;
  engine.tasks.spawn(read_once(transport, 5000, reading));
  engine.settle();
  CHECK(reading.events.empty());
  subject.peer.send_all("now");
  REQUIRE(engine.run_until([&] { return !reading.events.empty(); }));
  CHECK(reading.events == std::vector{ReadEvent::kData});
  CHECK(transport.recv_direct(block, sizeof block) == 3);
  CHECK(engine->buffers().in_use() == 0);

  engine.tasks.spawn(read_once(transport, 5000, reading));
  engine.settle();
  subject.peer.close();
  REQUIRE(engine.run_until([&] { return reading.events.size() == 2; }));
  CHECK(transport.recv_direct(block, sizeof block) == 0);
  REQUIRE(engine.run(read_once(transport, 5000, reading)));
  CHECK(reading.events.back() == ReadEvent::kEnd);
}

TEST_CASE("a deadline and an interrupt end a wait in direct mode, which can be taken up again") {
  Engine engine(strategy());
  Subject subject(engine, any_link());
  Transport& transport = *subject.transport;
  transport.start_receiving();
  bool quiet = false;
  REQUIRE(engine.run(quiesce(transport, quiet)));
  Reading reading;
  REQUIRE(engine.run(read_once(transport, 10, reading)));
  CHECK(reading.events.back() == ReadEvent::kTimeout);
  engine.tasks.spawn(read_once(transport, 5000, reading));
  engine.settle();
  transport.interrupt();
  REQUIRE(engine.run_until([&] { return engine.tasks.running() == 0; }));
  CHECK(reading.events.back() == ReadEvent::kInterrupted);
  engine.tasks.spawn(read_once(transport, 5000, reading));  // on the poll that is still there
  subject.peer.send_all("x");
  REQUIRE(engine.run_until([&] { return engine.tasks.running() == 0; }));
  CHECK(reading.events.back() == ReadEvent::kData);
}

TEST_CASE("receiving starts again although a poll of direct mode is still under way") {
  Engine engine(strategy());
  Subject subject(engine, any_link());
  Transport& transport = *subject.transport;
  transport.start_receiving();
  bool quiet = false;
  REQUIRE(engine.run(quiesce(transport, quiet)));
  Reading reading;
  REQUIRE(engine.run(read_once(transport, 5, reading)));
  REQUIRE(reading.events == std::vector{ReadEvent::kTimeout});
  transport.start_receiving();
  CHECK_FALSE(transport.direct_mode());
  reading.events.clear();
  engine.tasks.spawn(read_to_end(transport, 5000, reading));
  engine.settle();
  subject.peer.send_all("first ");
  REQUIRE(engine.run_until([&] { return reading.text == "first "; }));
  subject.peer.send_all("second");
  subject.peer.finish();
  REQUIRE(engine.run_until([&] { return engine.tasks.running() == 0; }));
  CHECK(reading.text == "first second");
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
}

TEST_CASE("bytes that were read past a message go back to the front") {
  Engine engine(strategy());
  Subject subject(engine, any_link());
  Transport& transport = *subject.transport;
  transport.start_receiving();
  bool quiet = false;
  REQUIRE(engine.run(quiesce(transport, quiet)));
  const std::string text = pattern(50'000);
  REQUIRE(transport.unread(text));  // more buffers than a queue usually has
  transport.start_receiving();
  subject.peer.send_all(" and the rest");
  subject.peer.finish();
  Reading reading;
  REQUIRE(engine.run(read_to_end(transport, 5000, reading)));
  CHECK(reading.text == text + " and the rest");
}

TEST_CASE("unread without enough buffers queues nothing") {
  Engine engine({.buffers = 70, .ring_entries = 64});
  Subject subject(engine, LinkKind::kUnix);
  Transport& transport = *subject.transport;
  bool quiet = false;
  REQUIRE(engine.run(quiesce(transport, quiet)));
  CHECK_FALSE(transport.unread(pattern(200'000)));
  CHECK_FALSE(transport.has_data());
  CHECK(engine->buffers().in_use() == 0);
  CHECK(transport.unread(pattern(5000)));
  CHECK(subject.queued_bytes() == 5000);
}

TEST_CASE("queued views and consume_queued span buffers") {
  Engine engine(strategy());
  Subject subject(engine, LinkKind::kUnix);
  Transport& transport = *subject.transport;
  bool quiet = false;
  REQUIRE(engine.run(quiesce(transport, quiet)));
  const std::string text = pattern(10'000);
  REQUIRE(transport.unread(text));
  std::string_view two[2];
  CHECK(transport.queued(two) == 2);
  CHECK(std::string(two[0]) + std::string(two[1]) == text.substr(0, 8192));
  transport.consume_queued(5000);
  CHECK(subject.queued_bytes() == 5000);
  CHECK(transport.front() == std::string_view(text).substr(5000, 3192));
  transport.consume_queued(5000);
  CHECK_FALSE(transport.has_data());
  transport.consume_queued(0);
}

TEST_CASE("a poll without a reader tells the end watcher, and needs no buffer") {
  Engine engine(strategy());
  Subject subject(engine, any_link());
  Transport& transport = *subject.transport;
  transport.start_receiving();
  bool quiet = false;
  REQUIRE(engine.run(quiesce(transport, quiet)));
  int told = 0;
  transport.watch_end([](void* context, bool) noexcept { ++*static_cast<int*>(context); }, &told);
  transport.watch_readable();
  engine.settle();
  CHECK(told == 0);
  subject.peer.send_all("unasked");
  REQUIRE(engine.run_until([&] { return told == 1; }));
  CHECK(transport.ended());
  CHECK(engine->buffers().in_use() == 0);
}
