// Passive health of the servers of one upstream, on one core: what the requests themselves tell.
// Too many errors in a row, too great a part of errors in a sliding window, or answers far slower
// than the others' put a server aside for a while, longer each time; some servers are never put
// aside, however bad all are. Pure: no I/O, no clock (times are the caller's, monotonic), O(1) a
// request and O(n log n) a review. Each core judges by what it saw itself and keeps the floor by
// itself. About 1.5 KiB a server.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <weir/route/spec.h>

namespace weir::upstream {

using OutlierOptions = route::OutlierSpec;

enum class OutlierCause : uint8_t { kNone, kConsecutive, kRatio, kLatency };
std::string_view to_string(OutlierCause cause) noexcept;

struct OutlierChange {
  uint64_t identity = 0;
  bool ejected = false;  // false: it is back
  OutlierCause cause = OutlierCause::kNone;
  uint64_t until_ms = 0;  // of an ejection
};

// Counts of the last window in slices, so that old ones go by and by.
class OutlierWindow {
 public:
  static constexpr size_t kSlices = 8;
  static constexpr size_t kSlicesFresh = 2;
  // A quarter of an octave each, from 128 us to 134 s.
  static constexpr size_t kBuckets = 80;

  void note(bool error, uint64_t latency_us, uint64_t slice) noexcept;
  void clear() noexcept { slices_ = {}; }
  struct Sum {
    uint64_t requests = 0;
    uint64_t errors = 0;
  };
  [[nodiscard]] Sum sum(uint64_t slice) const noexcept;
  // Of the newest answers without error: those of the fresh slices, and of older ones as long as it
  // takes to have `least`. Empty: there are fewer. Within an eighth.
  [[nodiscard]] std::optional<uint64_t> median_us(uint64_t slice, uint64_t least) const noexcept;

 private:
  struct Slice {
    uint64_t number = 0;
    uint32_t requests = 0;
    uint32_t errors = 0;
    std::array<uint16_t, kBuckets> latency{};
  };
  [[nodiscard]] static bool counts(const Slice& one, uint64_t slice) noexcept {
    return one.number + kSlices > slice && one.number <= slice;
  }
  std::array<Slice, kSlices> slices_{};
};

class Outliers {
 public:
  struct Server {
    uint64_t identity = 0;
    bool down = false;  // active checks or an operator said so: counts as gone
    bool ejected = false;
    OutlierCause cause = OutlierCause::kNone;  // of the last ejection
    uint32_t errors_row = 0;
    uint32_t times = 0;      // ejections that the next one is the longer for
    uint64_t until_ms = 0;   // of the ejection
    uint64_t lasted_ms = 0;  // the last ejection
    uint64_t back_ms = 0;    // since when it is back, or since `times` was last lowered
    uint64_t ejections = 0;  // all
    OutlierWindow window{};
  };

  explicit Outliers(const OutlierOptions& options) noexcept : options_(options) {}

  void set_options(const OutlierOptions& options) noexcept;
  // Those with a known identity keep their state; each identity once. Allocates. Changes of those
  // that stay are appended to `out`.
  void set_servers(std::span<const uint64_t> identities, uint64_t now_ms,
                   std::vector<OutlierChange>& out);
  // A server that has just passed its active checks is taken at their word: its ejection ends.
  void set_down(uint64_t identity, bool down, uint64_t now_ms, std::vector<OutlierChange>& out);

  // A request has ended. `latency_us` counts if it was no error; 0: not measured. Those that were
  // sent before their server was ejected say nothing new.
  std::optional<OutlierChange> note(uint64_t identity, bool error, uint64_t latency_us,
                                    uint64_t now_ms) noexcept;
  // Ends ejections, and judges latency. About once a second.
  void review(uint64_t now_ms, std::vector<OutlierChange>& out);

  [[nodiscard]] const Server* find(uint64_t identity) const noexcept;
  [[nodiscard]] uint32_t ejected() const noexcept;
  // Ejections that the floor prevented.
  [[nodiscard]] uint64_t spared() const noexcept { return spared_; }

 private:
  [[nodiscard]] uint64_t slice(uint64_t now_ms) const noexcept;
  [[nodiscard]] bool may_eject() const noexcept;
  [[nodiscard]] uint32_t left() const noexcept;
  std::optional<OutlierChange> eject(Server& server, OutlierCause cause, uint64_t now_ms) noexcept;
  OutlierChange take_back(Server& server, uint64_t now_ms) noexcept;
  void keep_floor(uint64_t now_ms, std::vector<OutlierChange>& out);
  void judge_latency(uint64_t now_ms, std::vector<OutlierChange>& out);

  OutlierOptions options_;
  std::vector<Server> servers_;  // by identity
  uint64_t spared_ = 0;
};

}  // namespace weir::upstream
