#include <weir/log/channel.h>

#include <atomic>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/prng.h>

namespace weir::log {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::vector<std::string> drain(Channel& channel) {
  std::vector<std::string> records;
  channel.begin_drain();
  while (const auto record = channel.next()) {
    records.emplace_back(reinterpret_cast<const char*>(record->bytes.data()), record->bytes.size());
  }
  channel.end_drain();
  return records;
}

// A record whose length and contents follow from its number.
std::string numbered_record(uint64_t number) {
  base::Prng prng(number);
  std::string text(16 + prng.below(400), static_cast<char>('a' + number % 26));
  std::memcpy(text.data(), &number, sizeof(number));
  return text;
}

TEST_CASE("channel: capacities are rounded to powers of two within limits") {
  CHECK(Channel::round_capacity(0) == Channel::kCapacityBytesMin);
  CHECK(Channel::round_capacity(Channel::kCapacityBytesMin + 1) == 2 * Channel::kCapacityBytesMin);
  CHECK(Channel::round_capacity(1 << 20) == 1 << 20);
  CHECK(Channel::round_capacity(SIZE_MAX) == Channel::kCapacityBytesMax);
}

TEST_CASE("channel: records come out in order, of any length, aligned") {
  Channel channel(Channel::kCapacityBytesMin);
  std::vector<std::string> written;
  for (size_t length = 0; length < 40; ++length) {
    written.emplace_back(length, static_cast<char>('A' + length));
    REQUIRE(channel.try_write(length % 2 == 0 ? RecordKind::kAccess : RecordKind::kEvent,
                              bytes_of(written.back())));
  }
  channel.begin_drain();
  for (size_t length = 0; length < 40; ++length) {
    const auto record = channel.next();
    REQUIRE(record.has_value());
    CHECK(record->kind == (length % 2 == 0 ? RecordKind::kAccess : RecordKind::kEvent));
    CHECK(reinterpret_cast<uintptr_t>(record->bytes.data()) % 8 == 0);
    CHECK(std::string(reinterpret_cast<const char*>(record->bytes.data()), record->bytes.size()) ==
          written[length]);
  }
  CHECK_FALSE(channel.next().has_value());
  channel.end_drain();
  CHECK(drain(channel).empty());
}

TEST_CASE("channel: many times around the ring nothing is lost or changed") {
  Channel channel(Channel::kCapacityBytesMin);
  base::Prng prng(7);
  uint64_t written = 0;
  uint64_t read = 0;
  while (written < 20'000) {
    const uint64_t burst = 1 + prng.below(60);
    for (uint64_t i = 0; i < burst; ++i) {
      REQUIRE(channel.try_write(RecordKind::kEvent, bytes_of(numbered_record(written++))));
    }
    for (const std::string& record : drain(channel)) {
      REQUIRE(record == numbered_record(read++));
    }
  }
  CHECK(read == written);
  CHECK(channel.dropped() == 0);
}

TEST_CASE("channel: a full ring drops exactly what does not fit, and goes on afterwards") {
  Channel channel(Channel::kCapacityBytesMin);
  const std::string record(120, 'x');  // 128 bytes with its header
  const size_t fits = Channel::kCapacityBytesMin / 128;
  size_t taken = 0;
  for (size_t i = 0; i < fits + 17; ++i) {
    taken += channel.try_write(RecordKind::kAccess, bytes_of(record)) ? 1 : 0;
  }
  CHECK(taken == fits);
  CHECK(channel.dropped() == 17);
  CHECK(drain(channel).size() == fits);
  CHECK(channel.try_write(RecordKind::kAccess, bytes_of(record)));
  CHECK(drain(channel).size() == 1);
  CHECK(channel.dropped() == 17);
}

TEST_CASE("channel: the largest record fits whenever less than half is used") {
  Channel channel(Channel::kCapacityBytesMin);
  CHECK_FALSE(channel.try_write(RecordKind::kAccess,
                                bytes_of(std::string(channel.record_bytes_max() + 1, 'x'))));
  CHECK(channel.dropped() == 1);
  const std::string largest(channel.record_bytes_max(), 'L');
  const std::string small(56, 's');
  // Every phase of the ring, so that the padding takes every size.
  for (size_t phase = 0; phase < Channel::kCapacityBytesMin / 64; ++phase) {
    REQUIRE(channel.try_write(RecordKind::kAccess, bytes_of(small)));
    REQUIRE(channel.try_write(RecordKind::kAccess, bytes_of(largest)));
    REQUIRE(channel.try_write(RecordKind::kAccess, bytes_of(largest)));
    const auto records = drain(channel);
    REQUIRE(records.size() == 3);
    REQUIRE(records[2] == largest);
  }
}

TEST_CASE("channel: a reservation may shrink or be forgotten") {
  Channel channel(Channel::kCapacityBytesMin);
  REQUIRE(channel.try_reserve(1000).size() == 1000);
  const std::span<std::byte> room = channel.try_reserve(100);
  REQUIRE(room.size() == 100);
  std::memcpy(room.data(), "abc", 3);
  channel.commit(RecordKind::kEvent, 3);
  CHECK(drain(channel) == std::vector<std::string>{"abc"});
}

TEST_CASE("channel: one wake request for each time it becomes half full") {
  Channel channel(Channel::kCapacityBytesMin);
  const std::string record(120, 'x');
  const size_t half = Channel::kCapacityBytesMin / 128 / 2;
  for (int round = 0; round < 5; ++round) {
    size_t requests = 0;
    size_t first_at = 0;
    for (size_t i = 1; i <= 2 * half; ++i) {
      REQUIRE(channel.try_write(RecordKind::kAccess, bytes_of(record)));
      if (channel.take_wake_request()) {
        ++requests;
        if (first_at == 0) first_at = i;
      }
    }
    CHECK(requests == 1);
    CHECK(first_at >= half);
    CHECK(first_at <= half + half / 4);  // the level is looked at once per eighth of the ring
    drain(channel);
  }
}

TEST_CASE("channel: no wake request while the consumer keeps up") {
  Channel channel(Channel::kCapacityBytesMin);
  const std::string record(120, 'x');
  for (size_t i = 0; i < 10'000; ++i) {
    REQUIRE(channel.try_write(RecordKind::kAccess, bytes_of(record)));
    REQUIRE_FALSE(channel.take_wake_request());
    if (i % 100 == 99) drain(channel);
  }
}

TEST_CASE("channel: a drain ends at what was there when it began, and gives room back on the way") {
  Channel channel(Channel::kCapacityBytesMin);
  const std::string record(120, 'x');
  const size_t fits = Channel::kCapacityBytesMin / 128;
  for (size_t i = 0; i < fits; ++i) channel.try_write(RecordKind::kAccess, bytes_of(record));
  channel.begin_drain();
  size_t read = 0;
  size_t written_meanwhile = 0;
  while (channel.next()) {
    ++read;
    written_meanwhile += channel.try_write(RecordKind::kAccess, bytes_of(record)) ? 1 : 0;
  }
  channel.end_drain();
  CHECK(read == fits);
  CHECK(written_meanwhile >= fits / 2);
  CHECK(drain(channel).size() == written_meanwhile);
}

TEST_CASE("channel: two threads, every record arrives whole and in order or is counted",
          "[threads]") {
  Channel channel(Channel::kCapacityBytesMin);
  constexpr uint64_t kRecords = 200'000;
  std::atomic<bool> finished{false};
  uint64_t taken = 0;
  uint64_t wakes = 0;
  std::thread producer([&] {
    for (uint64_t number = 0; number < kRecords; ++number) {
      const std::string record = numbered_record(number);
      const bool written = channel.try_write(RecordKind::kAccess, bytes_of(record));
      taken += written ? 1 : 0;
      wakes += channel.take_wake_request() ? 1 : 0;
      if (!written) std::this_thread::yield();
    }
    finished.store(true, std::memory_order_release);
  });
  uint64_t read = 0;
  uint64_t broken = 0;
  std::optional<uint64_t> last;
  const auto pass = [&] {
    for (const std::string& record : drain(channel)) {
      uint64_t number = 0;
      std::memcpy(&number, record.data(), sizeof(number));
      if (record != numbered_record(number) || (last && number <= *last)) ++broken;
      last = number;
      ++read;
    }
  };
  while (!finished.load(std::memory_order_acquire)) {
    pass();
    if (read % 3 == 0) std::this_thread::yield();
  }
  pass();
  producer.join();
  CHECK(broken == 0);
  CHECK(read == taken);
  CHECK(taken + channel.dropped() == kRecords);
  CHECK(read > 0);
}

}  // namespace
}  // namespace weir::log
