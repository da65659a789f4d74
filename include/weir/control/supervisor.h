// The control thread: starts the cores, takes signals and changed configuration, publishes
// generations, collects the logs, and ends it all in order. One per process, on the main thread,
// with a ring of its own; it talks to cores by messages and snapshots only.
#pragma once

#include <cstdint>
#include <deque>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <weir/control/config/config.h>
#include <weir/control/config/load.h>
#include <weir/control/control_socket.h>
#include <weir/control/fd_reader.h>
#include <weir/control/file_watch.h>
#include <weir/control/listener_set.h>
#include <weir/control/snapshot_builder.h>
#include <weir/control/tls_state.h>
#include <weir/control/upstream_table.h>
#include <weir/log/channel.h>
#include <weir/log/collector.h>
#include <weir/log/error_log.h>
#include <weir/runtime/probe.h>
#include <weir/runtime/reactor.h>
#include <weir/server/core.h>

namespace weir::control {

// Exit statuses of `weir run` (docs/OPERATIONS.md).
inline constexpr int kExitEnded = 0;
inline constexpr int kExitFailed = 1;

class Supervisor {
 public:
  // `config` was loaded from `file`; an empty `file` means the embedded one: nothing to reload.
  Supervisor(config::Config config, std::string file, const runtime::ProbeReport& probe);
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;
  ~Supervisor();

  // Starts, serves, ends. Returns an exit status; what went wrong has been logged.
  int run();

 private:
  enum class Phase : uint8_t { kStarting, kRunning, kDraining, kCancelling, kStopping };
  struct CoreSlot {
    std::unique_ptr<log::Channel> channel;
    std::unique_ptr<log::Logger> logger;
    std::unique_ptr<server::Core> core;
    std::deque<server::Command> pending;  // what a full mailbox did not take
    server::Scrape scrape;
    bool started = false;
    bool quiet = false;
    bool failed = false;
    base::Error error{};
  };
  template <void (Supervisor::*handler)()>
  struct Tick : runtime::Timer {
    explicit Tick(Supervisor& owner) noexcept
        : Timer([](runtime::Timer& timer) noexcept {
            (static_cast<Tick&>(timer).owner_.*handler)();
          }),
          owner_(owner) {}
    Supervisor& owner_;
  };

  // supervisor_start.cc
  bool start();
  bool open_engine();
  bool configure_logs(const config::Config& config);
  void share_descriptors(uint64_t files, uint32_t cores);
  void make_cores();
  bool first_generation();
  void watch_files();
  [[nodiscard]] uint64_t connections_max(const config::Config& config) const noexcept {
    const uint64_t configured = config.security.max_concurrent_connections;
    return configured != 0 ? configured : connections_default_;
  }
  bool open_first_listeners(ListenerSet::Change& change);
  bool drop_privileges();
  bool start_cores();
  void open_listeners_on_cores(ListenerSet::Change& change);

  // supervisor_reload.cc
  void reload(bool only_if_changed);
  // For ctl, which is told the outcome. The error is a sentence, what is wrong has been logged.
  std::expected<void, std::string> reload_by_order();
  void refuse(std::string_view component, const std::string& error);
  [[nodiscard]] std::string refusal() const;
  std::optional<config::Config> load_next(bool only_if_changed);
  void begin_next(config::Config next);
  void apply_next();
  bool apply(config::Config next);
  bool take_tls(const config::Config& config, proxy::Generation& generation, TlsPlan& plan);
  void note_tls_files(const config::Config& config, FileFingerprints known);
  void watch_tls_files(const std::vector<std::string>& names);
  [[nodiscard]] bool tls_files_changed(const FileFingerprints& now) const;
  void log_tls(const TlsPlan& plan);
  void note_listeners(const std::vector<config::Listener>& next);
  static uint64_t hash_of_file(const std::string& path);  // 0: cannot be read
  void on_file_change();
  void on_reload_tick();
  void on_rotation_tick();
  void send_tickets();
  void arm_rotation();

  // supervisor_upstreams.cc
  void make_upstreams();
  void wait_for_names();
  void on_names_tick();
  void stop_upstreams();
  void log_upstream_stats();

  // supervisor_control.cc
  bool open_control();
  void start_control();
  void stop_control();

  // supervisor.cc
  void turn();
  void send(CoreSlot& slot, const server::Command& command);
  void send_all(const server::Command& command);
  void take_notices();
  void on_signal(int signal);
  void on_flush_tick();
  void on_phase_deadline();
  void begin_drain();
  void begin_cancel(const char* why);
  void begin_stop();
  void finish();
  void request_stats();
  void log_stats();
  void log_tls_stats(const char* what, unsigned core, const net::tls::Counters::Side& side);
  [[nodiscard]] bool every(bool CoreSlot::* flag) const noexcept;

  config::Config config_;
  // The values that a reload does not change: sections as they were at the start, listeners as they
  // were opened. The other parts are empty.
  config::Config running_;
  std::string file_;
  uint64_t file_hash_ = 0;
  // The files that TLS of the newest configuration names, in force or refused, as they were then.
  FileFingerprints tls_files_;
  const runtime::ProbeReport& probe_;
  Identities identities_;
  uint64_t epoch_ = 0;
  uint64_t tickets_number_ = 0;  // counts the rings of ticket keys
  // What the limit on open files allows.
  uint64_t connections_default_ = 0;
  uint32_t open_files_max_ = 0;  // per core, that are kept
  uint32_t pipes_max_ = 0;       // per core
  std::vector<uint32_t> cpus_;   // of each core; empty where cores are not pinned

  log::Collector collector_;
  log::Channel channel_;
  log::Logger logger_;
  std::unique_ptr<runtime::Reactor> reactor_;
  std::unique_ptr<FdReader> signals_;
  std::unique_ptr<FileWatch> watch_;
  std::unique_ptr<TlsState> tls_;                // before cell_ and cores_, which use it
  std::unique_ptr<net::tls::Engine> check_tls_;  // of health checks; outlives the reactor
  std::unique_ptr<UpstreamTable> upstreams_;
  std::unique_ptr<ControlSocket> control_;  // null: none is configured
  // Loaded and good; for a moment its new names are waited for.
  std::optional<config::Config> next_;
  std::vector<std::string> refusals_;  // why it is not taken, as logged
  std::unique_ptr<proxy::GenerationCell> cell_;
  std::unique_ptr<ListenerSet> listeners_;
  std::vector<std::unique_ptr<CoreSlot>> cores_;
  Phase phase_ = Phase::kStarting;
  std::vector<int> early_signals_;  // came before there was anything to apply them to

  uint32_t scrapes_due_ = 0;
  size_t generations_alive_ = 1;
  int64_t old_generation_since_us_ = 0;

  Tick<&Supervisor::on_flush_tick> flush_tick_{*this};
  Tick<&Supervisor::on_phase_deadline> phase_deadline_{*this};
  Tick<&Supervisor::on_reload_tick> reload_tick_{*this};
  Tick<&Supervisor::on_rotation_tick> rotation_tick_{*this};
  Tick<&Supervisor::on_names_tick> names_tick_{*this};
};

}  // namespace weir::control
