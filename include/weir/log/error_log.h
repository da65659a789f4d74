// The error log as its callers see it: levels, fields, and one Logger per thread. A Logger belongs
// to its thread and outlives the collector it was added to. Attached to a channel it never blocks
// or allocates (a full channel drops and counts); before that, during startup, it writes text lines
// straight to stderr.
//
//   WEIR_LOG(logger, kWarn, "upstream", "connect failed", {"address", text}, {"error", code});
//   WEIR_LOG_LIMITED(...)  the same, at most kSiteEventsPerSecond a second from this place
#pragma once

#include <array>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string_view>

#include <weir/base/error.h>
#include <weir/log/channel.h>

namespace weir::log {

enum class Level : uint8_t { kTrace, kDebug, kInfo, kWarn, kError, kOff };
std::string_view to_string(Level level) noexcept;
std::optional<Level> parse_level(std::string_view name) noexcept;

// Wall clock in microseconds since 1970. Passed in: reading clocks is runtime's business.
using WallClock = int64_t (*)() noexcept;

// One key and its value. Text is borrowed for the call; numbers are formatted at once.
class Field {
 public:
  Field(std::string_view key, std::string_view text) noexcept : key_(key), text_(text) {}
  Field(std::string_view key, const char* text) noexcept : key_(key), text_(text) {}
  Field(std::string_view key, base::Errc code) noexcept : key_(key), text_(to_string(code)) {}
  Field(std::string_view key, bool value) noexcept;
  template <std::signed_integral T>
  Field(std::string_view key, T value) noexcept : key_(key) {
    set_signed(value);
  }
  template <std::unsigned_integral T>
  Field(std::string_view key, T value) noexcept : key_(key) {
    set_unsigned(value);
  }

  [[nodiscard]] std::string_view key() const noexcept { return key_; }
  [[nodiscard]] std::string_view value() const noexcept {
    return bare_ ? std::string_view(digits_, digit_count_) : text_;
  }
  [[nodiscard]] bool bare() const noexcept { return bare_; }  // number or truth value

 private:
  void set_signed(int64_t value) noexcept;
  void set_unsigned(uint64_t value) noexcept;

  std::string_view key_;
  std::string_view text_;
  char digits_[21];
  uint8_t digit_count_ = 0;
  bool bare_ = false;
};

inline constexpr size_t kEventBytesMax = 2048;  // encoded; what does not fit is cut and flagged
inline constexpr size_t kEventFieldsMax = 16;
inline constexpr size_t kComponentBytesMax = 32;
inline constexpr size_t kMessageBytesMax = 1024;
inline constexpr size_t kFieldKeyBytesMax = 64;

struct EventField {
  std::string_view key;
  std::string_view value;
  bool bare = false;  // value is a JSON number, true or false
};

// One event as the formatters take it.
struct Event {
  static constexpr uint16_t kNoCore = UINT16_MAX;

  int64_t time_us = 0;
  Level level = Level::kInfo;
  bool truncated = false;
  uint16_t core = kNoCore;
  std::string_view component;
  std::string_view message;
  std::array<EventField, kEventFieldsMax> fields{};
  size_t field_count = 0;

  void add(const EventField& field) noexcept;  // beyond kEventFieldsMax: truncated
};

size_t encode_event(const Event& event, std::span<std::byte, kEventBytesMax> out) noexcept;
std::optional<Event> parse_event(std::span<const std::byte> bytes) noexcept;

// Marks a place in the source for rate limiting; its address is its identity.
struct CallSite {
  char unused = 0;
};

class Logger {
 public:
  static constexpr uint32_t kSiteEventsPerSecond = 5;

  // Startup form: text lines to stderr.
  explicit Logger(WallClock clock, Level level = Level::kInfo) noexcept;
  Logger(const Logger&) = delete;
  Logger& operator=(const Logger&) = delete;

  // From now on events go to `channel`, whose producer this thread must be.
  void attach(Channel& channel, uint16_t core = Event::kNoCore) noexcept;
  void detach() noexcept;  // back to stderr: the collector is gone (shutdown)
  [[nodiscard]] bool enabled(Level level) const noexcept {
    return level >= level_.load(std::memory_order_relaxed) && level != Level::kOff;
  }
  // Any thread; the collector does it on reconfigure().
  void set_level(Level level) noexcept { level_.store(level, std::memory_order_relaxed); }

  // The macros below ask enabled() first; called directly, it writes whatever the level.
  void write(Level level, std::string_view component, std::string_view message,
             std::initializer_list<Field> fields) noexcept;
  void write_limited(const CallSite& site, Level level, std::string_view component,
                     std::string_view message, std::initializer_list<Field> fields) noexcept;
  // Any thread: events that write_limited() left out.
  [[nodiscard]] uint64_t suppressed() const noexcept {
    return suppressed_.load(std::memory_order_relaxed);
  }

 private:
  struct Site {
    const CallSite* site = nullptr;
    int64_t window_start_us = 0;
    uint32_t count = 0;
    uint32_t suppressed = 0;
  };
  void emit(Event& event) noexcept;

  Channel* channel_ = nullptr;
  WallClock clock_;
  std::atomic<Level> level_;
  uint16_t core_ = Event::kNoCore;
  std::atomic<uint64_t> suppressed_{0};
  std::array<Site, 64> sites_{};  // direct-mapped by the site's address
};

// Formats `event` as text and writes it to stderr, blocking. Only for startup and for the last
// words of a log that cannot be written.
void write_to_stderr(const Event& event) noexcept;

}  // namespace weir::log

// `level` is an enumerator's bare name (kWarn); fields are only evaluated when it is enabled.
#define WEIR_LOG(logger, level, component, message, ...)                                \
  do {                                                                                  \
    if ((logger).enabled(::weir::log::Level::level)) {                                  \
      (logger).write(::weir::log::Level::level, (component), (message), {__VA_ARGS__}); \
    }                                                                                   \
  } while (false)

#define WEIR_LOG_LIMITED(logger, level, component, message, ...)                                \
  do {                                                                                          \
    if ((logger).enabled(::weir::log::Level::level)) {                                          \
      static constexpr ::weir::log::CallSite weir_call_site{};                                  \
      (logger).write_limited(weir_call_site, ::weir::log::Level::level, (component), (message), \
                             {__VA_ARGS__});                                                    \
    }                                                                                           \
  } while (false)
