// Health checks over TLS: good certificates and bad ones, and handshakes that do not end.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include "health_rig.h"
#include "secure_server.h"

namespace weir::control {
namespace {

using namespace test;
namespace tls = net::tls;

std::shared_ptr<tls::ClientContext> client(tls::Engine& engine, const tls::ClientPolicy& policy) {
  auto context = std::make_shared<tls::ClientContext>();
  auto made = tls::Context::make_client(engine.library, policy);
  REQUIRE(made.has_value());
  context->context = std::move(*made);
  return context;
}

struct TlsRig {
  explicit TlsRig(const std::string& text = answer("200 OK", "ready"))
      : rig({}, &engine), server(std::make_unique<SecureServer>(rig.engine, rig.servers, text)) {}
  ~TlsRig() {
    rig.close();
    server.reset();
  }
  HealthTarget target(HealthKind kind = HealthKind::kHttps) {
    HealthTarget out = HealthRig::target(server->door());
    out.kind = kind;
    out.tls = client(engine, tls_test::client_policy());
    out.tls_name = "a.example";
    return out;
  }
  tls::Engine engine;
  HealthRig rig;
  std::unique_ptr<SecureServer> server;
};

}  // namespace

TEST_CASE("HTTPS with a good certificate") {
  TlsRig one;
  HealthTarget target = one.target();
  target.host = "a.example";
  target.body = "ready";
  const HealthState state = one.rig.first(target);
  CHECK(state.reason == "status 200, content as expected");
  CHECK(state.last == HealthResult::kPassed);
  REQUIRE(one.rig.until([&] { return one.server->requests.size() >= 3; }));
  CHECK(one.server->requests[0].starts_with("GET /_health HTTP/1.1\r\nHost: a.example\r\n"));
  REQUIRE(one.rig.until([&] { return one.rig.state().passed >= 3; }));
  CHECK(one.rig.state().failed == 0);
  // Each looked at the certificate.
  CHECK(one.engine.counters.origins.full >= 3);
  CHECK(one.engine.counters.origins.resumed == 0);
}

TEST_CASE("HTTPS with a bad answer") {
  TlsRig one(answer("503 Busy"));
  CHECK(one.rig.first(one.target()).reason == "status 503, expected 200-299");
}

TEST_CASE("HTTPS without end") {
  const std::string head = "HTTP/1.1 200 OK\r\n\r\n";
  SECTION("a stream") {
    TlsRig one(head + std::string(4 << 20, '.'));
    HealthTarget target = one.target();
    target.body = "ready";
    const HealthState state = one.rig.first(target);
    CHECK(state.last == HealthResult::kBody);
    CHECK(state.reason.ends_with(" in its first 65536 bytes"));
  }
  SECTION("a pause") {
    TlsRig one(head + "half");
    one.server->hold = true;
    HealthTarget target = one.target();
    target.body = "ready";
    target.timeout_ms = 300;
    CHECK(one.rig.first(target).last == HealthResult::kTimedOut);
    CHECK(one.rig.state().reason == "timed out after 300 ms while reading the content");
  }
  SECTION("an end that anybody could have made") {
    TlsRig one(head + "half");
    one.server->cut = true;
    HealthTarget target = one.target();
    target.body = "ready";
    CHECK(one.rig.first(target).last == HealthResult::kClosed);
  }
  SECTION("an end that was said") {
    TlsRig one(head + "half");
    HealthTarget target = one.target();
    target.body = "ready";
    CHECK(one.rig.first(target).last == HealthResult::kBody);  // with close_notify
  }
}

TEST_CASE("by the handshake alone") {
  TlsRig one;
  const HealthState state = one.rig.first(one.target(HealthKind::kTls));
  CHECK(state.last == HealthResult::kPassed);
  CHECK(state.reason == "TLS as expected");
  REQUIRE(one.rig.until([&] { return one.server->counted().full >= 1; }));
}

TEST_CASE("certificates that are no good") {
  TlsRig one;
  HealthTarget target = one.target();
  SECTION("for another name") { target.tls_name = "b.example"; }
  SECTION("of an unknown issuer") {
    tls::ClientPolicy policy = tls_test::client_policy();
    policy.cas = {tls_test::World::get().stranger_root.der()};
    target.tls = client(one.engine, policy);
  }
  for (const HealthKind kind : {HealthKind::kHttps, HealthKind::kTls}) {
    target.kind = kind;
    one.rig.checker->set_targets({});
    const HealthState state = one.rig.first(target);
    CHECK(state.last == HealthResult::kHandshake);
    CHECK(state.reason.starts_with("TLS: "));
    CHECK(state.reason.size() > 10);
  }
  CHECK(one.server->requests.empty());
}

TEST_CASE("TLS spoken to who speaks none, and handshakes that do not end") {
  tls::Engine engine;
  const auto judged = [&engine](CheckedServer& server, uint32_t timeout_ms = 5'000) {
    HealthRig rig({}, &engine);
    rig.servers = {&server};
    HealthTarget target = HealthRig::target(server);
    target.kind = HealthKind::kTls;
    target.timeout_ms = timeout_ms;
    target.tls = client(engine, tls_test::client_policy());
    target.tls_name = "a.example";
    return rig.first(target);
  };
  SECTION("hangs") {
    CheckedServer server([](auto&) {});
    const HealthState state = judged(server, 150);
    CHECK(state.reason == "timed out after 150 ms while shaking hands");
    CHECK(state.last == HealthResult::kTimedOut);
  }
  SECTION("half a record") {
    CheckedServer server([](auto& visit) {
      if (visit.answered || visit.peer.text.empty()) return;
      visit.answered = true;
      visit.peer.send_all(std::string("\x16\x03\x03\x00\x7a\x02\x00\x00", 8));
    });
    CHECK(judged(server, 150).last == HealthResult::kTimedOut);
  }
  SECTION("plain HTTP") {
    CheckedServer server([](auto& visit) {
      if (visit.answered || visit.peer.text.empty()) return;
      visit.answered = true;
      visit.peer.send_all("HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    CHECK(judged(server).last == HealthResult::kHandshake);
  }
  SECTION("closes") {
    CheckedServer server([](auto& visit) {
      if (!visit.peer.text.empty()) visit.peer.close();
    });
    const HealthState state = judged(server);
    CHECK(state.last == HealthResult::kHandshake);
    CHECK(state.reason == "closed during the TLS handshake");
  }
}

TEST_CASE("stopped in the middle of handshakes") {
  tls::Engine engine;
  const auto settings = client(engine, tls_test::client_policy());
  for (unsigned turns = 0; turns < 10; ++turns) {
    HealthRig rig({}, &engine);
    SecureServer server(rig.engine, rig.servers, answer("200 OK"));
    HealthTarget target = HealthRig::target(server.door());
    target.kind = HealthKind::kHttps;
    target.tls = settings;
    rig.checker->set_targets({target});
    for (unsigned i = 0; i < turns; ++i) {
      for (CheckedServer* one : rig.servers) one->poll();
      rig.engine->turn(false);
    }
    rig.close();
  }
}

}  // namespace weir::control
