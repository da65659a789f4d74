// [resolver] and [control].
#include <chrono>
#include <string>

#include <catch2/catch_test_macros.hpp>

#include "config_cases.h"

using namespace weir::control::config;
using namespace weir::control::config::test;
using namespace std::chrono_literals;

namespace {

Config config_of(const std::string& text) {
  LoadResult result = load_text(completed(text));
  INFO(text);
  REQUIRE(lines_of(result.errors).empty());
  return std::move(result.config);
}

std::string one_error(const std::string& text) {
  const auto errors = errors_of(text);
  return errors.size() == 1 ? errors[0] : std::to_string(errors.size()) + " errors";
}

}  // namespace

TEST_CASE("the resolver: defaults and values") {
  const ResolverSettings plain = config_of("").resolver;
  CHECK(plain.servers.empty());
  CHECK(plain.timeout == 2s);
  CHECK(plain.tries == 3);
  CHECK(plain.min_ttl == 5s);
  CHECK(plain.max_ttl == 5min);
  CHECK(plain.hosts == "/etc/hosts");
  CHECK(config_of("[resolver]").resolver == plain);
  const ResolverSettings given =
      config_of(
          "[resolver]\nservers = [\"10.0.0.53\", \"10.0.0.53:5353\", \"::1\", \"[fd00::1]:54\", "
          "\"[fd00::2]\"]\ntimeout = \"500ms\"\ntries = 1\nmin_ttl = \"1s\"\nmax_ttl = \"1s\"\n"
          "hosts = \"\"\n")
          .resolver;
  CHECK(given.servers == std::vector<std::string>{"10.0.0.53:53", "10.0.0.53:5353", "[::1]:53",
                                                  "[fd00::1]:54", "[fd00::2]:53"});
  CHECK(given.timeout == 500ms);
  CHECK(given.tries == 1);
  CHECK(given.min_ttl == 1s);
  CHECK(given.max_ttl == 1s);
  CHECK(given.hosts.empty());
  CHECK(config_of("[resolver]\nservers = \"10.0.0.53\"").resolver.servers.size() == 1);
  CHECK(config_of("[resolver]\nservers = []").resolver.servers.empty());
}

TEST_CASE("what is wrong with the resolver is said") {
  for (const char* bad : {"", "dns.test", "10.0.0.53:0", "10.0.0.53:65536", "10.0.0.53:", "[::1",
                          "::1:x", "10.0.0", "10.0.0.53:53:1"}) {
    INFO(bad);
    CHECK(one_error("[resolver]\nservers = [\"10.0.0.1\", \"" + std::string(bad) + "\"]") ==
          "weir.toml:2:24: resolver.servers[1]: must be an IP address such as \"10.0.0.53\" or "
          "\"[fd00::53]:53\", not \"" +
              std::string(bad) + "\"");
  }
  CHECK(one_error("[resolver]\nservers = [\"10.0.0.1\", \"10.0.0.1:53\"]")
            .ends_with("resolver.servers[1]: names \"10.0.0.1:53\" twice"));
  std::string many = "[resolver]\nservers = [";
  for (int i = 1; i <= 17; ++i) many += "\"10.0.0." + std::to_string(i) + "\",";
  CHECK(one_error(many + "]").ends_with("resolver.servers: names more than 16 servers"));
  CHECK(one_error("[resolver]\nmin_ttl = \"10m\"") ==
        "weir.toml:2:11: resolver.min_ttl: min_ttl (10m) is more than max_ttl (5m)");
  CHECK(one_error("[resolver]\nmin_ttl = 9\nmax_ttl = 3")
            .starts_with("weir.toml:3:11: resolver.max_ttl: "));
  CHECK(one_error("[resolver]\nhosts = \"hosts\"").starts_with("weir.toml:2:9: resolver.hosts: "));
  CHECK(one_error("[resolver]\nttl = 3").find("unknown key") != std::string::npos);
  CHECK(one_error("resolver = \"10.0.0.1\"") ==
        "weir.toml:1:12: resolver: must be a table, not a string");
}

TEST_CASE("the control socket") {
  CHECK(config_of("").control.socket.empty());
  CHECK(config_of("").control.socket_mode == 0600);
  const ControlSettings given =
      config_of("[control]\nsocket = \"/run/weir/control.sock\"\nsocket_mode = \"0660\"").control;
  CHECK(given.socket == "/run/weir/control.sock");
  CHECK(given.socket_mode == 0660);
  CHECK(config_of("[control]\nsocket_mode = \"640\"").control.socket_mode == 0640);
  CHECK(config_of("[control]\nsocket = \"/" + std::string(106, 'x') + "\"").control.socket.size() ==
        107);
  const std::string long_path = "/" + std::string(107, 'x');
  for (const char* text :
       {"run/weir.sock", "@weir", "unix:/run/weir.sock", "/a\\nb", long_path.c_str()}) {
    const std::string bad = text;
    INFO(bad);
    CHECK(
        one_error("[control]\nsocket = \"" + bad + "\"") ==
        "weir.toml:2:10: control.socket: must be an absolute path of at most 107 bytes, or empty");
  }
  for (const char* bad : {"", "60", "0800", "1777", "rw-", "00600", "-600"}) {
    INFO(bad);
    CHECK(one_error("[control]\nsocket_mode = \"" + std::string(bad) + "\"") ==
          "weir.toml:2:15: control.socket_mode: must be permissions in octal such as \"0600\" or "
          "\"0660\", not \"" +
              std::string(bad) + "\"");
  }
  CHECK(one_error("[control]\nsocket_mode = 600") ==
        "weir.toml:2:15: control.socket_mode: must be a string of octal digits such as \"0600\", "
        "not an integer");
  CHECK(one_error("[control]\nsoket = \"/a\"").ends_with("did you mean \"socket\"?"));
  const LoadResult open = load_text(completed("[control]\nsocket_mode = \"0666\""));
  REQUIRE(open.ok());
  CHECK(lines_of(open.warnings) ==
        std::vector<std::string>{"weir.toml:2:15: control.socket_mode: lets every user of this "
                                 "machine take servers out of service"});
  CHECK(one_error("[[listener]]\naddress = \"unix:/run/a\"\n[control]\nsocket = \"/run/a\"") ==
        "weir.toml:4:10: control.socket: is that of the listener in line 1");
}
