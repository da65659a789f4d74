// Short ways to write specs and requests in the tests of route.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/text.h>
#include <weir/route/match.h>

namespace weir::route::test {

using Fields = std::vector<std::pair<std::string, std::string>>;

// A request that owns its text.
struct Request {
  std::string host;
  std::string path = "/";
  std::string query;
  std::string method = "GET";
  std::string scheme = "http";
  std::optional<base::IpAddress> client;
  Fields headers;

  [[nodiscard]] RequestView view() const {
    return {.host = host,
            .path = path,
            .query = query,
            .method = method,
            .client = client ? &*client : nullptr,
            .scheme = scheme,
            .headers = {&headers, &find_header}};
  }

 private:
  static bool find_header(const void* context, std::string_view lower_case_name, uint32_t& cursor,
                          std::string_view& value) {
    const auto& fields = *static_cast<const Fields*>(context);
    for (; cursor < fields.size(); ++cursor) {
      if (!base::equals_ignore_case(fields[cursor].first, lower_case_name)) continue;
      value = fields[cursor++].second;
      return true;
    }
    return false;
  }
};

inline Request get(std::string host, std::string path) {
  Request request;
  request.host = std::move(host);
  request.path = std::move(path);
  return request;
}

inline UpstreamSpec upstream(std::string name, uint32_t id = 0) {
  UpstreamSpec spec;
  spec.name = std::move(name);
  spec.id = id;
  ServerSpec server;
  server.address_text = "127.0.0.1:8080";
  server.address = *base::SocketAddress::parse(server.address_text);
  server.resolved = true;
  spec.servers.push_back(server);
  return spec;
}

inline RouteSpec prefix(std::string path, std::vector<std::string> hosts = {}) {
  RouteSpec spec;
  spec.path = std::move(path);
  spec.hosts = std::move(hosts);
  spec.action = ProxyAction{};
  return spec;
}

inline RouteSpec exact(std::string path, std::vector<std::string> hosts = {}) {
  RouteSpec spec = prefix(std::move(path), std::move(hosts));
  spec.exact = true;
  return spec;
}

inline RouteSpec to_target(RouteSpec spec, std::string target) {
  spec.action = ProxyAction{.upstream = 0, .target_path = std::move(target)};
  return spec;
}

// Gives every route the origin "rN" and adds one upstream named "app".
inline std::expected<std::unique_ptr<Snapshot>, std::vector<BuildError>> try_build(
    std::vector<RouteSpec> routes) {
  for (size_t i = 0; i < routes.size(); ++i) routes[i].origin_text = "r" + std::to_string(i);
  std::vector<UpstreamSpec> upstreams;
  upstreams.push_back(upstream("app"));
  return build_snapshot(routes, std::move(upstreams), {.epoch = 7});
}

inline std::unique_ptr<Snapshot> build(std::vector<RouteSpec> routes) {
  auto built = try_build(std::move(routes));
  if (!built) FAIL(built.error().front().origin + ": " + built.error().front().message);
  return std::move(*built);
}

// The origin of the route taken, "none" without.
inline std::string taken(const Snapshot& snapshot, const Request& request) {
  const Route* route = match(snapshot, request.view());
  return route == nullptr ? "none" : std::string(route->origin_text);
}

inline std::string rewritten(const Snapshot& snapshot, std::string path) {
  const Request request = get("h", std::move(path));
  const Route* route = match(snapshot, request.view());
  REQUIRE(route != nullptr);
  const Rewrite rewrite = rewrite_path(*route, request.path);
  return std::string(rewrite.prefix) + std::string(rewrite.rest);
}

}  // namespace weir::route::test
