// Precedence of hosts and paths.
#include "route_fixture.h"

using namespace weir::route;
using namespace weir::route::test;

TEST_CASE("a prefix fits at segment boundaries only") {
  const auto s = build({prefix("/api")});
  CHECK(taken(*s, get("h", "/api")) == "r0");
  CHECK(taken(*s, get("h", "/api/")) == "r0");
  CHECK(taken(*s, get("h", "/api/x/y")) == "r0");
  CHECK(taken(*s, get("h", "/apix")) == "none");
  CHECK(taken(*s, get("h", "/ap")) == "none");
  CHECK(taken(*s, get("h", "/")) == "none");
  CHECK(taken(*s, get("h", "/API")) == "none");
  CHECK(taken(*s, get("h", "/api%2Fx")) == "none");
}

TEST_CASE("a trailing slash on a prefix makes no difference") {
  const auto with = build({prefix("/api/"), prefix("/")});
  const auto without = build({prefix("/api"), prefix("/")});
  for (const char* path : {"/", "/a", "/ap", "/api", "/api/", "/api/x", "/apix", "/api-v2/"}) {
    CHECK(taken(*with, get("h", path)) == taken(*without, get("h", path)));
  }
  CHECK(!try_build({prefix("/api/"), prefix("/api")}).has_value());
}

TEST_CASE("the longest prefix wins, whatever the order of the file") {
  const auto s = build({prefix("/a/b"), prefix("/"), prefix("/a/b/c/d"), prefix("/a")});
  CHECK(taken(*s, get("h", "/a/b/c/d/e")) == "r2");
  CHECK(taken(*s, get("h", "/a/b/c")) == "r0");
  CHECK(taken(*s, get("h", "/a/bc")) == "r3");
  CHECK(taken(*s, get("h", "/ab")) == "r1");
  CHECK(taken(*s, get("h", "/a/b/c/dd")) == "r0");
}

TEST_CASE("exact paths beat prefixes and keep their trailing slash") {
  const auto s = build({prefix("/a/b"), exact("/a"), exact("/a/b/"), exact("/"), exact("/a/b")});
  CHECK(taken(*s, get("h", "/a")) == "r1");
  CHECK(taken(*s, get("h", "/a/")) == "none");
  CHECK(taken(*s, get("h", "/a/b/")) == "r2");
  CHECK(taken(*s, get("h", "/a/b")) == "r4");
  CHECK(taken(*s, get("h", "/a/b/c")) == "r0");
  CHECK(taken(*s, get("h", "/")) == "r3");
  CHECK(taken(*s, get("h", "/x")) == "none");
}

TEST_CASE("labels longer than fit into a node") {
  const std::string lengthy = "/a-segment-much-longer-than-twelve-bytes";
  const auto s = build({prefix(lengthy), exact(lengthy + "/and-another-long-segment"),
                        prefix("/a-segment-much-longer")});
  CHECK(taken(*s, get("h", lengthy + "/x")) == "r0");
  CHECK(taken(*s, get("h", lengthy + "/and-another-long-segment")) == "r1");
  CHECK(taken(*s, get("h", lengthy.substr(0, lengthy.size() - 1))) == "none");
  CHECK(taken(*s, get("h", "/a-segment-much-longer/x")) == "r2");
}

TEST_CASE("any byte may branch") {
  std::vector<RouteSpec> routes;
  for (char c = '!'; c < 0x7f; ++c) {
    if (c == '/' || c == '?' || c == '#' || c == '%' || c == '.') continue;
    routes.push_back(prefix(std::string("/") + c));
  }
  const auto s = build(routes);
  for (size_t i = 0; i < routes.size(); ++i) {
    CHECK(taken(*s, get("h", routes[i].path + "/x")) == "r" + std::to_string(i));
  }
  CHECK(taken(*s, get("h", "/%20")) == "none");
  CHECK(taken(*s, get("h", "/\xff")) == "none");
}

TEST_CASE("the root prefix fits OPTIONS * as well") {
  const auto s = build({prefix("/"), prefix("/a")});
  CHECK(taken(*s, get("h", "*")) == "r0");
  CHECK(taken(*build({prefix("/a")}), get("h", "*")) == "none");
}

TEST_CASE("hosts: exact, then wildcards by length, then any") {
  const auto s = build({prefix("/"), prefix("/", {"*.example.com"}), prefix("/", {"a.example.com"}),
                        prefix("/", {"*.b.example.com"}), prefix("/", {"*.com"})});
  CHECK(taken(*s, get("a.example.com", "/")) == "r2");
  CHECK(taken(*s, get("b.example.com", "/")) == "r1");
  CHECK(taken(*s, get("x.b.example.com", "/")) == "r3");
  CHECK(taken(*s, get("y.x.b.example.com", "/")) == "r3");
  CHECK(taken(*s, get("x.a.example.com", "/")) == "r1");
  CHECK(taken(*s, get("example.com", "/")) == "r4");
  CHECK(taken(*s, get("com", "/")) == "r0");
  CHECK(taken(*s, get("example.org", "/")) == "r0");
  CHECK(taken(*s, get("xexample.org", "/")) == "r0");
  CHECK(taken(*s, get("", "/")) == "r0");
  CHECK(taken(*s, get("[::1]", "/")) == "r0");
}

TEST_CASE("a wildcard needs a label before its dot") {
  const auto s = build({prefix("/", {"*.example.com"})});
  CHECK(taken(*s, get("example.com", "/")) == "none");
  CHECK(taken(*s, get(".example.com", "/")) == "none");
  CHECK(taken(*s, get("xexample.com", "/")) == "none");
  CHECK(taken(*s, get(".a.example.com", "/")) == "r0");
  CHECK(taken(*s, get(".", "/")) == "none");
  CHECK(taken(*s, get("..", "/")) == "none");
}

TEST_CASE("wildcards and hosts of very many labels") {
  std::string deep = "a";
  for (int i = 0; i < 100; ++i) deep += ".a";
  const auto s = build({prefix("/", {"*." + deep}), prefix("/", {"*.a.a"})});
  CHECK(taken(*s, get("b." + deep, "/")) == "r0");
  CHECK(taken(*s, get("b.b." + deep, "/")) == "r0");
  CHECK(taken(*s, get(deep, "/")) == "r1");
  CHECK(taken(*s, get("a.a", "/")) == "none");
}

TEST_CASE("host names: case, trailing dot, IPv6, several, star") {
  const auto s = build({prefix("/", {"Example.COM", "other.org."}), prefix("/", {"[::1]"}),
                        prefix("/", {"10.0.0.1"}), prefix("/any", {"*"})});
  CHECK(taken(*s, get("example.com", "/")) == "r0");
  CHECK(taken(*s, get("example.com.", "/")) == "r0");
  CHECK(taken(*s, get("other.org", "/")) == "r0");
  CHECK(taken(*s, get("[::1]", "/")) == "r1");
  CHECK(taken(*s, get("10.0.0.1", "/")) == "r2");
  CHECK(taken(*s, get("else", "/any")) == "r3");
}

TEST_CASE("what a host has no route for goes to the next host") {
  const auto s = build({prefix("/"), prefix("/b", {"*.com"}), prefix("/a", {"x.com"})});
  CHECK(taken(*s, get("x.com", "/a")) == "r2");
  CHECK(taken(*s, get("x.com", "/b")) == "r1");
  CHECK(taken(*s, get("x.com", "/c")) == "r0");
}

TEST_CASE("an exact path under a wildcard does not beat a prefix of the exact host") {
  const auto s = build({exact("/a", {"*.com"}), prefix("/", {"x.com"})});
  CHECK(taken(*s, get("x.com", "/a")) == "r1");
  CHECK(taken(*s, get("y.com", "/a")) == "r0");
}

TEST_CASE("an empty snapshot matches nothing") {
  const auto s = build({});
  CHECK(taken(*s, get("h", "/")) == "none");
  CHECK(s->epoch() == 7);
  CHECK(s->routes().empty());
  CHECK(s->upstream(0).name == "app");
}
