// Supervisor, upstreams: their servers over the life of the process.
#include <cstdlib>
#include <string>
#include <string_view>

#include <weir/control/supervisor.h>

namespace weir::control {

namespace {

// Before listeners are opened: what answers at once is there for the first request.
constexpr uint64_t kFirstNamesMs = 300;
constexpr uint64_t kStopMs = 3'000;

}  // namespace

void Supervisor::make_upstreams() {
  check_tls_ = std::make_unique<net::tls::Engine>();
  upstreams_ = std::make_unique<UpstreamTable>(
      *reactor_, logger_, check_tls_.get(),
      [this](const server::Command& command) { send_all(command); });
}

void Supervisor::wait_for_names() {
  upstreams_->prepare(config_);
  const uint64_t deadline_ms = reactor_->now_ms() + kFirstNamesMs;
  reactor_->timers().arm(names_tick_, deadline_ms);
  while (upstreams_->unasked() != 0 && reactor_->now_ms() < deadline_ms) reactor_->turn(true);
  reactor_->timers().disarm(names_tick_);
}

void Supervisor::on_names_tick() {
  if (next_) apply_next();
}

void Supervisor::stop_upstreams() {
  if (!upstreams_) return;
  upstreams_->stop();
  const auto ended = [this] { return upstreams_->stopped() && reactor_->disposing == 0; };
  const uint64_t deadline_ms = reactor_->now_ms() + kStopMs;
  reactor_->timers().arm(names_tick_, deadline_ms);
  next_.reset();
  while (!ended() && reactor_->now_ms() < deadline_ms) reactor_->turn(true);
  // Nothing but the kernel can keep it; it cleans up behind us.
  if (!ended()) std::quick_exit(kExitFailed);
  upstreams_.reset();
}

// ---- numbers (SIGUSR2)

void Supervisor::log_upstream_stats() {
  const std::vector<ServerView> servers = upstreams_->servers();
  for (size_t begin = 0; begin < servers.size();) {
    const std::string& upstream = servers[begin].upstream;
    size_t end = begin;
    size_t up = 0;
    size_t draining = 0;
    size_t down = 0;
    size_t unresolved = 0;
    for (; end < servers.size() && servers[end].upstream == upstream; ++end) {
      const ServerView& server = servers[end];
      if (!server.resolved) {
        ++unresolved;
      } else if (server.state == route::ServerState::kUp) {
        ++up;
      } else if (server.state == route::ServerState::kDraining) {
        ++draining;
      } else {
        ++down;
      }
    }
    WEIR_LOG(logger_, kInfo, "stats", "upstream", {"upstream", upstream}, {"servers", end - begin},
             {"up", up}, {"draining", draining}, {"down", down}, {"unresolved", unresolved});
    begin = end;
  }
}

}  // namespace weir::control
