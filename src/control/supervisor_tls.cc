// Supervisor, TLS: certificates and tickets over reloads, and what is counted.
#include <array>
#include <string>

#include <unistd.h>

#include <weir/control/supervisor.h>

#include "tls_plan.h"

namespace weir::control {

using server::Command;

void Supervisor::log_tls(const TlsPlan& plan) {
  for (const std::string& note : plan.notes) WEIR_LOG(logger_, kInfo, "tls", note);
  for (const std::string& warning : plan.warnings) WEIR_LOG(logger_, kWarn, "tls", warning);
  for (const std::string& error : plan.errors) refuse("tls", error);
}

// False: the plan has errors, which have been logged.
bool Supervisor::take_tls(const config::Config& config, proxy::Generation& generation,
                          TlsPlan& plan) {
  constexpr int64_t kMicrosecondsPerSecond = 1'000'000;
  plan = tls_->plan(config, generation.routes->upstreams(), tls_files_,
                    reactor_->unix_us() / kMicrosecondsPerSecond);
  log_tls(plan);
  if (plan.errors.empty()) {
    generation.tls = std::move(plan.cores);
    return true;
  }
  const config::SecuritySettings& security = running_.security;
  const bool dropped =
      phase_ == Phase::kRunning && geteuid() != 0 &&
      !(security.drop_privileges_user.empty() && security.drop_privileges_group.empty());
  if (dropped) {
    WEIR_LOG(logger_, kError, "tls",
             "files are read as this user since privileges were dropped; what only root may read "
             "is taken up by a restart",
             {"user", security.drop_privileges_user});
  }
  return false;
}

// ---- files

// To be called before they are read. `known`: what has been looked at just now. New ones are
// watched first, so that no change after the look is missed.
void Supervisor::note_tls_files(const config::Config& config, FileFingerprints known) {
  const std::vector<std::string> names = TlsState::files(config);
  if (watch_) watch_tls_files(names);
  add_fingerprints(names, known);
  tls_files_ = select_files(known, names);
}

void Supervisor::watch_tls_files(const std::vector<std::string>& names) {
  for (const std::string& name : watch_->watch_also(names)) {
    WEIR_LOG(logger_, kWarn, "tls", "this file cannot be watched; use SIGHUP after changes",
             {"file", name});
  }
}

// A file that is missing just now is about to come back as another one, which is another event.
bool Supervisor::tls_files_changed(const FileFingerprints& now) const {
  for (const auto& [path, print] : now) {
    if (print.state == FileFingerprint::State::kMissing) continue;
    const auto before = tls_files_.find(path);
    if (before == tls_files_.end() || !unchanged(before->second, print)) return true;
  }
  return false;
}

// ---- tickets

void Supervisor::send_tickets() {
  ++tickets_number_;
  for (auto& slot : cores_) {
    send(*slot, {.kind = Command::Kind::kNewTickets,
                 .value = tickets_number_,
                 .tickets = new net::tls::TicketKeyRing(tls_->tickets())});
  }
}

void Supervisor::arm_rotation() {
  if (const auto due = tls_->rotation_due_ms()) {
    reactor_->timers().arm(rotation_tick_, *due);
  } else {
    reactor_->timers().disarm(rotation_tick_);
  }
}

void Supervisor::on_rotation_tick() {
  tls_->rotate_tickets(reactor_->now_ms());
  send_tickets();
  arm_rotation();
  WEIR_LOG(logger_, kInfo, "tls", "a new key for session tickets",
           {"keys", tls_->tickets().size()});
}

// ---- numbers (SIGUSR2)

namespace {

using net::tls::FailureCause;
using net::tls::RecordPath;

// "name:3,name:1" of those that are not 0, or "-".
template <class Name, size_t kCount>
std::string counted(const std::array<uint64_t, kCount>& counts) {
  std::string text;
  for (size_t i = 0; i < kCount; ++i) {
    if (counts[i] == 0) continue;
    if (!text.empty()) text += ',';
    text.append(to_string(static_cast<Name>(i))).append(":").append(std::to_string(counts[i]));
  }
  return text.empty() ? "-" : text;
}

template <size_t kCount>
uint64_t sum(const std::array<uint64_t, kCount>& counts) {
  uint64_t total = 0;
  for (const uint64_t count : counts) total += count;
  return total;
}

}  // namespace

void Supervisor::log_tls_stats(const char* what, unsigned core,
                               const net::tls::Counters::Side& side) {
  const uint64_t plain = side.records[static_cast<size_t>(RecordPath::kPlain)];
  const uint64_t kernel = side.records[static_cast<size_t>(RecordPath::kKernel)];
  WEIR_LOG(logger_, kInfo, "stats", what, {"of_core", core}, {"full", side.full},
           {"resumed", side.resumed}, {"failed", sum(side.failed)}, {"timeouts", side.timeouts},
           {"gone", side.gone}, {"kernel", kernel},
           {"userspace", sum(side.records) - kernel - plain}, {"truncated", side.truncated},
           {"bad_records", side.bad_records}, {"key_updates", side.key_updates},
           {"kernel_bytes", side.kernel_bytes}, {"failures", counted<FailureCause>(side.failed)},
           {"records", counted<RecordPath>(side.records)});
}

}  // namespace weir::control
