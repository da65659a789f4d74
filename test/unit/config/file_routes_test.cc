// Routes of files, in both forms: what they become, and what is refused.
#include <string>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/config/lower.h>
#include <weir/control/config/schema.h>
#include <weir/route/snapshot.h>

#include "config_cases.h"

using namespace weir;
using namespace weir::control::config;
using namespace weir::control::config::test;

namespace {

Config loaded(const std::string& text) {
  const LoadResult result = load_text(completed(text));
  INFO(text);
  REQUIRE(lines_of(result.errors).empty());
  return result.config;
}

route::FileAction file_of(const std::string& text) {
  const Config config = loaded(text);
  for (const Route& route : config.routes) {
    if (const auto* file = std::get_if<route::FileAction>(&route.spec.action)) return *file;
  }
  FAIL("no route of files");
  return {};
}

// The only error of a route with these lines in its [route.file].
std::string error_of(const std::string& lines) {
  const auto errors = errors_of("[[route]]\n[route.file]\npath = \"/srv\"\n" + lines);
  REQUIRE(errors.size() == 1);
  return errors[0];
}

using Pages = std::vector<std::pair<uint16_t, std::string>>;

constexpr const char* kEverything = R"(index = ["index.htm", "default.html"]
fallback = "/app/index.html"
listing = true
hidden = true
symlinks = "follow"
precompressed = false
cache_control = "public, max-age=60"
expires = "1h"
mode = "memory"
error_pages = {404 = "404.html", 503 = "/errors/busy.html"}
)";

void check_everything(const route::FileAction& file) {
  CHECK(file.root == "/srv/www");
  CHECK(file.index == std::vector<std::string>{"index.htm", "default.html"});
  CHECK(file.fallback == "app/index.html");
  CHECK(file.listing);
  CHECK(file.hidden);
  CHECK(file.links == route::FileLinks::kAnywhere);
  CHECK_FALSE(file.precompressed);
  CHECK(file.cache_control == "public, max-age=60");
  CHECK(file.expires_s == 3600);
  CHECK(file.in_memory);
  CHECK(file.error_pages == Pages{{404, "404.html"}, {503, "errors/busy.html"}});
}

}  // namespace

TEST_CASE("a path alone has the defaults of the schema") {
  const route::FileAction file = file_of("[[route]]\nfile = \"/var/www/site//\"");
  CHECK(file.root == "/var/www/site");
  CHECK(file.index == std::vector<std::string>{"index.html"});
  CHECK(file.fallback.empty());
  CHECK(file.error_pages.empty());
  CHECK(file.cache_control.empty());
  CHECK(file.expires_s == 0);
  CHECK(file.links == route::FileLinks::kBelowRoot);
  CHECK_FALSE(file.listing);
  CHECK_FALSE(file.hidden);
  CHECK(file.precompressed);
  CHECK_FALSE(file.in_memory);
  CHECK(file_of("[[route]]\nfile = \"/\"").root == "/");
  CHECK(file_of("[[route]]\nfile = {path = \"/${HOST}\"}").root == "/env.example.com");
}

TEST_CASE("the table form, inline or not, and the short form") {
  const std::string table = std::string("path = \"/srv/www/\"\n") + kEverything;
  check_everything(file_of("[[route]]\n[route.file]\n" + table));
  check_everything(file_of("[path_routes.a.\"/x\"]\ntype = \"File\"\n" + table));
  check_everything(file_of("[host_routes.a]\ntype = \"File\"\n" + table));
  const route::FileAction file =
      file_of("[[route]]\nfile = {path = \"/s\", index = [], symlinks = \"none\"}");
  CHECK(file.index.empty());
  CHECK(file.links == route::FileLinks::kNone);
  CHECK(file_of("[[route]]\nfile = {path = \"/s\", index = \"i\"}").index ==
        std::vector<std::string>{"i"});
  CHECK(file_of("[[route]]\nfile = {path = \"/s\", expires_secs = 7}").expires_s == 7);
}

TEST_CASE("the short form has every setting of a route of files") {
  for (const Setting& setting : section("route.file").settings) {
    INFO(setting.key);
    bool found = false;
    for (const Setting& other : section("path_routes.HOST.PATH").settings) {
      found = found || other.key == setting.key;
    }
    CHECK(found);
  }
}

TEST_CASE("a route of files is built, with its methods left open") {
  const Config config = loaded("[[route]]\npath = \"/a\"\nfile = \"/nowhere/at/all\"");
  LoweredRoutes lowered = lower_routes(config);
  const auto snapshot = route::build_snapshot(lowered.routes, std::move(lowered.upstreams));
  REQUIRE(snapshot.has_value());
  const route::Route& route = (*snapshot)->routes()[0];
  REQUIRE(route.kind == route::ActionKind::kFile);
  CHECK(route.file->root == "/nowhere/at/all");
  CHECK(route.condition_count == 0);
}

TEST_CASE("paths of files") {
  CHECK(errors_of("[[route]]\nfile = \"www\"") ==
        std::vector<std::string>{"weir.toml:2:8: route[0].file: must be an absolute path such as "
                                 "\"/var/www/site\", not \"www\""});
  CHECK(errors_of("[[route]]\nfile = {path = \"\"}") ==
        std::vector<std::string>{"weir.toml:2:16: route[0].file.path: must be an absolute path "
                                 "such as \"/var/www/site\", not \"\""});
  CHECK(errors_of("[[route]]\nfile = {index = \"a\"}") ==
        std::vector<std::string>{"weir.toml:2:8: route[0].file: has no path"});
  CHECK(errors_of("[[route]]\nfile = 1") ==
        std::vector<std::string>{
            "weir.toml:2:8: route[0].file: must be a path or a table such as {path = "
            "\"/var/www/site\", listing = true}, not an integer"});
  CHECK(errors_of("[[route]]\nfile = \"/a\\u0000b\"") ==
        std::vector<std::string>{
            "weir.toml:2:8: route[0].file: must not contain control characters"});
  CHECK(errors_of("[[route]]\nfile = \"/" + std::string(4095, 'a') + "\"") ==
        std::vector<std::string>{"weir.toml:2:8: route[0].file: is longer than 4095 bytes"});
  CHECK(errors_of("[[route]]\nfile = \"/a\"\nproxy = \"http://b\"") ==
        std::vector<std::string>{"weir.toml:3:1: route[0].proxy: is a second action beside "
                                 "\"file\": a route has exactly one"});
  CHECK(errors_of("[[route]]\nfile = \"/a\"\nlisting = true") ==
        std::vector<std::string>{"weir.toml:3:1: route[0].listing: unknown key here; it belongs to "
                                 "[route.file] or [host_routes.\"HOST\"], "
                                 "[path_routes.\"HOST\".\"PATH\"]"});
}

TEST_CASE("names below the path") {
  const std::string at = "weir.toml:4:";
  CHECK(error_of("index = \"a/b\"") ==
        at + "9: route[0].file.index: \"a/b\" is a path, not a name");
  CHECK(error_of("index = [\"a\", \"..\"]") ==
        at + "15: route[0].file.index[1]: must not have \"..\" in it");
  CHECK(error_of("index = [\"a\", \"a\"]") == at + "15: route[0].file.index[1]: names \"a\" twice");
  CHECK(error_of("index = \"\"") == at + "9: route[0].file.index: has an empty name in it");
  CHECK(error_of("index = [1]") == at + "10: route[0].file.index[0]: must be a string, not an "
                                        "integer");
  CHECK(error_of("fallback = \"../x\"") ==
        at + "12: route[0].file.fallback: must not have \"..\" in it");
  CHECK(error_of("fallback = \"a/./x\"") ==
        at + "12: route[0].file.fallback: must not have \".\" in it");
  CHECK(error_of("fallback = \"a//x\"") ==
        at + "12: route[0].file.fallback: has an empty name in it");
  CHECK(error_of("fallback = \"//x\"") ==
        at + "12: route[0].file.fallback: has an empty name in it");
  for (const char* none : {"", "/", "a/"}) {
    CHECK(error_of("fallback = \"" + std::string(none) + "\"") ==
          at + "12: route[0].file.fallback: must name a file below the route's path, as "
               "\"404.html\" does");
  }
  CHECK(error_of("fallback = \"a\\u0000\"") ==
        at + "12: route[0].file.fallback: must not contain control characters");
  CHECK(error_of("fallback = \"" + std::string(256, 'a') + "\"") ==
        at + "12: route[0].file.fallback: has a name longer than 255 bytes");
}

TEST_CASE("error pages") {
  const std::string at = "weir.toml:4:";
  for (const char* status : {"399", "600", "0404", "4xx", "40", "400", "502"}) {
    CHECK(error_of("error_pages = {" + std::string(status) + " = \"x\"}") ==
          at + "16: route[0].file.error_pages." + status +
              ": is not a status that files lead to: 403, 404, 405, 412, 416, 500 or 503");
  }
  CHECK(error_of("error_pages = {404 = \"../x\"}") ==
        at + "22: route[0].file.error_pages.404: must not have \"..\" in it");
  CHECK(error_of("error_pages = \"x\"") ==
        at + "15: route[0].file.error_pages: must be a table, not a string");
  const Pages ends{{403, "a"}, {503, "b"}};
  CHECK(file_of("[[route]]\nfile = {path = \"/s\", error_pages = {403 = \"a\", 503 = \"b\"}}")
            .error_pages == ends);
}

TEST_CASE("values of a route of files") {
  const std::string at = "weir.toml:4:";
  CHECK(error_of("symlinks = \"all\"") ==
        at + "12: route[0].file.symlinks: must be one of \"inside\", \"follow\", \"none\", not "
             "\"all\"");
  CHECK(error_of("mode = \"mmap\"") ==
        at + "8: route[0].file.mode: must be one of \"sendfile\", \"memory\", not \"mmap\"");
  CHECK(error_of("cache_control = \"a\\r\\nX: y\"") ==
        at + "17: route[0].file.cache_control: must not contain line ends or control characters");
  CHECK(error_of("expires = \"1500ms\"") ==
        at + "11: route[0].file.expires: must be whole seconds");
  CHECK(error_of("expires = \"4000d\"") ==
        at + "11: route[0].file.expires: must be 0 (not sent) or between 1s and 3650d, not 4000d");
  CHECK(error_of("try_files = \"x\"").starts_with(at + "1: route[0].file.try_files: unknown key"));
}
