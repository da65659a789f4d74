// The table of upstreams: health checks of real servers, and what they make of states.
#include <algorithm>

#include "secure_server.h"
#include "upstream_table_rig.h"

namespace weir::control {
namespace {

using namespace test;
using Kind = server::Command::Kind;
using route::ServerState;

const std::string kQuick =
    "interval = \"10ms\"\njitter = 0\nunhealthy_threshold = 2\nhealthy_threshold = 2\n";

std::string checked(const std::string& servers, const std::string& more = "",
                    const std::string& name = "a") {
  return "[upstream." + name + "]\nservers = [" + servers + "]\n[upstream." + name +
         ".health_check]\n" + kQuick + more;
}

// Of the visits that are still there to be looked at, some.
bool was_asked(const CheckedServer& server, const std::string& part) {
  return std::ranges::any_of(server.visits, [&](const CheckedServer::Visit& visit) {
    return visit.peer.text.contains(part);
  });
}

std::string quoted(const CheckedServer& server) { return "\"" + server.address.to_string() + "\""; }

}  // namespace

TEST_CASE("a server that fails its checks is told of, once, and when it is back") {
  TableRig rig;
  CheckedServer& good = rig.serve(says(answer("200 OK")));
  CheckedServer& bad = rig.serve(says(answer("503 Busy")));
  const std::string text = checked(quoted(good) + ", " + quoted(bad)) + kRoute;
  const auto filled = rig.load(text);
  CHECK(filled[0].servers[1].state == ServerState::kUp);
  REQUIRE(rig.until([&] { return !rig.sent.empty(); }));
  const std::string address = bad.address.to_string();
  CHECK(rig.sent[0].command.kind == Kind::kServer);
  CHECK(rig.sent[0].command.id == filled[0].id);
  CHECK(rig.sent[0].command.value == TableRig::identity(address));
  CHECK(rig.sent[0].command.state == ServerState::kDown);
  CHECK(rig.sent[0].command.weight == 1);
  CHECK(rig.sent[0].command.epoch == 1);
  CHECK(rig.logged("not healthy") ==
        Texts{"warn a server is not healthy upstream=a server=" + address + " address=" + address +
              " reason=status 503, expected 200-299"});
  const ServerView seen = rig.view(address);
  CHECK(seen.checked);
  CHECK(seen.state == ServerState::kDown);
  CHECK(seen.set == ServerState::kUp);
  CHECK(seen.health.last == HealthResult::kStatus);
  CHECK(rig.view(good.address.to_string()).state == ServerState::kUp);

  // It outlives a reload, also one that changes how it is asked.
  const auto again =
      rig.load(checked(quoted(bad) + ", " + quoted(good), "path = \"/x\"\n") + kRoute);
  CHECK(again[0].servers[0].state == ServerState::kDown);
  CHECK(again[0].servers[1].state == ServerState::kUp);
  CHECK(rig.sent.size() == 1);

  bad.behaviour = says(answer("204 No Content"));
  REQUIRE(rig.until([&] { return rig.sent.size() == 2; }));
  CHECK(rig.sent[1].command.state == ServerState::kUp);
  CHECK(rig.sent[1].command.epoch == 2);
  CHECK(rig.logged("healthy again").size() == 1);
  CHECK(was_asked(bad, "GET /x HTTP/1.1\r\n"));
}

TEST_CASE("without checks any more, nobody is down") {
  TableRig rig;
  CheckedServer& bad = rig.serve(says(answer("503 Busy")));
  rig.load(checked(quoted(bad)) + kRoute);
  REQUIRE(rig.until([&] { return !rig.sent.empty(); }));
  const auto filled = rig.load("[upstream.a]\nservers = [" + quoted(bad) + "]\n" + kRoute);
  CHECK(filled[0].servers[0].state == ServerState::kUp);
  CHECK_FALSE(rig.view(bad.address.to_string()).checked);
  const size_t visits = bad.visits.size();
  rig.pass(100);
  CHECK(bad.visits.size() <= visits + 1);  // one was on its way
  CHECK(rig.sent.size() == 1);
}

TEST_CASE("new servers count as down until they have passed, by option") {
  TableRig rig;
  CheckedServer& good = rig.serve(says(answer("200 OK")));
  const auto filled = rig.load(checked(quoted(good), "initially_healthy = false\n") + kRoute);
  CHECK(filled[0].servers[0].state == ServerState::kDown);
  REQUIRE(rig.until([&] { return !rig.sent.empty(); }));
  CHECK(rig.sent[0].command.state == ServerState::kUp);
  CHECK(good.visits.size() >= 2);
}

TEST_CASE("one address in two upstreams, and each has its own view of it") {
  TableRig rig;
  CheckedServer& server = rig.serve([](CheckedServer::Visit& visit) {
    visit.say(visit.peer.text.starts_with("GET /bad ") ? answer("500 Oh") : answer("200 OK"));
  });
  rig.load(checked(quoted(server), "path = \"/bad\"\n", "a") +
           checked(quoted(server), "path = \"/good\"\n", "b") + kRoute);
  REQUIRE(rig.until([&] { return !rig.sent.empty(); }));
  const std::string address = server.address.to_string();
  REQUIRE(rig.until([&] { return rig.view(address, "b").health.passed >= 3; }));
  CHECK(rig.sent.size() == 1);
  CHECK(rig.sent[0].command.id == rig.view(address, "a").upstream_id);
  CHECK(rig.view(address, "a").state == ServerState::kDown);
  CHECK(rig.view(address, "b").state == ServerState::kUp);
}

TEST_CASE("addresses that a name gets are checked, at the port of the checks") {
  TableRig rig;
  CheckedServer& server = rig.serve(says(answer("200 OK")));
  const std::string port = std::to_string(server.address.port());
  rig.dns.set("app.test", {a("127.0.0.1")});
  rig.load_known(checked("\"app.test:9\"", "port = " + port + "\n") + kRoute);
  REQUIRE(rig.until([&] { return rig.view("127.0.0.1:9").health.passed >= 2; }));
  CHECK(was_asked(server, "\r\nHost: app.test:9\r\n"));
  CHECK(rig.sent.empty());
  // Nobody listens at 127.0.0.2.
  rig.dns.set("app.test", {a("127.0.0.1"), a("127.0.0.2")});
  REQUIRE(rig.until([&] { return rig.sent.size() == 2; }));
  REQUIRE(rig.sent[0].upstream);
  CHECK(rig.sent[0].upstream->servers[1].state == ServerState::kUp);
  CHECK(rig.sent[1].command.kind == Kind::kServer);
  CHECK(rig.sent[1].command.value == TableRig::identity("127.0.0.2:9"));
  CHECK(rig.sent[1].command.state == ServerState::kDown);
  CHECK(rig.view("127.0.0.2:9").health.last == HealthResult::kRefused);
  // What is down stays so when others come and go.
  rig.dns.set("app.test", {a("127.0.0.2"), a("127.0.0.3")});
  REQUIRE(rig.until([&] { return rig.sent.size() >= 3; }));
  REQUIRE(rig.sent[2].upstream);
  CHECK(TableRig::addresses(*rig.sent[2].upstream) == Texts{"127.0.0.2:9", "127.0.0.3:9"});
  CHECK(rig.sent[2].upstream->servers[0].state == ServerState::kDown);
  CHECK(rig.sent[2].upstream->servers[1].state == ServerState::kUp);
}

TEST_CASE("everything that the configuration says of a check is asked for") {
  TableRig rig;
  CheckedServer& server = rig.serve(says(answer("418 Teapot", "all is ready here")));
  rig.load(checked(quoted(server),
                   "method = \"POST\"\npath = \"/p?q\"\nhost = \"h.test\"\n"
                   "expected_status = [\"400-420\", 500]\nexpected_body = \"ready\"\n"
                   "headers = {X-One = \"1\"}\n") +
           kRoute);
  REQUIRE(rig.until([&] { return rig.view(server.address.to_string()).health.passed >= 1; }));
  CHECK(was_asked(server, "POST /p?q HTTP/1.1\r\n"));
  CHECK(was_asked(server, "\r\nHost: h.test\r\n"));
  CHECK(was_asked(server, "\r\nX-One: 1\r\n"));
  server.behaviour = says(answer("418 Teapot", "not yet"));
  REQUIRE(rig.until([&] { return !rig.sent.empty(); }));
  CHECK(rig.view(server.address.to_string()).health.last == HealthResult::kBody);
}

TEST_CASE("TLS: with the certificates that the upstream has, or none") {
  TableRig rig;
  const std::string ca = rig.directory.path("ca.crt");
  rig.directory.write("ca.crt", tls_test::World::get().root.certificate_pem());
  rig.directory.write("stranger.crt", tls_test::World::get().stranger_root.certificate_pem());
  SecureServer server(rig.engine, rig.servers, answer("200 OK"));
  const std::string address = server.door().address.to_string();
  const auto text = [&](const std::string& settings, const std::string& type) {
    return "[upstream.a]\nservers = [\"https://" + address + "\"]\n" + settings +
           "[upstream.a.health_check]\n" + kQuick + type + kRoute;
  };
  const std::string good = "tls_ca_path = \"" + ca + "\"\ntls_server_name = \"a.example\"\n";
  SECTION("as it is served") {
    rig.load(text(good, ""));
    REQUIRE(rig.until([&] { return rig.view(address).health.passed >= 2; }));
    CHECK(server.requests[0].starts_with("GET /_health HTTP/1.1\r\n"));
    // The same settings and files: the checks go on as they were.
    rig.load(text(good, ""));
    CHECK(rig.view(address).health.passed_row >= 2);
    // A file that has changed makes another check of it.
    rig.directory.write("ca.crt", tls_test::World::get().stranger_root.certificate_pem());
    rig.load(text(good, ""));
    REQUIRE(rig.until([&] { return !rig.sent.empty(); }));
    CHECK(rig.view(address).health.last == HealthResult::kHandshake);
    // One that is no certificate any more is told of; the check of before goes on.
    rig.directory.write("ca.crt", "nothing");
    rig.load(text(good, ""));
    rig.pass(50);
    CHECK(rig.view(address).checked);
    CHECK(rig.view(address).health.last == HealthResult::kHandshake);
  }
  SECTION("by the handshake alone") {
    rig.load(text(good, "type = \"tls\"\n"));
    REQUIRE(rig.until([&] { return rig.view(address).health.passed >= 2; }));
    CHECK(std::ranges::all_of(server.requests, &std::string::empty));
  }
  SECTION("of nobody known") {
    rig.load(text("tls_ca_path = \"" + rig.directory.path("stranger.crt") +
                      "\"\ntls_server_name = \"a.example\"\n",
                  ""));
    REQUIRE(rig.until([&] { return !rig.sent.empty(); }));
    CHECK(rig.view(address).health.last == HealthResult::kHandshake);
    // And then nobody asks.
    rig.load(text("tls_verify = false\n", ""));
    REQUIRE(rig.until([&] { return rig.sent.size() == 2; }));
    CHECK(rig.sent[1].command.state == ServerState::kUp);
  }
  SECTION("for another name") {
    rig.load(text("tls_ca_path = \"" + ca + "\"\ntls_server_name = \"b.example\"\n", ""));
    REQUIRE(rig.until([&] { return !rig.sent.empty(); }));
    CHECK(rig.view(address).health.last == HealthResult::kHandshake);
  }
  SECTION("without certificates that can be read there are no checks, and it is said") {
    rig.load(text("tls_ca_path = \"" + rig.directory.path("missing.crt") +
                      "\"\ntls_server_name = \"a.example\"\n",
                  ""));
    CHECK(rig.logged("cannot be checked upstream=a").size() == 1);
    CHECK_FALSE(rig.view(address).checked);
    CHECK(rig.view(address).state == ServerState::kUp);
  }
  rig.close();
}

TEST_CASE("stopped with checks under way") {
  TableRig rig;
  CheckedServer& silent = rig.serve([](CheckedServer::Visit&) {});
  rig.load(checked(quoted(silent)) + kRoute);
  REQUIRE(rig.until([&] { return !silent.visits.empty() && silent.visits[0].asked(); }));
  rig.close();
  REQUIRE(rig.until([&] { return silent.all_gone(); }));
  CHECK(rig.sent.empty());
}

}  // namespace weir::control
