// Routing at 10, 1,000 and 100,000 routes: time to build a snapshot, time of one match, bytes a
// route. Three shapes: one host with many paths, many hosts with one path, many wildcard hosts.
// "warm" asks for the same ten routes again and again, so that it shows the work of the algorithm;
// "spread" asks for all routes in random order, so that it shows the cache misses as well.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include <weir/base/check.h>
#include <weir/base/prng.h>
#include <weir/route/match.h>

namespace {

using weir::base::Prng;
using weir::route::RouteSpec;
using weir::route::Snapshot;

struct Target {
  std::string host;
  std::string path;
};

struct Shape {
  const char* name;
  RouteSpec (*route)(size_t i);
  Target (*request)(size_t i);
};

// Spreads numbers so that neighbours in the file are not neighbours in the tree.
std::string number(size_t i) { return std::to_string(i * 7919 % 1'000'003); }

RouteSpec make_route(std::string host, std::string path) {
  RouteSpec spec;
  if (!host.empty()) spec.hosts.push_back(std::move(host));
  spec.path = std::move(path);
  spec.action = weir::route::ProxyAction{};
  spec.origin_text = "weir.toml:12345";
  return spec;
}

RouteSpec path_route(size_t i) {
  return make_route("example.com", "/service/" + number(i) + "/api");
}
Target path_request(size_t i) { return {"example.com", "/service/" + number(i) + "/api/v1/items"}; }
RouteSpec host_route(size_t i) { return make_route("site-" + number(i) + ".example.com", "/"); }
Target host_request(size_t i) {
  return {"site-" + number(i) + ".example.com", "/service/api/v1/items"};
}
RouteSpec wildcard_route(size_t i) {
  return make_route("*.site-" + number(i) + ".example.com", "/");
}
Target wildcard_request(size_t i) {
  return {"www.site-" + number(i) + ".example.com", "/service/api/v1/items"};
}

double now_ns() {
  return std::chrono::duration<double, std::nano>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::unique_ptr<Snapshot> build(const Shape& shape, size_t count, double& build_ms) {
  std::vector<RouteSpec> routes;
  for (size_t i = 0; i < count; ++i) routes.push_back(shape.route(i));
  weir::route::UpstreamSpec upstream;
  upstream.name = "app";
  upstream.servers.push_back({.address_text = "127.0.0.1:80",
                              .address = *weir::base::SocketAddress::parse("127.0.0.1:80"),
                              .resolved = true});
  const double start = now_ns();
  auto built = weir::route::build_snapshot(routes, {upstream});
  build_ms = (now_ns() - start) / 1e6;
  WEIR_CHECK(built.has_value());
  return std::move(*built);
}

// The best of several passes over the same requests. `distinct` routes are asked for.
double match_ns(const Shape& shape, const Snapshot& snapshot, size_t count, size_t distinct) {
  constexpr size_t kRequests = 100'000;
  Prng random(1);
  // A request's own text is in the cache when it is routed: it has just been received. Text laid
  // out in the order of asking comes close to that.
  std::string text;
  std::vector<std::pair<size_t, size_t>> lengths;
  for (size_t i = 0; i < kRequests; ++i) {
    const Target target = shape.request(random.below(distinct) * (count / distinct));
    text.append(target.host).append(target.path);
    lengths.emplace_back(target.host.size(), target.path.size());
  }
  double best = 1e18;
  for (int pass = 0; pass < 15; ++pass) {
    size_t found = 0;
    const char* at = text.data();
    const double start = now_ns();
    for (const auto& [host, path] : lengths) {
      weir::route::RequestView request;
      request.host = {at, host};
      request.path = {at + host, path};
      request.method = "GET";
      found += match(snapshot, request) != nullptr ? 1 : 0;
      at += host + path;
    }
    best = std::min(best, now_ns() - start);
    WEIR_CHECK(found == kRequests);
  }
  return best / static_cast<double>(kRequests);
}

}  // namespace

int main() {
  const Shape shapes[] = {{"paths", path_route, path_request},
                          {"hosts", host_route, host_request},
                          {"wildcards", wildcard_route, wildcard_request}};
  std::printf("%-10s %8s %10s %12s %12s %14s\n", "shape", "routes", "build ms", "warm ns",
              "spread ns", "bytes/route");
  for (const Shape& shape : shapes) {
    for (const size_t count : {size_t{10}, size_t{1000}, size_t{100'000}}) {
      double build_ms = 0;
      const auto snapshot = build(shape, count, build_ms);
      const double warm = match_ns(shape, *snapshot, count, 10);
      const double spread = match_ns(shape, *snapshot, count, count);
      std::printf("%-10s %8zu %10.2f %12.1f %12.1f %14.1f\n", shape.name, count, build_ms, warm,
                  spread,
                  static_cast<double>(snapshot->memory_bytes()) / static_cast<double>(count));
    }
  }
  return 0;
}
