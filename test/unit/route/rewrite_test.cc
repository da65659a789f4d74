// The path for the upstream, and the Location of redirects.
#include "route_fixture.h"

using namespace weir::route;
using namespace weir::route::test;

namespace {

std::string location(std::string text, const Request& request) {
  RouteSpec spec = prefix("/");
  spec.action = RedirectAction{.status = 301, .location = std::move(text)};
  const auto s = build({spec});
  const Route* route = match(*s, request.view());
  REQUIRE(route != nullptr);
  std::string out = "<";
  if (!expand_location(*route, request.view(), out)) {
    CHECK(out == "<");
    return "refused";
  }
  return out.substr(1);
}

Request asking(std::string host, std::string path, std::string query) {
  Request request = get(std::move(host), std::move(path));
  request.query = std::move(query);
  return request;
}

}  // namespace

TEST_CASE("a target replaces the route's path; trailing slashes make no difference") {
  for (const char* path : {"/api", "/api/"}) {
    for (const char* target : {"/app", "/app/"}) {
      const auto s = build({to_target(prefix(path), target)});
      CHECK(rewritten(*s, "/api/v1") == "/app/v1");
      CHECK(rewritten(*s, "/api/v1/") == "/app/v1/");
      CHECK(rewritten(*s, "/api") == "/app");
      CHECK(rewritten(*s, "/api/") == "/app/");
      CHECK(rewritten(*s, "/api/api/x") == "/app/api/x");
      CHECK(rewritten(*s, "/api/%2Fx") == "/app/%2Fx");
    }
    const auto s = build({to_target(prefix(path), "/")});
    CHECK(rewritten(*s, "/api/v1") == "/v1");
    CHECK(rewritten(*s, "/api") == "/");
    CHECK(rewritten(*s, "/api/") == "/");
  }
}

TEST_CASE("a target for the root") {
  for (const char* target : {"/app", "/app/"}) {
    const auto s = build({to_target(prefix("/"), target)});
    CHECK(rewritten(*s, "/v1") == "/app/v1");
    CHECK(rewritten(*s, "/") == "/app/");
    CHECK(rewritten(*s, "*") == "*");
  }
  const auto s = build({to_target(prefix("/"), "/")});
  CHECK(rewritten(*s, "/v1") == "/v1");
  CHECK(rewritten(*s, "/") == "/");
}

TEST_CASE("an exact route's target replaces the whole path as written") {
  const auto s = build({to_target(exact("/a"), "/b/"), to_target(exact("/a/"), "/"),
                        to_target(exact("/c"), "/d/e")});
  CHECK(rewritten(*s, "/a") == "/b/");
  CHECK(rewritten(*s, "/a/") == "/");
  CHECK(rewritten(*s, "/c") == "/d/e");
}

TEST_CASE("without a target the path is unchanged") {
  const auto s = build({prefix("/api/"), exact("/x/"), prefix("/")});
  for (const char* path : {"/api", "/api/", "/api/v1", "/x/", "/", "/other", "*"}) {
    CHECK(rewritten(*s, path) == path);
  }
}

TEST_CASE("locations") {
  const Request request = asking("h.com", "/a/b", "x=1&y=2");
  CHECK(location("https://${host}${uri}", request) == "https://h.com/a/b?x=1&y=2");
  CHECK(location("${scheme}://${host}${path}", request) == "http://h.com/a/b");
  CHECK(location("/new?${query}#top", request) == "/new?x=1&y=2#top");
  CHECK(location("https://x.org/", request) == "https://x.org/");
  CHECK(location("https://${host}${uri}", get("h.com", "/")) == "https://h.com/");
  CHECK(location("https://${host}/", get("", "/")) == "refused");
  CHECK(location("/login", get("", "/")) == "/login");
  CHECK(location("//cdn.example/${host}", request) == "//cdn.example/h.com");
  CHECK(location("https://$host/$", request) == "https://$host/$");
}

TEST_CASE("a request cannot break out of the location") {
  CHECK(location("${uri}", asking("h", "/a\r\nSet-Cookie: x", "b\nc")) == "/aSet-Cookie:%20x?bc");
  CHECK(location("${path}", get("h", std::string("/a\0b\x7f", 5))) == "/ab");
  CHECK(location("${path}", get("h", "/\"<>\\^`{|}\xc3\xa9")) ==
        "/%22%3C%3E%5C%5E%60%7B%7C%7D%C3%A9");
  CHECK(location("${path}", get("h", "//evil.com")) == "/evil.com");
  CHECK(location("${uri}", get("h", "///evil.com//x")) == "/evil.com//x");
  CHECK(location("/${path}", get("h", "/evil.com")) == "/evil.com");
  CHECK(location("${path}", get("h", "/\r/evil.com")) == "/evil.com");
  CHECK(location("${path}", get("h", "/\\evil.com")) == "/%5Cevil.com");
  CHECK(location("https://h${path}", get("h", "//evil.com")) == "https://h//evil.com");
}
