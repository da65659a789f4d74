// What becomes of routes and upstreams: both forms of the file, lowered for the routing room.
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

Config loaded(const std::string& text) {
  const LoadResult result = load_text(completed(text));
  INFO(text);
  REQUIRE(lines_of(result.errors).empty());
  return result.config;
}

std::string describe(const std::vector<route::NameValueCondition>& conditions) {
  std::string out;
  for (const auto& condition : conditions) {
    out += condition.name + " " + std::to_string(static_cast<int>(condition.match)) + " " +
           condition.value.value_or("-") + ";";
  }
  return out;
}

struct DescribeAction {
  const LoweredRoutes& all;
  std::string operator()(const route::ProxyAction& proxy) const {
    return "proxy " + all.upstreams.at(proxy.upstream).name + " " +
           proxy.target_path.value_or("(as it is)");
  }
  std::string operator()(const route::RedirectAction& redirect) const {
    return "redirect " + std::to_string(redirect.status) + " " + redirect.location;
  }
  std::string operator()(const route::RespondAction& respond) const {
    std::string out = "respond " + std::to_string(respond.status) + " [" + respond.body + "]";
    for (const auto& [name, value] : respond.headers) out += " " + name + "=" + value;
    return out;
  }
  std::string operator()(const route::FileAction& file) const {
    return "file " + file.root + (file.in_memory ? " memory" : "");
  }
  std::string operator()(const route::ConnectAction& connect) const {
    std::string out = "connect";
    for (const route::ConnectTarget& target : connect.targets) {
      out += " " + target.authority + "=" + all.upstreams.at(target.upstream).name;
    }
    return out;
  }
};

// All of a route but where it stands in the file.
std::vector<std::string> describe(const LoweredRoutes& lowered) {
  std::vector<std::string> lines;
  for (const route::RouteSpec& spec : lowered.routes) {
    std::string line;
    for (const std::string& host : spec.hosts) line += host + ",";
    line += " " + spec.path + (spec.exact ? " exact" : "");
    for (const std::string& method : spec.methods) line += " " + method;
    line += " h:" + describe(spec.headers) + " q:" + describe(spec.query);
    for (const base::Cidr& block : spec.source) line += " " + block.to_string();
    line += " max " + std::to_string(spec.max_body_bytes) + " ";
    line += std::visit(DescribeAction{lowered}, spec.action);
    lines.push_back(line);
  }
  return lines;
}

std::unique_ptr<route::Snapshot> built(const Config& config) {
  LoweredRoutes lowered = lower_routes(config);
  auto snapshot = route::build_snapshot(std::move(lowered.routes), std::move(lowered.upstreams));
  if (!snapshot) {
    for (const route::BuildError& error : snapshot.error()) UNSCOPED_INFO(error.message);
  }
  REQUIRE(snapshot.has_value());
  return std::move(*snapshot);
}

}  // namespace

TEST_CASE("the short form means the same as the canonical form") {
  const Config canonical = loaded(R"(
[upstream.app]
servers = "10.0.0.1:80"
[[route]]
host = "example.com"
path = "/"
proxy = "app"
[[route]]
host = "*"
path = "/"
redirect = {url = "https://x.example${uri}", status = 301}
[[route]]
host = "example.com"
path = "/api/"
methods = ["GET", "PUT"]
proxy = "http://127.0.0.1:4000/v2/"
max_body_size = "1MiB"
[[route]]
host = "example.com"
path = "/api/"
respond = {status = 405, headers = {Allow = "GET, PUT"}, body = "405 Method Not Allowed\n"}
max_body_size = "1MiB"
[[route]]
host = "*.example.com"
path = "/gone"
respond = {status = 410, body = "gone", content_type = "text/html", headers = {X-A = ["1", "2"]}}
)");
  const Config brief = loaded(R"(
[upstream.app]
servers = "10.0.0.1:80"
[host_routes."Example.com"]
type = "Proxy"
upstream = "app"
[host_routes.default]
type = "Redirect"
redirect_url = "https://x.example${uri}"
redirect_status = 301
[path_routes."example.com"."/api/"]
type = "Proxy"
url = "http://127.0.0.1:4000/v2/"
[path_routes."example.com"."/api/".security]
allowed_methods = ["GET", "PUT"]
max_request_body_size = 1_048_576
[path_routes."*.example.com"."/gone"]
type = "Respond"
status = 410
body = "gone"
content_type = "text/html"
headers = {X-A = ["1", "2"]}
)");
  auto left = describe(lower_routes(canonical));
  auto right = describe(lower_routes(brief));
  // The route of completed() is a [[route]]: those of the file come first, then the short form's.
  left.erase(left.begin() + 5);
  right.erase(right.begin());
  CHECK(left == right);
  REQUIRE(left.size() == 5);
  CHECK(left[2] == "example.com, /api/ GET PUT h: q: max 1048576 proxy http://127.0.0.1:4000 /v2/");
  CHECK(left[4] ==
        "*.example.com, /gone h: q: max 18446744073709551615 respond 410 [gone] X-A=1 X-A=2 "
        "Content-Type=text/html");
}

TEST_CASE("allowed_methods answers 405 with Allow to the others") {
  const Config config = loaded(R"(
[path_routes.a."/x"]
type = "Respond"
body = "here"
security = {allowed_methods = "GET"}
)");
  const auto snapshot = built(config);
  route::RequestView request{.host = "a",
                             .path = "/x/y",
                             .query = "",
                             .method = "GET",
                             .client = nullptr,
                             .scheme = "http",
                             .headers = {}};
  const route::Route* get = route::match(*snapshot, request);
  REQUIRE(get != nullptr);
  CHECK(get->status == 200);
  request.method = "POST";
  const route::Route* post = route::match(*snapshot, request);
  REQUIRE(post != nullptr);
  CHECK(post->status == 405);
  CHECK(post->respond->field_lines.find("Allow: GET\r\n") != std::string_view::npos);
}

TEST_CASE("conditions") {
  const Config config = loaded(R"(
[[route]]
host = ["a.example", "*.b.example", "192.0.2.7", "[2001:DB8::1]", "*"]
path = "/a/./b/%7euser"
match = "exact"
methods = ["GET", "PROPFIND"]
headers = {"X-A" = "1", "X-B" = true, "x-c" = false, "X-D" = {prefix = "p"}}
query = {q = "1", "Q" = {prefix = "z"}}
source = ["10.0.0.0/8", "::1"]
name = "all"
respond = {}
)");
  const route::RouteSpec& spec = config.routes[0].spec;
  CHECK(spec.hosts ==
        std::vector<std::string>{"a.example", "*.b.example", "192.0.2.7", "[2001:db8::1]", "*"});
  CHECK(spec.path == "/a/b/~user");
  CHECK(spec.exact);
  CHECK(spec.name == "all");
  CHECK(describe(spec.headers) == "x-a 0 1;x-b 2 -;x-c 3 -;x-d 1 p;");
  CHECK(describe(spec.query) == "q 0 1;Q 1 z;");
  CHECK(spec.source.size() == 2);
  CHECK(config.routes[0].key == "route[0]");
  CHECK(config.routes[0].place == Place{2, 1});
  CHECK(lower_routes(config).routes[0].origin_text == "weir.toml:2");
  built(config);
}

TEST_CASE("responses get a content type when they have a body") {
  const Config config = loaded(R"(
[[route]]
path = "/a"
respond = {body = "x"}
[[route]]
path = "/b"
respond = {status = 204}
[[route]]
path = "/c"
respond = {body = "x", headers = {content-type = "image/png"}}
)");
  const auto lines = describe(lower_routes(config));
  CHECK(lines[0].ends_with("respond 200 [x] Content-Type=text/plain; charset=utf-8"));
  CHECK(lines[1].ends_with("respond 204 []"));
  CHECK(lines[2].ends_with("respond 200 [x] content-type=image/png"));
}

TEST_CASE("upstreams: named, implicit, and by URL") {
  const Config config = loaded(R"(
[upstream_defaults]
connect_timeout = 1
[upstream.z]
servers = ["10.0.0.1:80", {address = "App.Internal:3000", weight = 3},
  "unix:/run/a.sock", "[::1]:81"]
send_timeout = "2s"
host_header = "z.internal:8080"
max_connection_lifetime = 0
[upstream.a]
servers = "localhost:3000"
[[route]]
path = "/1"
proxy = "z"
[[route]]
path = "/2"
proxy = "http://z/sub/"
[[route]]
path = "/3"
proxy = "http://z:80"
[[route]]
path = "/4"
proxy = "http://Other"
[[route]]
path = "/5"
proxy = "http://other:80/"
[[route]]
path = "/6"
proxy = "http://[::1]:8080/a/../b"
[[route]]
path = "/7"
proxy = "a"
)");
  REQUIRE(config.upstreams.size() == 5);
  const Upstream& z = config.upstreams[0];
  CHECK(z.name == "z");
  CHECK_FALSE(z.implicit);
  CHECK(z.place == Place{4, 1});
  CHECK(config.upstreams[1].name == "a");
  CHECK(config.upstreams[2].name == "http://z:80");
  CHECK(config.upstreams[3].name == "http://other:80");
  CHECK(config.upstreams[3].implicit);
  CHECK(config.upstreams[4].name == "http://[::1]:8080");

  const LoweredRoutes lowered = lower_routes(config);
  const auto lines = describe(lowered);
  CHECK(lines[0].ends_with(" proxy z (as it is)"));
  CHECK(lines[1].ends_with(" proxy z /sub/"));
  CHECK(lines[2].ends_with(" proxy http://z:80 (as it is)"));
  CHECK(lines[3].ends_with(" proxy http://other:80 (as it is)"));
  CHECK(lines[4].ends_with(" proxy http://other:80 /"));
  CHECK(lines[5].ends_with(" proxy http://[::1]:8080 /b"));

  const route::UpstreamSpec& spec = lowered.upstreams[0];
  CHECK(spec.connect_timeout_ms == 1000);
  CHECK(spec.send_timeout_ms == 2000);
  CHECK(spec.lifetime_ms == 0);
  CHECK(spec.idle_timeout_ms == 30'000);
  CHECK(spec.max_idle_per_host == 256);
  CHECK(spec.max_connecting == 64);
  CHECK(spec.host_header == "z.internal:8080");
  REQUIRE(spec.servers.size() == 4);
  CHECK(spec.servers[0].resolved);
  CHECK(spec.servers[0].address.to_string() == "10.0.0.1:80");
  CHECK_FALSE(spec.servers[1].resolved);
  CHECK(spec.servers[1].address_text == "App.Internal:3000");
  CHECK(spec.servers[1].weight == 3);
  CHECK(z.servers[1].host == "app.internal");
  CHECK(z.servers[1].port == 3000);
  CHECK(spec.servers[2].resolved);
  CHECK(spec.servers[2].address.is_unix());
  CHECK(spec.servers[3].address.to_string() == "[::1]:81");
  CHECK(lowered.upstreams[3].connect_timeout_ms == 1000);
  CHECK(lowered.upstreams[3].id == 3);
  built(config);
}

TEST_CASE("body limits: the route's, else the server's") {
  const Config config = loaded(R"(
[server]
max_body_size = 10
[[route]]
path = "/1"
respond = {}
[[route]]
path = "/2"
max_body_size = 0
respond = {}
[[route]]
path = "/3"
max_body_size = "2KiB"
respond = {}
)");
  const LoweredRoutes lowered = lower_routes(config);
  CHECK(lowered.routes[0].max_body_bytes == 10);
  CHECK(lowered.routes[1].max_body_bytes == UINT64_MAX);
  CHECK(lowered.routes[2].max_body_bytes == 2048);
}

TEST_CASE("listeners of both forms") {
  const Config config = loaded(
      "[server]\nlisten = [\"*:80\", \"unix:@weir\"]\n"
      "[[listener]]\naddress = \"[::1]:0\"\nname = \"six\"\nbacklog = 3\n");
  REQUIRE(config.listeners.size() == 4);
  CHECK(config.listeners[0].address_text == "*:80");
  CHECK(config.listeners[0].address.to_string() == "[::]:80");
  CHECK(config.listeners[0].place == Place{2, 11});
  CHECK(config.listeners[1].address.is_unix());
  CHECK(config.listeners[2].name == "six");
  CHECK(config.listeners[2].backlog == 3);
}

TEST_CASE("many routes") {
  std::string text = "[upstream.api]\nservers = \"10.0.0.1:80\"\n";
  constexpr int kRoutes = 20'000;
  for (int i = 0; i < kRoutes; ++i) {
    text += "[[route]]\nhost = \"h" + std::to_string(i % 100) + ".example.com\"\npath = \"/s/" +
            std::to_string(i / 100) + "/\"\nproxy = \"api\"\n";
  }
  const Config config = loaded(text);
  CHECK(config.routes.size() == kRoutes + 1);
  CHECK(config.routes[kRoutes - 1].place == Place{3 + 4 * (kRoutes - 1), 1});
  CHECK(built(config)->routes().size() == kRoutes + 1);
}
