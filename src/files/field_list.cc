#include "field_list.h"

#include <weir/base/text.h>

namespace weir::files {

namespace {

// Cuts `rest` at the first `separator` outside of quoted strings and returns what was before it. A
// quoted string that does not end takes all the rest.
std::string_view cut(std::string_view& rest, char separator) noexcept {
  bool quoted = false;
  size_t at = 0;
  for (; at < rest.size(); ++at) {
    const char c = rest[at];
    if (quoted && c == '\\') {
      ++at;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (!quoted && c == separator) {
      break;
    }
  }
  const std::string_view before = rest.substr(0, at);
  rest.remove_prefix(at < rest.size() ? at + 1 : rest.size());
  return before;
}

// "0", "0.5", "1", "1.000". Digits beyond the third do not count.
std::optional<uint16_t> parse_weight(std::string_view text) noexcept {
  if (text.empty() || (text[0] != '0' && text[0] != '1')) return std::nullopt;
  unsigned value = text[0] == '1' ? kFullWeight : 0U;
  if (text.size() > 1 && text[1] != '.') return std::nullopt;
  unsigned place = 100;
  for (size_t i = 2; i < text.size(); ++i, place /= 10) {
    if (text[i] < '0' || text[i] > '9') return std::nullopt;
    if (text[0] == '1' && text[i] != '0') return std::nullopt;
    value += place * static_cast<unsigned>(text[i] - '0');
  }
  return static_cast<uint16_t>(value);
}

}  // namespace

std::optional<std::string_view> single_value(const http::FieldTable& fields,
                                             http::KnownField known) noexcept {
  const http::Field* const field = fields.find(known);
  if (field == nullptr || fields.count(known) != 1) return std::nullopt;
  return base::trim(field->value);
}

bool FieldElements::next(std::string_view& element) noexcept {
  for (;;) {
    while (rest_.empty()) {
      if (next_line_ == fields_.size()) return false;
      const http::Field& field = fields_[next_line_++];
      if (field.known == known_) rest_ = field.value;
    }
    element = base::trim(cut(rest_, ','));
    if (!element.empty()) return true;
  }
}

WeightedElement parse_weighted(std::string_view element) noexcept {
  WeightedElement result{base::trim(cut(element, ';')), kFullWeight};
  while (!element.empty()) {
    const std::string_view parameter = base::trim(cut(element, ';'));
    if (parameter.size() < 2 || base::to_lower(parameter[0]) != 'q' || parameter[1] != '=') {
      continue;
    }
    result.weight = parse_weight(parameter.substr(2));
    break;
  }
  return result;
}

}  // namespace weir::files
