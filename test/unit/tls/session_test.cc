// Sessions after and around the handshake: cuts, garbage, sizes, ends, KeyUpdates, resumption.
#include <cstring>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <weir/base/hash.h>
#include <weir/base/prng.h>

#include "peers.h"

using namespace weir::net::tls;
using namespace tls_test;

namespace {

std::unique_ptr<Context> server_context(Library& library, const ServerPolicy& policy,
                                        const TicketKeyRing& tickets) {
  auto made = Context::make_server(library, policy, *World::get().certificates, tickets);
  REQUIRE(made.has_value());
  return std::move(*made);
}

std::unique_ptr<Context> client_context(Library& library, const ClientPolicy& policy) {
  auto made = Context::make_client(library, policy);
  REQUIRE(made.has_value());
  return std::move(*made);
}

struct Fixture {
  explicit Fixture(uint16_t version = kTls13, const ServerPolicy& policy = server_policy())
      : server(server_context(library, policy, ring(7))) {
    ClientPolicy client_settings = client_policy();
    client_settings.min_version = client_settings.max_version = version;
    client = client_context(library, client_settings);
  }
  Pair make(ResumptionSlot* slot = nullptr, Context* other_server = nullptr) {
    Pair pair;
    pair.server = Session::make_server(other_server == nullptr ? *server : *other_server);
    auto session = Session::make_client(*client, {.host_name = "a.example", .sessions = slot});
    REQUIRE(session.has_value());
    pair.client = std::move(*session);
    return pair;
  }
  Pair joined() {
    Pair pair = make();
    REQUIRE(pair.handshake());
    return pair;
  }

  Library library;
  std::unique_ptr<Context> server;
  std::unique_ptr<Context> client;
};

std::string random_text(size_t size, uint64_t seed) {
  weir::base::Prng random(seed);
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random.below(256));
  return text;
}

}  // namespace

TEST_CASE("any cut of the bytes gives the same handshake and data") {
  const uint16_t version = GENERATE(kTls12, kTls13);
  Fixture fixture(version);
  const size_t size = GENERATE(1, 2, 3, 5, 6, 100, 1000);
  const Cut cut = [&](size_t) { return size; };
  Pair pair = fixture.make();
  REQUIRE(pair.handshake(cut));
  const std::string text = random_text(40000, 1);
  const std::string bytes = encrypt(*pair.client, text);
  CHECK(bytes.size() > text.size());
  const Decrypted got = decrypt(*pair.server, bytes, GENERATE(1, 777, 16384, 100000), cut);
  CHECK(got.plaintext == text);
  CHECK(got.state == ReadState::kWantMore);
}

TEST_CASE("nothing behind the record that finishes the handshake is taken") {
  const uint16_t version = GENERATE(kTls12, kTls13);
  Fixture fixture(version);
  Pair pair = fixture.make();
  // A plain client that sends its request together with the Finished (TLS 1.2: as soon as it may).
  PlainClient client;
  SSL* ssl = client.connect("a.example");
  SSL_set_max_proto_version(ssl, version);
  std::string leftover;
  for (int turn = 0; turn < 10 && !pair.server->handshake_done(); ++turn) {
    const bool ready = SSL_do_handshake(ssl) == 1;
    if (ready && version == kTls13) REQUIRE(SSL_write(ssl, "early bird", 10) == 10);
    const std::string flight = client.take();
    std::string answer;
    const auto step = pair.server->handshake(flight, answer);
    client.feed(answer);
    REQUIRE(step.state != HandshakeState::kFailed);
    if (step.state == HandshakeState::kDone) {
      leftover = flight.substr(step.consumed);
    } else {
      CHECK(step.consumed == flight.size());
    }
  }
  REQUIRE(pair.server->handshake_done());
  CHECK(pair.server->missing() == 0);
  if (version == kTls12) {
    REQUIRE(SSL_do_handshake(ssl) == 1);
    REQUIRE(SSL_write(ssl, "early bird", 10) == 10);
    leftover = client.take();
  }
  REQUIRE(records(leftover).size() == 1);
  // All but the last byte: missing() says how many are to be read to the end of the record.
  std::string out(100, '\0');
  std::string to_send;
  const size_t cut = GENERATE(1, 4, 5, 9);
  auto read = pair.server->read(leftover.substr(0, cut), out, to_send);
  CHECK(read.consumed == cut);
  CHECK(read.produced == 0);
  CHECK(pair.server->missing() == (cut < 5 ? 5 - cut : leftover.size() - cut));
  CHECK(pair.server->why_not_kernel() == KernelRefusal::kInsideRecord);
  read = pair.server->read(leftover.substr(cut), out, to_send);
  CHECK(std::string_view(out).substr(0, read.produced) == "early bird");
  CHECK(pair.server->missing() == 0);
  CHECK(pair.server->why_not_kernel() == KernelRefusal::kNone);
}

TEST_CASE("large transfers both ways, by hash") {
  const uint16_t version = GENERATE(kTls12, kTls13);
  Fixture fixture(version);
  Pair pair = fixture.joined();
  for (const size_t size :
       {size_t{1}, size_t{16383}, size_t{16384}, size_t{16385}, size_t{65537}, size_t{3000001}}) {
    const std::string text = random_text(size, size);
    CHECK(weir::base::fnv1a(pair.send(*pair.client, text)) == weir::base::fnv1a(text));
    CHECK(weir::base::fnv1a(pair.send(*pair.server, text)) == weir::base::fnv1a(text));
  }
}

TEST_CASE("pieces are joined to full records") {
  Fixture fixture;
  Pair pair = fixture.joined();
  const std::string text = random_text(50000, 3);
  std::vector<std::string_view> pieces = {
      std::string_view(text).substr(0, 100),   "", std::string_view(text).substr(100, 16300),
      std::string_view(text).substr(16400, 1), "", std::string_view(text).substr(16401)};
  std::string out(Session::ciphertext_bound(text.size()), '\0');
  const WriteResult written = pair.server->write(pieces, out);
  CHECK(written.consumed == text.size());
  out.resize(written.produced);
  const auto found = records(out);
  REQUIRE(found.size() == 4);
  for (int i = 0; i < 3; ++i) CHECK(found[static_cast<size_t>(i)].size() == 16384 + 22);
  CHECK(decrypt(*pair.client, pair.to_client + out).plaintext == text);
}

TEST_CASE("a write takes what there is room for") {
  Fixture fixture(GENERATE(kTls12, kTls13));
  Pair pair = fixture.joined();
  const std::string text = random_text(100000, 4);
  const size_t room = GENERATE(129, 1000, 16384, 16512, 20000, 70000);
  std::string wire = pair.to_client;
  size_t at = 0;
  while (at < text.size()) {
    std::string out(room, '\0');
    const std::array<std::string_view, 2> pieces = {
        std::string_view(text).substr(at, 7),
        std::string_view(text).substr(std::min(at + 7, text.size()))};
    const WriteResult written = pair.server->write(pieces, out);
    REQUIRE(!written.failed);
    REQUIRE(written.consumed > 0);
    REQUIRE(written.produced <= room);
    wire.append(out, 0, written.produced);
    at += written.consumed;
  }
  CHECK(decrypt(*pair.client, wire).plaintext == text);
  std::string little(Session::kRecordOverheadMax, '\0');
  const std::array<std::string_view, 1> piece = {"x"};
  CHECK(pair.server->write(piece, little).consumed == 0);
}

TEST_CASE("garbage instead of a handshake") {
  struct Case {
    std::string bytes;
    FailureCause cause;
  };
  const Case each =
      GENERATE(Case{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", FailureCause::kPlainHttp},
               Case{"POST /x HTTP/1.1\r\n", FailureCause::kPlainHttp},
               Case{"SSH-2.0-OpenSSH\r\n", FailureCause::kNotTls},
               Case{std::string("\x80\x2e\x01\x00\x02\x00\x15", 7), FailureCause::kNotTls},
               Case{std::string(64, '\0'), FailureCause::kNotTls},
               Case{std::string("\x16\x02\x00\x00\x05hello", 10), FailureCause::kNotTls});
  Fixture fixture;
  auto server = Session::make_server(*fixture.server);
  std::string out;
  const auto step = server->handshake(each.bytes, out);
  CHECK(step.state == HandshakeState::kFailed);
  CHECK(server->failure().cause == each.cause);
  CHECK(out.empty());
  CHECK(!server->on_end());
  CHECK(server->failure().cause == each.cause);
}

TEST_CASE("random bytes behind a good start never finish a handshake") {
  Fixture fixture;
  weir::base::Prng random(99);
  for (int round = 0; round < 300; ++round) {
    Pair pair = fixture.make();
    std::string hello;
    pair.client->handshake({}, hello);
    // Flip, cut or lengthen.
    switch (random.below(3)) {
      case 0:
        hello[5 + random.below(hello.size() - 5)] ^= static_cast<char>(1 + random.below(255));
        break;
      case 1: hello.resize(1 + random.below(hello.size())); break;
      default: hello += random_text(1 + random.below(300), random.below(1u << 30)); break;
    }
    std::string answer;
    const auto step = pair.server->handshake(hello, answer);
    CHECK(step.state != HandshakeState::kDone);
    if (step.state == HandshakeState::kFailed) {
      CHECK(pair.server->failure().cause != FailureCause::kNone);
      CHECK(pair.server->failure().cause != FailureCause::kInternal);
      CHECK(!pair.server->failure_text().empty());
    }
  }
}

TEST_CASE("a ClientHello past the limit") {
  Fixture fixture;
  auto server = Session::make_server(*fixture.server);
  std::string out;
  // A handshake message that announces 100,000 bytes, in records of 4,000.
  std::string bytes;
  for (int i = 0; i < 20 && server->failure().cause == FailureCause::kNone; ++i) {
    std::string body(4000, 'a');
    if (i == 0) body.replace(0, 6, std::string("\x01\x01\x86\xa0\x03\x03", 6));
    const std::string record = std::string("\x16\x03\x01\x0f\xa0", 5) + body;
    bytes += record;
    server->handshake(record, out);
  }
  CHECK(server->failure().cause == FailureCause::kClientHelloTooLarge);
  CHECK(bytes.size() < 21000);
  CHECK(out == std::string("\x15\x03\x03\x00\x02\x02\x2f", 7));
  CHECK(server->failure().alert_sent == SSL_AD_ILLEGAL_PARAMETER);
}

TEST_CASE("tiny records count with their headers") {
  Fixture fixture;
  auto server = Session::make_server(*fixture.server);
  std::string out;
  size_t sent = 0;
  for (int i = 0; i < 10000 && server->failure().cause == FailureCause::kNone; ++i) {
    std::string record("\x16\x03\x01\x00\x01", 5);
    record += i == 0 ? '\x01' : i == 2 ? '\x30' : '\0';  // ClientHello of 12,288 bytes
    server->handshake(record, out);
    sent += record.size();
  }
  CHECK(server->failure().cause == FailureCause::kClientHelloTooLarge);
  CHECK(sent <= 16384 + 6);
}

TEST_CASE("more handshake bytes than a certificate chain can need") {
  ServerPolicy policy = server_policy();
  policy.limits.handshake_bytes_max = 1200;
  policy.client_auth = ClientAuth::kRequired;
  policy.client_cas = {World::get().root.der()};
  Fixture fixture(kTls13, policy);
  ClientPolicy client_settings = client_policy();
  client_settings.certificate = pair_of(World::get().client, World::get().intermediate);
  auto client = client_context(fixture.library, client_settings);
  Pair pair;
  pair.server = Session::make_server(*fixture.server);
  pair.client = std::move(*Session::make_client(*client, {.host_name = "a.example"}));
  pair.handshake();
  CHECK(pair.server->failure().cause == FailureCause::kHandshakeTooLarge);
}

TEST_CASE("an oversize record is refused by its header alone") {
  const uint16_t version = GENERATE(kTls12, kTls13);
  Fixture fixture(version);
  SECTION("after the handshake") {
    Pair pair = fixture.joined();
    const Decrypted got = decrypt(*pair.server, std::string_view("\x17\x03\x03\xff\xff", 5));
    CHECK(got.state == ReadState::kFailed);
    CHECK(pair.server->failure().cause == FailureCause::kRecordTooLarge);
    CHECK(pair.server->failure().alert_sent == SSL_AD_RECORD_OVERFLOW);
    CHECK(!got.to_send.empty());
  }
  SECTION("in the handshake") {
    Pair pair = fixture.make();
    std::string hello;
    std::string answer;
    pair.client->handshake({}, hello);
    pair.server->handshake(hello, answer);
    const auto step = pair.server->handshake(std::string_view("\x17\x03\x03\xff\xff", 5), answer);
    CHECK(step.state == HandshakeState::kFailed);
    CHECK(pair.server->failure().cause == FailureCause::kRecordTooLarge);
  }
}

TEST_CASE("changed ciphertext is noticed, before any of it is handed out") {
  const uint16_t version = GENERATE(kTls12, kTls13);
  Fixture fixture(version);
  Pair pair = fixture.joined();
  std::string bytes = encrypt(*pair.client, "a secret of some length");
  bytes[bytes.size() - GENERATE(1, 10, 20)] ^= 1;
  const Decrypted got = decrypt(*pair.server, bytes);
  CHECK(got.state == ReadState::kFailed);
  CHECK(got.plaintext.empty());
  INFO(pair.server->failure_text());
  CHECK(pair.server->failure().cause == FailureCause::kBadRecord);
  CHECK(pair.server->failure().alert_sent == SSL_AD_BAD_RECORD_MAC);
  const Decrypted told = decrypt(*pair.client, pair.to_client + got.to_send);
  CHECK(told.state == ReadState::kFailed);
  CHECK(pair.client->failure().cause == FailureCause::kPeerAlert);
  CHECK(pair.client->failure().alert_received == SSL_AD_BAD_RECORD_MAC);
}

TEST_CASE("ends: clean, truncated, early") {
  const uint16_t version = GENERATE(kTls12, kTls13);
  Fixture fixture(version);
  Pair pair = fixture.make();
  SECTION("clean") {
    REQUIRE(pair.handshake());
    std::string bytes = encrypt(*pair.client, "last words");
    pair.client->close(bytes);
    const size_t clean = bytes.size();
    pair.client->close(bytes);
    CHECK(bytes.size() == clean);  // once
    const Decrypted got = decrypt(*pair.server, bytes + "what follows");
    CHECK(got.plaintext == "last words");
    CHECK(got.state == ReadState::kClosed);
    CHECK(got.left == 12);
    CHECK(pair.server->close_notify_received());
    CHECK(pair.server->on_end());
    // The other direction still works.
    CHECK(pair.send(*pair.server, "answer") == "answer");
    std::string answer;
    pair.server->close(answer);
    CHECK(decrypt(*pair.client, answer).state == ReadState::kClosed);
    CHECK(pair.client->on_end());
  }
  SECTION("truncated between records and inside one") {
    REQUIRE(pair.handshake());
    std::string bytes = encrypt(*pair.client, "first") + encrypt(*pair.client, "second");
    if (GENERATE(true, false)) bytes.resize(bytes.size() - 3);
    decrypt(*pair.server, bytes);
    CHECK(!pair.server->on_end());
    CHECK(pair.server->failure().cause == FailureCause::kTruncated);
  }
  SECTION("in the handshake") {
    std::string hello;
    std::string answer;
    pair.client->handshake({}, hello);
    pair.server->handshake(hello.substr(0, 50), answer);
    CHECK(!pair.server->on_end());
    CHECK(pair.server->failure().cause == FailureCause::kTruncated);
    pair.server->close(answer);
    CHECK(answer.empty());
  }
  SECTION("close_notify together with the Finished") {
    PlainClient client;
    SSL* ssl = client.connect("a.example");
    SSL_set_max_proto_version(ssl, version);
    REQUIRE(client.handshake(*pair.server));
    SSL_shutdown(ssl);
    CHECK(decrypt(*pair.server, client.pending() + client.take()).state == ReadState::kClosed);
    CHECK(pair.server->why_not_kernel() == KernelRefusal::kCloseNotify);
  }
}

TEST_CASE("KeyUpdates of the peer, asked back or not") {
  Fixture fixture;
  Pair pair = fixture.make();
  PlainClient client;
  SSL* ssl = client.connect("a.example");
  REQUIRE(client.handshake(*pair.server));
  CHECK(pair.server->why_not_kernel() == KernelRefusal::kNone);
  const int kind = GENERATE(SSL_KEY_UPDATE_REQUESTED, SSL_KEY_UPDATE_NOT_REQUESTED);
  REQUIRE(SSL_key_update(ssl, kind) == 1);
  REQUIRE(SSL_write(ssl, "after", 5) == 5);
  const Decrypted got = decrypt(*pair.server, client.take());
  CHECK(got.plaintext == "after");
  CHECK(got.to_send.empty());
  CHECK(pair.server->key_updates_received() == 1);
  CHECK(pair.server->why_not_kernel() == KernelRefusal::kKeyUpdate);
  CHECK(!pair.server->kernel_keys());
  // Ours goes in front of our next data, under the old key.
  const std::string wire = encrypt(*pair.server, "answer");
  CHECK(records(wire).size() == (kind == SSL_KEY_UPDATE_REQUESTED ? 2 : 1));
  client.feed(wire);
  char answer[10];
  CHECK(SSL_read(ssl, answer, sizeof(answer)) == 6);
}

TEST_CASE("too many KeyUpdates end the connection") {
  Fixture fixture;
  Pair pair = fixture.make();
  PlainClient client;
  SSL* ssl = client.connect("a.example");
  REQUIRE(client.handshake(*pair.server));
  uint32_t sent = 0;
  Decrypted got;
  while (got.state != ReadState::kFailed && sent < 100) {
    REQUIRE(SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1);
    REQUIRE(SSL_do_handshake(ssl) == 1);
    ++sent;
    got = decrypt(*pair.server, client.take());
  }
  CHECK(sent == Limits().key_updates_max + 1);
  CHECK(pair.server->failure().cause == FailureCause::kTooManyMessages);
}

TEST_CASE("keys are changed after so many records; TLS 1.2 is worn out then") {
  const uint16_t version = GENERATE(kTls12, kTls13);
  ServerPolicy policy = server_policy();
  policy.limits.records_per_key = 10;
  Fixture fixture(version, policy);
  Pair pair = fixture.joined();
  std::string sent;
  std::string got;
  for (int i = 0; i < 25; ++i) {
    const std::string text = "record " + std::to_string(i);
    sent += text;
    got += pair.send(*pair.server, text);
  }
  CHECK(got == sent);
  CHECK(pair.client->key_updates_received() == (version == kTls13 ? 2 : 0));
  CHECK(pair.server->worn_out() == (version == kTls12));
  CHECK(pair.server->why_not_kernel() ==
        (version == kTls13 ? KernelRefusal::kKeyUpdate : KernelRefusal::kNone));
}

TEST_CASE("renegotiation is refused") {
  Fixture fixture(kTls12);
  Pair pair = fixture.make();
  PlainClient client;
  SSL* ssl = client.connect("a.example");
  SSL_set_max_proto_version(ssl, TLS1_2_VERSION);
  REQUIRE(client.handshake(*pair.server));
  REQUIRE(SSL_renegotiate(ssl) == 1);
  SSL_do_handshake(ssl);
  const Decrypted got = decrypt(*pair.server, client.take());
  CHECK(got.state == ReadState::kFailed);
  CHECK(pair.server->failure().cause == FailureCause::kRenegotiation);
  CHECK(pair.server->failure().alert_sent == SSL_AD_NO_RENEGOTIATION);
  CHECK(!got.to_send.empty());
}

TEST_CASE("max_fragment_length keeps records short and out of the kernel") {
  Fixture fixture(GENERATE(kTls12, kTls13));
  Pair pair = fixture.make();
  PlainClient client;
  SSL* ssl = client.connect("a.example");
  SSL_set_tlsext_max_fragment_length(ssl, TLSEXT_max_fragment_length_512);
  REQUIRE(client.handshake(*pair.server));
  CHECK(pair.server->why_not_kernel() == KernelRefusal::kFragmentLength);
  const std::string text = random_text(2000, 8);
  std::string out(Session::ciphertext_bound(text.size()) + 1000, '\0');
  const std::array<std::string_view, 1> pieces = {text};
  const WriteResult written = pair.server->write(pieces, out);
  CHECK(written.consumed == text.size());
  CHECK(records(std::string_view(out).substr(0, written.produced)).size() == 4);
}

TEST_CASE("a suite without AEAD stays out of the kernel") {
  ServerPolicy policy = server_policy();
  policy.ciphers = "ECDHE-ECDSA-AES128-SHA256";
  Fixture fixture(kTls12, policy);
  Pair pair = fixture.make();
  PlainClient client;
  SSL* ssl = client.connect("a.example");
  SSL_set_max_proto_version(ssl, TLS1_2_VERSION);
  REQUIRE(client.handshake(*pair.server));
  CHECK(pair.server->why_not_kernel() == KernelRefusal::kCipher);
  const std::string text = random_text(100000, 9);
  client.feed(encrypt(*pair.server, text));
  std::string got(text.size(), '\0');
  size_t at = 0;
  for (int n = 0; (n = SSL_read(ssl, got.data() + at, static_cast<int>(got.size() - at))) > 0;) {
    at += static_cast<size_t>(n);
  }
  CHECK(got == text);
  SSL_write(ssl, text.data(), static_cast<int>(text.size()));
  CHECK(decrypt(*pair.server, client.take()).plaintext == text);
}

TEST_CASE("a Session without kernel keys keeps no secret") {
  ServerPolicy policy = server_policy();
  policy.keep_kernel_keys = false;
  Fixture fixture(kTls13, policy);
  Pair pair = fixture.joined();
  CHECK(pair.server->why_not_kernel() == KernelRefusal::kNotAsked);
  CHECK(!pair.server->kernel_keys());
}
