// loadgen: clients and origin of a proxy in one thread that never sleeps, so that the proxy never
// pays for waking a sleeping peer (docs/BENCHMARKS.md says why that decides the figures). Started
// by tools/bench; not part of weir.
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <string>

#include "client.h"
#include "clock.h"
#include "options.h"
#include "origin.h"
#include "poller.h"
#include "process_usage.h"

namespace weir::bench {

namespace {

// No step of any mode may take longer than this, whatever the proxy does.
constexpr uint64_t kStepNsMax = 20 * kNsPerSecond;
constexpr uint64_t kStalledNs = kNsPerSecond;
constexpr size_t kOpeningAtOnce = 64;
constexpr size_t kAskedAgain = 256;
constexpr uint64_t kSettleNs = kNsPerSecond;
constexpr int kSleepMs = 20;

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        origin_(poller_, options.origin_port),
        clients_(poller_, {.target_port = options.target_port,
                           .second_port = options.second_port,
                           .body_bytes = options.body_bytes,
                           .connection_per_request = options.connection_per_request,
                           .tls = options.tls,
                           .resume = options.resume}) {}

  int run();
  int idle();
  int serve();

 private:
  void turn(int timeout_ms) noexcept;
  // Turns until `done()` or until the step has taken too long (false).
  template <typename Done>
  bool turn_until(Done done) noexcept {
    const uint64_t end = now_ns() + kStepNsMax;
    while (!done()) {
      turn(0);
      if (now_ns() > end) return false;
    }
    return true;
  }
  void turn_for(uint64_t duration_ns) noexcept {
    const uint64_t end = now_ns() + duration_ns;
    while (now_ns() < end) turn(options_.sleep ? kSleepMs : 0);
  }
  bool open_in_steps(size_t count, uint64_t requests) noexcept;
  void print_errors(uint64_t stalled) const;

  Options options_;
  Poller poller_;
  Origin origin_;
  Clients clients_;
  uint64_t turns_ = 0;
  uint64_t empty_turns_ = 0;
};

void Bench::turn(int timeout_ms) noexcept {
  const int count = poller_.wait(timeout_ms);
  ++turns_;
  if (count == 0) ++empty_turns_;
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = poller_.event(i);
    auto& endpoint = *static_cast<Endpoint*>(event.data.ptr);
    switch (endpoint.kind) {
      case EndpointKind::kListener: origin_.on_accept(); break;
      case EndpointKind::kOriginPeer: origin_.on_peer_event(endpoint, event.events); break;
      case EndpointKind::kClient: clients_.on_event(endpoint, event.events); break;
    }
  }
  clients_.end_turn();
  origin_.end_turn();
}

void Bench::print_errors(uint64_t stalled) const {
  const ClientErrors& e = clients_.errors();
  std::printf(
      "\"errors\": %" PRIu64 ", \"error_kinds\": {\"connect\": %" PRIu64 ", \"closed\": %" PRIu64
      ", \"malformed\": %" PRIu64 ", \"status\": %" PRIu64 ", \"length\": %" PRIu64
      ", \"content\": %" PRIu64 ", \"stalled\": %" PRIu64 ", \"handshake\": %" PRIu64
      ", \"resumption\": %" PRIu64 ", \"bad_at_origin\": %" PRIu64 "}",
      e.total() + stalled + origin_.bad_requests(), e.connect, e.closed, e.malformed, e.status,
      e.length, e.content, stalled, e.handshake, e.resumption, origin_.bad_requests());
}

int Bench::run() {
  clients_.open(options_.connections, Clients::kUnlimited);
  turn_for(static_cast<uint64_t>(options_.warm_seconds * 1e9));
  const bool all = turn_until(
      [this] { return clients_.proven() == options_.connections || clients_.busy() == 0; });
  if (!all || clients_.proven() != options_.connections) {
    std::fprintf(stderr, "loadgen: only %zu of %zu connections got a good response\n",
                 clients_.proven(), options_.connections);
  }
  uint64_t cpu_begin = 0;
  uint64_t cpu_end = 0;
  std::puts("START");
  std::fflush(stdout);
  turns_ = empty_turns_ = 0;
  const uint64_t accepted = origin_.accepted();
  bool sampled = read_cpu_ns(options_.pids, cpu_begin);
  clients_.begin_window();
  const uint64_t begin = now_ns();
  turn_for(static_cast<uint64_t>(options_.seconds * 1e9));
  sampled = read_cpu_ns(options_.pids, cpu_end) && sampled;
  const uint64_t end = now_ns();
  clients_.end_window();
  std::puts("END");
  if (!sampled) {
    std::fprintf(stderr, "loadgen: a process of the proxy ended during the run\n");
    return 1;
  }
  const double wall_s = static_cast<double>(end - begin) / 1e9;
  const double empty = static_cast<double>(empty_turns_) / static_cast<double>(turns_);
  const Histogram& latency = clients_.latency();
  std::printf("{\"requests\": %" PRIu64 ", \"requests_in_all\": %" PRIu64
              ", \"seconds\": %.6f, \"bytes\": %" PRIu64 ", \"proxy_cpu_ns\": %" PRIu64
              ", \"p50_us\": %.2f, \"p90_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f"
              ", \"origin_connections\": %" PRIu64 ", \"empty_turns\": %.4f, ",
              clients_.window_responses(), clients_.responses(), wall_s, clients_.window_bytes(),
              cpu_end - cpu_begin, static_cast<double>(latency.quantile(0.5)) / 1e3,
              static_cast<double>(latency.quantile(0.9)) / 1e3,
              static_cast<double>(latency.quantile(0.99)) / 1e3,
              static_cast<double>(latency.quantile(0.999)) / 1e3, origin_.accepted() - accepted,
              empty);
  const TlsCounts& tls = clients_.tls_counts();
  std::printf("\"handshakes\": %" PRIu64 ", \"resumed\": %" PRIu64 ", \"clean_ends\": %" PRIu64
              ", ",
              tls.handshakes, tls.resumed, tls.clean_ends);
  print_errors(clients_.stalled(kStalledNs) + (options_.connections - clients_.proven()));
  std::puts("}");
  return 0;
}

bool Bench::open_in_steps(size_t count, uint64_t requests) noexcept {
  for (size_t opened = 0; opened < count;) {
    const size_t step = std::min(kOpeningAtOnce, count - opened);
    clients_.open(step, requests);
    opened += step;
    if (!turn_until([this] { return clients_.busy() == 0; })) return false;
    if (clients_.errors().total() != 0) return false;
  }
  return true;
}

int Bench::idle() {
  uint64_t rss_start = 0;
  uint64_t rss_warm = 0;
  uint64_t rss_idle = 0;
  bool sampled = read_rss_bytes(options_.pids, rss_start);
  // What the first traffic costs once (buffers, pools, lazily touched tables) is not the price of
  // an idle connection.
  bool good = open_in_steps(kOpeningAtOnce, 100);
  turn_for(kSettleNs / 2);
  sampled = read_rss_bytes(options_.pids, rss_warm) && sampled;
  const size_t warm = clients_.size();
  good = good && open_in_steps(options_.connections, 1);
  turn_for(kSettleNs);
  sampled = read_rss_bytes(options_.pids, rss_idle) && sampled;
  if (!sampled) {
    std::fprintf(stderr, "loadgen: a process of the proxy ended during the run\n");
    return 1;
  }
  // The connections must be alive, not merely open on this side.
  size_t alive = 0;
  const size_t asked = std::min(kAskedAgain, clients_.size() - warm);
  const uint64_t before = clients_.responses();
  for (size_t i = 0; i < asked; ++i) {
    (void)clients_.ask_again(warm + i * (clients_.size() - warm) / asked);
  }
  good = turn_until([this] { return clients_.busy() == 0; }) && good;
  alive = clients_.responses() - before;
  const size_t opened = clients_.size() - warm;
  std::printf("{\"connections\": %zu, \"rss_start\": %" PRIu64 ", \"rss_warm\": %" PRIu64
              ", \"rss_idle\": %" PRIu64 ", \"asked_again\": %zu, \"answered_again\": %zu, ",
              opened, rss_start, rss_warm, rss_idle, asked, alive);
  print_errors((good ? 0 : 1) + (asked - alive) + (options_.connections - opened));
  std::puts("}");
  return 0;
}

int Bench::serve() {
  std::puts("START");
  std::fflush(stdout);
  const uint64_t end = now_ns() + static_cast<uint64_t>(options_.seconds * 1e9);
  while (now_ns() < end) turn(options_.sleep ? kSleepMs : 0);
  std::printf("{\"requests\": %" PRIu64 ", \"bad_at_origin\": %" PRIu64 "}\n", origin_.requests(),
              origin_.bad_requests());
  return 0;
}

bool pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  return sched_setaffinity(0, sizeof set, &set) == 0;
}

// Two descriptors for each connection (client side here, origin side behind the proxy) and a few.
bool raise_file_limit(size_t connections) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return false;
  const rlimit wanted{limit.rlim_max, limit.rlim_max};
  if (setrlimit(RLIMIT_NOFILE, &wanted) != 0) return false;
  return limit.rlim_max == RLIM_INFINITY || limit.rlim_max >= connections + 1024;
}

}  // namespace

}  // namespace weir::bench

int main(int argc, char** argv) {
  using namespace weir::bench;  // NOLINT: a program's main file
  if (argc == 2 && std::strcmp(argv[1], "--help") == 0) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  Options options;
  std::string error;
  if (!parse_options(argc, argv, options, error)) {
    std::fprintf(stderr, "loadgen: %s\n\n%s", error.c_str(), kUsage);
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  if (options.cpu >= 0 && !pin(options.cpu)) fail("pinning to the CPU");
  if (!raise_file_limit(options.connections)) {
    std::fprintf(stderr, "loadgen: the limit of open files is too low for %zu connections\n",
                 options.connections);
    return 1;
  }
  Bench bench(options);
  switch (options.mode) {
    case Mode::kRun: return bench.run();
    case Mode::kIdle: return bench.idle();
    case Mode::kOrigin: return bench.serve();
  }
  return 2;
}
