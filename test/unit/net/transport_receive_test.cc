// Receiving: data, ends, deadlines, interrupts, back-pressure, an exhausted pool.
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

// Consumes a random number of bytes at a time.
Task<> nibble(Transport& transport, base::Prng& random, Reading& out) {
  while (true) {
    const ReadEvent event = co_await transport.readable(transport.reactor().now_ms() + 10'000);
    if (event != ReadEvent::kData) {
      out.events.push_back(event);
      co_return;
    }
    const size_t bytes = 1 + random.below(transport.front().size());
    out.text.append(transport.front().substr(0, bytes));
    transport.consume(bytes);
    if (random.below(8) == 0) co_await transport.reactor().yield();
  }
}

struct Alarm : runtime::Timer {
  explicit Alarm(Transport& subject) noexcept
      : Timer([](runtime::Timer& timer) noexcept {
          static_cast<Alarm&>(timer).transport.interrupt();
        }),
        transport(subject) {}
  Transport& transport;
};

}  // namespace

TEST_CASE("what is sent arrives, whatever the pieces") {
  Engine engine(strategy());
  Subject subject(engine, any_link());
  const std::string text = pattern(700'000);
  base::Prng random(11);
  Reading reading;
  subject.transport->start_receiving();
  engine.tasks.spawn(nibble(*subject.transport, random, reading));
  size_t sent = 0;
  REQUIRE(engine.run_until([&] {
    if (sent < text.size()) {
      const size_t piece = std::min<size_t>(text.size() - sent, 1 + random.below(20'000));
      sent += subject.peer.send(std::string_view(text).substr(sent, piece));
      if (sent == text.size()) subject.peer.finish();
      engine->wake();  // the next piece does not wait for the last one
    }
    return engine.tasks.running() == 0;
  }));
  CHECK(reading.text == text);
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
  CHECK(subject.transport->ended());
  CHECK_FALSE(subject.transport->failed());
  CHECK(engine->buffers().in_use() == 0);
}

TEST_CASE("small pieces share a buffer") {
  Engine engine(strategy());
  Subject subject(engine, any_link());
  subject.transport->start_receiving();
  const std::string text = pattern(300);
  for (size_t i = 0; i < text.size(); ++i) {
    subject.peer.send_all(text.substr(i, 1));
    REQUIRE(subject.receive(i + 1));
    REQUIRE(engine->buffers().in_use() == 1);
  }
  CHECK(subject.transport->front() == text);
  subject.transport->consume(100);
  CHECK(subject.transport->front() == std::string_view(text).substr(100));
  subject.peer.send_all("more");
  REQUIRE(subject.receive(204));
  CHECK(subject.transport->front() == text.substr(100) + "more");
}

TEST_CASE("the end comes after the data, and again when asked again") {
  Engine engine(strategy());
  Subject subject(engine, any_link());
  subject.transport->start_receiving();
  subject.peer.send_all("last words");
  subject.peer.finish();
  Reading reading;
  REQUIRE(engine.run(read_to_end(*subject.transport, 5000, reading)));
  CHECK(reading.text == "last words");
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
  REQUIRE(engine.run(read_once(*subject.transport, 5000, reading)));
  CHECK(reading.events == std::vector{ReadEvent::kEnd, ReadEvent::kEnd});
}

TEST_CASE("a reset is an error that stays, with its reason") {
  Engine engine(strategy());
  Subject subject(engine, LinkKind::kTcp);
  subject.transport->start_receiving();
  engine.settle();
  subject.peer.reset();
  Reading reading;
  REQUIRE(engine.run(read_once(*subject.transport, 5000, reading)));
  REQUIRE(engine.run(read_once(*subject.transport, 5000, reading)));
  CHECK(reading.events == std::vector{ReadEvent::kError, ReadEvent::kError});
  CHECK(subject.transport->failed());
  CHECK(subject.transport->error().code == base::Errc::kReset);
}

TEST_CASE("a deadline passes, and what comes later is read all the same") {
  Engine engine(strategy());
  Subject subject(engine, any_link());
  subject.transport->start_receiving();
  Reading reading;
  const uint64_t start = engine->now_ms();
  REQUIRE(engine.run(read_once(*subject.transport, 30, reading)));
  CHECK(reading.events == std::vector{ReadEvent::kTimeout});
  CHECK(engine->now_ms() - start >= 30);
  subject.peer.send_all("late");
  REQUIRE(engine.run(read_once(*subject.transport, 5000, reading)));
  CHECK(reading.events.back() == ReadEvent::kData);
  CHECK(subject.transport->front() == "late");
}

TEST_CASE("a deadline earlier than the one before it is kept, and a later one is not cut short") {
  Engine engine(strategy());
  Subject subject(engine, LinkKind::kUnix);
  subject.transport->start_receiving();
  Reading reading;
  // The first wait leaves the timer armed for its own, far deadline.
  subject.peer.send_all("a");
  REQUIRE(engine.run(read_once(*subject.transport, 60'000, reading)));
  subject.transport->consume(1);
  uint64_t start = engine->now_ms();
  REQUIRE(engine.run(read_once(*subject.transport, 20, reading)));
  CHECK(reading.events.back() == ReadEvent::kTimeout);
  CHECK(engine->now_ms() - start >= 20);
  CHECK(engine->now_ms() - start < 5000);
  // A short one whose timer is still armed when the next, longer wait begins.
  subject.peer.send_all("b");
  REQUIRE(engine.run(read_once(*subject.transport, 15, reading)));
  CHECK(reading.events.back() == ReadEvent::kData);
  subject.transport->consume(1);
  start = engine->now_ms();
  REQUIRE(engine.run(read_once(*subject.transport, 60, reading)));
  CHECK(reading.events.back() == ReadEvent::kTimeout);
  CHECK(engine->now_ms() - start >= 60);
}

TEST_CASE("without a deadline there is no timer") {
  Engine engine(strategy());
  Subject subject(engine, LinkKind::kUnix);
  subject.transport->start_receiving();
  Reading reading;
  engine.tasks.spawn(read_once(*subject.transport, 0, reading));
  engine.settle();
  CHECK(engine->timers().armed() == 0);
  subject.peer.close();
  REQUIRE(engine.run_until([&] { return engine.tasks.running() == 0; }));
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
}

TEST_CASE("an interrupt ends a wait, or the next one, once") {
  Engine engine(strategy());
  Subject subject(engine, any_link());
  Transport& transport = *subject.transport;
  transport.start_receiving();
  Reading reading;
  engine.tasks.spawn(read_once(transport, 5000, reading));
  engine.settle();
  transport.interrupt();
  transport.interrupt();
  REQUIRE(engine.run_until([&] { return engine.tasks.running() == 0; }));
  CHECK(reading.events == std::vector{ReadEvent::kInterrupted});

  transport.interrupt();
  REQUIRE(engine.run(read_once(transport, 5000, reading)));
  CHECK(reading.events.back() == ReadEvent::kInterrupted);
  transport.interrupt();
  transport.clear_interrupt();
  subject.peer.send_all("x");
  REQUIRE(engine.run(read_once(transport, 5000, reading)));
  CHECK(reading.events.back() == ReadEvent::kData);
  CHECK(reading.events.size() == 3);
}

TEST_CASE("an interrupt in the moment of the deadline leaves no timeout behind") {
  Engine engine(strategy());
  Subject subject(engine, LinkKind::kUnix);
  Transport& transport = *subject.transport;
  transport.start_receiving();
  engine->turn(false);
  Alarm alarm(transport);
  engine->timers().arm(alarm,
                       engine->now_ms() + 20);  // fires just before the transport's own timer
  Reading reading;
  REQUIRE(engine.run(read_once(transport, 20, reading)));
  CHECK(reading.events == std::vector{ReadEvent::kInterrupted});
  const uint64_t start = engine->now_ms();
  REQUIRE(engine.run(read_once(transport, 200, reading)));
  CHECK(reading.events.back() == ReadEvent::kTimeout);
  CHECK(engine->now_ms() - start >= 200);
}

TEST_CASE("split_front and take_front keep the bytes while the queue goes on") {
  Engine engine(strategy());
  Subject subject(engine, any_link());
  Transport& transport = *subject.transport;
  transport.start_receiving();
  subject.peer.send_all("GET / HTTP/1.1\r\n\r\nbody and next");
  REQUIRE(subject.receive(31));
  const std::string_view head = transport.front().substr(0, 18);
  const runtime::BufferRef held = transport.split_front(18);
  REQUIRE(held);
  CHECK(transport.front() == "body and next");
  CHECK(engine->buffers().in_use() == 2);
  subject.peer.send_all(", and more");
  REQUIRE(subject.receive(23));
  CHECK(transport.front() == "body and next, and more");
  CHECK(head == "GET / HTTP/1.1\r\n\r\n");

  const std::string_view rest = transport.front();
  const runtime::BufferRef taken = transport.split_front(rest.size());  // nothing is left
  CHECK_FALSE(transport.has_data());
  CHECK(rest == "body and next, and more");
  subject.peer.send_all("again");
  REQUIRE(subject.receive(5));
  CHECK(transport.front() == "again");
  CHECK(rest == "body and next, and more");
}

TEST_CASE("split_front without a free buffer changes nothing") {
  // All four buffers are with the kernel, so that none can be lent.
  Engine engine({.buffers = 4, .ring_entries = 4});
  Subject subject(engine, LinkKind::kUnix);
  Transport& transport = *subject.transport;
  transport.start_receiving();
  subject.peer.send_all("abcdef");
  REQUIRE(subject.receive(6));
  std::vector<uint16_t> lent;
  while (const auto id = engine->buffers().allocate()) lent.push_back(*id);
  CHECK_FALSE(transport.split_front(3));
  CHECK(transport.front() == "abcdef");
  for (const uint16_t id : lent) engine->buffers().release(id);
}

TEST_CASE("a queue that is not consumed stops the receive, and consuming starts it again") {
  const EngineOptions options = strategy();
  Engine engine(options);
  Subject subject(engine, any_link());
  Transport& transport = *subject.transport;
  const int small = 65'536;
  REQUIRE(setsockopt(transport.fd(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
  REQUIRE(setsockopt(subject.peer.fd(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
  transport.start_receiving();
  const std::string text = pattern(4'000'000);
  size_t sent = 0;
  for (int i = 0; i < 200; ++i) {
    sent += subject.peer.send(std::string_view(text).substr(sent));
    engine.settle(2);
  }
  // A few buffers, not the megabytes: the socket's own buffers hold the rest, the sender waits. A
  // multishot receive takes all that is offered (64 at first) before the cancel reaches it.
  const uint32_t held = engine->buffers().in_use();
  CHECK(held >= 4);
  CHECK(held <= (options.receive == ReceiveStrategy::kMultishot ? 64 : 4));
  CHECK(sent < text.size());
  engine.settle(50);
  CHECK(engine->buffers().in_use() == held);

  Reading reading;
  engine.tasks.spawn(read_to_end(transport, 10'000, reading));
  REQUIRE(engine.run_until([&] {
    if (sent < text.size()) sent += subject.peer.send(std::string_view(text).substr(sent));
    if (sent == text.size()) subject.peer.finish();
    return engine.tasks.running() == 0;
  }));
  CHECK(reading.text == text);
  CHECK(engine->buffers().in_use() == 0);
}

TEST_CASE("with the pool used up a stream parks, and goes on when a buffer is free") {
  EngineOptions options = strategy();
  options.buffers = options.ring_entries = 8;
  Engine engine(options);
  Subject late(engine, any_link());
  late.transport->start_receiving();
  engine.settle();  // a receive that starts without a buffer parks at once, data or not
  Hogs hogs(engine);
  REQUIRE(engine->buffers().in_use() == 8);
  const uint64_t starved = engine->buffers().starved();
  late.peer.send_all("patience");
  REQUIRE(engine.run_until([&] {
    engine->wake();
    return engine->buffers().starved() > starved;
  }));
  engine.settle(20);
  CHECK_FALSE(late.transport->has_data());
  CHECK(engine->buffers().starved() == starved + 1);  // parked, not spinning
  hogs.let_go_of_one();
  REQUIRE(late.receive(8));
  CHECK(late.transport->front() == "patience");
}

TEST_CASE("a buffer that one parked stream cannot use wakes the next one") {
  EngineOptions options = strategy();
  options.buffers = options.ring_entries = 8;
  Engine engine(options);
  Subject full(engine, LinkKind::kUnix);
  Subject waiting(engine, LinkKind::kUnix);
  full.transport->start_receiving();
  waiting.transport->start_receiving();
  engine.settle();
  // A queue as long as it may be, and (with multishot) a receive that met ENOBUFS behind it.
  full.peer.send_all(pattern(60'000));
  REQUIRE(full.receive(8192));
  engine.settle();
  Hogs hogs(engine);
  waiting.peer.send_all("w");
  engine.settle(20);
  REQUIRE_FALSE(waiting.transport->has_data());
  full.transport->consume(1);  // frees nothing
  Subject last(engine, LinkKind::kUnix);
  last.transport->start_receiving();
  engine.settle();
  full.transport->consume(full.transport->front().size());  // the queue is still not empty
  CHECK(waiting.receive(1));
}

TEST_CASE("a stream that goes while it is parked leaves the queue") {
  EngineOptions options = strategy();
  options.buffers = options.ring_entries = 4;
  Engine engine(options);
  Hogs hogs(engine);
  Subject last(engine, LinkKind::kUnix);
  {
    Subject gone(engine, LinkKind::kUnix);
    for (Subject* subject : {&gone, &last}) {
      subject->transport->start_receiving();
      subject->peer.send_all("x");
      engine.settle();
    }
    REQUIRE(engine->buffers().starved() >= 2);
  }
  engine.settle();
  hogs.let_go_of_one();
  REQUIRE(last.receive(1));
}

TEST_CASE("the end is told to who watches, once, at once when it has come already") {
  Engine engine(strategy());
  Subject subject(engine, LinkKind::kTcp);
  Transport& transport = *subject.transport;
  transport.start_receiving();
  struct Told {
    int times = 0;
    bool failed = false;
  } told;
  const Transport::EndWatcher watcher = [](void* context, bool failed) noexcept {
    ++static_cast<Told*>(context)->times;
    static_cast<Told*>(context)->failed = failed;
  };
  transport.watch_end(watcher, &told);
  subject.peer.send_all("data is not the end");
  REQUIRE(subject.receive(19));
  CHECK(told.times == 0);
  subject.peer.finish();
  REQUIRE(engine.run_until([&] { return told.times == 1; }));
  CHECK_FALSE(told.failed);
  CHECK(transport.has_data());
  transport.watch_end(watcher, &told);
  CHECK(told.times == 2);

  Subject other(engine, LinkKind::kTcp);
  Told reset;
  other.transport->start_receiving();
  engine.settle();
  other.transport->watch_end(watcher, &reset);
  other.peer.reset();
  REQUIRE(engine.run_until([&] { return reset.times == 1; }));
  CHECK(reset.failed);

  Subject third(engine, LinkKind::kTcp);
  Told never;
  third.transport->start_receiving();
  third.transport->watch_end(watcher, &never);
  third.transport->unwatch_end();
  third.peer.close();
  REQUIRE(engine.run_until([&] { return third.transport->ended(); }));
  CHECK(never.times == 0);
}
