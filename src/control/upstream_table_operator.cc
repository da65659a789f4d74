// UpstreamTable: what an operator sees and sets.
#include <algorithm>
#include <set>
#include <utility>

#include <weir/upstream/balance_server.h>

#include "upstream_table_state.h"

namespace weir::control {

namespace {

std::string quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }

bool is_meant(const TableServer& server, std::string_view text) {
  return server.spec.address_text == text || server.name() == text;
}

}  // namespace

const OperatorSetting* UpstreamTable::State::find_setting(const std::string& upstream,
                                                          const std::string& text) const {
  const auto found = settings.find({upstream, text});
  return found == settings.end() ? nullptr : &found->second;
}

route::ServerState UpstreamTable::State::state_set(const TableUpstream& upstream,
                                                   const TableServer& server) const {
  route::ServerState state = route::ServerState::kUp;
  uint64_t order = 0;
  for (const std::string* text : {&server.spec.address_text, &server.name()}) {
    const OperatorSetting* one = find_setting(upstream.spec.name, *text);
    if (one == nullptr || one->state_order <= order) continue;
    order = one->state_order;
    state = one->state;
  }
  return state;
}

uint32_t UpstreamTable::State::weight_of(const TableUpstream& upstream,
                                         const TableServer& server) const {
  uint32_t weight = server.weight_configured;
  uint64_t order = 0;
  const auto consider = [&](const std::string& text, uint32_t configured) {
    const OperatorSetting* one = find_setting(upstream.spec.name, text);
    if (one == nullptr || one->weight_order <= order || one->weight_instead_of != configured)
      return;
    order = one->weight_order;
    weight = one->weight;
  };
  consider(server.spec.address_text, server.weight_configured);
  consider(server.name(), upstream.entries[server.entry].spec.weight);
  return weight;
}

// Those of upstreams and servers that the configuration has no more.
void UpstreamTable::State::forget_settings() {
  std::set<std::pair<std::string_view, std::string_view>> present;
  for (const TableUpstream& upstream : upstreams) {
    for (const TableEntry& entry : upstream.entries) {
      present.emplace(upstream.spec.name, entry.spec.address_text);
    }
  }
  std::erase_if(settings, [&](const auto& one) {
    return !present.contains({one.first.first, one.second.entry});
  });
}

// Weights that were set instead of another one than the servers have now: they are over for good,
// not until the configuration (or an SRV record) says the former one again.
void UpstreamTable::State::forget_weights(const TableUpstream& upstream) {
  const auto first = settings.lower_bound({upstream.spec.name, std::string()});
  if (first == settings.end() || first->first.first != upstream.spec.name) return;
  std::map<OperatorSetting*, bool> holds;  // by one server of those that a text stands for at least
  const auto note = [&](const std::string& text, uint32_t configured) {
    const auto found = settings.find({upstream.spec.name, text});
    if (found == settings.end()) return;
    holds[&found->second] |= found->second.weight_instead_of == configured;
  };
  for (const TableServer& server : upstream.servers) {
    note(server.spec.address_text, server.weight_configured);
    note(server.name(), upstream.entries[server.entry].spec.weight);
  }
  for (const auto& [setting, still] : holds) {
    if (!still) setting->weight_order = 0;
  }
}

std::expected<UpstreamTable::State::Meant, std::string> UpstreamTable::State::find_meant(
    std::string_view upstream_name, std::string_view text) {
  const auto upstream =
      std::ranges::find(upstreams, upstream_name,
                        [](const TableUpstream& one) -> std::string_view { return one.spec.name; });
  if (upstream == upstreams.end()) {
    return std::unexpected("there is no upstream " + quoted(upstream_name));
  }
  const auto server = std::ranges::find_if(
      upstream->servers, [&](const TableServer& one) { return is_meant(one, text); });
  if (server == upstream->servers.end()) {
    return std::unexpected("the upstream " + quoted(upstream_name) + " has no server " +
                           quoted(text));
  }
  const SettingKey key{upstream_name, text};
  if (!settings.contains(key) && settings.size() >= kSettingsMax) {
    return std::unexpected("too many servers have been set by hand (" +
                           std::to_string(kSettingsMax) + ")");
  }
  OperatorSetting& setting = settings[key];
  setting.entry = server->name();
  return Meant{.upstream = &*upstream, .server = &*server, .setting = &setting};
}

std::expected<void, std::string> UpstreamTable::set_state(std::string_view upstream,
                                                          std::string_view server,
                                                          route::ServerState state) {
  if (state == route::ServerState::kEjected) {
    return std::unexpected("a server is ejected by what its answers say, not by hand");
  }
  auto meant = state_->find_meant(upstream, server);
  if (!meant) return std::unexpected(std::move(meant.error()));
  meant->setting->state = state;
  meant->setting->state_order = ++state_->last_order;
  state_->refresh_settings(*meant->upstream);
  return {};
}

std::expected<void, std::string> UpstreamTable::set_weight(std::string_view upstream,
                                                           std::string_view server,
                                                           uint32_t weight) {
  constexpr uint32_t kWeightMax = upstream::BalancedServer::kWeightMax;
  if (weight > kWeightMax) {
    return std::unexpected("a weight is a number from 0 to " + std::to_string(kWeightMax));
  }
  auto meant = state_->find_meant(upstream, server);
  if (!meant) return std::unexpected(std::move(meant.error()));
  const OperatorSetting before = *meant->setting;
  OperatorSetting& setting = *meant->setting;
  setting.weight = weight;
  setting.weight_order = ++state_->last_order;
  setting.weight_instead_of = meant->server->spec.address_text == server
                                  ? meant->server->weight_configured
                                  : meant->upstream->entries[meant->server->entry].spec.weight;
  const bool some = std::ranges::any_of(meant->upstream->servers, [&](const TableServer& one) {
    return state_->weight_of(*meant->upstream, one) != 0;
  });
  if (!some) {
    setting = before;
    return std::unexpected("with that, all servers of the upstream " + quoted(upstream) +
                           " would have weight 0; set a server's state to down or drain instead");
  }
  state_->refresh_settings(*meant->upstream);
  return {};
}

std::vector<ServerView> UpstreamTable::servers() const {
  std::vector<ServerView> views;
  for (const TableUpstream& upstream : state_->upstreams) {
    for (const TableServer& server : upstream.servers) {
      const TableEntry& entry = upstream.entries[server.entry];
      const KnownName* known = entry.is_name ? state_->names->find(entry.name) : nullptr;
      const HealthState* health = server.check != 0 ? state_->checker.find(server.check) : nullptr;
      views.push_back({.upstream = upstream.spec.name,
                       .upstream_id = upstream.spec.id,
                       .name = server.name(),
                       .address = server.spec.address_text,
                       .identity = server.identity,
                       .resolved = server.spec.resolved,
                       .trouble = known != nullptr ? known->trouble : std::string(),
                       .weight = server.spec.weight,
                       .weight_configured = server.weight_configured,
                       .priority = server.spec.priority,
                       .max_connections = server.spec.max_connections,
                       .backup = server.spec.backup,
                       .set = state_->state_set(upstream, server),
                       .state = server.spec.state,
                       .checked = health != nullptr});
      if (health != nullptr) views.back().health = *health;
    }
  }
  return views;
}

}  // namespace weir::control
