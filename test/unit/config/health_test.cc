// The health of servers as the file says it: active and passive checks and the circuit breaker.
#include <chrono>
#include <string>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/config/lower.h>
#include <weir/control/config/schema.h>

#include "config_cases.h"

using namespace weir::control::config;
using namespace weir::control::config::test;
using namespace std::chrono_literals;
using weir::route::CircuitSpec;
using weir::route::OutlierSpec;

namespace {

using Headers = std::vector<std::pair<std::string, std::string>>;

// An upstream `a`, whose table goes on with `text`; `before` stands before it.
LoadResult loaded(const std::string& text, const std::string& before = {}) {
  return load_text(completed(before + "\n[upstream.a]\nservers = [\"10.0.0.1:80\"]\n" + text +
                             "\n[[route]]\nproxy = \"a\"\n"));
}

Upstream upstream(const std::string& text, const std::string& before = {}) {
  const LoadResult result = loaded(text, before);
  INFO(before << text);
  REQUIRE(lines_of(result.errors).empty());
  REQUIRE(result.config.upstreams.size() == 1);
  return result.config.upstreams.front();
}

HealthSettings health(const std::string& text, const std::string& before = {}) {
  return upstream(text, before).health;
}

// What is said of the table [upstream.a.NAME], whose first line is line 1 here.
std::vector<std::string> said(const std::string& name, const std::string& text) {
  const LoadResult result =
      load_text(completed("[upstream.a." + name + "]\n" + text +
                          "\n[upstream.a]\nservers = \"b:1\"\n" + "[[route]]\nproxy = \"a\"\n"));
  std::vector<std::string> lines = lines_of(result.errors);
  for (const std::string& line : lines_of(result.warnings)) lines.push_back("warning: " + line);
  return lines;
}

std::string one(const std::vector<std::string>& lines) {
  return lines.size() == 1 ? lines[0] : std::to_string(lines.size()) + " lines";
}

const std::string kGlobal =
    "[health_check]\npath = \"/up\"\ninterval = \"2s\"\ntimeout = \"1s\"\n"
    "headers = {A = \"1\", B = \"2\"}\nexpected_status = 204\n";

}  // namespace

TEST_CASE("active checks are off without a table, and have their defaults with one") {
  CHECK_FALSE(health("").enabled);
  CHECK_FALSE(Config{}.upstream_defaults.health.enabled);
  for (const auto& [text, before] : {std::pair<std::string, std::string>{"", "[health_check]"},
                                     {"[upstream.a.health_check]", ""},
                                     {"health_check = {}", ""}}) {
    const HealthSettings checks = health(text, before);
    CHECK(checks.enabled);
    CHECK(checks == HealthSettings{});
    CHECK(checks.type == HealthType::kAuto);
    CHECK(checks.method == "GET");
    CHECK(checks.path == "/_health");
    CHECK(checks.host.empty());
    CHECK(checks.headers.empty());
    CHECK(checks.expected_status == std::vector<ExpectedStatus>{{.first = 200, .last = 299}});
    CHECK(checks.expected_body.empty());
    CHECK(checks.port == 0);
    CHECK(checks.interval == 5s);
    CHECK(checks.timeout == 3s);
    CHECK(checks.jitter_percent == 10);
    CHECK(checks.unhealthy_threshold == 3);
    CHECK(checks.healthy_threshold == 2);
    CHECK(checks.initially_healthy);
  }
}

TEST_CASE("active checks with all their values") {
  const HealthSettings checks = health(
      "[upstream.a.health_check]\ntype = \"http\"\npath = \"/live?deep=1\"\nmethod = \"POST\"\n"
      "host = \"app.internal:81\"\nheaders = {Authorization = \" Bearer x \", \"X-A\" = "
      "\"${PORT}\"}\n"
      "expected_status = [204, \"300-399\", \"200-201\", \"202\"]\nexpected_body = \"\\\"ok\\\"\"\n"
      "port = 8081\ninterval = \"1500ms\"\ntimeout_ms = 900\njitter = 0\nunhealthy_threshold = 1\n"
      "healthy_threshold = 5\ninitially_healthy = false");
  CHECK(checks.type == HealthType::kHttp);
  CHECK(checks.path == "/live?deep=1");
  CHECK(checks.method == "POST");
  CHECK(checks.host == "app.internal:81");
  CHECK(checks.headers == Headers{{"Authorization", "Bearer x"}, {"X-A", "8081"}});
  CHECK(checks.expected_status == std::vector<ExpectedStatus>{{.first = 200, .last = 202},
                                                              {.first = 204, .last = 204},
                                                              {.first = 300, .last = 399}});
  CHECK(checks.expected_body == "\"ok\"");
  CHECK(checks.port == 8081);
  CHECK(checks.interval == 1500ms);
  CHECK(checks.timeout == 900ms);
  CHECK(checks.jitter_percent == 0);
  CHECK(checks.unhealthy_threshold == 1);
  CHECK(checks.healthy_threshold == 5);
  CHECK_FALSE(checks.initially_healthy);
}

TEST_CASE("an upstream starts from [health_check] and has the last word") {
  CHECK(health("", kGlobal).path == "/up");
  // Where it stands in the file does not matter.
  const HealthSettings own =
      health("[upstream.a.health_check]\ntimeout = \"500ms\"\nheaders = {C = \"3\"}\n", kGlobal);
  CHECK(own.enabled);
  CHECK(own.path == "/up");
  CHECK(own.interval == 2s);
  CHECK(own.timeout == 500ms);
  CHECK(own.headers == Headers{{"C", "3"}});
  CHECK(own.expected_status == std::vector<ExpectedStatus>{{.first = 204, .last = 204}});
  CHECK(health("health_check = {headers = {}}", kGlobal).headers.empty());

  CHECK_FALSE(health("health_check = {enabled = false}", kGlobal).enabled);
  CHECK_FALSE(health("", kGlobal + "enabled = false\n").enabled);
  CHECK(health("health_check = {}", kGlobal + "enabled = false\n").enabled);
  CHECK(health("health_check = {enabled = true}", kGlobal + "enabled = false\n").path == "/up");
  CHECK_FALSE(health("health_check = {enabled = false}").enabled);
}

TEST_CASE("URLs of routes are checked like upstreams, targets of CONNECT by a connection") {
  const LoadResult result = load_text(completed(
      "[health_check]\npath = \"/up\"\n"
      "[[route]]\nproxy = \"https://app.internal\"\n[[route]]\nconnect = \"db.internal:5432\"\n"));
  REQUIRE(lines_of(result.errors).empty());
  REQUIRE(result.config.upstreams.size() == 2);
  CHECK(result.config.upstreams[0].health.enabled);
  CHECK(result.config.upstreams[0].health.type == HealthType::kAuto);
  CHECK(result.config.upstreams[0].health.path == "/up");
  CHECK(result.config.upstreams[1].health.enabled);
  CHECK(result.config.upstreams[1].health.type == HealthType::kTcp);
}

TEST_CASE("checks may speak TLS where requests do not, by the settings for TLS") {
  CHECK(health("tls = true\nhealth_check = {type = \"https\"}").type == HealthType::kHttps);
  CHECK(health("tls = true\nhealth_check = {type = \"tcp\"}").type == HealthType::kTcp);
  const Upstream plain =
      upstream("tls_ca_path = \"ca.pem\"\nhealth_check = {type = \"tls\", port = 8443}");
  CHECK_FALSE(plain.tls);
  CHECK(plain.tls_ca_path == "ca.pem");
  CHECK(upstream("tls_ca_path = \"ca.pem\"", "[health_check]\ntype = \"https\"\n").tls_ca_path ==
        "ca.pem");
  const std::string head = "[upstream.a]\nservers = \"b:1\"\ntls_ca_path = \"ca.pem\"\n";
  const std::string foreign = "is for TLS, which this upstream does not speak";
  CHECK(one(errors_of(head + "health_check = {type = \"http\"}")).find(foreign) !=
        std::string::npos);
  CHECK(one(errors_of(head + "health_check = {type = \"tls\", enabled = false}")).find(foreign) !=
        std::string::npos);
  CHECK(one(errors_of("[upstream.a]\nservers = \"unix:/a\"\nhealth_check = {type = \"tls\"}"))
            .ends_with("names no host to check certificates for: give tls_server_name"));
}

TEST_CASE("what is wrong with active checks is said") {
  const auto complaint = [](const std::string& line) {
    INFO(line);
    const std::string text = one(said("health_check", line));
    const std::string prefix = "weir.toml:2:";
    REQUIRE(text.starts_with(prefix));
    return text.substr(prefix.size());
  };
  CHECK(complaint("pth = \"/\"") ==
        "1: upstream.a.health_check.pth: unknown key; did you mean \"path\"?");
  CHECK(complaint("interval = true") ==
        "12: upstream.a.health_check.interval: must be a duration such as 30 (seconds), \"500ms\" "
        "or \"5m\", not a boolean");
  CHECK(complaint("timeout = 0") ==
        "11: upstream.a.health_check.timeout: must be between 1ms and 1h, not 0s");
  CHECK(complaint("interval = 0").find("must be between 10ms and 1d") != std::string::npos);
  CHECK(complaint("healthy_threshold = 0").find("between 1 and 1000") != std::string::npos);
  CHECK(complaint("unhealthy_threshold = 0").find("between 1 and 1000") != std::string::npos);
  CHECK(complaint("jitter = 101").find("between 0 and 100") != std::string::npos);
  CHECK(complaint("port = 65536").find("0 (the server's own) or between") != std::string::npos);
  CHECK(complaint("type = \"ftp\"").find("must be one of \"auto\", \"http\"") != std::string::npos);
  for (const char* bad : {"", "up", "/a b", "/caf\xc3\xa9", "/a\\u0001", "/a#b"}) {
    CHECK(complaint("path = \"" + std::string(bad) + "\"")
              .starts_with("8: upstream.a.health_check.path: must "));
  }
  CHECK(complaint("method = \"GE T\"").ends_with("is not a method"));
  CHECK(complaint("method = \"CONNECT\"").find("cannot be CONNECT") != std::string::npos);
  CHECK(complaint("host = \"a b\"").find("must be a host such as") != std::string::npos);
  CHECK(complaint("host = \"http://a\"").find("must be a host such as") != std::string::npos);
  CHECK(complaint("headers = []").ends_with("must be a table, not a list"));
  CHECK(complaint("headers = {\"A B\" = \"x\"}").ends_with("\"A B\": is not a header name"));
  CHECK(complaint("headers = {Host = \"x\"}").ends_with("Host: is given as host of the check"));
  for (const char* own : {"Content-Length", "connection", "Transfer-Encoding", "TE", "Upgrade",
                          "Expect", "Trailer", "Keep-Alive"}) {
    CHECK(complaint("headers = {" + std::string(own) + " = \"x\"}")
              .ends_with("is set by weir itself and cannot be given"));
  }
  CHECK(complaint("headers = {A = \"x\\r\\nB: y\"}").find("line ends") != std::string::npos);
  CHECK(complaint("headers = {A = 1}").ends_with("must be a string, not an integer"));
  CHECK(complaint("headers = {A = \"1\", a = \"2\"}").ends_with("a: is given twice"));
  for (const char* bad : {"199", "600", "0", "-1", "\"2xx\"", "\"\"", "\"299-200\"", "\"200-\"",
                          "\"-200\"", "\"200-600\"", "\"200 - 299\"", "\"0200\"", "\"100-200\""}) {
    CHECK(complaint("expected_status = " + std::string(bad))
              .starts_with("19: upstream.a.health_check.expected_status: must be a status from"));
  }
  CHECK(complaint("expected_status = [200, true]")
            .starts_with("25: upstream.a.health_check.expected_status[1]: must be a status such"));
  CHECK(complaint("expected_status = []").find("1 to 400") != std::string::npos);
  CHECK(complaint("expected_body = \"" + std::string(65'537, 'x') + "\"")
            .ends_with("is longer than 64 KiB, which is read"));
  CHECK(one(said("health_check", "method = \"HEAD\"\nexpected_body = \"x\"")) ==
        "weir.toml:3:17: upstream.a.health_check.expected_body: an answer to HEAD has no content "
        "to look for expected_body in");
  CHECK(one(errors_of("health_check = 3")) ==
        "weir.toml:1:16: health_check: must be a table, not an integer");
  CHECK(one(errors_of("[upstream_defaults.health_check]")).ends_with(" own, [health_check]"));
}

TEST_CASE("settings of requests do not go with checks that send none") {
  for (const char* line : {"path = \"/\"", "method = \"GET\"", "host = \"a\"", "headers = {}",
                           "expected_status = 200", "expected_body = \"x\""}) {
    INFO(line);
    CHECK(one(said("health_check", "type = \"tcp\"\n" + std::string(line)))
              .ends_with("is for checks that send a request, not for type = \"tcp\" or \"tls\""));
  }
  // But those that all upstreams have do not hinder one that is checked in another way.
  CHECK(health("health_check = {type = \"tcp\"}", kGlobal).type == HealthType::kTcp);
}

TEST_CASE("a check may take longer than its interval, with a warning") {
  CHECK(said("health_check", "interval = 3").empty());
  CHECK(one(said("health_check", "interval = 2")) ==
        "warning: weir.toml:2:12: upstream.a.health_check.interval: timeout (3s) is more than "
        "interval (2s): the next check of a server waits for the one before");
  CHECK(one(said("health_check", "timeout = 6"))
            .starts_with("warning: weir.toml:2:11: upstream.a.health_check.timeout: "));
  CHECK(said("health_check", "timeout = 6\nenabled = false").empty());
  // Said once, where it stands.
  CHECK(lines_of(loaded("", "[health_check]\ntimeout = 9\n").warnings).size() == 1);
}

TEST_CASE("a port of checks is not for Unix sockets") {
  const std::string unix = "[upstream.a]\nservers = \"unix:/a\"\nhealth_check = {port = 81}";
  CHECK(one(errors_of(unix)) ==
        "weir.toml:3:24: upstream.a.health_check.port: is not for Unix sockets, and all of the "
        "servers are on such");
  CHECK(errors_of("[upstream.a]\nservers = [\"unix:/a\", \"b:1\"]\nhealth_check = {port = 81}")
            .empty());
  CHECK(errors_of("[upstream.a]\nservers = \"unix:/a\"\n[health_check]\nport = 81").empty());
}

TEST_CASE("passive checks: defaults, values, inheritance") {
  // The specs' own defaults are those of the schema.
  CHECK(upstream("").passive == OutlierSpec{});
  const std::string defaults =
      "[upstream_defaults.passive_check]\nconsecutive_errors = 3\n"
      "window = \"20s\"\n";
  CHECK(upstream("", defaults).passive.consecutive_errors == 3);
  const LoadResult result = loaded(
      "[upstream.a.passive_check]\nerror_percent = 25\nerror_requests_min = 5\nslow_percent = 300\n"
      "slow_floor = \"20ms\"\nslow_requests_min = 4\nejection_time = \"3s\"\n"
      "ejection_time_max = \"30s\"\nmax_ejected_percent = 34\nmin_servers = 2\n",
      defaults);
  REQUIRE(result.ok());
  CHECK(lower_routes(result.config).upstreams.at(0).outliers ==
        OutlierSpec{.enabled = true,
                    .consecutive_errors = 3,
                    .error_percent = 25,
                    .error_requests_min = 5,
                    .window_ms = 20'000,
                    .latency_percent = 300,
                    .latency_floor_ms = 20,
                    .latency_requests_min = 4,
                    .ejection_ms = 3'000,
                    .ejection_max_ms = 30'000,
                    .ejected_percent_max = 34,
                    .servers_left_min = 2});
  CHECK_FALSE(upstream("passive_check = {enabled = false}", defaults).passive.enabled);
  CHECK(upstream("passive_check = {enabled = true}",
                 "[upstream_defaults.passive_check]\nenabled = false\n")
            .passive.enabled);
  CHECK(upstream("passive_check = {slow_percent = 0}").passive.latency_percent == 0);
}

TEST_CASE("what is wrong with passive checks is said") {
  CHECK(one(said("passive_check", "ejection_time = \"10m\"")) ==
        "weir.toml:2:17: upstream.a.passive_check.ejection_time: ejection_time (10m) is more than "
        "ejection_time_max (5m)");
  CHECK(one(said("passive_check", "ejection_time_max = 1"))
            .starts_with("weir.toml:2:21: upstream.a.passive_check.ejection_time_max: "));
  CHECK(said("passive_check", "ejection_time = 1\nejection_time_max = 1").empty());
  CHECK(one(said("passive_check", "slow_percent = 100"))
            .ends_with("must be 0 (not judged by that) or between 101 and 100000, not 100"));
  CHECK(one(said("passive_check", "min_servers = 0")).find("between 1 and 10000") !=
        std::string::npos);
  CHECK(one(said("passive_check", "max_fails = 3")).find("unknown key") != std::string::npos);
  CHECK(
      one(said("passive_check", "enabled = 1")).ends_with("must be true or false, not an integer"));
  CHECK(one(said("passive_check", "consecutive_errors = 0\nerror_percent = 0")) ==
        "warning: weir.toml:2:22: upstream.a.passive_check.consecutive_errors: nothing is left to "
        "judge servers by; enabled = false says so plainly");
  CHECK(one(errors_of("[upstream_defaults]\npassive_check = true")) ==
        "weir.toml:2:17: upstream_defaults.passive_check: must be a table, not a boolean");
}

TEST_CASE("with a circuit breaker passive checks count errors only where that is said") {
  const auto with = upstream("circuit_breaker = {failures = 7}").passive;
  CHECK(with.enabled);
  CHECK(with.consecutive_errors == 0);
  CHECK(with.error_percent == 0);
  const auto said =
      upstream("circuit_breaker = {failures = 7}\npassive_check = {consecutive_errors = 9}")
          .passive;
  CHECK(said.consecutive_errors == 9);
  CHECK(said.error_percent == 0);
  const std::string defaults = "[upstream_defaults]\ncircuit_breaker = {failures = 7}\n";
  CHECK(upstream("", defaults).passive.consecutive_errors == 0);
  CHECK(upstream("circuit_breaker = {failures = 0}", defaults).passive.consecutive_errors == 5);
  CHECK(upstream("", defaults + "passive_check = {error_percent = 30}\n").passive.error_percent ==
        30);
}

TEST_CASE("circuit breakers: defaults, values, inheritance, errors") {
  CHECK(upstream("").circuit == CircuitSpec{});
  const std::string defaults =
      "[upstream_defaults.circuit_breaker]\nopen_time = \"2s\"\ntrials = 3\n";
  // Without `failures` they are defaults for those that say it.
  CHECK(upstream("", defaults).circuit.failures == 0);
  const LoadResult result = loaded(
      "connect_timeout = \"30s\"\nsend_timeout = \"1m\"\nresponse_timeout = \"2m\"\n"
      "circuit_breaker = {failures = 7, open_time_max = \"9s\", successes = 4}",
      defaults);
  REQUIRE(result.ok());
  CHECK(lower_routes(result.config).upstreams.at(0).circuit ==
        CircuitSpec{.failures = 7,
                    .open_ms = 2'000,
                    .open_max_ms = 9'000,
                    .trials_max = 3,
                    .successes = 4,
                    .trial_timeout_ms = 210'000});
  const LoadResult longest =
      loaded("connect_timeout = \"30d\"\nsend_timeout = \"30d\"\nresponse_timeout = \"30d\"\n");
  CHECK(lower_routes(longest.config).upstreams.at(0).circuit.trial_timeout_ms == UINT32_MAX);
  const LoadResult shortest =
      loaded("connect_timeout = 1\nsend_timeout = 1\nresponse_timeout = 1\n");
  CHECK(lower_routes(shortest.config).upstreams.at(0).circuit.trial_timeout_ms == 60'000);
  CHECK(upstream("circuit_breaker = {failures = 0, trials = 2}").circuit.failures == 0);
  CHECK(one(said("circuit_breaker", "trials = 2")) ==
        "weir.toml:2:10: upstream.a.circuit_breaker.trials: has no failures beside it: so many "
        "open the circuit, and 0 is never");
  CHECK(one(said("circuit_breaker", "failures = 3\nopen_time = 60")) ==
        "weir.toml:3:13: upstream.a.circuit_breaker.open_time: open_time (1m) is more than "
        "open_time_max (30s)");
  CHECK(one(said("circuit_breaker", "failures = -1")).find("0 (no circuit breaker)") !=
        std::string::npos);
  CHECK(one(said("circuit_breaker", "failurs = 1")).find("did you mean \"failures\"?") !=
        std::string::npos);
}
