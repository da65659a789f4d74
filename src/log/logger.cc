#include <weir/log/error_log.h>

#include <cerrno>
#include <cstdint>
#include <string>

#include <poll.h>
#include <unistd.h>

#include <weir/log/format.h>

#include "sink_target.h"

namespace weir::log {

namespace {

constexpr int64_t kSecondUs = 1'000'000;
constexpr int kStderrWaitMs = 1000;

}  // namespace

Logger::Logger(WallClock clock, Level level) noexcept : clock_(clock), level_(level) {}

void Logger::attach(Channel& channel, uint16_t core) noexcept {
  channel_ = &channel;
  core_ = core;
}

void Logger::detach() noexcept { channel_ = nullptr; }

void Logger::write(Level level, std::string_view component, std::string_view message,
                   std::initializer_list<Field> fields) noexcept {
  Event event;
  event.time_us = clock_();
  event.level = level;
  event.component = component;
  event.message = message;
  for (const Field& field : fields) event.add({field.key(), field.value(), field.bare()});
  emit(event);
}

// Windows of one second from a site's first event. Two sites that share a slot evict each other,
// which at worst lets more through; the total in suppressed() stays exact.
void Logger::write_limited(const CallSite& site, Level level, std::string_view component,
                           std::string_view message, std::initializer_list<Field> fields) noexcept {
  Event event;
  event.time_us = clock_();
  const auto address = reinterpret_cast<uintptr_t>(&site);
  Site& slot = sites_[((address * 0x9e3779b97f4a7c15ULL) >> 32) % sites_.size()];
  if (slot.site != &site) slot = {.site = &site, .window_start_us = event.time_us};
  const int64_t age_us = event.time_us - slot.window_start_us;
  if (age_us >= kSecondUs || age_us < 0) {  // below zero: the wall clock was set back
    slot.window_start_us = event.time_us;
    slot.count = 0;
  }
  if (slot.count == kSiteEventsPerSecond) {
    ++slot.suppressed;
    suppressed_.store(suppressed_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    return;
  }
  ++slot.count;
  event.level = level;
  event.component = component;
  event.message = message;
  for (const Field& field : fields) event.add({field.key(), field.value(), field.bare()});
  const Field left_out("suppressed", slot.suppressed);
  if (slot.suppressed != 0) event.add({left_out.key(), left_out.value(), true});
  slot.suppressed = 0;
  emit(event);
}

void Logger::emit(Event& event) noexcept {
  event.core = core_;
  if (channel_ == nullptr) {
    write_to_stderr(event);
    return;
  }
  std::array<std::byte, kEventBytesMax> bytes;
  const size_t size = encode_event(event, bytes);
  // A full channel drops and counts; the collector reports the count.
  static_cast<void>(channel_->try_write(RecordKind::kEvent, {bytes.data(), size}));
}

void write_to_stderr(const Event& event) noexcept {
  Formatter formatter;
  std::string line;
  formatter.append_text(line, event);
  // A reader that does not read must not hold up the process: give up after a while.
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t written =
        write_to(STDERR_FILENO, SinkKind::kPollFirst, line.data() + done, line.size() - done);
    if (written > 0) {
      done += static_cast<size_t>(written);
    } else if (written == 0 || (errno != EINTR && errno != EAGAIN)) {
      return;  // nobody left to tell
    } else if (errno == EAGAIN) {
      pollfd ready{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
      if (::poll(&ready, 1, kStderrWaitMs) == 0) return;
    }
  }
}

}  // namespace weir::log
