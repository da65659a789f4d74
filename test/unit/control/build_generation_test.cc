// From the text of a configuration to what cores work with: every setting lands where it belongs,
// ids stay over reloads, files that are not there are warnings.
#include <algorithm>
#include <cstdlib>
#include <string>

#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/config/load.h>
#include <weir/control/snapshot_builder.h>

using namespace weir;
using namespace weir::control;

namespace {

config::Config parse(const std::string& text) {
  config::LoadResult loaded =
      config::parse_config("[[listener]]\naddress = \"127.0.0.1:1\"\n" + text, "weir.toml",
                           [](std::string_view) { return std::nullopt; });
  for (const auto& error : loaded.errors) FAIL(error.to_string());
  return std::move(loaded.config);
}

const std::string kTwoUpstreams = R"(
[upstream.a]
servers = ["10.0.0.1:80", {address = "10.0.0.2:80", weight = 3}]
[upstream.b]
servers = ["10.0.0.1:80"]
[[route]]
host = "a.test"
proxy = "a"
[[route]]
proxy = "b"
)";

const route::UpstreamSpec& upstream(const proxy::Generation& generation, std::string_view name) {
  for (const route::UpstreamSpec& spec : generation.routes->upstreams()) {
    if (spec.name == name) return spec;
  }
  FAIL("no upstream " << name);
  return generation.routes->upstreams()[0];
}

}  // namespace

TEST_CASE("identities: the same name is the same number, new ones are dense") {
  Identities identities;
  CHECK(identities.upstream("a") == 0);
  CHECK(identities.upstream("b") == 1);
  CHECK(identities.upstream("a") == 0);
  CHECK(identities.endpoint("a", "1:80") == 0);
  CHECK(identities.endpoint("b", "1:80") == 1);  // another upstream, another pool
  CHECK(identities.endpoint("a", "2:80") == 2);
  CHECK(identities.endpoint("a", "1:80") == 0);
  CHECK(identities.upstream("c") == 2);
}

TEST_CASE("server settings reach the data path, in milliseconds and bytes") {
  const config::Config config = parse(R"(
[server]
client_header_timeout = "11s"
client_body_timeout = "12s"
keepalive_timeout = "13s"
send_timeout = "14s"
half_close_grace = "150ms"
max_requests_per_connection = 77
max_header_size = "10KiB"
max_request_line = "5KiB"
max_header_fields = 55
via = "edge"
forwarded = true
x_forwarded = false
server_header = "s"
[logging]
access_log = "off"
[security]
trusted_proxies = ["10.0.0.0/8"]
[[route]]
respond = {}
)");
  Identities identities;
  const BuildResult built =
      build_generation(config, identities, {.epoch = 9, .cores = 4, .connections_max = 10});
  REQUIRE(built.generation);
  CHECK(built.generation->epoch == 9);
  CHECK(built.generation->routes->epoch() == 9);
  const proxy::Settings& settings = built.generation->settings;
  CHECK(settings.header_timeout_ms == 11'000);
  CHECK(settings.body_timeout_ms == 12'000);
  CHECK(settings.keepalive_timeout_ms == 13'000);
  CHECK(settings.send_timeout_ms == 14'000);
  CHECK(settings.half_close_grace_ms == 150);
  CHECK(settings.max_requests_per_connection == 77);
  CHECK(settings.head_limits.head_bytes_max == 10 * 1024);
  CHECK(settings.head_limits.request_line_bytes_max == 5 * 1024);
  CHECK(settings.head_limits.fields_max == 55);
  CHECK(settings.via == "edge");
  CHECK(settings.server == "s");
  CHECK(settings.forwarded);
  CHECK_FALSE(settings.x_forwarded);
  CHECK_FALSE(settings.access_log);
  CHECK_FALSE(settings.client_cert_headers);
  CHECK(settings.connections_max == 3);  // ten over four cores, rounded up
  REQUIRE(settings.trusted_proxies.size() == 1);
  CHECK(settings.trusted_proxies[0].contains(*base::IpAddress::parse("10.1.2.3")));
}

TEST_CASE("fields about client certificates are asked for in [tls]") {
  Identities identities;
  const BuildResult built =
      build_generation(parse("[tls]\nclient_auth = \"optional\"\nclient_ca_path = \"x\"\n"
                             "client_cert_headers = true\n[[route]]\nrespond = {}\n"),
                       identities, {});
  REQUIRE(built.generation);
  CHECK(built.generation->settings.client_cert_headers);
}

TEST_CASE("no limit of connections stays none") {
  Identities identities;
  const BuildResult built =
      build_generation(parse("[[route]]\nrespond = {}\n"), identities, {.cores = 4});
  REQUIRE(built.generation);
  CHECK(built.generation->settings.connections_max == 0);
}

TEST_CASE("upstream settings: the defaults' section, overridden by the upstream's own") {
  Identities identities;
  const BuildResult built = build_generation(parse(R"(
[upstream_defaults]
connect_timeout = "1s"
response_timeout = "2s"
read_timeout = "3s"
send_timeout = "4s"
idle_connection_timeout = "5s"
max_connection_lifetime = "6s"
max_idle_connections_per_host = 7
max_connecting = 8
[upstream.a]
servers = ["10.0.0.1:80"]
[upstream.b]
servers = ["10.0.0.1:80"]
connect_timeout = "9s"
host_header = "inner.test"
[[route]]
host = "a.test"
proxy = "a"
[[route]]
proxy = "b"
)"),
                                             identities, {});
  REQUIRE(built.generation);
  const route::UpstreamSpec& a = upstream(*built.generation, "a");
  CHECK(a.connect_timeout_ms == 1000);
  CHECK(a.response_timeout_ms == 2000);
  CHECK(a.read_timeout_ms == 3000);
  CHECK(a.send_timeout_ms == 4000);
  CHECK(a.idle_timeout_ms == 5000);
  CHECK(a.lifetime_ms == 6000);
  CHECK(a.max_idle_per_host == 7);
  CHECK(a.max_connecting == 8);
  CHECK(a.host_header.empty());
  const route::UpstreamSpec& b = upstream(*built.generation, "b");
  CHECK(b.connect_timeout_ms == 9000);
  CHECK(b.response_timeout_ms == 2000);
  CHECK(b.host_header == "inner.test");
}

TEST_CASE("ids stay over a reload that moves, adds and removes") {
  Identities identities;
  const BuildResult first = build_generation(parse(kTwoUpstreams), identities, {.epoch = 1});
  REQUIRE(first.generation);
  const route::UpstreamSpec a = upstream(*first.generation, "a");
  const route::UpstreamSpec b = upstream(*first.generation, "b");
  REQUIRE(a.servers.size() == 2);
  CHECK(a.servers[0].resolved);
  CHECK(a.servers[1].weight == 3);
  CHECK(a.id != b.id);
  CHECK(a.servers[0].endpoint_id != b.servers[0].endpoint_id);

  const BuildResult second = build_generation(parse(R"(
[upstream.new]
servers = ["10.0.0.9:80"]
[upstream.a]
servers = ["10.0.0.2:80", "10.0.0.3:80", "10.0.0.1:80"]
[[route]]
host = "n.test"
proxy = "new"
[[route]]
proxy = "a"
)"),
                                              identities, {.epoch = 2});
  REQUIRE(second.generation);
  const route::UpstreamSpec& again = upstream(*second.generation, "a");
  CHECK(again.id == a.id);
  CHECK(again.servers[0].endpoint_id == a.servers[1].endpoint_id);
  CHECK(again.servers[2].endpoint_id == a.servers[0].endpoint_id);
  const uint32_t added = again.servers[1].endpoint_id;
  CHECK(added != a.servers[0].endpoint_id);
  CHECK(added != a.servers[1].endpoint_id);
  CHECK(added != b.servers[0].endpoint_id);
  const route::UpstreamSpec& other = upstream(*second.generation, "new");
  CHECK(other.id != a.id);
  CHECK(other.id != b.id);  // b is gone, its number is not given away
}

TEST_CASE("a URL as proxy target is an upstream of its own, shared by its routes") {
  Identities identities;
  const BuildResult built = build_generation(parse(R"(
[[route]]
path = "/a"
proxy = "http://127.0.0.1:3000"
[[route]]
path = "/b"
proxy = "http://127.0.0.1:3000/app"
)"),
                                             identities, {});
  REQUIRE(built.generation);
  CHECK(built.generation->routes->upstreams().size() == 1);
  CHECK(built.generation->routes->routes()[0].upstream ==
        built.generation->routes->routes()[1].upstream);
}

TEST_CASE("names are nobody's to wait for: without a table they have no address") {
  Identities identities;
  const BuildResult built = build_generation(parse(R"(
[upstream.a]
servers = ["localhost:81", "no-such-host.invalid:82", "10.0.0.1:83", "unix:/run/x"]
[[route]]
proxy = "a"
)"),
                                             identities, {});
  REQUIRE(built.generation);
  CHECK(built.errors.empty());
  CHECK(built.warnings.empty());
  const route::UpstreamSpec& a = upstream(*built.generation, "a");
  REQUIRE(a.servers.size() == 4);
  CHECK_FALSE(a.servers[0].resolved);
  CHECK(a.servers[0].address_text == "localhost:81");
  CHECK_FALSE(a.servers[1].resolved);
  CHECK(a.servers[2].resolved);
  CHECK(a.servers[3].resolved);
  // For UpstreamTable::take().
  REQUIRE(built.upstreams.size() == 1);
  CHECK(built.upstreams[0].id == a.id);
  REQUIRE(built.upstreams[0].servers.size() == 4);
  CHECK(built.upstreams[0].servers[2].endpoint_id == a.servers[2].endpoint_id);
}

TEST_CASE("routes that contradict each other are errors, and there is no generation") {
  config::LoadResult loaded = config::parse_config(
      "[[listener]]\naddress = \"127.0.0.1:1\"\n"
      "[[route]]\npath = \"/x\"\nrespond = {}\n[[route]]\npath = \"/x/\"\nrespond = {}\n",
      "weir.toml", [](std::string_view) { return std::nullopt; });
  if (!loaded.ok()) SUCCEED("refused when loaded");
  if (loaded.ok()) {
    Identities identities;
    const BuildResult built = build_generation(loaded.config, identities, {});
    CHECK_FALSE(built.generation);
    REQUIRE_FALSE(built.errors.empty());
    CHECK(built.errors[0].find("weir.toml") != std::string::npos);
  }
}

TEST_CASE("what the configuration says about files and tunnels reaches the settings") {
  Identities identities;
  const BuildResult built = build_generation(parse(R"(
[server]
tunnel_idle_timeout = "7s"
[performance]
splice_threshold = 0
open_file_cache_entries = 5
open_file_cache_valid = "20ms"
file_memory = "1MiB"
file_memory_max_size = 100
[mime]
system_file = ""
charset = ""
default_type = "x/none"
types = {md = "text/x-md"}
[[route]]
file = "/"
)"),
                                             identities, {});
  REQUIRE(built.generation);
  CHECK(built.warnings.empty());
  const proxy::Settings& settings = built.generation->settings;
  CHECK(settings.tunnel_idle_timeout_ms == 7000);
  CHECK(settings.splice_min == 0);
  CHECK(settings.files.entries_max == 5);
  CHECK(settings.files.revalidate_ms == 20);
  CHECK(settings.files.memory_max == 1 << 20);
  CHECK(settings.files.content_max == 100);
  REQUIRE(settings.mime);
  CHECK(settings.mime->lookup("a.MD") == "text/x-md");
  CHECK(settings.mime->lookup("a.html") == "text/html");
  CHECK(settings.mime->lookup("a.nothing-known") == "x/none");
}

TEST_CASE("the system's types, and a file of them that cannot be read") {
  std::string path = "/tmp/weir-mime-test-XXXXXX";
  const int fd = ::mkstemp(path.data());
  REQUIRE(fd >= 0);
  const std::string_view table = "text/x-system  sys1 html\n";
  REQUIRE(::write(fd, table.data(), table.size()) == static_cast<ssize_t>(table.size()));
  ::close(fd);
  Identities identities;
  const auto build = [&identities](const std::string& file) {
    return build_generation(parse("[mime]\nsystem_file = \"" + file +
                                  "\"\ntypes = {html = \"text/x-own\"}\n"
                                  "[[route]]\nrespond = {}\n"),
                            identities, {});
  };
  const BuildResult good = build(path);
  REQUIRE(good.generation);
  CHECK(good.warnings.empty());
  CHECK(good.generation->settings.mime->lookup("a.sys1") == "text/x-system; charset=utf-8");
  CHECK(good.generation->settings.mime->lookup("a.html") == "text/x-own; charset=utf-8");
  ::unlink(path.c_str());
  for (const std::string& bad : {path, std::string("/dev/null"), std::string("/tmp")}) {
    INFO(bad);
    const BuildResult built = build(bad);
    REQUIRE(built.generation);
    REQUIRE(built.warnings.size() == 1);
    CHECK(built.warnings[0].starts_with("weir.toml:4: mime.system_file: " + bad));
    CHECK(built.generation->settings.mime->lookup("a.css") == "text/css; charset=utf-8");
  }
}

TEST_CASE("files that are not there are a warning, once for each path") {
  Identities identities;
  const std::string text = R"([mime]
system_file = ""
[[route]]
path = "/a"
file = "/nonexistent/site"
[[route]]
path = "/b"
file = "/nonexistent/site"
[[route]]
path = "/c"
file = "/dev/null"
[[route]]
path = "/d"
file = "/tmp"
)";
  const BuildResult built = build_generation(parse(text), identities, {});
  REQUIRE(built.generation);
  CHECK(built.errors.empty());
  CHECK(built.warnings ==
        std::vector<std::string>{
            "weir.toml:5: route[0]: /nonexistent/site cannot be served (No such file or directory)",
            "weir.toml:11: route[2]: /dev/null cannot be served (neither a file nor a directory)"});
  CHECK(build_generation(parse(text), identities, {.look_at_files = false}).warnings.empty());
}
