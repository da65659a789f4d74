// How many retries an upstream may have on one core: a part of its requests, and a few besides, so
// that an outage is not multiplied by its clients' proxies. A token bucket: each request brings a
// part of a token, time brings some, a retry (or a hedged request) takes one. What can be saved up
// is `burst` or the part of the last ten seconds' requests, whichever is more: a server that dies
// fails all that are under way to it at once. Pure; times are the caller's (monotonic). One core's
// thread.
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
    if (options.burst > options_.burst) tokens_ += (options.burst - options_.burst) * kToken;
    options_ = options;
    tokens_ = std::min(tokens_, most());
  }
  // A first try (not a retry).
  void note_request(uint64_t now_ms) noexcept {
    if (now_ms - window_ms_ >= kWindowMs) {
      before_ = now_ms - window_ms_ < 2 * kWindowMs ? requests_ : 0;
      requests_ = 0;
      window_ms_ = now_ms;
    }
    ++requests_;
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
  // What try_retry() took was not needed.
  void give_back() noexcept { tokens_ += kToken; }
  [[nodiscard]] uint64_t refused() const noexcept { return refused_; }
  [[nodiscard]] uint64_t tokens() const noexcept { return tokens_ / kToken; }

 private:
  static constexpr uint64_t kToken = 1000;
  static constexpr uint64_t kWindowMs = 10'000;
  [[nodiscard]] uint64_t most() const noexcept {
    return std::max(uint64_t{options_.burst} * kToken,
                    std::max(before_, requests_) * options_.percent * (kToken / 100));
  }
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
  uint64_t window_ms_ = 0;
  uint64_t requests_ = 0;  // of the window
  uint64_t before_ = 0;    // of the one before
  uint64_t refused_ = 0;
};

}  // namespace weir::upstream
