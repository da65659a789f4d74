// Sending: short sends, many pieces, timeouts that start anew, and being told to give up.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <weir/base/prng.h>

#include "transport_fixture.h"

using namespace weir;
using namespace weir::net;
using namespace weir::net::test;

namespace {

LinkKind any_link() { return GENERATE(LinkKind::kUnix, LinkKind::kTcp); }

void narrow(const Subject& subject) {
  const int small = 4096;
  REQUIRE(setsockopt(subject.transport->fd(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
  REQUIRE(setsockopt(subject.peer.fd(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
}

}  // namespace

TEST_CASE("pieces of all sizes go out whole and in order, however little is taken at once") {
  Engine engine;
  Subject subject(engine, any_link());
  narrow(subject);
  base::Prng random(4);
  std::string text = pattern(100'000);
  std::vector<iovec> pieces;
  for (size_t at = 0; at < text.size();) {
    const size_t part = std::min<size_t>(
        text.size() - at, random.below(4) == 0 ? random.below(30'000) : random.below(200));
    pieces.push_back({text.data() + at, part});  // some are empty
    at += part;
    if (pieces.size() == 1000) break;
  }
  size_t whole = 0;
  for (const iovec& piece : pieces) whole += piece.iov_len;
  Sending sending;
  engine.tasks.spawn(send_pieces(*subject.transport, pieces, 10'000, sending));
  REQUIRE(engine.run_until([&] {
    subject.peer.take(1 + random.below(3000));
    engine->wake();
    return sending.done;
  }));
  CHECK(sending.error == base::Error{});
  while (subject.peer.text.size() < whole && !subject.peer.over()) subject.peer.take();
  CHECK(subject.peer.text == text.substr(0, whole));
}

TEST_CASE("nothing to send is done at once") {
  Engine engine;
  Subject subject(engine, LinkKind::kUnix);
  std::vector<iovec> pieces{{nullptr, 0}, {nullptr, 0}};
  Sending sending;
  engine.tasks.spawn(send_pieces(*subject.transport, pieces, 1000, sending));
  engine->turn(false);
  CHECK(sending.done);
  CHECK(sending.error == base::Error{});
}

TEST_CASE("a peer that takes nothing ends a send by its timeout") {
  Engine engine;
  Subject subject(engine, any_link());
  narrow(subject);
  Sending sending;
  const uint64_t start = engine->now_ms();
  REQUIRE(engine.run(send_text(*subject.transport, pattern(3'000'000), 50, sending)));
  CHECK(sending.error.code == base::Errc::kTimedOut);
  CHECK(engine->now_ms() - start >= 50);
  CHECK(engine->timers().armed() <= 1);
}

TEST_CASE("each piece that the peer takes starts the timeout anew") {
  Engine engine;
  Subject subject(engine, LinkKind::kUnix);
  narrow(subject);
  Sending sending;
  engine->turn(false);
  const uint64_t start = engine->now_ms();
  engine.tasks.spawn(send_text(*subject.transport, pattern(120'000), 120, sending));
  // A little every 30 ms: longer in all than the timeout.
  while (!sending.done && engine->now_ms() - start < 10'000) {
    engine.pass(30);
    subject.peer.take(20'000);
  }
  CHECK(sending.done);
  CHECK(sending.error == base::Error{});
  CHECK(engine->now_ms() - start > 120);
}

// The kernel wants more only when a third of the buffer is free, here of some megabytes.
TEST_CASE("a peer that takes less than what the kernel waits for has not stopped") {
  Engine engine;
  Subject subject(engine, LinkKind::kTcp);
  Sending sending;
  engine->turn(false);
  const uint64_t start = engine->now_ms();
  engine.tasks.spawn(send_text(*subject.transport, pattern(24'000'000), 160, sending));
  engine.pass(20);
  REQUIRE_FALSE(sending.done);
  for (int i = 0; i < 24; ++i) {
    subject.peer.take(40'000);
    engine.pass(20);
  }
  CHECK_FALSE(sending.done);
  CHECK(engine->now_ms() - start > 3 * 160);
  const uint64_t stop = engine->now_ms();
  REQUIRE(engine.run_until([&] { return sending.done; }));
  CHECK(sending.error.code == base::Errc::kTimedOut);
  CHECK(engine->now_ms() - stop >= 100);
}

TEST_CASE("a send and a read have their own deadlines on one timer") {
  Engine engine;
  Subject subject(engine, any_link());
  narrow(subject);
  subject.transport->start_receiving();
  Sending sending;
  Reading reading;
  engine->turn(false);
  const uint64_t start = engine->now_ms();
  engine.tasks.spawn(send_text(*subject.transport, pattern(3'000'000), 40, sending));
  engine.tasks.spawn(read_once(*subject.transport, 400, reading));
  REQUIRE(engine.run_until([&] { return sending.done; }));
  CHECK(sending.error.code == base::Errc::kTimedOut);
  CHECK(reading.events.empty());
  REQUIRE(engine.run_until([&] { return !reading.events.empty(); }));
  CHECK(reading.events == std::vector{ReadEvent::kTimeout});
  CHECK(engine->now_ms() - start >= 400);

  // The other way round: the read's comes first.
  Sending slow;
  engine.tasks.spawn(send_text(*subject.transport, pattern(3'000'000), 80, slow));
  engine.tasks.spawn(read_once(*subject.transport, 20, reading));
  REQUIRE(engine.run_until([&] { return reading.events.size() == 2; }));
  CHECK_FALSE(slow.done);
  REQUIRE(engine.run_until([&] { return slow.done; }));
  CHECK(slow.error.code == base::Errc::kTimedOut);
}

TEST_CASE("a peer that resets or has left is an error of the send") {
  Engine engine;
  Subject subject(engine, any_link());
  narrow(subject);
  Sending sending;
  engine.tasks.spawn(send_text(*subject.transport, pattern(3'000'000), 5000, sending));
  engine.settle();
  subject.peer.close();  // with bytes unread: a reset
  REQUIRE(engine.run_until([&] { return sending.done; }));
  CHECK(sending.error.code == base::Errc::kReset);
  Sending again;
  REQUIRE(engine.run(send_text(*subject.transport, "x", 5000, again)));
  CHECK(again.error.code == base::Errc::kReset);
}

TEST_CASE("abort() ends both directions") {
  Engine engine;
  Subject subject(engine, any_link());
  narrow(subject);
  subject.transport->start_receiving();
  Sending sending;
  Reading reading;
  engine.tasks.spawn(send_text(*subject.transport, pattern(3'000'000), 5000, sending));
  engine.tasks.spawn(read_once(*subject.transport, 5000, reading));
  engine.settle();
  subject.transport->abort();
  REQUIRE(engine.run_until([&] { return engine.tasks.running() == 0; }));
  CHECK(sending.error.code != base::Errc::kOk);
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
}

TEST_CASE("cancelled sends end with kCancelled, those to come at once, and the peer sees no end") {
  Engine engine;
  Subject subject(engine, LinkKind::kTcp);
  narrow(subject);
  Sending sending;
  engine.tasks.spawn(send_text(*subject.transport, pattern(3'000'000), 5000, sending));
  engine.settle();
  REQUIRE_FALSE(sending.done);
  subject.transport->cancel_sends();
  REQUIRE(engine.run_until([&] { return sending.done; }));
  CHECK(sending.error.code == base::Errc::kCancelled);
  Sending again;
  REQUIRE(engine.run(send_text(*subject.transport, "x", 5000, again)));
  CHECK(again.error.code == base::Errc::kCancelled);
  subject.peer.take();
  CHECK_FALSE(subject.peer.ended);
}

TEST_CASE("send_direct takes what fits and says when nothing does") {
  Engine engine;
  Subject subject(engine, any_link());
  narrow(subject);
  const std::string text = pattern(100'000);
  size_t sent = 0;
  while (true) {
    const ssize_t part = subject.transport->send_direct(text.data() + sent, text.size() - sent);
    if (part == -EAGAIN) break;
    REQUIRE(part > 0);
    sent += static_cast<size_t>(part);
  }
  REQUIRE(sent > 0);
  REQUIRE(sent < text.size());
  Sending rest;
  engine.tasks.spawn(send_text(*subject.transport, text.substr(sent), 5000, rest));
  REQUIRE(engine.run_until([&] {
    subject.peer.take();
    engine->wake();
    return rest.done;
  }));
  while (subject.peer.text.size() < text.size() && !subject.peer.over()) subject.peer.take();
  CHECK(subject.peer.text == text);
}
