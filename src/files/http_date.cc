// The obsolete forms are rewritten as IMF-fixdate and left to the one parser of that.
#include <weir/files/http_date.h>

#include <algorithm>
#include <array>
#include <cstring>

#include <weir/base/text.h>
#include <weir/http/h1/writer.h>

namespace weir::files {

namespace {

using http::h1::format_http_date;
using http::h1::kHttpDateBytes;
using http::h1::parse_http_date;

constexpr int64_t kFiftyYears = int64_t{36525} * 86400 / 2;  // of 365.25 days
constexpr size_t kObsoleteBytes = 24;  // asctime; RFC 850 behind the name of the day

struct Pieces {
  std::string_view weekday;  // three letters
  std::string_view day;      // two digits
  std::string_view month;    // three letters
  std::string_view time;     // hh:mm:ss
};

std::optional<int64_t> parse_pieces(const Pieces& pieces, std::string_view year) noexcept {
  std::array<char, kHttpDateBytes> text;
  std::memcpy(text.data(), "Xxx, 00 Xxx 0000 00:00:00 GMT", kHttpDateBytes);
  const auto put = [&text](size_t at, std::string_view piece) {
    std::memcpy(text.data() + at, piece.data(), piece.size());
  };
  put(0, pieces.weekday);
  put(5, pieces.day);
  put(8, pieces.month);
  put(12, year);
  put(17, pieces.time);
  return parse_http_date({text.data(), text.size()});
}

std::optional<int64_t> parse_pieces(const Pieces& pieces, int64_t year) noexcept {
  if (year < 0 || year > 9999) return std::nullopt;
  std::array<char, 4> digits;
  for (size_t i = digits.size(); i-- > 0; year /= 10) {
    digits[i] = static_cast<char>('0' + year % 10);
  }
  return parse_pieces(pieces, std::string_view(digits.data(), digits.size()));
}

int64_t year_of(int64_t seconds) noexcept {
  std::array<char, kHttpDateBytes> text;
  format_http_date(text.data(), seconds);
  return static_cast<int64_t>(*base::parse_decimal(std::string_view(text.data() + 12, 4)));
}

// Sunday, 06-Nov-94 08:49:37 GMT
std::optional<int64_t> parse_rfc850(std::string_view text, int64_t now) noexcept {
  constexpr std::array<std::string_view, 7> kDays{"Sunday",   "Monday", "Tuesday", "Wednesday",
                                                  "Thursday", "Friday", "Saturday"};
  const size_t comma = text.find(',');
  if (comma == std::string_view::npos || text.size() - comma != kObsoleteBytes) {
    return std::nullopt;
  }
  const std::string_view name = text.substr(0, comma);
  if (std::find(kDays.begin(), kDays.end(), name) == kDays.end()) return std::nullopt;
  const std::string_view rest = text.substr(comma);
  if (rest.substr(0, 2) != ", " || rest[4] != '-' || rest[8] != '-' || rest[11] != ' ' ||
      rest.substr(20) != " GMT") {
    return std::nullopt;
  }
  const auto two_digits = base::parse_decimal(rest.substr(9, 2));
  if (!two_digits) return std::nullopt;
  const Pieces pieces{name.substr(0, 3), rest.substr(2, 2), rest.substr(5, 3), rest.substr(12, 8)};
  const int64_t latest = year_of(now) + 50;
  int64_t year = latest - latest % 100 + static_cast<int64_t>(*two_digits);
  if (year > latest) year -= 100;
  const auto seconds = parse_pieces(pieces, year);
  // In the 50th year it depends on the day.
  const bool too_late = !seconds || *seconds > now + kFiftyYears;
  return year == latest && too_late ? parse_pieces(pieces, year - 100) : seconds;
}

// Sun Nov  6 08:49:37 1994
std::optional<int64_t> parse_asctime(std::string_view text) noexcept {
  if (text.size() != kObsoleteBytes || text[3] != ' ' || text[7] != ' ' || text[10] != ' ' ||
      text[19] != ' ') {
    return std::nullopt;
  }
  const std::array<char, 2> day{text[8] == ' ' ? '0' : text[8], text[9]};
  const Pieces pieces{text.substr(0, 3), std::string_view(day.data(), day.size()),
                      text.substr(4, 3), text.substr(11, 8)};
  return parse_pieces(pieces, text.substr(20));
}

}  // namespace

std::optional<int64_t> parse_any_http_date(std::string_view text, int64_t now) noexcept {
  if (text.size() == kHttpDateBytes) {
    if (const auto seconds = parse_http_date(text)) return seconds;
  }
  return text.size() == kObsoleteBytes ? parse_asctime(text) : parse_rfc850(text, now);
}

}  // namespace weir::files
