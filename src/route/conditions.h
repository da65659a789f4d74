// Conditions of a route, compiled: evaluated without allocation on the data path, described in
// words for explain. Their arrays live in the snapshot's Arena.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <weir/base/ip.h>
#include <weir/route/match.h>

namespace weir::route {

struct Condition {
  enum class Kind : uint8_t { kMethod, kSource, kHeader, kQuery };
  Kind kind = Kind::kMethod;
  ValueMatch match = ValueMatch::kExact;      // kHeader, kQuery
  std::string_view name;                      // kHeader (lower case), kQuery
  std::string_view value;                     // kHeader, kQuery with kExact or kPrefix
  std::span<const std::string_view> methods;  // kMethod
  std::span<const base::Cidr> sources;        // kSource: sorted, none inside another
};

// The first condition of the route that does not hold, or null.
const Condition* first_failed(const Route& route, const RequestView& request) noexcept;

std::string describe(const Condition& condition);  // "method is GET or POST"

// Sorts blocks and drops those that lie inside another, as Condition::sources wants them.
void normalise_sources(std::vector<base::Cidr>& sources);

}  // namespace weir::route
