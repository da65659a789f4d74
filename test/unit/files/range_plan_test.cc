#include <weir/files/range.h>

#include <catch2/catch_test_macros.hpp>

#include <optional>
#include <string>
#include <vector>

#include <weir/base/prng.h>
#include <weir/base/text.h>

namespace weir::files {

namespace {

const Boundary kBoundary(0x0123456789abcdef, 0xfedcba9876543210);

std::string file_of(size_t size) {
  base::Prng prng(size);
  std::string bytes;
  for (size_t i = 0; i < size; ++i) bytes += static_cast<char>(prng.below(256));
  return bytes;
}

// The body as it would be sent.
std::string body_of(const BodyPlan& plan, std::string_view file) {
  std::string body;
  for (const BodyPiece& piece : plan.pieces) {
    CHECK(piece.size != 0);
    body += piece.from_file ? file.substr(piece.offset, piece.size) : plan.literal(piece);
  }
  CHECK(body.size() == plan.length);
  return body;
}

BodyPlan plan_of(std::string_view range, size_t size, std::string_view type = "text/plain") {
  return plan_body(select_ranges(range, size), type, kBoundary);
}

struct Part {
  std::string type;
  uint64_t first = 0;
  uint64_t last = 0;
  uint64_t size = 0;  // of the file
  std::string bytes;
};

std::string take(std::string_view& rest, std::string_view until) {
  const size_t at = rest.find(until);
  REQUIRE(at != std::string_view::npos);
  const std::string before(rest.substr(0, at));
  rest.remove_prefix(at + until.size());
  return before;
}

// Reads multipart/byteranges as a client would: by the delimiters (RFC 2046 5.1.1), not by lengths.
std::vector<Part> parse_multipart(std::string_view body, std::string_view content_type) {
  constexpr std::string_view kType = "multipart/byteranges; boundary=";
  REQUIRE(content_type.starts_with(kType));
  const std::string delimiter = "\r\n--" + std::string(content_type.substr(kType.size()));
  const std::string with_first_line_break = "\r\n" + std::string(body);
  std::string_view rest = with_first_line_break;
  CHECK(take(rest, delimiter).empty());
  std::vector<Part> parts;
  while (!rest.starts_with("--")) {
    CHECK(take(rest, "\r\n").empty());
    Part part;
    for (std::string line = take(rest, "\r\n"); !line.empty(); line = take(rest, "\r\n")) {
      std::string_view field = line;
      const std::string name = take(field, ": ");
      if (name == "Content-Type") {
        part.type = field;
      } else {
        CHECK(name == "Content-Range");
        CHECK(take(field, " ") == "bytes");
        part.first = base::parse_decimal(take(field, "-")).value_or(UINT64_MAX);
        part.last = base::parse_decimal(take(field, "/")).value_or(UINT64_MAX);
        part.size = base::parse_decimal(field).value_or(UINT64_MAX);
      }
    }
    part.bytes = take(rest, delimiter);
    parts.push_back(part);
  }
  CHECK(rest == "--\r\n");
  return parts;
}

}  // namespace

TEST_CASE("a boundary is 128 bits in hex") {
  CHECK(kBoundary.view() == "0123456789abcdeffedcba9876543210");
  CHECK(Boundary(0, 1).view() == "00000000000000000000000000000001");
}

TEST_CASE("the whole file") {
  const std::string file = file_of(100);
  const BodyPlan plan = plan_of("", file.size());
  CHECK(plan.status == 200);
  CHECK(plan.content_range.empty());
  CHECK(plan.content_type.empty());
  CHECK(body_of(plan, file) == file);
  const BodyPlan empty = plan_of("", 0);
  CHECK(empty.status == 200);
  CHECK(empty.length == 0);
  CHECK(empty.pieces.empty());
}

TEST_CASE("a range that cannot be satisfied") {
  const BodyPlan plan = plan_of("bytes=100-", 100);
  CHECK(plan.status == 416);
  CHECK(plan.content_range == "bytes */100");
  CHECK(plan.pieces.empty());
  CHECK(plan.length == 0);
  CHECK(plan_of("bytes=0-", 0).content_range == "bytes */0");
}

TEST_CASE("one range is never multipart") {
  const std::string file = file_of(1000);
  const BodyPlan plan = plan_of("bytes=21-30", file.size());
  CHECK(plan.status == 206);
  CHECK(plan.content_range == "bytes 21-30/1000");
  CHECK(plan.content_type.empty());
  CHECK(body_of(plan, file) == file.substr(21, 10));
  const BodyPlan merged = plan_of("bytes=10-19,20-29", file.size());
  CHECK(merged.content_range == "bytes 10-29/1000");
  CHECK(merged.pieces.size() == 1);
  const BodyPlan last = plan_of("bytes=-1", UINT64_MAX);
  CHECK(last.content_range ==
        "bytes 18446744073709551614-18446744073709551614/18446744073709551615");
  CHECK(last.length == 1);
}

TEST_CASE("several ranges, byte for byte") {
  const BodyPlan plan = plan_of("bytes=0-1,5-7", 10, "text/html; charset=utf-8");
  CHECK(plan.status == 206);
  CHECK(plan.content_range.empty());  // RFC 9110 15.3.7.2: never in the head of a multipart
  CHECK(plan.content_type == "multipart/byteranges; boundary=0123456789abcdeffedcba9876543210");
  CHECK(body_of(plan, "abcdefghij") ==
        "--0123456789abcdeffedcba9876543210\r\n"
        "Content-Type: text/html; charset=utf-8\r\n"
        "Content-Range: bytes 0-1/10\r\n"
        "\r\n"
        "ab\r\n"
        "--0123456789abcdeffedcba9876543210\r\n"
        "Content-Type: text/html; charset=utf-8\r\n"
        "Content-Range: bytes 5-7/10\r\n"
        "\r\n"
        "fgh\r\n"
        "--0123456789abcdeffedcba9876543210--\r\n");
}

TEST_CASE("without a content type the parts have none") {
  const BodyPlan plan = plan_of("bytes=0-0,2-2", 10, "");
  CHECK(body_of(plan, "abcdefghij").find("Content-Type") == std::string::npos);
  CHECK(parse_multipart(body_of(plan, "abcdefghij"), plan.content_type).size() == 2);
}

TEST_CASE("random plans give a client exactly what it asked for") {
  base::Prng prng(2046);
  size_t multipart = 0;
  for (int i = 0; i < 10000; ++i) {
    const std::string file = file_of(1 + prng.below(400));
    std::string value = "bytes=";
    const size_t count = 1 + prng.below(20);
    for (size_t range = 0; range < count; ++range) {
      const uint64_t first = prng.below(file.size());
      if (range != 0) value += ',';
      value += std::to_string(first) + "-" + std::to_string(first + prng.below(9));
    }
    INFO(value << " of " << file.size());
    const RangeSelection selection = select_ranges(value, file.size());
    const BodyPlan plan = plan_body(selection, "video/mp4", kBoundary);
    const std::string body = body_of(plan, file);
    if (selection.verdict == RangeVerdict::kWhole) {
      CHECK(body == file);
      continue;
    }
    if (selection.count == 1) {
      CHECK(body == file.substr(selection.ranges()[0].offset, selection.ranges()[0].size));
      continue;
    }
    ++multipart;
    const std::vector<Part> parts = parse_multipart(body, plan.content_type);
    REQUIRE(parts.size() == selection.count);
    for (size_t part = 0; part < parts.size(); ++part) {
      const FileRange& range = selection.ranges()[part];
      CHECK(parts[part].type == "video/mp4");
      CHECK(parts[part].size == file.size());
      CHECK(parts[part].first == range.offset);
      CHECK(parts[part].last == range.offset + range.size - 1);
      CHECK(parts[part].bytes == file.substr(range.offset, range.size));
    }
  }
  CHECK(multipart > 1000);
}

}  // namespace weir::files
