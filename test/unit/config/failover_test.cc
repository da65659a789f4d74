// Retries, limits, sticky sessions and names of an upstream, as the file says them and as lowered.
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>

#include <catch2/catch_test_macros.hpp>

#include <sys/stat.h>
#include <unistd.h>

#include <weir/control/config/lower.h>
#include <weir/control/config/schema.h>

#include "config_cases.h"

using namespace weir::control::config;
using namespace weir::control::config::test;
using namespace std::chrono_literals;
using weir::route::RetrySpec;
using weir::route::StickySpec;
using weir::route::UpstreamSpec;

namespace {

LoadResult loaded(const std::string& text, const std::string& before = {},
                  const std::string& servers = "\"10.0.0.1:80\"") {
  return load_text(completed(before + "\n[upstream.a]\nservers = [" + servers + "]\n" + text +
                             "\n[[route]]\nproxy = \"a\"\n"));
}

UpstreamSpec lowered(const std::string& text, const std::string& before = {}) {
  const LoadResult result = loaded(text, before);
  INFO(before << text);
  REQUIRE(lines_of(result.errors).empty());
  return lower_routes(result.config).upstreams.at(0);
}

// The one complaint about `line`, the third of the file, in [upstream.a].
std::string said(const std::string& line, const std::string& servers = "\"b:1\"") {
  const LoadResult result = load_text(completed("[upstream.a]\nservers = " + servers + "\n" + line +
                                                "\n[[route]]\nproxy = \"a\"\n"));
  std::vector<std::string> lines = lines_of(result.errors);
  for (const std::string& warning : lines_of(result.warnings))
    lines.push_back("warning: " + warning);
  return lines.size() == 1 ? lines[0] : std::to_string(lines.size()) + " lines";
}

// A file of its own for each test, gone at its end.
struct KeyFile {
  explicit KeyFile(const std::string& content) {
    path = (std::filesystem::temp_directory_path() /
            ("weir-sticky-" + std::to_string(::getpid()) + "-" + std::to_string(number++)))
               .string();
    std::ofstream(path, std::ios::binary) << content;
  }
  ~KeyFile() { ::unlink(path.c_str()); }
  KeyFile(const KeyFile&) = delete;
  KeyFile& operator=(const KeyFile&) = delete;

  static inline int number = 0;
  std::string path;
};

bool same(const RetrySpec& a, const RetrySpec& b) {
  return a.tries_max == b.tries_max && a.on_connect == b.on_connect && a.on_reset == b.on_reset &&
         a.on_timeout == b.on_timeout && a.on_status == b.on_status &&
         a.non_idempotent == b.non_idempotent && a.try_timeout_ms == b.try_timeout_ms &&
         a.total_timeout_ms == b.total_timeout_ms && a.budget_percent == b.budget_percent &&
         a.budget_per_second == b.budget_per_second && a.hedge_after_ms == b.hedge_after_ms;
}

}  // namespace

TEST_CASE("retries and limits by default, and with all their values") {
  const UpstreamSpec plain = lowered("");
  CHECK(same(plain.retry, RetrySpec{}));
  CHECK(plain.max_connections == UpstreamSpec{}.max_connections);
  CHECK(plain.max_pending == UpstreamSpec{}.max_pending);
  CHECK(plain.pending_timeout_ms == UpstreamSpec{}.pending_timeout_ms);
  CHECK(plain.connect_race_ms == UpstreamSpec{}.connect_race_ms);
  const std::string all =
      "retries = 5\nretry_on = [\"timeout\", 503, \"500\", \"reset\"]\nretry_non_idempotent = "
      "true\n"
      "retry_budget = 35\nretry_budget_min = 4\ntry_timeout = \"2s\"\ntotal_timeout = \"9s\"\n"
      "hedge_after_ms = 70\nmax_connections = 800\nmax_pending = 33\npending_timeout = \"1s\"\n"
      "connect_race = \"20ms\"\n";
  const RetrySpec expected{.tries_max = 6,
                           .on_connect = false,
                           .on_reset = true,
                           .on_timeout = true,
                           .on_status = {500, 503},
                           .non_idempotent = true,
                           .try_timeout_ms = 2'000,
                           .total_timeout_ms = 9'000,
                           .budget_percent = 35,
                           .budget_per_second = 4,
                           .hedge_after_ms = 70};
  for (const UpstreamSpec& spec : {lowered(all), lowered("", "[upstream_defaults]\n" + all)}) {
    CHECK(same(spec.retry, expected));
    CHECK(spec.max_connections == 800);
    CHECK(spec.max_pending == 33);
    CHECK(spec.pending_timeout_ms == 1'000);
    CHECK(spec.connect_race_ms == 20);
  }
  const UpstreamSpec mixed = lowered(
      "retries = 0\nretry_on = \"connect\"\nmax_pending = 0\n"
      "connect_race = 0\nhedge_after = \"5ms\"",
      "[upstream_defaults]\n" + all);
  CHECK(mixed.retry.tries_max == 1);
  CHECK(mixed.retry.on_connect);
  CHECK_FALSE(mixed.retry.on_reset);
  CHECK_FALSE(mixed.retry.on_timeout);
  CHECK(mixed.retry.on_status.empty());
  CHECK(mixed.retry.hedge_after_ms == 5);
  CHECK(mixed.retry.budget_percent == 35);
  CHECK(mixed.max_pending == 0);
  CHECK(mixed.connect_race_ms == 0);
  CHECK(mixed.max_connections == 800);
}

TEST_CASE("what is wrong with retries and limits is said") {
  CHECK(said("retries = 11") ==
        "weir.toml:3:11: upstream.a.retries: must be 0 (none) or between 1 and 10, not 11");
  CHECK(said("retrys = 1") ==
        "weir.toml:3:1: upstream.a.retrys: unknown key; did you mean \"retries\"?");
  CHECK(said("retry_on = []").ends_with("must name something; without retries: retries = 0"));
  for (const char* bad :
       {"\"\"", "\"Reset\"", "499", "\"600\"", "\"5xx\"", "502.5", "-500", "\"500-599\""}) {
    INFO(bad);
    CHECK(
        said("retry_on = [\"connect\", " + std::string(bad) + "]")
            .starts_with("weir.toml:3:24: upstream.a.retry_on[1]: must be \"connect\", \"reset\", "
                         "\"timeout\" or a status from 500 to 599"));
  }
  CHECK(said("retry_on = true").starts_with("weir.toml:3:12: upstream.a.retry_on: must be "));
  CHECK(said("retry_on = [\"reset\", \"reset\"]").ends_with("retry_on[1]: is given twice"));
  CHECK(said("retry_on = [503, \"503\"]").ends_with("retry_on[1]: is given twice"));
  CHECK(said("retry_budget = 101").ends_with("must be between 0 and 100, not 101"));
  CHECK(said("pending_timeout = 0").find("must be between 1ms and 1h") != std::string::npos);
  CHECK(said("connect_race = \"9ms\"").find("0 (no race) or between 10ms") != std::string::npos);
  CHECK(said("max_connections = \"many\"").ends_with("must be an integer, not \"many\""));
  CHECK(said("try_timeout = 5\ntotal_timeout = 4") ==
        "warning: weir.toml:3:15: upstream.a.try_timeout: try_timeout (5s) is more than "
        "total_timeout (4s), which ends all tries");
  CHECK(said("try_timeout = 5\nhedge_after = 5") ==
        "warning: weir.toml:4:15: upstream.a.hedge_after: hedge_after (5s) is not less than the "
        "time that a try has (5s): no request is ever hedged");
  CHECK(said("response_timeout = 5\nhedge_after = 6").starts_with("warning: "));
  CHECK(said("hedge_after = 6") == "0 lines");
  for (const char* where :
       {"[[route]]\nretries = 1\nrespond = {}", "[[route]]\nretry_on = 1\nrespond = {}",
        "[host_routes.a]\nretries = 1\ntype = \"Respond\""}) {
    const auto errors = errors_of(where);
    REQUIRE(errors.size() == 1);
    CHECK(
        errors[0].ends_with(": retries are a matter of the upstream: give them in its "
                            "[upstream.NAME], or in [upstream_defaults]"));
  }
}

TEST_CASE("sticky sessions: off, by default, and with all their values") {
  CHECK(lowered("").sticky == StickySpec{});
  const StickySpec plain = lowered("[upstream.a.sticky]").sticky;
  CHECK(plain.cookie == "weir_sticky");
  CHECK(plain.key.size() == 32);
  CHECK(plain.key != std::string(32, '\0'));
  CHECK(plain.path == "/");
  CHECK(plain.age_max_s == 0);
  CHECK_FALSE(plain.secure);
  CHECK(plain.same_site == "Lax");
  // Sessions outlive a reload.
  CHECK(lowered("sticky = {cookie = \"b\"}").sticky.key == plain.key);

  const KeyFile file("0123456789abcdef\n");
  const StickySpec given =
      lowered("[upstream.a.sticky]\ncookie = \"shop\"\nkey_file = \"" + file.path +
              "\"\nmax_age = \"2h\"\npath = \"/shop\"\nsecure = true\nsame_site = \"None\"")
          .sticky;
  CHECK(given == StickySpec{.cookie = "shop",
                            .key = "0123456789abcdef\n",
                            .path = "/shop",
                            .age_max_s = 7200,
                            .secure = true,
                            .same_site = "None"});
  for (const char* word : {"Lax", "Strict", ""}) {
    CHECK(lowered("sticky = {same_site = \"" + std::string(word) + "\"}").sticky.same_site == word);
  }
  CHECK(lowered("sticky = {cookie = \"__Host-a\", secure = true}").sticky.cookie == "__Host-a");
}

TEST_CASE("what is wrong with sticky sessions is said") {
  const auto complaint = [](const std::string& text) {
    INFO(text);
    const std::string line = said("sticky = {" + text + "}");
    const std::string prefix = "weir.toml:3:";
    REQUIRE(line.starts_with(prefix));
    return line.substr(line.find(": ", prefix.size()) + 2);
  };
  CHECK(said("sticky = true") ==
        "weir.toml:3:10: upstream.a.sticky: must be a table, not a boolean");
  for (const char* bad : {"", "a b", "a=b", "a;b"}) {
    CHECK(complaint("cookie = \"" + std::string(bad) + "\"") ==
          "upstream.a.sticky.cookie: must be letters, digits and marks without spaces");
  }
  for (const char* bad : {"", "a", "/a;b", "/a b", "/\\u0007"}) {
    CHECK(complaint("path = \"" + std::string(bad) + "\"")
              .starts_with("upstream.a.sticky.path: must"));
  }
  CHECK(complaint("max_age = \"1500ms\"").ends_with("must be whole seconds"));
  CHECK(complaint("max_age = \"401d\"").find("400d") != std::string::npos);
  CHECK(
      complaint("same_site = \"lax\"").ends_with("must be \"Lax\", \"Strict\", \"None\" or empty"));
  CHECK(complaint("same_site = \"None\"").find("secure = true only") != std::string::npos);
  CHECK(complaint("cookie = \"__Secure-a\"").find("secure = true only") != std::string::npos);
  CHECK(
      complaint("cookie = \"__host-a\", secure = true, path = \"/a\"").find("path = \"/\" only") !=
      std::string::npos);
  CHECK(complaint("cokie = \"a\"").ends_with("unknown key; did you mean \"cookie\"?"));
  const auto elsewhere = errors_of("[upstream_defaults.sticky]");
  REQUIRE(elsewhere.size() == 1);
  CHECK(elsewhere[0].ends_with("is given for each upstream, as [upstream.NAME.sticky]"));
}

TEST_CASE("a key file has to be there and to be long enough") {
  const auto complaint = [](const std::string& path) {
    return said("sticky = {key_file = \"" + path + "\"}");
  };
  const std::string where = "weir.toml:3:22: upstream.a.sticky.key_file: ";
  CHECK(complaint("/nonexistent/key") ==
        where + "\"/nonexistent/key\" cannot be read: No such file or directory");
  CHECK(complaint("") == where + "must name a file");
  const KeyFile brief("0123456789abcde");
  CHECK(complaint(brief.path) ==
        where + "\"" + brief.path + "\" must hold 16 to 4096 bytes, not 15");
  const KeyFile vast(std::string(4097, 'x'));
  CHECK(complaint(vast.path).ends_with("must hold 16 to 4096 bytes, not more"));
  const KeyFile most(std::string(4096, 'x'));
  CHECK(complaint(most.path) == "0 lines");
  CHECK(complaint("/dev/zero").ends_with("\"/dev/zero\" is not a file"));
  CHECK(complaint("/").ends_with("\"/\" is not a file"));
  // A pipe without a writer must not hold up the load.
  const KeyFile pipe("");
  ::unlink(pipe.path.c_str());
  REQUIRE(::mkfifo(pipe.path.c_str(), 0600) == 0);
  CHECK(complaint(pipe.path).ends_with("is not a file"));
}

TEST_CASE("two upstreams of a site must not share a cookie") {
  const auto warnings = [](const std::string& first, const std::string& second,
                           const std::string& host = "x.test") {
    const LoadResult result =
        load_text(completed("[upstream.a]\nservers = \"a:1\"\n[upstream.a.sticky]\n" + first +
                            "\n[upstream.b]\nservers = \"b:1\"\n[upstream.b.sticky]\n" + second +
                            "\n[[route]]\nhost = \"x.test\"\nproxy = \"a\"\n[[route]]\nhost = \"" +
                            host + "\"\npath = \"/b\"\nproxy = \"b\"\n"));
    REQUIRE(result.ok());
    return lines_of(result.warnings);
  };
  REQUIRE(warnings("", "").size() == 1);
  CHECK(warnings("", "")[0] ==
        "weir.toml:12:1: route[1]: the upstreams \"a\" and \"b\" have the same sticky cookie "
        "\"weir_sticky\" for the host x.test: give them different names or paths");
  CHECK(warnings("", "cookie = \"b\"").empty());
  CHECK(warnings("", "path = \"/b\"").empty());
  CHECK(warnings("", "", "y.test").empty());
}

TEST_CASE("names: families and SRV records") {
  const auto upstream = [](const std::string& text, const std::string& servers,
                           const std::string& before = {}) {
    const LoadResult result = loaded(text, before, servers);
    INFO(text);
    REQUIRE(lines_of(result.errors).empty());
    return result.config.upstreams.at(0);
  };
  CHECK(upstream("", "\"app:80\"").resolve_family == NameFamily::kAny);
  CHECK_FALSE(upstream("", "\"app:80\"").resolve_srv);
  CHECK(upstream("resolve_family = \"ipv4\"", "\"app:80\"").resolve_family == NameFamily::kIpv4);
  CHECK(upstream("resolve_family = \"ipv6\"", "\"app:80\"").resolve_family == NameFamily::kIpv6);

  // A dot at the end: without the domains of resolv.conf, and no part of the name.
  const Upstream dot = upstream("", "\"App.Test.:80\", {address = \"b.test.:81\"}, \"c.test:82\"");
  CHECK(dot.servers[0].host == "app.test");
  CHECK(dot.servers[0].absolute);
  CHECK(dot.servers[0].text == "App.Test.:80");
  CHECK(dot.servers[1].absolute);
  CHECK_FALSE(dot.servers[2].absolute);

  const Upstream srv = upstream("resolve_srv = true",
                                "\"_http._tcp.App.test\", {address = \"b.test\", backup = true}, "
                                "\"10.0.0.1:80\"");
  REQUIRE(srv.servers.size() == 3);
  CHECK(srv.resolve_srv);
  CHECK(srv.servers[0].kind == UpstreamServer::Kind::kName);
  CHECK(srv.servers[0].text == "_http._tcp.App.test");
  CHECK(srv.servers[0].host == "_http._tcp.app.test");
  CHECK(srv.servers[0].port == 0);
  CHECK(srv.servers[1].host == "b.test");
  CHECK(srv.servers[1].backup);
  CHECK(srv.servers[2].port == 80);
  const Upstream secure = upstream("resolve_srv = true", "\"https://_https._tcp.app.test\"");
  CHECK(secure.tls);
  CHECK(secure.servers[0].host == "_https._tcp.app.test");

  const std::string defaults =
      "[upstream_defaults]\nresolve_srv = true\nresolve_family = \"ipv6\"\n";
  CHECK(upstream("", "\"app.test\"", defaults).resolve_srv);
  CHECK_FALSE(upstream("resolve_srv = false", "\"app.test:80\"", defaults).resolve_srv);
  // Defaults for names do not hinder upstreams that have none, nor URLs, which say their port.
  CHECK(upstream("", "\"10.0.0.1:80\"", defaults).servers.size() == 1);
  const LoadResult url =
      load_text(completed(defaults + "[[route]]\nproxy = \"http://app.test:81\"\n"));
  REQUIRE(lines_of(url.errors).empty());
  CHECK_FALSE(url.config.upstreams.at(0).resolve_srv);
  CHECK(url.config.upstreams.at(0).resolve_family == NameFamily::kIpv6);
  CHECK(url.config.upstreams.at(0).servers.at(0).port == 81);
}

TEST_CASE("what is wrong with names is said") {
  CHECK(said("resolve_srv = true") ==
        "weir.toml:2:11: upstream.a.servers: has a port, but with resolve_srv = true the SRV "
        "records say it: give \"b\"");
  CHECK(said("resolve_srv = true", "\"https://b:1\"").ends_with("give \"https://b\""));
  CHECK(said("", "\"b\"").ends_with("needs a port, as in \"10.0.0.1:80\""));
  CHECK(said("resolve_srv = true", "[{address = \"b\", weight = 2}]")
            .ends_with("weight: is what the SRV records of a name say: give it in them"));
  CHECK(said("resolve_srv = true", "[{address = \"b\", priority = 2}]")
            .ends_with("priority: is what the SRV records of a name say: give it in them"));
  CHECK(said("resolve_srv = true", "\"10.0.0.1:80\"") ==
        "weir.toml:3:15: upstream.a.resolve_srv: is for servers given by name, and there is none");
  CHECK(said("resolve_family = \"ipv4\"", "\"unix:/a\"")
            .ends_with("is for servers given by name, and there is none"));
  CHECK(said("resolve_srv = false\nresolve_family = \"any\"", "\"10.0.0.1:80\"") == "0 lines");
  CHECK(said("resolve_family = \"v4\"").find("must be one of \"any\", \"ipv4\", \"ipv6\"") !=
        std::string::npos);
}
