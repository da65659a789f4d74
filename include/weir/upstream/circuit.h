// The circuit breaker of one server on one core: after so many failures in a row it is spared all
// requests for a while (open), then a few are let through to find out (half-open), and it closes
// again when they went well. Pure: no clock, times are the caller's (monotonic). 40 bytes a server;
// the options are the upstream's.
#pragma once

#include <cstdint>
#include <string_view>

namespace weir::upstream {

struct CircuitOptions {
  uint32_t failures = 5;     // in a row; 0: no circuit breaker
  uint32_t open_ms = 1'000;  // the first time; doubled while it does not close
  uint32_t open_max_ms = 30'000;
  uint32_t trials_max = 1;  // half-open: at a time
  uint32_t successes = 2;   // half-open: until it closes
  // A trial of which nothing is heard for so long is given up; longer than a request may take.
  uint32_t trial_timeout_ms = 60'000;
};

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
