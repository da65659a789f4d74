#include <string>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <body_reader.h>

#include <weir/base/prng.h>

using namespace weir;
using http::BodyFraming;
using proxy::BodyReader;

namespace {

struct Outcome {
  std::string content;
  std::string rest;  // not consumed
  bool complete = false;
  uint16_t error = 0;
};

// Feeds `text` in pieces of at most `most` bytes.
Outcome feed(BodyReader& reader, std::string_view text, size_t most) {
  Outcome outcome;
  while (!text.empty() && !reader.complete()) {
    std::string_view piece = text.substr(0, most);
    while (!piece.empty() && !reader.complete()) {
      const BodyReader::Piece got = reader.take(piece);
      outcome.content.append(got.data);
      outcome.error = got.error_status;
      if (got.error_status != 0) return outcome;
      piece.remove_prefix(got.consumed);
      text.remove_prefix(got.consumed);
      CHECK(got.complete == reader.complete());
      if (got.consumed == 0) break;
    }
  }
  outcome.rest = text;
  outcome.complete = reader.complete();
  return outcome;
}

}  // namespace

TEST_CASE("without a body nothing is taken") {
  BodyReader reader;
  CHECK(reader.complete());
  reader.start(BodyFraming::kNone, 0);
  const auto piece = reader.take("GET / HTTP/1.1");
  CHECK(piece.complete);
  CHECK(piece.consumed == 0);
  CHECK(piece.data.empty());
  reader.start(BodyFraming::kLength, 0);
  CHECK(reader.complete());
  CHECK(reader.end_completes());
}

TEST_CASE("a length is taken to the byte, whatever the pieces") {
  const size_t most = GENERATE(1u, 3u, 7u, 100u);
  BodyReader reader;
  reader.start(BodyFraming::kLength, 11);
  CHECK(reader.left() == 11);
  CHECK_FALSE(reader.end_completes());
  const Outcome outcome = feed(reader, "hello worldGET /", most);
  CHECK(outcome.complete);
  CHECK(outcome.content == "hello world");
  CHECK(outcome.rest == "GET /");
  CHECK(reader.left() == 0);
  CHECK(reader.content_bytes() == 11);
  CHECK(reader.trailers() == nullptr);
}

TEST_CASE("chunks are decoded, trailers kept, the next message left alone") {
  const size_t most = GENERATE(1u, 2u, 5u, 1000u);
  BodyReader reader;
  reader.start(BodyFraming::kChunked, 0);
  CHECK(reader.left() == UINT64_MAX);
  const Outcome outcome = feed(
      reader, "5;x=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\nNEXT", most);
  CHECK(outcome.complete);
  CHECK(outcome.content == "hello world");
  CHECK(outcome.rest == "NEXT");
  CHECK(reader.content_bytes() == 11);
  REQUIRE(reader.trailers() != nullptr);
  CHECK(reader.trailers()->find("x-sum") != nullptr);
  CHECK(reader.trailers()->find("host") == nullptr);
  reader.start(BodyFraming::kChunked, 0);
  CHECK_FALSE(reader.complete());
  CHECK(reader.trailers() == nullptr);
  CHECK(reader.content_bytes() == 0);
}

TEST_CASE("lost framing is an error with its status, and stays one") {
  BodyReader reader;
  reader.start(BodyFraming::kChunked, 0);
  const Outcome outcome = feed(reader, "5\r\nhello\r\nZZ\r\n", 4);
  CHECK(outcome.error == 400);
  CHECK_FALSE(outcome.complete);
  CHECK(reader.take("0\r\n\r\n").error_status == 400);
  CHECK_FALSE(reader.end_completes());
}

TEST_CASE("until close: all is content, and only the end completes it") {
  BodyReader reader;
  reader.start(BodyFraming::kUntilClose, 0);
  const Outcome outcome = feed(reader, "0\r\n\r\nHTTP/1.1 200", 3);
  CHECK(outcome.content == "0\r\n\r\nHTTP/1.1 200");
  CHECK_FALSE(outcome.complete);
  CHECK(reader.end_completes());
  reader.finish();
  CHECK(reader.complete());
  CHECK(reader.content_bytes() == 17);
}

TEST_CASE("what is moved past it counts") {
  BodyReader reader;
  reader.start(BodyFraming::kLength, 100);
  reader.note_direct(60);
  CHECK(reader.left() == 40);
  CHECK(reader.take(std::string(50, 'x')).consumed == 40);
  CHECK(reader.complete());
  CHECK(reader.content_bytes() == 100);
  reader.start(BodyFraming::kUntilClose, 0);
  reader.note_direct(1000);
  CHECK(reader.content_bytes() == 1000);
  CHECK_FALSE(reader.complete());
}

TEST_CASE("a huge length does not overflow") {
  BodyReader reader;
  reader.start(BodyFraming::kLength, UINT64_MAX - 1);
  CHECK(reader.take("abc").consumed == 3);
  CHECK(reader.left() == UINT64_MAX - 4);
}
