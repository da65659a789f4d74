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

}  // namespace

TEST_CASE("endpoints and pooled connections survive a snapshot that still names them") {
  Engine engine;
  const Origin origin;
  Registry registry(*engine, 1);
  const auto first = snapshot({spec_of("app", 0, {server(origin, 0)})});
  switch_to(registry, *first);
  Endpoint* const endpoint = registry.candidates(first->upstream(0))[0].endpoint;
  REQUIRE(endpoint != nullptr);
  CHECK(endpoint->upstream_name() == "app");
  endpoint->release(lease(engine, *endpoint));
  CHECK(registry.idle_connections() == 1);

  // The same upstream at another index, with another one before it.
  const auto second =
      snapshot({spec_of("new", 1, {server(origin, 1)}), spec_of("app", 0, {server(origin, 0)})});
  switch_to(registry, *second);
  CHECK(registry.candidates(second->upstream(1))[0].endpoint == endpoint);
  CHECK(registry.candidates(second->upstream(0))[0].endpoint != endpoint);
  CHECK(registry.idle_connections() == 1);
  // A request that is pinned to the older snapshot finds its upstream by id.
  CHECK(registry.candidates(first->upstream(0))[0].endpoint == endpoint);
  CHECK(living(registry) == 2);
  registry.close_idle();
  CHECK(registry.idle_connections() == 0);
}

TEST_CASE("an endpoint that is not named any more goes, with its idle connections") {
  Engine engine;
  const Origin one;
  const Origin two;
  Registry registry(*engine, 1);
  const auto both = snapshot({spec_of("app", 0, {server(one, 0), server(two, 1)})});
  switch_to(registry, *both);
  Endpoint* const second = registry.candidates(both->upstream(0))[1].endpoint;
  second->release(lease(engine, *second));
  const auto less = snapshot({spec_of("app", 0, {server(one, 0)})});
  switch_to(registry, *less);
  CHECK(living(registry) == 1);
  CHECK(registry.candidates(less->upstream(0)).size() == 1);
  CHECK(registry.idle_connections() == 0);
}

TEST_CASE("until the sweep a request on the older snapshot finds what the newer does not name") {
  Engine engine;
  const Origin one;
  const Origin two;
  Registry registry(*engine, 1);
  const auto first = snapshot({spec_of("old", 0, {server(one, 0)})});
  const auto second = snapshot({spec_of("new", 1, {server(two, 1)})});
  switch_to(registry, *first);
  registry.adopt(*second);
  REQUIRE(registry.candidates(first->upstream(0)).size() == 1);
  Endpoint* const endpoint = registry.candidates(first->upstream(0))[0].endpoint;
  endpoint->release(lease(engine, *endpoint));
  CHECK(living(registry) == 2);
  registry.sweep();
  CHECK(living(registry) == 1);
  CHECK(registry.candidates(first->upstream(0)).empty());
  CHECK(registry.idle_connections() == 0);
}

TEST_CASE("an endpoint in use outlives the snapshot that dropped it") {
  Engine engine;
  const Origin one;
  const Origin two;
  Registry registry(*engine, 1);
  const auto first = snapshot({spec_of("old", 0, {server(one, 0)})});
  const auto second = snapshot({spec_of("new", 1, {server(two, 1)})});
  switch_to(registry, *first);
  Endpoint* const endpoint = registry.candidates(first->upstream(0))[0].endpoint;
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
  Registry registry(*engine, 1);
  const auto with =
      snapshot({spec_of("a", 0, {server(origin, 0)}), spec_of("b", 1, {server(origin, 1)})});
  const auto without = snapshot({spec_of("a", 0, {server(origin, 0)})});
  for (int i = 0; i < 3; ++i) {
    switch_to(registry, *with);
    REQUIRE(registry.candidates(with->upstream(1)).size() == 1);
    Endpoint* const endpoint = registry.candidates(with->upstream(1))[0].endpoint;
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
  Registry registry(*engine, 1);
  const auto first = snapshot({spec_of("app", 0, {server(a, 0), server(b, 1)})});
  switch_to(registry, *first);
  CHECK(choose_round_robin(registry.candidates(first->upstream(0)), 0) == 0);
  const auto again = snapshot({spec_of("app", 0, {server(a, 0), server(b, 1)})});
  switch_to(registry, *again);
  CHECK(choose_round_robin(registry.candidates(again->upstream(0)), 0) == 1);
  const auto swapped = snapshot({spec_of("app", 0, {server(b, 1, 3), server(a, 0, 0)})});
  switch_to(registry, *swapped);
  const auto candidates = registry.candidates(swapped->upstream(0));
  CHECK(candidates[0].weight == 3);
  for (int i = 0; i < 3; ++i) CHECK(choose_round_robin(candidates, 0) == 0);
}

TEST_CASE("a server that is not resolved is a candidate without an endpoint") {
  Engine engine;
  const Origin origin;
  Registry registry(*engine, 1);
  route::ServerSpec unknown;
  unknown.address_text = "nowhere.test:80";
  unknown.endpoint_id = 1;
  const auto built = snapshot({spec_of("app", 0, {unknown, server(origin, 0)})});
  switch_to(registry, *built);
  const auto candidates = registry.candidates(built->upstream(0));
  REQUIRE(candidates.size() == 2);
  CHECK(candidates[0].endpoint == nullptr);
  for (int i = 0; i < 3; ++i) CHECK(choose_round_robin(candidates, 0) == 1);
}

TEST_CASE("limits of the process are divided by the cores, at least one each") {
  Engine engine;
  const Origin origin;
  Registry registry(*engine, 4);
  auto spec = spec_of("app", 0, {server(origin, 0)});
  spec.max_idle_per_host = 6;  // two for each of four cores
  const auto built = snapshot({spec});
  switch_to(registry, *built);
  Endpoint& endpoint = *registry.candidates(built->upstream(0))[0].endpoint;
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
