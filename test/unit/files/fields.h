// Field tables for tests, as the parser would make them. The texts must outlive the table.
#pragma once

#include <catch2/catch_test_macros.hpp>

#include <initializer_list>
#include <string_view>
#include <utility>

#include <weir/base/text.h>
#include <weir/http/head.h>

namespace weir::files {

using NameAndValue = std::pair<std::string_view, std::string_view>;

inline http::FieldTable fields_of(std::initializer_list<NameAndValue> lines) {
  http::FieldTable table;
  for (const auto& [name, value] : lines) {
    http::Field field;
    field.name = name;
    field.value = base::trim(value);
    field.known = http::classify_field(name);
    REQUIRE(table.push(field));
  }
  return table;
}

}  // namespace weir::files
