// How many retries an upstream may have on one core: a part of its requests, and a few besides, so
// that an outage is not multiplied by its clients' proxies. A token bucket: each request brings a
// part of a token, time brings some, a retry (or a hedged request) takes one. Pure; times are the
// caller's (monotonic). One core's thread.
#pragma once

#include <algorithm>
#include <cstdint>

namespace weir::upstream {

struct RetryBudgetOptions {
  uint32_t percent = 20;    // of the requests
  uint32_t per_second = 3;  // besides, for upstreams with few requests; this core's share
  uint32_t burst = 30;      // tokens that can be saved up; it begins with as many
};

class RetryBudget {
 public:
  explicit RetryBudget(const RetryBudgetOptions& options) noexcept
      : options_(options), tokens_(uint64_t{options.burst} * kToken) {}

  void set_options(const RetryBudgetOptions& options) noexcept {
    options_ = options;
    tokens_ = std::min(tokens_, most());
  }
  // A first try (not a retry).
  void note_request() noexcept {
    tokens_ = std::min(tokens_ + uint64_t{options_.percent} * (kToken / 100), most());
  }
  // True: it may be done, and is counted.
  bool try_retry(uint64_t now_ms) noexcept {
    refill(now_ms);
    if (tokens_ < kToken) {
      ++refused_;
      return false;
    }
    tokens_ -= kToken;
    return true;
  }
  [[nodiscard]] uint64_t refused() const noexcept { return refused_; }
  [[nodiscard]] uint64_t tokens() const noexcept { return tokens_ / kToken; }

 private:
  static constexpr uint64_t kToken = 1000;
  [[nodiscard]] uint64_t most() const noexcept { return uint64_t{options_.burst} * kToken; }
  // Tokens a second are thousandths a millisecond.
  void refill(uint64_t now_ms) noexcept {
    if (now_ms > filled_ms_ && filled_ms_ != 0) {
      const uint64_t elapsed_ms = std::min<uint64_t>(now_ms - filled_ms_, 3'600'000);
      tokens_ = std::min(tokens_ + elapsed_ms * options_.per_second, most());
    }
    filled_ms_ = std::max(now_ms, filled_ms_);
  }

  RetryBudgetOptions options_;
  uint64_t tokens_;
  uint64_t filled_ms_ = 0;
  uint64_t refused_ = 0;
};

}  // namespace weir::upstream
