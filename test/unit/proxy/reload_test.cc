// A new generation while exchanges are in all their phases: none of them fails for it, and nothing
// that they still look at is freed.
#include <catch2/catch_test_macros.hpp>

#include "rig.h"

using namespace weir;
using namespace weir::proxy;
using namespace weir::proxy::test;

namespace {
constexpr std::string_view kGet = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
constexpr std::string_view kOk = "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nok";
}  // namespace

TEST_CASE("an upstream that is removed while it answers still gives the answer") {
  Rig rig;
  Origin old_origin;
  Origin new_origin;
  rig.serve("old", 0, {&old_origin});
  Peer client = rig.connect();
  client.send_all(kGet);
  REQUIRE(rig.received(old_origin, 0, "GET /a"));
  rig.serve("new", 1, {&new_origin});
  old_origin.peers[0].send_all(kOk);
  REQUIRE(rig.answered(client, kOk.size()));
  CHECK(client.text == kOk);
  client.text.clear();
  client.send_all(kGet);
  REQUIRE(rig.received(new_origin, 0, "GET /a"));
  new_origin.peers[0].send_all(kOk);
  REQUIRE(rig.answered(client, kOk.size()));
  CHECK(rig.cell.reclaim() == 1);
}

TEST_CASE("an upstream is removed while a slow client still takes what it answered") {
  Rig rig;
  Origin old_origin;
  Origin new_origin;
  rig.serve("a name that is long enough to be on the heap, where it can be freed", 0,
            {&old_origin});
  Peer client = rig.connect();
  const int small = 4096;
  REQUIRE(setsockopt(client.fd(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
  // Fill the way to the client: pipelined requests whose answers it does not read, until the last
  // one waits in a send although the origin's connection was given back.
  const std::string answer =
      "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 3000\r\n\r\n" + pattern(3000);
  size_t answered = 0;
  size_t quiet_turns = 0;
  REQUIRE(rig.run_until([&] {
    client.send(kGet);
    ++quiet_turns;
    old_origin.accept();
    for (Peer& peer : old_origin.peers) {
      peer.take();
      if (peer.text.empty()) continue;
      peer.text.clear();
      peer.send_all(answer);
      ++answered;
      quiet_turns = 0;
    }
    return answered > 20 && quiet_turns > 200;
  }));
  REQUIRE(rig.worker->counters.responses_2xx == answered - 1);
  REQUIRE(rig.worker->upstreams.idle_connections() == 1);
  rig.serve("new", 1, {&new_origin});
  rig.engine.settle();
  client.reset();  // the send fails, the exchange ends and is logged
  REQUIRE(rig.run_until([&] { return rig.worker->quiet(); }));
}

TEST_CASE("a request whose head comes in pieces across a reload is served") {
  Rig rig;
  Origin old_origin;
  Origin new_origin;
  rig.serve("old", 0, {&old_origin});
  Peer client = rig.connect();
  client.send_all("GET /a HTTP/1.1\r\nHo");
  rig.engine.settle();
  rig.serve("new", 1, {&new_origin});
  rig.engine.settle();
  client.send_all("st: h\r\n\r\n");
  // By the routes of either generation: but it is served.
  REQUIRE(rig.run_until([&] {
    for (Origin* origin : {&old_origin, &new_origin}) {
      origin->accept();
      for (Peer& peer : origin->peers) {
        peer.take();
        if (peer.text.ends_with("\r\n\r\n")) peer.send_all(kOk), peer.text.clear();
      }
    }
    client.take();
    return client.text.size() >= kOk.size();
  }));
  CHECK(client.text == kOk);
}

TEST_CASE("an upstream is removed while a request to it waits for a connect") {
  Rig rig;
  rig.limits.connect_timeout_ms = 30;
  rig.limits.max_connecting = 1;
  Origin old_origin(0);
  Origin new_origin;
  rig.serve("old", 0, {&old_origin});
  old_origin.fill();
  Peer first = rig.connect();
  Peer second = rig.connect();
  first.send_all(kGet);
  second.send_all(kGet);
  rig.engine.settle();
  rig.serve("new", 1, {&new_origin});
  rig.serve("newer", 2, {&new_origin});
  for (Peer* client : {&first, &second}) {
    REQUIRE(rig.answered(*client, 12));
    CHECK(client->text.starts_with("HTTP/1.1 50"));
  }
}

TEST_CASE("a pooled connection of an upstream that stays is used after the reload") {
  Rig rig;
  Origin origin;
  rig.serve("up", 0, {&origin});
  Peer client = rig.connect();
  for (int i = 0; i < 5; ++i) {
    client.text.clear();
    client.send_all(kGet);
    REQUIRE(rig.received(origin, 0, "GET /a"));
    origin.peers[0].text.clear();
    origin.peers[0].send_all(kOk);
    REQUIRE(rig.answered(client, kOk.size()));
    rig.serve("up", 0, {&origin});
  }
  origin.accept();
  CHECK(origin.peers.size() == 1);
  CHECK(rig.cell.reclaim() == 1);
}

TEST_CASE("a long answer does not hold the generation it began with") {
  Rig rig;
  Origin origin;
  rig.serve("up", 0, {&origin});
  Peer client = rig.connect();
  client.send_all(kGet);
  REQUIRE(rig.received(origin, 0, "GET /a"));
  origin.peers[0].send_all("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 100000\r\n\r\nabc");
  REQUIRE(rig.answered(client, 20));
  for (int i = 0; i < 3; ++i) rig.serve("up", 0, {&origin});
  REQUIRE(rig.run_until([&] { return rig.cell.reclaim() == 1; }));
  origin.peers[0].send_all(pattern(99'997));
  REQUIRE(rig.answered(client, 100'050));
}
