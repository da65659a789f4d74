#include <weir/log/channel.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include <weir/base/check.h>

namespace weir::log {

namespace {

constexpr uint64_t align_up(uint64_t bytes) noexcept { return (bytes + 7) & ~uint64_t{7}; }

}  // namespace

size_t Channel::round_capacity(size_t bytes) noexcept {
  return std::bit_ceil(std::clamp(bytes, kCapacityBytesMin, kCapacityBytesMax));
}

// make_unique zeroes the ring: its page faults happen here, not on a core under load.
Channel::Channel(size_t capacity_bytes)
    : capacity_(capacity_bytes),
      mask_(capacity_bytes - 1),
      lines_(std::make_unique<Line[]>(capacity_bytes / sizeof(Line))) {
  WEIR_CHECK(std::has_single_bit(capacity_bytes));
  WEIR_CHECK(capacity_bytes >= kCapacityBytesMin);
  WEIR_CHECK(capacity_bytes <= kCapacityBytesMax);
  producer_.wake_check_at = capacity_ / 2;
}

std::byte* Channel::at(uint64_t position) const noexcept {
  return reinterpret_cast<std::byte*>(lines_.get()) + (position & mask_);
}

std::span<std::byte> Channel::try_reserve(size_t bytes) noexcept {
  const uint64_t tail = producer_.tail.load(std::memory_order_relaxed);
  const uint64_t need = kHeaderBytes + align_up(bytes);
  // Records are contiguous: one that would cross the end begins at the start, behind padding.
  const uint64_t to_end = capacity_ - (tail & mask_);
  const uint64_t padding = need > to_end ? to_end : 0;
  const uint64_t end = tail + padding + need;
  bool fits = bytes <= record_bytes_max();
  if (fits && end - producer_.head_seen > capacity_) {
    producer_.head_seen = consumer_.head.load(std::memory_order_acquire);
    fits = end - producer_.head_seen <= capacity_;
  }
  if (!fits) {
    // Only this thread writes it: no locked instruction.
    producer_.dropped.store(producer_.dropped.load(std::memory_order_relaxed) + 1,
                            std::memory_order_relaxed);
    producer_.reserved_bytes = 0;
    return {};
  }
  if (padding != 0) {
    const Header header{static_cast<uint32_t>(padding - kHeaderBytes), RecordKind::kPadding, 0};
    std::memcpy(at(tail), &header, sizeof(header));
  }
  producer_.reserved_at = tail + padding;
  producer_.reserved_bytes = bytes;
  return {at(producer_.reserved_at) + kHeaderBytes, bytes};
}

void Channel::commit(RecordKind kind, size_t bytes) noexcept {
  WEIR_CHECK(bytes <= producer_.reserved_bytes);
  WEIR_DCHECK(kind != RecordKind::kPadding);
  const Header header{static_cast<uint32_t>(bytes), kind, 0};
  std::memcpy(at(producer_.reserved_at), &header, sizeof(header));
  const uint64_t tail = producer_.reserved_at + kHeaderBytes + align_up(bytes);
  producer_.reserved_bytes = 0;
  producer_.tail.store(tail, std::memory_order_release);
  if (tail >= producer_.wake_check_at) watch_fill(tail);
}

bool Channel::try_write(RecordKind kind, std::span<const std::byte> record) noexcept {
  const std::span<std::byte> room = try_reserve(record.size());
  if (room.data() == nullptr) return false;
  if (!record.empty()) std::memcpy(room.data(), record.data(), record.size());
  commit(kind, record.size());
  return true;
}

// Reads the consumer's line, so it runs at most once per eighth of the ring. While above half it
// looks again after an eighth: by then a consumer that was woken has made room.
void Channel::watch_fill(uint64_t tail) noexcept {
  producer_.head_seen = consumer_.head.load(std::memory_order_acquire);
  const uint64_t half = capacity_ / 2;
  if (tail - producer_.head_seen < half) {
    producer_.above_half = false;
    producer_.wake_check_at = std::max(producer_.head_seen + half, tail + capacity_ / 8);
    return;
  }
  if (!producer_.above_half) producer_.wake_wanted = true;
  producer_.above_half = true;
  producer_.wake_check_at = tail + capacity_ / 8;
}

void Channel::begin_drain() noexcept {
  consumer_.tail_seen = producer_.tail.load(std::memory_order_acquire);
}

std::optional<Record> Channel::next() noexcept {
  // What lies before `position` has been used by now: give it back in portions, not at the very
  // end, so that a core that is dropping can go on.
  if (consumer_.position - consumer_.published >= capacity_ / 8) publish_head();
  while (consumer_.position != consumer_.tail_seen) {
    Header header;
    std::memcpy(&header, at(consumer_.position), sizeof(header));
    const std::byte* data = at(consumer_.position) + kHeaderBytes;
    consumer_.position += kHeaderBytes + align_up(header.bytes);
    if (header.kind != RecordKind::kPadding) {
      return Record{header.kind, {data, header.bytes}};
    }
  }
  return std::nullopt;
}

void Channel::end_drain() noexcept { publish_head(); }

void Channel::publish_head() noexcept {
  consumer_.published = consumer_.position;
  consumer_.head.store(consumer_.position, std::memory_order_release);
}

}  // namespace weir::log
