// Nanoseconds per access record on both sides of the log: what a core pays to write one into its
// channel, and what control pays to drain, format and write it. One thread does both in turns, so
// the figures are CPU time without the effects of two caches; `--threads` runs the sides apart.
//
//   log_bench [records] [--threads]
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include <weir/log/access.h>
#include <weir/log/channel.h>
#include <weir/log/collector.h>
#include <weir/log/format.h>

namespace {

using weir::log::AccessFormat;
using weir::log::AccessRecord;
using weir::log::Channel;

constexpr size_t kBatch = 1000;

int64_t wall_clock_us() noexcept {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

double thread_cpu_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

// Strings as an exchange holds them: each in its own place. 233 bytes encoded.
AccessRecord typical_record(uint64_t number) {
  AccessRecord r;
  r.start_us = 1'795'169'472'000'000 + static_cast<int64_t>(number * 20);
  r.duration_us = 180 + number % 100;
  r.upstream_us = 150 + number % 100;
  r.upstream_header_us = 148;
  r.bytes_in = 120;
  r.bytes_out = 371;
  r.request_id_high = number * 0x9e3779b97f4a7c15ULL;
  r.request_id_low = number;
  r.client = weir::base::IpAddress::from_v4(0x0a000001u + static_cast<uint32_t>(number % 200));
  r.client_port = static_cast<uint16_t>(40'000 + number % 10'000);
  r.status = 200;
  r.core = 1;
  r.tries = 1;
  r.upstream_reused = true;
  r.method = "GET";
  r.host = "www.example.com";
  r.path = "/api/v1/items/12345?sort=name&limit=20";
  r.user_agent = "Mozilla/5.0 (X11; Linux x86_64)";
  r.upstream = "api";
  r.upstream_address = "10.0.0.12:8080";
  return r;
}

void report(const char* what, double total_ns, uint64_t records) {
  std::printf("%-36s %8.1f ns per record\n", what, total_ns / static_cast<double>(records));
}

void bench_write_and_parse(uint64_t records) {
  Channel channel;
  double write_ns = 0;
  double drain_ns = 0;
  uint64_t checksum = 0;
  for (uint64_t done = 0; done < records; done += kBatch) {
    const double start = thread_cpu_ns();
    for (uint64_t i = 0; i < kBatch; ++i) write_access(channel, typical_record(done + i));
    const double middle = thread_cpu_ns();
    channel.begin_drain();
    while (const auto record = channel.next()) {
      checksum += weir::log::parse_access(record->bytes)->status;
    }
    channel.end_drain();
    write_ns += middle - start;
    drain_ns += thread_cpu_ns() - middle;
  }
  if (checksum != 200 * records) std::abort();
  report("core: fill record and write_access", write_ns, records);
  report("control: drain and parse", drain_ns, records);
}

void bench_format(const char* what, AccessFormat format, uint64_t records) {
  weir::log::Formatter formatter;
  std::string out;
  uint64_t bytes = 0;
  const double start = thread_cpu_ns();
  for (uint64_t i = 0; i < records; ++i) {
    if (i % 150 == 0) {
      bytes += out.size();
      out.clear();
    }
    formatter.append(out, typical_record(i), format);
  }
  report(what, thread_cpu_ns() - start, records);
  bytes += out.size();
  std::printf("%-36s %8.1f bytes per line\n", "",
              static_cast<double>(bytes) / static_cast<double>(records));
}

void bench_collect(const char* what, const std::string& target, AccessFormat format,
                   uint64_t records) {
  Channel channel;
  weir::log::Logger logger(wall_clock_us);
  weir::log::Collector collector(wall_clock_us);
  if (!collector.configure({.access_format = format, .access_target = target})) std::abort();
  collector.add(channel, logger, 1);
  double collect_ns = 0;
  for (uint64_t done = 0; done < records; done += kBatch) {
    for (uint64_t i = 0; i < kBatch; ++i) write_access(channel, typical_record(done + i));
    const double start = thread_cpu_ns();
    collector.collect();
    collect_ns += thread_cpu_ns() - start;
  }
  report(what, collect_ns, records);
  const auto counters = collector.counters();
  std::printf("%-36s %8.0f bytes per write(2)\n", "",
              static_cast<double>(counters.bytes_written) / static_cast<double>(counters.writes));
}

// The producer is paced (batches of a thousand), the consumer collects every millisecond: the
// ring's lines then move between two caches as in the server.
void bench_threads(uint64_t records) {
  Channel channel;
  weir::log::Logger logger(wall_clock_us);
  weir::log::Collector collector(wall_clock_us);
  if (!collector.configure({.access_target = "/dev/null"})) std::abort();
  collector.add(channel, logger, 1);
  std::atomic<bool> finished{false};
  double consumer_ns = 0;
  std::thread consumer([&] {
    const double start = thread_cpu_ns();
    while (!finished.load(std::memory_order_acquire)) {
      collector.collect();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    collector.flush(0);
    consumer_ns = thread_cpu_ns() - start;
  });
  double producer_ns = 0;
  for (uint64_t done = 0; done < records; done += kBatch) {
    const double start = thread_cpu_ns();
    for (uint64_t i = 0; i < kBatch; ++i) write_access(channel, typical_record(done + i));
    producer_ns += thread_cpu_ns() - start;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  finished.store(true, std::memory_order_release);
  consumer.join();
  report("two threads, core side", producer_ns, records);
  report("two threads, control side", consumer_ns, records);
  std::printf("%-36s %8llu of %llu dropped\n", "",
              static_cast<unsigned long long>(channel.dropped()),
              static_cast<unsigned long long>(records));
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t records = 1'000'000;
  bool threads = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--threads") == 0) {
      threads = true;
    } else {
      records = std::strtoull(argv[i], nullptr, 10);
    }
  }
  records = std::max<uint64_t>(records / kBatch, 1) * kBatch;
  bench_write_and_parse(records);
  bench_format("control: format JSON", AccessFormat::kJson, records);
  bench_format("control: format combined", AccessFormat::kCombined, records);
  bench_collect("control: collect, JSON to /dev/null", "/dev/null", AccessFormat::kJson, records);
  char path[] = "/tmp/log_bench_XXXXXX";
  const int fd = ::mkstemp(path);
  if (fd < 0) return 1;
  bench_collect("control: collect, JSON to a file", path, AccessFormat::kJson, records);
  std::remove(path);
  if (threads) bench_threads(std::min<uint64_t>(records, 500'000));
  return 0;
}
