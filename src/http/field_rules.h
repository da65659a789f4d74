// What weir knows about fields by their identity alone. Private to the http room; pure.
#pragma once

#include <cstdint>
#include <string_view>

#include <weir/base/text.h>
#include <weir/http/head.h>

namespace weir::http {

constexpr uint64_t field_bit(KnownField known) noexcept {
  return uint64_t{1} << static_cast<unsigned>(known);
}

// Rule 1 of Field: these end at every hop.
inline constexpr uint64_t kHopByHopFields =
    field_bit(KnownField::kConnection) | field_bit(KnownField::kKeepAlive) |
    field_bit(KnownField::kProxyConnection) | field_bit(KnownField::kTe) |
    field_bit(KnownField::kTrailer) | field_bit(KnownField::kTransferEncoding) |
    field_bit(KnownField::kUpgrade) | field_bit(KnownField::kHttp2Settings);

constexpr bool is_hop_by_hop(KnownField known) noexcept {
  return (kHopByHopFields & field_bit(known)) != 0;
}

// Rule 3 of Field: `name`, which is unknown, is that of a known field but for '_' in place of '-'.
bool imitates_known_field(std::string_view name) noexcept;

// Calls visit(element) for each element of a comma-separated list, without its white space and
// without empty elements (RFC 9110 5.6.1.2). Stops, returning false, when visit does.
template <class Visitor>
constexpr bool for_each_element(std::string_view list, Visitor&& visit) noexcept {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    const std::string_view element = base::trim(list.substr(0, comma));
    if (!element.empty() && !visit(element)) return false;
    if (comma == std::string_view::npos) break;
    list.remove_prefix(comma + 1);
  }
  return true;
}

}  // namespace weir::http
