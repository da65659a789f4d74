#include "units.h"

#include <array>

#include <weir/base/text.h>

namespace weir::control::config {

namespace {

struct Unit {
  std::string_view name;
  int64_t factor;
};

// Largest first within a base, for formatting.
constexpr std::array kDurationUnits = {Unit{"d", 86'400'000}, Unit{"h", 3'600'000},
                                       Unit{"m", 60'000}, Unit{"s", 1000}, Unit{"ms", 1}};
constexpr std::array kSizeUnits = {Unit{"TiB", int64_t{1} << 40}, Unit{"GiB", int64_t{1} << 30},
                                   Unit{"MiB", int64_t{1} << 20}, Unit{"KiB", int64_t{1} << 10}};
constexpr std::array kDecimalSizeUnits = {Unit{"TB", 1'000'000'000'000},
                                          Unit{"GB", 1'000'000'000},
                                          Unit{"MB", 1'000'000},
                                          Unit{"KB", 1000},
                                          Unit{"B", 1},
                                          Unit{"", 1}};

struct Quantity {
  uint64_t number;
  std::string_view unit;
};

std::optional<Quantity> split(std::string_view text) noexcept {
  size_t digits = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') ++digits;
  const auto number = base::parse_decimal(text.substr(0, digits));
  if (!number) return std::nullopt;
  std::string_view unit = text.substr(digits);
  if (unit.starts_with(' ')) unit.remove_prefix(1);
  return Quantity{.number = *number, .unit = unit};
}

std::optional<int64_t> scale(uint64_t number, int64_t factor) noexcept {
  int64_t result = 0;
  if (number > INT64_MAX) return std::nullopt;
  if (__builtin_mul_overflow(static_cast<int64_t>(number), factor, &result)) return std::nullopt;
  return result;
}

template <size_t N>
std::string format(int64_t value, const std::array<Unit, N>& units, std::string_view smallest) {
  for (const Unit& unit : units) {
    if (value != 0 && value % unit.factor == 0) {
      return std::to_string(value / unit.factor).append(unit.name);
    }
  }
  return std::to_string(value).append(smallest);
}

}  // namespace

std::optional<int64_t> parse_duration(std::string_view text) noexcept {
  const auto quantity = split(text);
  if (!quantity) return std::nullopt;
  for (const Unit& unit : kDurationUnits) {
    if (unit.name == quantity->unit) return scale(quantity->number, unit.factor);
  }
  return std::nullopt;
}

std::optional<int64_t> parse_size(std::string_view text) noexcept {
  const auto quantity = split(text);
  if (!quantity) return std::nullopt;
  for (const Unit& unit : kSizeUnits) {
    if (base::equals_ignore_case(unit.name, quantity->unit)) {
      return scale(quantity->number, unit.factor);
    }
  }
  for (const Unit& unit : kDecimalSizeUnits) {
    if (base::equals_ignore_case(unit.name, quantity->unit)) {
      return scale(quantity->number, unit.factor);
    }
  }
  return std::nullopt;
}

std::string format_duration(int64_t milliseconds) {
  return format(milliseconds, kDurationUnits, "s");
}

std::string format_size(int64_t bytes) { return format(bytes, kSizeUnits, ""); }

}  // namespace weir::control::config
