// Upgrade and CONNECT: what is let through, and what never is.
#include <string>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/config/lower.h>
#include <weir/route/match.h>
#include <weir/route/snapshot.h>

#include "config_cases.h"

using namespace weir;
using namespace weir::control::config;
using namespace weir::control::config::test;

namespace {

using Words = std::vector<std::string>;

Config loaded(const std::string& text) {
  const LoadResult result = load_text(completed(text));
  INFO(text);
  REQUIRE(lines_of(result.errors).empty());
  CHECK(lines_of(result.warnings).empty());
  return result.config;
}

Words upgrades_of(const std::string& line) {
  return loaded("[[route]]\nproxy = \"http://127.0.0.1:1\"\n" + line).routes[0].spec.upgrades;
}

std::string error_of(const std::string& lines) {
  const auto errors = errors_of("[[route]]\n" + lines);
  REQUIRE(errors.size() == 1);
  return errors[0];
}

std::string upgrade_error(const std::string& value) {
  return error_of("proxy = \"http://127.0.0.1:1\"\nupgrade = " + value);
}

}  // namespace

TEST_CASE("protocols of Upgrade") {
  CHECK(upgrades_of("") == Words{"websocket"});
  CHECK(upgrades_of("upgrade = \"WebSocket\"") == Words{"websocket"});
  CHECK(upgrades_of("upgrade = [\"websocket\", \"SPDY/3.1\"]") == Words{"websocket", "spdy/3.1"});
  CHECK(upgrades_of("upgrade = false").empty());
  CHECK(upgrades_of("upgrade = []").empty());
  Config config = loaded("[[route]]\nproxy = \"http://127.0.0.1:1\"\nupgrade = \"a\"\n");
  LoweredRoutes lowered = lower_routes(config);
  CHECK(lowered.routes[0].upgrades == Words{"a"});
}

TEST_CASE("protocols that are refused") {
  const std::string at = "weir.toml:3:11: route[0].upgrade: ";
  CHECK(upgrade_error("\"H2C\"") == at + "\"h2c\" is never passed on: requests inside of it would "
                                         "pass by the routes");
  CHECK(upgrade_error("\"HTTP/2.0\"") == at + "\"http/2.0\" is never passed on: requests inside of "
                                              "it would pass by the routes");
  CHECK(upgrade_error("\"*\"") == at + "names protocols one by one; \"*\" does not stand for all");
  CHECK(upgrade_error("\"\"") == at + "\"\" is not a protocol such as \"websocket\"");
  CHECK(upgrade_error("\"a, b\"") == at + "\"a, b\" is not a protocol such as \"websocket\"");
  CHECK(upgrade_error("\"a/\"") == at + "\"a/\" is not a protocol such as \"websocket\"");
  CHECK(upgrade_error("true") ==
        at + "must be a protocol, a list of protocols or false, not a boolean");
  CHECK(upgrade_error("[\"a\", \"A\"]") ==
        "weir.toml:3:17: route[0].upgrade[1]: names \"a\" twice");
  CHECK(error_of("respond = {}\nupgrade = false") ==
        "weir.toml:3:1: route[0].upgrade: goes with proxy only, not with respond");
  CHECK(error_of("upgrade = false\nfile = \"/srv\"") ==
        "weir.toml:2:1: route[0].upgrade: goes with proxy only, not with file");
}

TEST_CASE("CONNECT: targets become upstreams of their own") {
  const Config config = loaded(R"(
[upstream_defaults]
connect_timeout = 3
[[route]]
connect = ["DB.internal:5432", "10.0.0.1:443", "[2001:DB8::0:1]:22"]
[[route]]
host = "other.internal"
methods = "CONNECT"
path = "/"
connect = "db.internal:5432"
[[route]]
proxy = "http://db.internal:5432"
)");
  const LoweredRoutes lowered = lower_routes(config);
  const route::RouteSpec& spec = lowered.routes[0];
  CHECK(spec.methods == Words{"CONNECT"});
  CHECK(spec.path == "/");
  CHECK_FALSE(spec.exact);
  const auto* connect = std::get_if<route::ConnectAction>(&spec.action);
  REQUIRE(connect != nullptr);
  REQUIRE(connect->targets.size() == 3);
  CHECK(connect->targets[0].authority == "db.internal:5432");
  CHECK(connect->targets[1].authority == "10.0.0.1:443");
  CHECK(connect->targets[2].authority == "[2001:db8::1]:22");
  const auto* other = std::get_if<route::ConnectAction>(&lowered.routes[1].action);
  REQUIRE(other != nullptr);
  CHECK(lowered.routes[1].methods == Words{"CONNECT"});
  CHECK(other->targets.at(0).upstream == connect->targets[0].upstream);
  // Not the one of requests: its idle connections are not tunnels.
  REQUIRE(lowered.upstreams.size() == 4);
  const route::UpstreamSpec& database = lowered.upstreams.at(connect->targets[0].upstream);
  CHECK(database.name == "connect://db.internal:5432");
  CHECK_FALSE(database.tls);
  CHECK(database.connect_timeout_ms == 3000);
  REQUIRE(database.servers.size() == 1);
  CHECK_FALSE(database.servers[0].resolved);
  CHECK(config.upstreams[connect->targets[0].upstream].servers[0].host == "db.internal");
  CHECK(lowered.upstreams.at(connect->targets[1].upstream).servers[0].resolved);
}

TEST_CASE("CONNECT: only that method gets to such a route") {
  const Config config =
      loaded("[[route]]\nconnect = \"db.internal:5432\"\n[[route]]\nrespond = {status = 204}\n");
  LoweredRoutes lowered = lower_routes(config);
  const auto snapshot = route::build_snapshot(lowered.routes, std::move(lowered.upstreams));
  REQUIRE(snapshot.has_value());
  route::RequestView request{.host = "db.internal",
                             .path = "/",
                             .query = "",
                             .method = "CONNECT",
                             .client = nullptr,
                             .scheme = "http",
                             .headers = {}};
  const route::Route* tunnel = route::match(**snapshot, request);
  REQUIRE(tunnel != nullptr);
  REQUIRE(tunnel->kind == route::ActionKind::kConnect);
  CHECK(tunnel->connect->targets[0].authority == "db.internal:5432");
  request.method = "GET";
  const route::Route* get = route::match(**snapshot, request);
  REQUIRE(get != nullptr);
  CHECK(get->kind == route::ActionKind::kRespond);
}

TEST_CASE("CONNECT: what is refused") {
  const std::string at = "weir.toml:2:11: route[0].connect: ";
  CHECK(error_of("connect = \"db.internal\"") == at + "needs a port, as in \"10.0.0.1:80\"");
  CHECK(error_of("connect = \"db:0\"") ==
        at + "has a port that is not a number between 1 and 65535");
  CHECK(error_of("connect = \"*:443\"") ==
        at + "names targets one by one; a star would let clients reach anything");
  CHECK(error_of("connect = \"https://db:443\"") ==
        at + "must be \"HOST:PORT\", as clients name it, not \"https://db:443\"");
  CHECK(error_of("connect = \"unix:/run/x\"") ==
        at + "must be \"HOST:PORT\", as clients name it, not \"unix:/run/x\"");
  CHECK(error_of("connect = []") == at + "must not be an empty list");
  CHECK(error_of("connect = true") == at + "must be a string or a list of strings, not a boolean");
  CHECK(error_of("connect = [\"a:1\", \"A:1\"]") ==
        "weir.toml:2:19: route[0].connect[1]: names \"a:1\" twice");
  CHECK(error_of("connect = \"a:1\"\nproxy = \"http://b\"") ==
        "weir.toml:3:1: route[0].proxy: is a second action beside \"connect\": a route has exactly "
        "one");
  CHECK(error_of("connect = \"a:1\"\nmethods = [\"GET\", \"CONNECT\"]") ==
        "weir.toml:3:1: route[0].methods: does not go with connect: its method is CONNECT only");
  CHECK(error_of("connect = \"a:1\"\npath = \"/x\"") ==
        "weir.toml:3:1: route[0].path: does not go with connect: CONNECT has no path");
  CHECK(error_of("connect = \"a:1\"\nmatch = \"exact\"") ==
        "weir.toml:3:1: route[0].match: does not go with connect: CONNECT has no path");
  CHECK(error_of("connect = \"a:1\"\nquery = {a = true}") ==
        "weir.toml:3:1: route[0].query: does not go with connect: CONNECT has no path");
}
