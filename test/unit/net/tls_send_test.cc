// Sending through TLS: every size, sockets that take little, what is sent straight and what waits.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <weir/base/prng.h>

#include "tls_fixture.h"

using namespace weir;
using namespace weir::net;
using namespace weir::net::test;

namespace {

int any_version() { return GENERATE(TLS1_2_VERSION, TLS1_3_VERSION); }

Link narrow_link() {
  Link link = make_link(LinkKind::kTcp);
  const int small = 8192;
  setsockopt(link.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  return link;
}

Task<> send_many(Transport& transport, std::string_view text, uint64_t seed, Sending& out) {
  base::Prng random(seed);
  while (!text.empty()) {
    std::vector<iovec> pieces(1 + random.below(40));
    for (iovec& piece : pieces) {
      const size_t bytes =
          std::min<size_t>(text.size(), random.below(random.below(5) == 0 ? 30'000 : 200));
      piece = {const_cast<char*>(text.data()), bytes};
      text.remove_prefix(bytes);
    }
    const auto sent =
        co_await transport.send(pieces.data(), static_cast<unsigned>(pieces.size()), 5000);
    if (!sent) {
      out.error = sent.error();
      break;
    }
  }
  out.done = true;
}

// As a relay does: straight, and by send() what was not taken.
Task<> relay_all(Transport& transport, std::string_view text, size_t block, Sending& out) {
  while (!text.empty()) {
    const size_t bytes = std::min(block, text.size());
    const ssize_t sent = transport.send_direct(text.data(), bytes);
    if (sent < 0 && sent != -EAGAIN) {
      out.error = base::from_errno(static_cast<int>(-sent));
      break;
    }
    const size_t taken = sent > 0 ? static_cast<size_t>(sent) : 0;
    if (taken < bytes || transport.unsent()) {
      const std::string rest(text.substr(taken, bytes - taken));
      iovec piece{const_cast<char*>(rest.data()), rest.size()};
      const auto later = co_await transport.send(&piece, 1, 5000);
      if (!later) {
        out.error = later.error();
        break;
      }
    }
    text.remove_prefix(bytes);
  }
  out.done = true;
}

}  // namespace

TEST_CASE("messages of every size go out") {
  const int version = any_version();
  Engine engine;
  TlsServer server;
  Secured pair(engine, server, version);
  pair.open();
  for (const size_t bytes :
       {size_t{0}, size_t{1}, size_t{100}, size_t{3800}, size_t{3839}, size_t{3840}, size_t{3841},
        size_t{4095}, size_t{4096}, size_t{4097}, size_t{16'383}, size_t{16'384}, size_t{16'385},
        size_t{65'535}, size_t{65'536}, size_t{65'537}, size_t{131'072}, size_t{1'048'576}}) {
    CAPTURE(bytes);
    const std::string text = pattern(bytes, bytes);
    pair.peer.text.clear();
    Sending sending;
    engine.tasks.spawn(send_text(*pair.transport, text, 2000, sending));
    REQUIRE(pair.drive([&] { return sending.done && pair.peer.text.size() >= bytes; }));
    CHECK(sending.error.code == base::Errc::kOk);
    CHECK((pair.peer.text == text));
  }
  CHECK(engine->buffers().in_use() == 0);
}

TEST_CASE("a peer that does not read for a while gets everything in the end") {
  const size_t bytes = GENERATE(size_t{60'000}, size_t{65'536}, size_t{65'537}, size_t{1'048'576},
                                size_t{3'000'000});
  const bool narrow = GENERATE(false, true);
  CAPTURE(bytes, narrow);
  Engine engine;
  TlsServer server;
  Sending sending;
  Secured pair(engine, server, narrow ? narrow_link() : make_link(LinkKind::kTcp), any_version());
  pair.open();
  const std::string text = pattern(bytes);
  engine.tasks.spawn(send_text(*pair.transport, text, 5000, sending));
  engine.pass(10);
  if (narrow && bytes > 1'000'000) CHECK_FALSE(sending.done);
  CHECK(pair.drive([&] { return sending.done && pair.peer.text.size() >= bytes; }));
  CHECK(sending.error.code == base::Errc::kOk);
  CHECK((pair.peer.text == text));
  CHECK_FALSE(pair.transport->unsent());
  CHECK(engine->buffers().in_use() == 0);
}

TEST_CASE("a small message waits in a buffer while the socket is full") {
  Engine engine;
  TlsServer server;
  Sending sending;
  Secured pair(engine, server, narrow_link(), any_version());
  pair.open();
  std::string all;
  // Small ones, one after the other, until one has to wait.
  for (int i = 0; i < 2000; ++i) {
    const std::string text = pattern(3000, static_cast<uint64_t>(i));
    sending = {};
    engine.tasks.spawn(send_text(*pair.transport, text, 5000, sending));
    engine.settle(2);
    all += text;
    if (!sending.done) break;
  }
  REQUIRE_FALSE(sending.done);
  CHECK(engine->buffers().in_use() == 1);
  REQUIRE(pair.drive([&] { return sending.done && pair.peer.text.size() >= all.size(); }));
  CHECK((pair.peer.text == all));
  CHECK(engine->buffers().in_use() == 0);
}

TEST_CASE("messages of many pieces") {
  const uint64_t seed = GENERATE(1u, 2u, 3u);
  const bool narrow = GENERATE(false, true);
  Engine engine;
  TlsServer server;
  Sending sending;
  Secured pair(engine, server, narrow ? narrow_link() : make_link(LinkKind::kTcp), any_version());
  pair.open();
  const std::string text = pattern(500'000, seed);
  engine.tasks.spawn(send_many(*pair.transport, text, seed, sending));
  CHECK(pair.drive([&] { return sending.done && pair.peer.text.size() >= text.size(); }));
  CHECK(sending.error.code == base::Errc::kOk);
  CHECK((pair.peer.text == text));
}

TEST_CASE("straight to the socket, and by send what it did not take") {
  const size_t block = GENERATE(size_t{100}, size_t{16'384}, size_t{65'536}, size_t{200'000});
  const bool narrow = GENERATE(false, true);
  CAPTURE(block, narrow);
  Engine engine;
  TlsServer server;
  Sending sending;
  Secured pair(engine, server, narrow ? narrow_link() : make_link(LinkKind::kTcp), any_version());
  pair.open();
  const std::string text = pattern(block == 100 ? 100'000 : 3'000'000);
  engine.tasks.spawn(relay_all(*pair.transport, text, block, sending));
  CHECK(pair.drive([&] { return sending.done && pair.peer.text.size() >= text.size(); }));
  CHECK(sending.error.code == base::Errc::kOk);
  CHECK((pair.peer.text == text));
  CHECK_FALSE(pair.transport->unsent());
}

TEST_CASE("what send_direct took but the socket did not goes out by a send of nothing") {
  Engine engine;
  TlsServer server;
  Sending sending;
  Secured pair(engine, server, narrow_link(), any_version());
  pair.open();
  std::string all;
  while (!pair.transport->unsent()) {
    const std::string head = pattern(100, all.size());
    const std::string body = pattern(30'000, all.size() + 1);
    iovec pieces[2] = {{const_cast<char*>(head.data()), head.size()},
                       {const_cast<char*>(body.data()), body.size()}};
    const ssize_t sent = pair.transport->send_direct(pieces, 2);
    REQUIRE(sent == 30'100);
    all += head + body;
  }
  const char byte = '!';
  CHECK(pair.transport->send_direct(&byte, 1) == -EAGAIN);
  engine.tasks.spawn(send_nothing(*pair.transport, 5000, sending));
  engine.pass(10);
  CHECK_FALSE(sending.done);
  REQUIRE(pair.drive([&] { return sending.done; }));
  CHECK(sending.error.code == base::Errc::kOk);
  CHECK_FALSE(pair.transport->unsent());
  CHECK(pair.transport->send_direct(&byte, 1) == 1);
  REQUIRE(pair.drive([&] { return pair.peer.text.size() > all.size(); }));
  CHECK((pair.peer.text == all + "!"));
}

TEST_CASE("a send that times out in the middle, and what comes after it") {
  const size_t bytes = GENERATE(size_t{3000}, size_t{5'000'000});
  const Linger linger = GENERATE(Linger::kNo, Linger::kReset, Linger::kYes);
  CAPTURE(bytes, static_cast<int>(linger));
  Engine engine;
  TlsServer server;
  Sending sending;
  Secured pair(engine, server, narrow_link(), TLS1_3_VERSION);
  pair.open();
  for (int i = 0; i < 2000 && sending.error.code == base::Errc::kOk; ++i) {
    sending = {};
    REQUIRE(engine.run(send_text(*pair.transport, pattern(bytes), 10, sending)));
  }
  CHECK(sending.error.code == base::Errc::kTimedOut);
  CHECK(engine->buffers().in_use() == 0);
  CHECK_FALSE(pair.transport->unsent());
  Sending next;
  REQUIRE(engine.run(send_text(*pair.transport, "more", 10, next)));
  CHECK(next.error.code == base::Errc::kCancelled);
  const char byte = 'x';
  CHECK(pair.transport->send_direct(&byte, 1) == -EAGAIN);
  // Reading goes on.
  pair.peer.write("still here");
  REQUIRE(pair.engine.run_until([&] {
    pair.peer.push();
    engine->wake();
    return pair.queued_bytes() == 10;
  }));
  pair.dispose(linger);
  if (linger == Linger::kYes) pair.peer.socket.close();
  REQUIRE(engine.run_until([&] { return engine->disposing == 0; }));
}

TEST_CASE("cancel_sends ends the send under way and later ones") {
  const bool small = GENERATE(false, true);
  Engine engine;
  TlsServer server;
  Sending sending;
  Secured pair(engine, server, narrow_link(), any_version());
  pair.open();
  for (int i = 0; i < 2000; ++i) {
    sending = {};
    engine.tasks.spawn(send_text(*pair.transport, pattern(small ? 2000 : 500'000), 5000, sending));
    engine.settle(3);
    if (!sending.done) break;
  }
  REQUIRE_FALSE(sending.done);
  pair.transport->cancel_sends();
  REQUIRE(engine.run_until([&] { return sending.done; }));
  CHECK(sending.error.code == base::Errc::kCancelled);
  Sending next;
  REQUIRE(engine.run(send_text(*pair.transport, "more", 1000, next)));
  CHECK(next.error.code == base::Errc::kCancelled);
  pair.dispose(Linger::kNo);
  REQUIRE(pair.drive([&] { return pair.peer.socket.over(); }));
  CHECK_FALSE(pair.peer.closed);
}

TEST_CASE("the peer is gone while we send") {
  const bool straight = GENERATE(false, true);
  const bool reset = GENERATE(false, true);
  CAPTURE(straight, reset);
  Engine engine;
  TlsServer server;
  Reading reading;
  Sending sending;
  Secured pair(engine, server);
  pair.open();
  const std::string text = pattern(2'000'000);
  if (straight) {
    engine.tasks.spawn(relay_all(*pair.transport, text, 65'536, sending));
  } else {
    engine.tasks.spawn(send_text(*pair.transport, text, 5000, sending));
  }
  engine.settle(2);
  if (reset) {
    pair.peer.socket.reset();
  } else {
    pair.peer.socket.close();
  }
  REQUIRE(engine.run_until([&] { return sending.done; }));
  if (sending.error.code == base::Errc::kOk) {
    // All of it was in the socket before the peer went.
    const std::string more = pattern(9'000'000);
    sending = {};
    REQUIRE(engine.run(send_text(*pair.transport, more, 5000, sending)));
  }
  CHECK(sending.error.code != base::Errc::kOk);
  REQUIRE(engine.run(read_all(*pair.transport, reading)));
  CHECK(reading.events == std::vector{ReadEvent::kError});
  pair.dispose(Linger::kYes);
  REQUIRE(engine.run_until([&] { return engine->disposing == 0; }));
}

TEST_CASE("both directions at once") {
  const bool narrow = GENERATE(false, true);
  Engine engine;
  TlsServer server;
  Reading reading;
  Sending sending;
  Secured pair(engine, server, narrow ? narrow_link() : make_link(LinkKind::kTcp), any_version());
  pair.open();
  const std::string down = pattern(2'000'000, 1);
  const std::string up = pattern(1'000'000, 2);
  engine.tasks.spawn(read_all(*pair.transport, reading));
  engine.tasks.spawn(relay_all(*pair.transport, down, 65'536, sending));
  pair.peer.write(up);
  CHECK(pair.drive(
      [&] { return pair.peer.text.size() >= down.size() && reading.text.size() >= up.size(); }));
  CHECK((pair.peer.text == down));
  CHECK((reading.text == up));
  pair.peer.close_notify();
  REQUIRE(pair.drive([&] { return engine.tasks.running() == 0; }));
}
