// A pool with servers that nobody ever connects to, what it is configured with, and what it told.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/upstream/pool.h>

#include "../runtime/engine.h"

namespace weir::upstream::rig {

using runtime::Task;
using runtime::test::Engine;

// By names that tell them apart: "a", "b", ...
struct PoolRig {
  struct Told {
    std::string upstream;
    std::string address;
    std::string cause;
    bool ejected;
    uint64_t for_ms;
  };

  using Change = std::function<void(route::UpstreamSpec&)>;

  // Passive checks are off unless `change`, which sees the spec before the pool does, says so.
  PoolRig(size_t servers, uint32_t cores, const Change& change)
      : pool(*engine, cores, 7, &PoolRig::on_event, this) {
    spec.name = "app";
    spec.outliers.enabled = false;
    for (size_t i = 0; i < servers; ++i) add(std::string(1, static_cast<char>('a' + i)));
    change(spec);
    set();
  }
  PoolRig(size_t servers, const Change& change) : PoolRig(servers, 1, change) {}
  explicit PoolRig(size_t servers) : PoolRig(servers, [](route::UpstreamSpec&) {}) {}

  void add(const std::string& name) {
    const auto address = *base::SocketAddress::parse("127.0.0.1:1");
    endpoints.push_back(std::make_unique<Endpoint>(*engine, "app", name, address));
    spec.servers.push_back({.address_text = name, .address = address, .resolved = true});
  }
  void set() {
    std::vector<Endpoint*> places;
    for (const route::ServerSpec& server : spec.servers) places.push_back(endpoint(server));
    pool.set(spec, places);
  }
  [[nodiscard]] Endpoint* endpoint(const route::ServerSpec& server) const {
    for (const auto& one : endpoints) {
      if (one->address_text() == server.address_text) return one.get();
    }
    return nullptr;
  }
  static uint64_t name(char server) { return server_identity(std::string(1, server)); }
  [[nodiscard]] const BalancedServer& at(char server) {
    const int place = pool.balancer().find(name(server));
    REQUIRE(place >= 0);
    return pool.balancer().at(place);
  }
  [[nodiscard]] ServerState state(char server) { return at(server).facts.state; }
  bool say(char server, ServerState state, uint32_t weight = 1) {
    return pool.set_server(name(server), state, weight);
  }

  [[nodiscard]] Pick pick() { return {.now_ns = engine->now_ns()}; }
  Turn choose() { return pool.choose(pick()); }
  // A request that has been everywhere else.
  Turn at_server(char server) {
    std::vector<uint64_t> others;
    for (const BalancedServer& one : pool.balancer().servers()) {
      if (one.facts.identity != name(server)) others.push_back(one.facts.identity);
    }
    Pick wanted = pick();
    wanted.tried = others;
    return pool.choose(wanted);
  }
  // A whole one; it has to be let through.
  void ask(char server, CircuitOutcome outcome) {
    Turn turn = at_server(server);
    REQUIRE(turn);
    turn.note_latency(engine->now_ns());
    turn.judge(outcome);
  }
  void fail(char server, int times) {
    for (int i = 0; i < times; ++i) ask(server, CircuitOutcome::kBad);
  }
  [[nodiscard]] bool becomes(char server, ServerState wanted, uint64_t limit_ms = 5'000) {
    return engine.run_until([&] { return state(server) == wanted; }, limit_ms);
  }
  [[nodiscard]] UpstreamScrape sample() const {
    UpstreamScrape out;
    pool.sample(3, out);
    return out;
  }

  Engine engine;
  std::vector<std::unique_ptr<Endpoint>> endpoints;
  route::UpstreamSpec spec;
  std::vector<Told> told;
  Pool pool;

 private:
  static void on_event(void* context, const PoolEvent& event) {
    static_cast<PoolRig*>(context)->told.push_back(
        {std::string(event.upstream), std::string(event.address), std::string(event.cause),
         event.ejected, event.for_ms});
  }
};

}  // namespace weir::upstream::rig
