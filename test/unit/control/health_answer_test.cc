// What a health check asks, which settings it refuses, and what it makes of an answer.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include "health/answer.h"

namespace weir::control {
namespace {

HealthTarget plain() {
  HealthTarget target;
  target.address = *base::SocketAddress::parse("10.0.0.1:8080");
  return target;
}

HealthTarget wanting(const std::string& body) {
  HealthTarget target = plain();
  target.body = body;
  return target;
}

// In pieces of `step` bytes; the end of the stream behind them.
CheckResult judge(const HealthTarget& target, std::string_view text, size_t step) {
  AnswerReader reader(target);
  while (!text.empty()) {
    if (auto verdict = reader.feed(text.substr(0, step))) return *verdict;
    text.remove_prefix(std::min(step, text.size()));
  }
  return reader.end();
}

// The same however it is cut.
CheckResult judge(const HealthTarget& target, std::string_view text) {
  const CheckResult whole = judge(target, text, std::string_view::npos);
  for (const size_t step : {1, 2, 7, 100}) {
    const CheckResult cut = judge(target, text, step);
    CHECK(cut.result == whole.result);
    CHECK(cut.status == whole.status);
    CHECK(cut.text == whole.text);
  }
  return whole;
}

}  // namespace

TEST_CASE("the request") {
  HealthTarget target = plain();
  CHECK(make_request(target) ==
        "GET /_health HTTP/1.1\r\nHost: 10.0.0.1:8080\r\nUser-Agent: weir-health-check\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n");
  target.method = "POST";
  target.path = "/up?deep=1";
  target.host = "app.example";
  target.headers = {{"user-agent", "probe"}, {"X-Key", "a b"}};
  CHECK(make_request(target) ==
        "POST /up?deep=1 HTTP/1.1\r\nHost: app.example\r\nuser-agent: probe\r\nX-Key: a b\r\n"
        "Accept: */*\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
  target.host.clear();
  target.address = *base::SocketAddress::parse("unix:/run/app.sock");
  CHECK(make_request(target).contains("\r\nHost: localhost\r\n"));
}

TEST_CASE("settings that make no sense are refused with a reason") {
  CHECK(problem_of(plain()).empty());
  CHECK(problem_of(wanting("ok")).empty());
  const auto problem = [](auto change) {
    HealthTarget target = plain();
    change(target);
    return problem_of(target);
  };
  CHECK_FALSE(problem([](auto& t) {
                t.address = {};
                t.address.length = 0;
              }).empty());
  CHECK_FALSE(problem([](auto& t) { t.interval_ms = 0; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.timeout_ms = 0; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.jitter_percent = 101; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.unhealthy_threshold = 0; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.healthy_threshold = 0; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.kind = HealthKind::kTls; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.method = ""; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.method = "GE T"; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.method = "CONNECT"; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.path = "health"; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.path = "/a b"; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.path = "/a\r\nX: y"; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.host = "a\r\nX: y"; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.headers = {{"X Y", "1"}}; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.headers = {{"X", "1\r\nY: 2"}}; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.headers = {{"Content-Length", "5"}}; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.headers = {{"hOST", "x"}}; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.status.clear(); }).empty());
  CHECK_FALSE(problem([](auto& t) { t.status = {{300, 200}}; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.status = {{200, 600}}; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.method = "HEAD", t.body = "x"; }).empty());
  CHECK_FALSE(problem([](auto& t) { t.body = "xy", t.body_bytes_max = 1; }).empty());
  // A TCP check does not look at what only HTTP needs.
  CHECK(problem([](auto& t) { t.kind = HealthKind::kTcp, t.path = ""; }).empty());
}

TEST_CASE("by status") {
  CHECK(judge(plain(), "HTTP/1.1 200 OK\r\n\r\n").result == HealthResult::kPassed);
  CHECK(judge(plain(), "HTTP/1.0 204 No Content\r\n\r\n").status == 204);
  const CheckResult bad = judge(plain(), "HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nno thanks");
  CHECK(bad.result == HealthResult::kStatus);
  CHECK(bad.text == "status 503, expected 200-299");
  CHECK(bad.status == 503);
  HealthTarget target = plain();
  target.status = {{200, 200}, {401, 401}, {500, 502}};
  CHECK(judge(target, "HTTP/1.1 401 Who\r\n\r\n").result == HealthResult::kPassed);
  CHECK(judge(target, "HTTP/1.1 502 Bad\r\n\r\n").result == HealthResult::kPassed);
  CHECK(judge(target, "HTTP/1.1 503 Bad\r\n\r\n").text == "status 503, expected 200, 401, 500-502");
  CHECK(judge(target, "HTTP/1.1 201 Made\r\n\r\n").result == HealthResult::kStatus);
  // Interim answers are not the answer; 101 is one, to something that was not asked.
  CHECK(judge(plain(),
              "HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 Hint\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n"
              "\r\n")
            .result == HealthResult::kPassed);
  CHECK(judge(plain(), "HTTP/1.1 101 Sw\r\n\r\n").result == HealthResult::kStatus);
  const HealthTarget target_of_reader = plain();
  AnswerReader reader(target_of_reader);
  REQUIRE_FALSE(reader.feed("HTTP/1.1 103 Hint\r\nLink: </style.css>\r\n"));
  REQUIRE(reader.feed("\r\nHTTP/1.1 200 OK\r\n\r\n"));  // whole, and shorter than what was seen
  std::string interim;
  for (int i = 0; i < 9; ++i) interim += "HTTP/1.1 100 Go\r\n\r\n";
  CHECK(judge(plain(), interim + "HTTP/1.1 200 OK\r\n\r\n").result == HealthResult::kMalformed);
}

TEST_CASE("no answer, half of one, another protocol") {
  CHECK(judge(plain(), "").result == HealthResult::kClosed);
  CHECK(judge(plain(), "").text == "closed without an answer");
  CHECK(judge(plain(), "HTTP/1.1 200 OK\r\nA: b\r\n").result == HealthResult::kClosed);
  CHECK(judge(plain(), "SSH-2.0-OpenSSH_9.2\r\n").result == HealthResult::kMalformed);
  CHECK(judge(plain(), std::string("\x15\x03\x01\x00\x02\x02\x0a", 7)).result ==
        HealthResult::kMalformed);
  CHECK(judge(plain(), "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").result ==
        HealthResult::kMalformed);
  const std::string endless = "HTTP/1.1 200 OK\r\nA: " + std::string(100'000, 'a');
  CHECK(judge(plain(), endless, 1000).result == HealthResult::kMalformed);
}

TEST_CASE("by content") {
  const HealthTarget target = wanting("\"ready\"");
  const auto with = [](const std::string& framing, const std::string& body) {
    return "HTTP/1.1 200 OK\r\n" + framing + "\r\n" + body;
  };
  CHECK(judge(target, with("Content-Length: 15\r\n", "{\"is\": \"ready\"}")).result ==
        HealthResult::kPassed);
  CHECK(judge(target, with("", "{\"is\": \"ready\"}")).result == HealthResult::kPassed);
  CHECK(judge(target,
              with("Transfer-Encoding: chunked\r\n", "4\r\n: \"r\r\n6\r\neady\"}\r\n0\r\n\r\n"))
            .result == HealthResult::kPassed);
  // Found, and more is to come that nobody waits for.
  CHECK(judge(target, with("Content-Length: 9999\r\n", "\"ready\"")).result ==
        HealthResult::kPassed);

  CHECK(judge(target, with("Content-Length: 8\r\n", "\"read\"y\"")).result == HealthResult::kBody);
  CHECK(judge(target, with("", "not yet")).result == HealthResult::kBody);
  CHECK(judge(target, with("Transfer-Encoding: chunked\r\n", "3\r\nnot\r\n0\r\n\r\n")).result ==
        HealthResult::kBody);
  CHECK(judge(target, "HTTP/1.1 204 None\r\n\r\n").result == HealthResult::kBody);
  // What lies behind the end of the content is none of it.
  CHECK(judge(target, with("Content-Length: 3\r\n", "not\"ready\"")).result == HealthResult::kBody);
  CHECK(judge(target, with("Content-Length: 9\r\n", "not")).result == HealthResult::kClosed);
  CHECK(judge(target, with("Transfer-Encoding: chunked\r\n", "3\r\nnot\r\n")).result ==
        HealthResult::kClosed);
  CHECK(judge(target, with("Transfer-Encoding: chunked\r\n", "zz\r\n")).result ==
        HealthResult::kMalformed);
  // The status comes first.
  CHECK(judge(target, "HTTP/1.1 500 Oh\r\nContent-Length: 7\r\n\r\n\"ready\"").result ==
        HealthResult::kStatus);
}

TEST_CASE("content without end ends at the limit") {
  HealthTarget target = wanting("ready");
  target.body_bytes_max = 1000;
  const std::string head = "HTTP/1.1 200 OK\r\n\r\n";
  const CheckResult past = judge(target, head + std::string(998, 'x') + "ready");
  CHECK(past.result == HealthResult::kBody);
  CHECK(past.text == "the content does not contain the expected text in its first 1000 bytes");
  CHECK(judge(target, head + std::string(995, 'x') + "ready").result == HealthResult::kPassed);
  AnswerReader reader(target);
  REQUIRE_FALSE(reader.feed(head));
  size_t fed = 0;
  std::optional<CheckResult> verdict;
  while (!verdict && fed < 1'000'000) {
    verdict = reader.feed("0123456789");
    fed += 10;
  }
  REQUIRE(verdict);
  CHECK(fed == 1000);
  // One byte a chunk is slow, but content; extensions without end are none.
  std::string bytes = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 2'000; ++i) bytes += "1\r\nx\r\n";
  CHECK(judge(target, bytes, 100).result == HealthResult::kBody);
  std::string chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 900; ++i) chunked += "1;" + std::string(40, 'e') + "\r\nx\r\n";
  CHECK(judge(target, chunked, 100).result == HealthResult::kMalformed);
}

}  // namespace weir::control
