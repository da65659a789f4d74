// Defaults, ranges and names of every setting, walked along the schema itself; then the values that
// a file gives.
#include <chrono>
#include <set>
#include <string>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/config/schema.h>

#include "config_cases.h"

using namespace weir::control::config;
using namespace weir::control::config::test;
using namespace std::chrono_literals;

namespace {

// The scalar sections, how they are written, and where their values land.
struct Target {
  const char* section;
  const char* header;
  const char* more;
  const void* (*object)(const Config& config);
};

const Target kTargets[] = {
    {"server", "[server]\n", "", [](const Config& c) -> const void* { return &c.server; }},
    {"logging", "[logging]\n", "", [](const Config& c) -> const void* { return &c.logging; }},
    {"performance", "[performance]\n", "",
     [](const Config& c) -> const void* { return &c.performance; }},
    {"security", "[security]\n", "", [](const Config& c) -> const void* { return &c.security; }},
    {"tls", "[tls]\n", "", [](const Config& c) -> const void* { return &c.tls; }},
    {"load_balancer", "[load_balancer]\n", "",
     [](const Config& c) -> const void* { return &c.upstream_defaults; }},
    {"upstream_defaults", "[upstream_defaults]\n", "",
     [](const Config& c) -> const void* { return &c.upstream_defaults; }},
    {"upstream.NAME", "[upstream.a]\n", "\nservers = \"b:1\"",
     [](const Config& c) -> const void* {
       return static_cast<const UpstreamSettings*>(&c.upstreams.front());
     }},
    {"health_check", "[health_check]\n", "",
     [](const Config& c) -> const void* { return &c.upstream_defaults.health; }},
    {"health_check", "[upstream.a]\nservers = \"b:1\"\n[upstream.a.health_check]\n", "",
     [](const Config& c) -> const void* { return &c.upstreams.front().health; }},
    {"passive_check", "[upstream_defaults.passive_check]\n", "",
     [](const Config& c) -> const void* { return &c.upstream_defaults.passive; }},
    {"passive_check", "[upstream.a]\nservers = \"b:1\"\n[upstream.a.passive_check]\n", "",
     [](const Config& c) -> const void* { return &c.upstreams.front().passive; }},
    {"circuit_breaker", "[upstream_defaults.circuit_breaker]\n", "",
     [](const Config& c) -> const void* { return &c.upstream_defaults.circuit; }},
    {"circuit_breaker", "[upstream.a]\nservers = \"b:1\"\n[upstream.a.circuit_breaker]\n", "",
     [](const Config& c) -> const void* { return &c.upstreams.front().circuit; }},
    {"sticky", "[upstream.a]\nservers = \"b:1\"\n[upstream.a.sticky]\n", "",
     [](const Config& c) -> const void* { return &c.upstreams.front().sticky; }},
    {"resolver", "[resolver]\n", "", [](const Config& c) -> const void* { return &c.resolver; }},
    {"control", "[control]\n", "", [](const Config& c) -> const void* { return &c.control; }},
    {"listener", "[[listener]]\n", "\naddress = \"1.2.3.4:1\"",
     [](const Config& c) -> const void* { return &c.listeners.front(); }},
};

// Lines without which a setting contradicts the rest.
std::string more_of(const Target& target, const Setting& setting) {
  std::string lines = target.more;
  const std::string_view key = setting.key;
  // Names of SRV records have no port.
  if (key == "resolve_srv" && !lines.empty()) lines = "\nservers = \"b\"";
  if (key == "key_path" || key == "ocsp_response_path") lines += "\ncert_path = \"c\"";
  if (key == "key_passphrase_file") lines += "\ncert_path = \"c\"\nkey_path = \"k\"";
  if (key == "session_lifetime") lines += "\nticket_rotation = \"7d\"";
  if (key == "ticket_rotation") lines += "\nsession_lifetime = 1";
  if (key.starts_with("client_") && std::string_view(target.section) == "tls") {
    if (key != "client_auth") lines += "\nclient_auth = \"required\"";
    if (key != "client_ca_path") lines += "\nclient_ca_path = \"c\"";
  }
  if (key == "tls" && std::string_view(target.section) == "listener") {
    lines += "\n[tls]\ncert_path = \"c\"";
  }
  if (key.starts_with("hash_") && std::string_view(target.section) == "upstream.NAME") {
    lines += "\nbalance = \"consistent_hash\"";
  }
  const std::string_view where = target.section;
  if (key == "ejection_time") lines += "\nejection_time_max = \"1d\"";
  if (key == "ejection_time_max") lines += "\nejection_time = \"1ms\"";
  if (key == "open_time") lines += "\nopen_time_max = \"1d\"";
  if (key == "open_time_max") lines += "\nopen_time = \"1ms\"";
  if (key == "min_ttl") lines += "\nmax_ttl = \"7d\"";
  if (key == "max_ttl") lines += "\nmin_ttl = \"100ms\"";
  if (where == "circuit_breaker" && key != "failures") lines += "\nfailures = 1";
  if (key == "tls_key_path") lines += "\ntls_cert_path = \"c\"";
  if (key.starts_with("tls_") && std::string_view(target.section) == "upstream.NAME") {
    lines += "\ntls = true";
  }
  return lines;
}

std::string written(const Setting& setting, int64_t value) {
  const std::string number = std::to_string(value);
  return setting.type == ValueType::kDuration ? "\"" + number + "ms\"" : number;
}

bool is_number(const Setting& setting) {
  return setting.type == ValueType::kInteger || setting.type == ValueType::kSize ||
         setting.type == ValueType::kDuration;
}

void check_bounds(const Target& target, const Setting& setting) {
  const auto load = [&](int64_t value) {
    // A size limit that contradicts its neighbour is another test's matter.
    std::string line = std::string(setting.key) + " = " + written(setting, value);
    if (setting.key == "max_header_size") line += "\nmax_request_line = 256";
    if (setting.key == "max_request_line") line += "\nmax_header_size = \"1MiB\"";
    return load_text(completed(target.header + line + more_of(target, setting)));
  };
  INFO(target.section << "." << setting.key);
  CHECK(load(setting.minimum).ok());
  CHECK(load(setting.maximum).ok());
  if (setting.maximum < INT64_MAX) CHECK_FALSE(load(setting.maximum + 1).ok());
  CHECK(load(0).ok() == (setting.minimum <= 0 || !setting.zero.empty()));
  CHECK_FALSE(load(-1).ok());
  if (setting.minimum > 1) CHECK_FALSE(load(setting.minimum - 1).ok());
  // The value arrives: the two ends differ from each other, in the member that the row names.
  const LoadResult low = load(setting.minimum);
  const LoadResult high = load(setting.maximum);
  CHECK_FALSE(setting.same(target.object(low.config), target.object(high.config)));
}

}  // namespace

TEST_CASE("every number has its bounds and arrives in its member") {
  for (const Target& target : kTargets) {
    for (const Setting& setting : section(target.section).settings) {
      if (is_number(setting)) check_bounds(target, setting);
    }
  }
}

TEST_CASE("every choice, boolean and default is accepted as written") {
  for (const Target& target : kTargets) {
    for (const Setting& setting : section(target.section).settings) {
      if (setting.type == ValueType::kCustom || is_number(setting)) continue;
      INFO(target.section << "." << setting.key);
      const auto load = [&](const std::string& value) {
        return load_text(completed(target.header + std::string(setting.key) + " = " + value +
                                   more_of(target, setting)));
      };
      if (setting.type == ValueType::kBool) {
        const LoadResult yes = load("true");
        const LoadResult no = load("false");
        REQUIRE(yes.ok());
        CHECK_FALSE(setting.same(target.object(yes.config), target.object(no.config)));
      } else if (setting.type == ValueType::kString) {
        if (setting.key == "key_file" || setting.key == "same_site") continue;  // elsewhere
        const bool path =
            setting.key == "path" || setting.key == "socket" || setting.key == "hosts";
        const std::string prefix = setting.key == "hash_key" ? "\"header:" : path ? "\"/" : "\"";
        const LoadResult given = load(prefix + "given\"");
        REQUIRE(given.ok());
        const LoadResult other = load(prefix + "other\"");
        REQUIRE(other.ok());
        CHECK_FALSE(setting.same(target.object(given.config), target.object(other.config)));
      } else {
        std::string words(setting.choices);
        while (!words.empty()) {
          const size_t space = std::min(words.find(' '), words.size());
          const std::string word = words.substr(0, space);
          CHECK(load("\"" + word + "\"").ok());
          words.erase(0, space + 1);
        }
      }
    }
  }
}

TEST_CASE("the schema is well formed") {
  std::set<std::string> sections;
  for (const Section& part : schema()) {
    INFO(part.name);
    CHECK(sections.insert(std::string(part.name)).second);
    CHECK_FALSE(part.doc.empty());
    std::set<std::string> names;
    for (const Setting& setting : part.settings) {
      INFO(setting.key);
      CHECK(names.insert(std::string(setting.key)).second);
      CHECK_FALSE(setting.doc.empty());
      CHECK((setting.type == ValueType::kCustom) == (setting.read != nullptr));
      CHECK((setting.type == ValueType::kCustom) == (setting.store == nullptr));
      CHECK((setting.type == ValueType::kCustom) == !setting.form.empty());
      CHECK((setting.type == ValueType::kChoice) == !setting.choices.empty());
      if (setting.restart) CHECK(setting.same != nullptr);
      if (is_number(setting)) CHECK(setting.minimum < setting.maximum);
      // A key that exists must not be refused as one of a later release.
      CHECK(later_feature(part.name, setting.key).empty());
      std::string aliases(setting.aliases);
      while (!aliases.empty()) {
        const size_t space = std::min(aliases.find(' '), aliases.size());
        CHECK(names.insert(aliases.substr(0, space)).second);
        CHECK(later_feature(part.name, aliases.substr(0, space)).empty());
        aliases.erase(0, space + 1);
      }
    }
  }
  for (const LaterKey& later : later_keys()) {
    INFO(later.section << "." << later.key);
    CHECK((later.section.empty() || sections.contains(std::string(later.section))));
    CHECK(later.feature.starts_with("the "));
  }
}

TEST_CASE("defaults") {
  const LoadResult result = load_text(completed(""));
  REQUIRE(result.ok());
  const Config& config = result.config;
  CHECK(config.file == "weir.toml");
  CHECK(config.server.threads == 0);
  CHECK(config.server.cpus.empty());
  CHECK(config.server.shutdown_timeout == 30s);
  CHECK(config.server.client_header_timeout == 30s);
  CHECK(config.server.client_body_timeout == 30s);
  CHECK(config.server.keepalive_timeout == 60s);
  CHECK(config.server.send_timeout == 30s);
  CHECK(config.server.max_header_size == 32 * 1024);
  CHECK(config.server.max_header_fields == 100);
  CHECK(config.server.max_request_line == 8 * 1024);
  CHECK(config.server.max_body_size == 0);
  CHECK(config.server.max_requests_per_connection == 0);
  CHECK(config.server.half_close_grace == 1s);
  CHECK(config.server.tunnel_idle_timeout == 10min);
  CHECK(config.server.via == "weir");
  CHECK_FALSE(config.server.forwarded);
  CHECK(config.server.x_forwarded);
  CHECK(config.server.server_header == "weir");
  CHECK(config.logging.level == weir::log::Level::kInfo);
  CHECK(config.logging.file_path == "stderr");
  CHECK(config.logging.access_log == "stdout");
  CHECK(config.logging.access_format == weir::log::AccessFormat::kJson);
  CHECK(config.logging.channel_size == 4096);
  CHECK(config.logging.flush_interval == 100ms);
  CHECK(config.logging.max_log_size == uint64_t{100} << 20);
  CHECK(config.logging.max_log_files == 5);
  CHECK(config.performance.reuseport_balancing == ReuseportBalancing::kKernel);
  CHECK_FALSE(config.performance.huge_pages_enabled);
  CHECK(config.performance.receive_buffers == 1024);
  CHECK(config.performance.receive_strategy == ReceiveStrategy::kAuto);
  CHECK(config.performance.splice_threshold == 512 << 10);
  CHECK(config.performance.open_file_cache_entries == 1024);
  CHECK(config.performance.open_file_cache_valid == 1s);
  CHECK(config.performance.file_memory == 32 << 20);
  CHECK(config.performance.file_memory_max_size == 64 << 10);
  CHECK(config.mime.types.empty());
  CHECK(config.mime.default_type == "application/octet-stream");
  CHECK(config.mime.charset == "utf-8");
  CHECK(config.mime.system_file == "/etc/mime.types");
  CHECK(config.security.max_concurrent_connections == 0);
  CHECK(config.security.drop_privileges_user.empty());
  CHECK(config.security.trusted_proxies.empty());
  CHECK(config.upstream_defaults.connect_timeout == 10s);
  CHECK(config.upstream_defaults.response_timeout == 60s);
  CHECK(config.upstream_defaults.read_timeout == 60s);
  CHECK(config.upstream_defaults.send_timeout == 30s);
  CHECK(config.upstream_defaults.max_idle_connections_per_host == 256);
  CHECK(config.upstream_defaults.idle_connection_timeout == 30s);
  CHECK(config.upstream_defaults.max_connection_lifetime == 1h);
  CHECK(config.upstream_defaults.max_connecting == 64);
  CHECK(config.upstream_defaults.host_header.empty());
  REQUIRE(config.listeners.size() == 1);
  CHECK(config.listeners[0].backlog == 4096);
  CHECK(config.listeners[0].name == "127.0.0.1:59999");
  CHECK(config.listeners[0].place == Place{2, 1});
  // The member initialiser of a server and the schema agree.
  UpstreamServer server;
  server.weight = 77;
  apply_defaults(section("upstream.NAME.servers[]"), &server);
  CHECK(server.weight == UpstreamServer{}.weight);
}

TEST_CASE("durations and sizes in all their notations") {
  const auto timeout = [](const std::string& line) {
    const LoadResult result = load_text(completed("[server]\n" + line));
    INFO(line);
    REQUIRE(result.ok());
    return result.config.server.send_timeout;
  };
  CHECK(timeout("send_timeout = 7") == 7s);
  CHECK(timeout("send_timeout = \"1500ms\"") == 1500ms);
  CHECK(timeout("send_timeout = \"5m\"") == 5min);
  CHECK(timeout("send_timeout = \"2h\"") == 2h);
  CHECK(timeout("send_timeout = \"1d\"") == 24h);
  CHECK(timeout("send_timeout_secs = 8") == 8s);
  CHECK(timeout("send_timeout_ms = 80") == 80ms);
  const auto size = [](const std::string& value) {
    const LoadResult result = load_text(completed("[server]\nmax_body_size = " + value));
    INFO(value);
    REQUIRE(result.ok());
    return result.config.server.max_body_size;
  };
  CHECK(size("4096") == 4096);
  CHECK(size("\"64KiB\"") == 65536);
  CHECK(size("\"64 kib\"") == 65536);
  CHECK(size("\"1MB\"") == 1'000'000);
  CHECK(size("\"3GiB\"") == uint64_t{3} << 30);
  CHECK(size("\"1TiB\"") == uint64_t{1} << 40);
  CHECK(size("\"12B\"") == 12);
  CHECK(size("\"12\"") == 12);
  for (const char* bad : {"\"\"", "\"KiB\"", "\"-1\"", "\"1.5MiB\"", "\"1 MiB \"", "\"1K\"",
                          "\"99999999999999999999\"", "\"9999999TiB\"", "\"1  MiB\""}) {
    INFO(bad);
    CHECK(errors_of(std::string("[server]\nmax_body_size = ") + bad).size() == 1);
  }
  for (const char* bad : {"\"\"", "\"7\"", "\"s\"", "\"1m30s\"", "\"1.5s\"", "\"5M\"", "\"-1s\""}) {
    INFO(bad);
    CHECK(errors_of(std::string("[server]\nsend_timeout = ") + bad).size() == 1);
  }
}

TEST_CASE("other names of keys") {
  const LoadResult result = load_text(completed(
      "[server]\nmax_request_body_size = 5\ngraceful_shutdown_timeout_secs = 3\n"
      "max_request_header_size = \"16KiB\"\n"
      "[logging]\nflush_interval_ms = 250\n"
      "[upstream_defaults]\nidle_connection_timeout_secs = 9\n"
      "[[route]]\nhosts = [\"A.example.com\"]\nmethod = \"GET\"\nclient_max_body_size = 3\n"
      "redirect = {url = \"/x\"}\n"));
  REQUIRE(lines_of(result.errors).empty());
  CHECK(result.config.server.max_body_size == 5);
  CHECK(result.config.server.shutdown_timeout == 3s);
  CHECK(result.config.server.max_header_size == 16384);
  CHECK(result.config.logging.flush_interval == 250ms);
  CHECK(result.config.upstream_defaults.idle_connection_timeout == 9s);
  const Route& route = result.config.routes.front();
  CHECK(route.spec.hosts == std::vector<std::string>{"a.example.com"});
  CHECK(route.spec.methods == std::vector<std::string>{"GET"});
  CHECK(route.max_body_size == 3);
  CHECK(std::get<weir::route::RedirectAction>(route.spec.action).location == "/x");
}

TEST_CASE("the environment") {
  const LoadResult result = load_text(
      "[[listener]]\naddress = \"0.0.0.0:${PORT}\"\n"
      "[server]\nserver_header = \"$5 $$ $${PORT} ${EMPTY:-none} ${NOPE:-a:-b} ${EMPTY}.\"\n"
      "max_header_fields = \"${COUNT}\"\nforwarded = \"${FLAG}\"\nsend_timeout = \"${COUNT}\"\n"
      "keepalive_timeout_ms = \"${COUNT}\"\nthreads = \"${NOPE:-auto}\"\n"
      "max_body_size = \"${COUNT}KiB\"\n"
      "[[route]]\nhost = \"${HOST}\"\nredirect = \"${scheme}://${HOST}${uri}\"\n");
  REQUIRE(lines_of(result.errors).empty());
  const Config& config = result.config;
  CHECK(config.listeners[0].address.port() == 8081);
  CHECK(config.server.server_header == "$5 $ ${PORT} none a:-b .");
  CHECK(config.server.max_header_fields == 55);
  CHECK(config.server.forwarded);
  CHECK(config.server.send_timeout == 55s);
  CHECK(config.server.keepalive_timeout == 55ms);
  CHECK(config.server.threads == 0);
  CHECK(config.server.max_body_size == 55 * 1024);
  CHECK(config.routes[0].spec.hosts == std::vector<std::string>{"env.example.com"});
  CHECK(std::get<weir::route::RedirectAction>(config.routes[0].spec.action).location ==
        "${scheme}://env.example.com${uri}");
}

TEST_CASE("threads and CPUs") {
  const auto server = [](const std::string& lines) {
    const LoadResult result = load_text(completed("[server]\n" + lines));
    REQUIRE(lines_of(result.errors).empty());
    return result.config.server;
  };
  CHECK(server("threads = 4").threads == 4);
  CHECK(server("threads = \"4\"").threads == 4);
  CHECK(server("threads = \"auto\"").threads == 0);
  CHECK(server("threads = 0").threads == 0);
  CHECK(server("cpus = [3, 1]").cpus == std::vector<uint32_t>{1, 3});
  CHECK(server("cpus = \"0-2, 8\"").cpus == std::vector<uint32_t>{0, 1, 2, 8});
  CHECK(server("threads = 2\ncpus = [3, 1]").threads == 2);
}

TEST_CASE("places of settings are kept for later complaints") {
  const LoadResult result = load_text(completed(
      "[security]\ndrop_privileges_user = \"nobody\"\n[upstream.\"a.b\"]\nservers = \"c:1\"\n"
      "send_timeout_ms = 3"));
  CHECK(result.config.places.at("security.drop_privileges_user") == Place{2, 24});
  CHECK(result.config.places.at("upstream.\"a.b\".send_timeout") == Place{5, 19});
  CHECK_FALSE(result.config.places.contains("server.threads"));
}

TEST_CASE("changes that need a restart") {
  const Config before = load_text(completed("[server]\nthreads = 1\nvia = \"a\"")).config;
  const Config after =
      load_text(completed("[server]\nthreads = 2\nvia = \"b\"\ncpus = [0, 1]\n"
                          "[logging]\nchannel_size = 200\nlevel = \"debug\"\n"
                          "[security]\ndrop_privileges_group = \"x\"\n"
                          "[[listener]]\naddress = \"127.0.0.1:1\"\nbacklog = 1\n"))
          .config;
  CHECK(restart_needed(before, before).empty());
  CHECK(restart_needed(before, after) ==
        std::vector<std::string>{"server.threads", "server.cpus", "logging.channel_size",
                                 "security.drop_privileges_group"});
  Config other = before;
  other.listeners[0].backlog = 7;
  CHECK(restart_needed(before, other) == std::vector<std::string>{"listener[0].backlog"});
  const Config services =
      load_text(completed("[server]\nthreads = 1\n[control]\nsocket = \"/a\"\nsocket_mode = "
                          "\"0660\"\n[resolver]\nservers = \"10.0.0.53\"\ntimeout = 1\ntries = 1\n"
                          "min_ttl = 1\nmax_ttl = 9\nhosts = \"/b\"\n"))
          .config;
  CHECK(restart_needed(before, services) ==
        std::vector<std::string>{"control.socket", "control.socket_mode"});
}
