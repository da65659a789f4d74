#include <weir/log/collector.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace weir::log {

namespace {

constexpr std::string_view kComponent = "log";
constexpr int64_t kDropReportEveryUs = 1'000'000;
constexpr int kRetireWaitMs = 100;

std::string reason_of(int os) {
  if (os == EAGAIN) return "the reader is too slow";
  char buffer[128];
  // The GNU form, which may answer with a text of its own instead of filling the buffer.
  return ::strerror_r(os, buffer, sizeof(buffer));
}

std::string sentence(std::string_view what, const std::string& target, int os) {
  return std::string(what) + ' ' + target + ": " + reason_of(os);
}

void add_field(Event& event, const Field& field) {
  event.add({field.key(), field.value(), field.bare()});
}

}  // namespace

Collector::Collector(WallClock clock) noexcept : clock_(clock) {}

std::expected<Collector::Sink, std::string> Collector::open_sink(const std::string& target,
                                                                 const Settings& settings) const {
  auto sink = std::make_unique<FileSink>();
  const base::Result<void> opened = sink->open({.target = target,
                                                .size_bytes_max = settings.size_bytes_max,
                                                .files_max = settings.files_max});
  if (!opened) {
    return std::unexpected(sentence("cannot open log file", target, opened.error().os));
  }
  return sink;
}

// Opens what is new before touching what is there, so that a refusal changes nothing.
std::expected<void, std::string> Collector::configure(const Settings& settings) {
  const bool has_access = settings.access_target != "off";
  const bool shared = has_access && settings.access_target == settings.error_target;
  const bool keep_error = error_sink_ && settings.error_target == error_sink_->options().target;
  const bool keep_access = access_sink_ && has_access && !shared &&
                           settings.access_target == access_sink_->options().target;
  Sink new_error;
  Sink new_access;
  if (!keep_error) {
    auto opened = open_sink(settings.error_target, settings);
    if (!opened) return std::unexpected(opened.error());
    new_error = std::move(*opened);
  }
  if (has_access && !shared && !keep_access) {
    auto opened = open_sink(settings.access_target, settings);
    if (!opened) return std::unexpected(opened.error());
    new_access = std::move(*opened);
  }
  // Records written under the old settings go where these say.
  if (error_sink_) collect();
  if (!keep_error) retire(std::exchange(error_sink_, std::move(new_error)));
  if (!keep_access) retire(std::exchange(access_sink_, std::move(new_access)));
  access_ = !has_access ? nullptr : shared ? error_sink_.get() : access_sink_.get();
  error_sink_->set_limits(settings.size_bytes_max, settings.files_max);
  if (access_sink_) access_sink_->set_limits(settings.size_bytes_max, settings.files_max);
  settings_ = settings;
  for (const Source& source : sources_) source.logger->set_level(settings.level);
  return {};
}

void Collector::retire(Sink sink) {
  if (!sink) return;
  sink->flush(kRetireWaitMs);
  sink->discard();
  const SinkCounters& sinks = sink->counters();
  counters_.bytes_written += sinks.bytes_written;
  counters_.writes += sinks.writes;
  counters_.lines_lost += sinks.lines_lost;
  counters_.rotations += sinks.rotations;
}

void Collector::add(Channel& channel, Logger& logger, uint16_t core) {
  logger.set_level(settings_.level);
  sources_.push_back({.channel = &channel, .logger = &logger, .core = core});
}

size_t Collector::collect() {
  if (!error_sink_) return 0;  // not configured: records wait in their channels
  size_t records = 0;
  const uint64_t written_before = bytes_written_now();
  for (const Source& source : sources_) records += drain(*source.channel);
  report_drops();
  if (access_sink_) {
    access_sink_->flush();
    report_sink(*access_sink_);
  }
  error_sink_->flush();
  report_error_sink();
  error_sink_->flush();
  const bool pending =
      error_sink_->pending() != 0 || (access_sink_ && access_sink_->pending() != 0);
  behind_ = pending && bytes_written_now() != written_before;
  return records;
}

uint64_t Collector::bytes_written_now() const noexcept {
  uint64_t bytes = error_sink_->counters().bytes_written;
  if (access_sink_) bytes += access_sink_->counters().bytes_written;
  return bytes;
}

size_t Collector::drain(Channel& channel) {
  size_t records = 0;
  channel.begin_drain();
  while (const std::optional<Record> record = channel.next()) {
    take_record(*record);
    ++records;
  }
  channel.end_drain();
  return records;
}

void Collector::take_record(const Record& record) {
  if (record.kind == RecordKind::kAccess) {
    const std::optional<AccessRecord> access = parse_access(record.bytes);
    if (!access) {
      ++counters_.malformed;
      return;
    }
    ++counters_.access_records;
    if (access_ == nullptr) return;
    formatter_.append(access_->begin_line(), *access, settings_.access_format);
    access_->end_line();
    return;
  }
  const std::optional<Event> event = parse_event(record.bytes);
  if (!event) {
    ++counters_.malformed;
    return;
  }
  ++counters_.events;
  formatter_.append(error_sink_->begin_line(), *event, settings_.error_format);
  error_sink_->end_line();
}

void Collector::write_event(Event& event) {
  if (event.level < settings_.level) return;
  event.time_us = clock_();
  event.component = kComponent;
  formatter_.append(error_sink_->begin_line(), event, settings_.error_format);
  error_sink_->end_line();
}

// Says for each core how many records its full channel dropped, at most once a second.
void Collector::report_drops() {
  const int64_t now_us = clock_();
  const int64_t since_us = now_us - drops_reported_us_;
  if (since_us >= 0 && since_us < kDropReportEveryUs) return;
  for (Source& source : sources_) {
    const uint64_t dropped = source.channel->dropped();
    if (dropped == source.dropped_reported) continue;
    Event event;
    event.level = Level::kWarn;
    event.core = source.core;
    event.message = "log channel was full, records dropped";
    const Field records("records", dropped - source.dropped_reported);
    const Field capacity("channel_bytes", source.channel->capacity());
    add_field(event, records);
    add_field(event, capacity);
    write_event(event);
    source.dropped_reported = dropped;
    drops_reported_us_ = now_us;
  }
}

void Collector::report_trouble(const FileSink& sink, Level level, std::string_view message, int os,
                               const SinkLoss* loss) {
  const Field target("target", sink.options().target);
  const std::string reason = reason_of(os);
  const Field error("error", reason);
  Event event;
  event.level = level;
  event.message = message;
  add_field(event, target);
  add_field(event, error);
  const Field lines("lines_lost", loss != nullptr ? loss->lines : 0);
  if (loss != nullptr) add_field(event, lines);
  write_event(event);
}

void Collector::report_sink(FileSink& sink) {
  if (const auto os = sink.take_failure()) {
    report_trouble(sink, Level::kError, "log cannot be written, lines are lost", *os);
  }
  if (const auto loss = sink.take_recovery()) {
    report_trouble(sink, Level::kWarn, "log can be written again", loss->os, &*loss);
  }
  if (const auto os = sink.take_rotation_failure()) {
    report_trouble(sink, Level::kError, "log could not be rotated, its file grows on", *os);
  }
}

// The error log cannot tell of itself while it fails: its trouble goes to stderr too.
void Collector::report_error_sink() {
  const bool failing_before = error_failing_;
  error_failing_ = error_sink_->failing();
  if (error_failing_ && !failing_before && error_sink_->options().target != "stderr" &&
      settings_.level <= Level::kError) {
    Event event;
    event.time_us = clock_();
    event.level = Level::kError;
    event.component = kComponent;
    event.message = "the error log cannot be written, lines are lost";
    const Field target("target", error_sink_->options().target);
    add_field(event, target);
    write_to_stderr(event);
  }
  report_sink(*error_sink_);
}

void Collector::reopen() {
  collect();
  const auto reopen_one = [this](FileSink* sink) {
    if (sink == nullptr) return;
    const base::Result<void> done = sink->reopen();
    if (done) return;
    report_trouble(*sink, Level::kError, "log could not be reopened, the old file stays in use",
                   done.error().os);
  };
  reopen_one(access_sink_.get());
  reopen_one(error_sink_.get());
  if (error_sink_) error_sink_->flush();
}

void Collector::flush(int wait_ms) {
  collect();
  drops_reported_us_ = 0;
  if (!error_sink_) return;
  report_drops();
  if (access_sink_) access_sink_->flush(wait_ms);
  error_sink_->flush(wait_ms);
}

std::expected<void, std::string> Collector::give_files_to(uid_t user, gid_t group) {
  for (FileSink* sink : {access_sink_.get(), error_sink_.get()}) {
    if (sink == nullptr) continue;
    const base::Result<void> done = sink->give_to(user, group);
    if (!done) {
      return std::unexpected(
          sentence("cannot change the owner of log file", sink->options().target, done.error().os));
    }
  }
  return {};
}

CollectorCounters Collector::counters() const noexcept {
  CollectorCounters sum = counters_;
  for (const Source& source : sources_) sum.dropped += source.channel->dropped();
  for (const FileSink* sink : {access_sink_.get(), error_sink_.get()}) {
    if (sink == nullptr) continue;
    sum.bytes_written += sink->counters().bytes_written;
    sum.writes += sink->counters().writes;
    sum.lines_lost += sink->counters().lines_lost;
    sum.rotations += sink->counters().rotations;
  }
  return sum;
}

}  // namespace weir::log
