#include <weir/runtime/timer_wheel.h>

#include <bit>

namespace weir::runtime {

namespace {
constexpr unsigned kBits = 6;
constexpr uint64_t kMask = TimerWheel::kSlots - 1;
}  // namespace

void TimerWheel::place(Timer& timer) noexcept {
  // A timer that is due goes to the slot of the next tick, so that it fires at the next expire().
  uint64_t when = timer.expires_ms_ <= now_ms_ ? now_ms_ + 1 : timer.expires_ms_;
  constexpr uint64_t kFarthest = (1ULL << (kBits * kLevels)) - 1;
  if (when - now_ms_ > kFarthest) when = now_ms_ + kFarthest;
  // The level is that of the highest digit (base 64) in which `when` and now differ.
  const uint64_t difference = when ^ now_ms_;
  unsigned level = (63u - static_cast<unsigned>(std::countl_zero(difference | 1))) / kBits;
  if (level >= kLevels) level = kLevels - 1;
  const auto slot = static_cast<unsigned>((when >> (level * kBits)) & kMask);
  timer.slot_ = static_cast<uint16_t>(level * kSlots + slot);
  occupied_[level] |= 1ULL << slot;
  slots_[level][slot].push_back(timer);
}

void TimerWheel::arm(Timer& timer, uint64_t expires_ms) noexcept {
  if (timer.armed()) disarm(timer);
  timer.expires_ms_ = expires_ms;
  place(timer);
  ++armed_;
}

void TimerWheel::disarm(Timer& timer) noexcept {
  if (!timer.armed()) return;
  timer.unlink();
  --armed_;
  const unsigned level = timer.slot_ / kSlots;
  const unsigned slot = timer.slot_ % kSlots;
  if (slots_[level][slot].empty()) occupied_[level] &= ~(1ULL << slot);
}

void TimerWheel::cascade(unsigned level) noexcept {
  const auto slot = static_cast<unsigned>((now_ms_ >> (level * kBits)) & kMask);
  base::IntrusiveList<Timer>& list = slots_[level][slot];
  occupied_[level] &= ~(1ULL << slot);
  // place() never puts a timer back into this slot: its digit at this level now equals ours.
  base::IntrusiveList<Timer> due;
  while (Timer* timer = list.pop_front()) due.push_back(*timer);
  while (Timer* timer = due.pop_front()) {
    if (timer->expires_ms_ <= now_ms_) {
      // Exactly now: it belongs to the tick being run.
      const auto now_slot = static_cast<unsigned>(now_ms_ & kMask);
      timer->slot_ = static_cast<uint16_t>(now_slot);
      occupied_[0] |= 1ULL << now_slot;
      slots_[0][now_slot].push_back(*timer);
    } else {
      place(*timer);
    }
  }
}

unsigned TimerWheel::expire(uint64_t now_ms) noexcept {
  unsigned fired = 0;
  while (now_ms_ < now_ms) {
    const uint64_t next = next_ms();
    if (next > now_ms) {
      // Nothing is due and no slot of a higher level begins in between (next_ms counts those).
      now_ms_ = now_ms;
      break;
    }
    now_ms_ = next;
    for (unsigned level = kLevels - 1; level > 0; --level) {
      const uint64_t below = (1ULL << (level * kBits)) - 1;
      if ((now_ms_ & below) == 0) cascade(level);
    }
    const auto slot = static_cast<unsigned>(now_ms_ & kMask);
    base::IntrusiveList<Timer>& list = slots_[0][slot];
    base::IntrusiveList<Timer> due;  // a handler may arm into this very list again
    while (Timer* timer = list.pop_front()) due.push_back(*timer);
    occupied_[0] &= ~(1ULL << slot);
    while (Timer* timer = due.pop_front()) {
      --armed_;
      ++fired;
      timer->handler_(*timer);
    }
  }
  return fired;
}

uint64_t TimerWheel::next_ms() const noexcept {
  uint64_t best = UINT64_MAX;
  for (unsigned level = 0; level < kLevels; ++level) {
    if (occupied_[level] == 0) continue;
    const unsigned shift = level * kBits;
    const auto position = static_cast<unsigned>((now_ms_ >> shift) & kMask);
    // Slots after the current one of this level; those at or before it belong to the next round
    // (only possible at the top level, where times are clamped).
    const uint64_t rotated = std::rotr(occupied_[level], static_cast<int>((position + 1) & kMask));
    const auto distance = static_cast<uint64_t>(std::countr_zero(rotated)) + 1;
    const uint64_t start = ((now_ms_ >> shift) + distance) << shift;
    if (start < best) best = start;
  }
  return best;
}

}  // namespace weir::runtime
