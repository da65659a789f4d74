#include <weir/upstream/circuit.h>

#include <algorithm>

namespace weir::upstream {

std::string_view to_string(CircuitState state) noexcept {
  switch (state) {
    case CircuitState::kClosed: return "closed";
    case CircuitState::kOpen: return "open";
    case CircuitState::kHalfOpen: return "half_open";
  }
  return "unknown";
}

void CircuitBreaker::enter(CircuitState state) noexcept {
  state_ = state;
  ++round_;
  trials_ = 0;
  successes_ = 0;
}

void CircuitBreaker::open(const CircuitOptions& options, uint64_t now_ms) noexcept {
  const uint32_t doublings = std::min<uint32_t>(openings_, 32);
  until_ms_ = now_ms + std::min<uint64_t>(uint64_t{options.open_ms} << doublings,
                                          std::max(options.open_max_ms, options.open_ms));
  ++openings_;
  enter(CircuitState::kOpen);
}

void CircuitBreaker::close() noexcept {
  failures_ = openings_ = 0;
  enter(CircuitState::kClosed);
}

bool CircuitBreaker::would_pass(const CircuitOptions& options, uint64_t now_ms) const noexcept {
  if (options.failures == 0) return true;
  switch (state_) {
    case CircuitState::kClosed: return true;
    case CircuitState::kOpen: return now_ms >= until_ms_;
    case CircuitState::kHalfOpen: break;
  }
  return trials_ < std::max<uint32_t>(options.trials_max, 1) ||
         now_ms >= trial_ms_ + options.trial_timeout_ms;
}

CircuitBreaker::Pass CircuitBreaker::try_pass(const CircuitOptions& options,
                                              uint64_t now_ms) noexcept {
  if (!would_pass(options, now_ms)) return {round_, false};
  if (options.failures == 0 || state_ == CircuitState::kClosed) return {round_, true};
  const bool full = trials_ >= std::max<uint32_t>(options.trials_max, 1);
  // The time has come; or of those that are under way nothing is heard any more.
  if (state_ == CircuitState::kOpen || full) enter(CircuitState::kHalfOpen);
  ++trials_;
  trial_ms_ = now_ms;
  return {round_, true};
}

void CircuitBreaker::note(const CircuitOptions& options, uint32_t round, CircuitOutcome outcome,
                          uint64_t now_ms) noexcept {
  if (round != round_ || state_ == CircuitState::kOpen) return;
  if (state_ == CircuitState::kClosed) {
    if (outcome == CircuitOutcome::kGood) failures_ = 0;
    if (outcome != CircuitOutcome::kBad) return;
    ++failures_;
    if (options.failures != 0 && failures_ >= options.failures) open(options, now_ms);
    return;
  }
  if (trials_ > 0) --trials_;
  if (outcome == CircuitOutcome::kUnknown) return;
  if (outcome == CircuitOutcome::kBad) {
    ++failures_;
    open(options, now_ms);
    return;
  }
  if (++successes_ >= options.successes) close();
}

}  // namespace weir::upstream
