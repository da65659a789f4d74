// Exchanges through a worker: the cases in which something goes wrong half-way.
#include <cstdio>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_all.hpp>

#include "rig.h"

using namespace weir;
using namespace weir::proxy;
using namespace weir::proxy::test;

namespace {

constexpr std::string_view kGet = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
constexpr std::string_view kOk = "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nok";

std::string chunk(const std::string& text) {
  char size[32];
  std::snprintf(size, sizeof size, "%zx\r\n", text.size());
  return size + text + "\r\n";
}

// One whole exchange, so that the origin's connection has served before.
void warm_up(Rig& rig, Origin& origin, Peer& client) {
  client.send_all(kGet);
  REQUIRE(rig.received(origin, 0, "\r\n\r\n"));
  origin.peers[0].send_all(kOk);
  REQUIRE(rig.answered(client, kOk.size()));
  CHECK(client.text == kOk);
  client.text.clear();
  origin.peers[0].text.clear();
}

}  // namespace

TEST_CASE("requests go over one connection to the origin, answers come back") {
  Rig rig;
  Origin origin;
  rig.serve("up", 0, {&origin});
  Peer client = rig.connect();
  warm_up(rig, origin, client);
  client.send_all(kGet);
  REQUIRE(rig.received(origin, 0, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"));
  origin.peers[0].send_all(kOk);
  REQUIRE(rig.answered(client, kOk.size()));
  CHECK(client.text == kOk);
  CHECK(origin.peers.size() == 1);
  CHECK(rig.worker->counters.requests == 2);
  CHECK(rig.worker->counters.responses_2xx == 2);
  CHECK(rig.worker->upstreams.idle_connections() == 1);
}

TEST_CASE("pipelined requests are answered in order") {
  Rig rig;
  Origin origin;
  rig.serve("up", 0, {&origin});
  Peer client = rig.connect();
  client.send_all("GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
  REQUIRE(rig.received(origin, 0, "GET /1"));
  origin.peers[0].send_all("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 1\r\n\r\n1");
  REQUIRE(rig.received(origin, 0, "GET /2"));
  origin.peers[0].send_all("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 1\r\n\r\n2");
  REQUIRE(rig.answered(client, 2 * (kOk.size() - 1)));
  CHECK(client.text.find("\r\n\r\n1HTTP/1.1 200") != std::string::npos);
  CHECK(client.text.ends_with("2"));
}

TEST_CASE("a pooled connection that the origin had closed is retried once, body and all") {
  Rig rig;
  Origin origin;
  rig.serve("up", 0, {&origin});
  Peer client = rig.connect();
  warm_up(rig, origin, client);
  // The request is on its way when the origin closes.
  client.send_all("PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" +
                  chunk("first ") + chunk("second"));
  REQUIRE(rig.received(origin, 0, "second"));
  origin.peers[0].reset();
  REQUIRE(rig.received(origin, 1, "first second"));
  client.send_all(chunk(" third") + "0\r\n\r\n");
  REQUIRE(rig.received(origin, 1, "0\r\n\r\n"));
  CHECK(origin.peers[1].text.find("first second") != std::string::npos);
  CHECK(origin.peers[1].text.find(" third") != std::string::npos);
  origin.peers[1].send_all(kOk);
  REQUIRE(rig.answered(client, kOk.size()));
  CHECK(client.text == kOk);
  CHECK(rig.worker->counters.stale_retries == 1);
}

TEST_CASE("a body too large to be kept is never sent again without its beginning") {
  const bool chunked = GENERATE(true, false);
  Rig rig;
  Origin origin;
  rig.serve("up", 0, {&origin});
  Peer client = rig.connect();
  warm_up(rig, origin, client);
  const std::string body = pattern(150'000);
  std::string request = "PUT /x HTTP/1.1\r\nHost: h\r\n";
  request += chunked ? "Transfer-Encoding: chunked\r\n\r\n" + chunk(body)
                     : "Content-Length: 160000\r\n\r\n" + body;
  client.send_all(request);
  // More of it than is kept for a retry has gone out; the rest is still to come.
  REQUIRE(rig.run_until([&] {
    origin.peers[0].take();
    return origin.peers[0].text.size() > 140'000;
  }));
  origin.peers[0].reset();
  client.send(chunked ? chunk("tail") + "0\r\n\r\n" : std::string(10'000, 'z'));
  REQUIRE(rig.answered(client, 12));
  CHECK(client.text.starts_with("HTTP/1.1 502"));
  origin.accept();
  for (size_t i = 1; i < origin.peers.size(); ++i) {
    origin.peers[i].take();
    CHECK(origin.peers[i].text.empty());
  }
  CHECK(rig.worker->counters.stale_retries == 0);
}

TEST_CASE("POST is not repeated, a fresh connection's failure neither") {
  Rig rig;
  Origin origin;
  rig.serve("up", 0, {&origin});
  Peer client = rig.connect();
  client.send_all(kGet);
  REQUIRE(rig.received(origin, 0, "GET /a"));
  origin.peers[0].reset();
  REQUIRE(rig.answered(client, 12));
  CHECK(client.text.starts_with("HTTP/1.1 502"));
  client.text.clear();
  client.send_all(kGet);
  REQUIRE(rig.received(origin, 1, "GET /a"));
  origin.peers[1].send_all(kOk);
  REQUIRE(rig.run_until([&] {
    client.take();
    return client.text.ends_with("ok");
  }));
  client.text.clear();
  client.send_all("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc");
  REQUIRE(rig.received(origin, 1, "abc"));
  origin.peers[1].reset();
  REQUIRE(rig.answered(client, 12));
  CHECK(client.text.starts_with("HTTP/1.1 502"));
  origin.accept();
  CHECK(origin.peers.size() == 2);
}

TEST_CASE("a client that leaves cancels the exchange") {
  Rig rig;
  rig.settings.half_close_grace_ms = 20;
  Origin origin;
  rig.serve("up", 0, {&origin});
  Peer client = rig.connect();
  client.send_all(kGet);
  REQUIRE(rig.received(origin, 0, "GET /a"));
  SECTION("with a reset") { client.reset(); }
  SECTION("with an end, after the grace") { client.close(); }
  REQUIRE(rig.run_until([&] {
    origin.peers[0].take();
    return origin.peers[0].over();
  }));
  REQUIRE(rig.run_until([&] { return rig.worker->quiet(); }));
  CHECK(rig.worker->counters.client_gone == 1);
  CHECK(rig.worker->upstreams.idle_connections() == 0);
}

TEST_CASE("a client that leaves while its request waits for a connect does not reach the origin") {
  Rig rig;
  rig.settings.half_close_grace_ms = 1;
  Origin origin(0);
  rig.limits.connect_timeout_ms = 60'000;
  rig.serve("up", 0, {&origin});
  origin.fill();
  Peer client = rig.connect();
  client.send_all(kGet);
  client.finish();
  REQUIRE(rig.run_until([&] { return rig.worker->quiet(); }));
  CHECK(rig.worker->counters.client_gone == 1);
}

TEST_CASE("a client that only closed its sending side gets its answer within the grace") {
  Rig rig;
  rig.settings.half_close_grace_ms = 5000;
  Origin origin;
  rig.serve("up", 0, {&origin});
  Peer client = rig.connect();
  client.send_all(kGet);
  client.finish();
  REQUIRE(rig.received(origin, 0, "GET /a"));
  origin.peers[0].send_all(kOk);
  REQUIRE(rig.run_until([&] {
    client.take();
    return client.over();
  }));
  CHECK(client.text == kOk);
  CHECK(client.ended);
}

TEST_CASE("cancel_all ends whatever runs, in any phase") {
  const int phase = GENERATE(Catch::Generators::range(0, 7));
  CAPTURE(phase);
  Rig rig;
  rig.limits.connect_timeout_ms = 60'000;
  Origin origin(phase == 2 ? 0 : 128);
  rig.serve("up", 0, {&origin});
  if (phase == 2) origin.fill();
  Peer client = rig.connect();
  const std::string body = pattern(3'000'000);
  switch (phase) {
    case 0: break;                                          // nothing sent
    case 1: client.send_all("GET /a HTTP/1.1\r\n"); break;  // half a head
    case 2: client.send_all(kGet); break;                   // connecting
    case 3:                                                 // half a body
      client.send_all("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nabc");
      REQUIRE(rig.received(origin, 0, "abc"));
      break;
    case 4:  // waiting for the answer
      client.send_all(kGet);
      REQUIRE(rig.received(origin, 0, "GET /a"));
      break;
    case 5:  // half an answer
      client.send_all(kGet);
      REQUIRE(rig.received(origin, 0, "GET /a"));
      origin.peers[0].send_all("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabc");
      REQUIRE(rig.answered(client, 30));
      break;
    case 6:  // a client that does not read
      client.send_all(kGet);
      REQUIRE(rig.received(origin, 0, "GET /a"));
      origin.peers[0].send("HTTP/1.1 200 OK\r\nContent-Length: 99000000\r\n\r\n");
      REQUIRE(rig.run_until([&, sent = size_t{0}]() mutable {
        const size_t now = origin.peers[0].send(body);
        sent += now;
        return now == 0 && sent > 100'000;
      }));
      break;
    default: break;
  }
  rig.engine.settle();
  const uint64_t start = rig.engine->now_ms();
  rig.worker->cancel_all();
  REQUIRE(rig.run_until([&] { return rig.worker->quiet(); }));
  CHECK(rig.engine->now_ms() - start < 1000);
  REQUIRE(rig.run_until([&] {
    client.take();
    return client.over();
  }));
}

TEST_CASE("a connection beyond the limit is told so and closed") {
  Rig rig;
  rig.settings.connections_max = 1;
  Origin origin;
  rig.serve("up", 0, {&origin});
  Peer first = rig.connect();
  Peer second = rig.connect();
  second.send_all(kGet);
  REQUIRE(rig.run_until([&] {
    second.take();
    return second.over();
  }));
  CHECK(second.text.starts_with("HTTP/1.1 503"));
  CHECK(second.ended);
  CHECK(rig.worker->counters.connections_refused == 1);
  second.close();
  warm_up(rig, origin, first);
}

TEST_CASE("draining: what runs is finished and says close, idle ones end after the grace") {
  Rig rig;
  Origin origin;
  rig.serve("up", 0, {&origin});
  Peer busy = rig.connect();
  Peer idle = rig.connect();
  busy.send_all(kGet);
  REQUIRE(rig.received(origin, 0, "GET /a"));
  rig.worker->drain(20);
  REQUIRE(rig.run_until([&] {
    idle.take();
    return idle.over();
  }));
  CHECK(idle.text.empty());
  idle.close();
  origin.peers[0].send_all(kOk);
  REQUIRE(rig.run_until([&] {
    busy.take();
    return busy.over();
  }));
  CHECK(busy.text.find("Connection: close\r\n") != std::string::npos);
  CHECK(busy.text.ends_with("ok"));
  busy.close();
  REQUIRE(rig.run_until([&] { return rig.worker->quiet(); }));
}

TEST_CASE("an answer whose head came before the drain does not keep its connection for long") {
  Rig rig;
  rig.settings.keepalive_timeout_ms = 60'000;
  Origin origin;
  rig.serve("up", 0, {&origin});
  Peer client = rig.connect();
  client.send_all(kGet);
  REQUIRE(rig.received(origin, 0, "GET /a"));
  origin.peers[0].send_all("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 6\r\n\r\nabc");
  REQUIRE(rig.answered(client, 20));
  rig.worker->drain(10);
  rig.engine.pass(30);
  origin.peers[0].send_all("def");
  REQUIRE(rig.run_until(
      [&] {
        client.take();
        return client.over();
      },
      3000));
  CHECK(client.text.ends_with("abcdef"));
}

TEST_CASE("an origin that says more than its answer is not used again") {
  Rig rig;
  Origin origin;
  rig.serve("up", 0, {&origin});
  Peer client = rig.connect();
  client.send_all(kGet);
  REQUIRE(rig.received(origin, 0, "GET /a"));
  origin.peers[0].send_all(std::string(kOk) + "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale");
  REQUIRE(rig.answered(client, kOk.size()));
  client.text.clear();
  client.send_all(kGet);
  REQUIRE(rig.received(origin, 1, "GET /a"));
  origin.peers[1].send_all(kOk);
  REQUIRE(rig.answered(client, kOk.size()));
  CHECK(client.text == kOk);
}

TEST_CASE("large bodies both ways are whole, whatever the framing") {
  const bool chunked_up = GENERATE(true, false);
  const bool chunked_down = GENERATE(true, false);
  CAPTURE(chunked_up, chunked_down);
  Rig rig;
  Origin origin;
  rig.serve("up", 0, {&origin});
  Peer client = rig.connect();
  const std::string body = pattern(600'000);
  std::string request = "PUT /x HTTP/1.1\r\nHost: h\r\n";
  request += chunked_up ? "Transfer-Encoding: chunked\r\n\r\n" + chunk(body.substr(0, 300'000)) +
                              chunk(body.substr(300'000)) + "0\r\n\r\n"
                        : "Content-Length: 600000\r\n\r\n" + body;
  size_t sent = 0;
  REQUIRE(rig.run_until([&] {
    sent += client.send(std::string_view(request).substr(sent));
    origin.accept();
    if (origin.peers.empty()) return false;
    origin.peers[0].take();
    const std::string& got = origin.peers[0].text;
    return chunked_up ? got.ends_with("0\r\n\r\n")
                      : got.ends_with(body.substr(599'000)) && got.size() > 600'000;
  }));
  const std::string at_origin = origin.peers[0].text;
  if (!chunked_up) CHECK(at_origin.substr(at_origin.size() - body.size()) == body);
  CHECK(rig.engine->buffers().in_use() < 200);
  std::string answer = "HTTP/1.1 200 OK\r\nDate: x\r\n";
  answer += chunked_down ? "Transfer-Encoding: chunked\r\n\r\n" + chunk(body) + "0\r\n\r\n"
                         : "Content-Length: 600000\r\n\r\n" + body;
  sent = 0;
  REQUIRE(rig.run_until([&] {
    sent += origin.peers[0].send(std::string_view(answer).substr(sent));
    client.take();
    return chunked_down ? client.text.ends_with("0\r\n\r\n") : client.text.size() >= answer.size();
  }));
  if (!chunked_down) CHECK(client.text == answer);
  CHECK(rig.worker->counters.responses_2xx == 1);
}
