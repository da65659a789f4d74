// What the build refuses, what it makes of details, explain, and its size and speed.
#include <chrono>

#include "route_fixture.h"

using namespace weir::route;
using namespace weir::route::test;

namespace {

// The only error's text; "" when it builds.
std::string error_of(std::vector<RouteSpec> routes) {
  const auto built = try_build(std::move(routes));
  if (built) return "";
  REQUIRE(built.error().size() == 1);
  return built.error()[0].origin + ": " + built.error()[0].message;
}

std::string error_of_upstreams(std::vector<UpstreamSpec> upstreams) {
  const auto built = build_snapshot({}, std::move(upstreams));
  if (built) return "";
  REQUIRE(built.error().size() == 1);
  return built.error()[0].origin + ": " + built.error()[0].message;
}

RouteSpec redirecting(std::string location, uint16_t status = 302) {
  RouteSpec spec = prefix("/");
  spec.action = RedirectAction{.status = status, .location = std::move(location)};
  return spec;
}

RouteSpec responding(RespondAction action) {
  RouteSpec spec = prefix("/");
  spec.action = std::move(action);
  return spec;
}

RouteSpec with_header(std::string name, ValueMatch how, std::optional<std::string> value = {}) {
  RouteSpec spec = prefix("/");
  spec.headers.push_back({std::move(name), std::move(value), how});
  return spec;
}

}  // namespace

TEST_CASE("the same route twice is refused") {
  CHECK(error_of({prefix("/a"), prefix("/a/")}) ==
        "r1: The route can never be taken: r0 has the same conditions for host *, path /a.");
  CHECK(error_of({prefix("/", {"X.com"}), prefix("/", {"a.com", "x.com."})}) ==
        "r1: The route can never be taken: r0 has the same conditions for host x.com, path /.");
  CHECK(error_of({exact("/a"), exact("/a")}) ==
        "r1: The route can never be taken: r0 has the same conditions for host *, exact path /a.");
  CHECK(error_of({prefix("/", {"a.com", "A.com"})}) == "r0: The route names the host a.com twice.");
  CHECK(error_of({exact("/a"), prefix("/a"), exact("/a/")}).empty());

  RouteSpec a = prefix("/");
  a.methods = {"GET", "PUT"};
  a.headers = {{"X", "1", ValueMatch::kExact}, {"y", {}, ValueMatch::kPresent}};
  a.source = {*weir::base::Cidr::parse("10.0.0.0/8"), *weir::base::Cidr::parse("::1")};
  RouteSpec b = a;
  std::swap(b.methods[0], b.methods[1]);
  std::swap(b.headers[0], b.headers[1]);
  std::swap(b.source[0], b.source[1]);
  b.headers[1].name = "x";
  CHECK(error_of({a, prefix("/"), b}) ==
        "r2: The route can never be taken: r0 has the same conditions for host *, path /.");
  RouteSpec c = a;
  c.headers[0].value = "2";
  RouteSpec d = a;
  d.query = d.headers;
  d.headers.clear();
  CHECK(error_of({a, c, d}).empty());
}

TEST_CASE("hosts that are refused") {
  const auto refused = [](std::string host) { return error_of({prefix("/", {std::move(host)})}); };
  CHECK(refused("a.com").empty());
  CHECK(refused("xn--bcher-kva.example").empty());
  CHECK(refused("_dmarc.a-b.com").empty());
  CHECK(refused("a.com:80") == "r0: The host \"a.com:80\" must not name a port.");
  CHECK_FALSE(refused("").empty());
  CHECK_FALSE(refused(".").empty());
  CHECK_FALSE(refused("a..b").empty());
  CHECK_FALSE(refused(".a").empty());
  CHECK_FALSE(refused("a.*").empty());
  CHECK_FALSE(refused("a*.com").empty());
  CHECK_FALSE(refused("*.*.com").empty());
  CHECK_FALSE(refused("*.").empty());
  CHECK_FALSE(refused("**").empty());
  CHECK_FALSE(refused("b\xc3\xbc.de").empty());
  CHECK_FALSE(refused("a b").empty());
  CHECK_FALSE(refused("a/b").empty());
  CHECK_FALSE(refused("[::1").empty());
  CHECK_FALSE(refused("[").empty());
  CHECK_FALSE(refused("[]").empty());
  CHECK_FALSE(refused("[1.2.3.4.5]").empty());
  CHECK_FALSE(refused(std::string(64, 'a') + ".com").empty());
  std::string lengthy = "a";
  while (lengthy.size() < 254) lengthy += ".a";
  CHECK_FALSE(refused(lengthy).empty());
}

TEST_CASE("paths that are refused") {
  for (const char* path : {"", "api", "/a?b", "/a#b", "/a b", "/a\n", "/\xc3\xa9", "/a//b", "//",
                           "/a/../b", "/..", "/.", "/a/./", "/%", "/%4", "/%zz", "*"}) {
    INFO(path);
    CHECK_FALSE(error_of({prefix(path)}).empty());
    CHECK_FALSE(error_of({exact(path)}).empty());
    CHECK_FALSE(error_of({to_target(prefix("/"), path)}).empty());
  }
  for (const char* path :
       {"/", "/a", "/a/", "/.well-known/x", "/...", "/a%2Fb", "/~x;v=1,2:@!$&'"}) {
    INFO(path);
    CHECK(error_of({prefix(path)}).empty());
    CHECK(error_of({exact(path)}).empty());
    CHECK(error_of({to_target(prefix("/"), path)}).empty());
  }
  CHECK(error_of({prefix("/" + std::string(kRoutePathBytesMax - 1, 'a'))}).empty());
  CHECK_FALSE(error_of({prefix("/" + std::string(kRoutePathBytesMax, 'a'))}).empty());
}

TEST_CASE("conditions that are refused") {
  CHECK(error_of({with_header("x", ValueMatch::kExact)}) ==
        "r0: header condition \"x\" needs a value.");
  CHECK(error_of({with_header("x", ValueMatch::kPresent, "a")}) ==
        "r0: header condition \"x\" takes no value.");
  CHECK_FALSE(error_of({with_header("x", ValueMatch::kPrefix)}).empty());
  CHECK_FALSE(error_of({with_header("x", ValueMatch::kAbsent, "")}).empty());
  CHECK_FALSE(error_of({with_header("", ValueMatch::kPresent)}).empty());
  CHECK_FALSE(error_of({with_header("a b", ValueMatch::kPresent)}).empty());
  CHECK_FALSE(error_of({with_header("a:", ValueMatch::kPresent)}).empty());
  CHECK_FALSE(error_of({with_header("a", ValueMatch::kExact, "x\n")}).empty());
  CHECK_FALSE(error_of({with_header("a", ValueMatch::kExact, " x")}).empty());
  RouteSpec spec = prefix("/");
  spec.query = {{"", {}, ValueMatch::kPresent}};
  CHECK_FALSE(error_of({spec}).empty());
  spec = prefix("/");
  spec.methods = {"GET "};
  CHECK(error_of({spec}) == "r0: \"GET \" is not a method.");
}

TEST_CASE("actions that are refused") {
  RouteSpec spec = prefix("/");
  spec.action = ProxyAction{.upstream = 1, .target_path = {}};
  CHECK(error_of({spec}) == "r0: The route's upstream does not exist.");
  for (const char* text : {"", "/a b", "/a\r\n", "/${", "/${host", "/${port}", "/${}", "\xc3\xa9",
                           "${query}", "${host}/", "a\\b"}) {
    INFO(text);
    CHECK_FALSE(error_of({redirecting(text)}).empty());
  }
  CHECK(error_of({redirecting("/x${Host}")}) ==
        "r0: The location has the unknown placeholder \"${Host}\"; there are scheme, host, path, "
        "query and uri.");
  for (const int status : {200, 300, 304, 305, 306, 309, 400}) {
    CHECK_FALSE(error_of({redirecting("/", static_cast<uint16_t>(status))}).empty());
  }
  for (const int status : {301, 302, 303, 307, 308}) {
    CHECK(error_of({redirecting("/", static_cast<uint16_t>(status))}).empty());
  }
  CHECK_FALSE(error_of({responding({.status = 199, .headers = {}, .body = {}})}).empty());
  CHECK_FALSE(error_of({responding({.status = 600, .headers = {}, .body = {}})}).empty());
  CHECK_FALSE(error_of({responding({.status = 204, .headers = {}, .body = "x"})}).empty());
  CHECK_FALSE(error_of({responding({.status = 304, .headers = {}, .body = "x"})}).empty());
  CHECK(error_of({responding({.status = 204, .headers = {}, .body = {}})}).empty());
  for (const char* name : {"", "a b", "a:", "Content-Length", "transfer-encoding", "CONNECTION"}) {
    INFO(name);
    CHECK_FALSE(
        error_of({responding({.status = 200, .headers = {{name, "1"}}, .body = {}})}).empty());
  }
  CHECK_FALSE(
      error_of({responding({.status = 200, .headers = {{"a", "b\r\nc: d"}}, .body = {}})}).empty());
}

TEST_CASE("upstreams that are refused") {
  CHECK(error_of_upstreams({upstream("a", 1), upstream("b", 2)}).empty());
  CHECK(error_of_upstreams({upstream("a", 1), upstream("a", 2)}) ==
        "upstream a: The upstream exists twice.");
  CHECK(error_of_upstreams({upstream("a", 1), upstream("b", 1)}) ==
        "upstream b: The upstream's id 1 is taken.");
  CHECK_FALSE(error_of_upstreams({upstream("")}).empty());
  UpstreamSpec spec = upstream("a");
  spec.servers[0].weight = 0;
  CHECK(error_of_upstreams({spec}) == "upstream a: All servers of the upstream have weight 0.");
  spec.servers.clear();
  CHECK(error_of_upstreams({spec}) == "upstream a: The upstream has no servers.");
  spec = upstream("a");
  spec.host_header = "a\r\nb";
  CHECK_FALSE(error_of_upstreams({spec}).empty());
  spec = upstream("a");
  spec.servers[0].address = {};
  CHECK_FALSE(error_of_upstreams({spec}).empty());
  spec.servers[0].resolved = false;
  CHECK(error_of_upstreams({spec}).empty());
  spec = upstream("a");
  spec.balance.hash_key = {.source = HashKeySpec::Source::kHeader, .name = "x y"};
  CHECK(error_of_upstreams({spec}) == "upstream a: The hash key's name \"x y\" is not one.");
  spec.balance.hash_key = {.source = HashKeySpec::Source::kCookie, .name = ""};
  CHECK_FALSE(error_of_upstreams({spec}).empty());
  spec.balance.hash_key = {.source = HashKeySpec::Source::kCookie, .name = "sid"};
  spec.servers.resize(kServersMax, spec.servers[0]);
  CHECK(error_of_upstreams({spec}).empty());
  spec.servers.push_back(spec.servers[0]);
  CHECK(error_of_upstreams({spec}) == "upstream a: The upstream has more than 10000 servers.");
}

TEST_CASE("all errors at once, but not without end") {
  const auto two = try_build({prefix("a"), prefix("b")});
  REQUIRE(!two);
  CHECK(two.error().size() == 2);
  const auto many = try_build(std::vector<RouteSpec>(kBuildErrorsMax + 50, prefix("a")));
  REQUIRE(!many);
  CHECK(many.error().size() == kBuildErrorsMax);
}

TEST_CASE("routes on one path are bounded") {
  std::vector<RouteSpec> routes;
  for (size_t i = 0; i < kRoutesPerPathMax; ++i) {
    routes.push_back(with_header("x", ValueMatch::kExact, std::to_string(i)));
  }
  const auto s = build(routes);
  Request request;
  request.headers = {{"x", "999"}};
  CHECK(taken(*s, request) == "r999");
  routes.push_back(prefix("/"));
  CHECK(error_of(routes) == "r1000: There are more than 1000 routes for host *, path /.");
}

TEST_CASE("a compiled response") {
  const auto s = build({responding({.status = 201,
                                    .headers = {{"Content-Type", "text/plain"}, {"X-Empty", ""}},
                                    .body = "hello\n"})});
  const Route* route = match(*s, get("h", "/x").view());
  REQUIRE(route != nullptr);
  REQUIRE(route->kind == ActionKind::kRespond);
  CHECK(route->status == 201);
  CHECK(route->upstream == kNoUpstream);
  CHECK(route->respond->body == "hello\n");
  CHECK(route->respond->field_lines == "Content-Type: text/plain\r\nX-Empty: \r\n");
  REQUIRE(route->respond->headers.size() == 2);
  CHECK(route->respond->headers[0].name == "Content-Type");
  CHECK(route->respond->headers[0].value == "text/plain");
  CHECK(route->respond->headers[1].name == "X-Empty");
  CHECK(route->respond->headers[1].value.empty());
}

TEST_CASE("a compiled proxy route") {
  RouteSpec spec = to_target(prefix("/api/", {"a.com"}), "/app/");
  spec.name = "api";
  spec.max_body_bytes = 1000;
  const auto s = build({prefix("/"), spec});
  const Route* route = match(*s, get("a.com", "/api").view());
  REQUIRE(route != nullptr);
  CHECK(route->kind == ActionKind::kProxy);
  CHECK(route->upstream == 0);
  CHECK(route->index == 1);
  CHECK(route == &s->routes()[1]);
  CHECK(route->path == "/api");
  CHECK(route->name == "api");
  CHECK(route->max_body_bytes == 1000);
}

TEST_CASE("explain says what match does and why") {
  RouteSpec put = exact("/api/v1", {"a.example.com"});
  put.methods = {"PUT", "POST"};
  RouteSpec tenant = to_target(prefix("/api", {"*.example.com"}), "/app");
  tenant.name = "tenant";
  tenant.headers = {{"X-Tenant", "7", ValueMatch::kExact}};
  const auto s = build({prefix("/"), put, tenant});
  Request request = get("a.example.com", "/api/v1");
  request.query = "q=1";
  request.headers = {{"x-tenant", "7"}};
  const Explanation found = explain(*s, request.view());
  CHECK(found.route == match(*s, request.view()));
  CHECK(found.upstream == "app");
  CHECK(found.result == "/app/v1?q=1");
  CHECK(to_text(found) ==
        "route       r2 (tenant)\n"
        "host        wildcard host *.example.com\n"
        "path        prefix /api\n"
        "condition   header x-tenant is \"7\"\n"
        "action      proxy to upstream app\n"
        "sends       /app/v1?q=1\n"
        "passed over r1: exact host a.example.com, exact path /api/v1: does not hold: method is "
        "PUT or POST\n");

  const auto t = build({prefix("/b", {"h"})});
  const Explanation lost = explain(*t, get("h", "/").view());
  CHECK(lost.route == nullptr);
  CHECK(to_text(lost) ==
        "route       none fits: answered with 404\n"
        "passed over exact host h: no path of this host fits\n");

  const auto r = build({redirecting("https://${host}/", 308)});
  CHECK(to_text(explain(*r, get("h", "/").view())) ==
        "route       r0\nhost        any host\npath        prefix /\naction      redirect 308\n"
        "location    https://h/\n");
  CHECK(explain(*r, get("", "/").view()).result ==
        "none: the location needs a host and the request has none");
}

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<RouteSpec> many_paths(size_t count) {
  std::vector<RouteSpec> routes;
  for (size_t i = 0; i < count; ++i) {
    routes.push_back(prefix("/service/" + std::to_string(i * 7919 % 1'000'003) + "/api"));
  }
  return routes;
}

// Seconds per match, the best of several passes. A thousand routes from all over the tree: enough
// to walk it everywhere, few enough that the requests' own text does not fill the cache.
double match_time(const Snapshot& snapshot, const std::vector<RouteSpec>& routes) {
  std::vector<Request> requests;
  for (size_t i = 0; i < 1000; ++i) {
    requests.push_back(get("h", routes[i * 7919 % routes.size()].path + "/x"));
  }
  double best = 1e9;
  for (int pass = 0; pass < 300; ++pass) {
    size_t found = 0;
    const auto start = std::chrono::steady_clock::now();
    for (const Request& request : requests) {
      found += match(snapshot, request.view()) != nullptr ? 1 : 0;
    }
    best = std::min(best, seconds_since(start));
    REQUIRE(found == requests.size());
  }
  return best / static_cast<double>(requests.size());
}

}  // namespace

// Bounds wide enough for sanitizers and a busy machine; tools/bench/route_bench has the figures.
TEST_CASE("100,000 routes build quickly and match as fast as 10") {
  const auto few_routes = many_paths(10);
  const auto many_routes = many_paths(100'000);
  const auto few = build(few_routes);
  const auto start = std::chrono::steady_clock::now();
  auto many = build_snapshot(many_routes, {upstream("app")});
  const double build_seconds = seconds_since(start);
  REQUIRE(many.has_value());
  INFO("build " << build_seconds << " s");
  CHECK(build_seconds < 2.0);
  CHECK((*many)->memory_bytes() < 100'000 * 400);
  const double ten = match_time(*few, few_routes);
  const double lots = match_time(**many, many_routes);
  INFO("10: " << ten * 1e9 << " ns, 100k: " << lots * 1e9 << " ns");
  CHECK(lots < ten * 5);
}
