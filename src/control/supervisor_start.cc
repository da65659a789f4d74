// Supervisor, start: everything that can fail is done before the first connection is accepted.
#include <algorithm>
#include <csignal>
#include <cstring>

#include <pthread.h>
#include <sys/signalfd.h>

#include <weir/base/hash.h>
#include <weir/control/process.h>
#include <weir/control/supervisor.h>
#include <weir/net/pipe_pool.h>
#include <weir/runtime/sys.h>

namespace weir::control {

using server::Command;

namespace {

constexpr uint64_t kStartMs = 10'000;
// Descriptors that are not a client's or an origin's: listeners, logs, rings.
constexpr uint64_t kFilesReserved = 256;
// A record of the access log is about this long in its channel.
constexpr size_t kRecordBytes = 256;

log::Settings log_settings(const config::LoggingSettings& logging) {
  log::Settings settings;
  settings.level = logging.level;
  settings.access_format = logging.access_format;
  settings.error_target = logging.file_path;
  settings.access_target = logging.access_log;
  settings.size_bytes_max = logging.max_log_size;
  settings.files_max = logging.max_log_files;
  return settings;
}
sigset_t handled_signals() noexcept {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGUSR1, SIGUSR2})
    sigaddset(&set, signal);
  return set;
}

}  // namespace

bool Supervisor::start() {
  // Blocked before any thread exists, so that only the signalfd sees them.
  const sigset_t signals = handled_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a log that meets RLIMIT_FSIZE is a full disk, not an end
  ListenerSet::Change listeners;
  return open_engine() && configure_logs(config_) && (make_cores(), first_generation()) &&
         open_first_listeners(listeners) && open_control() && drop_privileges() && start_cores() &&
         (open_listeners_on_cores(listeners), start_control(), true);
}

bool Supervisor::open_engine() {
  auto reactor = runtime::Reactor::open(
      {.ring = {.entries = 64, .cq_entries = 1024}, .buffers = {.count = 16, .ring_entries = 16}});
  if (!reactor) {
    WEIR_LOG(logger_, kError, "control", "cannot open a ring", {"error", reactor.error().code});
    return false;
  }
  reactor_ = std::move(*reactor);
  const sigset_t set = handled_signals();
  const int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  if (fd < 0) return false;
  signals_ = std::make_unique<FdReader>(*reactor_, fd, [this](std::span<const std::byte> bytes) {
    for (; bytes.size() >= sizeof(signalfd_siginfo);
         bytes = bytes.subspan(sizeof(signalfd_siginfo))) {
      signalfd_siginfo info;
      std::memcpy(&info, bytes.data(), sizeof info);
      on_signal(static_cast<int>(info.ssi_signo));
    }
  });
  return true;
}

bool Supervisor::configure_logs(const config::Config& config) {
  if (auto done = collector_.configure(log_settings(config.logging)); !done) {
    refuse("control", "cannot open the logs: " + done.error());
    return false;
  }
  return true;
}

// Who may hold how many of the descriptors that the system allows: a quarter at most for files that
// are kept open, an eighth for pipes, the rest for connections (two for each that is proxied).
void Supervisor::share_descriptors(uint64_t files, uint32_t cores) {
  const uint64_t usable = files > 2 * kFilesReserved ? files - kFilesReserved : files / 2;
  const uint64_t wanted = config_.performance.open_file_cache_entries;
  open_files_max_ =
      static_cast<uint32_t>(std::clamp<uint64_t>(usable / 4 / cores, 16, config::kOpenFilesMax));
  pipes_max_ = static_cast<uint32_t>(
      std::clamp<uint64_t>(usable / 8 / 2 / cores, 4, net::PipePool::kUsedMax));
  if (wanted > open_files_max_) {
    WEIR_LOG(logger_, kWarn, "control", "fewer files are kept open than configured",
             {"open_file_cache_entries", wanted}, {"kept", open_files_max_}, {"limit", files});
  }
  const uint64_t others =
      cores * (std::min<uint64_t>(wanted, open_files_max_) + 2 * uint64_t{pipes_max_});
  connections_default_ = usable > others ? std::max<uint64_t>((usable - others) / 2, 128) : 128;
}

void Supervisor::make_cores() {
  const uint64_t files = raise_file_limit();
  const config::ServerSettings& server = config_.server;
  std::vector<uint32_t> available = server.cpus.empty() ? affinity_cpus() : server.cpus;
  const auto count = server.threads != 0 ? server.threads : static_cast<uint32_t>(available.size());
  for (uint32_t i = 0; i < count; ++i) cpus_.push_back(available[i % available.size()]);
  if (count > available.size()) {
    WEIR_LOG(logger_, kWarn, "control", "more threads than CPUs: several share one",
             {"threads", count}, {"cpus", available.size()});
  }
  share_descriptors(files, count);
  cell_ = std::make_unique<proxy::GenerationCell>(count);
  listeners_ = std::make_unique<ListenerSet>(count);
  tls_ = std::make_unique<TlsState>(count);
  const config::PerformanceSettings& performance = config_.performance;
  runtime::ReactorOptions engine;
  engine.buffers.count =
      std::min<uint32_t>(performance.receive_buffers, runtime::BufferPool::kNone - 1);
  engine.buffers.huge_pages = performance.huge_pages_enabled;
  engine.receive = probe_.receive;
  if (performance.receive_strategy == config::ReceiveStrategy::kMultishot) {
    engine.receive = runtime::ReceiveStrategy::kMultishot;
  } else if (performance.receive_strategy == config::ReceiveStrategy::kOneshot) {
    engine.receive = runtime::ReceiveStrategy::kOneShot;
  }
  const size_t channel_bytes =
      log::Channel::round_capacity(config_.logging.channel_size * kRecordBytes);
  for (uint32_t i = 0; i < count; ++i) {
    auto slot = std::make_unique<CoreSlot>();
    slot->channel = std::make_unique<log::Channel>(channel_bytes);
    slot->logger = std::make_unique<log::Logger>(&runtime::sys::realtime_us);
    slot->core =
        std::make_unique<server::Core>(server::CoreOptions{.index = static_cast<uint16_t>(i),
                                                           .cores = count,
                                                           .cpu = static_cast<int>(cpus_[i]),
                                                           .control_wake_fd = reactor_->wake_fd(),
                                                           .tls = tls_->engine(i),
                                                           .reactor = engine},
                                       *slot->channel, *slot->logger, *cell_);
    collector_.add(*slot->channel, *slot->logger, static_cast<uint16_t>(i));
    cores_.push_back(std::move(slot));
  }
  logger_.attach(channel_);
  collector_.add(channel_, logger_);
  for (const std::string& remark : probe_.remarks) WEIR_LOG(logger_, kWarn, "runtime", remark);
}

bool Supervisor::first_generation() {
  make_upstreams();
  wait_for_names();
  BuildResult built = build_generation(config_, identities_,
                                       {.epoch = ++epoch_,
                                        .cores = static_cast<uint32_t>(cores_.size()),
                                        .connections_max = connections_max(config_),
                                        .open_files_max = open_files_max_,
                                        .pipes_max = pipes_max_,
                                        .table = upstreams_.get()});
  for (const std::string& warning : built.warnings) WEIR_LOG(logger_, kWarn, "config", warning);
  for (const std::string& error : built.errors) WEIR_LOG(logger_, kError, "config", error);
  if (!built.generation) return false;
  note_tls_files(config_, {});
  TlsPlan tls;
  if (!take_tls(config_, *built.generation, tls)) return false;
  tls_->commit(std::move(tls), reactor_->now_ms());
  cell_->publish(std::move(built.generation));
  upstreams_->take(config_, built.upstreams, identities_, epoch_);
  return true;
}

bool Supervisor::open_first_listeners(ListenerSet::Change& change) {
  const bool cbpf = config_.performance.reuseport_balancing == config::ReuseportBalancing::kCbpf;
  auto planned = listeners_->plan(config_.listeners, cbpf);
  if (!planned) {
    WEIR_LOG(logger_, kError, "control", planned.error().text, {"file", config_.file},
             {"line", planned.error().place.line});
    return false;
  }
  change = std::move(*planned);
  listeners_->commit(change);
  for (const std::string& warning : change.warnings) WEIR_LOG(logger_, kWarn, "control", warning);
  return true;
}

bool Supervisor::drop_privileges() {
  const config::SecuritySettings& security = config_.security;
  if (security.drop_privileges_user.empty() && security.drop_privileges_group.empty()) return true;
  const auto account = find_account(security.drop_privileges_user, security.drop_privileges_group);
  std::expected<void, std::string> done;
  if (!account) {
    done = std::unexpected(account.error());
  } else {
    done = collector_.give_files_to(account->user, account->group);
    if (done && control_) done = control_->give_to(account->user, account->group);
    if (done) done = control::drop_privileges(*account);
  }
  if (done) return true;
  WEIR_LOG(logger_, kError, "control", "cannot drop privileges", {"error", done.error()});
  return false;
}

bool Supervisor::start_cores() {
  for (auto& slot : cores_) slot->core->start();
  const uint64_t deadline = reactor_->now_ms() + kStartMs;
  const auto settled = [](const auto& slot) { return slot->started || slot->failed; };
  reactor_->timers().arm(phase_deadline_, deadline);
  while (!std::ranges::all_of(cores_, settled) && reactor_->now_ms() < deadline) {
    reactor_->turn(true);
    take_notices();
  }
  reactor_->timers().disarm(phase_deadline_);
  for (const auto& slot : cores_) {
    if (slot->started) continue;
    WEIR_LOG(logger_, kError, "control", "a core cannot start", {"which", slot->core->index()},
             {"error", slot->error.code}, {"errno", slot->error.os});
    if (slot->error.code == base::Errc::kNoMemory) {
      WEIR_LOG(logger_, kError, "control",
               "locked memory is short: raise RLIMIT_MEMLOCK (ulimit -l)");
    }
  }
  const bool good = every(&CoreSlot::started);
  if (!good) return false;
  watch_files();
  arm_rotation();
  on_flush_tick();
  return true;
}

void Supervisor::watch_files() {
  if (file_.empty()) return;
  file_hash_ = hash_of_file(file_);
  watch_ = FileWatch::open(*reactor_, file_, [this] { on_file_change(); });
  if (!watch_) {
    WEIR_LOG(logger_, kWarn, "control", "the configuration file cannot be watched; use SIGHUP");
    return;
  }
  watch_tls_files(TlsState::files(config_));
  // They were read before they were watched.
  if (!tls_files_.empty()) reactor_->timers().arm(reload_tick_, reactor_->now_ms());
}

void Supervisor::open_listeners_on_cores(ListenerSet::Change& change) {
  for (OpenListener& listener : change.opened) {
    for (size_t i = 0; i < cores_.size(); ++i) {
      send(*cores_[i], {.kind = Command::Kind::kOpenListener,
                        .id = listener.id,
                        .fd = listener.fds[i],
                        .address = listener.bound,
                        .tls = listener.tls,
                        .redirect_https = listener.redirect_https});
    }
    WEIR_LOG(logger_, kInfo, "control", "listening", {"address", listener.bound.to_string()},
             {"listener", listener.name});
  }
}

}  // namespace weir::control
