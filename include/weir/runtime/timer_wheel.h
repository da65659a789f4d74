// Timers of one thread: a hierarchical wheel (Varghese and Lauck), 1 ms ticks, O(1) to set and to
// clear, no allocation: a Timer is a field of what it watches. Firing calls a plain function, which
// sets a reason, wakes a waiter or submits a cancel; it never destroys anything.
#pragma once

#include <array>
#include <cstdint>

#include <weir/base/intrusive_list.h>

namespace weir::runtime {

class TimerWheel;

class Timer : public base::ListNode {
 public:
  using Handler = void (*)(Timer& timer) noexcept;
  explicit Timer(Handler handler) noexcept : handler_(handler) {}
  ~Timer() { WEIR_CHECK(!linked()); }

  [[nodiscard]] bool armed() const noexcept { return linked(); }
  [[nodiscard]] uint64_t expires_ms() const noexcept { return expires_ms_; }

 private:
  friend class TimerWheel;
  Handler handler_;
  uint64_t expires_ms_ = 0;
  uint16_t slot_ = 0;
};

class TimerWheel {
 public:
  static constexpr unsigned kLevels = 6;  // 64^6 ms: over two years
  static constexpr unsigned kSlots = 64;

  explicit TimerWheel(uint64_t now_ms) noexcept : now_ms_(now_ms) {}

  // (Re)arms. Never fires early; a time in the past fires at the next expire().
  void arm(Timer& timer, uint64_t expires_ms) noexcept;
  void disarm(Timer& timer) noexcept;
  // Fires all that is due at now_ms (monotonic, never goes back). Returns how many fired.
  unsigned expire(uint64_t now_ms) noexcept;
  // When expire() must be called next, at the latest (a lower bound of the earliest timer);
  // UINT64_MAX if no timer is armed.
  [[nodiscard]] uint64_t next_ms() const noexcept;
  [[nodiscard]] uint32_t armed() const noexcept { return armed_; }

 private:
  void place(Timer& timer) noexcept;
  void cascade(unsigned level) noexcept;

  uint64_t now_ms_;
  uint32_t armed_ = 0;
  std::array<uint64_t, kLevels> occupied_{};  // a bit per slot
  std::array<std::array<base::IntrusiveList<Timer>, kSlots>, kLevels> slots_;
};

}  // namespace weir::runtime
