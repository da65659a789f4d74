// Supervisor, reload: a new configuration takes effect whole or not at all.
#include <algorithm>
#include <filesystem>
#include <fstream>

#include <weir/base/hash.h>
#include <weir/control/supervisor.h>

namespace weir::control {

using server::Command;

namespace {

// Editors write in several steps; the last one counts.
constexpr uint64_t kSettleMs = 100;
constexpr uint64_t kNamesMs = 300;
constexpr const char* kNotReloaded =
    "the configuration was not reloaded; the old one stays in force";
constexpr const char* kEnding = "weir is about to end";

}  // namespace

uint64_t Supervisor::hash_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return 0;
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return base::fnv1a(text);
}

void Supervisor::on_file_change() {
  if (phase_ != Phase::kRunning) return;
  reactor_->timers().arm(reload_tick_, reactor_->now_ms() + kSettleMs);
}

void Supervisor::on_reload_tick() { reload(true); }

void Supervisor::reload(bool only_if_changed) {
  if (auto next = load_next(only_if_changed)) begin_next(std::move(*next));
}

std::expected<void, std::string> Supervisor::reload_by_order() {
  if (file_.empty()) return std::unexpected("there is no file: the configuration is embedded");
  if (phase_ != Phase::kRunning) return std::unexpected(kEnding);
  auto next = load_next(false);
  if (!next) return std::unexpected(refusal());
  begin_next(std::move(*next));
  return {};
}

void Supervisor::refuse(std::string_view component, const std::string& error) {
  WEIR_LOG(logger_, kError, component, error);
  refusals_.push_back(error);
}

std::string Supervisor::refusal() const {
  std::string text = "the configuration was not reloaded";
  if (refusals_.empty()) return text + "; weir's log says why";
  text.append(": ").append(refusals_.front());
  const size_t others = refusals_.size() - 1;
  if (others == 0) return text;
  return text + " (and " + std::to_string(others) + (others == 1 ? " error" : " errors") +
         " more, which weir's log has)";
}

void Supervisor::begin_next(config::Config next) {
  upstreams_->prepare(next);
  next_ = std::move(next);
  // So that requests to new names do not fail for the time that DNS takes.
  reactor_->timers().arm(names_tick_, reactor_->now_ms() + kNamesMs);
  if (upstreams_->unasked() == 0) apply_next();
}

// Nothing: there is no other one, or it has errors, which have been logged.
std::optional<config::Config> Supervisor::load_next(bool only_if_changed) {
  if (phase_ != Phase::kRunning || file_.empty()) return std::nullopt;
  refusals_.clear();
  const uint64_t hash = hash_of_file(file_);
  FileFingerprints known;
  if (only_if_changed) {
    if (hash == 0) return std::nullopt;
    for (const auto& [path, before] : tls_files_) known.emplace(path, fingerprint(path));
    if (hash == file_hash_ && !tls_files_changed(known)) return std::nullopt;
  }
  file_hash_ = hash;
  config::LoadResult loaded = config::load_config(file_);
  for (const auto& warning : loaded.warnings)
    WEIR_LOG(logger_, kWarn, "config", warning.to_string());
  for (const auto& error : loaded.errors) refuse("config", error.to_string());
  if (loaded.ok()) {
    note_tls_files(loaded.config, std::move(known));
    return std::move(loaded.config);
  }
  for (auto& [path, now] : known) tls_files_[path] = now;
  WEIR_LOG(logger_, kError, "config", kNotReloaded);
  return std::nullopt;
}

void Supervisor::apply_next() {
  reactor_->timers().disarm(names_tick_);
  config::Config next = std::move(*next_);
  next_.reset();
  std::expected<uint64_t, std::string> outcome = std::unexpected(kEnding);
  if (phase_ == Phase::kRunning) {
    if (apply(std::move(next))) {
      outcome = epoch_;
      WEIR_LOG(logger_, kInfo, "config", "reloaded", {"generation", epoch_},
               {"routes", config_.routes.size()});
    } else {
      outcome = std::unexpected(refusal());
      // Its names are nobody's.
      upstreams_->prepare(config_);
      WEIR_LOG(logger_, kError, "config", kNotReloaded);
    }
  }
  if (control_) control_->on_reloaded(outcome);
}

bool Supervisor::apply(config::Config next) {
  refusals_.clear();  // another file may have been refused while names were waited for
  for (const std::string& key : config::restart_needed(running_, next)) {
    WEIR_LOG(logger_, kWarn, "config", "takes effect only after a restart", {"key", key});
  }
  BuildResult built = build_generation(next, identities_,
                                       {.epoch = epoch_ + 1,
                                        .cores = static_cast<uint32_t>(cores_.size()),
                                        .connections_max = connections_max(next),
                                        .open_files_max = open_files_max_,
                                        .pipes_max = pipes_max_,
                                        .table = upstreams_.get()});
  for (const std::string& warning : built.warnings) WEIR_LOG(logger_, kWarn, "config", warning);
  for (const std::string& error : built.errors) refuse("config", error);
  if (!built.generation) return false;
  TlsPlan tls;
  if (!take_tls(next, *built.generation, tls)) return false;
  const bool cbpf = running_.performance.reuseport_balancing == config::ReuseportBalancing::kCbpf;
  auto listeners = listeners_->plan(next.listeners, cbpf);
  if (!listeners) {
    const ListenerError& error = listeners.error();
    refuse("config", next.file + ":" + std::to_string(error.place.line) + ": " + error.text);
    return false;
  }
  if (!configure_logs(next)) {
    ListenerSet::abandon(*listeners);
    return false;
  }
  for (const std::string& warning : listeners->warnings)
    WEIR_LOG(logger_, kWarn, "control", warning);
  listeners_->commit(*listeners);
  const bool tickets_changed = tls.tickets_changed;
  tls_->commit(std::move(tls), reactor_->now_ms());
  // Before the new generation, so that none of its handshakes uses old keys.
  if (tickets_changed) send_tickets();
  arm_rotation();
  ++epoch_;
  built.generation->tickets_number = tickets_number_;
  cell_->publish(std::move(built.generation));
  generations_alive_ = 2;
  old_generation_since_us_ = reactor_->unix_us();
  open_listeners_on_cores(*listeners);
  // After the publication: a listener that begins with TLS needs the new generation's.
  for (const OpenListener& listener : listeners->switched) {
    send_all({.kind = Command::Kind::kSetListener,
              .id = listener.id,
              .tls = listener.tls,
              .redirect_https = listener.redirect_https});
  }
  for (const uint32_t id : listeners->removed) {
    // Clients that come to the port of a successor must not be turned away meanwhile.
    const bool succeeded =
        std::ranges::find(listeners->succeeded, id) != listeners->succeeded.end();
    send_all({.kind = Command::Kind::kCloseListener,
              .id = id,
              .value = succeeded ? 0 : server::kHandshakeGraceMs});
  }
  send_all({.kind = Command::Kind::kNewGeneration});
  upstreams_->take(next, built.upstreams, identities_, epoch_);
  note_listeners(next.listeners);
  config_ = std::move(next);
  return true;
}

// Listeners that stay keep the backlog with which they were opened.
void Supervisor::note_listeners(const std::vector<config::Listener>& next) {
  std::vector<config::Listener> now = next;
  for (config::Listener& listener : now) {
    for (const config::Listener& old : running_.listeners) {
      if (old.address_text == listener.address_text) listener.backlog = old.backlog;
    }
  }
  running_.listeners = std::move(now);
}

}  // namespace weir::control
