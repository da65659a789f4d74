#include <weir/control/supervisor.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <utility>

#include <sys/signalfd.h>

#include <weir/runtime/sys.h>

namespace weir::control {

using server::Command;
using server::Notice;

namespace {
// A request that was on its way when an idle connection was about to be closed gets this long.
constexpr uint64_t kIdleGraceMs = 500;
// Cancelled exchanges need a few turns; a core that takes longer than this is stuck.
constexpr uint64_t kCancelMs = 3000;
// A generation that its successor has not freed after this long is worth a word.
constexpr int64_t kOldGenerationUs = 60'000'000;
constexpr int kLastFlushMs = 500;
// Between two writes to a reader that takes what it is given.
constexpr uint64_t kBehindMs = 1;
}  // namespace

Supervisor::Supervisor(config::Config config, std::string file, const runtime::ProbeReport& probe)
    : config_(std::move(config)),
      file_(std::move(file)),
      probe_(probe),
      collector_(&runtime::sys::realtime_us),
      logger_(&runtime::sys::realtime_us) {
  running_.listeners = config_.listeners;
  running_.server = config_.server;
  running_.logging = config_.logging;
  running_.performance = config_.performance;
  running_.security = config_.security;
  running_.resolver = config_.resolver;
  running_.control = config_.control;
}

Supervisor::~Supervisor() = default;

int Supervisor::run() {
  bool good = start();
  if (good) {
    phase_ = Phase::kRunning;
    WEIR_LOG(logger_, kInfo, "control", "ready", {"cores", cores_.size()});
    collector_.collect();
    for (const int signal : std::exchange(early_signals_, {})) on_signal(signal);
    while (phase_ != Phase::kStopping) turn();
  }
  finish();
  return good ? kExitEnded : kExitFailed;
}

void Supervisor::turn() {
  reactor_->turn(true);
  if (next_ && upstreams_->unasked() == 0) apply_next();
  take_notices();
  for (auto& slot : cores_) {
    while (!slot->pending.empty() && slot->core->send(slot->pending.front())) {
      slot->pending.pop_front();
    }
  }
  // Cores wake us when their log is half full, and say so by nothing else.
  collector_.collect();
  if (collector_.behind()) reactor_->timers().arm(flush_tick_, reactor_->now_ms() + kBehindMs);
}

void Supervisor::send(CoreSlot& slot, const Command& command) {
  if (slot.pending.empty() && slot.core->send(command)) return;
  // What is known of servers may change any number of times before the core looks: the last counts.
  // That of a whole upstream has the states of all its servers, also of those that are gone since.
  const bool whole = command.kind == Command::Kind::kUpstream;
  if (whole || command.kind == Command::Kind::kServer) {
    std::erase_if(slot.pending, [&](const Command& before) {
      if (before.id != command.id) return false;
      if (before.kind == Command::Kind::kServer) return whole || before.value == command.value;
      if (!whole || before.kind != Command::Kind::kUpstream) return false;
      delete before.upstream;
      return true;
    });
  }
  slot.pending.push_back(command);
}

void Supervisor::send_all(const Command& command) {
  for (auto& slot : cores_) {
    Command own = command;
    if (command.upstream != nullptr) own.upstream = new route::UpstreamSpec(*command.upstream);
    send(*slot, own);
  }
}

bool Supervisor::every(bool CoreSlot::* flag) const noexcept {
  return std::ranges::all_of(cores_, [flag](const auto& slot) { return *slot.*flag; });
}

void Supervisor::take_notices() {
  for (auto& slot : cores_) {
    slot->core->receive([&](const Notice& notice) {
      switch (notice.kind) {
        case Notice::Kind::kStarted: slot->started = true; break;
        case Notice::Kind::kFailed:
          slot->failed = true;
          slot->error = notice.error;
          break;
        case Notice::Kind::kListenerClosed: listeners_->note_closed(notice.id); break;
        case Notice::Kind::kQuiet: slot->quiet = true; break;
        case Notice::Kind::kScraped:
          if (--scrapes_due_ == 0) log_stats();
          break;
        case Notice::Kind::kUnreachable:
          if (upstreams_) upstreams_->note_unreachable(notice.id, notice.value);
          break;
        case Notice::Kind::kUpstreamsScraped:
          if (control_) control_->on_scraped(slot->core->index());
          break;
      }
    });
  }
  const bool ending = phase_ == Phase::kDraining || phase_ == Phase::kCancelling;
  if (ending && every(&CoreSlot::quiet)) begin_stop();
}

void Supervisor::on_signal(int signal) {
  if (phase_ == Phase::kStarting) {
    // Nothing can be drained or reloaded yet, and a lost SIGTERM would never come again.
    early_signals_.push_back(signal);
    return;
  }
  switch (signal) {
    case SIGHUP: reload(false); break;
    case SIGUSR1:
      collector_.reopen();
      WEIR_LOG(logger_, kInfo, "control", "log files opened again");
      break;
    case SIGUSR2: request_stats(); break;
    case SIGQUIT: begin_cancel("SIGQUIT"); break;
    case SIGINT:
    case SIGTERM:
      // The second time somebody is in a hurry.
      if (phase_ == Phase::kDraining) {
        begin_cancel("a second signal");
      } else {
        begin_drain();
      }
      break;
    default: break;
  }
}

void Supervisor::on_flush_tick() {
  const auto interval = static_cast<uint64_t>(config_.logging.flush_interval.count());
  reactor_->timers().arm(flush_tick_, reactor_->now_ms() + interval);
  if (generations_alive_ <= 1) return;
  generations_alive_ = cell_->reclaim();
  if (generations_alive_ <= 1) {
    WEIR_LOG(logger_, kDebug, "control", "old configuration freed");
  } else if (reactor_->unix_us() - old_generation_since_us_ > kOldGenerationUs) {
    old_generation_since_us_ = reactor_->unix_us();
    const auto holder = cell_->oldest();
    WEIR_LOG(logger_, kWarn, "control", "an old configuration is still in use",
             {"generation", holder.epoch}, {"by_core", holder.core});
  }
}

// ---- the end

void Supervisor::begin_drain() {
  if (phase_ != Phase::kRunning) return;
  phase_ = Phase::kDraining;
  const auto limit = static_cast<uint64_t>(config_.server.shutdown_timeout.count());
  WEIR_LOG(logger_, kInfo, "control", "shutting down", {"timeout_ms", limit});
  reactor_->timers().arm(phase_deadline_, reactor_->now_ms() + limit);
  send_all({.kind = Command::Kind::kDrain, .value = std::min<uint64_t>(kIdleGraceMs, limit)});
}

void Supervisor::begin_cancel(const char* why) {
  if (phase_ != Phase::kRunning && phase_ != Phase::kDraining) return;
  phase_ = Phase::kCancelling;
  WEIR_LOG(logger_, kWarn, "control", "ending connections", {"because", why});
  for (auto& slot : cores_) slot->quiet = false;
  reactor_->timers().arm(phase_deadline_, reactor_->now_ms() + kCancelMs);
  send_all({.kind = Command::Kind::kCancelAll});
}

void Supervisor::on_phase_deadline() {
  if (phase_ == Phase::kDraining) {
    begin_cancel("shutdown_timeout has passed");
  } else if (phase_ == Phase::kCancelling) {
    // Nothing can be joined any more; the kernel cleans up behind us.
    WEIR_LOG(logger_, kError, "control", "a core does not end; leaving it behind");
    logger_.detach();
    collector_.flush(kLastFlushMs);
    std::quick_exit(kExitFailed);
  }
}

void Supervisor::begin_stop() {
  phase_ = Phase::kStopping;
  send_all({.kind = Command::Kind::kStop});
}

void Supervisor::finish() {
  if (reactor_) {
    // Cores that were started and failed, or were never told to stop, end here.
    for (auto& slot : cores_) {
      // Also one that is still on its way up: it reads this in its first turn.
      while (!slot->failed && !slot->core->send({.kind = Command::Kind::kStop}))
        reactor_->turn(false);
    }
  }
  for (auto& slot : cores_) slot->core->join();
  if (phase_ == Phase::kStopping) WEIR_LOG(logger_, kInfo, "control", "ended");
  logger_.detach();
  collector_.flush(kLastFlushMs);
  listeners_.reset();
  if (!reactor_) return;
  stop_control();
  stop_upstreams();
  for (runtime::Timer* timer : std::initializer_list<runtime::Timer*>{
           &flush_tick_, &phase_deadline_, &reload_tick_, &rotation_tick_, &names_tick_}) {
    reactor_->timers().disarm(*timer);
  }
  if (signals_) signals_->stop();
  if (watch_) watch_->stop();
  reactor_->stop();
  signals_.reset();
  watch_.reset();
  for (auto& slot : cores_) {
    for (const Command& command : slot->pending) {
      delete command.tickets;
      delete command.upstream;
    }
  }
  // What the cores had of TLS dies before the engines it lives in.
  cores_.clear();
  cell_.reset();
  tls_.reset();
  reactor_.reset();
  check_tls_.reset();
}

// ---- numbers (SIGUSR2)

void Supervisor::request_stats() {
  if (scrapes_due_ != 0) return;
  scrapes_due_ = static_cast<uint32_t>(cores_.size());
  for (auto& slot : cores_) {
    send(*slot, {.kind = Command::Kind::kScrape, .scrape = &slot->scrape});
  }
}

void Supervisor::log_stats() {
  for (const auto& slot : cores_) {
    const server::Scrape& s = slot->scrape;
    const proxy::Counters& c = s.counters;
    const unsigned core = slot->core->index();
    WEIR_LOG(logger_, kInfo, "stats", "requests", {"of_core", core}, {"requests", c.requests},
             {"responses_1xx", c.responses_1xx}, {"responses_2xx", c.responses_2xx},
             {"responses_3xx", c.responses_3xx}, {"responses_4xx", c.responses_4xx},
             {"responses_5xx", c.responses_5xx}, {"bytes_in", c.bytes_in},
             {"bytes_out", c.bytes_out}, {"bad_requests", c.bad_requests},
             {"client_gone", c.client_gone}, {"client_timeouts", c.client_timeouts});
    WEIR_LOG(logger_, kInfo, "stats", "upstreams", {"of_core", core},
             {"upstream_errors", c.upstream_errors}, {"upstream_timeouts", c.upstream_timeouts},
             {"bad_responses", c.bad_responses}, {"stale_retries", c.stale_retries},
             {"failovers", c.failovers}, {"idle_connections", s.idle_upstream_connections},
             {"body_bytes_buffered", c.body_bytes_buffered},
             {"body_bytes_direct", c.body_bytes_direct});
    WEIR_LOG(logger_, kInfo, "stats", "moved", {"of_core", core},
             {"body_bytes_spliced", c.body_bytes_spliced},
             {"file_bytes_sendfile", c.file_bytes_sendfile},
             {"file_bytes_copied", c.file_bytes_copied}, {"file_bytes_memory", c.file_bytes_memory},
             {"tunnels", c.tunnels}, {"tunnel_bytes", c.tunnel_bytes},
             {"tunnel_bytes_spliced", c.tunnel_bytes_spliced});
    WEIR_LOG(logger_, kInfo, "stats", "core", {"of_core", core}, {"connections", s.connections},
             {"accepted", c.connections_accepted}, {"refused", c.connections_refused},
             {"accept_failures", s.accept_failures}, {"generations", s.generations_alive},
             {"turns", s.turns}, {"ring_enters", s.ring_enters},
             {"buffers_in_use", s.buffers_in_use}, {"buffer_starvations", s.buffer_starvations},
             {"access_dropped", c.access_records_dropped});
    log_tls_stats("tls", core, s.tls.clients);
    log_tls_stats("tls_upstreams", core, s.tls.origins);
  }
  log_upstream_stats();
}

}  // namespace weir::control
