// The end of a TLS connection: close_notify both ways, its absence, and disposal in every state.
#include <optional>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "tls_fixture.h"

using namespace weir;
using namespace weir::net;
using namespace weir::net::test;

namespace {

EngineOptions strategy() {
  return {.receive = GENERATE(ReceiveStrategy::kMultishot, ReceiveStrategy::kOneShot)};
}
int any_version() { return GENERATE(TLS1_2_VERSION, TLS1_3_VERSION); }

struct Told {
  int ends = 0;
  int failures = 0;
};
void tell(void* context, bool failed) noexcept {
  auto& told = *static_cast<Told*>(context);
  ++(failed ? told.failures : told.ends);
}

}  // namespace

TEST_CASE("close_notify ends the stream, whatever TCP does behind it") {
  enum class After { kNothing, kFin, kGarbage };
  const After after = GENERATE(After::kNothing, After::kFin, After::kGarbage);
  const bool data = GENERATE(false, true);
  const bool direct = GENERATE(false, true);
  CAPTURE(static_cast<int>(after), data, direct);
  Engine engine(strategy());
  TlsServer server;
  Reading reading;
  Secured pair(engine, server, any_version());
  pair.open();
  if (direct) {
    bool quiet = false;
    REQUIRE(engine.run(quiesce(*pair.transport, quiet)));
  }
  if (data) pair.peer.write("last words");
  pair.peer.close_notify();
  if (after == After::kGarbage) pair.peer.out += "GET / HTTP/1.1";
  pair.peer.push();
  REQUIRE(pair.peer.out.empty());
  if (after == After::kFin) pair.peer.socket.finish();
  REQUIRE(engine.run(read_any(*pair.transport, 1000, reading)));
  CHECK(reading.text == (data ? "last words" : ""));
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
  CHECK(pair.transport->ended());
  CHECK_FALSE(pair.transport->failed());
  CHECK(server.counted().truncated == 0);
  CHECK(server.counted().bad_records == 0);
  engine.settle();
  Reading again;
  REQUIRE(engine.run(read_any(*pair.transport, 1000, again)));
  CHECK(again.events == std::vector{ReadEvent::kEnd});
}

TEST_CASE("close_notify and a reset behind it are still an end") {
  const bool direct = GENERATE(false, true);
  Engine engine(strategy());
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  pair.open();
  if (direct) {
    bool quiet = false;
    REQUIRE(engine.run(quiesce(*pair.transport, quiet)));
  }
  engine.settle();
  Told told;
  if (!direct) pair.transport->watch_end(&tell, &told);
  pair.peer.write("last words");
  pair.peer.close_notify();
  pair.peer.push();
  pair.peer.socket.reset();  // both are there when the transport looks
  REQUIRE(engine.run(read_any(*pair.transport, 1000, reading)));
  CHECK(reading.text == "last words");
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
  engine.settle();
  CHECK_FALSE(pair.transport->failed());
  CHECK(told.failures == 0);
  CHECK(server.counted().truncated == 0);
}

TEST_CASE("an end without close_notify is an error and counted") {
  const bool inside_record = GENERATE(false, true);
  const bool direct = GENERATE(false, true);
  CAPTURE(inside_record, direct);
  Engine engine(strategy());
  TlsServer server;
  Reading reading;
  Secured pair(engine, server, any_version());
  pair.open();
  Told told;
  if (direct) {
    bool quiet = false;
    REQUIRE(engine.run(quiesce(*pair.transport, quiet)));
  } else {
    pair.transport->watch_end(&tell, &told);
  }
  pair.peer.write("whole");
  if (inside_record) {
    const size_t whole = pair.peer.out.size();
    pair.peer.write("half");
    pair.peer.out.resize(whole + 10);
  }
  pair.peer.push();
  pair.peer.socket.finish();
  REQUIRE(engine.run(read_any(*pair.transport, 1000, reading)));
  CHECK(reading.text == "whole");
  CHECK(reading.events == std::vector{ReadEvent::kError});
  CHECK(pair.transport->error().code == base::Errc::kClosed);
  CHECK(server.counted().truncated == 1);
  if (!direct) {
    CHECK(told.failures == 1);
    CHECK(told.ends == 0);
  }
  Reading again;
  REQUIRE(engine.run(read_any(*pair.transport, 1000, again)));
  CHECK(again.events == std::vector{ReadEvent::kError});
  CHECK(server.counted().truncated == 1);
}

TEST_CASE("the end watcher is told once, with data still in the queue") {
  const bool late = GENERATE(false, true);
  Engine engine(strategy());
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  pair.open();
  Told told;
  if (!late) pair.transport->watch_end(&tell, &told);
  pair.peer.write("unread");
  pair.peer.close_notify();
  pair.peer.push();
  pair.peer.socket.finish();
  REQUIRE(engine.run_until([&] { return pair.transport->ended(); }));
  if (late) pair.transport->watch_end(&tell, &told);
  engine.settle();
  CHECK(told.ends == 1);
  CHECK(told.failures == 0);
  CHECK(pair.queued_bytes() == 6);
  REQUIRE(engine.run(read_all(*pair.transport, reading)));
  CHECK(reading.text == "unread");
  CHECK(told.ends == 1);
}

TEST_CASE("an idle connection: tickets and key updates are no end, a close_notify is") {
  Engine engine(strategy());
  TlsServer server;
  Secured pair(engine, server);
  pair.open();
  Told told;
  pair.transport->watch_end(&tell, &told);
  for (int i = 0; i < 3; ++i) {
    REQUIRE(SSL_key_update(pair.peer.ssl(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1);
    REQUIRE(SSL_do_handshake(pair.peer.ssl()) == 1);
    pair.peer.out += pair.peer.client.take();
    REQUIRE(pair.drive([&] { return pair.peer.out.empty(); }));
    engine.settle();
  }
  CHECK(told.ends + told.failures == 0);
  CHECK_FALSE(pair.transport->has_data());
  pair.peer.close_notify();
  REQUIRE(pair.drive([&] { return told.ends == 1; }));
  CHECK(pair.transport->ended());
}

TEST_CASE("an idle connection that has just left direct mode, with its poll still under way") {
  Engine engine(strategy());
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  pair.open();
  bool quiet = false;
  REQUIRE(engine.run(quiesce(*pair.transport, quiet)));
  REQUIRE(engine.run(read_once(*pair.transport, 2, reading)));
  REQUIRE(reading.events == std::vector{ReadEvent::kTimeout});
  pair.transport->start_receiving();
  Told told;
  pair.transport->watch_end(&tell, &told);
  REQUIRE(SSL_key_update(pair.peer.ssl(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1);
  REQUIRE(SSL_do_handshake(pair.peer.ssl()) == 1);
  pair.peer.out += pair.peer.client.take();
  REQUIRE(pair.drive([&] { return pair.peer.out.empty(); }));
  engine.settle();
  CHECK(told.ends + told.failures == 0);
  pair.peer.close_notify();
  REQUIRE(pair.drive([&] { return told.ends == 1; }));
}

TEST_CASE("dispose says close_notify, but not where the end must not pass for one") {
  const Linger linger = GENERATE(Linger::kNo, Linger::kYes, Linger::kReset);
  const bool direct = GENERATE(false, true);
  CAPTURE(static_cast<int>(linger), direct);
  Engine engine(strategy());
  TlsServer server;
  Sending sending;
  Secured pair(engine, server, any_version());
  pair.open();
  if (direct) {
    bool quiet = false;
    REQUIRE(engine.run(quiesce(*pair.transport, quiet)));
  }
  REQUIRE(engine.run(send_text(*pair.transport, "answer", 1000, sending)));
  pair.dispose(linger);
  REQUIRE(pair.drive([&] { return pair.peer.socket.over(); }));
  if (linger == Linger::kReset) {
    CHECK_FALSE(pair.peer.closed);
    CHECK(pair.peer.socket.error == ECONNRESET);
  } else {
    CHECK(pair.peer.text == "answer");
    CHECK(pair.peer.closed);
    CHECK(pair.peer.socket.ended);
  }
  pair.peer.socket.close();
  REQUIRE(engine.run_until([&] { return engine->disposing == 0; }));
  CHECK(server.counted().truncated == 0);
}

TEST_CASE("close_notify by hand comes once") {
  Engine engine(strategy());
  TlsServer server;
  Secured pair(engine, server, any_version());
  pair.open();
  Sending first, second, late;
  REQUIRE(engine.run(say_goodbye(*pair.transport, 1000, first)));
  CHECK(first.error.code == base::Errc::kOk);
  REQUIRE(engine.run(say_goodbye(*pair.transport, 1000, second)));
  CHECK(second.error.code == base::Errc::kOk);
  // Reading goes on.
  pair.peer.write("still here");
  REQUIRE(pair.drive([&] { return pair.queued_bytes() == 10; }));
  CHECK(pair.peer.closed);
  REQUIRE(engine.run(send_text(*pair.transport, "late", 1000, late)));
  CHECK(late.error.code == base::Errc::kCancelled);
  const char byte = 'x';
  CHECK(pair.transport->send_direct(&byte, 1) == -EAGAIN);
  pair.peer.socket.text.clear();
  pair.dispose(Linger::kNo);
  while (!pair.peer.socket.over()) pair.peer.socket.take();
  CHECK(pair.peer.socket.text.empty());  // no second one
}

TEST_CASE("close_notify by hand waits for a peer that reads late") {
  Engine engine;
  TlsServer server;
  Link link = make_link(LinkKind::kTcp);
  const int small = 8192;
  setsockopt(link.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  Sending sending;
  Secured pair(engine, server, std::move(link), TLS1_3_VERSION);
  pair.open();
  // send_direct until the socket is full: a part waits here.
  const std::string text = pattern(60'000);
  std::string all;
  while (!pair.transport->unsent()) {
    const ssize_t sent = pair.transport->send_direct(text.data(), text.size());
    REQUIRE(sent == static_cast<ssize_t>(text.size()));
    all += text;
  }
  engine.tasks.spawn(say_goodbye(*pair.transport, 5000, sending));
  engine.pass(20);
  CHECK_FALSE(sending.done);
  REQUIRE(pair.drive([&] { return sending.done && pair.peer.closed; }));
  CHECK(sending.error.code == base::Errc::kOk);
  CHECK((pair.peer.text == all));
  CHECK_FALSE(pair.transport->unsent());
}

TEST_CASE("without TLS there is nothing to say") {
  Engine engine;
  Subject subject(engine, LinkKind::kTcp);
  Sending sending;
  REQUIRE(engine.run(say_goodbye(*subject.transport, 1000, sending)));
  CHECK(sending.done);
  CHECK(sending.error.code == base::Errc::kOk);
}

TEST_CASE("what was cut off is not called complete") {
  const bool by_hand = GENERATE(false, true);
  const Linger linger = GENERATE(Linger::kNo, Linger::kYes);
  Engine engine;
  TlsServer server;
  Link link = make_link(LinkKind::kTcp);
  const int small = 8192;
  setsockopt(link.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  Sending sending;
  Secured pair(engine, server, std::move(link), TLS1_3_VERSION);
  pair.open();
  const std::string text = pattern(4'000'000);
  REQUIRE(engine.run(send_text(*pair.transport, text, 20, sending)));
  CHECK(sending.error.code == base::Errc::kTimedOut);
  if (by_hand) {
    Sending goodbye;
    REQUIRE(engine.run(say_goodbye(*pair.transport, 20, goodbye)));
    CHECK(goodbye.error.code == base::Errc::kCancelled);
  }
  CHECK_FALSE(pair.transport->unsent());
  pair.dispose(linger);
  REQUIRE(pair.drive([&] { return pair.peer.socket.over(); }));
  CHECK_FALSE(pair.peer.closed);
  CHECK(text.starts_with(pair.peer.text));
  CHECK(pair.peer.text.size() < text.size());
  pair.peer.socket.close();
  REQUIRE(engine.run_until([&] { return engine->disposing == 0; }));
}

TEST_CASE("kYes: a peer that still sends records gets the answer, not a reset") {
  Engine engine(strategy());
  TlsServer server;
  Sending sending;
  Secured pair(engine, server);
  pair.open();
  pair.peer.write(pattern(50'000));
  REQUIRE(pair.drive([&] { return pair.queued_bytes() >= 8192; }));
  REQUIRE(engine.run(send_text(*pair.transport, "413 too large", 1000, sending)));
  pair.dispose(Linger::kYes);
  for (int i = 0; i < 40; ++i) {
    pair.peer.write(pattern(30'000));
    pair.peer.push();
    engine.settle(4);
  }
  CHECK(engine->disposing == 1);
  CHECK(engine->buffers().in_use() == 0);
  REQUIRE(pair.drive([&] { return pair.peer.closed; }));
  CHECK(pair.peer.text == "413 too large");
  pair.peer.socket.close();
  REQUIRE(engine.run_until([&] { return engine->disposing == 0; }));
}

TEST_CASE("a secured transport goes from every state and leaves nothing") {
  enum class State {
    kSecured,       // no start_receiving() yet
    kSecuredInput,  // the same, with records behind the handshake
    kArmed,
    kQueued,
    kHalfRecord,
    kStopped,
    kStopping,
    kDirect,
    kDirectPoll,
    kDirectInput,  // a part of a record read
    kUnsent,       // ciphertext waits
    kSendTimedOut,
    kClosedByPeer,
    kTruncated,
    kBadRecord,
    kKeyUpdateDue
  };
  const size_t descriptors = open_descriptors();
  TlsServer server;
  for (int number = 0; number <= static_cast<int>(State::kKeyUpdateDue); ++number) {
    for (const Linger linger : {Linger::kNo, Linger::kReset, Linger::kYes}) {
      const auto state = static_cast<State>(number);
      const auto receive =
          number % 2 == 0 ? ReceiveStrategy::kMultishot : ReceiveStrategy::kOneShot;
      CAPTURE(number, static_cast<int>(linger));
      Engine engine({.receive = receive});
      {
        Secured pair(engine, server);
        Reading reading;
        bool quiet = false;
        char block[100];
        if (state == State::kSecuredInput) {
          pair.shake_almost();
          pair.peer.write(pattern(20'000));
          REQUIRE(pair.drive([&] { return pair.accepted && pair.peer.out.empty(); }));
        } else if (state == State::kSecured) {
          pair.shake_hands();
        } else {
          pair.open();
        }
        switch (state) {
          case State::kQueued:
            pair.peer.write("queued");
            REQUIRE(pair.drive([&] { return pair.queued_bytes() == 6; }));
            break;
          case State::kHalfRecord:
            pair.peer.write("halved");
            pair.peer.push(10);
            pair.peer.out.clear();
            engine.settle();
            break;
          case State::kStopped:
          case State::kStopping:
            pair.peer.write(pattern(300'000));
            pair.peer.push();
            pair.peer.out.clear();
            REQUIRE(engine.run_until([&] { return pair.queued_bytes() >= 16'384; }));
            if (state == State::kStopped) engine.settle();
            break;
          case State::kDirect: REQUIRE(engine.run(quiesce(*pair.transport, quiet))); break;
          case State::kDirectPoll:
            REQUIRE(engine.run(quiesce(*pair.transport, quiet)));
            REQUIRE(engine.run(read_once(*pair.transport, 2, reading)));
            break;
          case State::kDirectInput: {
            REQUIRE(engine.run(quiesce(*pair.transport, quiet)));
            pair.peer.write(pattern(30'000));
            REQUIRE(pair.drive([&] { return pair.peer.out.empty(); }));
            ssize_t got = -EAGAIN;
            while (got == -EAGAIN) got = pair.transport->recv_direct(block, sizeof block);
            REQUIRE(got == sizeof block);
            break;
          }
          case State::kUnsent: {
            const std::string text = pattern(60'000);
            while (!pair.transport->unsent()) {
              pair.transport->send_direct(text.data(), text.size());
            }
            break;
          }
          case State::kSendTimedOut: {
            Sending sending;
            REQUIRE(engine.run(send_text(*pair.transport, pattern(9'000'000), 5, sending)));
            CHECK(sending.error.code == base::Errc::kTimedOut);
            break;
          }
          case State::kClosedByPeer:
            pair.peer.close_notify();
            REQUIRE(pair.drive([&] { return pair.transport->ended(); }));
            break;
          case State::kTruncated:
            pair.peer.socket.finish();
            REQUIRE(engine.run_until([&] { return pair.transport->failed(); }));
            break;
          case State::kBadRecord:
            pair.peer.write("evil");
            pair.peer.out[8] ^= 1;
            REQUIRE(pair.drive([&] { return pair.transport->failed(); }));
            break;
          case State::kKeyUpdateDue:
            REQUIRE(SSL_key_update(pair.peer.ssl(), SSL_KEY_UPDATE_REQUESTED) == 1);
            pair.peer.write("x");
            REQUIRE(pair.drive([&] { return pair.queued_bytes() == 1; }));
            break;
          default: break;
        }
        pair.dispose(linger);
        const uint64_t start = engine->now_ms();
        if (linger == Linger::kYes) pair.peer.socket.close();
        REQUIRE(engine.run_until([&] { return engine->disposing == 0; }));
        CHECK(engine->now_ms() - start < 1000);
      }
      REQUIRE(engine->buffers().in_use() == 0);
    }
  }
  CHECK(open_descriptors() == descriptors);
}
