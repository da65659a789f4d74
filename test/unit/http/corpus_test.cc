// The parsers against test/corpus, fed whole, byte by byte, and in pieces of 7.
#include <weir/base/text.h>
#include <weir/http/h1/chunked.h>
#include <weir/http/h1/parser.h>
#include <weir/http/uri.h>

#include <catch2/catch_test_macros.hpp>

#include "corpus.h"
#include "feeding.h"

namespace weir::http {

namespace {

using test::CorpusCase;
using test::Exact;
using State = h1::ParseResult::State;
using ChunkState = h1::ChunkedDecoder::State;

// What became of one message.
struct Outcome {
  std::string expect;  // in the words of the corpus
  std::string level = "head";
  std::string reason;
  std::string origin;
  std::string body;
  size_t consumed = 0;
  int status = 0;
  bool reusable = false;
};

bool forwards(const FieldTable& fields, std::string_view name, const std::string* value) {
  for (const Field& field : fields) {
    if (!field.hop_by_hop && base::equals_ignore_case(field.name, name) &&
        (value == nullptr || field.value == *value)) {
      return true;
    }
  }
  return false;
}

void check_fields(const CorpusCase& c, const FieldTable& fields) {
  for (const auto& [name, value] : c.present) {
    INFO("present " << name);
    CHECK(forwards(fields, name, &value));
  }
  for (const std::string& name : c.absent) {
    INFO("absent " << name);
    CHECK_FALSE(forwards(fields, name, nullptr));
  }
}

void check_trailers(const CorpusCase& c, const FieldTable* trailers) {
  const FieldTable none;
  for (const auto& [name, value] : c.trailer) {
    INFO("trailer " << name);
    CHECK(forwards(trailers == nullptr ? none : *trailers, name, &value));
  }
  for (const std::string& name : c.no_trailer) {
    INFO("no-trailer " << name);
    CHECK_FALSE(forwards(trailers == nullptr ? none : *trailers, name, nullptr));
  }
}

// Reads the content after a head. Empty when it is complete, else "open" or the status of the
// error.
std::string read_content(const CorpusCase& c, BodyFraming framing, uint64_t length,
                         std::string_view rest, size_t step, Outcome& outcome) {
  switch (framing) {
    case BodyFraming::kNone: return "";
    case BodyFraming::kLength:
      outcome.body = rest.substr(0, length);
      outcome.consumed += outcome.body.size();
      return rest.size() < length ? "open" : "";
    case BodyFraming::kUntilClose:
      outcome.body = rest;
      outcome.consumed += rest.size();
      return "";
    case BodyFraming::kChunked: break;
  }
  h1::ChunkedDecoder decoder;
  const auto decoded = test::decode(decoder, rest, step);
  outcome.body = decoded.content;
  outcome.consumed += decoded.consumed;
  outcome.reason = decoded.reason;
  if (decoded.state == ChunkState::kError) return std::to_string(decoded.status);
  if (decoded.state != ChunkState::kEnd) return "open";
  check_trailers(c, decoder.trailers());
  return "";
}

Outcome run_request(const CorpusCase& c, std::string_view bytes, size_t step) {
  Outcome outcome;
  RequestHead head;
  std::unique_ptr<Exact> kept;
  const auto result = test::feed(bytes, step, kept, [&](std::string_view data, size_t scanned) {
    return h1::parse_request_head(data, scanned, {}, head);
  });
  outcome.reason = result.reason;
  if (result.state == State::kNeedMore) {
    outcome.expect = "408";
    outcome.level = "open";
    return outcome;
  }
  if (result.state == State::kError) {
    outcome.expect = std::to_string(result.status);
    return outcome;
  }
  outcome.consumed = result.consumed;
  check_fields(c, head.fields);
  if (head.method != Method::kConnect) {
    std::string scratch(head.path.size(), '\0');
    const auto path = normalise_path(head.path, scratch);
    if (!path) {
      outcome.expect = "400";
      outcome.level = "path";
      return outcome;
    }
    outcome.origin = std::string(head.method_text) + " " + std::string(path->path);
    if (head.has_query) outcome.origin += "?" + std::string(head.query);
  }
  const std::string content = read_content(c, head.framing, head.content_length,
                                           bytes.substr(result.consumed), step, outcome);
  outcome.expect = content.empty() ? "ok" : content == "open" ? "408" : content;
  outcome.level = content.empty() ? "head" : content == "open" ? "open" : "body";
  return outcome;
}

Outcome run_response(const CorpusCase& c, size_t step) {
  Outcome outcome;
  std::string_view rest = c.bytes;
  ResponseHead head;
  std::unique_ptr<Exact> kept;
  const Method method = classify_method(c.request);
  do {  // interim answers
    const auto result = test::feed(rest, step, kept, [&](std::string_view data, size_t scanned) {
      return h1::parse_response_head(data, scanned, {}, method, head);
    });
    outcome.reason = result.reason;
    if (result.state != State::kComplete) {  // the origin closes: nothing more will come
      outcome.expect = "502";
      if (result.state == State::kError) CHECK(result.status == 502);
      return outcome;
    }
    rest.remove_prefix(result.consumed);
  } while (head.status < 200 && head.status != 101);
  outcome.status = head.status;
  check_fields(c, head.fields);
  const std::string content =
      read_content(c, head.framing, head.content_length, rest, step, outcome);
  outcome.expect = content.empty() ? "ok" : "cut";
  outcome.reusable = head.keep_alive && outcome.consumed == rest.size();
  return outcome;
}

}  // namespace

TEST_CASE("requests of the corpus") {
  const auto cases = test::read_corpus("h1_requests.txt");
  CHECK(cases.size() >= 110);
  for (const CorpusCase& c : cases) {
    for (const size_t step : {c.bytes.size(), size_t{1}, size_t{7}}) {
      INFO("h1_requests.txt:" << c.line << " " << c.id << " in steps of " << step);
      const Outcome outcome = run_request(c, c.bytes, step);
      INFO("reason: " << outcome.reason);
      CHECK(outcome.expect == c.expect);
      CHECK(outcome.level == c.level);
      if (c.expect != "ok") continue;
      CHECK(outcome.origin == c.origin);
      CHECK(outcome.body == c.body);
      const std::string_view rest = std::string_view(c.bytes).substr(outcome.consumed);
      CHECK(rest.empty() == c.then.empty());
      if (!c.then.empty()) CHECK(run_request(CorpusCase{}, rest, step).expect == c.then);
    }
  }
}

TEST_CASE("responses of the corpus") {
  const auto cases = test::read_corpus("h1_responses.txt");
  CHECK(cases.size() >= 60);
  for (const CorpusCase& c : cases) {
    for (const size_t step : {c.bytes.size(), size_t{1}, size_t{7}}) {
      INFO("h1_responses.txt:" << c.line << " " << c.id << " in steps of " << step);
      const Outcome outcome = run_response(c, std::max<size_t>(step, 1));
      INFO("reason: " << outcome.reason);
      CHECK(outcome.expect == c.expect);
      if (c.expect != "ok") continue;
      CHECK(outcome.status == c.status);
      CHECK(outcome.body == c.body);
      if (c.status != 101) CHECK(outcome.reusable == c.reuse);
    }
  }
}

}  // namespace weir::http
