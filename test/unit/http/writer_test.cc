#include <weir/base/byte_writer.h>
#include <weir/http/h1/writer.h>

#include <catch2/catch_test_macros.hpp>

#include <ctime>
#include <string>

namespace weir::http {

using base::ByteWriter;

TEST_CASE("a byte writer counts what does not fit and writes nothing more") {
  char space[8];
  ByteWriter out(space, sizeof space);
  out.append("abc");
  out.append('d');
  out.append_decimal(90);
  CHECK(out.view() == "abcd90");
  CHECK_FALSE(out.overflowed());
  out.append("xyz");
  CHECK(out.overflowed());
  CHECK(out.size() == 6);
  CHECK(out.needed() == 9);
  out.append('!');  // would fit, but behind a gap
  CHECK(out.size() == 6);
  CHECK(out.needed() == 10);
  CHECK(out.reserve(1) == nullptr);
  CHECK(out.needed() == 11);

  ByteWriter exact(space, sizeof space);
  exact.append("01234567");
  CHECK_FALSE(exact.overflowed());
  exact.append("");
  CHECK_FALSE(exact.overflowed());
  ByteWriter none(nullptr, 0);
  none.append("");
  CHECK_FALSE(none.overflowed());
  none.append_hex(255);
  CHECK(none.needed() == 2);
  ByteWriter numbers(space, sizeof space);
  numbers.append_hex(0xbeef);
  char* place = numbers.reserve(2);
  REQUIRE(place != nullptr);
  place[0] = place[1] = '.';
  numbers.append_decimal(0);
  CHECK(numbers.view() == "beef..0");
}

TEST_CASE("lines of a head") {
  char space[256];
  ByteWriter out(space, sizeof space);
  h1::append_status_line(out, 200);
  h1::append_status_line(out, 404, "Nope");
  h1::append_status_line(out, 299);
  h1::append_field(out, "X-A", "b");
  h1::append_field(out, "Content-Length", uint64_t{18446744073709551615U});
  h1::append_end(out);
  CHECK(out.view() ==
        "HTTP/1.1 200 OK\r\nHTTP/1.1 404 Nope\r\nHTTP/1.1 299 \r\nX-A: b\r\n"
        "Content-Length: 18446744073709551615\r\n\r\n");
  ByteWriter lines(space, sizeof space);
  h1::append_request_line(lines, "GET", "/a", false, "");
  h1::append_request_line(lines, "GET", "/a", true, "");
  h1::append_request_line(lines, "PURGE", "/a", true, "b=c");
  CHECK(lines.view() == "GET /a HTTP/1.1\r\nGET /a? HTTP/1.1\r\nPURGE /a?b=c HTTP/1.1\r\n");
}

TEST_CASE("reason phrases") {
  CHECK(h1::reason_phrase(100) == "Continue");
  CHECK(h1::reason_phrase(200) == "OK");
  CHECK(h1::reason_phrase(431) == "Request Header Fields Too Large");
  CHECK(h1::reason_phrase(502) == "Bad Gateway");
  CHECK(h1::reason_phrase(511) == "Network Authentication Required");
  for (const int none : {0, 99, 199, 299, 599, 600, 65535}) {
    CHECK(h1::reason_phrase(static_cast<uint16_t>(none)).empty());
  }
}

TEST_CASE("dates agree with the C library and are read again") {
  const auto date = [](int64_t seconds) {
    char text[h1::kHttpDateBytes];
    h1::format_http_date(text, seconds);
    return std::string(text, sizeof text);
  };
  CHECK(date(784111777) == "Sun, 06 Nov 1994 08:49:37 GMT");
  CHECK(date(0) == "Thu, 01 Jan 1970 00:00:00 GMT");
  CHECK(date(-1) == "Wed, 31 Dec 1969 23:59:59 GMT");
  CHECK(date(INT64_MAX) == "Fri, 31 Dec 9999 23:59:59 GMT");
  CHECK(date(INT64_MIN) == "Sat, 01 Jan 0000 00:00:00 GMT");
  for (int64_t seconds = -62167219200; seconds < 253402300800; seconds += 40000003) {
    const time_t when = seconds;
    std::tm broken{};
    gmtime_r(&when, &broken);
    char expected[64];
    std::strftime(expected, sizeof expected, "%a, %d %b ", &broken);
    char year[16];
    std::snprintf(year, sizeof year, "%04d", broken.tm_year + 1900);
    char rest[32];
    std::strftime(rest, sizeof rest, " %H:%M:%S GMT", &broken);
    const std::string text = date(seconds);
    REQUIRE(text == std::string(expected) + year + rest);
    const auto again = h1::parse_http_date(text);
    REQUIRE(again.has_value());
    REQUIRE(*again == seconds);
  }
}

TEST_CASE("dates that are not IMF-fixdate are refused") {
  CHECK(h1::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT") == 784111777);
  for (const char* bad : {"", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
                          "Mon, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 UTC",
                          "Sun, 06 Nov 1994 08:49:37 GMT ", "Sun, 06 nov 1994 08:49:37 GMT",
                          "Sun, 06 ovD 1994 08:49:37 GMT", "Sun, 31 Feb 1994 08:49:37 GMT",
                          "Sun, 06 Nov 1994 24:49:37 GMT", "Sun, 06 Nov 1994 08:60:37 GMT",
                          "Sun, 06 Nov 1994 08:49:60 GMT", "Sun, 06 Nov 1994 08-49-37 GMT",
                          "Sun, -6 Nov 1994 08:49:37 GMT", "Sun, 00 Nov 1994 08:49:37 GMT"}) {
    INFO(bad);
    CHECK_FALSE(h1::parse_http_date(bad).has_value());
  }
}

}  // namespace weir::http
