// One check of one server, over real sockets: what it finds, and that it always ends in time.
#include <string>

#include <catch2/catch_test_macros.hpp>

#include "directory.h"
#include "health_rig.h"

namespace weir::control {
namespace {

using namespace test;
using Visit = CheckedServer::Visit;

// Ends at its deadline, not before and not much later; the connection is closed then.
void hangs(CheckedServer& server, const std::string& stage, const std::string& body = "") {
  HealthRig rig;
  rig.servers = {&server};
  HealthTarget target = HealthRig::target(server);
  target.timeout_ms = 120;
  target.interval_ms = 60'000;
  target.body = body;
  const HealthState state = rig.first(target);
  CHECK(state.last == HealthResult::kTimedOut);
  CHECK(state.reason == "timed out after 120 ms while " + stage);
  CHECK(state.duration_us >= 119'000);
  CHECK(state.duration_us < 2'000'000);
  CHECK(rig.checker->in_flight() == 0);
  CHECK(rig.until([&] { return server.all_gone(); }));
}

}  // namespace

TEST_CASE("a server that answers") {
  CheckedServer server(says(answer("200 OK", "fine")));
  HealthRig rig;
  rig.servers = {&server};
  HealthTarget target = HealthRig::target(server);
  target.interval_ms = 60'000;
  target.host = "app.example";
  const HealthState state = rig.first(target);
  CHECK(state.last == HealthResult::kPassed);
  CHECK(state.reason == "status 200");
  CHECK(state.status == 200);
  CHECK(state.healthy);
  CHECK(state.passed == 1);
  CHECK_FALSE(state.checking);
  CHECK(state.next_ms > rig.engine->now_ms() + 50'000);
  REQUIRE(server.visits.size() == 1);
  CHECK(server.visits[0].peer.text.starts_with("GET /_health HTTP/1.1\r\nHost: app.example\r\n"));
  CHECK(rig.changes.empty());
}

TEST_CASE("answers that are not good") {
  const auto judged = [](const std::string& text, const std::string& body = "") {
    CheckedServer server(says(text));
    HealthRig rig;
    rig.servers = {&server};
    HealthTarget target = HealthRig::target(server);
    target.body = body;
    return rig.first(target);
  };
  CHECK(judged(answer("503 Busy")).reason == "status 503, expected 200-299");
  CHECK(judged(answer("302 Away")).last == HealthResult::kStatus);
  CHECK(judged(answer("200 OK", "ready"), "ready").last == HealthResult::kPassed);
  CHECK(judged(answer("200 OK", "no"), "ready").last == HealthResult::kBody);
  CHECK(judged("220 mail.example ESMTP\r\n").last == HealthResult::kMalformed);
  CHECK(judged("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nno", "ready").last ==
        HealthResult::kClosed);
}

TEST_CASE("a server that does not answer") {
  SECTION("refuses") {
    CheckedServer server([](Visit&) {});
    server.stop();
    HealthRig rig;
    const HealthState state = rig.first(HealthRig::target(server));
    CHECK(state.last == HealthResult::kRefused);
    CHECK(state.reason == "connection refused");
    CHECK(state.healthy);
    CHECK(state.failed_row == 1);
  }
  SECTION("closes") {
    CheckedServer server([](Visit& visit) {
      if (visit.asked()) visit.peer.close();
    });
    HealthRig rig;
    rig.servers = {&server};
    CHECK(rig.first(HealthRig::target(server)).reason == "closed without an answer");
  }
  SECTION("closes before it was asked") {
    CheckedServer server([](Visit& visit) { visit.peer.close(); });
    HealthRig rig;
    rig.servers = {&server};
    CHECK(rig.first(HealthRig::target(server)).last == HealthResult::kClosed);
  }
  SECTION("resets") {
    CheckedServer server([](Visit& visit) {
      if (visit.asked()) visit.peer.reset();
    });
    HealthRig rig;
    rig.servers = {&server};
    CHECK(rig.first(HealthRig::target(server)).last == HealthResult::kClosed);
  }
  SECTION("there is no such Unix socket") {
    const Directory directory;
    HealthRig rig;
    HealthTarget target;
    target.identity = 1;
    target.address = *base::SocketAddress::parse("unix:" + directory.path("none"));
    CHECK(rig.first(target).reason == "there is no such socket");
  }
}

TEST_CASE("a server by its Unix socket") {
  const Directory directory;
  CheckedServer server(says(answer("200 OK")), "unix:" + directory.path("app.sock"));
  HealthRig rig;
  rig.servers = {&server};
  CHECK(rig.first(HealthRig::target(server)).last == HealthResult::kPassed);
  CHECK(server.visits[0].peer.text.contains("\r\nHost: localhost\r\n"));
}

TEST_CASE("by a connection alone") {
  CheckedServer server([](Visit&) {});
  HealthRig rig;
  HealthTarget target = HealthRig::target(server);
  target.kind = HealthKind::kTcp;
  target.interval_ms = 60'000;
  CHECK(rig.first(target).reason == "connected");
  rig.servers = {&server};
  CHECK(rig.until([&] { return server.visits.size() == 1 && server.all_gone(); }));
  CHECK(server.visits[0].peer.text.empty());
  CHECK(server.visits[0].peer.error == 0);  // an orderly end
}

TEST_CASE("a server that hangs at any stage is given up at the deadline") {
  SECTION("connect") {
    CheckedServer server([](Visit&) {}, "127.0.0.1:0", 0);
    server.fill();
    HealthRig rig;
    HealthTarget target = HealthRig::target(server);
    target.timeout_ms = 120;
    const HealthState state = rig.first(target);
    CHECK(state.reason == "timed out after 120 ms while connecting");
    CHECK(state.duration_us < 2'000'000);
  }
  SECTION("no answer") {
    CheckedServer server([](Visit&) {});
    hangs(server, "waiting for the answer");
  }
  SECTION("half a head") {
    CheckedServer server(says("HTTP/1.1 200 OK\r\nA: b", false));
    hangs(server, "reading the answer's head");
  }
  SECTION("interim answers only") {
    CheckedServer server(says("HTTP/1.1 100 Go on\r\n\r\n", false));
    hangs(server, "reading the answer's head");
  }
  SECTION("half the content") {
    CheckedServer server(says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", false));
    hangs(server, "reading the content", "whole");
  }
  SECTION("a byte now and then") {
    CheckedServer server([polls = 0](Visit& visit) mutable {
      visit.say("HTTP/1.1 200 OK\r\n\r\n", false);
      if (visit.answered && ++polls % 64 == 0) static_cast<void>(visit.peer.send("."));
    });
    hangs(server, "reading the content", "whole");
  }
}

TEST_CASE("a server that does not read is given up at the deadline") {
  CheckedServer server([](Visit&) {});
  HealthRig rig;  // nobody polls the server: nothing is accepted or read
  HealthTarget target = HealthRig::target(server);
  target.timeout_ms = 120;
  target.headers = {{"X-Long", std::string(16 << 20, 'a')}};
  const HealthState state = rig.first(target);
  CHECK(state.reason == "timed out after 120 ms while sending the request");
  CHECK(state.duration_us < 2'000'000);
}

TEST_CASE("a server that reads as slowly as it can is given up at the deadline") {
  CheckedServer server([](Visit&) {});
  HealthRig rig;
  HealthTarget target = HealthRig::target(server);
  target.timeout_ms = 300;
  target.headers = {{"X-Long", std::string(32 << 20, 'a')}};
  rig.checker->set_targets({target});
  Peer peer;
  size_t taken = 0;
  uint64_t took_ms = 0;
  REQUIRE(rig.until([&] {
    if (peer.fd() < 0)
      peer = Peer(accept4(server.door(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (peer.fd() >= 0 && std::exchange(took_ms, rig.engine->now_ms()) != rig.engine->now_ms()) {
      peer.take(2048);
      taken += std::exchange(peer.text, {}).size();
    }
    return rig.state().last != HealthResult::kNone;
  }));
  CHECK(taken > 2048);  // it did take some, time and again
  CHECK(rig.state().reason == "timed out after 300 ms while sending the request");
  CHECK(rig.state().duration_us < 2'000'000);
}

TEST_CASE("a server that streams forever") {
  const std::string block(65'536, '.');
  CheckedServer server([&](Visit& visit) {
    visit.say("HTTP/1.1 200 OK\r\n\r\n", false);
    if (visit.answered) static_cast<void>(visit.peer.send(block));
  });
  HealthRig rig;
  rig.servers = {&server};
  HealthTarget target = HealthRig::target(server);
  SECTION("by status") { CHECK(rig.first(target).last == HealthResult::kPassed); }
  SECTION("by content") {
    target.body = "ready";
    const HealthState state = rig.first(target);
    CHECK(state.last == HealthResult::kBody);
    CHECK(state.duration_us < 1'900'000);  // by the limit, not the deadline
  }
  SECTION("a head without end") {
    server.behaviour = [&](Visit& visit) {
      visit.say("HTTP/1.1 200 OK\r\nA: ", false);
      if (visit.answered) static_cast<void>(visit.peer.send(block));
    };
    CHECK(rig.first(target).last == HealthResult::kMalformed);
  }
  rig.close();
  CHECK(server.visits.size() >= 1);
}

}  // namespace weir::control
