// Choosing a server of an upstream, on one core: no locks, no I/O, no allocation per request. State
// is the core's own; cores need no agreement, because each keeps the ratio by itself and balancing
// by hash gives the same server everywhere. Costs: consistent hash O(1), IP hash, random and two
// choices O(log n), round robin and least connections O(n) in the servers of one group; O(n) for
// all when most servers are away.
//
// Servers form groups by (backup, priority); the first group with a usable server is taken.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <weir/base/prng.h>
#include <weir/route/spec.h>
#include <weir/upstream/balance_hash.h>
#include <weir/upstream/balance_server.h>

namespace weir::upstream {

using Algorithm = route::Balance;

static_assert(route::kServersMax <= MaglevTable::kServersMax);

struct BalanceOptions {
  Algorithm algorithm = Algorithm::kRoundRobin;
  uint32_t slow_start_ms = 0;       // 0: full weight at once
  uint32_t load_bound_percent = 0;  // consistent hash: at most this of the mean load; 0: unbounded
  uint32_t table_size = MaglevTable::kSizeDefault;  // consistent hash: of MaglevTable::kSizes
  uint32_t latency_decay_ms = 2000;                 // two choices
  uint32_t latency_floor_us = 1000;                 // two choices: below this all are equally fast

  friend bool operator==(const BalanceOptions&, const BalanceOptions&) = default;
};

// Facts of one request.
struct Pick {
  uint64_t now_ns = 0;
  uint64_t key = 0;         // hash_key() or hash_client(), for the algorithms by hash
  uint64_t sticky_tag = 0;  // of the request's cookie, for Pool; 0: none
  bool has_place = false;   // for Pool: it counts already, at a server it is about to leave
  std::span<const uint64_t> tried{};  // identities that this request is not to get again; few
  uint32_t race_group = 0;            // only servers of this group (ServerFacts); 0: all
};

enum class NoServer : uint8_t {
  kNone,   // there is one
  kDown,   // none is up
  kFull,   // all that are up and not tried have reached max_connections: waiting may help
  kTried,  // all that are up were tried
};

struct Choice {
  int place = -1;  // in servers(), until the set changes
  uint64_t identity = 0;
  NoServer missing = NoServer::kNone;
  explicit operator bool() const noexcept { return place >= 0; }
};

class Balancer {
 public:
  // `random_seed`: another one for every core, or they all make the same choices at once.
  Balancer(const BalanceOptions& options, uint64_t random_seed) noexcept;

  // Sets are changed by control, rarely: these allocate.
  void set_options(const BalanceOptions& options);
  // At most MaglevTable::kServersMax. Those with a known identity keep state, counts, latency and
  // turn; one that joins others begins slowly. A repeated identity gets one of its own.
  void set_servers(std::span<const ServerFacts> servers, uint64_t now_ns);

  // O(log n) and O(n); false: no such server.
  bool set_state(uint64_t identity, ServerState state, uint64_t now_ns) noexcept;
  bool set_weight(uint64_t identity, uint32_t weight);

  // Chooses, but counts nothing: begin() does.
  Choice choose(const Pick& pick) noexcept;
  // The server with this tag if it may have one more request of its session, drained or not.
  [[nodiscard]] Choice choose_sticky(uint64_t tag, const Pick& pick) const noexcept;

  // A request goes to a server and comes back; the latter finds the server wherever it went, and
  // also when it left the set and came again. `latency_ns` 0: nothing was measured.
  void begin(const Choice& choice) noexcept;
  void end(const Choice& choice, uint64_t latency_ns, uint64_t now_ns) noexcept;

  [[nodiscard]] std::span<const BalancedServer> servers() const noexcept { return servers_; }
  // For Pool, which keeps what it knows of a server with it. Its facts are changed by the calls
  // above.
  [[nodiscard]] BalancedServer& at(int place) noexcept {
    return servers_[static_cast<size_t>(place)];
  }
  // Some server may take requests, if it has room.
  [[nodiscard]] bool any_open() const noexcept;
  [[nodiscard]] int find(uint64_t identity) const noexcept;  // place or -1
  [[nodiscard]] const BalanceOptions& options() const noexcept { return options_; }
  // No server, and none that left while requests were under way to it.
  [[nodiscard]] bool unused() const noexcept { return servers_.empty() && departed_.empty(); }

 private:
  struct Group {
    uint32_t begin = 0;
    uint32_t end = 0;
    uint64_t weight = 0;       // of all
    uint64_t open_weight = 0;  // of those that are open
    uint64_t active = 0;
    uint64_t fingerprint = 0;  // of what the table was built of
    MaglevTable table;         // consistent hash only
  };
  struct Named {
    uint64_t name;
    uint32_t place;
  };
  struct Departed {
    uint64_t identity;
    uint32_t active;
  };
  enum class Better : uint8_t { kNeither, kFirst, kSecond };

  int choose_in(Group& group, const Pick& pick) noexcept;
  int round_robin(const Group& group, const Pick& pick) noexcept;
  int least_connections(const Group& group, const Pick& pick) noexcept;
  void pass_turn(const Group& group, const Pick& pick, int taken, int64_t ahead) noexcept;
  int two_choices(const Group& group, const Pick& pick) noexcept;
  int weighted_random(const Group& group, const Pick& pick) noexcept;
  int by_hash(const Group& group, const Pick& pick) const noexcept;
  [[nodiscard]] int by_rank(const Group& group, const Pick& pick, bool strict) const noexcept;
  [[nodiscard]] bool usable(const BalancedServer& server, const Pick& pick) const noexcept;
  [[nodiscard]] bool within_bound(const Group& group, const BalancedServer& server) const noexcept;
  bool exchange(BalancedServer& first, BalancedServer& second, uint64_t now_ns) noexcept;
  [[nodiscard]] Better better_of(const BalancedServer& first, const BalancedServer& second,
                                 uint64_t now_ns) const noexcept;
  [[nodiscard]] uint32_t locate(const Group& group, uint64_t hash) const noexcept;
  [[nodiscard]] NoServer missing(const Pick& pick) const noexcept;
  [[nodiscard]] Choice choice_of(int place) const noexcept;
  Group& group_of(uint32_t place) noexcept;
  uint64_t spread_random() noexcept;
  void make_groups();
  void make_table(Group& group);
  void make_names();
  void count(Group& group) noexcept;

  BalanceOptions options_;
  base::Prng random_;
  uint64_t strata_[3] = {0, 1, 0};       // place in the block, step and begin: spread_random()
  std::vector<BalancedServer> servers_;  // by group
  std::vector<uint64_t> weight_until_;   // sum of weights in its group, itself included
  std::vector<Group> groups_;
  std::vector<Named> by_identity_;
  std::vector<Named> by_tag_;
  std::vector<Departed> departed_;  // left with requests under way
};

}  // namespace weir::upstream
