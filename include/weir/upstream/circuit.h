// The circuit breaker of one server on one core: after so many failures in a row it is spared all
// requests for a while (open), then a few are let through to find out (half-open), and it closes
// again when they went well. Pure: no clock, times are the caller's (monotonic). 40 bytes a server;
// the options are the upstream's.
#pragma once

#include <cstdint>
#include <string_view>

#include <weir/route/spec.h>

namespace weir::upstream {

using CircuitOptions = route::CircuitSpec;

enum class CircuitState : uint8_t { kClosed, kOpen, kHalfOpen };
std::string_view to_string(CircuitState state) noexcept;

enum class CircuitOutcome : uint8_t {
  kGood,
  kBad,
  kUnknown,  // it ended for reasons that are not the server's (the client left)
};

class CircuitBreaker {
 public:
  struct Pass {
    uint32_t round = 0;
    bool allowed = false;
  };
  // Every one that is allowed has to be followed by note(), with its round.
  Pass try_pass(const CircuitOptions& options, uint64_t now_ms) noexcept;
  // Requests of a round before say nothing about this one.
  void note(const CircuitOptions& options, uint32_t round, CircuitOutcome outcome,
            uint64_t now_ms) noexcept;
  // Somebody who has asked the server says that it is well. Requests under way say nothing any
  // more.
  void close() noexcept;
  // try_pass() would allow it; for choosing among servers.
  [[nodiscard]] bool would_pass(const CircuitOptions& options, uint64_t now_ms) const noexcept;

  [[nodiscard]] CircuitState state() const noexcept { return state_; }
  [[nodiscard]] uint64_t until_ms() const noexcept { return until_ms_; }  // open
  [[nodiscard]] uint32_t failures() const noexcept { return failures_; }  // in a row

 private:
  void open(const CircuitOptions& options, uint64_t now_ms) noexcept;
  void enter(CircuitState state) noexcept;

  CircuitState state_ = CircuitState::kClosed;
  uint32_t round_ = 0;
  uint32_t failures_ = 0;
  uint32_t openings_ = 0;   // in a row
  uint32_t trials_ = 0;     // under way
  uint32_t successes_ = 0;  // of this round's trials
  uint64_t until_ms_ = 0;
  uint64_t trial_ms_ = 0;  // when the last one began
};
static_assert(sizeof(CircuitBreaker) <= 40);

}  // namespace weir::upstream
