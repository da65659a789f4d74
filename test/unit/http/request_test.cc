// What the corpus cannot say: limits other than the defaults, resumption, and the model's values.
#include <weir/http/h1/parser.h>

#include <catch2/catch_test_macros.hpp>

#include <string>

#include "feeding.h"

namespace weir::http {

using State = h1::ParseResult::State;

namespace {

RequestHead head;  // the last head parsed; its views point into `text` of the test

h1::ParseResult parse(std::string_view text, const h1::HeadLimits& limits = {}) {
  return h1::parse_request_head(text, 0, limits, head);
}

}  // namespace

TEST_CASE("a request head is read into the model") {
  const std::string text =
      "POST /a/b%20c?x=1&y HTTP/1.1\r\nHost: Example.test:8080\r\nContent-Length: 12\r\n"
      "Connection: Keep-Alive\r\nX-A:  one \r\n\r\nhello";
  const auto result = parse(text);
  REQUIRE(result.state == State::kComplete);
  CHECK(result.consumed == text.size() - 5);
  CHECK(head.method == Method::kPost);
  CHECK(head.method_text == "POST");
  CHECK(head.target == "/a/b%20c?x=1&y");
  CHECK(head.path == "/a/b%20c");
  CHECK(head.has_query);
  CHECK(head.query == "x=1&y");
  CHECK(head.scheme.empty());
  CHECK(head.authority == "Example.test:8080");
  CHECK(head.host == "Example.test");
  CHECK(head.port == "8080");
  CHECK(head.minor_version == 1);
  CHECK(head.framing == BodyFraming::kLength);
  CHECK(head.content_length == 12);
  CHECK(head.keep_alive);
  CHECK_FALSE(head.expect_continue);
  CHECK_FALSE(head.has_upgrade);
  REQUIRE(head.fields.size() == 4);
  CHECK(head.fields[3].name == "X-A");
  CHECK(head.fields[3].value == "one");
  CHECK(head.fields[2].hop_by_hop);
  CHECK_FALSE(head.fields[1].hop_by_hop);
}

TEST_CASE("a used head is filled anew") {
  REQUIRE(parse("POST /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n"
                "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n")
              .state == State::kComplete);
  CHECK(head.expect_continue);
  CHECK(head.has_upgrade);
  REQUIRE(parse("GET / HTTP/1.0\r\n\r\n").state == State::kComplete);
  CHECK(head.framing == BodyFraming::kNone);
  CHECK(head.content_length == 0);
  CHECK_FALSE(head.has_query);
  CHECK_FALSE(head.expect_continue);
  CHECK_FALSE(head.has_upgrade);
  CHECK_FALSE(head.keep_alive);
  CHECK(head.host.empty());
  CHECK(head.fields.empty());
}

TEST_CASE("target forms") {
  REQUIRE(parse("GET https://A.test:1/p?q HTTP/1.1\r\nHost: a.test:1\r\n\r\n").state ==
          State::kComplete);
  CHECK(head.scheme == "https");
  CHECK(head.authority == "A.test:1");
  CHECK(head.host == "A.test");
  CHECK(head.port == "1");
  CHECK(head.path == "/p");
  CHECK(head.query == "q");
  REQUIRE(parse("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n").state == State::kComplete);
  CHECK(head.method == Method::kConnect);
  CHECK(head.host == "a.test");
  CHECK(head.port == "443");
  CHECK(head.path.empty());
  REQUIRE(parse("GET http://a.test/ HTTP/1.0\r\n\r\n").state == State::kComplete);
  CHECK(head.host == "a.test");
  REQUIRE(parse("GET / HTTP/1.1\r\nHost: [2001:db8::1]:99\r\n\r\n").state == State::kComplete);
  CHECK(head.host == "[2001:db8::1]");
  CHECK(head.port == "99");
}

TEST_CASE("keep-alive follows version and options") {
  const auto keeps = [](std::string_view version, std::string_view connection) {
    const std::string text =
        "GET / HTTP/" + std::string(version) + "\r\nHost: a\r\n" + std::string(connection) + "\r\n";
    REQUIRE(parse(text).state == State::kComplete);
    return head.keep_alive;
  };
  CHECK(keeps("1.1", ""));
  CHECK(keeps("1.1", "Connection: x\r\n"));
  CHECK_FALSE(keeps("1.1", "Connection: CLOSE\r\n"));
  CHECK_FALSE(keeps("1.1", "Connection: keep-alive, close\r\n"));
  CHECK_FALSE(keeps("1.1", "Connection: keep-alive\r\nConnection: close\r\n"));
  CHECK_FALSE(keeps("1.0", ""));
  CHECK(keeps("1.0", "Connection: keep-alive\r\n"));
  CHECK_FALSE(keeps("1.0", "Connection: keep-alive, close\r\n"));
  CHECK_FALSE(keeps("1.0", "Proxy-Connection: keep-alive\r\n"));
}

TEST_CASE("an upgrade needs both fields and HTTP/1.1") {
  const auto upgrades = [](std::string_view line) {
    const std::string text = std::string(line);
    REQUIRE(parse(text).state == State::kComplete);
    return head.has_upgrade;
  };
  CHECK(upgrades("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, upgrade\r\nUpgrade: w\r\n\r\n"));
  CHECK_FALSE(upgrades("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: w\r\n\r\n"));
  CHECK_FALSE(upgrades("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n"));
  CHECK_FALSE(upgrades("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: w\r\n\r\n"));
}

TEST_CASE("an expectation is only waited for with content in HTTP/1.1") {
  const auto waits = [](const std::string& text) {
    REQUIRE(parse(text).state == State::kComplete);
    return head.expect_continue;
  };
  const std::string fields = "Host: a\r\nExpect: 100-continue\r\n";
  CHECK(waits("PUT / HTTP/1.1\r\n" + fields + "Content-Length: 1\r\n\r\n"));
  CHECK(waits("PUT / HTTP/1.1\r\n" + fields + "Transfer-Encoding: chunked\r\n\r\n"));
  CHECK_FALSE(waits("PUT / HTTP/1.1\r\n" + fields + "Content-Length: 0\r\n\r\n"));
  CHECK_FALSE(waits("PUT / HTTP/1.1\r\n" + fields + "\r\n"));
  CHECK_FALSE(waits("PUT / HTTP/1.0\r\n" + fields + "Content-Length: 1\r\n\r\n"));
}

TEST_CASE("nominated fields are marked wherever they stand") {
  REQUIRE(parse("GET / HTTP/1.1\r\nX-A: 1\r\nHost: a\r\nConnection: x-a, x-b,host\r\nX-B: 2\r\n"
                "X-C: 3\r\nX-B: 4\r\n\r\n")
              .state == State::kComplete);
  for (const Field& field : head.fields) {
    const bool ends = field.name == "X-A" || field.name == "X-B" || field.name == "Connection";
    INFO(field.name);
    CHECK(field.hop_by_hop == ends);
  }
}

TEST_CASE("limits of a request head are exact") {
  const std::string text = "GET /abc HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\n";
  const auto size = static_cast<uint32_t>(text.size());
  h1::HeadLimits limits;
  limits.head_bytes_max = size;
  limits.request_line_bytes_max = 17;
  limits.fields_max = 2;
  CHECK(parse(text, limits).state == State::kComplete);

  limits.head_bytes_max = size - 1;
  CHECK(parse(text, limits).status == 431);
  CHECK(parse(text.substr(0, size - 1), limits).status == 431);
  CHECK(parse(text.substr(0, size - 2), limits).state == State::kNeedMore);
  limits.head_bytes_max = size;

  limits.request_line_bytes_max = 16;
  CHECK(parse(text, limits).status == 414);
  CHECK(parse("GET /abc HTTP/1.1\r", limits).status == 414);
  CHECK(parse("GET /abc HTTP/1.1", limits).state == State::kNeedMore);
  limits.request_line_bytes_max = 17;

  limits.fields_max = 1;
  CHECK(parse(text, limits).status == 431);
  CHECK(parse("GET /abc HTTP/1.1\r\nHost: a\r\nX-A: b\r\n", limits).status == 431);
  CHECK(parse("GET /abc HTTP/1.1\r\nHost: a\r\nX-A: b\r", limits).state == State::kNeedMore);

  std::string many = "GET / HTTP/1.1\r\nHost: a\r\n";
  for (size_t i = 1; i < FieldTable::kFieldsMax; ++i) many += "a: b\r\n";
  limits = {};
  limits.fields_max = 1000;  // the table is the limit then
  CHECK(parse(many + "\r\n", limits).state == State::kComplete);
  CHECK(parse(many + "a: b\r\n\r\n", limits).status == 431);
}

TEST_CASE("nothing is parsed again while no line ends") {
  std::string text = "GET / HTTP/1.1\r\nHost: a\r\nX-A: ";
  RequestHead fresh;
  CHECK(h1::parse_request_head(text, 0, {}, fresh).state == State::kNeedMore);
  CHECK(fresh.fields.size() == 1);
  fresh.reset();
  const size_t scanned = text.size();
  text += "more";
  CHECK(h1::parse_request_head(text, scanned, {}, fresh).state == State::kNeedMore);
  CHECK(fresh.fields.empty());  // untouched: the head was not read
  text += "\r\n";
  CHECK(h1::parse_request_head(text, scanned, {}, fresh).state == State::kNeedMore);
  CHECK(fresh.fields.size() == 2);
}

TEST_CASE("a bad line is answered as soon as it is whole") {
  CHECK(parse("GET / HTTP/9.1\r\n").status == 505);
  CHECK(parse("GET / HTTP/1.1\n").status == 400);
  CHECK(parse("GET / HTTP/1.1\r\nX A: b\r\n").status == 400);
  CHECK(parse("GET / HTTP/1.1\r\nX A: b").state == State::kNeedMore);
  CHECK(parse("GET / HTTP/1.1\r\nContent-Length: x\r\n").status == 400);
  CHECK(parse("").state == State::kNeedMore);
  CHECK(parse("\r").state == State::kNeedMore);
  CHECK(parse("\r\n").state == State::kNeedMore);
}

TEST_CASE("each byte is judged in each place") {
  for (int c = 0; c < 256; ++c) {
    const std::string byte(1, static_cast<char>(c));
    const auto verdict = [&](const std::string& text) { return parse(text).state; };
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    const bool token = letter || (c != 0 && std::string("!#$%&'*+-.^_`|~").find(byte) != byte.npos);
    const bool visible = c > 0x20 && c < 0x7f;
    INFO("byte " << c);
    // A colon in a name ends it, which is fine too.
    const bool name = token || c == ':';
    const bool value = visible || c == ' ' || c == '\t' || c >= 0x80;
    for (const std::string pad : {"", "0123456789abcdef", "0123456789abcdefghi"}) {
      const std::string head_end = "\r\nHost: a\r\n\r\n";
      const std::string before = "GET / HTTP/1.1\r\nHost: a\r\n";
      CHECK((verdict("GET /" + pad + byte + pad + " HTTP/1.1" + head_end) == State::kComplete) ==
            (visible && c != '#'));
      CHECK((verdict(before + "n" + pad + byte + pad + "n: v\r\n\r\n") == State::kComplete) ==
            name);
      CHECK((verdict(before + "n: v" + pad + byte + pad + "v\r\n\r\n") == State::kComplete) ==
            value);
    }
    CHECK((verdict("G" + byte + "T / HTTP/1.1\r\nHost: a\r\n\r\n") == State::kComplete) == token);
  }
}

}  // namespace weir::http
