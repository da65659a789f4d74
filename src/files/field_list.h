// Fields whose value is a list (RFC 9110 5.6.1), over all field lines of that name, and elements
// with a weight (12.4.2). Private to the files room; views into the fields.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include <weir/http/head.h>

namespace weir::files {

// The value of the only field line of that identity; empty when there is none or more than one.
std::optional<std::string_view> single_value(const http::FieldTable& fields,
                                             http::KnownField known) noexcept;

// Walks the elements in order; empty ones are passed over. A comma in a quoted string does not end
// an element.
class FieldElements {
 public:
  FieldElements(const http::FieldTable& fields, http::KnownField known) noexcept
      : fields_(fields), known_(known), next_line_(fields.has(known) ? 0 : fields.size()) {}

  // The next one without white space around it; false at the end.
  bool next(std::string_view& element) noexcept;

 private:
  const http::FieldTable& fields_;
  http::KnownField known_;
  size_t next_line_;
  std::string_view rest_;
};

inline constexpr uint16_t kFullWeight = 1000;

// "gzip;q=0.5" and "text/html;charset=utf-8;q=0.5". Parameters other than q are passed over.
struct WeightedElement {
  std::string_view name;
  std::optional<uint16_t> weight;  // in thousandths; empty when q cannot be read
};
WeightedElement parse_weighted(std::string_view element) noexcept;

}  // namespace weir::files
