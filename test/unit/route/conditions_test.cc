// Conditions: what holds, which route comes first, where the search goes when one does not hold.
#include "route_fixture.h"

using namespace weir::route;
using namespace weir::route::test;
using weir::base::Cidr;
using weir::base::IpAddress;

namespace {

RouteSpec with_header(RouteSpec spec, std::string name, ValueMatch how,
                      std::optional<std::string> value = {}) {
  spec.headers.push_back({std::move(name), std::move(value), how});
  return spec;
}

RouteSpec with_query(RouteSpec spec, std::string name, ValueMatch how,
                     std::optional<std::string> value = {}) {
  spec.query.push_back({std::move(name), std::move(value), how});
  return spec;
}

RouteSpec with_methods(RouteSpec spec, std::vector<std::string> methods) {
  spec.methods = std::move(methods);
  return spec;
}

RouteSpec with_sources(RouteSpec spec, const std::vector<std::string>& blocks) {
  for (const std::string& block : blocks) spec.source.push_back(*Cidr::parse(block));
  return spec;
}

Request with(Fields headers) {
  Request request;
  request.headers = std::move(headers);
  return request;
}

Request asking(std::string query) {
  Request request;
  request.query = std::move(query);
  return request;
}

Request from(const char* client) {
  Request request;
  request.client = IpAddress::parse(client);
  return request;
}

Request by(std::string method, std::string path = "/") {
  Request request = get("h", std::move(path));
  request.method = std::move(method);
  return request;
}

}  // namespace

TEST_CASE("methods are compared as they are") {
  const auto s = build({with_methods(prefix("/"), {"GET", "PURGE"})});
  CHECK(taken(*s, by("GET")) == "r0");
  CHECK(taken(*s, by("PURGE")) == "r0");
  CHECK(taken(*s, by("HEAD")) == "none");
  CHECK(taken(*s, by("get")) == "none");
  CHECK(taken(*s, by("GETS")) == "none");
}

TEST_CASE("header conditions") {
  const Request none = with({});
  SECTION("exact") {
    const auto s = build({with_header(prefix("/"), "X-Tenant", ValueMatch::kExact, "a")});
    CHECK(taken(*s, with({{"x-tenant", "a"}})) == "r0");
    CHECK(taken(*s, with({{"X-TENANT", "b"}, {"x-tenant", "a"}})) == "r0");
    CHECK(taken(*s, with({{"x-tenant", "A"}})) == "none");
    CHECK(taken(*s, with({{"x-tenant", "aa"}})) == "none");
    CHECK(taken(*s, none) == "none");
  }
  SECTION("prefix") {
    const auto s = build({with_header(prefix("/"), "accept", ValueMatch::kPrefix, "text/")});
    CHECK(taken(*s, with({{"Accept", "text/html"}})) == "r0");
    CHECK(taken(*s, with({{"Accept", "text/"}})) == "r0");
    CHECK(taken(*s, with({{"Accept", "text"}})) == "none");
    CHECK(taken(*s, none) == "none");
  }
  SECTION("present") {
    const auto s = build({with_header(prefix("/"), "x", ValueMatch::kPresent)});
    CHECK(taken(*s, with({{"X", ""}})) == "r0");
    CHECK(taken(*s, with({{"XX", ""}})) == "none");
    CHECK(taken(*s, none) == "none");
  }
  SECTION("absent") {
    const auto s = build({with_header(prefix("/"), "x", ValueMatch::kAbsent)});
    CHECK(taken(*s, with({{"X", ""}})) == "none");
    CHECK(taken(*s, none) == "r0");
    RequestView bare = none.view();
    bare.headers = {};
    CHECK(match(*s, bare) != nullptr);
  }
}

TEST_CASE("query conditions see decoded names and values") {
  SECTION("exact") {
    const auto s = build({with_query(prefix("/"), "q", ValueMatch::kExact, "a b&c")});
    CHECK(taken(*s, asking("q=a+b%26c")) == "r0");
    CHECK(taken(*s, asking("x=1&%71=a%20b%26c&y")) == "r0");
    CHECK(taken(*s, asking("q=1&q=a+b%26c")) == "r0");
    CHECK(taken(*s, asking("q=a+b&c")) == "none");
    CHECK(taken(*s, asking("q=a+b%26cc")) == "none");
    CHECK(taken(*s, asking("q=a+b%26")) == "none");
    CHECK(taken(*s, asking("Q=a+b%26c")) == "none");
    CHECK(taken(*s, asking("")) == "none");
  }
  SECTION("a value with an equals sign, and a broken escape") {
    const auto s = build({with_query(prefix("/"), "q", ValueMatch::kExact, "a=b%4")});
    CHECK(taken(*s, asking("q=a=b%4")) == "r0");
    CHECK(taken(*s, asking("q=a%3db%254")) == "r0");
  }
  SECTION("prefix") {
    const auto s = build({with_query(prefix("/"), "v", ValueMatch::kPrefix, "2.")});
    CHECK(taken(*s, asking("v=2.1")) == "r0");
    CHECK(taken(*s, asking("v=2%2e")) == "r0");
    CHECK(taken(*s, asking("v=2")) == "none");
    CHECK(taken(*s, asking("v=1&vv=2.")) == "none");
  }
  SECTION("present") {
    const auto s = build({with_query(prefix("/"), "debug", ValueMatch::kPresent)});
    CHECK(taken(*s, asking("debug")) == "r0");
    CHECK(taken(*s, asking("&&debug=&")) == "r0");
    CHECK(taken(*s, asking("debugger=1")) == "none");
    CHECK(taken(*s, asking("=debug")) == "none");
  }
  SECTION("absent") {
    const auto s = build({with_query(prefix("/"), "debug", ValueMatch::kAbsent)});
    CHECK(taken(*s, asking("a=debug")) == "r0");
    CHECK(taken(*s, asking("")) == "r0");
    CHECK(taken(*s, asking("a&%64ebug")) == "none");
  }
}

TEST_CASE("source blocks, nested and apart") {
  const auto s = build({with_sources(
      prefix("/"), {"10.1.0.0/16", "192.168.1.7", "10.0.0.0/8", "2001:db8::/32", "10.1.2.0/24"})});
  CHECK(taken(*s, from("10.0.0.0")) == "r0");
  CHECK(taken(*s, from("10.1.2.3")) == "r0");
  CHECK(taken(*s, from("10.255.255.255")) == "r0");
  CHECK(taken(*s, from("11.0.0.0")) == "none");
  CHECK(taken(*s, from("9.255.255.255")) == "none");
  CHECK(taken(*s, from("192.168.1.7")) == "r0");
  CHECK(taken(*s, from("192.168.1.8")) == "none");
  CHECK(taken(*s, from("2001:db8::1")) == "r0");
  CHECK(taken(*s, from("2001:db9::")) == "none");
  CHECK(taken(*s, from("::ffff:10.0.0.1")) == "r0");
  CHECK(taken(*s, get("h", "/")) == "none");  // a Unix socket's client has no IP
}

TEST_CASE("more conditions first, then exact values, then prefixes, then the file") {
  SECTION("number beats kind") {
    auto two = with_header(with_methods(prefix("/"), {"GET"}), "b", ValueMatch::kPresent);
    const auto s =
        build({prefix("/"), with_header(prefix("/"), "a", ValueMatch::kExact, "1"), two});
    CHECK(taken(*s, with({{"a", "1"}, {"b", "1"}})) == "r2");
    CHECK(taken(*s, with({{"a", "1"}})) == "r1");
    CHECK(taken(*s, with({})) == "r0");
  }
  SECTION("exact beats prefix beats present") {
    const auto s = build({with_header(prefix("/"), "a", ValueMatch::kPresent),
                          with_header(prefix("/"), "a", ValueMatch::kPrefix, "1"),
                          with_header(prefix("/"), "a", ValueMatch::kExact, "11")});
    CHECK(taken(*s, with({{"a", "11"}})) == "r2");
    CHECK(taken(*s, with({{"a", "12"}})) == "r1");
    CHECK(taken(*s, with({{"a", "2"}})) == "r0");
  }
  SECTION("then the file") {
    const auto s = build(
        {with_query(prefix("/"), "q", ValueMatch::kPresent), with_methods(prefix("/"), {"GET"})});
    CHECK(taken(*s, asking("q")) == "r0");
    CHECK(taken(*s, asking("")) == "r1");
  }
}

TEST_CASE("a route that does not hold is passed over: exact, prefixes, hosts") {
  const auto s = build({with_methods(exact("/a/b", {"x.com"}), {"PUT"}),      // r0
                        with_methods(prefix("/a/b", {"x.com"}), {"POST"}),    // r1
                        with_methods(prefix("/a", {"x.com"}), {"PATCH"}),     // r2
                        with_methods(prefix("/a/b", {"*.com"}), {"DELETE"}),  // r3
                        prefix("/")});                                        // r4
  const auto asked = [&](const char* method) {
    Request request = by(method, "/a/b");
    request.host = "x.com";
    return taken(*s, request);
  };
  CHECK(asked("PUT") == "r0");
  CHECK(asked("POST") == "r1");
  CHECK(asked("PATCH") == "r2");
  CHECK(asked("DELETE") == "r3");
  CHECK(asked("GET") == "r4");
}

TEST_CASE("a shorter prefix is tried at its own boundary") {
  const auto s = build({with_methods(prefix("/ab/c"), {"PUT"}), prefix("/a"), prefix("/ab/")});
  CHECK(taken(*s, by("GET", "/ab/c")) == "r2");
  const auto t = build({with_methods(prefix("/ab/c"), {"PUT"}), prefix("/a")});
  CHECK(taken(*t, by("GET", "/ab/c")) == "none");
}
