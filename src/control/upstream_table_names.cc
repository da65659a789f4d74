// UpstreamTable: names that have other addresses now, or trouble, and what is said about that.
#include <algorithm>
#include <utility>

#include "upstream_table_state.h"

namespace weir::control {

namespace {

// Many names may change at once, and each makes all servers of its upstream anew.
constexpr uint64_t kFlushMs = 10;

}  // namespace

void UpstreamTable::State::add_names(const config::Config& config, std::vector<WatchedName>& out) {
  for (const config::Upstream& upstream : config.upstreams) {
    for (const config::UpstreamServer& server : upstream.servers) {
      if (server.kind != config::UpstreamServer::Kind::kName) continue;
      out.push_back(watched_name(upstream, server));
    }
  }
}

void UpstreamTable::State::add_names(const TableUpstream& upstream, std::vector<WatchedName>& out) {
  for (const TableEntry& entry : upstream.entries) {
    if (entry.is_name) out.push_back(entry.name);
  }
}

void UpstreamTable::State::on_name(const WatchedName& name) {
  const auto found = users.find(name);
  if (stopping || found == users.end()) return;
  for (const size_t place : found->second) upstreams[place].dirty = true;
  if (!flush_timer.armed()) reactor.timers().arm(flush_timer, reactor.now_ms() + kFlushMs);
}

void UpstreamTable::State::flush() {
  bool changed = false;
  for (TableUpstream& upstream : upstreams) {
    if (!upstream.dirty) continue;
    tell_names(upstream);
    changed |= refresh(upstream);
  }
  if (!changed) return;
  refresh_index();
  set_targets();
}

void UpstreamTable::State::tell_names(TableUpstream& upstream) {
  std::map<WatchedName, TableUpstream::Told> before = std::move(upstream.told);
  upstream.told.clear();
  for (const TableEntry& entry : upstream.entries) {
    const KnownName* known = entry.is_name ? names->find(entry.name) : nullptr;
    if (known == nullptr) continue;
    const auto [at, added] = upstream.told.try_emplace(entry.name);
    if (!added) continue;
    if (const auto old = before.find(entry.name); old != before.end()) {
      at->second = std::move(old->second);
    }
    tell_name(upstream, entry.spec.address_text, *known, at->second);
  }
}

void UpstreamTable::State::tell_name(const TableUpstream& upstream, const std::string& text,
                                     const KnownName& known, TableUpstream::Told& told) {
  const std::string& of = upstream.spec.name;
  const size_t addresses = known.addresses.size();
  if (known.trouble != told.trouble && !known.trouble.empty()) {
    WEIR_LOG(logger, kWarn, "upstream", "a name cannot be resolved", {"upstream", of},
             {"name", text}, {"error", known.trouble}, {"addresses_kept", addresses});
  } else if (known.trouble != told.trouble) {
    WEIR_LOG(logger, kInfo, "upstream", "a name can be resolved again", {"upstream", of},
             {"name", text}, {"addresses", addresses});
  } else if (known.addresses != told.addresses && addresses == 0) {
    WEIR_LOG(logger, kWarn, "upstream", "the addresses of a name are given up", {"upstream", of},
             {"name", text}, {"error", known.trouble}, {"addresses", told.addresses.size()});
  } else if (known.addresses != told.addresses && !told.addresses.empty()) {
    WEIR_LOG(logger, kInfo, "upstream", "a name has other addresses", {"upstream", of},
             {"name", text}, {"addresses", addresses});
  }
  if (known.left_out != told.left_out && known.left_out != 0) {
    WEIR_LOG(logger, kWarn, "upstream", "a name has more addresses than are used", {"upstream", of},
             {"name", text}, {"used", addresses}, {"left_out", known.left_out});
  }
  told = {.trouble = known.trouble, .addresses = known.addresses, .left_out = known.left_out};
}

}  // namespace weir::control
