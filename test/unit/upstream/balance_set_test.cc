#include <algorithm>
#include <array>
#include <map>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "balance_rig.h"

using namespace weir::upstream;
using namespace weir::upstream::rig;

TEST_CASE("slow start: the weight never falls, from a tenth to all of it") {
  Balancer balancer = balancer_of({.slow_start_ms = 30'000}, servers_of({10, 10}));
  const auto ramp = [&](uint64_t now_ns) { return balancer.servers()[1].ramp(now_ns); };
  CHECK(ramp(0) == BalancedServer::kFull);  // those of the beginning are not slow
  balancer.set_state(identity_of(1), ServerState::kDown, 0);
  balancer.set_state(identity_of(1), ServerState::kUp, 7 * kSecond);
  uint32_t before = 0;
  for (uint64_t now_ns = 0; now_ns <= 40 * kSecond; now_ns += 10 * kMs) {
    const uint32_t now = ramp(now_ns);
    CHECK(now >= before);
    CHECK(now >= BalancedServer::kRampFloor);
    before = now;
  }
  CHECK(ramp(22 * kSecond) == BalancedServer::kFull / 2);
  CHECK(ramp(37 * kSecond - 1) < BalancedServer::kFull);
  CHECK(ramp(37 * kSecond) == BalancedServer::kFull);
  // Drained only, it was never cold.
  balancer.set_state(identity_of(0), ServerState::kDraining, 0);
  balancer.set_state(identity_of(0), ServerState::kUp, 50 * kSecond);
  CHECK(balancer.servers()[0].ramp(50 * kSecond) == BalancedServer::kFull);
}

TEST_CASE("slow start: the share grows with every algorithm, and keys only ever come") {
  const Algorithm algorithm =
      GENERATE(Algorithm::kRoundRobin, Algorithm::kLeastConnections, Algorithm::kTwoChoices,
               Algorithm::kIpHash, Algorithm::kConsistentHash, Algorithm::kRandom);
  CAPTURE(static_cast<int>(algorithm));
  Balancer balancer =
      balancer_of({.algorithm = algorithm, .slow_start_ms = 10'000}, servers_of({1, 1, 1, 1}));
  const uint64_t slow = identity_of(2);
  balancer.set_state(slow, ServerState::kDown, 0);
  balancer.set_state(slow, ServerState::kUp, kSecond);
  std::vector<bool> had(20'000);
  uint32_t before = 0;
  for (const uint64_t second : {1u, 3u, 6u, 9u, 11u}) {
    uint32_t count = 0;
    for (size_t i = 0; i < had.size(); ++i) {
      const Choice choice =
          balancer.choose({.now_ns = second * kSecond, .key = key_of(static_cast<int>(i))});
      const bool has = choice.identity == slow;
      if (has) ++count;
      if (algorithm == Algorithm::kIpHash || algorithm == Algorithm::kConsistentHash) {
        CHECK((has || !had[i]));
        had[i] = has;
      }
    }
    CHECK(count > before);
    // The share of w among 3 + w; by hash what is turned away does not come back.
    const double part = second == 1 ? 0.1 : static_cast<double>(second - 1) / 10;
    const double expected = 20'000 * part / (3 + part);
    CHECK(count < expected * 1.1 + 50);
    CHECK(count > expected * 0.7);
    before = count;
  }
  CHECK(before > 4800);
}

TEST_CASE("a new set keeps state, counts and turns of those that stay") {
  auto servers = servers_of({1, 1, 1});
  Balancer balancer = balancer_of({.slow_start_ms = 1000}, servers);
  balancer.set_state(identity_of(1), ServerState::kDown, 0);
  const Choice first = balancer.choose({});
  balancer.begin(first);
  std::swap(servers[0], servers[2]);
  servers.push_back({.endpoint = some_endpoint(), .identity = identity_of(3)});
  servers[1].state = ServerState::kUp;  // what control would give a new one
  balancer.set_servers(servers, 5 * kSecond);
  CHECK(balancer.servers()[1].facts.state == ServerState::kDown);
  CHECK(balancer.servers()[2].facts.identity == first.identity);
  CHECK(balancer.servers()[2].active == 1);
  CHECK(balancer.servers()[2].ramp(5 * kSecond) == BalancedServer::kFull);
  CHECK(balancer.servers()[3].ramp(5 * kSecond) == BalancedServer::kRampFloor);
  CHECK(balancer.choose({.now_ns = 5 * kSecond}).identity == identity_of(2));  // its turn
  balancer.end(first, 0, 0);  // with a place that is another's now
  CHECK(balancer.servers()[2].active == 0);
}

TEST_CASE("a server that leaves with requests under way and comes back has them still") {
  auto servers = servers_of({1, 1});
  Balancer balancer = balancer_of({.algorithm = Algorithm::kLeastConnections}, servers);
  std::array<Choice, 4> flying;
  for (Choice& choice : flying) {
    choice = balancer.choose({});
    balancer.begin(choice);
  }
  balancer.set_servers(std::span(servers).first(1), 0);
  for (const Choice& choice : flying) {
    if (choice.identity == identity_of(1)) {
      balancer.end(choice, 0, 0);
      break;
    }
  }
  balancer.set_servers(servers, 0);
  CHECK(balancer.servers()[1].active == 1);
  CHECK(balancer.servers()[0].active == 2);
  balancer.set_servers({}, 0);
  CHECK(balancer.choose({}).missing == NoServer::kDown);
}

TEST_CASE("a new server neither gets a burst nor waits, after many changes of the set") {
  std::vector<uint32_t> weights(5, 3);
  auto servers = servers_of(weights);
  Balancer balancer = balancer_of({}, servers);
  weir::base::Prng random(11);
  for (size_t round = 0; round < 500; ++round) {
    for (uint64_t i = random.below(20); i > 0; --i) balancer.choose({});
    const uint64_t identity = identity_of(100 + round);
    servers[static_cast<size_t>(random.below(5))].identity = identity;
    balancer.set_servers(servers, 0);
    uint32_t got = 0;
    for (int i = 0; i < 10; ++i) {
      if (balancer.choose({}).identity == identity) ++got;
    }
    CHECK(got >= 1);
    CHECK(got <= 3);
  }
}

TEST_CASE("a server that is named twice is two servers, each with its share") {
  auto servers = servers_of({1, 1, 2});
  servers[1].identity = servers[0].identity;
  const Algorithm algorithm = GENERATE(Algorithm::kRoundRobin, Algorithm::kConsistentHash);
  Balancer balancer = balancer_of({.algorithm = algorithm}, servers);
  std::vector<uint32_t> counts(3);
  for (int i = 0; i < kChoices; ++i) {
    ++counts[static_cast<size_t>(balancer.choose({.key = key_of(i)}).place)];
  }
  check_shares(counts, std::vector<uint32_t>{1, 1, 2}, 0.01, 4);
  const uint64_t second = balancer.servers()[1].facts.identity;
  CHECK(second != balancer.servers()[0].facts.identity);
  balancer.set_servers(servers, 0);
  CHECK(balancer.servers()[1].facts.identity == second);
}

TEST_CASE("a weight that is changed counts from then on") {
  const Algorithm algorithm = GENERATE(Algorithm::kRoundRobin, Algorithm::kIpHash,
                                       Algorithm::kConsistentHash, Algorithm::kRandom);
  CAPTURE(static_cast<int>(algorithm));
  Balancer balancer = balancer_of({.algorithm = algorithm}, servers_of({1, 1, 1}));
  CHECK(balancer.set_weight(identity_of(1), 6));
  CHECK(balancer.set_weight(identity_of(2), 0));
  CHECK_FALSE(balancer.set_weight(4711, 0));
  std::vector<uint32_t> counts(3);
  for (int i = 0; i < 70'000; ++i) {
    ++counts[static_cast<size_t>(balancer.choose({.key = key_of(i)}).place)];
  }
  CHECK(counts[2] == 0);
  check_shares(std::span(counts).first(2), std::vector<uint32_t>{1, 6}, 0.01, 3);
}

TEST_CASE("turns of great weights do not outlast them, nor those of another algorithm") {
  const Algorithm algorithm = GENERATE(Algorithm::kRoundRobin, Algorithm::kLeastConnections);
  Balancer balancer = balancer_of({.algorithm = algorithm}, servers_of({1'000'000, 1'000'000}));
  const Choice first = balancer.choose({});
  CHECK(balancer.servers()[static_cast<size_t>(first.place)].turn < 0);
  balancer.set_weight(identity_of(0), 1);
  balancer.set_weight(identity_of(1), 1);
  std::vector<uint32_t> counts(2);
  for (int i = 0; i < 10; ++i) ++counts[static_cast<size_t>(balancer.choose({}).place)];
  CHECK(std::max(counts[0], counts[1]) <= 6);
  balancer.set_options({.algorithm = Algorithm::kTwoChoices});
  for (const BalancedServer& server : balancer.servers()) CHECK(server.turn == 0);
}

TEST_CASE("the names of the states") {
  CHECK(to_string(ServerState::kUp) == "up");
  CHECK(to_string(ServerState::kDraining) == "draining");
  CHECK(to_string(ServerState::kDown) == "down");
  CHECK(to_string(ServerState::kEjected) == "ejected");
}

// Against a model: whatever happens in whatever order, counts are right and nobody gets a request
// that it may not have.
TEST_CASE("any sequence of changes, choices and ends") {
  const Algorithm algorithm =
      GENERATE(Algorithm::kRoundRobin, Algorithm::kLeastConnections, Algorithm::kTwoChoices,
               Algorithm::kIpHash, Algorithm::kConsistentHash, Algorithm::kRandom);
  CAPTURE(static_cast<int>(algorithm));
  weir::base::Prng random(static_cast<uint64_t>(algorithm) + 1);
  Balancer balancer({.algorithm = algorithm, .slow_start_ms = 50, .load_bound_percent = 150}, 3);
  std::map<uint64_t, uint32_t> active;
  std::vector<Choice> flying;
  uint32_t wrong = 0;
  uint32_t chosen = 0;
  uint64_t now_ns = 0;
  const auto change_set = [&] {
    std::vector<ServerFacts> servers;
    for (size_t i = 0; i < 12; ++i) {
      if (random.chance(40)) continue;
      servers.push_back({.endpoint = random.chance(90) ? some_endpoint() : nullptr,
                         .identity = identity_of(i),
                         .weight = static_cast<uint32_t>(random.below(4)),
                         .max_connections = static_cast<uint32_t>(random.below(20)),
                         .priority = static_cast<uint32_t>(random.below(2)),
                         .backup = random.chance(20)});
    }
    balancer.set_servers(servers, now_ns);
  };
  const auto may_have = [&](const BalancedServer& server, uint64_t tried) {
    const ServerFacts& facts = server.facts;
    return facts.state == ServerState::kUp && facts.endpoint != nullptr && facts.weight != 0 &&
           (facts.max_connections == 0 || server.active < facts.max_connections) &&
           facts.identity != tried;
  };
  change_set();
  for (int step = 0; step < 40'000; ++step, now_ns += kMs) {
    const uint64_t what = random.below(100);
    const uint64_t some = identity_of(static_cast<size_t>(random.below(12)));
    if (what < 1 && algorithm != Algorithm::kConsistentHash) change_set();
    if (step % 2000 == 0) change_set();
    if (what < 4) {
      balancer.set_state(some, static_cast<ServerState>(random.below(4)), now_ns);
    } else if (what < 45 && !flying.empty()) {
      std::swap(flying[static_cast<size_t>(random.below(flying.size()))], flying.back());
      --active[flying.back().identity];
      balancer.end(flying.back(), random.below(9) * kMs, now_ns);
      flying.pop_back();
    } else {
      const Choice choice =
          balancer.choose({.now_ns = now_ns, .key = random.next(), .tried = std::span(&some, 1)});
      const auto servers = balancer.servers();
      const auto first = std::ranges::find_if(
          servers, [&](const BalancedServer& server) { return may_have(server, some); });
      if (static_cast<bool>(choice) != (first != servers.end())) ++wrong;
      if (!choice) continue;
      const BalancedServer& server = servers[static_cast<size_t>(choice.place)];
      if (!may_have(server, some) || server.facts.identity != choice.identity) ++wrong;
      if (server.facts.priority != first->facts.priority ||
          server.facts.backup != first->facts.backup) {
        ++wrong;
      }
      ++chosen;
      ++active[choice.identity];
      balancer.begin(choice);
      flying.push_back(choice);
    }
    for (const BalancedServer& server : balancer.servers()) {
      if (server.active != active[server.facts.identity]) ++wrong;
    }
  }
  CHECK(wrong == 0);
  CHECK(chosen > 5000);
}
