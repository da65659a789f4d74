#include <weir/log/collector.h>

#include <atomic>
#include <csignal>
#include <string>
#include <thread>

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include "fixtures.h"

namespace weir::log {
namespace {

namespace fs = std::filesystem;
using test::contents;

size_t count(const std::string& text, const std::string& what) {
  size_t found = 0;
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += what.size()) ++found;
  return found;
}

struct Bench {
  test::TemporaryDirectory directory;
  Channel channel{Channel::kCapacityBytesMin};
  Logger logger{test::test_clock};
  Collector collector{test::test_clock};

  Bench() {
    test::now_us = test::kNowUs;
    logger.attach(channel, 0);
    collector.add(channel, logger, 0);
  }
  Settings settings() const {
    return {.error_target = directory.file("error.log"),
            .access_target = directory.file("access.log")};
  }
  std::string errors() const { return contents(directory.file("error.log")); }
  std::string accesses() const { return contents(directory.file("access.log")); }
};

TEST_CASE("collector: records of both kinds go to their files") {
  Bench bench;
  REQUIRE(bench.collector.configure(bench.settings()));
  REQUIRE(write_access(bench.channel, test::full_record()));
  WEIR_LOG(bench.logger, kWarn, "upstream", "connect failed", {"error", "refused"});
  REQUIRE(write_access(bench.channel, test::full_record()));
  CHECK(bench.collector.collect() == 3);
  CHECK(count(bench.accesses(), "\"status\":502") == 2);
  CHECK(bench.errors() ==
        "2026-11-20T10:11:12.123Z warn upstream connect failed error=refused core=0\n");
  const CollectorCounters counters = bench.collector.counters();
  CHECK(counters.access_records == 2);
  CHECK(counters.events == 1);
  CHECK(counters.malformed == 0);
  CHECK(counters.bytes_written == bench.accesses().size() + bench.errors().size());
  CHECK(bench.collector.collect() == 0);
}

TEST_CASE("collector: before it is configured nothing is lost") {
  Bench bench;
  REQUIRE(write_access(bench.channel, test::full_record()));
  CHECK(bench.collector.collect() == 0);
  REQUIRE(bench.collector.configure(bench.settings()));
  CHECK(bench.collector.collect() == 1);
}

TEST_CASE("collector: formats and levels follow the settings") {
  Bench bench;
  Settings settings = bench.settings();
  settings.error_format = ErrorFormat::kJson;
  settings.access_format = AccessFormat::kCommon;
  settings.level = Level::kDebug;
  REQUIRE(bench.collector.configure(settings));
  WEIR_LOG(bench.logger, kDebug, "a", "seen");
  write_access(bench.channel, test::full_record());
  // The record before belongs to the format before.
  settings.access_format = AccessFormat::kCombined;
  settings.level = Level::kError;
  REQUIRE(bench.collector.configure(settings));
  WEIR_LOG(bench.logger, kWarn, "a", "not seen");
  write_access(bench.channel, test::full_record());
  bench.collector.collect();
  CHECK(bench.errors() ==
        "{\"time\":\"2026-11-20T10:11:12.123Z\",\"level\":\"debug\",\"component\":\"a\","
        "\"message\":\"seen\",\"core\":0}\n");
  CHECK(count(bench.accesses(), "192.0.2.7 - - [") == 2);
  CHECK(count(bench.accesses(), "curl/8.5.0") == 1);
}

TEST_CASE("collector: a refused reload changes nothing") {
  Bench bench;
  REQUIRE(bench.collector.configure(bench.settings()));
  Settings bad = bench.settings();
  bad.error_target = bench.directory.file("new-error.log");
  bad.access_target = "/nonexistent-directory/access.log";
  bad.level = Level::kOff;
  const auto refused = bench.collector.configure(bad);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error() ==
        "cannot open log file /nonexistent-directory/access.log: No such file or directory");
  WEIR_LOG(bench.logger, kWarn, "a", "still here");
  write_access(bench.channel, test::full_record());
  bench.collector.collect();
  CHECK(count(bench.errors(), "still here") == 1);
  CHECK(count(bench.accesses(), "\"status\":502") == 1);
}

TEST_CASE("collector: targets can be moved, shared and switched off at reload") {
  Bench bench;
  Settings settings = bench.settings();
  REQUIRE(bench.collector.configure(settings));
  write_access(bench.channel, test::full_record());
  settings.access_target = settings.error_target;
  REQUIRE(bench.collector.configure(settings));
  CHECK(count(bench.accesses(), "\"status\":502") == 1);
  write_access(bench.channel, test::full_record());
  WEIR_LOG(bench.logger, kWarn, "a", "beside it");
  bench.collector.collect();
  CHECK(count(bench.errors(), "\"status\":502") == 1);
  CHECK(count(bench.errors(), "beside it") == 1);
  settings.access_target = "off";
  REQUIRE(bench.collector.configure(settings));
  CHECK_FALSE(bench.collector.access_enabled());
  write_access(bench.channel, test::full_record());
  CHECK(bench.collector.collect() == 1);
  CHECK(count(bench.errors(), "\"status\":502") == 1);
  settings.access_target = bench.directory.file("other.log");
  REQUIRE(bench.collector.configure(settings));
  CHECK(bench.collector.access_enabled());
  write_access(bench.channel, test::full_record());
  bench.collector.collect();
  CHECK(count(contents(bench.directory.file("other.log")), "\"status\":502") == 1);
  // Bytes of the files that were left still count.
  CHECK(bench.collector.counters().bytes_written ==
        bench.accesses().size() + bench.errors().size() +
            contents(bench.directory.file("other.log")).size());
}

TEST_CASE("collector: rotation limits of a reload hold for open files") {
  Bench bench;
  Settings settings = bench.settings();
  REQUIRE(bench.collector.configure(settings));
  for (int i = 0; i < 10; ++i) write_access(bench.channel, test::full_record());
  bench.collector.collect();
  settings.size_bytes_max = 1'000;
  settings.files_max = 1;
  REQUIRE(bench.collector.configure(settings));
  write_access(bench.channel, test::full_record());
  bench.collector.collect();
  CHECK(count(bench.accesses(), "\"status\":502") == 1);
  CHECK(count(contents(bench.directory.file("access.log.1")), "\"status\":502") == 10);
  CHECK(bench.collector.counters().rotations == 1);
}

TEST_CASE("collector: what full channels dropped is told, at most once a second") {
  Bench bench;
  REQUIRE(bench.collector.configure(bench.settings()));
  const auto overfill = [&] {
    while (write_access(bench.channel, test::full_record())) {
    }
  };
  overfill();
  bench.collector.collect();
  CHECK(count(bench.errors(),
              "warn log log channel was full, records dropped records=1 "
              "channel_bytes=32768 core=0\n") == 1);
  overfill();
  overfill();
  bench.collector.collect();
  CHECK(count(bench.errors(), "records dropped") == 1);
  test::now_us += 1'000'000;
  bench.collector.collect();
  CHECK(count(bench.errors(), "records=2 ") == 1);
  CHECK(bench.collector.counters().dropped == 3);
}

TEST_CASE("collector: reopen follows renamed files, and logs what it cannot open") {
  Bench bench;
  fs::create_directory(bench.directory.file("sub"));
  Settings settings = bench.settings();
  settings.access_target = bench.directory.file("sub/access.log");
  REQUIRE(bench.collector.configure(settings));
  write_access(bench.channel, test::full_record());
  fs::rename(settings.access_target, settings.access_target + ".old");
  bench.collector.reopen();
  write_access(bench.channel, test::full_record());
  bench.collector.collect();
  CHECK(count(contents(settings.access_target + ".old"), "\"status\":502") == 1);
  CHECK(count(contents(settings.access_target), "\"status\":502") == 1);
  fs::rename(bench.directory.file("sub"), bench.directory.file("moved"));
  bench.collector.reopen();
  CHECK(count(bench.errors(),
              "error log log could not be reopened, the old file stays in use "
              "target=" +
                  settings.access_target + " error=\"No such file or directory\"") == 1);
  write_access(bench.channel, test::full_record());
  bench.collector.collect();
  CHECK(count(contents(bench.directory.file("moved/access.log")), "\"status\":502") == 2);
}

// As root the files go to another user; otherwise only the refusal can be seen.
TEST_CASE("collector: files are given to the user that the process becomes") {
  Bench bench;
  REQUIRE(bench.collector.configure(bench.settings()));
  constexpr uid_t kOther = 65'534;
  const auto given = bench.collector.give_files_to(kOther, kOther);
  if (::getuid() != 0) {
    REQUIRE_FALSE(given.has_value());
    CHECK(given.error().starts_with("cannot change the owner of log file "));
    return;
  }
  REQUIRE(given.has_value());
  for (const char* name : {"error.log", "access.log"}) {
    struct stat info;
    REQUIRE(::stat(bench.directory.file(name).c_str(), &info) == 0);
    CHECK(info.st_uid == kOther);
    CHECK(info.st_gid == kOther);
  }
}

TEST_CASE("collector: a log that cannot be written is told of in the other") {
  Bench bench;
  Settings settings = bench.settings();
  settings.access_target = "/dev/full";
  REQUIRE(bench.collector.configure(settings));
  for (int round = 0; round < 3; ++round) {
    write_access(bench.channel, test::full_record());
    bench.collector.collect();
  }
  CHECK(bench.errors() ==
        "2026-11-20T10:11:12.123Z error log log cannot be written, lines are lost "
        "target=/dev/full error=\"No space left on device\"\n");
  CHECK(bench.collector.counters().lines_lost == 3);
}

TEST_CASE("collector: an error log that cannot be written says so on stderr, once") {
  Bench bench;
  Settings settings = bench.settings();
  settings.error_target = "/dev/full";
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const int saved = ::dup(STDERR_FILENO);
  ::dup2(ends[1], STDERR_FILENO);
  const auto configured = bench.collector.configure(settings);
  for (int round = 0; round < 3; ++round) {
    WEIR_LOG(bench.logger, kWarn, "a", "lost");
    bench.collector.collect();
  }
  ::dup2(saved, STDERR_FILENO);
  ::close(saved);
  ::close(ends[1]);
  REQUIRE(configured);
  std::string said(4096, '\0');
  said.resize(static_cast<size_t>(::read(ends[0], said.data(), said.size())));
  ::close(ends[0]);
  CHECK(said ==
        "2026-11-20T10:11:12.123Z error log the error log cannot be written, lines are lost "
        "target=/dev/full\n");
}

TEST_CASE("collector: flush takes all that is there and reports drops at once") {
  Bench bench;
  REQUIRE(bench.collector.configure(bench.settings()));
  while (write_access(bench.channel, test::full_record())) {
  }
  bench.collector.collect();
  write_access(bench.channel, test::full_record());
  while (write_access(bench.channel, test::full_record())) {
  }
  bench.collector.flush(100);
  CHECK(count(bench.errors(), "records dropped") == 2);
  CHECK(count(bench.accesses(), "\"status\":502") == bench.collector.counters().access_records);
}

TEST_CASE("collector: cores write while control collects, reloads and reopens", "[threads]") {
  test::TemporaryDirectory directory;
  constexpr int kCores = 2;
  constexpr uint64_t kRecords = 20'000;
  Channel channels[kCores];
  Logger first(test::test_clock);
  Logger second(test::test_clock);
  Logger* loggers[kCores] = {&first, &second};
  Collector collector(test::test_clock);
  Settings settings{.error_target = directory.file("error.log"),
                    .access_target = directory.file("access.log")};
  REQUIRE(collector.configure(settings));
  for (uint16_t core = 0; core < kCores; ++core) {
    collector.add(channels[core], *loggers[core], core);
  }
  std::atomic<int> running{kCores};
  std::vector<std::thread> threads;
  for (uint16_t core = 0; core < kCores; ++core) {
    threads.emplace_back([&, core] {
      loggers[core]->attach(channels[core], core);
      for (uint64_t i = 0; i < kRecords; ++i) {
        write_access(channels[core], test::full_record());
        if (i % 100 == 0) WEIR_LOG(*loggers[core], kError, "a", "event", {"i", i});
        channels[core].take_wake_request();
      }
      running.fetch_sub(1, std::memory_order_release);
    });
  }
  for (int pass = 0; running.load(std::memory_order_acquire) > 0; ++pass) {
    collector.collect();
    settings.level = pass % 2 == 0 ? Level::kError : Level::kDebug;
    if (pass % 16 == 0) REQUIRE(collector.configure(settings));
    if (pass % 16 == 8) collector.reopen();
    std::this_thread::yield();
  }
  for (std::thread& thread : threads) thread.join();
  collector.flush(0);
  const CollectorCounters counters = collector.counters();
  CHECK(counters.malformed == 0);
  CHECK(counters.access_records + counters.events + counters.dropped ==
        kCores * (kRecords + kRecords / 100));
  CHECK(count(contents(directory.file("access.log")), "\"status\":502") == counters.access_records);
  CHECK(count(contents(directory.file("error.log")), " a event ") == counters.events);
}

}  // namespace
}  // namespace weir::log
