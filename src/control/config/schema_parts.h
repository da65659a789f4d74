// What the files of the schema share: units, and arrays of rows put together. All of it constants,
// evaluated by the compiler.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <weir/control/config/schema.h>

namespace weir::control::config {

inline constexpr int64_t kSecond = 1000;
inline constexpr int64_t kMinute = 60 * kSecond;
inline constexpr int64_t kHour = 60 * kMinute;
inline constexpr int64_t kDay = 24 * kHour;
inline constexpr int64_t kKiB = 1024;
inline constexpr int64_t kMiB = 1024 * kKiB;
inline constexpr int64_t kGiB = 1024 * kMiB;
inline constexpr int64_t kTiB = 1024 * kGiB;

template <size_t... N>
constexpr auto concatenated(const std::array<Setting, N>&... parts) {
  std::array<Setting, (N + ...)> result{};
  size_t at = 0;
  const auto append = [&result, &at](const auto& part) {
    for (const Setting& setting : part) result[at++] = setting;
  };
  (append(parts), ...);
  return result;
}

}  // namespace weir::control::config
