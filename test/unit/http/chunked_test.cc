#include <weir/http/h1/chunked.h>

#include <catch2/catch_test_macros.hpp>

#include <string>

#include "feeding.h"

namespace weir::http {

using h1::ChunkedDecoder;
using State = ChunkedDecoder::State;
using test::decode;

TEST_CASE("content is found however the bytes are cut") {
  const std::string body =
      "5\r\nhello\r\n1;a=\"b\"\r\n \r\n10\r\n0123456789abcdef\r\n0\r\nX-A: b\r\n\r\n";
  for (size_t step = 1; step <= body.size(); ++step) {
    ChunkedDecoder decoder;
    const auto decoded = decode(decoder, body + "next", step);
    INFO("steps of " << step);
    CHECK(decoded.state == State::kEnd);
    CHECK(decoded.content == "hello 0123456789abcdef");
    CHECK(decoded.consumed == body.size());
    CHECK(decoder.content_bytes() == 22);
    CHECK(decoder.ended());
    REQUIRE(decoder.trailers() != nullptr);
    REQUIRE(decoder.trailers()->size() == 1);
    CHECK((*decoder.trailers())[0].name == "X-A");
    CHECK((*decoder.trailers())[0].value == "b");
  }
}

TEST_CASE("data are views into the input") {
  ChunkedDecoder decoder;
  const std::string in = "5\r\nhello\r\n0\r\n\r\n";
  const auto out = decoder.feed(in);
  CHECK(out.state == State::kData);
  CHECK(out.data.data() == in.data() + 3);
  CHECK(out.consumed == 8);
  const auto rest = decoder.feed(std::string_view(in).substr(out.consumed));
  CHECK(rest.state == State::kEnd);
  CHECK(rest.consumed == 7);
  CHECK(decoder.trailers() == nullptr);
}

TEST_CASE("an ended or failed decoder stays so until it is reset") {
  ChunkedDecoder decoder;
  CHECK(decode(decoder, "0\r\n\r\n", 5).state == State::kEnd);
  CHECK(decoder.feed("5\r\n").state == State::kEnd);
  CHECK(decoder.feed("5\r\n").consumed == 0);
  CHECK(decoder.feed("").state == State::kEnd);
  decoder.reset();
  CHECK_FALSE(decoder.ended());
  CHECK(decode(decoder, "x", 1).state == State::kError);
  CHECK(decoder.feed("0\r\n\r\n").state == State::kError);
  CHECK(decoder.feed("").state == State::kError);
  decoder.reset();
  CHECK(decode(decoder, "0\r\n\r\n", 1).state == State::kEnd);
}

TEST_CASE("content may be taken past the decoder") {
  ChunkedDecoder decoder;
  CHECK(decoder.feed("ffff\r\n").state == State::kNeedMore);
  CHECK(decoder.chunk_bytes_left() == 0xffff);
  decoder.skip(0xfffe);
  CHECK(decoder.chunk_bytes_left() == 1);
  const auto out = decoder.feed("x\r\n0\r\n\r\n");
  CHECK(out.state == State::kData);
  CHECK(out.data == "x");
  CHECK(decoder.chunk_bytes_left() == 0);
  CHECK(decoder.feed("\r\n0\r\n\r\n").state == State::kEnd);
  CHECK(decoder.content_bytes() == 0xffff);
}

TEST_CASE("refusals say why") {
  const auto reason = [](const std::string& body) {
    ChunkedDecoder decoder;
    const auto decoded = decode(decoder, body, 1);
    CHECK(decoded.state == State::kError);
    return decoded.reason;
  };
  CHECK(reason("5\n") == "bare LF in a chunk line");
  CHECK(reason("5;a\n") == "bare LF in a chunk line");
  CHECK(reason("5\rx") == "bare CR in a chunk line");
  CHECK(reason("\r\n") == "no chunk size");
  CHECK(reason("5 \r\n") == "bad character in a chunk size");
  CHECK(reason("5;\r\n") == "bad chunk extension");
  CHECK(reason("1\r\nxy") == "chunk longer than its size");
  CHECK(reason("0\r\nX A: b\r\n") == "white space in a field name or before its colon");
}

TEST_CASE("chunk sizes end at 2^63 - 1, all together") {
  ChunkedDecoder decoder;
  CHECK(decode(decoder, "7fffffffffffffff\r\n", 1).state == State::kNeedMore);
  CHECK(decoder.chunk_bytes_left() == 0x7fffffffffffffff);
  decoder.skip(0x7fffffffffffffff);
  const auto more = decode(decoder, "\r\n1\r\n", 5);
  CHECK(more.state == State::kError);
  CHECK(more.reason == "chunk size too large");
  ChunkedDecoder second;
  CHECK(decode(second, "8000000000000000\r\n", 1).state == State::kError);
  ChunkedDecoder third;
  CHECK(decode(third, "00000000000000001\r\n", 1).state == State::kError);
}

TEST_CASE("limits of chunk lines are exact") {
  h1::ChunkedLimits limits;
  limits.line_bytes_max = 6;
  limits.extension_bytes_max = 9;
  const auto verdict = [&](const std::string& body) {
    ChunkedDecoder whole(limits);
    const auto decoded = decode(whole, body, body.size());
    ChunkedDecoder dripped(limits);
    const auto again = decode(dripped, body, 1);
    CHECK(decoded.state == again.state);
    CHECK(decoded.content == again.content);
    CHECK(decoded.consumed == again.consumed);
    return decoded.state;
  };
  CHECK(verdict("1;abcd\r\nx\r\n0\r\n\r\n") == State::kEnd);
  CHECK(verdict("1;abcde\r\nx\r\n0\r\n\r\n") == State::kError);
  CHECK(verdict("1;abcd\r\nx\r\n0;abc\r\n\r\n") == State::kEnd);
  CHECK(verdict("1;abcd\r\nx\r\n0;abcd\r\n\r\n") == State::kError);
}

TEST_CASE("limits of trailers are exact") {
  h1::ChunkedLimits limits;
  limits.trailer_bytes_max = 16;
  limits.trailer_fields_max = 2;
  const auto run = [&](const std::string& trailers) {
    ChunkedDecoder decoder(limits);
    const auto dripped = decode(decoder, "0\r\n" + trailers, 1);
    ChunkedDecoder again(limits);
    const auto whole = decode(again, "0\r\n" + trailers, 100);
    CHECK(whole.state == dripped.state);
    CHECK(whole.status == dripped.status);
    return dripped;
  };
  CHECK(run("a: 456789012\r\n\r\n").state == State::kEnd);
  CHECK(run("a: 4567890123\r\n\r\n").status == 431);
  CHECK(run("a: 1\r\nb: 2\r\n\r\n").state == State::kEnd);
  CHECK(run("a:1\r\nb:2\r\nc:3\r\n").status == 431);
  // Dropped fields count as well.
  CHECK(run("te:\r\nte:\r\nte:\r\n").status == 431);
}

TEST_CASE("trailer fields by name") {
  for (const char* name : {"X-Sum", "Server-Timing", "Digest", "grpc-status", "ETag", "x_y"}) {
    INFO(name);
    CHECK(h1::trailer_allowed(name));
  }
  for (const char* name : {"Host",
                           "Content-Length",
                           "Content-Whatever",
                           "content_whatever",
                           "Transfer-Encoding",
                           "TE",
                           "Trailer",
                           "Connection",
                           "Authorization",
                           "Set-Cookie",
                           "Cookie",
                           "X-Forwarded-For",
                           "X-Forwarded-Anything",
                           "X_Forwarded_Anything",
                           "X-Real-Name",
                           "Via",
                           "Forwarded",
                           "Proxy-Anything",
                           "If-Anything",
                           "Sec-WebSocket-Key",
                           "Cache-Control",
                           "Max-Forwards",
                           "Max_Forwards",
                           "Expect",
                           "Range",
                           "Location",
                           "Age",
                           "Date",
                           "Vary"}) {
    INFO(name);
    CHECK_FALSE(h1::trailer_allowed(name));
  }
}

TEST_CASE("a moved decoder goes on") {
  ChunkedDecoder first;
  CHECK(first.feed("3\r\n").state == State::kNeedMore);
  ChunkedDecoder second = std::move(first);
  CHECK(second.feed("abc").data == "abc");
  CHECK(decode(second, "\r\n0\r\nX-A: b\r\n\r\n", 3).state == State::kEnd);
  const ChunkedDecoder third = std::move(second);
  REQUIRE(third.trailers() != nullptr);
  CHECK((*third.trailers())[0].value == "b");
}

TEST_CASE("what is written is read again") {
  char line[h1::kChunkHeadBytesMax];
  const auto written = [&](uint64_t size) {
    return std::string(line, h1::write_chunk_head(line, size));
  };
  CHECK(written(1) == "1\r\n");
  CHECK(written(0xabc) == "abc\r\n");
  CHECK(written(UINT64_MAX) == "ffffffffffffffff\r\n");

  FieldTable trailers;
  CHECK(trailers.push({"X-A", "b c", KnownField::kOther, false}));
  CHECK(trailers.push({"X-Gone", "d", KnownField::kOther, true}));
  char space[64];
  base::ByteWriter out(space, sizeof space);
  h1::append_last_chunk(out, &trailers);
  CHECK(out.view() == "0\r\nX-A: b c\r\n\r\n");
  ChunkedDecoder decoder;
  CHECK(decode(decoder, written(2) + "hi" + std::string(h1::kChunkEnd) + std::string(out.view()), 4)
            .content == "hi");
  REQUIRE(decoder.trailers() != nullptr);
  CHECK((*decoder.trailers())[0].value == "b c");

  base::ByteWriter plain(space, sizeof space);
  h1::append_last_chunk(plain, nullptr);
  CHECK(plain.view() == h1::kLastChunk);
}

}  // namespace weir::http
