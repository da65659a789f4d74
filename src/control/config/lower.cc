#include <weir/control/config/lower.h>

#include <string>
#include <utility>

namespace weir::control::config {

namespace {

uint32_t milliseconds(Milliseconds value) { return static_cast<uint32_t>(value.count()); }

route::UpstreamSpec lower_upstream(const Upstream& upstream) {
  route::UpstreamSpec spec;
  spec.name = upstream.name;
  spec.connect_timeout_ms = milliseconds(upstream.connect_timeout);
  spec.response_timeout_ms = milliseconds(upstream.response_timeout);
  spec.read_timeout_ms = milliseconds(upstream.read_timeout);
  spec.send_timeout_ms = milliseconds(upstream.send_timeout);
  spec.idle_timeout_ms = milliseconds(upstream.idle_connection_timeout);
  spec.lifetime_ms = milliseconds(upstream.max_connection_lifetime);
  spec.max_idle_per_host = upstream.max_idle_connections_per_host;
  spec.max_connecting = upstream.max_connecting;
  spec.host_header = upstream.host_header;
  for (const UpstreamServer& server : upstream.servers) {
    route::ServerSpec lowered;
    lowered.address_text = server.text;
    lowered.address = server.address;
    lowered.resolved = server.kind != UpstreamServer::Kind::kName;
    lowered.weight = server.weight;
    spec.servers.push_back(std::move(lowered));
  }
  return spec;
}

}  // namespace

LoweredRoutes lower_routes(const Config& config) {
  LoweredRoutes result;
  result.upstreams.reserve(config.upstreams.size());
  for (const Upstream& upstream : config.upstreams) {
    const auto id = static_cast<uint32_t>(result.upstreams.size());
    result.upstreams.push_back(lower_upstream(upstream));
    result.upstreams.back().id = id;
  }
  result.routes.reserve(config.routes.size());
  for (const Route& route : config.routes) {
    route::RouteSpec& spec = result.routes.emplace_back(route.spec);
    spec.origin_text = config.file + ":" + std::to_string(route.place.line);
    const uint64_t limit = route.max_body_size.value_or(config.server.max_body_size);
    spec.max_body_bytes = limit == 0 ? UINT64_MAX : limit;
  }
  return result;
}

}  // namespace weir::control::config
