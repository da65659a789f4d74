// Durations and sizes in the notation of the file. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace weir::control::config {

// "500ms", "30s", "5m", "1h", "1d" to milliseconds. No sign, no fraction, no sum, no overflow.
std::optional<int64_t> parse_duration(std::string_view text) noexcept;
// "512B", "64KiB", "1MiB", "2GiB" (powers of 1024), "1KB", "1MB", "1GB" (powers of 1000), also
// without unit; upper or lower case.
std::optional<int64_t> parse_size(std::string_view text) noexcept;

// The shortest exact form in one unit: 90000 -> "90s", 3600000 -> "1h"; 65536 -> "64KiB".
std::string format_duration(int64_t milliseconds);
std::string format_size(int64_t bytes);

}  // namespace weir::control::config
