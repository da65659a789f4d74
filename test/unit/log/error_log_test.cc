#include <weir/log/error_log.h>

#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include <weir/log/format.h>

#include "fixtures.h"

namespace weir::log {
namespace {

// Events as text lines, without their time.
std::vector<std::string> take_lines(Channel& channel) {
  std::vector<std::string> lines;
  Formatter formatter;
  channel.begin_drain();
  while (const auto record = channel.next()) {
    REQUIRE(record->kind == RecordKind::kEvent);
    const auto event = parse_event(record->bytes);
    REQUIRE(event.has_value());
    std::string line;
    formatter.append_text(line, *event);
    lines.push_back(line.substr(25, line.size() - 26));
  }
  channel.end_drain();
  return lines;
}

// Runs `body` with stderr going to a file and returns what was written.
template <class Body>
std::string capture_stderr(Body&& body) {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("stderr");
  const int saved = ::dup(STDERR_FILENO);
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  ::dup2(file, STDERR_FILENO);
  body();
  ::dup2(saved, STDERR_FILENO);
  ::close(saved);
  ::close(file);
  return test::contents(path);
}

TEST_CASE("error log: levels have names, and names levels") {
  for (const Level level :
       {Level::kTrace, Level::kDebug, Level::kInfo, Level::kWarn, Level::kError, Level::kOff}) {
    CHECK(parse_level(to_string(level)) == level);
  }
  CHECK_FALSE(parse_level("Warn").has_value());
  CHECK_FALSE(parse_level("").has_value());
}

TEST_CASE("error log: fields of all kinds go through the channel") {
  Channel channel(Channel::kCapacityBytesMin);
  Logger logger(test::test_clock);
  logger.attach(channel, 4);
  const std::string text = "10.0.0.1:80";
  WEIR_LOG(logger, kWarn, "upstream", "connect failed", {"address", text},
           {"error", base::Errc::kRefused}, {"count", 3}, {"low", INT64_MIN}, {"high", UINT64_MAX},
           {"reused", true}, {"safe", false}, {"literal", "a b"}, {"port", uint16_t{80}});
  WEIR_LOG(logger, kError, "net", "no fields");
  CHECK(take_lines(channel) ==
        std::vector<std::string>{
            "warn upstream connect failed address=10.0.0.1:80 error=refused count=3 "
            "low=-9223372036854775808 high=18446744073709551615 reused=true safe=false "
            "literal=\"a b\" port=80 core=4",
            "error net no fields core=4"});
}

TEST_CASE("error log: what is not enabled is not even evaluated") {
  Channel channel(Channel::kCapacityBytesMin);
  Logger logger(test::test_clock, Level::kWarn);
  logger.attach(channel);
  int evaluated = 0;
  const auto value = [&] { return ++evaluated; };
  WEIR_LOG(logger, kInfo, "a", "below", {"n", value()});
  WEIR_LOG(logger, kWarn, "a", "at", {"n", value()});
  WEIR_LOG(logger, kError, "a", "above", {"n", value()});
  CHECK(take_lines(channel) == std::vector<std::string>{"warn a at n=1", "error a above n=2"});
  logger.set_level(Level::kOff);
  WEIR_LOG(logger, kError, "a", "off", {"n", value()});
  CHECK(take_lines(channel).empty());
  logger.set_level(Level::kTrace);
  WEIR_LOG(logger, kTrace, "a", "all", {"n", value()});
  CHECK(take_lines(channel) == std::vector<std::string>{"trace a all n=3"});
  CHECK_FALSE(logger.enabled(Level::kOff));
}

TEST_CASE("error log: events are bounded: text is cut, numbers go whole or not at all") {
  Channel channel(Channel::kCapacityBytesMin);
  Logger logger(test::test_clock);
  logger.attach(channel);
  const std::string big(5000, 'x');
  WEIR_LOG(logger, kInfo, big, big, {big, big}, {"late", 12345});
  const auto lines = take_lines(channel);
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].size() < kEventBytesMax + 32);
  CHECK(lines[0].starts_with("info " + std::string(kComponentBytesMax, 'x') + " " +
                             std::string(kMessageBytesMax, 'x') + " " +
                             std::string(kFieldKeyBytesMax, 'x') + "=xxx"));
  CHECK(lines[0].ends_with("x truncated=true"));
  CHECK(lines[0].find("late") == std::string::npos);
  const std::string fields(kEventBytesMax, 'y');
  // Every amount of room left for the number, from plenty to none.
  for (size_t room = 0; room < 40; ++room) {
    const std::string value(kEventBytesMax - 16 - 1 - 1 - 4 - 1 - room, 'v');
    WEIR_LOG(logger, kInfo, "c", "m", {"k", value}, {"n", 1234567890});
    const auto line = take_lines(channel).at(0);
    const bool whole = line.ends_with("v n=1234567890");
    const bool absent = line.ends_with("v truncated=true");
    CHECK(whole == (room >= 4 + 1 + 10));
    CHECK(absent == !whole);
  }
}

TEST_CASE("error log: more fields than there is room for are left out and flagged") {
  Event event;
  for (size_t i = 0; i < kEventFieldsMax; ++i) event.add({"k", "v"});
  CHECK_FALSE(event.truncated);
  event.add({"k", "v"});
  CHECK(event.truncated);
  CHECK(event.field_count == kEventFieldsMax);
}

TEST_CASE("error log: bytes that are no event are refused") {
  Event event;
  event.component = "net";
  event.message = "message";
  event.add({"key", "value"});
  std::array<std::byte, kEventBytesMax> bytes;
  const size_t size = encode_event(event, bytes);
  REQUIRE(parse_event({bytes.data(), size}).has_value());
  for (size_t cut = 0; cut < size; ++cut) REQUIRE_FALSE(parse_event({bytes.data(), cut}));
  CHECK_FALSE(parse_event({bytes.data(), size + 1}).has_value());
}

TEST_CASE("error log: a limited place is held to its rate, and the count of the rest is told") {
  Channel channel(Channel::kCapacityBytesMin);
  Logger logger(test::test_clock);
  logger.attach(channel);
  test::now_us = test::kNowUs;
  const auto repeat = [&](int times) {
    for (int i = 0; i < times; ++i) WEIR_LOG_LIMITED(logger, kWarn, "a", "again", {"i", i});
  };
  repeat(25);
  CHECK(take_lines(channel).size() == Logger::kSiteEventsPerSecond);
  CHECK(logger.suppressed() == 25 - Logger::kSiteEventsPerSecond);
  // Another place is another matter.
  WEIR_LOG_LIMITED(logger, kWarn, "a", "other");
  CHECK(take_lines(channel) == std::vector<std::string>{"warn a other"});
  test::now_us += 1'000'000;
  repeat(2);
  CHECK(take_lines(channel) ==
        std::vector<std::string>{"warn a again i=0 suppressed=20", "warn a again i=1"});
  test::now_us = test::kNowUs - 5'000'000;  // the clock was set back
  repeat(1);
  CHECK(take_lines(channel).size() == 1);
  test::now_us = test::kNowUs;
  // The plain macro has no limit: a bad configuration shows all its errors.
  for (int i = 0; i < 100; ++i) WEIR_LOG(logger, kWarn, "config", "error", {"i", i});
  CHECK(take_lines(channel).size() == 100);
}

TEST_CASE("error log: a full channel drops and counts") {
  Channel channel(Channel::kCapacityBytesMin);
  Logger logger(test::test_clock);
  logger.attach(channel);
  for (int i = 0; i < 5000; ++i) WEIR_LOG(logger, kInfo, "a", "filling the channel");
  const auto lines = take_lines(channel);
  CHECK(lines.size() > 100);
  CHECK(lines.size() + channel.dropped() == 5000);
}

TEST_CASE("error log: before and after the channel, lines go to stderr") {
  Channel channel(Channel::kCapacityBytesMin);
  Logger logger(test::test_clock);
  const std::string before = capture_stderr([&] {
    WEIR_LOG(logger, kInfo, "app", "starting", {"cores", 2});
    logger.attach(channel);
    WEIR_LOG(logger, kInfo, "app", "in the channel");
    logger.detach();
    WEIR_LOG(logger, kInfo, "app", "stopped");
  });
  CHECK(before ==
        "2026-11-20T10:11:12.123Z info app starting cores=2\n"
        "2026-11-20T10:11:12.123Z info app stopped\n");
  CHECK(take_lines(channel) == std::vector<std::string>{"info app in the channel"});
}

TEST_CASE("error log: a thread logs while another sets its level and drains", "[threads]") {
  Channel channel(Channel::kCapacityBytesMin);
  Logger logger(test::test_clock);
  logger.attach(channel);
  constexpr int kEvents = 50'000;
  std::atomic<bool> finished{false};
  std::thread producer([&] {
    for (int i = 0; i < kEvents; ++i) {
      WEIR_LOG(logger, kDebug, "a", "debug", {"i", i});
      WEIR_LOG(logger, kError, "a", "error", {"i", i});
    }
    finished.store(true, std::memory_order_release);
  });
  size_t errors = 0;
  size_t others = 0;
  const auto drain = [&] {
    channel.begin_drain();
    while (const auto record = channel.next()) {
      const auto event = parse_event(record->bytes);
      ++(event && event->level == Level::kError ? errors : others);
    }
    channel.end_drain();
  };
  for (int i = 0; !finished.load(std::memory_order_acquire); ++i) {
    logger.set_level(i % 2 == 0 ? Level::kDebug : Level::kInfo);
    drain();
  }
  producer.join();
  drain();
  CHECK(errors + others + channel.dropped() >= kEvents);
  CHECK(errors + others + channel.dropped() <= 2 * kEvents);
  CHECK(errors > 0);
}

}  // namespace
}  // namespace weir::log
