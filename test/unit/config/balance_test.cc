// How servers are chosen, as the file says it and as it is lowered.
#include <chrono>
#include <string>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/config/lower.h>

#include "config_cases.h"

using namespace weir::control::config;
using namespace weir::control::config::test;
using weir::route::Balance;
using weir::route::HashKeySpec;
using weir::route::UpstreamSpec;
using Source = HashKeySpec::Source;

namespace {

// The upstream `a` of the file, lowered; `text` goes into its table.
UpstreamSpec lowered(const std::string& text, const std::string& before = {},
                     const std::string& servers = "\"10.0.0.1:80\"") {
  const LoadResult result = load_text(completed(before + "\n[upstream.a]\nservers = [" + servers +
                                                "]\n" + text + "\n[[route]]\nproxy = \"a\"\n"));
  INFO(text);
  REQUIRE(lines_of(result.errors).empty());
  REQUIRE(result.config.upstreams.size() == 1);
  return lower_routes(result.config).upstreams.front();
}

Balance algorithm(const std::string& text, const std::string& before = {}) {
  return lowered(text, before).balance.algorithm;
}

std::string one_error(const std::string& text) {
  const auto errors = errors_of(text);
  return errors.size() == 1 ? errors[0] : std::to_string(errors.size()) + " errors";
}

}  // namespace

TEST_CASE("every algorithm by its name, and by its other ones") {
  CHECK(algorithm("") == Balance::kRoundRobin);
  CHECK(algorithm("balance = \"round_robin\"") == Balance::kRoundRobin);
  CHECK(algorithm("balance = \"least_connections\"") == Balance::kLeastConnections);
  CHECK(algorithm("balance = \"least_conn\"") == Balance::kLeastConnections);
  CHECK(algorithm("algorithm = \"two_choices\"") == Balance::kTwoChoices);
  CHECK(algorithm("balance = \"ip_hash\"") == Balance::kIpHash);
  CHECK(algorithm("balance = \"consistent_hash\"") == Balance::kConsistentHash);
  CHECK(algorithm("balance = \"random\"") == Balance::kRandom);
}

TEST_CASE("the nearest place that says it decides: upstream, defaults, load_balancer") {
  const std::string global = "[load_balancer]\ntype = \"least_conn\"\n";
  const std::string defaults = "[upstream_defaults]\nbalance = \"random\"\n";
  CHECK(algorithm("", global) == Balance::kLeastConnections);
  CHECK(algorithm("", defaults) == Balance::kRandom);
  CHECK(algorithm("", global + defaults) == Balance::kRandom);
  CHECK(algorithm("", defaults + global) == Balance::kRandom);
  CHECK(algorithm("balance = \"ip_hash\"", global + defaults) == Balance::kIpHash);
  CHECK(algorithm("balance = \"round_robin\"", global) == Balance::kRoundRobin);
  // A URL of a route has only the defaults.
  const LoadResult result =
      load_text(completed(global + "[[route]]\nproxy = \"http://127.0.0.1:3000\"\n"));
  REQUIRE(result.ok());
  CHECK(lower_routes(result.config).upstreams.at(0).balance.algorithm ==
        Balance::kLeastConnections);
}

TEST_CASE("hash keys, the bound and slow start") {
  const auto key = [](const std::string& text) {
    return lowered("balance = \"consistent_hash\"\nhash_key = \"" + text + "\"").balance.hash_key;
  };
  CHECK(lowered("balance = \"consistent_hash\"").balance.hash_key == HashKeySpec{});
  CHECK(key("client_ip") == HashKeySpec{.source = Source::kClientIp});
  CHECK(key("uri") == HashKeySpec{.source = Source::kUri});
  CHECK(key("path") == HashKeySpec{.source = Source::kPath});
  CHECK(key("header:X-User") == HashKeySpec{.source = Source::kHeader, .name = "X-User"});
  CHECK(key("cookie:sid") == HashKeySpec{.source = Source::kCookie, .name = "sid"});
  const auto all = lowered("hash_load_bound = 150\nslow_start = \"30s\"",
                           "[upstream_defaults]\nbalance = \"consistent_hash\"\nhash_key = "
                           "\"uri\"\n");
  CHECK(all.balance.load_bound_percent == 150);
  CHECK(all.balance.slow_start_ms == 30'000);
  CHECK(all.balance.hash_key.source == Source::kUri);
  CHECK(lowered("").balance.load_bound_percent == 0);
  CHECK(lowered("").balance.slow_start_ms == 0);
  // Defaults may hold for those that hash and do not hinder the others.
  CHECK(algorithm("", "[upstream_defaults]\nhash_key = \"uri\"\nhash_load_bound = 200\n") ==
        Balance::kRoundRobin);
}

TEST_CASE("weight, priority, backup and max_connections of a server") {
  const auto spec = lowered("", "",
                            "\"10.0.0.1:80\", {priority = 3, max_connections = 50, backup = true, "
                            "weight = 7, address = \"10.0.0.2:80\"}, {address = \"10.0.0.3:80\"}");
  REQUIRE(spec.servers.size() == 3);
  for (const size_t plain : {0, 2}) {
    CHECK(spec.servers[plain].weight == 1);
    CHECK(spec.servers[plain].priority == 0);
    CHECK(spec.servers[plain].max_connections == 0);
    CHECK_FALSE(spec.servers[plain].backup);
  }
  CHECK(spec.servers[1].address_text == "10.0.0.2:80");
  CHECK(spec.servers[1].weight == 7);
  CHECK(spec.servers[1].priority == 3);
  CHECK(spec.servers[1].max_connections == 50);
  CHECK(spec.servers[1].backup);
}

TEST_CASE("what is wrong with balancing is said") {
  const std::string head = "[upstream.a]\nservers = \"b:1\"\n";
  CHECK(
      one_error(head + "balance = \"lest_conn\"") ==
      "weir.toml:3:11: upstream.a.balance: must be one of \"round_robin\", \"least_connections\", "
      "\"two_choices\", \"ip_hash\", \"consistent_hash\", \"random\", not \"lest_conn\"");
  const std::string foreign = "is for balance = \"consistent_hash\"";
  CHECK(one_error(head + "hash_key = \"uri\"") == "weir.toml:3:1: upstream.a.hash_key: " + foreign);
  CHECK(one_error(head + "balance = \"ip_hash\"\nhash_load_bound = 150") ==
        "weir.toml:4:1: upstream.a.hash_load_bound: " + foreign);
  const std::string hashing = head + "balance = \"consistent_hash\"\n";
  for (const char* bad : {"", "ip", "header:", "cookie:", "header:a b", "cookie:a=b", "header",
                          "uri:x", "Header:X", "query:a"}) {
    INFO(bad);
    CHECK(one_error(hashing + "hash_key = \"" + bad + "\"") ==
          "weir.toml:4:12: upstream.a.hash_key: must be \"client_ip\", \"uri\", \"path\", "
          "\"header:NAME\" or \"cookie:NAME\"");
  }
  const auto server = [](const std::string& setting) {
    return errors_of("[upstream.a]\nservers = [{address = \"b:1\", " + setting + "}]").size();
  };
  CHECK(server("priority = 255") == 0);
  CHECK(server("max_connections = 1000000") == 0);
  for (const char* bad : {"priority = 256", "priority = -1", "max_connections = 1000001",
                          "max_connections = -1", "backup = 1", "backup = \"yes\"", "weight = 0"}) {
    INFO(bad);
    CHECK(server(bad) == 1);
  }
  CHECK(
      one_error("[load_balancer]\ntype = \"\"").starts_with("weir.toml:2:8: load_balancer.type: "));
  CHECK(one_error("[load_balancer]\nbalance = \"random\"")
            .starts_with("weir.toml:2:1: load_balancer.balance: unknown key"));
}
