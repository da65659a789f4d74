// Dates as clients send them: all three forms of RFC 9110 5.6.7, two of which are obsolete but must
// be understood. Pure functions, any thread; nothing allocates.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace weir::files {

// Seconds since 1970 of
//   Sun, 06 Nov 1994 08:49:37 GMT     (IMF-fixdate)
//   Sunday, 06-Nov-94 08:49:37 GMT    (RFC 850)
//   Sun Nov  6 08:49:37 1994          (asctime)
// Strict: letters in that case, a day that the month has, and its right weekday. The two-digit year
// is the latest that puts the date not more than 50 years after `now`.
std::optional<int64_t> parse_any_http_date(std::string_view text, int64_t now) noexcept;

}  // namespace weir::files
