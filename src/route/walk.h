// The search that match() and explain() share, so that the explanation cannot differ from the fact.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <weir/route/match.h>

#include "tables.h"

namespace weir::route {

enum class HostRule : uint8_t { kExact, kWildcard, kAny };

// What explain() wants to know of the walk; match() passes none.
struct WalkStep {
  HostRule host_rule = HostRule::kAny;
  std::string_view host;              // the host, or ".suffix" of a wildcard
  const Route* route = nullptr;       // null: no path of this host fits
  const Condition* failed = nullptr;  // null with a route: this one is taken
};
using WalkTrace = std::vector<WalkStep>;

const Route* walk(const Tables& tables, const RequestView& request, WalkTrace* trace) noexcept;

}  // namespace weir::route
