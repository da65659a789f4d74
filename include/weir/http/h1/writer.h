// The pieces of an HTTP/1 head as text. Pure functions into a ByteWriter that the caller owns. They
// trust their arguments: whatever came from a peer must have come through the parser (no CR, LF,
// NUL can be in it then), whatever came from the configuration must have been checked when it was
// loaded.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include <weir/base/byte_writer.h>

namespace weir::http::h1 {

// The standard reason phrase; empty for a status that has none.
std::string_view reason_phrase(uint16_t status) noexcept;

// "HTTP/1.1 200 OK\r\n". With an empty `reason` the standard one is used.
void append_status_line(base::ByteWriter& out, uint16_t status,
                        std::string_view reason = {}) noexcept;

// "GET /path?query HTTP/1.1\r\n".
void append_request_line(base::ByteWriter& out, std::string_view method, std::string_view path,
                         bool has_query, std::string_view query) noexcept;

// "name: value\r\n".
void append_field(base::ByteWriter& out, std::string_view name, std::string_view value) noexcept;
void append_field(base::ByteWriter& out, std::string_view name, uint64_t value) noexcept;

// The empty line that ends a head.
inline void append_end(base::ByteWriter& out) noexcept { out.append(std::string_view("\r\n")); }

inline constexpr size_t kHttpDateBytes = 29;

// IMF-fixdate, "Sun, 06 Nov 1994 08:49:37 GMT": exactly kHttpDateBytes, no terminating NUL. Years
// 0000 to 9999; times outside are clamped to that range.
void format_http_date(char* out, int64_t unix_seconds) noexcept;

// IMF-fixdate only (the obsolete forms of RFC 9110 5.6.7 are refused). The weekday must be right.
std::optional<int64_t> parse_http_date(std::string_view text) noexcept;

}  // namespace weir::http::h1
