// Receiving through TLS: by queue and in direct mode, what waits where, and how it goes on.
#include <optional>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <weir/base/prng.h>

#include "tls_fixture.h"

using namespace weir;
using namespace weir::net;
using namespace weir::net::test;

namespace {

EngineOptions strategy() {
  return {.receive = GENERATE(ReceiveStrategy::kMultishot, ReceiveStrategy::kOneShot)};
}
int any_version() { return GENERATE(TLS1_2_VERSION, TLS1_3_VERSION); }

// Goes in and out of direct mode all the time, and reads pieces of any size.
Task<> alternate(Transport& transport, base::Prng& random, Reading& out) {
  char block[20'000];
  while (true) {
    co_await transport.enter_direct_mode();
    while (transport.has_data()) {
      out.text.append(transport.front());
      transport.consume(transport.front().size());
    }
    for (uint64_t reads = random.below(4); reads > 0; --reads) {
      const uint64_t most = random.below(3) == 0 ? sizeof block : 300;
      const ssize_t got = transport.recv_direct(block, 1 + random.below(most));
      if (got > 0) out.text.append(block, static_cast<size_t>(got));
      if (got == -EAGAIN) {
        static_cast<void>(co_await transport.readable(transport.reactor().now_ms() + 1));
      }
    }
    transport.start_receiving();
    for (uint64_t reads = random.below(4); reads > 0; --reads) {
      const ReadEvent event = co_await transport.readable(transport.reactor().now_ms() + 1);
      if (event == ReadEvent::kData && transport.has_data()) {
        const size_t bytes = 1 + random.below(transport.front().size());
        out.text.append(transport.front().substr(0, bytes));
        transport.consume(bytes);
      }
      if (event == ReadEvent::kEnd || event == ReadEvent::kError) {
        out.events.push_back(event);
        co_return;
      }
    }
  }
}

// Sends `text` in records of any size and the ciphertext in pieces of any size.
class Feeder {
 public:
  Feeder(TlsPeer& peer, std::string_view text, uint64_t seed)
      : peer_(peer), text_(text), random_(seed) {}
  void step() {
    if (!text_.empty() && peer_.out.size() < 100'000) {
      const size_t bytes = std::min<size_t>(text_.size(), 1 + random_.below(30'000));
      peer_.write(text_.substr(0, bytes));
      text_.remove_prefix(bytes);
      if (text_.empty()) peer_.close_notify();
    }
    if (random_.below(3) == 0) peer_.push(1 + random_.below(12'000));
    peer_.pull();
  }

 private:
  TlsPeer& peer_;
  std::string_view text_;
  base::Prng random_;
};

}  // namespace

TEST_CASE("messages of every size arrive by the queue") {
  const int version = any_version();
  Engine engine(strategy());
  TlsServer server;
  Reading reading;
  Secured pair(engine, server, version);
  pair.open();
  engine.tasks.spawn(read_all(*pair.transport, reading));
  std::string all;
  for (const size_t bytes : {1, 2, 100, 4000, 4095, 4096, 4097, 8192, 16383, 16384, 16385, 32768,
                             65535, 65536, 65537, 200'000}) {
    const std::string text = pattern(bytes, bytes);
    all += text;
    pair.peer.write(text);
    CHECK(pair.drive([&] { return reading.text.size() >= all.size(); }));
    REQUIRE(reading.text == all);
  }
  pair.peer.close_notify();
  REQUIRE(pair.drive([&] { return !reading.events.empty(); }));
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
  CHECK(engine->buffers().in_use() == 0);
}

TEST_CASE("messages of every size arrive in direct mode") {
  const int version = any_version();
  const size_t block = GENERATE(size_t{100}, size_t{4096}, size_t{65'536});
  CAPTURE(block);
  Engine engine;
  TlsServer server;
  Reading reading;
  Secured pair(engine, server, version);
  if (GENERATE(false, true)) {
    pair.open();
  } else {
    pair.shake_hands();
  }
  engine.tasks.spawn(read_direct(*pair.transport, block, reading));
  std::string all;
  for (const size_t bytes : {1, 100, 4096, 16384, 16385, 65536, 200'000}) {
    const std::string text = pattern(bytes, bytes);
    all += text;
    pair.peer.write(text);
    CHECK(pair.drive([&] { return reading.text.size() >= all.size(); }));
    REQUIRE(reading.text == all);
  }
  pair.peer.close_notify();
  REQUIRE(pair.drive([&] { return !reading.events.empty(); }));
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
  CHECK(engine->buffers().in_use() == 0);
}

TEST_CASE("in and out of direct mode in the middle of records loses and reorders nothing") {
  const uint64_t seed = GENERATE(1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u);
  const uint32_t buffers = GENERATE(256u, 80u);
  CAPTURE(seed, buffers);
  Engine engine(
      {.buffers = buffers,
       .receive = seed % 2 == 0 ? ReceiveStrategy::kMultishot : ReceiveStrategy::kOneShot});
  TlsServer server;
  Reading reading;
  Secured pair(engine, server, seed % 3 == 0 ? TLS1_2_VERSION : TLS1_3_VERSION);
  pair.open();
  const std::string text = pattern(300'000, seed);
  base::Prng random(seed);
  Feeder feeder(pair.peer, text, seed + 100);
  engine.tasks.spawn(alternate(*pair.transport, random, reading));
  CHECK(engine.run_until([&] {
    feeder.step();
    engine->wake();
    return engine.tasks.running() == 0;
  }));
  CHECK(reading.text.size() == text.size());
  CHECK((reading.text == text));
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
}

TEST_CASE("direct mode entered with records in the queue and on their way") {
  Engine engine(strategy());
  TlsServer server;
  Reading reading;
  Secured pair(engine, server, any_version());
  pair.open();
  const std::string text = pattern(1'000'000);
  pair.peer.write(text);
  pair.peer.close_notify();
  pair.peer.push();
  engine.settle(2);
  engine.tasks.spawn(read_direct(*pair.transport, 65'536, reading));
  CHECK(pair.drive([&] { return !reading.events.empty(); }));
  CHECK((reading.text == text));
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
}

TEST_CASE("bytes read past a message in direct mode go back, before what the records still hold") {
  Engine engine(strategy());
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  pair.shake_hands();
  const std::string text = pattern(16'000);
  pair.peer.write(text);
  pair.peer.close_notify();
  REQUIRE(pair.drive([&] { return pair.peer.out.empty(); }));
  Transport& transport = *pair.transport;
  std::string block(6000, '\0');
  ssize_t got = -EAGAIN;
  REQUIRE(engine.run_until([&] {
    if (got == -EAGAIN) got = transport.recv_direct(block.data(), block.size());
    engine->wake();
    return got != -EAGAIN;
  }));
  REQUIRE(got == 6000);
  CHECK(transport.unread(std::string_view(block).substr(5000)));
  transport.start_receiving();
  REQUIRE(engine.run(read_all(transport, reading)));
  CHECK(reading.text == text.substr(5000));
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
}

TEST_CASE("a reader that stops stops the peer, and nothing grows") {
  Engine engine({.buffers = 1024,
                 .ring_entries = 256,
                 .receive = GENERATE(ReceiveStrategy::kMultishot, ReceiveStrategy::kOneShot)});
  TlsServer server;
  Link link = make_link(LinkKind::kTcp);
  const int small = 64 * 1024;
  setsockopt(link.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  Reading reading;
  Secured pair(engine, server, std::move(link), any_version());
  pair.open();
  const std::string text = pattern(8'000'000);
  pair.peer.write(text);
  pair.peer.close_notify();
  size_t most = 0;
  for (int i = 0; i < 200; ++i) {
    pair.peer.push();
    engine.settle(2);
    most = std::max<size_t>(most, engine->buffers().in_use());
  }
  CHECK(pair.peer.out.size() > 1'000'000);  // the peer is held back
  CHECK(most <= 80);
  CHECK(most >= 4);
  const size_t waiting = pair.queued_bytes();
  engine.pass(20);
  CHECK(pair.queued_bytes() == waiting);
  engine.tasks.spawn(read_all(*pair.transport, reading));
  CHECK(pair.drive([&] {
    most = std::max<size_t>(most, engine->buffers().in_use());
    return !reading.events.empty();
  }));
  CHECK((reading.text == text));
  CHECK(most <= 80);
}

TEST_CASE("small records share a buffer") {
  Engine engine;
  TlsServer server;
  Secured pair(engine, server);
  pair.open();
  for (int i = 0; i < 200; ++i) {
    pair.peer.write("drip ");
    REQUIRE(pair.drive([&] { return pair.queued_bytes() == 5u * (static_cast<unsigned>(i) + 1); }));
  }
  CHECK(engine->buffers().in_use() <= 1);
}

TEST_CASE("a deadline and an interrupt end a wait for records") {
  const bool direct = GENERATE(false, true);
  Engine engine;
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  pair.open();
  if (direct) {
    bool quiet = false;
    REQUIRE(engine.run(quiesce(*pair.transport, quiet)));
  }
  // Half a record is not data.
  pair.peer.write(pattern(1000));
  pair.peer.push(500);
  REQUIRE(engine.run(read_once(*pair.transport, 20, reading)));
  if (direct) {
    char block[100];
    CHECK(reading.events.back() == ReadEvent::kData);
    CHECK(pair.transport->recv_direct(block, sizeof block) == -EAGAIN);
    REQUIRE(engine.run(read_once(*pair.transport, 20, reading)));
  }
  CHECK(reading.events.back() == ReadEvent::kTimeout);
  engine.tasks.spawn(read_once(*pair.transport, 5000, reading));
  engine.settle();
  pair.transport->interrupt();
  REQUIRE(engine.run_until([&] { return engine.tasks.running() == 0; }));
  CHECK(reading.events.back() == ReadEvent::kInterrupted);
  engine.tasks.spawn(read_once(*pair.transport, 5000, reading));
  pair.peer.push();
  REQUIRE(engine.run_until([&] { return engine.tasks.running() == 0; }));
  CHECK(reading.events.back() == ReadEvent::kData);
}

TEST_CASE("the peer changes its keys, and asks for ours or not") {
  const bool asks = GENERATE(false, true);
  const bool direct = GENERATE(false, true);
  CAPTURE(asks, direct);
  Engine engine(strategy());
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  pair.open();
  if (direct) {
    engine.tasks.spawn(read_direct(*pair.transport, 4000, reading));
  } else {
    engine.tasks.spawn(read_all(*pair.transport, reading));
  }
  std::string all;
  for (int i = 0; i < 5; ++i) {
    const int kind = asks ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED;
    REQUIRE(SSL_key_update(pair.peer.ssl(), kind) == 1);
    const std::string text = pattern(10'000, static_cast<uint64_t>(i));
    pair.peer.write(text);
    all += text;
    REQUIRE(pair.drive([&] { return reading.text.size() >= all.size(); }));
    Sending sending;
    pair.peer.text.clear();
    engine.tasks.spawn(send_text(*pair.transport, text, 1000, sending));
    REQUIRE(pair.drive([&] { return pair.peer.text.size() >= text.size(); }));
    CHECK(pair.peer.text == text);
  }
  CHECK(reading.text == all);
  CHECK_FALSE(pair.peer.failed);
  CHECK(server.counted().key_updates == 5);
  pair.peer.close_notify();
  REQUIRE(pair.drive([&] { return !reading.events.empty(); }));
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
}

TEST_CASE("a key update alone is no event for the reader, and no reader is needed for it") {
  Engine engine(strategy());
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  pair.open();
  REQUIRE(SSL_key_update(pair.peer.ssl(), SSL_KEY_UPDATE_REQUESTED) == 1);
  REQUIRE(SSL_do_handshake(pair.peer.ssl()) == 1);
  pair.peer.out += pair.peer.client.take();
  REQUIRE(!pair.peer.out.empty());
  REQUIRE(pair.drive([&] { return pair.peer.out.empty(); }));
  REQUIRE(engine.run(read_once(*pair.transport, 20, reading)));
  CHECK(reading.events == std::vector{ReadEvent::kTimeout});
  pair.peer.write("after");
  REQUIRE(pair.drive([&] { return pair.queued_bytes() == 5; }));
  // The answer goes out with the next data.
  const char text[] = "answer";
  CHECK(pair.transport->send_direct(text, 6) == 6);
  REQUIRE(pair.drive([&] { return pair.peer.text == "answer"; }));
  CHECK_FALSE(pair.peer.failed);
}

TEST_CASE("several key updates that ask, before we have anything to say") {
  const bool direct = GENERATE(false, true);
  const bool straight = GENERATE(false, true);
  const bool ends = GENERATE(false, true);
  CAPTURE(direct, straight, ends);
  Engine engine(strategy());
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  pair.open();
  if (direct) {
    engine.tasks.spawn(read_direct(*pair.transport, 1000, reading));
  } else {
    engine.tasks.spawn(read_all(*pair.transport, reading));
  }
  for (int i = 0; i < 4; ++i) {
    REQUIRE(SSL_key_update(pair.peer.ssl(), SSL_KEY_UPDATE_REQUESTED) == 1);
    pair.peer.write("x");
  }
  REQUIRE(pair.drive([&] { return reading.text == "xxxx"; }));
  Sending sending;
  if (ends) {
    engine.tasks.spawn(say_goodbye(*pair.transport, 1000, sending));
  } else if (straight && pair.transport->send_direct("answer", 6) == 6) {
    sending.done = true;  // nothing had to go first
  } else {
    engine.tasks.spawn(send_text(*pair.transport, "answer", 1000, sending));
  }
  REQUIRE(pair.drive([&] {
    return sending.done && (pair.peer.failed || pair.peer.closed || pair.peer.text == "answer");
  }));
  CHECK_FALSE(pair.peer.failed);
  pair.peer.close_notify();
  REQUIRE(pair.drive([&] { return !reading.events.empty(); }));
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
  pair.dispose(Linger::kNo);
  REQUIRE(pair.drive([&] { return pair.peer.socket.over(); }));
  CHECK(pair.peer.closed);
  CHECK_FALSE(pair.peer.failed);
}

TEST_CASE("too many key updates end the connection") {
  Engine engine;
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  pair.open();
  for (int i = 0; i < 40; ++i) {
    REQUIRE(SSL_key_update(pair.peer.ssl(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1);
    REQUIRE(SSL_do_handshake(pair.peer.ssl()) == 1);
    pair.peer.out += pair.peer.client.take();
  }
  engine.tasks.spawn(read_all(*pair.transport, reading));
  REQUIRE(pair.drive([&] { return !reading.events.empty(); }));
  CHECK(reading.events == std::vector{ReadEvent::kError});
  CHECK(pair.transport->error().code == base::Errc::kMalformed);
}

TEST_CASE("a record that was changed on its way") {
  const bool direct = GENERATE(false, true);
  const bool data_before = GENERATE(false, true);
  const int version = any_version();
  CAPTURE(direct, data_before, version);
  Engine engine(strategy());
  TlsServer server;
  Reading reading;
  Sending sending;
  Secured pair(engine, server, version);
  pair.open();
  if (data_before) pair.peer.write("good ");
  const size_t begin = pair.peer.out.size();
  pair.peer.write("evil");
  pair.peer.out[begin + 7] ^= 1;
  pair.peer.write(" and more");
  pair.peer.push();
  int told = 0;
  if (!direct) {
    pair.transport->watch_end(
        [](void* context, bool failed) noexcept {
          *static_cast<int*>(context) += failed ? 1 : 100;
        },
        &told);
    REQUIRE(engine.run_until([&] { return told != 0; }));
    CHECK(told == 1);
  }
  if (direct) {
    engine.tasks.spawn(read_direct(*pair.transport, 4000, reading));
  } else {
    engine.tasks.spawn(read_all(*pair.transport, reading));
  }
  REQUIRE(pair.drive([&] { return !reading.events.empty() && pair.peer.failed; }));
  CHECK(reading.text == (data_before ? "good " : ""));
  CHECK(reading.events == std::vector{ReadEvent::kError});
  CHECK(pair.transport->error().code == base::Errc::kMalformed);
  CHECK(pair.peer.alert == SSL_AD_BAD_RECORD_MAC);
  CHECK(server.counted().bad_records == 1);
  CHECK(server.counted().truncated == 0);
  CHECK(told == (direct ? 0 : 1));
  REQUIRE(engine.run(send_text(*pair.transport, "too late", 1000, sending)));
  CHECK(sending.error.code == base::Errc::kCancelled);
}

TEST_CASE("plain bytes in the middle of TLS") {
  Engine engine(strategy());
  TlsServer server;
  Reading reading;
  Secured pair(engine, server, any_version());
  pair.open();
  pair.peer.socket.send_all("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  engine.tasks.spawn(read_all(*pair.transport, reading));
  REQUIRE(pair.drive([&] { return !reading.events.empty(); }));
  CHECK(reading.events == std::vector{ReadEvent::kError});
  CHECK(server.counted().bad_records == 1);
}

TEST_CASE("renegotiation is refused") {
  Engine engine;
  TlsServer server;
  Reading reading;
  Secured pair(engine, server, TLS1_2_VERSION);
  pair.open();
  REQUIRE(SSL_renegotiate(pair.peer.ssl()) == 1);
  SSL_do_handshake(pair.peer.ssl());
  pair.peer.out += pair.peer.client.take();
  engine.tasks.spawn(read_all(*pair.transport, reading));
  REQUIRE(pair.drive([&] { return !reading.events.empty(); }));
  CHECK(reading.events == std::vector{ReadEvent::kError});
}
