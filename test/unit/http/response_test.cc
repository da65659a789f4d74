// What the corpus cannot say about answers: exact framing values, limits, resumption.
#include <weir/http/h1/parser.h>

#include <catch2/catch_test_macros.hpp>

#include <string>

namespace weir::http {

using State = h1::ParseResult::State;

namespace {

ResponseHead head;

h1::ParseResult parse(std::string_view text, Method method = Method::kGet,
                      const h1::HeadLimits& limits = {}) {
  return h1::parse_response_head(text, 0, limits, method, head);
}

}  // namespace

TEST_CASE("a response head is read into the model") {
  const std::string text =
      "HTTP/1.1 404 Not  Found \r\nContent-Length: 7\r\nConnection: x-a\r\nX-A: 1\r\nX-B: "
      "2\r\n\r\nabc";
  const auto result = parse(text);
  REQUIRE(result.state == State::kComplete);
  CHECK(result.consumed == text.size() - 3);
  CHECK(head.status == 404);
  CHECK(head.reason == "Not  Found ");
  CHECK(head.minor_version == 1);
  CHECK(head.framing == BodyFraming::kLength);
  CHECK(head.content_length == 7);
  CHECK(head.keep_alive);
  REQUIRE(head.fields.size() == 4);
  CHECK(head.fields[2].hop_by_hop);
  CHECK_FALSE(head.fields[3].hop_by_hop);
}

TEST_CASE("framing follows status and request method") {
  const auto framing = [](std::string_view text, Method method = Method::kGet) {
    REQUIRE(parse(text, method).state == State::kComplete);
    return head.framing;
  };
  CHECK(framing("HTTP/1.1 200 OK\r\n\r\n") == BodyFraming::kUntilClose);
  CHECK_FALSE(head.keep_alive);
  CHECK(framing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") == BodyFraming::kChunked);
  CHECK(head.keep_alive);
  CHECK(framing("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Method::kHead) ==
        BodyFraming::kNone);
  CHECK(head.content_length == 3);
  CHECK(head.keep_alive);
  CHECK(framing("HTTP/1.1 304 x\r\nContent-Length: 3\r\n\r\n") == BodyFraming::kNone);
  CHECK(framing("HTTP/1.1 204 x\r\n\r\n") == BodyFraming::kNone);
  CHECK(framing("HTTP/1.1 100 x\r\n\r\n") == BodyFraming::kNone);
  CHECK(framing("HTTP/1.1 200 x\r\nContent-Length: 3\r\n\r\n", Method::kConnect) ==
        BodyFraming::kNone);
  CHECK(framing("HTTP/1.1 407 x\r\nContent-Length: 3\r\n\r\n", Method::kConnect) ==
        BodyFraming::kLength);
  CHECK(framing("HTTP/1.1 205 x\r\nContent-Length: 0\r\n\r\n") == BodyFraming::kLength);
}

TEST_CASE("an upgrade is told") {
  REQUIRE(parse("HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").state ==
          State::kComplete);
  CHECK(head.has_upgrade);
  REQUIRE(head.fields.find(KnownField::kUpgrade) != nullptr);
  CHECK(head.fields.find(KnownField::kUpgrade)->value == "websocket");
  REQUIRE(parse("HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n").state == State::kComplete);
  CHECK_FALSE(head.has_upgrade);
}

TEST_CASE("limits of a response head are exact, and every refusal is 502") {
  const std::string text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: b\r\n\r\n";
  h1::HeadLimits limits;
  limits.head_bytes_max = static_cast<uint32_t>(text.size());
  limits.request_line_bytes_max = 15;
  limits.fields_max = 2;
  CHECK(parse(text, Method::kGet, limits).state == State::kComplete);
  --limits.head_bytes_max;
  CHECK(parse(text, Method::kGet, limits).status == 502);
  CHECK(parse(text.substr(0, text.size() - 2), Method::kGet, limits).state == State::kNeedMore);
  ++limits.head_bytes_max;
  limits.request_line_bytes_max = 14;
  CHECK(parse(text, Method::kGet, limits).status == 502);
  limits.request_line_bytes_max = 15;
  limits.fields_max = 1;
  CHECK(parse(text, Method::kGet, limits).status == 502);
}

TEST_CASE("a response is not parsed again while no line ends") {
  std::string text = "HTTP/1.1 200 OK\r\nX-A: b\r\nX-";
  ResponseHead fresh;
  CHECK(h1::parse_response_head(text, 0, {}, Method::kGet, fresh).state == State::kNeedMore);
  CHECK(fresh.fields.size() == 1);
  fresh.reset();
  CHECK(h1::parse_response_head(text + "B", text.size(), {}, Method::kGet, fresh).state ==
        State::kNeedMore);
  CHECK(fresh.fields.empty());
}

TEST_CASE("something else than HTTP is told at its first byte") {
  CHECK(parse("S").status == 502);
  CHECK(parse("H").state == State::kNeedMore);
  CHECK(parse("").state == State::kNeedMore);
}

}  // namespace weir::http
