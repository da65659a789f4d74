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
// So much faster one of two has to be; with random service times of one mean, peaks often differ by
// twice.
constexpr double kClearlyFaster = 2.5;
// Two choices: requests that a server may have given to others, or got from them, and that are to
// be made good. That is done only where two are alike, so that none is flooded.
constexpr int64_t kOwedMax = 32;
// Least connections: requests that the turns remember of a server that could not be taken.
constexpr int64_t kAheadMax = 8;
constexpr uint64_t kStrata = 64;

// Which keys a server takes in slow start: of those that are its own a growing part.
bool ramp_takes(const BalancedServer& server, uint64_t hash, uint64_t now_ns) noexcept {
  const uint32_t ramp = server.ramp(now_ns);
  if (ramp == BalancedServer::kFull) return true;
  return next_hash(hash ^ server.facts.identity) % BalancedServer::kFull < ramp;
}

bool in_race(const BalancedServer& server, const Pick& pick) noexcept {
  return pick.race_group == 0 || server.facts.race_group == pick.race_group;
}

}  // namespace

Choice Balancer::choice_of(int place) const noexcept {
  return {.place = place, .identity = servers_[static_cast<size_t>(place)].facts.identity};
}

bool Balancer::usable(const BalancedServer& server, const Pick& pick) const noexcept {
  return server.open && !server.full() && in_race(server, pick) &&
         (pick.tried.empty() ||
          std::ranges::find(pick.tried, server.facts.identity) == pick.tried.end());
}

NoServer Balancer::missing(const Pick& pick) const noexcept {
  NoServer why = NoServer::kDown;
  for (const BalancedServer& server : servers_) {
    if (!server.open || !in_race(server, pick)) continue;
    why = NoServer::kTried;
    if (std::ranges::find(pick.tried, server.facts.identity) == pick.tried.end()) {
      return NoServer::kFull;
    }
  }
  return why;
}

bool Balancer::any_open() const noexcept {
  return std::ranges::any_of(groups_, [](const Group& group) { return group.open_weight != 0; });
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
  if (server.facts.endpoint == nullptr || !in_race(server, pick) ||
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
    case Algorithm::kRoundRobin: return round_robin(group, pick);
    case Algorithm::kLeastConnections: return least_connections(group, pick);
    case Algorithm::kTwoChoices: return two_choices(group, pick);
    case Algorithm::kIpHash:
    case Algorithm::kConsistentHash: return by_hash(group, pick);
    case Algorithm::kRandom: return weighted_random(group, pick);
  }
  return -1;
}

int Balancer::round_robin(const Group& group, const Pick& pick) noexcept {
  int64_t total = 0;
  int best = -1;
  for (uint32_t i = group.begin; i < group.end; ++i) {
    BalancedServer& server = servers_[i];
    if (!usable(server, pick)) continue;
    const auto weight = static_cast<int64_t>(server.effective_weight(pick.now_ns));
    server.turn += weight;
    total += weight;
    if (best < 0 || server.turn > servers_[static_cast<size_t>(best)].turn) {
      best = static_cast<int>(i);
    }
  }
  if (best >= 0) servers_[static_cast<size_t>(best)].turn -= total;
  return best;
}

// Where servers have a few requests in flight, who has least by weight is a matter of rounding, and
// the shares would be, too. So everybody will do who has less now than the least busy one would
// have with this request (of equal weights: who has least), and among them it goes by turns.
int Balancer::least_connections(const Group& group, const Pick& pick) noexcept {
  uint64_t bound_active = 0;  // the least of (active + 1) / weight
  uint64_t bound_weight = 0;
  uint64_t total = 0;
  for (uint32_t i = group.begin; i < group.end; ++i) {
    const BalancedServer& server = servers_[i];
    if (!usable(server, pick)) continue;
    const uint64_t weight = server.effective_weight(pick.now_ns);
    const uint64_t active = uint64_t{server.active} + 1;
    total += weight;
    if (bound_weight == 0 || active * bound_weight < bound_active * weight) {
      bound_active = active;
      bound_weight = weight;
    }
  }
  int best = -1;
  int64_t best_turn = 0;
  for (uint32_t i = group.begin; i < group.end; ++i) {
    const BalancedServer& server = servers_[i];
    if (!usable(server, pick)) continue;
    const uint64_t weight = server.effective_weight(pick.now_ns);
    if (server.active * bound_weight >= bound_active * weight) continue;
    const int64_t turn = server.turn + static_cast<int64_t>(weight);
    if (best < 0 || turn > best_turn) {
      best = static_cast<int>(i);
      best_turn = turn;
    }
  }
  if (best >= 0) pass_turn(group, pick, best, kAheadMax * static_cast<int64_t>(total));
  return best;
}

// The turns of all go on, so that who could not be taken now gets its share later; but nobody gets
// so far ahead of those that are taken that, when a slow server has recovered, it takes all.
void Balancer::pass_turn(const Group& group, const Pick& pick, int taken, int64_t ahead) noexcept {
  BalancedServer& best = servers_[static_cast<size_t>(taken)];
  const int64_t most = best.turn + ahead;
  int64_t total = 0;
  for (uint32_t i = group.begin; i < group.end; ++i) {
    BalancedServer& server = servers_[i];
    if (server.turn > most || !usable(server, pick)) continue;
    const auto weight = static_cast<int64_t>(server.effective_weight(pick.now_ns));
    server.turn += weight;
    total += weight;
  }
  best.turn -= total;
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
    BalancedServer& second = servers_[place];
    if (place != static_cast<uint32_t>(first) && usable(second, pick)) {
      return exchange(servers_[static_cast<size_t>(first)], second, pick.now_ns)
                 ? static_cast<int>(place)
                 : first;
    }
    if (++place == group.end) place = group.begin;
  }
  return first;
}

// Whether `second` gets the request that `first` has drawn. Small servers lose more such requests
// than big ones, for one request more or less is more to them; turns count what was lost and got,
// and give it back where the two are alike.
bool Balancer::exchange(BalancedServer& first, BalancedServer& second, uint64_t now_ns) noexcept {
  const Better better = better_of(first, second, now_ns);
  if (better == Better::kFirst) return false;
  if (better == Better::kNeither && second.turn <= first.turn + 1) return false;
  if (first.turn < kOwedMax && second.turn > -kOwedMax) {
    ++first.turn;
    --second.turn;
  }
  return true;
}

// Equally fast: by requests per weight, the better one also with this request. Else by the work
// ahead of the new request, itself included; a slower one has to be better with it all the same.
Balancer::Better Balancer::better_of(const BalancedServer& first, const BalancedServer& second,
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
  // Both sides of each comparison are multiplied by both weights.
  const auto first_scale = static_cast<double>(second.effective_weight(now_ns));
  const auto second_scale = static_cast<double>(first.effective_weight(now_ns));
  const double first_active = first.active;
  const double second_active = second.active;
  const double first_cost = first_ns * (first_active + 1) * first_scale;
  const double second_cost = second_ns * (second_active + 1) * second_scale;
  if (second_ns * kClearlyFaster < first_ns) {
    return second_cost < first_cost ? Better::kSecond : Better::kFirst;
  }
  if (first_ns * kClearlyFaster < second_ns) {
    return second_cost <= first_ns * first_active * first_scale ? Better::kSecond : Better::kFirst;
  }
  if ((second_active + 1) * second_scale <= first_active * first_scale) return Better::kSecond;
  if ((first_active + 1) * first_scale <= second_active * second_scale) return Better::kFirst;
  return Better::kNeither;
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
