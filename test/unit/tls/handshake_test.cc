// Handshakes: versions, suites, names, client certificates, and what must fail, with its cause.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "peers.h"

using namespace weir::net::tls;
using namespace tls_test;

namespace {

struct Setup {
  ServerPolicy server = server_policy();
  ClientPolicy client = client_policy();
  TicketKeyRing tickets = ring(7);
  const CertificateSet* certificates = World::get().certificates.get();
  std::string name = "a.example";

  Library library;
  std::unique_ptr<Context> server_context;
  std::unique_ptr<Context> client_context;

  Pair make() {
    auto made = Context::make_server(library, server, *certificates, tickets);
    REQUIRE(made.has_value());
    server_context = std::move(*made);
    auto client_made = Context::make_client(library, client);
    REQUIRE(client_made.has_value());
    client_context = std::move(*client_made);
    Pair pair;
    pair.server = Session::make_server(*server_context);
    auto session = Session::make_client(*client_context, {.host_name = name});
    REQUIRE(session.has_value());
    pair.client = std::move(*session);
    return pair;
  }
};

std::string served(Session& client) { return client.peer_certificate()->subject; }

}  // namespace

TEST_CASE("every suite of both versions shakes hands and carries data") {
  struct Suite {
    const char* name;
    const char* standard;
    uint16_t version;
    bool rsa;
  };
  const Suite suite = GENERATE(
      Suite{"TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256", kTls13, false},
      Suite{"TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384", kTls13, false},
      Suite{"TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256", kTls13, false},
      Suite{"ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", kTls12,
            false},
      Suite{"ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", kTls12, true},
      Suite{"ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", kTls12,
            false},
      Suite{"ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", kTls12, true},
      Suite{"ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            kTls12, false},
      Suite{"ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", kTls12,
            true});
  Setup setup;
  setup.client.min_version = setup.client.max_version = suite.version;
  (suite.version == kTls13 ? setup.client.ciphersuites : setup.client.ciphers) = suite.name;
  Pair pair = setup.make();
  REQUIRE(pair.handshake());
  const Facts facts = pair.server->facts();
  CHECK(facts.version == suite.version);
  CHECK(facts.cipher == suite.standard);
  CHECK(facts.alpn == "http/1.1");
  CHECK(facts.server_name == "a.example");
  CHECK(!facts.resumed);
  CHECK(!facts.group.empty());
  CHECK(served(*pair.client) == (suite.rsa ? "CN=a rsa" : "CN=a ecdsa"));
  CHECK(pair.send(*pair.client, "ping") == "ping");
  CHECK(pair.send(*pair.server, "pong") == "pong");
  CHECK(!pair.server->peer_certificate());
}

TEST_CASE("the certificate follows the name") {
  struct Case {
    const char* name;
    const char* subject;
  };
  const Case each =
      GENERATE(Case{"a.example", "CN=a ecdsa"}, Case{"A.EXAMPLE", "CN=a ecdsa"},
               Case{"x.wild.example", "CN=wild"}, Case{"x.y.wild.example", "CN=default"},
               Case{"wild.example", "CN=default"}, Case{"other.example", "CN=default"},
               Case{nullptr, "CN=default"});
  Setup setup;
  Pair pair = setup.make();
  PlainClient client;
  SSL* ssl = client.connect(each.name);
  REQUIRE(client.handshake(*pair.server));
  char subject[256];
  X509_NAME_oneline(X509_get_subject_name(SSL_get0_peer_certificate(ssl)), subject,
                    sizeof(subject));
  CHECK(std::string(subject) == std::string("/") + each.subject);
}

TEST_CASE("RSA for the client that cannot do ECDSA") {
  Setup setup;
  Pair pair = setup.make();
  PlainClient client;
  SSL* ssl = client.connect("a.example");
  SECTION("TLS 1.3") {
    REQUIRE(SSL_set1_sigalgs_list(ssl, "rsa_pss_rsae_sha256:rsa_pkcs1_sha256") == 1);
  }
  SECTION("TLS 1.2") {
    SSL_set_max_proto_version(ssl, TLS1_2_VERSION);
    REQUIRE(SSL_set_cipher_list(ssl, "ECDHE-RSA-AES128-GCM-SHA256") == 1);
  }
  REQUIRE(client.handshake(*pair.server));
  CHECK(EVP_PKEY_get_base_id(X509_get0_pubkey(SSL_get0_peer_certificate(ssl))) == EVP_PKEY_RSA);
}

TEST_CASE("ChaCha20 first for the client that prefers it, AES for the others") {
  Setup setup;
  Pair pair = setup.make();
  PlainClient client;
  SSL* ssl = client.connect("a.example");
  const bool prefers = GENERATE(true, false);
  SSL_set_ciphersuites(ssl, prefers ? "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"
                                    : "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:"
                                      "TLS_AES_128_GCM_SHA256");
  REQUIRE(client.handshake(*pair.server));
  CHECK(pair.server->facts().cipher ==
        (prefers ? "TLS_CHACHA20_POLY1305_SHA256" : "TLS_AES_128_GCM_SHA256"));
}

TEST_CASE("groups: ours, and a HelloRetryRequest where the key share does not fit") {
  Setup setup;
  setup.server.groups = "P-384";
  Pair pair = setup.make();
  PlainClient client;
  SSL_set1_groups_list(client.connect("a.example"), "X25519:P-384");
  REQUIRE(client.handshake(*pair.server));
  CHECK(pair.server->facts().group == "secp384r1");
}

TEST_CASE("a name that nobody serves, without a default") {
  const World& world = World::get();
  std::vector<CertificateSource> sources = {world.source("only", world.ecdsa)};
  auto loaded = load_certificates(sources, now_s());
  REQUIRE(loaded.has_value());
  Setup setup;
  setup.certificates = loaded->set.get();
  setup.name = "b.example";
  Pair pair = setup.make();
  CHECK(!pair.handshake());
  CHECK(pair.server->failure().cause == FailureCause::kUnknownServerName);
  CHECK(pair.server->failure().alert_sent == SSL_AD_UNRECOGNIZED_NAME);
  CHECK(pair.client->failure().cause == FailureCause::kPeerAlert);
  CHECK(pair.client->failure().alert_received == SSL_AD_UNRECOGNIZED_NAME);
}

TEST_CASE("ALPN") {
  Setup setup;
  setup.server.alpn = {"h2", "http/1.1"};
  SECTION("our order decides") {
    setup.client.alpn = {"http/1.1", "h2"};
    Pair pair = setup.make();
    REQUIRE(pair.handshake());
    CHECK(pair.server->facts().alpn == "h2");
    CHECK(pair.client->facts().alpn == "h2");
  }
  SECTION("none offered") {
    setup.client.alpn = {};
    Pair pair = setup.make();
    REQUIRE(pair.handshake());
    CHECK(pair.server->facts().alpn.empty());
  }
  SECTION("none in common") {
    setup.client.alpn = {"smtp"};
    Pair pair = setup.make();
    CHECK(!pair.handshake());
    CHECK(pair.server->failure().cause == FailureCause::kNoSharedAlpn);
    CHECK(pair.server->failure().alert_sent == SSL_AD_NO_APPLICATION_PROTOCOL);
  }
}

TEST_CASE("nothing in common") {
  Setup setup;
  SECTION("version") {
    setup.server.min_version = kTls13;
    setup.client.max_version = kTls12;
    Pair pair = setup.make();
    CHECK(!pair.handshake());
    CHECK(pair.server->failure().cause == FailureCause::kVersion);
    CHECK(pair.server->failure().alert_sent == SSL_AD_PROTOCOL_VERSION);
  }
  SECTION("suite") {
    setup.server.ciphersuites = "TLS_AES_128_GCM_SHA256";
    setup.client.ciphersuites = "TLS_AES_256_GCM_SHA384";
    setup.client.min_version = kTls13;
    Pair pair = setup.make();
    CHECK(!pair.handshake());
    CHECK(pair.server->failure().cause == FailureCause::kNoSharedCipher);
  }
  SECTION("group") {
    setup.server.groups = "P-384";
    setup.client.groups = "X25519";
    setup.client.min_version = kTls13;
    Pair pair = setup.make();
    CHECK(!pair.handshake());
    CHECK(pair.server->failure().cause == FailureCause::kNoSharedGroup);
  }
  SECTION("TLS 1.1 and below are never spoken") {
    Pair pair = setup.make();
    PlainClient client;
    SSL_CTX_set_security_level(client.context(), 0);
    SSL* ssl = client.connect("a.example");
    SSL_set_min_proto_version(ssl, TLS1_VERSION);
    SSL_set_max_proto_version(ssl, TLS1_1_VERSION);
    CHECK(!client.handshake(*pair.server));
    CHECK(pair.server->failure().cause == FailureCause::kVersion);
  }
}

TEST_CASE("the server's certificate is verified") {
  Setup setup;
  const World& world = World::get();
  SECTION("wrong name") { setup.name = "elsewhere.example"; }
  SECTION("wrong address") { setup.name = "127.0.0.2"; }
  SECTION("unknown CA") { setup.client.cas = {world.stranger_root.der()}; }
  Pair pair = setup.make();
  CHECK(!pair.handshake());
  CHECK(pair.client->failure().cause == FailureCause::kCertificateRejected);
  CHECK(pair.client->failure().verify_error != X509_V_OK);
  CHECK(pair.server->failure().cause == FailureCause::kPeerAlert);
}

TEST_CASE("names and addresses that verify; and no verification") {
  Setup setup;
  SECTION("name") { setup.name = "y.wild.example"; }
  SECTION("address") { setup.name = "127.0.0.1"; }
  SECTION("off") {
    setup.client.verify = false;
    setup.client.cas = {};
    setup.name = "elsewhere.example";
  }
  Pair pair = setup.make();
  CHECK(pair.handshake());
}

TEST_CASE("an expired server certificate is refused by the client") {
  const World& world = World::get();
  const Issued old =
      issue({.common_name = "old", .san = {"DNS:a.example"}, .from_s = -20 * kDay, .to_s = -kDay},
            &world.intermediate);
  const std::vector<CertificateSource> sources = {world.source("old", old)};
  auto loaded = load_certificates(sources, now_s() - 2 * kDay);  // it was good then
  REQUIRE(loaded.has_value());
  Setup setup;
  setup.certificates = loaded->set.get();
  Pair pair = setup.make();
  CHECK(!pair.handshake());
  CHECK(pair.client->failure().verify_error == X509_V_ERR_CERT_HAS_EXPIRED);
}

TEST_CASE("client certificates") {
  const World& world = World::get();
  const uint16_t version = GENERATE(kTls12, kTls13);
  Setup setup;
  setup.client.max_version = version;
  setup.client.min_version = kTls12;
  setup.server.client_cas = {world.root.der()};
  const auto present = [&](const Issued& issued, const Issued& issuer) {
    setup.client.certificate = pair_of(issued, issuer);
  };
  SECTION("off: not asked for") {
    present(world.client, world.intermediate);
    Pair pair = setup.make();
    CHECK(pair.handshake());
    CHECK(!pair.server->peer_certificate());
  }
  SECTION("optional: none") {
    setup.server.client_auth = ClientAuth::kOptional;
    Pair pair = setup.make();
    CHECK(pair.handshake());
    CHECK(!pair.server->peer_certificate());
  }
  SECTION("given") {
    setup.server.client_auth = GENERATE(ClientAuth::kOptional, ClientAuth::kRequired);
    present(world.client, world.intermediate);
    Pair pair = setup.make();
    REQUIRE(pair.handshake());
    const auto peer = pair.server->peer_certificate();
    REQUIRE(peer.has_value());
    CHECK(peer->subject == "CN=client \\C3\\A9\\, one");
    CHECK(peer->issuer == "CN=Intermediate");
    CHECK(peer->alternative_names == std::vector<std::string>{"DNS:client.example",
                                                              "URI:spiffe://x/y", "IP:10.0.0.1",
                                                              "email:a@b.example"});
    CHECK(peer->der == world.client.der());
    unsigned char digest[32];
    unsigned size = 0;
    X509_digest(world.client.certificate.get(), EVP_sha256(), digest, &size);
    CHECK(std::equal(digest, digest + 32, peer->sha256.begin()));
    CHECK(peer->not_after_s > now_s());
    CHECK(!peer->serial.empty());
  }
  SECTION("required: none") {
    setup.server.client_auth = ClientAuth::kRequired;
    Pair pair = setup.make();
    pair.handshake();
    CHECK(pair.server_step.state == HandshakeState::kFailed);
    CHECK(pair.server->failure().cause == FailureCause::kNoClientCertificate);
  }
  SECTION("of a CA that we do not trust") {
    setup.server.client_auth = GENERATE(ClientAuth::kOptional, ClientAuth::kRequired);
    present(world.stranger, world.stranger_root);
    Pair pair = setup.make();
    pair.handshake();
    CHECK(pair.server_step.state == HandshakeState::kFailed);
    CHECK(pair.server->failure().cause == FailureCause::kCertificateRejected);
  }
  SECTION("chain longer than allowed") {
    setup.server.client_auth = ClientAuth::kRequired;
    setup.server.client_chain_depth = 0;
    present(world.client, world.intermediate);
    Pair pair = setup.make();
    pair.handshake();
    CHECK(pair.server->failure().verify_error == X509_V_ERR_CERT_CHAIN_TOO_LONG);
  }
  SECTION("revoked") {
    setup.server.client_auth = ClientAuth::kRequired;
    Directory files;
    const std::string path =
        files.write("crl.pem", revocation_list(world.root, {}) +
                                   revocation_list(world.intermediate, {&world.revoked_client}));
    auto crls = load_crl_file(path);
    REQUIRE(crls.has_value());
    setup.server.client_crls = std::move(*crls);
    const bool revoked = GENERATE(true, false);
    present(revoked ? world.revoked_client : world.client, world.intermediate);
    Pair pair = setup.make();
    pair.handshake();
    CHECK((pair.server_step.state == HandshakeState::kFailed) == revoked);
    if (revoked) CHECK(pair.server->failure().verify_error == X509_V_ERR_CERT_REVOKED);
  }
}

TEST_CASE("OCSP stapling") {
  const World& world = World::get();
  CertificateSource source = world.source("stapled", world.ecdsa);
  const std::string response = ocsp_response(world.intermediate, world.ecdsa, false, 5 * kDay);
  source.ocsp_path = world.files.write("ocsp.der", response);
  auto loaded = load_certificates(std::vector<CertificateSource>{source}, now_s());
  REQUIRE(loaded.has_value());
  Setup setup;
  setup.certificates = loaded->set.get();
  Pair pair = setup.make();
  const bool late = GENERATE(false, true);
  setup.server_context->set_time(now_s() + (late ? 6 * kDay : 0));
  PlainClient client;
  SSL* ssl = client.connect("a.example");
  if (GENERATE(false, true)) SSL_set_max_proto_version(ssl, TLS1_2_VERSION);
  SSL_set_tlsext_status_type(ssl, TLSEXT_STATUSTYPE_ocsp);
  REQUIRE(client.handshake(*pair.server));
  const unsigned char* got = nullptr;
  const long size = SSL_get_tlsext_status_ocsp_resp(ssl, &got);
  if (late) {
    CHECK(size <= 0);
  } else {
    REQUIRE(size > 0);
    CHECK(std::string(reinterpret_cast<const char*>(got), static_cast<size_t>(size)) == response);
  }
}

TEST_CASE("parsed certificates are kept within the bound") {
  const World& world = World::get();
  std::vector<CertificateSource> sources;
  for (int i = 0; i < 12; ++i) {
    const std::string name = "n" + std::to_string(i) + ".example";
    sources.push_back(world.source(
        name, issue({.common_name = name, .san = {"DNS:" + name}}, &world.intermediate)));
  }
  auto loaded = load_certificates(sources, now_s());
  REQUIRE(loaded.has_value());
  Setup setup;
  setup.certificates = loaded->set.get();
  setup.server.certificates_kept_max = 5;
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 12; ++i) {
      if (setup.server_context == nullptr) setup.make();
      auto server = Session::make_server(*setup.server_context);
      PlainClient client;
      const std::string name = "n" + std::to_string(i) + ".example";
      SSL* ssl = client.connect(name.c_str());
      SSL_set1_host(ssl, name.c_str());
      REQUIRE(client.handshake(*server));
      CHECK(setup.server_context->certificates_kept() <= 5);
    }
  }
  CHECK(setup.server_context->certificates_kept() == 5);
}

TEST_CASE("settings that make no sense are refused with a sentence") {
  Library library;
  const CertificateSet& certificates = *World::get().certificates;
  ServerPolicy policy;
  std::string expected;
  SECTION("cipher") {
    policy.ciphers = "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ROT13";
    expected = "'ECDHE-ROT13' is not a cipher suite of TLS 1.2";
  }
  SECTION("list language") {
    policy.ciphers = "ALL:@SECLEVEL=0";
    expected = "'ALL' is not a cipher suite of TLS 1.2";
  }
  SECTION("ciphersuite") {
    policy.ciphersuites = "TLS_NULL";
    expected = "'TLS_NULL' is not a cipher suite of TLS 1.3";
  }
  SECTION("group") {
    policy.groups = "X25519:K-163";
    expected = "'K-163' is not a group for key exchange";
  }
  SECTION("versions") {
    policy.min_version = kTls13;
    policy.max_version = kTls12;
    expected = "the lowest version of TLS is above the highest";
  }
  SECTION("old version") {
    policy.min_version = 0x0301;
    expected = "only TLS 1.2 and TLS 1.3 are spoken";
  }
  SECTION("client certificates without CA") {
    policy.client_auth = ClientAuth::kRequired;
    expected = "client certificates are asked for, but there is no CA";
  }
  const auto made = Context::make_server(library, policy, certificates, {});
  REQUIRE(!made.has_value());
  CHECK(made.error() == expected);
}

TEST_CASE("RFC names of suites are understood") {
  Setup setup;
  setup.server.ciphers = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384";
  setup.client.max_version = kTls12;
  Pair pair = setup.make();
  REQUIRE(pair.handshake());
  CHECK(pair.server->facts().cipher == "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384");
}
