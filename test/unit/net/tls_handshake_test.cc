// TLS handshakes over a transport: every way they come and every way they end.
#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "tls_fixture.h"

using namespace weir;
using namespace weir::net;
using namespace weir::net::test;

namespace {

int any_version() { return GENERATE(TLS1_2_VERSION, TLS1_3_VERSION); }

size_t failures(const tls::Counters::Side& side) {
  size_t sum = 0;
  for (const uint64_t count : side.failed) sum += count;
  return sum;
}

// The client's first flight.
void hello(TlsPeer& peer) {
  peer.pull();
  REQUIRE(!peer.out.empty());
}

Task<> connect_once(Transport& transport, tls::Engine& engine, std::shared_ptr<TlsTarget> target,
                    HandshakeOutcome& out, bool& done) {
  out = co_await connect_tls(transport, engine, std::move(target),
                             transport.reactor().now_ms() + 5000);
  done = true;
}

struct TlsClient {
  explicit TlsClient(const tls::ClientPolicy& policy = tls_test::client_policy()) {
    settings = std::make_shared<tls::ClientContext>();
    auto made = tls::Context::make_client(engine.library, policy);
    REQUIRE(made.has_value());
    settings->context = std::move(*made);
  }
  [[nodiscard]] std::shared_ptr<TlsTarget> target(const std::string& name) const {
    return std::make_shared<TlsTarget>(settings, name);
  }
  tls::Engine engine;
  std::shared_ptr<tls::ClientContext> settings;
};

// Two transports on one reactor.
struct Both {
  Both(Engine& owner, TlsServer& owner_server, TlsClient& owner_client)
      : engine(owner), server(owner_server), client(owner_client) {
    Link link = make_link(LinkKind::kTcp);
    const int fd = dup(link.peer.fd());
    REQUIRE(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    link.peer.close();
    near = std::make_unique<Transport>(*engine, link.fd);
    far = std::make_unique<Transport>(*engine, fd);
  }
  ~Both() {
    Transport::dispose(std::move(near), Linger::kNo);
    Transport::dispose(std::move(far), Linger::kNo);
    static_cast<void>(engine.run_until([&] { return engine->disposing == 0; }));
  }
  void shake_hands(const std::shared_ptr<TlsTarget>& target) {
    engine.tasks.spawn(accept_once(*near, server, near_outcome, near_done));
    engine.tasks.spawn(connect_once(*far, client.engine, target, far_outcome, far_done));
    REQUIRE(engine.run_until([&] { return near_done && far_done; }));
  }
  Engine& engine;
  TlsServer& server;
  TlsClient& client;
  std::unique_ptr<Transport> near, far;  // server's, client's
  HandshakeOutcome near_outcome, far_outcome;
  bool near_done = false, far_done = false;
};

}  // namespace

TEST_CASE("a handshake leaves a transport that speaks plaintext upwards") {
  const int version = any_version();
  Engine engine({.receive = GENERATE(ReceiveStrategy::kMultishot, ReceiveStrategy::kOneShot)});
  TlsServer server;
  {
    Secured pair(engine, server, version);
    pair.open();
    const TlsFacts facts = pair.transport->tls();
    CHECK(facts.version == static_cast<uint16_t>(version));
    CHECK(facts.cipher == SSL_CIPHER_standard_name(SSL_get_current_cipher(pair.peer.ssl())));
    CHECK(facts.records == tls::RecordPath::kSwitchedOff);
    CHECK_FALSE(facts.resumed);
    CHECK(server.counted().full == 1);
    CHECK(server.counted().records[static_cast<size_t>(tls::RecordPath::kSwitchedOff)] == 1);
    pair.peer.write("question");
    Reading reading;
    engine.tasks.spawn(read_all(*pair.transport, reading));
    REQUIRE(pair.drive([&] { return reading.text == "question"; }));
    Sending sending;
    engine.tasks.spawn(send_text(*pair.transport, "answer", 1000, sending));
    REQUIRE(pair.drive([&] { return pair.peer.text == "answer"; }));
    CHECK(sending.done);
    pair.peer.close_notify();
    REQUIRE(pair.drive([&] { return !reading.events.empty(); }));
    CHECK(reading.events == std::vector{ReadEvent::kEnd});
  }
  CHECK(engine->buffers().in_use() == 0);
  CHECK(failures(server.counted()) == 0);
  CHECK(server.counted().truncated == 0);
}

TEST_CASE("request bytes in the segment of the Finished are the first input") {
  const size_t whole_records = GENERATE(size_t{1}, size_t{3});
  const bool half_more = GENERATE(false, true);
  const size_t record_bytes = GENERATE(size_t{10}, size_t{16384});
  const bool direct = GENERATE(false, true);
  CAPTURE(whole_records, half_more, record_bytes, direct);
  Engine engine;
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  pair.shake_almost();
  std::string text;
  for (size_t i = 0; i < whole_records; ++i) {
    const std::string part = pattern(record_bytes, i);
    pair.peer.write(part);
    text += part;
  }
  size_t held_back = 0;
  if (half_more) {
    const size_t before = pair.peer.out.size();
    const std::string part = pattern(record_bytes, 9);
    pair.peer.write(part);
    text += part;
    held_back = (pair.peer.out.size() - before) / 2;
  }
  const size_t first = pair.peer.out.size() - held_back;
  REQUIRE(pair.peer.push(first) == first);
  REQUIRE(engine.run_until([&] { return pair.accepted; }));
  REQUIRE(pair.outcome.end == HandshakeEnd::kDone);
  if (direct) {
    engine.tasks.spawn(read_direct(*pair.transport, 5000, reading));
  } else {
    pair.transport->start_receiving();
    engine.tasks.spawn(read_all(*pair.transport, reading));
  }
  const size_t now = record_bytes * whole_records;
  CHECK(pair.engine.run_until([&] { return reading.text.size() >= now; }));
  CHECK(reading.text == text.substr(0, now));
  CHECK(pair.drive([&] { return reading.text.size() >= text.size(); }));
  CHECK(reading.text == text);
  pair.peer.close_notify();
  REQUIRE(pair.drive([&] { return !reading.events.empty(); }));
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
}

TEST_CASE("the end of the stream right behind the handshake is noticed") {
  const bool notify = GENERATE(false, true);
  const bool request = GENERATE(false, true);
  Engine engine;
  TlsServer server;
  Reading reading;
  Secured pair(engine, server);
  pair.shake_almost();
  if (request) pair.peer.write("GET");
  if (notify) pair.peer.close_notify();
  pair.peer.push();
  REQUIRE(pair.peer.out.empty());
  pair.peer.socket.finish();
  REQUIRE(engine.run_until([&] { return pair.accepted; }));
  REQUIRE(pair.outcome.end == HandshakeEnd::kDone);
  pair.transport->start_receiving();
  REQUIRE(engine.run(read_all(*pair.transport, reading)));
  CHECK(reading.text == (request ? "GET" : ""));
  CHECK(reading.events == std::vector{notify ? ReadEvent::kEnd : ReadEvent::kError});
  CHECK(server.counted().truncated == (notify ? 0 : 1));
}

TEST_CASE("a handshake and a request byte by byte") {
  const int version = any_version();
  Engine engine;
  TlsServer server;
  Reading reading;
  Secured pair(engine, server, version);
  pair.begin();
  const auto drip = [&] {
    pair.peer.push(1);
    pair.peer.pull();
    engine->wake();
  };
  REQUIRE(engine.run_until([&] {
    drip();
    return pair.accepted && pair.peer.done && pair.peer.out.empty();
  }));
  REQUIRE(pair.outcome.end == HandshakeEnd::kDone);
  pair.transport->start_receiving();
  engine.tasks.spawn(read_all(*pair.transport, reading));
  pair.peer.write("slowly");
  pair.peer.write(" but surely");
  pair.peer.close_notify();
  REQUIRE(engine.run_until([&] {
    drip();
    return !reading.events.empty();
  }));
  CHECK(reading.text == "slowly but surely");
  CHECK(reading.events == std::vector{ReadEvent::kEnd});
}

TEST_CASE("a silent peer, or one that stops, runs into the time limit") {
  const bool half_hello = GENERATE(false, true);
  Engine engine;
  TlsServer server(tls_test::server_policy(), 50);
  Secured pair(engine, server);
  pair.begin();
  hello(pair.peer);
  if (half_hello) pair.peer.push(pair.peer.out.size() / 2);
  const uint64_t start = engine->now_ms();
  REQUIRE(engine.run_until([&] { return pair.accepted; }));
  CHECK(pair.outcome.end == HandshakeEnd::kTimedOut);
  CHECK(engine->now_ms() - start >= 40);
  CHECK(server.counted().timeouts == 1);
  CHECK_FALSE(pair.transport->secured());
  pair.dispose(GENERATE(Linger::kNo, Linger::kReset));
  CHECK(engine.run_until([&] { return engine->disposing == 0; }));
}

TEST_CASE("a peer that drips bytes for ever runs into the same limit") {
  Engine engine;
  TlsServer server(tls_test::server_policy(), 100);
  Secured pair(engine, server);
  pair.begin();
  hello(pair.peer);
  const uint64_t start = engine->now_ms();
  uint64_t last = start;
  REQUIRE(engine.run_until([&] {
    if (engine->now_ms() >= last + 5 && pair.peer.out.size() > 1) {
      last = engine->now_ms();
      pair.peer.push(1);
    }
    engine->wake();
    return pair.accepted;
  }));
  CHECK(pair.outcome.end == HandshakeEnd::kTimedOut);
  CHECK(engine->now_ms() - start < 2000);
}

TEST_CASE("an interrupt ends a handshake") {
  const bool before = GENERATE(false, true);
  Engine engine;
  TlsServer server;
  Secured pair(engine, server);
  if (before) pair.transport->interrupt();
  pair.begin();
  engine.settle();
  if (!before) {
    REQUIRE_FALSE(pair.accepted);
    pair.transport->interrupt();
  }
  REQUIRE(engine.run_until([&] { return pair.accepted; }));
  CHECK(pair.outcome.end == HandshakeEnd::kInterrupted);
  CHECK(server.counted().timeouts + server.counted().gone + failures(server.counted()) == 0);
}

TEST_CASE("a peer that leaves during the handshake is counted as gone") {
  enum class Leave { kAtOnce, kInsideHello, kAfterHello, kReset };
  const Leave leave =
      GENERATE(Leave::kAtOnce, Leave::kInsideHello, Leave::kAfterHello, Leave::kReset);
  CAPTURE(static_cast<int>(leave));
  Engine engine;
  TlsServer server;
  Secured pair(engine, server);
  pair.begin();
  hello(pair.peer);
  if (leave == Leave::kInsideHello || leave == Leave::kReset) {
    pair.peer.push(pair.peer.out.size() / 2);
    engine.settle();
  }
  if (leave == Leave::kAfterHello) pair.peer.push();
  if (leave == Leave::kReset) {
    pair.peer.socket.reset();
  } else {
    pair.peer.socket.finish();
  }
  REQUIRE(engine.run_until([&] { return pair.accepted; }));
  CHECK(pair.outcome.end == HandshakeEnd::kGone);
  CHECK(server.counted().gone == 1);
  CHECK(failures(server.counted()) == 0);
}

TEST_CASE("what is no TLS is refused with its cause") {
  struct Case {
    std::string bytes;
    tls::FailureCause cause;
  };
  const Case bad =
      GENERATE(Case{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", tls::FailureCause::kPlainHttp},
               Case{"POST /x HTTP/1.1\r\n", tls::FailureCause::kPlainHttp},
               Case{"SSH-2.0-OpenSSH_9.2\r\n", tls::FailureCause::kNotTls},
               Case{std::string(50'000, '\0'), tls::FailureCause::kNotTls},
               Case{std::string("\x16\x03\x01\xff\xff", 5) + std::string(70'000, 'x'),
                    tls::FailureCause::kClientHelloTooLarge});
  Engine engine;
  TlsServer server;
  Secured pair(engine, server);
  pair.begin();
  pair.peer.socket.send(bad.bytes);
  REQUIRE(engine.run_until([&] { return pair.accepted; }));
  CHECK(pair.outcome.end == HandshakeEnd::kFailed);
  CHECK(tls::to_string(pair.outcome.cause) == tls::to_string(bad.cause));
  CHECK(!pair.outcome.text.empty());
  CHECK(server.counted().failed[static_cast<size_t>(bad.cause)] == 1);
  CHECK_FALSE(pair.transport->secured());
  // Whoever serves the connection may answer in plain text.
  const std::string answer = "HTTP/1.1 400 Bad Request\r\n\r\n";
  CHECK(pair.transport->send_direct(answer.data(), answer.size()) ==
        static_cast<ssize_t>(answer.size()));
  pair.dispose(Linger::kYes);
  REQUIRE(engine.run_until([&] {
    pair.peer.socket.take();
    engine->wake();
    return pair.peer.socket.over();
  }));
  if (bad.cause == tls::FailureCause::kPlainHttp) CHECK(pair.peer.socket.text == answer);
  CHECK(pair.peer.socket.ended);
}

TEST_CASE("a refused client is told why by an alert") {
  tls::ServerPolicy policy = tls_test::server_policy();
  policy.min_version = tls::kTls13;
  Engine engine;
  TlsServer server(policy);
  Secured pair(engine, server, TLS1_2_VERSION);
  pair.begin();
  REQUIRE(pair.drive([&] { return pair.accepted && pair.peer.failed; }));
  CHECK(pair.outcome.end == HandshakeEnd::kFailed);
  CHECK(tls::to_string(pair.outcome.cause) == tls::to_string(tls::FailureCause::kVersion));
  CHECK(pair.peer.alert == SSL_AD_PROTOCOL_VERSION);
}

TEST_CASE("client and server on one reactor, the second time by resumption") {
  Engine engine;
  TlsServer server;
  TlsClient client;
  const auto target = client.target("a.example");
  for (const bool resumed : {false, true}) {
    Both both(engine, server, client);
    both.shake_hands(target);
    REQUIRE(both.near_outcome.end == HandshakeEnd::kDone);
    CHECK(both.far_outcome.text.empty());
    REQUIRE(both.far_outcome.end == HandshakeEnd::kDone);
    CHECK(both.near->tls().resumed == resumed);
    CHECK(both.far->tls().resumed == resumed);
    both.near->start_receiving();
    both.far->start_receiving();
    Reading near, far;
    Sending near_sent, far_sent;
    const std::string up = pattern(150'000, 1);
    const std::string down = pattern(300'000, 2);
    engine.tasks.spawn(read_all(*both.near, near));
    engine.tasks.spawn(read_all(*both.far, far));
    engine.tasks.spawn(send_text(*both.far, up, 1000, far_sent));
    engine.tasks.spawn(send_text(*both.near, down, 1000, near_sent));
    CHECK(engine.run_until(
        [&] { return near.text.size() >= up.size() && far.text.size() >= down.size(); }));
    CHECK(near.text == up);
    CHECK(far.text == down);
    Sending goodbye, goodbye_far;
    engine.tasks.spawn(say_goodbye(*both.near, 1000, goodbye));
    engine.tasks.spawn(say_goodbye(*both.far, 1000, goodbye_far));
    CHECK(engine.run_until([&] { return engine.tasks.running() == 0; }));
    CHECK(near.events == std::vector{ReadEvent::kEnd});
    CHECK(far.events == std::vector{ReadEvent::kEnd});
  }
  CHECK(client.engine.counters.origins.full == 1);
  CHECK(client.engine.counters.origins.resumed == 1);
  CHECK(client.engine.counters.clients.full == 0);
  CHECK(server.counted().resumed == 1);
}

TEST_CASE("a server with the wrong name is refused, and both know why") {
  Engine engine;
  TlsServer server;
  TlsClient client;
  Both both(engine, server, client);
  both.shake_hands(client.target("other.example"));
  CHECK(both.far_outcome.end == HandshakeEnd::kFailed);
  CHECK(tls::to_string(both.far_outcome.cause) ==
        tls::to_string(tls::FailureCause::kCertificateRejected));
  CHECK(!both.far_outcome.text.empty());
  CHECK(both.near_outcome.end == HandshakeEnd::kFailed);
  CHECK(tls::to_string(both.near_outcome.cause) == tls::to_string(tls::FailureCause::kPeerAlert));
}

TEST_CASE("records only in the kernel: without it a connection is refused, not served") {
  Engine engine;
  TlsServer server;
  server.settings->userspace_allowed = false;
  Secured pair(engine, server);
  pair.begin();
  REQUIRE(pair.drive([&] { return pair.accepted; }));
  CHECK(pair.outcome.end == HandshakeEnd::kFailed);
  CHECK_FALSE(pair.transport->secured());
  CHECK(pair.outcome.text.find("kernel TLS is required") != std::string::npos);
  REQUIRE(pair.drive([&] { return pair.peer.closed || pair.peer.failed; }));
}
