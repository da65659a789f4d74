#include <weir/files/accept_encoding.h>

#include <algorithm>
#include <array>
#include <optional>

#include <weir/base/text.h>

#include "field_list.h"

namespace weir::files {

namespace {

// The weights that a field gives, each at most once.
struct Weights {
  std::array<std::optional<uint16_t>, 4> by_coding;  // by Coding
  std::optional<uint16_t> others;                    // "*"

  [[nodiscard]] std::optional<uint16_t> of(Coding coding) const noexcept {
    const auto& own = by_coding[static_cast<size_t>(coding)];
    return own ? own : others;
  }
};

std::optional<Coding> coding_of(std::string_view name) noexcept {
  if (base::equals_ignore_case(name, "identity")) return Coding::kIdentity;
  if (base::equals_ignore_case(name, "x-gzip")) return Coding::kGzip;
  for (Coding coding : kCodings) {
    if (base::equals_ignore_case(name, coding_name(coding))) return coding;
  }
  return std::nullopt;
}

void lower(std::optional<uint16_t>& weight, uint16_t to) noexcept {
  weight = weight ? std::min(*weight, to) : to;
}

Weights read_weights(const http::FieldTable& fields) noexcept {
  Weights weights;
  FieldElements elements(fields, http::KnownField::kAcceptEncoding);
  for (std::string_view element; elements.next(element);) {
    const WeightedElement weighted = parse_weighted(element);
    if (weighted.name == "*") {
      if (weighted.weight) lower(weights.others, *weighted.weight);
      continue;
    }
    const auto coding = coding_of(weighted.name);
    if (!coding) continue;
    // Nobody refuses the original by a weight that cannot be read.
    if (*coding == Coding::kIdentity && !weighted.weight) continue;
    lower(weights.by_coding[static_cast<size_t>(*coding)], weighted.weight.value_or(0));
  }
  return weights;
}

}  // namespace

CodingChoice choose_coding(const http::FieldTable& fields, CodingSet available) noexcept {
  CodingChoice choice;
  choice.vary = !available.empty();
  if (!fields.has(http::KnownField::kAcceptEncoding)) return choice;
  const Weights weights = read_weights(fields);
  uint16_t best = 0;
  for (Coding coding : kCodings) {
    const uint16_t weight = available.has(coding) ? weights.of(coding).value_or(0) : uint16_t{0};
    if (weight > best) {
      best = weight;
      choice.coding = coding;
    }
  }
  const auto& named = weights.by_coding[static_cast<size_t>(Coding::kIdentity)];
  if (named && *named > best) choice.coding = Coding::kIdentity;
  choice.identity_refused =
      choice.coding == Coding::kIdentity && weights.of(Coding::kIdentity) == uint16_t{0};
  return choice;
}

}  // namespace weir::files
