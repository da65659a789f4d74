// Balancer: the set of servers and what changes in it.
#include <algorithm>
#include <tuple>
#include <utility>

#include <weir/base/check.h>
#include <weir/upstream/balance.h>

namespace weir::upstream {
namespace {

constexpr uint64_t kNsPerMs = 1'000'000;

// Two lines of the configuration with one server are two servers.
void make_distinct(std::vector<BalancedServer>& servers) {
  std::vector<std::pair<uint64_t, size_t>> order;
  order.reserve(servers.size());
  for (size_t i = 0; i < servers.size(); ++i) order.emplace_back(servers[i].facts.identity, i);
  std::ranges::sort(order);
  uint64_t repeated = 0;
  for (size_t i = 1; i < order.size(); ++i) {
    repeated = order[i].first == order[i - 1].first ? repeated + 1 : 0;
    if (repeated != 0) {
      servers[order[i].second].facts.identity = next_hash(order[i].first + repeated);
    }
  }
}

// Group by group; within one in the order of the configuration.
std::vector<BalancedServer> by_group(const std::vector<BalancedServer>& servers) {
  std::vector<std::tuple<bool, uint32_t, size_t>> order;
  order.reserve(servers.size());
  for (size_t i = 0; i < servers.size(); ++i) {
    order.emplace_back(servers[i].facts.backup, servers[i].facts.priority, i);
  }
  std::ranges::sort(order);
  std::vector<BalancedServer> sorted;
  sorted.reserve(servers.size());
  for (const auto& [backup, priority, i] : order) sorted.push_back(servers[i]);
  return sorted;
}

bool same_group(const ServerFacts& a, const ServerFacts& b) noexcept {
  return a.backup == b.backup && a.priority == b.priority;
}

}  // namespace

Balancer::Balancer(const BalanceOptions& options, uint64_t random_seed) noexcept
    : options_(options), random_(random_seed) {}

void Balancer::set_options(const BalanceOptions& options) {
  // Turns of one algorithm say nothing to another one.
  if (options.algorithm != options_.algorithm) {
    for (BalancedServer& server : servers_) server.turn = 0;
  }
  options_ = options;
  for (Group& group : groups_) make_table(group);
}

void Balancer::set_servers(std::span<const ServerFacts> facts, uint64_t now_ns) {
  WEIR_CHECK(facts.size() <= MaglevTable::kServersMax);
  std::vector<BalancedServer> next(facts.size());
  for (size_t i = 0; i < facts.size(); ++i) next[i].facts = facts[i];
  make_distinct(next);
  std::vector<bool> stays(servers_.size());
  int64_t turns = 0;
  int64_t kept = 0;
  for (BalancedServer& server : next) {
    server.facts.weight = std::min(server.facts.weight, BalancedServer::kWeightMax);
    const int place = find(server.facts.identity);
    if (place >= 0) {
      const BalancedServer& before = servers_[static_cast<size_t>(place)];
      const ServerFacts now = server.facts;
      server = before;
      server.facts = now;
      server.facts.state = before.facts.state;
      stays[static_cast<size_t>(place)] = true;
      turns += server.turn;
      ++kept;
    } else if (!servers_.empty() && options_.slow_start_ms != 0) {
      server.ramp_begin_ns = now_ns;
      server.ramp_end_ns = now_ns + options_.slow_start_ms * kNsPerMs;
    }
    server.refresh_open();
  }
  for (size_t i = 0; i < servers_.size(); ++i) {
    if (stays[i] || servers_[i].active == 0) continue;
    departed_.push_back({servers_[i].facts.identity, servers_[i].active});
  }
  // New ones begin in the middle of the others' turns: neither a burst nor a long wait.
  for (BalancedServer& server : next) {
    if (kept != 0 && find(server.facts.identity) < 0) server.turn = turns / kept;
    const auto gone = std::ranges::find(departed_, server.facts.identity, &Departed::identity);
    if (gone == departed_.end()) continue;
    server.active += gone->active;
    departed_.erase(gone);
  }
  servers_ = by_group(next);
  make_groups();
  make_names();
}

void Balancer::make_groups() {
  std::vector<Group> before = std::move(groups_);
  groups_.clear();
  weight_until_.resize(servers_.size());
  for (uint32_t i = 0; i < servers_.size();) {
    Group group;
    group.begin = i;
    while (i < servers_.size() && same_group(servers_[group.begin].facts, servers_[i].facts)) ++i;
    group.end = i;
    groups_.push_back(std::move(group));
  }
  for (size_t i = 0; i < groups_.size(); ++i) {
    if (i < before.size()) {
      groups_[i].fingerprint = before[i].fingerprint;
      groups_[i].table = std::move(before[i].table);
    }
    count(groups_[i]);
    make_table(groups_[i]);
  }
}

// The table of a group outlives whatever does not change who is in it and with what weight.
void Balancer::make_table(Group& group) {
  // One server needs none, and there may be thousands of such upstreams.
  if (options_.algorithm != Algorithm::kConsistentHash || group.end - group.begin == 1) {
    group.table = MaglevTable();
    group.fingerprint = 0;
    return;
  }
  const auto servers = std::span(servers_).subspan(group.begin, group.end - group.begin);
  uint64_t fingerprint = 1;
  for (const BalancedServer& server : servers) {
    fingerprint = next_hash(fingerprint ^ server.facts.identity) ^ server.facts.weight;
  }
  if (group.table.size() == options_.table_size && group.fingerprint == fingerprint) return;
  group.fingerprint = fingerprint;
  group.table = MaglevTable(servers, options_.table_size);
}

void Balancer::count(Group& group) noexcept {
  group.weight = group.open_weight = group.active = 0;
  for (uint32_t i = group.begin; i < group.end; ++i) {
    const BalancedServer& server = servers_[i];
    group.weight += server.facts.weight;
    if (server.open) group.open_weight += server.facts.weight;
    group.active += server.active;
    weight_until_[i] = group.weight;
  }
  // Turns are in units of weight: those of greater weights that were would last too long.
  const auto most = static_cast<int64_t>(group.weight * BalancedServer::kFull);
  for (uint32_t i = group.begin; i < group.end; ++i) {
    servers_[i].turn = std::clamp(servers_[i].turn, -most, most);
  }
}

void Balancer::make_names() {
  by_identity_.clear();
  by_tag_.clear();
  for (uint32_t i = 0; i < servers_.size(); ++i) {
    const ServerFacts& facts = servers_[i].facts;
    by_identity_.push_back({facts.identity, i});
    if (facts.tag != 0) by_tag_.push_back({facts.tag, i});
  }
  std::ranges::sort(by_identity_, {}, &Named::name);
  std::ranges::sort(by_tag_, {}, &Named::name);
}

int Balancer::find(uint64_t identity) const noexcept {
  const auto found = std::ranges::lower_bound(by_identity_, identity, {}, &Named::name);
  if (found == by_identity_.end() || found->name != identity) return -1;
  return static_cast<int>(found->place);
}

Balancer::Group& Balancer::group_of(uint32_t place) noexcept {
  return *std::ranges::find_if(groups_, [&](const Group& group) { return place < group.end; });
}

bool Balancer::set_state(uint64_t identity, ServerState state, uint64_t now_ns) noexcept {
  const int place = find(identity);
  if (place < 0) return false;
  BalancedServer& server = servers_[static_cast<size_t>(place)];
  const ServerState before = server.facts.state;
  if (before == state) return true;
  server.facts.state = state;
  server.refresh_open();
  // What was only drained is warm.
  if (state == ServerState::kUp && before != ServerState::kDraining) {
    server.ramp_begin_ns = now_ns;
    server.ramp_end_ns =
        options_.slow_start_ms == 0 ? 0 : now_ns + options_.slow_start_ms * kNsPerMs;
    server.latency = {};
  }
  count(group_of(static_cast<uint32_t>(place)));
  return true;
}

bool Balancer::set_weight(uint64_t identity, uint32_t weight) {
  const int place = find(identity);
  if (place < 0) return false;
  BalancedServer& server = servers_[static_cast<size_t>(place)];
  server.facts.weight = std::min(weight, BalancedServer::kWeightMax);
  server.refresh_open();
  Group& group = group_of(static_cast<uint32_t>(place));
  count(group);
  make_table(group);
  return true;
}

void Balancer::begin(const Choice& choice) noexcept {
  const auto place = static_cast<size_t>(choice.place);
  WEIR_CHECK(choice.place >= 0 && place < servers_.size());
  WEIR_DCHECK(servers_[place].facts.identity == choice.identity);
  ++servers_[place].active;
  ++group_of(static_cast<uint32_t>(place)).active;
}

void Balancer::end(const Choice& choice, uint64_t latency_ns, uint64_t now_ns) noexcept {
  auto place = static_cast<size_t>(choice.place);
  if (place >= servers_.size() || servers_[place].facts.identity != choice.identity) {
    const int found = find(choice.identity);
    if (found < 0) {
      const auto gone = std::ranges::find(departed_, choice.identity, &Departed::identity);
      WEIR_DCHECK(gone != departed_.end());
      if (gone != departed_.end() && --gone->active == 0) departed_.erase(gone);
      return;
    }
    place = static_cast<size_t>(found);
  }
  BalancedServer& server = servers_[place];
  WEIR_CHECK(server.active != 0);
  --server.active;
  --group_of(static_cast<uint32_t>(place)).active;
  if (latency_ns == 0 || options_.algorithm != Algorithm::kTwoChoices) return;
  server.latency.observe(latency_ns, now_ns, options_.latency_decay_ms * kNsPerMs);
}

}  // namespace weir::upstream
