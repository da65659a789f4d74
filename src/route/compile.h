// One checked RouteSpec -> one Route with its conditions and details in the arena. Control thread.
#pragma once

#include <cstdint>
#include <string>

#include <weir/route/snapshot.h>

#include "arena.h"

namespace weir::route {

// `spec` has passed check_route.
Route compile_route(const RouteSpec& spec, uint32_t index, Arena& arena);

// How specific a route's conditions are; see the rules in snapshot.h. Greater comes first.
uint64_t specificity(const RouteSpec& spec) noexcept;

// The same text for the same set of conditions, in whatever order they were written; empty for
// none.
std::string condition_signature(const RouteSpec& spec);

// The key of the route's path in a path tree: prefixes lose their trailing slash.
std::string_view path_key(const RouteSpec& spec) noexcept;

}  // namespace weir::route
