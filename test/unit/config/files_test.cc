// Files: reading them, the examples that are shipped, and docs/CONFIG.md.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/config/lower.h>
#include <weir/control/config/schema.h>
#include <weir/route/match.h>
#include <weir/route/snapshot.h>

#include "config_cases.h"

using namespace weir;
using namespace weir::control::config;
using namespace weir::control::config::test;

namespace {

std::string read_whole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::unique_ptr<route::Snapshot> built(const Config& config) {
  LoweredRoutes lowered = lower_routes(config);
  auto snapshot = route::build_snapshot(std::move(lowered.routes), std::move(lowered.upstreams));
  REQUIRE(snapshot.has_value());
  return std::move(*snapshot);
}

struct TemporaryFile {
  std::string path = "/tmp/weir-config-test-XXXXXX";

  explicit TemporaryFile(std::string_view text) {
    const int fd = ::mkstemp(path.data());
    REQUIRE(fd >= 0);
    REQUIRE(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    ::close(fd);
  }
  ~TemporaryFile() { ::unlink(path.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
};

}  // namespace

TEST_CASE("docs/CONFIG.md is what the schema says") {
  const std::string expected = render_reference();
  const bool equal = read_whole(WEIR_CONFIG_REFERENCE) == expected;
  INFO("run: weir config-reference > docs/CONFIG.md");
  CHECK(equal);
  for (const Section& part : schema()) {
    for (const Setting& setting : part.settings) {
      CHECK(expected.find("| `" + std::string(setting.key) + "` |") != std::string::npos);
    }
  }
}

TEST_CASE("the examples of the reference load") {
  for (const Section& part : schema()) {
    if (part.example.empty()) continue;
    INFO(part.example);
    CHECK(errors_of(part.example).empty());
  }
}

TEST_CASE("the shipped configurations load without a word") {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(WEIR_CONFIG_EXAMPLES)) {
    if (entry.path().extension() != ".toml") continue;
    INFO(entry.path());
    const LoadResult result = load_config(entry.path().string(), environment);
    CHECK(lines_of(result.errors).empty());
    CHECK(lines_of(result.warnings).empty());
    built(result.config);
    ++count;
  }
  CHECK(count >= 5);
}

TEST_CASE("the demo: a page, and a proxied API whose origin is weir") {
  const LoadResult result =
      load_config(std::string(WEIR_CONFIG_EXAMPLES) + "/weir.toml", environment);
  REQUIRE(result.ok());
  REQUIRE(result.config.listeners.size() == 3);
  CHECK(result.config.listeners[0].address.to_string() == "127.0.0.1:8080");
  const auto snapshot = built(result.config);
  route::RequestView request{.host = "127.0.0.1",
                             .path = "/",
                             .query = "",
                             .method = "GET",
                             .client = nullptr,
                             .scheme = "http",
                             .headers = {}};
  const route::Route* page = route::match(*snapshot, request);
  REQUIRE(page != nullptr);
  CHECK(page->kind == route::ActionKind::kRespond);
  request.path = "/api/hello";
  const route::Route* api = route::match(*snapshot, request);
  REQUIRE(api != nullptr);
  REQUIRE(api->kind == route::ActionKind::kProxy);
  const route::UpstreamSpec& demo = snapshot->upstream(api->upstream);
  CHECK(demo.servers.at(0).address == result.config.listeners[2].address);
  // Through the proxy the host changes, and with it the route: no loop.
  request.host = demo.host_header;
  const route::Route* origin = route::match(*snapshot, request);
  REQUIRE(origin != nullptr);
  CHECK(origin->kind == route::ActionKind::kRespond);
  CHECK(origin->status == 200);
}

TEST_CASE("files that cannot be read") {
  CHECK(lines_of(load_config("/nonexistent/weir.toml", environment).errors) ==
        std::vector<std::string>{
            "/nonexistent/weir.toml:1:1: cannot open the file: No such file or directory"});
  CHECK(lines_of(load_config("/tmp", environment).errors) ==
        std::vector<std::string>{"/tmp:1:1: cannot read the file: Is a directory"});
  const TemporaryFile good("[[listener]]\naddress = \"0.0.0.0:80\"\n[[route]]\nrespond = {}\n");
  const LoadResult result = load_config(good.path, environment);
  CHECK(result.ok());
  CHECK(result.config.file == good.path);
  const TemporaryFile bad("x = 1");
  CHECK(
      load_config(bad.path, environment).errors.at(0).to_string().starts_with(bad.path + ":1:1: "));
}

TEST_CASE("files that are too large") {
  const TemporaryFile file("");
  std::filesystem::resize_file(file.path, kFileBytesMax + 1);
  CHECK(lines_of(load_config(file.path, environment).errors) ==
        std::vector<std::string>{file.path + ":1:1: the file is larger than 64 MiB"});
}

TEST_CASE("keys of later releases are refused by name") {
  for (const LaterKey& later : later_keys()) {
    if (!later.section.empty() || later.key.ends_with('*')) continue;
    CHECK(errors_of("[" + std::string(later.key) + "]\nx = 1") ==
          std::vector<std::string>{"weir.toml:1:2: " + std::string(later.key) +
                                   ": not available yet: comes with " +
                                   std::string(later.feature)});
  }
  const auto one = [](const std::string& text) {
    const auto errors = errors_of(text);
    return errors.size() == 1 ? errors[0] : std::to_string(errors.size()) + " errors";
  };
  CHECK(one("[tls]\nearly_data = true") ==
        "weir.toml:2:1: tls.early_data: not available yet: comes with the early data release");
  CHECK(one("[[route]]\nearly_data = true\nrespond = {}") ==
        "weir.toml:2:1: route[0].early_data: not available yet: comes with the early data release");
  CHECK(one("[tls]\nauto_certificates = true") ==
        "weir.toml:2:1: tls.auto_certificates: not available yet: comes with the automatic "
        "certificates release");
  CHECK(one("[server]\nhttp2_enabled = true") ==
        "weir.toml:2:1: server.http2_enabled: not available yet: comes with the HTTP/2 release");
  CHECK(one("[security]\nseccomp_mode = \"log\"") ==
        "weir.toml:2:1: security.seccomp_mode: not available yet: comes with the sandbox release");
  CHECK(one("[upstream.a]\nservers = \"b:1\"\nprotocol = \"h2\"") ==
        "weir.toml:3:1: upstream.a.protocol: not available yet: comes with the HTTP/2 release");
  CHECK(one("[host_routes.a]\ntype = \"Respond\"\nsecurity = {rate_limit_requests_per_min = 3}") ==
        "weir.toml:3:13: host_routes.a.security.rate_limit_requests_per_min: not available yet: "
        "comes with the access control release");
}

TEST_CASE("the process environment") {
  ::setenv("WEIR_CONFIG_TEST", "value", 1);
  CHECK(process_environment()("WEIR_CONFIG_TEST") == "value");
  ::unsetenv("WEIR_CONFIG_TEST");
  CHECK(process_environment()("WEIR_CONFIG_TEST") == std::nullopt);
}
