// Tickets: over two cores and over machines, rotation, and what must not resume.
#include <algorithm>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "peers.h"

using namespace weir::net::tls;
using namespace tls_test;

namespace {

struct Server {
  Server(const ServerPolicy& policy, const TicketKeyRing& tickets) {
    auto made = Context::make_server(library, policy, *World::get().certificates, tickets);
    REQUIRE(made.has_value());
    context = std::move(*made);
  }
  Library library;
  std::unique_ptr<Context> context;
};

struct Client {
  explicit Client(const ClientPolicy& policy) {
    auto made = Context::make_client(library, policy);
    REQUIRE(made.has_value());
    context = std::move(*made);
    slot = std::make_unique<ResumptionSlot>(*context);
  }
  // One connection. True when it was resumed, on both sides.
  bool visit(Server& server) {
    Pair pair;
    pair.server = Session::make_server(*server.context);
    auto session =
        Session::make_client(*context, {.host_name = "a.example", .sessions = slot.get()});
    REQUIRE(session.has_value());
    pair.client = std::move(*session);
    REQUIRE(pair.handshake());
    decrypt(*pair.client, pair.to_client);  // the tickets of TLS 1.3
    pair.to_client.clear();
    CHECK(pair.send(*pair.client, "ping") == "ping");
    CHECK(pair.send(*pair.server, "pong") == "pong");
    CHECK(pair.client->facts().resumed == pair.server->facts().resumed);
    seen = pair.server->peer_certificate();
    return pair.server->facts().resumed;
  }
  Library library;
  std::unique_ptr<Context> context;
  std::unique_ptr<ResumptionSlot> slot;
  std::optional<PeerCertificate> seen;
};

ClientPolicy versioned(uint16_t version) {
  ClientPolicy policy = client_policy();
  policy.min_version = policy.max_version = version;
  return policy;
}

}  // namespace

TEST_CASE("a session resumes on another core with the same keys") {
  const uint16_t version = GENERATE(kTls12, kTls13);
  Server first(server_policy(), ring(1));
  Server second(server_policy(), ring(1));
  Server stranger(server_policy(), ring(2));
  Client client(versioned(version));
  CAPTURE(version);
  CHECK(!client.visit(first));
  CHECK(client.slot->size() == 1);
  CHECK(client.visit(second));
  CHECK(client.visit(first));
  CHECK(!client.visit(stranger));
}

TEST_CASE("keys rotate: the previous one still opens, an older one does not") {
  const uint16_t version = GENERATE(kTls12, kTls13);
  const TicketKeyRing first = ring(1);
  const TicketKeyRing second = rotated(first, 2, 1);
  const TicketKeyRing third = rotated(second, 3, 1);
  CHECK(third.size() == 2);
  Server server(server_policy(), first);
  Client client(versioned(version));
  CHECK(!client.visit(server));
  server.context->use_tickets(second);
  CHECK(client.visit(server));  // and gives out a ticket under the second key
  server.context->use_tickets(third);
  CHECK(client.visit(server));
  server.context->use_tickets(rotated(rotated(third, 4, 1), 5, 1));
  CHECK(!client.visit(server));
}

TEST_CASE("no tickets: none given out, none taken") {
  const uint16_t version = GENERATE(kTls12, kTls13);
  ServerPolicy policy = server_policy();
  TicketKeyRing tickets = ring(1);
  SECTION("no key") { tickets = {}; }
  SECTION("no lifetime") { policy.session_lifetime_s = 0; }
  Server server(policy, tickets);
  Client client(versioned(version));
  CHECK(!client.visit(server));
  CHECK(client.slot->size() == 0);
  CHECK(!client.visit(server));
}

TEST_CASE("switched off while running") {
  const uint16_t version = GENERATE(kTls12, kTls13);
  Server server(server_policy(), ring(1));
  Client client(versioned(version));
  CHECK(!client.visit(server));
  server.context->use_tickets({});
  CHECK(!client.visit(server));
  CHECK(!client.visit(server));
}

TEST_CASE("a client that does not keep sessions") {
  ClientPolicy policy = versioned(GENERATE(kTls12, kTls13));
  policy.reuse_sessions = false;
  Server server(server_policy(), ring(1));
  Client client(policy);
  CHECK(!client.visit(server));
  CHECK(!client.visit(server));
  CHECK(client.slot->size() == 0);
}

TEST_CASE("a session does not cross from one demand on clients to another") {
  const uint16_t version = GENERATE(kTls12, kTls13);
  const World& world = World::get();
  Server open(server_policy(), ring(1));
  ServerPolicy strict = server_policy();
  strict.client_auth = ClientAuth::kRequired;
  strict.client_cas = {world.root.der()};
  Server closed(strict, ring(1));
  ServerPolicy elsewhere = server_policy();
  elsewhere.session_scope = "other listener";
  Server other(elsewhere, ring(1));
  ClientPolicy policy = versioned(version);
  policy.certificate = pair_of(world.client, world.intermediate);
  Client client(policy);
  CHECK(!client.visit(open));
  CHECK(!client.visit(other));
  CHECK(!client.visit(closed));
  REQUIRE(client.seen.has_value());
  // The certificate survives the resumption.
  CHECK(client.visit(closed));
  REQUIRE(client.seen.has_value());
  CHECK(client.seen->der == world.client.der());
  // A new revocation list ends old sessions.
  strict.client_crls = {};
  Directory files;
  strict.client_crls = *load_crl_file(files.write(
      "crl", revocation_list(world.root, {}) + revocation_list(world.intermediate, {})));
  Server listed(strict, ring(1));
  CHECK(!client.visit(listed));
}

TEST_CASE("the slot keeps the newest few") {
  Server server(server_policy(), ring(1));
  Client client(versioned(kTls13));
  for (int i = 0; i < 6; ++i) client.visit(server);
  CHECK(client.slot->size() == ResumptionSlot::kSessionsMax);  // using one does not use it up
  client.slot->clear();
  CHECK(!client.visit(server));
}

TEST_CASE("a session serves connections that bring no new ones") {
  // Those whose keys go to the kernel: nobody reads their tickets.
  Server server(server_policy(), ring(1));
  Client client(versioned(kTls13));
  client.visit(server);
  for (int i = 0; i < 5; ++i) {
    Pair pair;
    pair.server = Session::make_server(*server.context);
    pair.client = std::move(*Session::make_client(
        *client.context, {.host_name = "a.example", .sessions = client.slot.get()}));
    REQUIRE(pair.handshake());
    CHECK(pair.client->facts().resumed);
    CHECK(pair.client->kernel_keys().has_value());
  }
}

TEST_CASE("a session is resumable after the keys went to the kernel") {
  const uint16_t version = GENERATE(kTls12, kTls13);
  Server server(server_policy(), ring(1));
  Client client(versioned(version));
  {
    Pair pair;
    pair.server = Session::make_server(*server.context);
    pair.client = std::move(*Session::make_client(
        *client.context, {.host_name = "a.example", .sessions = client.slot.get()}));
    REQUIRE(pair.handshake());
    decrypt(*pair.client, pair.to_client);
    REQUIRE(pair.server->kernel_keys().has_value());
    REQUIRE(pair.client->kernel_keys().has_value());
  }
  CHECK(client.visit(server));
}

TEST_CASE("ticket key files") {
  Directory files;
  std::string short_key(48, 'a');
  std::string long_key(80, 'b');
  const std::vector<std::string> paths = {files.write("a", short_key), files.write("b", long_key)};
  const auto loaded = TicketKeyRing::load(paths);
  REQUIRE(loaded.has_value());
  CHECK(loaded->size() == 2);
  CHECK(loaded->sealing().key_bytes == 16);

  SECTION("both kinds seal and open") {
    const uint16_t version = GENERATE(kTls12, kTls13);
    const auto reversed = TicketKeyRing::load(std::vector<std::string>{paths[1], paths[0]});
    Server first(server_policy(), *loaded);
    Server second(server_policy(), *reversed);
    Client client(versioned(version));
    CHECK(!client.visit(first));
    CHECK(client.visit(second));
    CHECK(client.visit(first));
  }
  SECTION("wrong size") {
    const std::string path = files.write("c", std::string(50, 'c'));
    CHECK(TicketKeyRing::load(std::vector<std::string>{path}).error() ==
          path + " has 50 bytes, a file of ticket keys has 48 or 80");
  }
  SECTION("twice the same name") {
    const std::string path = files.write("d", std::string(16, 'a') + std::string(64, 'd'));
    CHECK(TicketKeyRing::load(std::vector<std::string>{paths[0], path}).error() ==
          "the name (first 16 bytes) of the ticket key in " + path + " is that of an earlier file");
  }
  SECTION("missing") {
    CHECK(TicketKeyRing::load(std::vector<std::string>{files.path() + "/none"}).error() ==
          "cannot open " + files.path() + "/none: No such file or directory");
  }
  SECTION("too many") {
    CHECK(!TicketKeyRing::load(std::vector<std::string>(9, paths[0])).has_value());
  }
}

TEST_CASE("a ticket that was changed is no ticket, not an error") {
  const uint16_t version = GENERATE(kTls12, kTls13);
  Server server(server_policy(), ring(1));
  PlainClient client;
  SSL_CTX_set_session_cache_mode(client.context(), SSL_SESS_CACHE_CLIENT);
  SSL* ssl = client.connect("a.example");
  SSL_set_max_proto_version(ssl, version);
  auto first = Session::make_server(*server.context);
  REQUIRE(client.handshake(*first));
  char byte = 0;
  SSL_read(ssl, &byte, 1);  // takes the tickets in
  SSL_SESSION* session = SSL_get1_session(ssl);
  unsigned char* der = nullptr;
  const int size = i2d_SSL_SESSION(session, &der);
  const unsigned char* ticket = nullptr;
  size_t ticket_size = 0;
  SSL_SESSION_get0_ticket(session, &ticket, &ticket_size);
  REQUIRE(ticket_size > 60);
  auto* found = std::search(der, der + size, ticket, ticket + ticket_size);
  REQUIRE(found != der + size);
  found[GENERATE(0, 20, 50)] ^= 1;
  const unsigned char* at = der;
  SSL_SESSION* changed = d2i_SSL_SESSION(nullptr, &at, size);
  REQUIRE(changed != nullptr);
  SSL_SESSION_free(session);
  OPENSSL_free(der);
  ssl = client.connect("a.example");
  SSL_set_max_proto_version(ssl, version);
  REQUIRE(SSL_set_session(ssl, changed) == 1);
  SSL_SESSION_free(changed);
  auto second = Session::make_server(*server.context);
  REQUIRE(client.handshake(*second));
  CHECK(!second->facts().resumed);
}
