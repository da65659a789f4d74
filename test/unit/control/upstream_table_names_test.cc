// The table of upstreams: names become servers, now or later, and stay what they are while DNS
// fails.
#include <set>

#include <weir/upstream/balance.h>

#include "upstream_table_rig.h"

namespace weir::control {
namespace {

using namespace test;
using Kind = server::Command::Kind;
using route::ServerState;

const std::string kOneName = "[upstream.a]\nservers = [\"app.test:80\"]\n" + kRoute;

}  // namespace

TEST_CASE("a name without an address yet is one server that takes nothing; they come by message") {
  TableRig rig;
  rig.dns.set("app.test", {a("10.0.0.1"), a("10.0.0.2")});
  rig.dns.hold();
  const auto filled = rig.load(
      "[upstream.a]\nservers = [{address = \"app.test:80\", weight = 3, max_connections = 7, "
      "backup = true, priority = 2}, \"127.0.0.1:81\"]\n" +
      kRoute);
  CHECK(TableRig::addresses(filled[0]) == Texts{"?app.test:80", "127.0.0.1:81"});
  CHECK(filled[0].servers[0].name.empty());
  CHECK(rig.table->unasked() == 1);
  CHECK(rig.sent.empty());
  CHECK_FALSE(rig.view("app.test:80").resolved);
  rig.dns.release();
  REQUIRE(rig.until([&] { return !rig.sent.empty(); }));
  REQUIRE(rig.sent[0].command.kind == Kind::kUpstream);
  CHECK(rig.sent[0].command.epoch == 1);
  const route::UpstreamSpec& now = *rig.sent[0].upstream;
  CHECK(now.id == filled[0].id);
  CHECK(now.name == "a");
  CHECK(now.connect_timeout_ms == filled[0].connect_timeout_ms);
  CHECK(TableRig::addresses(now) == Texts{"10.0.0.1:80", "10.0.0.2:80", "127.0.0.1:81"});
  for (size_t i = 0; i < 2; ++i) {
    const route::ServerSpec& server = now.servers[i];
    CHECK(server.address_text == server.address.to_string());
    CHECK(server.name == "app.test:80");
    CHECK(server.weight == 3);
    CHECK(server.max_connections == 7);
    CHECK(server.priority == 2);
    CHECK(server.backup);
    CHECK(server.race_group == 0);
    CHECK(server.state == ServerState::kUp);
    CHECK(rig.view(server.address_text).identity == TableRig::identity(server.address_text));
    CHECK(rig.view(server.address_text).name == "app.test:80");
  }
  CHECK(now.servers[2].endpoint_id == filled[0].servers[1].endpoint_id);
  CHECK(now.servers[2].name.empty());
  std::set<uint32_t> endpoints;
  for (const auto& server : now.servers) endpoints.insert(server.endpoint_id);
  CHECK(endpoints.size() == 3);
  CHECK(rig.table->unasked() == 0);
  CHECK(rig.table->servers().size() == 3);
  rig.pass(200);  // asked again a few times, to the same end
  CHECK(rig.sent.size() == 1);
  CHECK(rig.logged("name").empty());
}

TEST_CASE("what is known before a generation is built is in it") {
  TableRig rig;
  rig.dns.set("app.test", {a("10.0.0.1"), aaaa("2001:db8::1")});
  const auto filled = rig.load_known(kOneName);
  CHECK(TableRig::addresses(filled[0]) == Texts{"10.0.0.1:80", "[2001:db8::1]:80"});
  CHECK(filled[0].servers[1].address_text == "[2001:db8::1]:80");
  // One host by both families.
  CHECK(filled[0].servers[0].race_group != 0);
  CHECK(filled[0].servers[0].race_group == filled[0].servers[1].race_group);
  rig.pass(100);
  CHECK(rig.sent.empty());
  // And still is at the next load.
  const auto again = rig.load(kOneName);
  CHECK(TableRig::addresses(again[0]) == TableRig::addresses(filled[0]));
  CHECK(again[0].servers[0].endpoint_id == filled[0].servers[0].endpoint_id);
  CHECK(again[0].servers[1].endpoint_id == filled[0].servers[1].endpoint_id);
}

TEST_CASE("families: one of them races with nobody, and one may be all that is wanted") {
  TableRig rig;
  rig.dns.set("app.test", {a("10.0.0.1"), a("10.0.0.2"), aaaa("2001:db8::1")});
  rig.dns.set("b.test", {a("10.0.0.1"), aaaa("2001:db8::1")});
  const auto filled = rig.load_known(
      "[upstream.a]\nservers = [\"app.test:80\"]\nresolve_family = \"ipv4\"\n"
      "[upstream.b]\nservers = [\"app.test:80\", \"b.test:80\"]\n"
      "[upstream.c]\nservers = [\"app.test:80\"]\nresolve_family = \"ipv6\"\n" +
      kRoute);
  CHECK(TableRig::addresses(filled[0]) == Texts{"10.0.0.1:80", "10.0.0.2:80"});
  CHECK(filled[0].servers[0].race_group == 0);
  REQUIRE(filled[1].servers.size() == 5);
  const uint32_t of_app = filled[1].servers[0].race_group;
  const uint32_t of_b = filled[1].servers[3].race_group;
  CHECK(of_app != 0);
  CHECK(of_b != 0);
  CHECK(of_app != of_b);
  CHECK(filled[1].servers[2].race_group == of_app);
  CHECK(filled[1].servers[4].race_group == of_b);
  CHECK(TableRig::addresses(filled[2]) == Texts{"[2001:db8::1]:80"});
}

TEST_CASE("localhost and the hosts file need no DNS, from the first moment on") {
  TableRig rig;
  rig.dns.die();
  rig.directory.write("hosts", "10.1.1.1 here.test\n");
  const auto filled = rig.load(
      "[upstream.a]\nservers = [\"localhost:81\", \"x.localhost:82\", \"here.test:83\"]\n" +
      kRoute);
  CHECK(TableRig::addresses(filled[0]) ==
        Texts{"127.0.0.1:81", "[::1]:81", "127.0.0.1:82", "[::1]:82", "10.1.1.1:83"});
  CHECK(rig.table->unasked() == 0);
  rig.pass(50);
  CHECK(rig.sent.empty());
  rig.directory.write("hosts", "10.1.1.2 here.test\n10.1.1.3 here.test\n");
  REQUIRE(rig.until([&] { return !rig.sent.empty(); }));
  REQUIRE(rig.sent[0].upstream);
  CHECK(TableRig::addresses(*rig.sent[0].upstream).back() == "10.1.1.3:83");
  CHECK(rig.logged("other addresses") ==
        Texts{"info a name has other addresses upstream=a name=here.test:83 addresses=2"});
}

TEST_CASE("a load asks anew: the hosts file at once, and DNS before its time") {
  TableRig rig;
  const std::string text = "[upstream.a]\nservers = [\"late.test:80\", \"app.test:80\"]\n" + kRoute;
  const auto slow = [&] {
    config::Config config = rig.parse(text);
    config.resolver.min_ttl = config::Milliseconds(60'000);
    config.resolver.max_ttl = config::Milliseconds(60'000);
    return config;
  };
  rig.dns.set("app.test", {a("10.0.0.1")});
  rig.table->prepare(slow());
  REQUIRE(rig.until([&] { return rig.table->unasked() == 0; }));
  CHECK(TableRig::addresses(rig.build(slow())[0]) == Texts{"?late.test:80", "10.0.0.1:80"});
  rig.directory.write("hosts", "10.1.1.1 late.test\n");
  rig.dns.set("app.test", {a("10.0.0.2")});
  CHECK(TableRig::addresses(rig.load(slow())[0]) == Texts{"10.1.1.1:80", "10.0.0.1:80"});
  CHECK(rig.logged("resolved again").size() == 1);
  REQUIRE(rig.until([&] { return !rig.sent.empty(); }));
  CHECK(TableRig::addresses(*rig.sent[0].upstream) == Texts{"10.1.1.1:80", "10.0.0.2:80"});
}

TEST_CASE("taken without having been prepared: what is known at once comes by message, too") {
  TableRig rig;
  rig.dns.set("app.test", {a("10.0.0.1")});
  const auto filled = rig.build(
      rig.parse("[upstream.a]\nservers = [\"localhost:81\", \"app.test:80\"]\n" + kRoute));
  CHECK(TableRig::addresses(filled[0]) == Texts{"?localhost:81", "?app.test:80"});
  REQUIRE(rig.sent.size() == 1);
  CHECK(TableRig::addresses(*rig.sent[0].upstream) ==
        Texts{"127.0.0.1:81", "[::1]:81", "?app.test:80"});
  REQUIRE(rig.until([&] { return rig.sent.size() == 2; }));
  CHECK(TableRig::addresses(*rig.sent[1].upstream) ==
        Texts{"127.0.0.1:81", "[::1]:81", "10.0.0.1:80"});
}

TEST_CASE("other addresses: told once, and what stays keeps its place with the cores") {
  TableRig rig;
  rig.dns.set("app.test", {a("10.0.0.1"), a("10.0.0.2")});
  const auto filled = rig.load_known(kOneName);
  rig.dns.set("app.test", {a("10.0.0.2"), a("10.0.0.3")});
  REQUIRE(rig.until([&] { return !rig.sent.empty(); }));
  const route::UpstreamSpec now = *rig.sent[0].upstream;
  CHECK(TableRig::addresses(now) == Texts{"10.0.0.2:80", "10.0.0.3:80"});
  CHECK(now.servers[0].endpoint_id == filled[0].servers[1].endpoint_id);
  CHECK(now.servers[1].endpoint_id != filled[0].servers[0].endpoint_id);
  rig.pass(200);
  CHECK(rig.sent.size() == 1);
  CHECK(rig.logged("name") ==
        Texts{"info a name has other addresses upstream=a name=app.test:80 addresses=2"});
}

TEST_CASE("while DNS fails, what was known stays; both ends of it are told once") {
  TableRig rig;
  rig.dns.set("app.test", {a("10.0.0.1")});
  rig.load_known("[upstream.b]\nservers = [\"app.test:80\"]\n" + kOneName);
  rig.dns.die();
  REQUIRE(rig.until([&] { return rig.logged("cannot be resolved").size() == 2; }));
  CHECK(rig.logged("upstream=a")[0].starts_with(
      "warn a name cannot be resolved upstream=a name=app.test:80 error="));
  CHECK(rig.logged("upstream=a")[0].ends_with(" addresses_kept=1"));
  CHECK(rig.logged("upstream=b").size() == 1);
  CHECK_FALSE(rig.view("10.0.0.1:80").trouble.empty());
  CHECK(rig.view("10.0.0.1:80").resolved);
  rig.pass(100);
  CHECK(rig.sent.empty());
  // A reload while it lasts.
  CHECK(TableRig::addresses(rig.load(kOneName)[0]) == Texts{"10.0.0.1:80"});
  CHECK(rig.logged("cannot be resolved").size() == 2);
  rig.dns.live();
  REQUIRE(rig.until([&] { return !rig.logged("resolved again").empty(); }));
  CHECK(rig.logged("resolved again") ==
        Texts{"info a name can be resolved again upstream=a name=app.test:80 addresses=1"});
  CHECK(rig.view("10.0.0.1:80").trouble.empty());
  CHECK(rig.sent.empty());
}

TEST_CASE("a name that is not there keeps nobody, and comes up later") {
  TableRig rig;
  const auto filled =
      rig.load_known("[upstream.a]\nservers = [\"no.test:80\", \"127.0.0.1:9\"]\n" + kRoute);
  CHECK(TableRig::addresses(filled[0]) == Texts{"?no.test:80", "127.0.0.1:9"});
  CHECK(rig.logged("name") ==
        Texts{"warn a name cannot be resolved upstream=a name=no.test:80 error=no such name "
              "addresses_kept=0"});
  CHECK(rig.view("no.test:80").trouble == "no such name");
  rig.dns.set("no.test", {a("10.0.0.1")});
  REQUIRE(rig.until([&] { return !rig.sent.empty(); }));
  CHECK(TableRig::addresses(*rig.sent[0].upstream) == Texts{"10.0.0.1:80", "127.0.0.1:9"});
}

TEST_CASE("SRV: port, weight and priority of the record") {
  TableRig rig;
  rig.dns.set("_http._tcp.s.test", {srv(1, 30, 8001, "one.test"), srv(1, 10, 8002, "two.test"),
                                    srv(5, 0, 8003, "one.test"), srv(5, 0, 8004, "two.test")});
  rig.dns.set("_zero._tcp.s.test", {srv(0, 0, 8001, "one.test"), srv(0, 2, 8002, "two.test")});
  rig.dns.set("one.test", {a("10.0.0.1"), aaaa("2001:db8::1")});
  rig.dns.set("two.test", {a("10.0.0.2")});
  const auto filled = rig.load_known(
      "[upstream.a]\nservers = [\"https://_http._tcp.s.test\"]\nresolve_srv = true\n"
      "[upstream.b]\nservers = [\"_zero._tcp.s.test\"]\nresolve_srv = true\n" +
      kRoute);
  CHECK(TableRig::addresses(filled[0]) == Texts{"10.0.0.1:8001", "10.0.0.2:8002",
                                                "[2001:db8::1]:8001", "10.0.0.1:8003",
                                                "10.0.0.2:8004", "[2001:db8::1]:8003"});
  std::vector<std::pair<uint32_t, uint32_t>> rank;
  for (const auto& server : filled[0].servers) rank.emplace_back(server.priority, server.weight);
  CHECK(rank == std::vector<std::pair<uint32_t, uint32_t>>{
                    {1, 30}, {1, 10}, {1, 30}, {5, 1}, {5, 1}, {5, 1}});
  // Hosts race, names of services do not.
  CHECK(filled[0].servers[0].race_group != 0);
  CHECK(filled[0].servers[0].race_group == filled[0].servers[2].race_group);
  CHECK(filled[0].servers[3].race_group == filled[0].servers[5].race_group);
  CHECK(filled[0].servers[0].race_group != filled[0].servers[3].race_group);
  CHECK(filled[0].servers[1].race_group == 0);
  CHECK(filled[0].servers[0].tls_name == "s.test");
  // Weight 0 beside others: little, but not nothing.
  CHECK(filled[1].servers[0].weight == 1);
  CHECK(filled[1].servers[1].weight == 30);
}

TEST_CASE("another name server takes effect with the load that names it") {
  TableRig rig;
  DnsServer other;
  rig.dns.set("app.test", {a("10.0.0.1")});
  other.set("app.test", {a("10.0.0.9")});
  rig.load_known(kOneName);
  config::Config next = rig.parse(kOneName);
  next.resolver.servers = {other.address()};
  // What is known stays until the new one has answered.
  CHECK(TableRig::addresses(rig.load(next)[0]) == Texts{"10.0.0.1:80"});
  REQUIRE(rig.until([&] { return !rig.sent.empty(); }));
  CHECK(TableRig::addresses(*rig.sent[0].upstream) == Texts{"10.0.0.9:80"});
  CHECK(rig.sent[0].command.epoch == 2);
  const int asked = rig.dns.queries();
  rig.pass(200);
  CHECK(rig.dns.queries() == asked);
  CHECK(rig.logged("cannot be resolved").empty());
}

TEST_CASE("a load that is given up leaves nothing behind") {
  TableRig rig;
  rig.dns.set("app.test", {a("10.0.0.1")});
  rig.load_known(kOneName);
  const config::Config refused = rig.parse("[upstream.a]\nservers = [\"gone.test:80\"]\n" + kRoute);
  rig.table->prepare(refused);
  CHECK(rig.table->unasked() == 1);
  rig.table->prepare(rig.parse(kOneName));
  CHECK(rig.table->unasked() == 0);
  rig.pass(100);
  CHECK(rig.logged("gone.test").empty());
  CHECK(rig.sent.empty());
}

TEST_CASE("no more servers than cores take, however many addresses there are") {
  TableRig rig;
  constexpr int kNames = 170;
  constexpr int kEach = 64;  // Resolver::kAddressesMax
  std::string hosts;
  std::string list;
  for (int name = 0; name < kNames; ++name) {
    for (int i = 0; i < kEach + 1; ++i) {
      hosts += "10." + std::to_string(name) + ".0." + std::to_string(i) + " n" +
               std::to_string(name) + ".test\n";
    }
    list += (list.empty() ? "\"n" : ", \"n") + std::to_string(name) + ".test:80\"";
  }
  rig.directory.write("hosts", hosts);
  const auto filled = rig.load("[upstream.a]\nservers = [" + list + "]\n" + kRoute);
  static_assert(kNames * kEach > route::kServersMax);
  CHECK(filled[0].servers.size() == route::kServersMax);
  REQUIRE(rig.until([&] { return rig.logged("more addresses than are used").size() == kNames; },
                    30'000));
  CHECK(rig.logged("name=n7.test:80") ==
        Texts{"warn a name has more addresses than are used upstream=a name=n7.test:80 used=64 "
              "left_out=1"});
  CHECK(rig.sent.empty());
}

TEST_CASE("one server in two lines: each by the identity that balancers give it") {
  TableRig rig;
  rig.dns.set("app.test", {a("10.0.0.1")});
  const auto filled = rig.load_known(
      "[upstream.a]\nservers = [\"10.0.0.1:80\", \"app.test:80\", \"10.0.0.1:80\"]\n" + kRoute);
  upstream::Balancer balancer({}, 1);
  std::vector<upstream::ServerFacts> facts;
  for (const auto& server : filled[0].servers) {
    facts.push_back({.identity = TableRig::identity(server.address_text)});
  }
  balancer.set_servers(facts, 1);
  std::set<int> places;
  for (const ServerView& server : rig.table->servers()) {
    places.insert(balancer.find(server.identity));
  }
  CHECK(places == std::set<int>{0, 1, 2});
}

TEST_CASE("endpoints of a name that changes for ever: ids are used again, after a long time") {
  Identities identities;
  std::set<uint32_t> ids;
  const uint32_t kept = identities.endpoint_of_name("a", "app:80", "always");
  for (int i = 0; i < 10'000; ++i) {
    const uint32_t id = identities.endpoint_of_name("a", "app:80", std::to_string(i));
    CHECK(id == identities.endpoint_of_name("a", "app:80", std::to_string(i)));
    REQUIRE(id != kept);
    REQUIRE(identities.endpoint_of_name("a", "app:80", "always") == kept);
    if (i != 0 && i < 200) CHECK(ids.insert(id).second);
    ids.insert(id);
  }
  CHECK(ids.size() == Identities::kNameAddressesMax - 1);
  CHECK_FALSE(ids.contains(identities.endpoint_of_name("a", "other:80", "1")));
  CHECK_FALSE(ids.contains(identities.endpoint_of_name("b", "app:80", "1")));
  CHECK_FALSE(ids.contains(identities.endpoint("a", "app:80")));
}

TEST_CASE("stopped with questions under way") {
  TableRig rig;
  rig.dns.hold();
  rig.load(kOneName);
  REQUIRE(rig.until([&] { return rig.dns.most_names_waiting() > 0; }));
  rig.close();
  CHECK(rig.sent.empty());
  rig.dns.release();
}

}  // namespace weir::control
