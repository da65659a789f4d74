#include <weir/files/http_date.h>

#include <catch2/catch_test_macros.hpp>

#include <string>

#include <weir/base/prng.h>
#include <weir/http/h1/writer.h>

namespace weir::files {

namespace {

constexpr int64_t kRfcExample = 784111777;  // Sun, 06 Nov 1994 08:49:37 GMT
constexpr int64_t kNow = 1785000000;        // 2026-07-25
constexpr int64_t kDay = 86400;

std::string imf(int64_t seconds) {
  char text[http::h1::kHttpDateBytes];
  http::h1::format_http_date(text, seconds);
  return {text, sizeof text};
}

std::string full_weekday(std::string_view three) {
  for (std::string name :
       {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"}) {
    if (name.substr(0, 3) == three) return name;
  }
  FAIL("no weekday: " << three);
  return {};
}

std::string rfc850(int64_t seconds) {
  const std::string text = imf(seconds);
  return full_weekday(text.substr(0, 3)) + ", " + text.substr(5, 2) + "-" + text.substr(8, 3) +
         "-" + text.substr(14, 2) + " " + text.substr(17);
}

std::string asctime_of(int64_t seconds) {
  const std::string text = imf(seconds);
  std::string day = text.substr(5, 2);
  if (day[0] == '0') day[0] = ' ';
  return text.substr(0, 3) + " " + text.substr(8, 3) + " " + day + " " + text.substr(17, 8) + " " +
         text.substr(12, 4);
}

}  // namespace

TEST_CASE("the three forms of RFC 9110 5.6.7") {
  CHECK(parse_any_http_date("Sun, 06 Nov 1994 08:49:37 GMT", kNow) == kRfcExample);
  CHECK(parse_any_http_date("Sunday, 06-Nov-94 08:49:37 GMT", kNow) == kRfcExample);
  CHECK(parse_any_http_date("Sun Nov  6 08:49:37 1994", kNow) == kRfcExample);
  CHECK(parse_any_http_date("Sun Nov 06 08:49:37 1994", kNow) == kRfcExample);
  CHECK(parse_any_http_date("Thu, 01 Jan 1970 00:00:00 GMT", kNow) == 0);
  CHECK(parse_any_http_date("Thu Jan  1 00:00:00 1970", kNow) == 0);
}

TEST_CASE("what is no date") {
  for (const char* text : {"",
                           " ",
                           "0",
                           "yesterday",
                           "Mon, 06 Nov 1994 08:49:37 GMT",  // was a Sunday
                           "Monday, 06-Nov-94 08:49:37 GMT",
                           "Mon Nov  6 08:49:37 1994",
                           "sun, 06 nov 1994 08:49:37 gmt",
                           "SUNDAY, 06-NOV-94 08:49:37 GMT",
                           "Sun, 06-Nov-94 08:49:37 GMT",  // short name in the long form
                           "Sunday, 06 Nov 94 08:49:37 GMT",
                           "Sunday, 06-Nov-1994 08:49:37 GMT",
                           "Sunday, 6-Nov-94 08:49:37 GMT",
                           "Sunday,06-Nov-94 08:49:37 GMT",
                           "Sunday, 06-Nov-94 08:49:37 UTC",
                           "Sunday, 06-Nov-94 08:49:37",
                           "Sunday, 06-Nov-94 24:49:37 GMT",
                           "Sunday, 06-Nov-94 08:60:37 GMT",
                           "Sunday, 06-Nov-94 08:49:60 GMT",
                           "Sunday, 06-Nov--4 08:49:37 GMT",
                           "Sunday, -6-Nov-94 08:49:37 GMT",
                           "Sun Nov 6 08:49:37 1994",
                           "Sun Nov  6 08:49:37 94  ",
                           "Sun Nov  6 08:49:37 -994",
                           "Sun Nov  6 08.49.37 1994",
                           "Sun Nov   08:49:37 1994 ",
                           "Sun Nov 31 08:49:37 1994",
                           "Sun, 31 Nov 1994 08:49:37 GMT",
                           "Wed, 29 Feb 2023 00:00:00 GMT",
                           "Sun, 06 Nov 1994 08:49:37 GMT ",
                           " Sun, 06 Nov 1994 08:49:37 GMT",
                           "Sun, 06 Nov 1994 08:49:37 +0000",
                           "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
                           ",",
                           "Sunday",
                           "Sunday,"}) {
    INFO(text);
    CHECK_FALSE(parse_any_http_date(text, kNow).has_value());
  }
}

TEST_CASE("two-digit years lie at most 50 years ahead") {
  // 2026-07-25: up to 25 July 2076 is ahead, what would be later is past.
  CHECK(parse_any_http_date(rfc850(kNow), kNow) == kNow);
  CHECK(parse_any_http_date("Wednesday, 01-Jan-75 00:00:00 GMT", kNow) == std::nullopt);  // 1975
  CHECK(parse_any_http_date("Tuesday, 01-Jan-75 00:00:00 GMT", kNow) == 3313526400);      // 2075
  CHECK(parse_any_http_date("Saturday, 01-Jan-77 00:00:00 GMT", kNow) == 220924800);      // 1977
  // In the 50th year the day decides, with the weekday of that century.
  CHECK(parse_any_http_date(rfc850(kNow + 50 * 365 * kDay), kNow) == kNow + 50 * 365 * kDay);
  const int64_t christmas_1976 = 220320000;
  CHECK(parse_any_http_date(rfc850(christmas_1976), kNow) == christmas_1976);
  // The clock may stand in another century.
  CHECK(parse_any_http_date("Sunday, 06-Nov-94 08:49:37 GMT", 0) == kRfcExample);
  const int64_t year_1900 = -2208988800;
  CHECK_FALSE(parse_any_http_date("Sunday, 06-Nov-94 08:49:37 GMT", year_1900).has_value());
  CHECK(parse_any_http_date("Tuesday, 06-Nov-94 08:49:37 GMT", year_1900).has_value());  // 1894
}

TEST_CASE("every form gives back what was written") {
  base::Prng prng(850);
  for (int i = 0; i < 20000; ++i) {
    const auto any = static_cast<int64_t>(prng.below(253402300800));  // up to the year 9999
    CHECK(parse_any_http_date(imf(any), kNow) == any);
    CHECK(parse_any_http_date(asctime_of(any), kNow) == any);
    // A date of the 49 years before or after now.
    const int64_t near = kNow + static_cast<int64_t>(prng.below(98 * 365 * kDay)) - 49 * 365 * kDay;
    CHECK(parse_any_http_date(rfc850(near), kNow) == near);
  }
}

TEST_CASE("damaged dates never give another date than the parsers of their form") {
  base::Prng prng(851);
  for (int i = 0; i < 50000; ++i) {
    std::string text = i % 3 == 0 ? imf(kNow) : i % 3 == 1 ? rfc850(kNow) : asctime_of(kNow);
    const size_t changes = 1 + prng.below(3);
    for (size_t change = 0; change < changes; ++change) {
      if (prng.chance(20) && !text.empty()) {
        text.resize(prng.below(text.size()));
      } else if (!text.empty()) {
        text[prng.below(text.size())] = static_cast<char>(prng.below(256));
      }
    }
    const auto seconds = parse_any_http_date(text, kNow);
    if (!seconds) continue;
    const bool same = text == imf(*seconds) || text == rfc850(*seconds) ||
                      text == asctime_of(*seconds) ||
                      (text.size() == 24 && text[8] == '0');  // asctime with a leading zero
    INFO(text);
    CHECK(same);
  }
}

}  // namespace weir::files
