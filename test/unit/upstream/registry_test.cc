// Upstreams over reloads: endpoints and their connections stay while they are named, and go when
// nothing names or uses them any more.
#include <algorithm>

#include <catch2/catch_test_macros.hpp>

#include <weir/upstream/registry.h>

#include "origin.h"

using namespace weir;
using namespace weir::upstream;
using namespace weir::upstream::test;

namespace {

route::ServerSpec server(const Origin& origin, uint32_t id, uint32_t weight = 1) {
  return {.address_text = origin.address().to_string(),
          .address = origin.address(),
          .resolved = true,
          .weight = weight,
          .endpoint_id = id};
}

route::UpstreamSpec spec_of(std::string name, uint32_t id, std::vector<route::ServerSpec> servers) {
  route::UpstreamSpec spec;
  spec.name = std::move(name);
  spec.id = id;
  spec.servers = std::move(servers);
  return spec;
}

std::unique_ptr<route::Snapshot> snapshot(std::vector<route::UpstreamSpec> upstreams) {
  std::vector<route::RouteSpec> routes;
  for (uint32_t i = 0; i < upstreams.size(); ++i) {
    route::RouteSpec spec;
    spec.path = "/" + std::to_string(i);
    spec.action = route::ProxyAction{.upstream = i, .target_path = {}};
    spec.origin_text = "test:" + std::to_string(i);
    routes.push_back(std::move(spec));
  }
  auto built = route::build_snapshot(routes, std::move(upstreams));
  REQUIRE(built);
  return std::move(*built);
}

std::unique_ptr<Connection> lease(Engine& engine, Endpoint& endpoint) {
  Acquire one;
  REQUIRE(engine.run(acquire(endpoint, one, false)));
  REQUIRE(one.connection);
  return std::move(one.connection);
}

// What a core does that has no request on an older snapshot.
void switch_to(Registry& registry, const route::Snapshot& next) {
  registry.adopt(next);
  CHECK(registry.sweep_due());
  registry.sweep();
  CHECK_FALSE(registry.sweep_due());
}

size_t living(const Registry& registry) {
  return static_cast<size_t>(
      std::ranges::count_if(registry.endpoints(), [](const auto& e) { return e != nullptr; }));
}

// By place: in the order of the configuration, as long as no server is a backup or has a priority.
Endpoint* endpoint_of(Registry& registry, const route::UpstreamSpec& spec, size_t place) {
  Pool* const pool = registry.pool(spec.id);
  REQUIRE(pool != nullptr);
  REQUIRE(place < pool->servers());
  return pool->balancer().servers()[place].facts.endpoint;
}

size_t servers_of(Registry& registry, const route::UpstreamSpec& spec) {
  return registry.pool(spec.id)->servers();
}

Turn choose(Registry& registry, const Pick& pick = {}) { return registry.pool(0)->choose(pick); }

}  // namespace

TEST_CASE("endpoints and pooled connections survive a snapshot that still names them") {
  Engine engine;
  const Origin origin;
  Registry registry(*engine, 1, 7);
  const auto first = snapshot({spec_of("app", 0, {server(origin, 0)})});
  switch_to(registry, *first);
  Endpoint* const endpoint = endpoint_of(registry, first->upstream(0), 0);
  REQUIRE(endpoint != nullptr);
  CHECK(endpoint->upstream_name() == "app");
  endpoint->release(lease(engine, *endpoint));
  CHECK(registry.idle_connections() == 1);

  // The same upstream at another index, with another one before it.
  const auto second =
      snapshot({spec_of("new", 1, {server(origin, 1)}), spec_of("app", 0, {server(origin, 0)})});
  switch_to(registry, *second);
  CHECK(endpoint_of(registry, second->upstream(1), 0) == endpoint);
  CHECK(endpoint_of(registry, second->upstream(0), 0) != endpoint);
  CHECK(registry.idle_connections() == 1);
  // A request that is pinned to the older snapshot finds its upstream by id.
  CHECK(endpoint_of(registry, first->upstream(0), 0) == endpoint);
  CHECK(living(registry) == 2);
  registry.close_idle();
  CHECK(registry.idle_connections() == 0);
}

TEST_CASE("an endpoint that is not named any more goes, with its idle connections") {
  Engine engine;
  const Origin one;
  const Origin two;
  Registry registry(*engine, 1, 7);
  const auto both = snapshot({spec_of("app", 0, {server(one, 0), server(two, 1)})});
  switch_to(registry, *both);
  Endpoint* const second = endpoint_of(registry, both->upstream(0), 1);
  second->release(lease(engine, *second));
  const auto less = snapshot({spec_of("app", 0, {server(one, 0)})});
  switch_to(registry, *less);
  CHECK(living(registry) == 1);
  CHECK(servers_of(registry, less->upstream(0)) == 1);
  CHECK(registry.idle_connections() == 0);
}

TEST_CASE("until the sweep a request on the older snapshot finds what the newer does not name") {
  Engine engine;
  const Origin one;
  const Origin two;
  Registry registry(*engine, 1, 7);
  const auto first = snapshot({spec_of("old", 0, {server(one, 0)})});
  const auto second = snapshot({spec_of("new", 1, {server(two, 1)})});
  switch_to(registry, *first);
  registry.adopt(*second);
  REQUIRE(servers_of(registry, first->upstream(0)) == 1);
  Endpoint* const endpoint = endpoint_of(registry, first->upstream(0), 0);
  endpoint->release(lease(engine, *endpoint));
  CHECK(living(registry) == 2);
  registry.sweep();
  CHECK(living(registry) == 1);
  CHECK(registry.pool(first->upstream(0).id) == nullptr);
  CHECK(registry.idle_connections() == 0);
}

TEST_CASE("an endpoint in use outlives the snapshot that dropped it") {
  Engine engine;
  const Origin one;
  const Origin two;
  Registry registry(*engine, 1, 7);
  const auto first = snapshot({spec_of("old", 0, {server(one, 0)})});
  const auto second = snapshot({spec_of("new", 1, {server(two, 1)})});
  switch_to(registry, *first);
  Endpoint* const endpoint = endpoint_of(registry, first->upstream(0), 0);
  auto leased = lease(engine, *endpoint);
  switch_to(registry, *second);
  CHECK(living(registry) == 2);
  endpoint->release(std::move(leased));
  const auto third = snapshot({spec_of("new", 1, {server(two, 1)})});
  switch_to(registry, *third);
  CHECK(living(registry) == 1);
}

TEST_CASE("a name that was removed and comes back is served again") {
  Engine engine;
  const Origin origin;
  Registry registry(*engine, 1, 7);
  const auto with =
      snapshot({spec_of("a", 0, {server(origin, 0)}), spec_of("b", 1, {server(origin, 1)})});
  const auto without = snapshot({spec_of("a", 0, {server(origin, 0)})});
  for (int i = 0; i < 3; ++i) {
    switch_to(registry, *with);
    REQUIRE(servers_of(registry, with->upstream(1)) == 1);
    Endpoint* const endpoint = endpoint_of(registry, with->upstream(1), 0);
    REQUIRE(endpoint != nullptr);
    endpoint->release(lease(engine, *endpoint));
    switch_to(registry, *without);
    CHECK(living(registry) == 1);
  }
}

TEST_CASE("the balancing goes on where it was; weights are the new ones") {
  Engine engine;
  const Origin a;
  const Origin b;
  Registry registry(*engine, 1, 7);
  const auto first = snapshot({spec_of("app", 0, {server(a, 0), server(b, 1)})});
  switch_to(registry, *first);
  Endpoint* const at_a = endpoint_of(registry, first->upstream(0), 0);
  Endpoint* const at_b = endpoint_of(registry, first->upstream(0), 1);
  CHECK(&choose(registry).endpoint() == at_a);
  const auto again = snapshot({spec_of("app", 0, {server(a, 0), server(b, 1)})});
  switch_to(registry, *again);
  CHECK(&choose(registry).endpoint() == at_b);
  const auto swapped = snapshot({spec_of("app", 0, {server(b, 1, 3), server(a, 0, 0)})});
  switch_to(registry, *swapped);
  for (int i = 0; i < 3; ++i) CHECK(&choose(registry).endpoint() == at_b);
}

TEST_CASE("a server that is not resolved takes nothing") {
  Engine engine;
  const Origin origin;
  Registry registry(*engine, 1, 7);
  route::ServerSpec unknown;
  unknown.address_text = "nowhere.test:80";
  unknown.endpoint_id = 1;
  const auto built = snapshot({spec_of("app", 0, {unknown, server(origin, 0)})});
  switch_to(registry, *built);
  CHECK(servers_of(registry, built->upstream(0)) == 2);
  CHECK(endpoint_of(registry, built->upstream(0), 0) == nullptr);
  Endpoint* const only = endpoint_of(registry, built->upstream(0), 1);
  for (int i = 0; i < 3; ++i) CHECK(&choose(registry).endpoint() == only);
}

TEST_CASE("a turn counts at its server until it ends, once") {
  Engine engine;
  const Origin a;
  const Origin b;
  Registry registry(*engine, 1, 7);
  auto spec = spec_of("app", 0, {server(a, 0), server(b, 1)});
  spec.balance.algorithm = route::Balance::kLeastConnections;
  switch_to(registry, *snapshot({spec}));
  const auto active = [&] {
    std::vector<uint32_t> counts;
    for (const auto& one : registry.pool(0)->balancer().servers()) counts.push_back(one.active);
    return counts;
  };
  Turn first = choose(registry);
  Turn second = choose(registry);
  REQUIRE(first);
  CHECK(&first.endpoint() != &second.endpoint());
  CHECK(active() == std::vector<uint32_t>{1, 1});
  Turn moved = std::move(first);
  CHECK_FALSE(first);  // NOLINT(bugprone-use-after-move)
  CHECK(active() == std::vector<uint32_t>{1, 1});
  moved.end();
  moved.end();
  CHECK_FALSE(moved);
  CHECK(active() == std::vector<uint32_t>{0, 1});
  {
    const Turn third = choose(registry);
    CHECK(active() == std::vector<uint32_t>{1, 1});
  }
  CHECK(active() == std::vector<uint32_t>{0, 1});
  second = Turn();
  CHECK(active() == std::vector<uint32_t>{0, 0});
}

TEST_CASE("turns outlive reloads: their server leaves, their upstream leaves, both come back") {
  Engine engine;
  const Origin a;
  const Origin b;
  Registry registry(*engine, 1, 7);
  const auto both = snapshot({spec_of("app", 0, {server(a, 0), server(b, 1)})});
  const auto less = snapshot({spec_of("app", 0, {server(b, 1)})});
  const auto other = snapshot({spec_of("other", 1, {server(b, 2)})});
  const auto active = [&](size_t place) {
    return registry.pool(0)->balancer().servers()[place].active;
  };
  switch_to(registry, *both);
  Turn one = choose(registry);
  Turn two = choose(registry);
  Turn three = choose(registry);  // at the first again
  switch_to(registry, *less);
  CHECK(active(0) == 1);
  three.end();
  switch_to(registry, *both);
  CHECK(active(0) == 1);
  switch_to(registry, *other);
  REQUIRE(registry.pool(0) != nullptr);  // it waits for its turns
  CHECK(registry.pool(0)->balancer().servers().empty());
  CHECK(choose(registry).missing() == NoServer::kDown);
  two.end();
  switch_to(registry, *both);
  CHECK(active(0) == 1);
  CHECK(active(1) == 0);
  switch_to(registry, *other);
  one.end();
  switch_to(registry, *other);
  CHECK(registry.pool(0) == nullptr);
}

TEST_CASE("a reload changes the algorithm and keeps what is counted") {
  Engine engine;
  const Origin a;
  const Origin b;
  Registry registry(*engine, 1, 7);
  auto spec = spec_of("app", 0, {server(a, 0), server(b, 1)});
  switch_to(registry, *snapshot({spec}));
  const Turn held = choose(registry);
  spec.balance.algorithm = route::Balance::kLeastConnections;
  switch_to(registry, *snapshot({spec}));
  for (int i = 0; i < 4; ++i) CHECK(&choose(registry).endpoint() != &held.endpoint());
  spec.balance.algorithm = route::Balance::kConsistentHash;
  switch_to(registry, *snapshot({spec}));
  Endpoint* const of_key = &choose(registry, {.key = 99}).endpoint();
  for (int i = 0; i < 4; ++i) CHECK(&choose(registry, {.key = 99}).endpoint() == of_key);
}

TEST_CASE("connections of a server: each core has its share, rounded up") {
  Engine engine;
  const Origin a;
  const Origin b;
  Registry registry(*engine, 4, 7);
  auto spec = spec_of("app", 0, {server(a, 0), server(b, 1)});
  spec.servers[0].max_connections = 5;  // two for each of four cores
  spec.servers[1].max_connections = 1;
  switch_to(registry, *snapshot({spec}));
  std::vector<Turn> turns(3);
  for (Turn& turn : turns) {
    turn = choose(registry);
    REQUIRE(turn);
  }
  CHECK(choose(registry).missing() == NoServer::kFull);
  turns.pop_back();
  CHECK(choose(registry));
}

TEST_CASE("limits of the process are divided by the cores, at least one each") {
  Engine engine;
  const Origin origin;
  Registry registry(*engine, 4, 7);
  auto spec = spec_of("app", 0, {server(origin, 0)});
  spec.max_idle_per_host = 6;  // two for each of four cores
  const auto built = snapshot({spec});
  switch_to(registry, *built);
  Endpoint& endpoint = *endpoint_of(registry, built->upstream(0), 0);
  std::vector<std::unique_ptr<Connection>> leased;
  for (int i = 0; i < 4; ++i) leased.push_back(lease(engine, endpoint));
  for (auto& connection : leased) endpoint.release(std::move(connection));
  CHECK(endpoint.idle() == 2);

  spec.max_idle_per_host = 1;
  switch_to(registry, *snapshot({spec}));
  registry.close_idle();
  endpoint.release(lease(engine, endpoint));
  CHECK(endpoint.idle() == 1);
  spec.max_idle_per_host = 0;  // no reuse at all
  switch_to(registry, *snapshot({spec}));
  registry.close_idle();
  endpoint.release(lease(engine, endpoint));
  CHECK(endpoint.idle() == 0);
}

// ---- between two snapshots

TEST_CASE("servers come and go between two snapshots") {
  Engine engine;
  const Origin one;
  const Origin two;
  const Origin three;
  Registry registry(*engine, 1, 7);
  const auto spec = spec_of("app", 0, {server(one, 0), server(two, 1)});
  const auto built = snapshot({spec, spec_of("other", 1, {server(one, 7)})});
  switch_to(registry, *built);
  Endpoint* const kept = endpoint_of(registry, spec, 0);
  kept->release(lease(engine, *kept));
  Endpoint* const leaves = endpoint_of(registry, spec, 1);
  leaves->release(lease(engine, *leaves));
  Endpoint* const others = endpoint_of(registry, built->upstream(1), 0);
  others->release(lease(engine, *others));

  registry.update(spec_of("app", 0, {server(one, 0), server(three, 2)}));
  CHECK(registry.sweep_due());
  REQUIRE(servers_of(registry, spec) == 2);
  CHECK(endpoint_of(registry, spec, 0) == kept);
  CHECK(endpoint_of(registry, spec, 1) != leaves);
  CHECK(endpoint_of(registry, spec, 1)->address_text() == three.address().to_string());
  CHECK(registry.idle_connections() == 3);
  registry.sweep();
  CHECK(living(registry) == 3);
  CHECK(registry.endpoints()[1] == nullptr);
  CHECK(registry.idle_connections() == 2);  // also the one of the upstream that was not meant
  CHECK(endpoint_of(registry, built->upstream(1), 0) == others);

  // It is back before anybody has swept.
  registry.update(spec_of("app", 0, {server(three, 2)}));
  registry.update(spec_of("app", 0, {server(three, 2), server(one, 0)}));
  registry.sweep();
  CHECK(endpoint_of(registry, spec, 1) == kept);
  CHECK(registry.idle_connections() == 2);
}

TEST_CASE("a server that left between two snapshots waits for who uses it, then is swept") {
  Engine engine;
  const Origin one;
  const Origin two;
  Registry registry(*engine, 1, 7);
  const auto spec = spec_of("app", 0, {server(one, 0), server(two, 1)});
  switch_to(registry, *snapshot({spec}));
  Turn first = choose(registry);
  Turn second = choose(registry);
  REQUIRE(&second.endpoint() == endpoint_of(registry, spec, 1));

  registry.update(spec_of("app", 0, {server(one, 0)}));
  registry.sweep();
  CHECK(living(registry) == 2);  // nothing is leased there, but the turn leads there
  CHECK(second.endpoint().address_text() == two.address().to_string());
  second.end();
  registry.update(spec_of("app", 0, {server(one, 0)}));
  registry.sweep();
  CHECK(living(registry) == 1);
  CHECK(registry.pool(0)->balancer().servers()[0].active == 1);
}

TEST_CASE("no servers at all for a while") {
  Engine engine;
  const Origin one;
  Registry registry(*engine, 1, 7);
  const auto spec = spec_of("app", 0, {server(one, 0)});
  switch_to(registry, *snapshot({spec}));
  registry.update(spec_of("app", 0, {}));
  registry.sweep();
  CHECK(living(registry) == 0);
  CHECK(choose(registry).missing() == NoServer::kDown);
  registry.update(spec);
  CHECK(choose(registry));
}

TEST_CASE("what is said of an upstream that the newest snapshot does not name is ignored") {
  Engine engine;
  const Origin one;
  const Origin two;
  Registry registry(*engine, 1, 7);
  const auto old = spec_of("old", 0, {server(one, 0)});
  const auto first = snapshot({old});
  const auto second = snapshot({spec_of("new", 1, {server(two, 1)})});
  switch_to(registry, *first);
  registry.adopt(*second);  // requests are still pinned to the first
  registry.update(spec_of("old", 0, {server(one, 0), server(two, 2)}));
  CHECK(servers_of(registry, old) == 1);
  CHECK(living(registry) == 2);
  registry.sweep();
  CHECK(registry.pool(0) == nullptr);
  registry.update(old);
  registry.update(spec_of("far", 77, {server(one, 9)}));
  registry.set_server(0, server_identity(one.address().to_string()), ServerState::kDown, 1);
  registry.set_server(77, 1, ServerState::kDown, 1);
  CHECK(registry.pool(0) == nullptr);
  CHECK(registry.pool(77) == nullptr);
  CHECK(living(registry) == 1);
  CHECK_FALSE(registry.sweep_due());
}

TEST_CASE("a server's state and weight between two snapshots, and the snapshot after") {
  Engine engine;
  const Origin a;
  const Origin b;
  Registry registry(*engine, 1, 7);
  auto spec = spec_of("app", 0, {server(a, 0), server(b, 1)});
  switch_to(registry, *snapshot({spec}));
  Endpoint* const at_a = endpoint_of(registry, spec, 0);
  Endpoint* const at_b = endpoint_of(registry, spec, 1);
  const uint64_t name_a = server_identity(a.address().to_string());
  const auto only = [&](const Endpoint* endpoint) {
    for (int i = 0; i < 4; ++i) CHECK(&choose(registry).endpoint() == endpoint);
  };
  registry.set_server(0, name_a, ServerState::kDown, 1);
  only(at_b);
  registry.set_server(0, name_a, ServerState::kUp, 0);
  only(at_b);
  registry.set_server(0, name_a, ServerState::kUp, 1'000'000);
  for (int i = 0; i < 1000; ++i) CHECK(&choose(registry).endpoint() == at_a);
  registry.set_server(0, name_a, ServerState::kDraining, 1);
  only(at_b);
  registry.set_server(0, 4711, ServerState::kDown, 1);  // nobody
  only(at_b);
  // A snapshot brings what control knew when it was built.
  spec.servers[0].state = ServerState::kUp;
  spec.servers[1].state = ServerState::kDown;
  switch_to(registry, *snapshot({spec}));
  only(at_a);
  spec.servers[1].state = ServerState::kUp;
  spec.servers[1].weight = 0;
  registry.update(spec);
  only(at_a);
}

TEST_CASE("the numbers are those of the upstreams that the newest snapshot names") {
  Engine engine;
  const Origin a;
  const Origin b;
  Registry registry(*engine, 1, 7);
  const auto first = snapshot(
      {spec_of("one", 0, {server(a, 0), server(b, 1)}), spec_of("two", 3, {server(b, 2)})});
  switch_to(registry, *first);
  Turn held = registry.pool(3)->choose({});
  UpstreamScrape both;
  registry.sample(both);
  REQUIRE(both.upstreams.size() == 2);
  CHECK(both.upstreams[0].upstream == 0);
  CHECK(both.upstreams[0].active == 0);
  CHECK(both.upstreams[1].upstream == 3);
  CHECK(both.upstreams[1].active == 1);
  REQUIRE(both.servers.size() == 3);
  CHECK(both.servers[2].upstream == 3);
  CHECK(both.servers[2].identity == server_identity(b.address().to_string()));
  CHECK(both.servers[2].active == 1);
  CHECK(both.servers[2].counts.requests == 1);

  switch_to(registry, *snapshot({spec_of("one", 0, {server(a, 0)})}));
  REQUIRE(registry.pool(3) != nullptr);
  UpstreamScrape less;
  registry.sample(less);
  CHECK(less.upstreams.size() == 1);
  CHECK(less.servers.size() == 1);
}
