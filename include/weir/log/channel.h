// A bounded ring of bytes from one producer thread (a core) to one consumer thread (control), for
// log records. Whoever starts the threads owns it; it outlives both sides. Memory is taken and
// touched once, at construction. The producer side never blocks, allocates or makes a system call:
// a record that does not fit is dropped and counted.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

namespace weir::log {

enum class RecordKind : uint16_t { kPadding, kAccess, kEvent };

struct Record {
  RecordKind kind = RecordKind::kPadding;
  std::span<const std::byte> bytes;
};

class Channel {
 public:
  // The smallest ring that takes the largest record of this room (see record_bytes_max()).
  static constexpr size_t kCapacityBytesMin = 32 * 1024;
  static constexpr size_t kCapacityBytesMax = 256 * 1024 * 1024;
  static constexpr size_t kCapacityBytesDefault = 1024 * 1024;
  // The next power of two, within the limits above: what a configured size becomes.
  static size_t round_capacity(size_t bytes) noexcept;

  // `capacity_bytes` must be a power of two within the limits.
  explicit Channel(size_t capacity_bytes = kCapacityBytesDefault);
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  [[nodiscard]] size_t capacity() const noexcept { return capacity_; }
  // A quarter of the ring: a record and the padding before it fit whenever it is half empty.
  [[nodiscard]] size_t record_bytes_max() const noexcept { return capacity_ / 4 - kHeaderBytes; }

  // Producer. Room for one contiguous record, 8-byte aligned, to be filled and committed before the
  // next reserve; reserving again without commit forgets it. data() is null when the record was
  // dropped (and counted).
  std::span<std::byte> try_reserve(size_t bytes) noexcept;
  // Publishes the first `bytes` of what was reserved.
  void commit(RecordKind kind, size_t bytes) noexcept;
  bool try_write(RecordKind kind, std::span<const std::byte> record) noexcept;
  // True once for each time that the ring became half full: the consumer should be woken. Ask it
  // once a turn; it touches nothing that is shared.
  bool take_wake_request() noexcept {
    const bool wanted = producer_.wake_wanted;
    producer_.wake_wanted = false;
    return wanted;
  }

  // Consumer. begin_drain() fixes how far this pass goes, so that a fast producer cannot hold the
  // consumer for ever; next() gives one record, valid until the following next() or end_drain().
  void begin_drain() noexcept;
  std::optional<Record> next() noexcept;
  void end_drain() noexcept;

  // Any thread: records dropped since construction.
  [[nodiscard]] uint64_t dropped() const noexcept {
    return producer_.dropped.load(std::memory_order_relaxed);
  }

 private:
  struct Header {
    uint32_t bytes;  // of the record, without this header and without alignment
    RecordKind kind;
    uint16_t zero;
  };
  static constexpr size_t kHeaderBytes = 8;
  static_assert(sizeof(Header) == kHeaderBytes);
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  // Positions count bytes since construction and never wrap (2^64); the ring offset is the position
  // masked. Two lines apart, because x86 prefetches lines in pairs.
  struct alignas(128) Producer {
    std::atomic<uint64_t> tail{0};
    std::atomic<uint64_t> dropped{0};
    uint64_t head_seen = 0;    // the consumer's head when last read
    uint64_t reserved_at = 0;  // where the reserved record's header goes
    uint64_t reserved_bytes = 0;
    uint64_t wake_check_at = 0;  // tail from which the fill level is looked at again
    bool above_half = false;     // a wake was requested for this crossing
    bool wake_wanted = false;
  };
  struct alignas(128) Consumer {
    std::atomic<uint64_t> head{0};
    uint64_t position = 0;  // of the record that next() gives
    uint64_t tail_seen = 0;
    uint64_t published = 0;
  };

  std::byte* at(uint64_t position) const noexcept;
  void watch_fill(uint64_t tail) noexcept;
  void publish_head() noexcept;

  size_t capacity_;
  uint64_t mask_;
  std::unique_ptr<Line[]> lines_;
  Producer producer_;
  Consumer consumer_;
};

}  // namespace weir::log
