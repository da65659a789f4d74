// Latency histogram with a relative error below 0.1 %: 1024 linear steps to each power of two, as
// HdrHistogram does. Owned by the load generator's one thread; recording never allocates.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace weir::bench {

class Histogram {
 public:
  Histogram() : counts_(kBuckets, 0) {}

  void record(uint64_t value) noexcept {
    ++counts_[std::min(index_of(value), kBuckets - 1)];
    ++total_;
  }

  // The smallest recorded value (to the histogram's precision) that `share` of all values do not
  // exceed; 0 when nothing was recorded.
  [[nodiscard]] uint64_t quantile(double share) const noexcept {
    if (total_ == 0) return 0;
    const auto wanted =
        std::max<uint64_t>(1, static_cast<uint64_t>(share * static_cast<double>(total_) + 0.5));
    uint64_t seen = 0;
    for (size_t i = 0; i < kBuckets; ++i) {
      seen += counts_[i];
      if (seen >= wanted) return value_of(i);
    }
    return value_of(kBuckets - 1);
  }

  [[nodiscard]] uint64_t total() const noexcept { return total_; }

 private:
  static constexpr unsigned kStepBits = 10;
  static constexpr size_t kSteps = size_t{1} << kStepBits;
  static constexpr size_t kBuckets = kSteps * 31;  // up to 2^40 ns, 18 minutes

  static size_t index_of(uint64_t value) noexcept {
    if (value < kSteps) return static_cast<size_t>(value);
    const auto shift = static_cast<unsigned>(std::bit_width(value)) - 1 - kStepBits;
    return ((shift + 1) << kStepBits) | static_cast<size_t>((value >> shift) & (kSteps - 1));
  }
  static uint64_t value_of(size_t index) noexcept {
    if (index < kSteps) return index;
    const auto shift = static_cast<unsigned>(index >> kStepBits) - 1;
    return static_cast<uint64_t>(kSteps | (index & (kSteps - 1))) << shift;
  }

  std::vector<uint64_t> counts_;
  uint64_t total_ = 0;
};

}  // namespace weir::bench
