// What a Snapshot owns. Filled by build.cc on the control thread, read-only afterwards.
#pragma once

#include <cstdint>
#include <vector>

#include <weir/route/snapshot.h>

#include "arena.h"
#include "host_table.h"
#include "path_forest.h"

namespace weir::route {

struct Tables {
  Arena arena;  // text, conditions and details that the routes point to
  std::vector<Route> routes;
  std::vector<UpstreamSpec> upstreams;
  HostTable exact_hosts;
  HostTable wildcard_hosts;  // "*.example.com" is kept as ".example.com"
  // Bit n: there is a wildcard with n labels after the star (63: 63 or more). Saves looking up
  // suffixes that cannot be there.
  uint64_t wildcard_depths = 0;
  uint32_t any_host = kNoRoot;
  PathForest paths;
};

}  // namespace weir::route
