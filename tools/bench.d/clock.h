// Monotonic time of the load generator. Any thread; never wall time.
#pragma once

#include <time.h>

#include <cstdint>

namespace weir::bench {

inline constexpr uint64_t kNsPerSecond = 1'000'000'000;

inline uint64_t now_ns() noexcept {
  timespec value{};
  clock_gettime(CLOCK_MONOTONIC, &value);
  return static_cast<uint64_t>(value.tv_sec) * kNsPerSecond + static_cast<uint64_t>(value.tv_nsec);
}

}  // namespace weir::bench
