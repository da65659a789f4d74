// Supervisor, `weir ctl`: what its socket may look at and change.
#include <weir/control/supervisor.h>

namespace weir::control {

using server::Command;

bool Supervisor::open_control() {
  if (config_.control.socket.empty()) return true;
  ControlHooks hooks;
  hooks.servers = [this] { return upstreams_->servers(); };
  hooks.set_state = [this](std::string_view upstream, std::string_view server,
                           route::ServerState state) {
    return upstreams_->set_state(upstream, server, state);
  };
  hooks.set_weight = [this](std::string_view upstream, std::string_view server, uint32_t weight) {
    return upstreams_->set_weight(upstream, server, weight);
  };
  hooks.ask_core = [this](uint32_t core, upstream::UpstreamScrape& into) {
    send(*cores_[core], {.kind = Command::Kind::kScrapeUpstreams, .upstreams = &into});
  };
  hooks.reload = [this] { return reload_by_order(); };
  hooks.draining = [this] { return phase_ != Phase::kStarting && phase_ != Phase::kRunning; };
  auto opened = ControlSocket::open(
      *reactor_, logger_, {.path = config_.control.socket, .mode = config_.control.socket_mode},
      std::move(hooks));
  if (!opened) {
    WEIR_LOG(logger_, kError, "control", opened.error());
    return false;
  }
  control_ = std::move(*opened);
  return true;
}

void Supervisor::start_control() {
  if (!control_) return;
  control_->start(static_cast<uint32_t>(cores_.size()));
  WEIR_LOG(logger_, kInfo, "control", "ctl is answered", {"socket", config_.control.socket});
}

// The cores are gone, so that nothing is written any more to where they were to put their numbers.
void Supervisor::stop_control() {
  if (!control_) return;
  control_->stop();
  while (!control_->stopped()) reactor_->turn(true);
  control_.reset();
}

}  // namespace weir::control
