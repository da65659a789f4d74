// The end of a transport, in every state it can be in: it goes, once, the peer sees what was asked
// for, and no buffer, timer, operation or descriptor stays behind.
#include <optional>
#include <string>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "transport_fixture.h"

using namespace weir;
using namespace weir::net;
using namespace weir::net::test;

namespace {

enum class State {
  kFresh,        // nothing armed
  kArmed,        // waiting for bytes
  kQueued,       // bytes in the queue, receive armed
  kStopped,      // queue full, receive stopped
  kStopping,     // queue full, the cancel not yet answered
  kParked,       // no buffer to be had
  kDirect,       // direct mode, nothing armed
  kDirectPoll,   // direct mode, a poll in flight
  kLeftDirect,   // receiving again, the poll of direct mode still in flight
  kQuiescing,    // on the way to direct mode
  kInFlight,     // bytes have arrived that the reactor has not seen
  kPeerEnded,    // FIN seen
  kPeerReset,    // RST seen
  kInterrupted,  // an interrupt that nobody took
};
constexpr State kStates[] = {
    State::kFresh,    State::kArmed,     State::kQueued,     State::kStopped,    State::kStopping,
    State::kParked,   State::kDirect,    State::kDirectPoll, State::kLeftDirect, State::kQuiescing,
    State::kInFlight, State::kPeerEnded, State::kPeerReset,  State::kInterrupted};

EngineOptions few_buffers(ReceiveStrategy receive) {
  return {.buffers = 8, .ring_entries = 8, .receive = receive};
}

void direct(Subject& subject) {
  bool quiet = false;
  REQUIRE(subject.engine.run(quiesce(*subject.transport, quiet)));
}

void poll_until_timeout(Subject& subject) {
  direct(subject);
  Reading reading;
  REQUIRE(subject.engine.run(read_once(*subject.transport, 2, reading)));
  REQUIRE(reading.events == std::vector{ReadEvent::kTimeout});
}

// `hogs` hold all buffers for kParked.
void bring_to(State state, Subject& subject, std::optional<Hogs>& hogs) {
  Engine& engine = subject.engine;
  Transport& transport = *subject.transport;
  if (state == State::kFresh) return;
  transport.start_receiving();
  engine.settle(2);
  switch (state) {
    case State::kQueued:
      subject.peer.send_all("queued");
      REQUIRE(subject.receive(6));
      break;
    case State::kStopped:
      subject.peer.send(pattern(60'000));
      REQUIRE(subject.receive(12'288));
      engine.settle();
      break;
    case State::kStopping:
      subject.peer.send(pattern(60'000));
      REQUIRE(subject.receive(12'288));
      break;
    case State::kParked:
      hogs.emplace(engine);
      subject.peer.send_all("nowhere to put it");
      engine.settle();
      REQUIRE(engine->buffers().starved() > 0);
      break;
    case State::kDirect: direct(subject); break;
    case State::kDirectPoll: poll_until_timeout(subject); break;
    case State::kLeftDirect:
      poll_until_timeout(subject);
      transport.start_receiving();
      break;
    case State::kQuiescing: static_cast<void>(transport.enter_direct_mode()); break;
    case State::kInFlight: subject.peer.send_all("on its way"); break;
    case State::kPeerEnded:
      subject.peer.finish();
      REQUIRE(engine.run_until([&] { return transport.ended(); }));
      break;
    case State::kPeerReset:
      subject.peer.reset();
      REQUIRE(engine.run_until([&] { return transport.failed(); }));
      break;
    case State::kInterrupted: transport.interrupt(); break;
    default: break;
  }
}

Task<> dispose_from_a_task(Subject& subject, Linger linger) {
  Transport::dispose(std::move(subject.transport), linger);
  co_return;
}

}  // namespace

TEST_CASE("a transport goes from every state, whatever the linger, and leaves nothing") {
  const size_t descriptors = open_descriptors();
  for (const ReceiveStrategy receive : {ReceiveStrategy::kMultishot, ReceiveStrategy::kOneShot}) {
    for (const State state : kStates) {
      for (const Linger linger : {Linger::kNo, Linger::kReset, Linger::kYes}) {
        CAPTURE(static_cast<int>(receive), static_cast<int>(state), static_cast<int>(linger));
        Engine engine(few_buffers(receive));
        {
          Subject subject(engine, LinkKind::kTcp);
          std::optional<Hogs> hogs;
          bring_to(state, subject, hogs);
          REQUIRE(engine.run(dispose_from_a_task(subject, linger)));
          const uint64_t start = engine->now_ms();
          // With kYes the peer is given time; here it leaves at once.
          if (linger == Linger::kYes) subject.peer.close();
          REQUIRE(engine.run_until([&] { return engine->disposing == 0; }));
          // Without a buffer the peer's end cannot be received: then the time limit ends it.
          CHECK(engine->now_ms() - start < (state == State::kParked ? 4000 : 1000));
        }
        REQUIRE(engine.run_until([&] { return engine->disposing == 0; }));
        REQUIRE(engine->buffers().in_use() == 0);
        REQUIRE(engine->ring().in_flight() <= 2);  // the wake-up read; an unanswered cancel
      }
    }
  }
  CHECK(open_descriptors() == descriptors);
}

TEST_CASE("kNo: the peer sees the end after all that was sent") {
  Engine engine;
  Subject subject(engine, LinkKind::kTcp);
  subject.transport->start_receiving();
  Sending sending;
  REQUIRE(engine.run(send_text(*subject.transport, "bye", 1000, sending)));
  Transport::dispose(std::move(subject.transport), Linger::kNo);
  REQUIRE(engine.run_until([&] { return engine->disposing == 0; }));
  while (!subject.peer.over()) subject.peer.take();
  CHECK(subject.peer.text == "bye");
  CHECK(subject.peer.ended);
}

TEST_CASE("kReset: the peer sees a reset, never an end") {
  const bool direct_mode = GENERATE(false, true);
  const bool full = GENERATE(false, true);
  Engine engine;
  Subject subject(engine, LinkKind::kTcp);
  subject.transport->start_receiving();
  if (direct_mode) direct(subject);
  if (full) {
    Sending sending;
    REQUIRE(engine.run(send_text(*subject.transport, pattern(5'000'000), 20, sending)));
    REQUIRE(sending.error.code == base::Errc::kTimedOut);
  }
  Transport::dispose(std::move(subject.transport), Linger::kReset);
  REQUIRE(engine.run_until([&] { return engine->disposing == 0; }));
  while (!subject.peer.over()) subject.peer.take();
  CHECK_FALSE(subject.peer.ended);
  CHECK(subject.peer.error == ECONNRESET);
}

TEST_CASE("kYes: a peer that still sends gets the answer, not a reset") {
  const ReceiveStrategy receive = GENERATE(ReceiveStrategy::kMultishot, ReceiveStrategy::kOneShot);
  const bool was_direct = GENERATE(false, true);
  Engine engine({.receive = receive});
  Subject subject(engine, LinkKind::kTcp);
  subject.transport->start_receiving();
  if (was_direct) poll_until_timeout(subject);
  subject.peer.send_all(pattern(10'000));
  Sending sending;
  REQUIRE(engine.run(send_text(*subject.transport, "413 too large", 1000, sending)));
  Transport::dispose(std::move(subject.transport), Linger::kYes);
  const std::string more = pattern(30'000);
  for (int i = 0; i < 40; ++i) {
    CHECK(subject.peer.send(more) > 0);
    engine.settle(4);
  }
  CHECK(engine->disposing == 1);
  CHECK(engine->buffers().in_use() == 0);
  while (!subject.peer.over()) subject.peer.take();
  CHECK(subject.peer.text == "413 too large");
  CHECK(subject.peer.ended);
  const uint64_t start = engine->now_ms();
  subject.peer.close();
  REQUIRE(engine.run_until([&] { return engine->disposing == 0; }));
  CHECK(engine->now_ms() - start < 1000);
}

TEST_CASE("kYes: a peer that never leaves is given up after a while") {
  Engine engine;
  Subject subject(engine, LinkKind::kTcp);
  subject.transport->start_receiving();
  const uint64_t start = engine->now_ms();
  Transport::dispose(std::move(subject.transport), Linger::kYes);
  REQUIRE(engine.run_until([&] {
    subject.peer.send("still here ");
    return engine->disposing == 0;
  }));
  CHECK(engine->now_ms() - start >= 1000);
  CHECK(engine->now_ms() - start < 5000);
}

TEST_CASE("many transports at once, disposed in the turn in which their peers leave") {
  const ReceiveStrategy receive = GENERATE(ReceiveStrategy::kMultishot, ReceiveStrategy::kOneShot);
  const size_t descriptors = open_descriptors();
  {
    Engine engine({.sq_entries = 8, .receive = receive});
    std::vector<std::unique_ptr<Subject>> subjects;
    for (int i = 0; i < 100; ++i) {
      subjects.push_back(std::make_unique<Subject>(engine, LinkKind::kUnix));
      subjects.back()->transport->start_receiving();
    }
    engine.settle();
    for (size_t i = 0; i < subjects.size(); ++i) {
      subjects[i]->peer.send_all("x");
      if (i % 3 == 0) subjects[i]->peer.close();
      const Linger linger = i % 2 == 0 ? Linger::kNo : Linger::kReset;
      Transport::dispose(std::move(subjects[i]->transport), linger);
    }
    REQUIRE(engine.run_until([&] { return engine->disposing == 0; }));
    CHECK(engine->buffers().in_use() == 0);
    engine.settle();
    CHECK(engine->ring().in_flight() == 1);
  }
  CHECK(open_descriptors() == descriptors);
}
