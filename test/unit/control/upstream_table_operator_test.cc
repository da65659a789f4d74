// The table of upstreams: states and weights that operators set, with and against everything else.
#include <weir/upstream/balance_server.h>

#include "upstream_table_rig.h"

namespace weir::control {
namespace {

using namespace test;
using Kind = server::Command::Kind;
using route::ServerState;

const std::string kTwo = "[upstream.a]\nservers = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n" + kRoute;

std::vector<ServerState> states(const route::UpstreamSpec& spec) {
  std::vector<ServerState> out;
  for (const auto& server : spec.servers) out.push_back(server.state);
  return out;
}

std::vector<uint32_t> weights(const route::UpstreamSpec& spec) {
  std::vector<uint32_t> out;
  for (const auto& server : spec.servers) out.push_back(server.weight);
  return out;
}

}  // namespace

TEST_CASE("a state that was set is told, and outlives reloads") {
  TableRig rig;
  rig.load(kTwo);
  REQUIRE(rig.table->set_state("a", "10.0.0.2:80", ServerState::kDraining));
  REQUIRE(rig.sent.size() == 1);
  CHECK(rig.sent[0].command.kind == Kind::kServer);
  CHECK(rig.sent[0].command.value == TableRig::identity("10.0.0.2:80"));
  CHECK(rig.sent[0].command.state == ServerState::kDraining);
  CHECK(rig.sent[0].command.weight == 1);
  CHECK(rig.view("10.0.0.2:80").set == ServerState::kDraining);
  CHECK(rig.view("10.0.0.2:80").state == ServerState::kDraining);
  REQUIRE(rig.table->set_state("a", "10.0.0.2:80", ServerState::kDraining));
  CHECK(rig.sent.size() == 1);
  const auto again = rig.load(
      "[upstream.b]\nservers = [\"10.0.0.2:80\"]\n[upstream.a]\nservers = [\"10.0.0.2:80\", "
      "\"10.0.0.3:80\", \"10.0.0.1:80\"]\n" +
      kRoute);
  CHECK(states(again[0]) == std::vector{ServerState::kUp});
  CHECK(states(again[1]) ==
        std::vector{ServerState::kDraining, ServerState::kUp, ServerState::kUp});
  CHECK(rig.sent.size() == 1);
  REQUIRE(rig.table->set_state("a", "10.0.0.2:80", ServerState::kUp));
  REQUIRE(rig.sent.size() == 2);
  CHECK(rig.sent[1].command.state == ServerState::kUp);
  CHECK(rig.sent[1].command.epoch == 2);
}

TEST_CASE("what the configuration has no more is forgotten") {
  TableRig rig;
  rig.load(kTwo);
  REQUIRE(rig.table->set_state("a", "10.0.0.2:80", ServerState::kDown));
  rig.load("[upstream.a]\nservers = [\"10.0.0.1:80\"]\n" + kRoute);
  CHECK(states(rig.load(kTwo)[0]) == std::vector{ServerState::kUp, ServerState::kUp});
}

TEST_CASE("what cannot be set is an error, and changes nothing") {
  TableRig rig;
  rig.load(kTwo);
  const auto state = [&](const char* upstream, const char* server, ServerState to) {
    return rig.table->set_state(upstream, server, to).error();
  };
  CHECK(state("x", "10.0.0.1:80", ServerState::kDown) == "there is no upstream \"x\"");
  CHECK(state("a", "10.0.0.1:81", ServerState::kDown) ==
        "the upstream \"a\" has no server \"10.0.0.1:81\"");
  CHECK(state("a", "10.0.0.1:80", ServerState::kEjected).contains("not by hand"));
  CHECK(rig.table->set_weight("x", "10.0.0.1:80", 1).error() == "there is no upstream \"x\"");
  const uint32_t most = upstream::BalancedServer::kWeightMax;
  CHECK(rig.table->set_weight("a", "10.0.0.1:80", most + 1).error().contains("from 0 to 1000000"));
  REQUIRE(rig.table->set_weight("a", "10.0.0.1:80", 0));
  CHECK(rig.table->set_weight("a", "10.0.0.2:80", 0).error().contains("all servers"));
  CHECK(rig.view("10.0.0.2:80").weight == 1);
  CHECK(rig.sent.size() == 1);
}

TEST_CASE("a weight is in force until the configuration has another one") {
  TableRig rig;
  rig.load(kTwo);
  REQUIRE(rig.table->set_weight("a", "10.0.0.1:80", 5));
  REQUIRE(rig.sent.size() == 1);
  CHECK(rig.sent[0].command.weight == 5);
  CHECK(rig.sent[0].command.state == ServerState::kUp);
  CHECK(rig.view("10.0.0.1:80").weight == 5);
  CHECK(rig.view("10.0.0.1:80").weight_configured == 1);
  CHECK(weights(rig.load(kTwo)[0]) == std::vector<uint32_t>{5, 1});
  const auto other = rig.load(
      "[upstream.a]\nservers = [{address = \"10.0.0.1:80\", weight = 3}, \"10.0.0.2:80\"]\n" +
      kRoute);
  CHECK(weights(other[0]) == std::vector<uint32_t>{3, 1});
  CHECK(rig.sent.size() == 1);
  // It is over for good, and not only until the first one is there again.
  CHECK(weights(rig.load(kTwo)[0]) == std::vector<uint32_t>{1, 1});
  CHECK(rig.sent.size() == 1);
}

TEST_CASE("weights that would leave an upstream without any are not kept over a load") {
  TableRig rig;
  rig.load(kTwo);
  REQUIRE(rig.table->set_weight("a", "10.0.0.1:80", 0));
  const auto filled = rig.load("[upstream.a]\nservers = [\"10.0.0.1:80\"]\n" + kRoute);
  CHECK(weights(filled[0]) == std::vector<uint32_t>{1});
}

TEST_CASE("a name stands for all its addresses, those to come as well; the later setting counts") {
  TableRig rig;
  const std::string text = "[upstream.a]\nservers = [\"app.test:80\", \"10.0.0.9:80\"]\n" + kRoute;
  rig.dns.set("app.test", {a("10.0.0.1"), a("10.0.0.2")});
  rig.load_known(text);
  REQUIRE(rig.table->set_state("a", "app.test:80", ServerState::kDown));
  REQUIRE(rig.table->set_weight("a", "app.test:80", 4));
  CHECK(rig.sent.size() == 4);
  rig.sent.clear();
  rig.dns.set("app.test", {a("10.0.0.2"), a("10.0.0.3")});
  REQUIRE(rig.until([&] { return !rig.sent.empty(); }));
  CHECK(states(*rig.sent[0].upstream) ==
        std::vector{ServerState::kDown, ServerState::kDown, ServerState::kUp});
  CHECK(weights(*rig.sent[0].upstream) == std::vector<uint32_t>{4, 4, 1});
  REQUIRE(rig.table->set_state("a", "10.0.0.3:80", ServerState::kUp));
  CHECK(rig.view("10.0.0.2:80").state == ServerState::kDown);
  CHECK(rig.view("10.0.0.3:80").state == ServerState::kUp);
  CHECK(states(rig.load(text)[0]) ==
        std::vector{ServerState::kDown, ServerState::kUp, ServerState::kUp});
  REQUIRE(rig.table->set_state("a", "app.test:80", ServerState::kDraining));
  CHECK(rig.view("10.0.0.3:80").state == ServerState::kDraining);
  REQUIRE(rig.table->set_state("a", "app.test:80", ServerState::kUp));
  CHECK(rig.view("10.0.0.2:80").state == ServerState::kUp);
  CHECK(rig.view("10.0.0.3:80").state == ServerState::kUp);
}

TEST_CASE("a name without an address can be set, too") {
  TableRig rig;
  rig.load_known("[upstream.a]\nservers = [\"no.test:80\"]\n" + kRoute);
  REQUIRE(rig.table->set_state("a", "no.test:80", ServerState::kDown));
  rig.sent.clear();
  rig.dns.set("no.test", {a("10.0.0.1")});
  REQUIRE(rig.until([&] { return !rig.sent.empty(); }));
  CHECK(states(*rig.sent[0].upstream) == std::vector{ServerState::kDown});
}

TEST_CASE("an operator's word counts before that of the checks, but up is what the checks say") {
  TableRig rig;
  CheckedServer& server = rig.serve(says(answer("503 Busy")));
  const std::string address = server.address.to_string();
  rig.load("[upstream.a]\nservers = [\"" + address +
           "\"]\n[upstream.a.health_check]\ninterval = \"10ms\"\njitter = 0\n"
           "unhealthy_threshold = 1\nhealthy_threshold = 1\n" +
           kRoute);
  REQUIRE(rig.until([&] { return !rig.sent.empty(); }));
  CHECK(rig.view(address).state == ServerState::kDown);
  REQUIRE(rig.table->set_state("a", address, ServerState::kDraining));
  CHECK(rig.view(address).state == ServerState::kDraining);
  REQUIRE(rig.table->set_state("a", address, ServerState::kUp));
  CHECK(rig.view(address).state == ServerState::kDown);
  CHECK(rig.view(address).set == ServerState::kUp);
  REQUIRE(rig.table->set_state("a", address, ServerState::kDown));
  const size_t before = rig.sent.size();
  server.behaviour = says(answer("200 OK"));
  REQUIRE(rig.until([&] { return rig.view(address).health.healthy; }));
  // What it says now makes no difference.
  CHECK(rig.view(address).state == ServerState::kDown);
  CHECK(rig.sent.size() == before);
  REQUIRE(rig.table->set_state("a", address, ServerState::kUp));
  CHECK(rig.view(address).state == ServerState::kUp);
  CHECK(rig.sent.back().command.state == ServerState::kUp);
}

}  // namespace weir::control
