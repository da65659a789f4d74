// HTTP dates without the C library's time functions: those take locks, locales and time zones.
#include <algorithm>
#include <cstring>

#include <weir/http/h1/writer.h>

namespace weir::http::h1 {

namespace {

constexpr int64_t kSecondsPerDay = 86400;
constexpr int64_t kYear0 = -62167219200;     // 0000-01-01T00:00:00Z
constexpr int64_t kYear9999 = 253402300799;  // 9999-12-31T23:59:59Z
constexpr const char* kWeekdays = "SunMonTueWedThuFriSat";
constexpr const char* kMonths = "JanFebMarAprMayJunJulAugSepOctNovDec";

struct Date {
  int64_t year = 0;
  unsigned month = 0;  // 1..12
  unsigned day = 0;    // 1..31
};

// The proleptic Gregorian calendar counted in eras of 400 years that start on 1 March
// (H. Hinnant, "chrono-compatible low-level date algorithms").
Date date_of(int64_t days) noexcept {
  days += 719468;
  const int64_t era = (days >= 0 ? days : days - 146096) / 146097;
  const auto day_of_era = static_cast<unsigned>(days - era * 146097);
  const unsigned year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  const unsigned day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const unsigned shifted = (5 * day_of_year + 2) / 153;
  Date date;
  date.day = day_of_year - (153 * shifted + 2) / 5 + 1;
  date.month = shifted < 10 ? shifted + 3 : shifted - 9;
  date.year = static_cast<int64_t>(year_of_era) + era * 400 + (date.month <= 2 ? 1 : 0);
  return date;
}

int64_t days_of(const Date& date) noexcept {
  const int64_t year = date.year - (date.month <= 2 ? 1 : 0);
  const int64_t era = (year >= 0 ? year : year - 399) / 400;
  const auto year_of_era = static_cast<unsigned>(year - era * 400);
  const unsigned shifted = date.month > 2 ? date.month - 3 : date.month + 9;
  const unsigned day_of_year = (153 * shifted + 2) / 5 + date.day - 1;
  const unsigned day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146097 + static_cast<int64_t>(day_of_era) - 719468;
}

void put_two(char* out, unsigned value) noexcept {
  out[0] = static_cast<char>('0' + value / 10);
  out[1] = static_cast<char>('0' + value % 10);
}

// A number of exactly these digits, or -1.
int number(std::string_view digits) noexcept {
  int value = 0;
  for (char c : digits) {
    if (c < '0' || c > '9') return -1;
    value = value * 10 + (c - '0');
  }
  return value;
}

}  // namespace

void format_http_date(char* out, int64_t unix_seconds) noexcept {
  const int64_t seconds = std::clamp(unix_seconds, kYear0, kYear9999);
  int64_t days = seconds / kSecondsPerDay;
  int64_t rest = seconds % kSecondsPerDay;
  if (rest < 0) {
    rest += kSecondsPerDay;
    --days;
  }
  const Date date = date_of(days);
  const auto weekday = static_cast<size_t>((days % 7 + 7 + 4) % 7);  // 1970-01-01 was a Thursday
  const auto second = static_cast<unsigned>(rest);
  const auto year = static_cast<unsigned>(date.year);
  std::memcpy(out, "Xxx, 00 Xxx 0000 00:00:00 GMT", kHttpDateBytes);
  std::memcpy(out, kWeekdays + weekday * 3, 3);
  put_two(out + 5, date.day);
  std::memcpy(out + 8, kMonths + (date.month - 1) * 3, 3);
  put_two(out + 12, year / 100);
  put_two(out + 14, year % 100);
  put_two(out + 17, second / 3600);
  put_two(out + 20, second / 60 % 60);
  put_two(out + 23, second % 60);
}

std::optional<int64_t> parse_http_date(std::string_view text) noexcept {
  if (text.size() != kHttpDateBytes) return std::nullopt;
  const int day = number(text.substr(5, 2));
  const int year = number(text.substr(12, 4));
  const int hour = number(text.substr(17, 2));
  const int minute = number(text.substr(20, 2));
  const int second = number(text.substr(23, 2));
  const size_t month = std::string_view(kMonths).find(text.substr(8, 3));
  if (month == std::string_view::npos || month % 3 != 0) return std::nullopt;
  if (day < 1 || year < 0 || hour < 0 || minute < 0 || second < 0) return std::nullopt;
  if (hour > 23 || minute > 59 || second > 59) return std::nullopt;
  const Date date{year, static_cast<unsigned>(month / 3) + 1, static_cast<unsigned>(day)};
  const int64_t seconds = days_of(date) * kSecondsPerDay + hour * 3600 + minute * 60 + second;
  // Writing it again proves separators, weekday, and that the month has that day.
  char again[kHttpDateBytes];
  format_http_date(again, seconds);
  if (text != std::string_view(again, kHttpDateBytes)) return std::nullopt;
  return seconds;
}

}  // namespace weir::http::h1
