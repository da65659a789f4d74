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
  Balancer* const balancer = registry.balancer(spec.id);
  REQUIRE(balancer != nullptr);
  REQUIRE(place < balancer->servers().size());
  return balancer->servers()[place].facts.endpoint;
}

size_t servers_of(Registry& registry, const route::UpstreamSpec& spec) {
  return registry.balancer(spec.id)->servers().size();
}

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
  CHECK(registry.balancer(first->upstream(0).id) == nullptr);
  CHECK(registry.choose(first->upstream(0).id, {}).missing() == NoServer::kDown);
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
  CHECK(&registry.choose(0, {}).endpoint() == at_a);
  const auto again = snapshot({spec_of("app", 0, {server(a, 0), server(b, 1)})});
  switch_to(registry, *again);
  CHECK(&registry.choose(0, {}).endpoint() == at_b);
  const auto swapped = snapshot({spec_of("app", 0, {server(b, 1, 3), server(a, 0, 0)})});
  switch_to(registry, *swapped);
  for (int i = 0; i < 3; ++i) CHECK(&registry.choose(0, {}).endpoint() == at_b);
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
  for (int i = 0; i < 3; ++i) CHECK(&registry.choose(0, {}).endpoint() == only);
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
    for (const auto& one : registry.balancer(0)->servers()) counts.push_back(one.active);
    return counts;
  };
  Turn first = registry.choose(0, {});
  Turn second = registry.choose(0, {});
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
    const Turn third = registry.choose(0, {});
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
  const auto active = [&](size_t place) { return registry.balancer(0)->servers()[place].active; };
  switch_to(registry, *both);
  Turn one = registry.choose(0, {});
  Turn two = registry.choose(0, {});
  Turn three = registry.choose(0, {});  // at the first again
  switch_to(registry, *less);
  CHECK(active(0) == 1);
  three.end();
  switch_to(registry, *both);
  CHECK(active(0) == 1);
  switch_to(registry, *other);
  REQUIRE(registry.balancer(0) != nullptr);  // it waits for its turns
  CHECK(registry.balancer(0)->servers().empty());
  CHECK_FALSE(registry.choose(0, {}));
  two.end();
  switch_to(registry, *both);
  CHECK(active(0) == 1);
  CHECK(active(1) == 0);
  switch_to(registry, *other);
  one.end();
  switch_to(registry, *other);
  CHECK(registry.balancer(0) == nullptr);
}

TEST_CASE("a reload changes the algorithm and keeps what is counted") {
  Engine engine;
  const Origin a;
  const Origin b;
  Registry registry(*engine, 1, 7);
  auto spec = spec_of("app", 0, {server(a, 0), server(b, 1)});
  switch_to(registry, *snapshot({spec}));
  const Turn held = registry.choose(0, {});
  spec.balance.algorithm = route::Balance::kLeastConnections;
  switch_to(registry, *snapshot({spec}));
  for (int i = 0; i < 4; ++i) CHECK(&registry.choose(0, {}).endpoint() != &held.endpoint());
  spec.balance.algorithm = route::Balance::kConsistentHash;
  switch_to(registry, *snapshot({spec}));
  Endpoint* const of_key = &registry.choose(0, {.key = 99}).endpoint();
  for (int i = 0; i < 4; ++i) CHECK(&registry.choose(0, {.key = 99}).endpoint() == of_key);
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
    turn = registry.choose(0, {});
    REQUIRE(turn);
  }
  CHECK(registry.choose(0, {}).missing() == NoServer::kFull);
  turns.pop_back();
  CHECK(registry.choose(0, {}));
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
