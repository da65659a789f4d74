// The consuming end of all log channels: drains, formats, writes, rotates. Owned by control, on its
// thread only. It borrows channels and loggers, which must outlive it. collect() is called on a
// timer and when a core asked for it; it never waits for a slow reader.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <weir/log/channel.h>
#include <weir/log/error_log.h>
#include <weir/log/format.h>
#include <weir/log/sink.h>

namespace weir::log {

struct Settings {
  Level level = Level::kInfo;
  ErrorFormat error_format = ErrorFormat::kText;
  AccessFormat access_format = AccessFormat::kJson;
  std::string error_target = "stderr";   // "stdout", "stderr" or a path
  std::string access_target = "stdout";  // the same, or "off"
  uint64_t size_bytes_max = 0;           // rotation of each file; 0: none
  uint32_t files_max = 5;
};

struct CollectorCounters {
  uint64_t access_records = 0;
  uint64_t events = 0;
  uint64_t malformed = 0;      // records that did not parse: a bug of ours
  uint64_t dropped = 0;        // by full channels
  uint64_t bytes_written = 0;  // of the sinks, as are the following
  uint64_t writes = 0;
  uint64_t lines_lost = 0;
  uint64_t rotations = 0;
};

class Collector {
 public:
  explicit Collector(WallClock clock) noexcept;
  Collector(const Collector&) = delete;
  Collector& operator=(const Collector&) = delete;

  // At start and at reload. Either all of it takes effect or nothing; the error is a sentence.
  // Targets that stay the same stay open. Sets the level of every logger.
  std::expected<void, std::string> configure(const Settings& settings);
  [[nodiscard]] const Settings& settings() const noexcept { return settings_; }
  // Cores need not write access records while this is false.
  [[nodiscard]] bool access_enabled() const noexcept { return access_ != nullptr; }

  // A thread's channel and its logger, which is attached to the channel by whoever runs the thread.
  void add(Channel& channel, Logger& logger, uint16_t core = Event::kNoCore);

  // One pass over all channels, then a write. Returns the number of records.
  size_t collect();
  // The last collect() left lines behind for a reader that does take some: collect() again soon. A
  // pipe holds 64 KiB, and a busy site logs more than that in a flush interval.
  [[nodiscard]] bool behind() const noexcept { return behind_; }
  // SIGUSR1: opens the files anew. What failed is logged and its old file stays in use.
  void reopen();
  // At the end: collects and waits at most about `wait_ms` for each slow reader.
  void flush(int wait_ms);
  // Before privileges are dropped, so that reopening works afterwards.
  std::expected<void, std::string> give_files_to(uid_t user, gid_t group);

  [[nodiscard]] CollectorCounters counters() const noexcept;

 private:
  struct Source {
    Channel* channel = nullptr;
    Logger* logger = nullptr;
    uint16_t core = Event::kNoCore;
    uint64_t dropped_reported = 0;
  };
  using Sink = std::unique_ptr<FileSink>;

  size_t drain(Channel& channel);
  [[nodiscard]] uint64_t bytes_written_now() const noexcept;
  void take_record(const Record& record);
  void write_event(Event& event);
  void report_drops();
  void report_trouble(const FileSink& sink, Level level, std::string_view message, int os,
                      const SinkLoss* loss = nullptr);
  void report_sink(FileSink& sink);
  void report_error_sink();
  void retire(Sink sink);
  std::expected<Sink, std::string> open_sink(const std::string& target,
                                             const Settings& settings) const;

  WallClock clock_;
  Settings settings_;
  std::vector<Source> sources_;
  Formatter formatter_;
  Sink error_sink_;
  Sink access_sink_;            // empty when off or when both go to the same place
  FileSink* access_ = nullptr;  // access_sink_, error_sink_, or null when off
  int64_t drops_reported_us_ = 0;
  bool behind_ = false;
  bool error_failing_ = false;
  CollectorCounters counters_;  // those of the sinks only of retired ones
};

}  // namespace weir::log
