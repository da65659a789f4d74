// Balancer: one choice.
#include <algorithm>
#include <cmath>
#include <limits>

#include <weir/upstream/balance.h>

namespace weir::upstream {
namespace {

constexpr uint64_t kNsPerMs = 1'000'000;
constexpr double kNsPerUs = 1000;
// Draws before all servers are looked at: enough that nearly every key finds one of its own while
// half of the servers are away.
constexpr int kProbes = 16;
// So much faster the second of two choices has to be; less is noise.
constexpr double kClearlyFaster = 1.5;
constexpr uint64_t kStrata = 64;

// Which keys a server takes in slow start: of those that are its own a growing part.
bool ramp_takes(const BalancedServer& server, uint64_t hash, uint64_t now_ns) noexcept {
  const uint32_t ramp = server.ramp(now_ns);
  if (ramp == BalancedServer::kFull) return true;
  return next_hash(hash ^ server.facts.identity) % BalancedServer::kFull < ramp;
}

}  // namespace

Choice Balancer::choice_of(int place) const noexcept {
  return {.place = place, .identity = servers_[static_cast<size_t>(place)].facts.identity};
}

bool Balancer::usable(const BalancedServer& server, const Pick& pick) const noexcept {
  return server.open && !server.full() &&
         (pick.tried.empty() ||
          std::ranges::find(pick.tried, server.facts.identity) == pick.tried.end());
}

NoServer Balancer::missing(const Pick& pick) const noexcept {
  NoServer why = NoServer::kDown;
  for (const BalancedServer& server : servers_) {
    if (!server.open) continue;
    why = NoServer::kTried;
    if (std::ranges::find(pick.tried, server.facts.identity) == pick.tried.end()) {
      return NoServer::kFull;
    }
  }
  return why;
}

Choice Balancer::choose(const Pick& pick) noexcept {
  for (Group& group : groups_) {
    if (group.open_weight == 0) continue;
    const int place = choose_in(group, pick);
    if (place >= 0) return choice_of(place);
  }
  return {.missing = missing(pick)};
}

Choice Balancer::choose_sticky(uint64_t tag, const Pick& pick) const noexcept {
  const auto found = std::ranges::lower_bound(by_tag_, tag, {}, &Named::name);
  if (found == by_tag_.end() || found->name != tag) return {.missing = NoServer::kDown};
  const BalancedServer& server = servers_[found->place];
  const ServerState state = server.facts.state;
  if (server.facts.endpoint == nullptr ||
      (state != ServerState::kUp && state != ServerState::kDraining)) {
    return {.missing = NoServer::kDown};
  }
  if (std::ranges::find(pick.tried, server.facts.identity) != pick.tried.end()) {
    return {.missing = NoServer::kTried};
  }
  if (server.full()) return {.missing = NoServer::kFull};
  return choice_of(static_cast<int>(found->place));
}

int Balancer::choose_in(Group& group, const Pick& pick) noexcept {
  switch (options_.algorithm) {
    case Algorithm::kRoundRobin: return round_robin(group, pick, nullptr);
    case Algorithm::kLeastConnections: return least_connections(group, pick);
    case Algorithm::kTwoChoices: return two_choices(group, pick);
    case Algorithm::kIpHash:
    case Algorithm::kConsistentHash: return by_hash(group, pick);
    case Algorithm::kRandom: return weighted_random(group, pick);
  }
  return -1;
}

// `like`: only among those as loaded as that one.
int Balancer::round_robin(const Group& group, const Pick& pick,
                          const BalancedServer* like) noexcept {
  int64_t total = 0;
  int best = -1;
  const uint64_t like_active = like != nullptr ? like->active : 0;
  const uint64_t like_weight = like != nullptr ? like->effective_weight(pick.now_ns) : 0;
  for (uint32_t i = group.begin; i < group.end; ++i) {
    BalancedServer& server = servers_[i];
    if (!usable(server, pick)) continue;
    const uint64_t weight = server.effective_weight(pick.now_ns);
    if (like != nullptr && server.active * like_weight != like_active * weight) continue;
    server.turn += static_cast<int64_t>(weight);
    total += static_cast<int64_t>(weight);
    if (best < 0 || server.turn > servers_[static_cast<size_t>(best)].turn) {
      best = static_cast<int>(i);
    }
  }
  if (best >= 0) servers_[static_cast<size_t>(best)].turn -= total;
  return best;
}

int Balancer::least_connections(const Group& group, const Pick& pick) noexcept {
  const BalancedServer* best = nullptr;
  uint64_t best_weight = 0;
  for (uint32_t i = group.begin; i < group.end; ++i) {
    const BalancedServer& server = servers_[i];
    if (!usable(server, pick)) continue;
    const uint64_t weight = server.effective_weight(pick.now_ns);
    if (best == nullptr || server.active * best_weight < best->active * weight) {
      best = &server;
      best_weight = weight;
    }
  }
  return best == nullptr ? -1 : round_robin(group, pick, best);
}

// Uniform, but every 64 draws in a row fall into each 64th part of the range once, in random order:
// shares come out much closer to the weights than with independent draws.
uint64_t Balancer::spread_random() noexcept {
  if (strata_[0] % kStrata == 0) {
    strata_[1] = random_.next() | 1;
    strata_[2] = random_.next();
  }
  const uint64_t stratum = (strata_[0]++ * strata_[1] + strata_[2]) % kStrata;
  return stratum << 58 | random_.next() >> 6;
}

// The server in whose part of the group's weight a hash falls.
uint32_t Balancer::locate(const Group& group, uint64_t hash) const noexcept {
  const uint64_t at = reduce(hash, group.weight);
  const auto first = weight_until_.begin() + group.begin;
  const auto found = std::upper_bound(first, weight_until_.begin() + group.end, at);
  return group.begin + static_cast<uint32_t>(found - first);
}

int Balancer::weighted_random(const Group& group, const Pick& pick) noexcept {
  for (int i = 0; i < kProbes; ++i) {
    const uint32_t place = locate(group, i == 0 ? spread_random() : random_.next());
    const BalancedServer& server = servers_[place];
    if (!usable(server, pick)) continue;
    const uint32_t ramp = server.ramp(pick.now_ns);
    if (ramp == BalancedServer::kFull || random_.below(BalancedServer::kFull) < ramp) {
      return static_cast<int>(place);
    }
  }
  uint64_t total = 0;
  for (uint32_t i = group.begin; i < group.end; ++i) {
    if (usable(servers_[i], pick)) total += servers_[i].effective_weight(pick.now_ns);
  }
  if (total == 0) return -1;
  uint64_t left = random_.below(total);
  for (uint32_t i = group.begin; i < group.end; ++i) {
    if (!usable(servers_[i], pick)) continue;
    const uint64_t weight = servers_[i].effective_weight(pick.now_ns);
    if (left < weight) return static_cast<int>(i);
    left -= weight;
  }
  return -1;
}

// The first is drawn by weight, and taken unless another one is better for sure: that keeps the
// ratio of the weights where servers are alike. The other one has only to be another one.
int Balancer::two_choices(const Group& group, const Pick& pick) noexcept {
  const int first = weighted_random(group, pick);
  const uint32_t size = group.end - group.begin;
  if (first < 0 || size == 1) return first;
  auto place = group.begin + static_cast<uint32_t>(random_.below(size));
  for (uint32_t i = 0; i < size; ++i) {
    const BalancedServer& second = servers_[place];
    if (place != static_cast<uint32_t>(first) && usable(second, pick)) {
      const BalancedServer& drawn = servers_[static_cast<size_t>(first)];
      return second_is_better(drawn, second, pick.now_ns) ? static_cast<int>(place) : first;
    }
    if (++place == group.end) place = group.begin;
  }
  return first;
}

// Work ahead of the new request, per weight: `first` as it is now against `second` with the request
// added (a server that is idle is not left for another one that is), or, where the second is
// clearly faster, both with the request added.
bool Balancer::second_is_better(const BalancedServer& first, const BalancedServer& second,
                                uint64_t now_ns) const noexcept {
  const uint64_t decay_ns = options_.latency_decay_ms * kNsPerMs;
  const double floor_ns = std::max(1.0, options_.latency_floor_us * kNsPerUs);
  double first_ns = first.latency.read(now_ns, decay_ns);
  double second_ns = second.latency.read(now_ns, decay_ns);
  // Of which nothing is known counts as fast as the other.
  if (first_ns == 0) first_ns = second_ns;
  if (second_ns == 0) second_ns = first_ns;
  first_ns = std::max(first_ns, floor_ns);
  second_ns = std::max(second_ns, floor_ns);
  const double first_part = first_ns / static_cast<double>(first.effective_weight(now_ns));
  const double second_cost =
      second_ns * (second.active + 1.0) / static_cast<double>(second.effective_weight(now_ns));
  if (second_cost <= first_part * first.active) return true;
  return second_ns * kClearlyFaster < first_ns && second_cost < first_part * (first.active + 1.0);
}

bool Balancer::within_bound(const Group& group, const BalancedServer& server) const noexcept {
  if (options_.load_bound_percent == 0) return true;
  const uint64_t percent = std::max<uint64_t>(100, options_.load_bound_percent);
  const uint64_t share = percent * (group.active + 1) * server.facts.weight;
  const uint64_t whole = 100 * group.open_weight;
  return server.active < (share + whole - 1) / whole;
}

int Balancer::by_hash(const Group& group, const Pick& pick) const noexcept {
  const bool consistent = options_.algorithm == Algorithm::kConsistentHash;
  uint64_t hash = pick.key;
  for (int i = 0; i < kProbes; ++i) {
    const uint32_t place =
        group.table.empty() ? locate(group, hash) : group.begin + group.table.at(hash);
    const BalancedServer& server = servers_[place];
    if (usable(server, pick) && ramp_takes(server, pick.key, pick.now_ns) &&
        (!consistent || within_bound(group, server))) {
      return static_cast<int>(place);
    }
    hash = next_hash(hash);
  }
  const int place = by_rank(group, pick, true);
  return place >= 0 ? place : by_rank(group, pick, false);
}

// Weighted rendezvous: for when most servers are away. Not strict: slow start and the bound, which
// others made impossible to keep, do not count.
int Balancer::by_rank(const Group& group, const Pick& pick, bool strict) const noexcept {
  const bool bounded = options_.algorithm == Algorithm::kConsistentHash;
  double best_rank = std::numeric_limits<double>::infinity();
  int best = -1;
  for (uint32_t i = group.begin; i < group.end; ++i) {
    const BalancedServer& server = servers_[i];
    if (!usable(server, pick)) continue;
    if (strict &&
        (!ramp_takes(server, pick.key, pick.now_ns) || (bounded && !within_bound(group, server)))) {
      continue;
    }
    const uint64_t draw = next_hash(next_hash(pick.key) ^ server.facts.identity) >> 11;
    const double fraction = (static_cast<double>(draw) + 0.5) * 0x1p-53;
    const double rank = -std::log(fraction) / server.facts.weight;
    if (rank < best_rank) {
      best_rank = rank;
      best = static_cast<int>(i);
    }
  }
  return best;
}

}  // namespace weir::upstream
