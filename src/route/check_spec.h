// Checks of the builder's input that need only one route or one upstream at a time. Control thread.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <weir/route/snapshot.h>

namespace weir::route {

// Gathers errors up to kBuildErrorsMax.
class ErrorList {
 public:
  void add(std::string_view origin, std::string message) {
    if (errors_.size() < kBuildErrorsMax)
      errors_.push_back({std::string(origin), std::move(message)});
  }
  [[nodiscard]] bool empty() const noexcept { return errors_.empty(); }
  [[nodiscard]] std::vector<BuildError> take() { return std::move(errors_); }

 private:
  std::vector<BuildError> errors_;
};

void check_route(const RouteSpec& route, size_t upstream_count, ErrorList& errors);
void check_upstreams(std::span<const UpstreamSpec> upstreams, ErrorList& errors);

bool is_token(std::string_view text) noexcept;  // RFC 9110 5.6.2

// Splits a location template. False, with a message, on an unknown placeholder, an unclosed one or
// bytes that a Location may not hold. The pieces view `text`.
bool parse_location(std::string_view text, std::vector<LocationPiece>& pieces,
                    std::string& message);

}  // namespace weir::route
