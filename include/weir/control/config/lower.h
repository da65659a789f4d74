// From a Config without errors to the routing room's input. Pure, but for the key of sticky
// sessions that have no key_file: made at random once, and the same ever after. Control thread or
// tools.
#pragma once

#include <vector>

#include <weir/control/config/config.h>
#include <weir/route/spec.h>

namespace weir::control::config {

struct LoweredRoutes {
  std::vector<route::RouteSpec> routes;        // in the order of Config::routes
  std::vector<route::UpstreamSpec> upstreams;  // in the order of Config::upstreams
};

// Leaves to the caller: ids that are stable over reloads (UpstreamSpec::id is the position here,
// enough for tools; ServerSpec::endpoint_id is 0), and the lookup of servers given by name
// (`resolved` is false; IP addresses and Unix sockets are resolved).
LoweredRoutes lower_routes(const Config& config);

}  // namespace weir::control::config
