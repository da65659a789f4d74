// [mime]: types by extension.
#include <string>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include "config_cases.h"

using namespace weir::control::config;
using namespace weir::control::config::test;

namespace {

std::string error_of(const std::string& text) {
  const auto errors = errors_of(text);
  REQUIRE(errors.size() == 1);
  return errors[0];
}

}  // namespace

TEST_CASE("types, in the order of the file") {
  const LoadResult result = load_text(
      completed("[mime]\ndefault_type = \"\"\ncharset = \"iso-8859-1\"\nsystem_file = \"\"\n"
                "[mime.types]\nMD = \"text/markdown; charset=utf-8\"\n\".spdx.json\" = \"a/b\"\n"
                "c = \"text/x-c\"\n"));
  REQUIRE(lines_of(result.errors).empty());
  const MimeSettings& mime = result.config.mime;
  CHECK(mime.default_type.empty());
  CHECK(mime.charset == "iso-8859-1");
  CHECK(mime.system_file.empty());
  REQUIRE(mime.types.size() == 3);
  CHECK(mime.types[0].extension == "md");
  CHECK(mime.types[0].type == "text/markdown; charset=utf-8");
  CHECK(mime.types[0].place == Place{6, 1});
  CHECK(mime.types[1].extension == "spdx.json");
  CHECK(mime.types[2].type == "text/x-c");
  CHECK(result.config.places.at("mime.system_file") == Place{4, 15});
}

TEST_CASE("types that make no sense") {
  CHECK(error_of("[mime]\ndefault_type = \"text\"") ==
        "weir.toml:2:16: mime.default_type: must be a type such as \"text/plain\", or empty");
  CHECK(error_of("[mime]\ncharset = \"utf 8\"") ==
        "weir.toml:2:11: mime.charset: must be the name of a charset such as \"utf-8\", or empty");
  CHECK(error_of("[mime]\nsystem_file = \"mime.types\"") ==
        "weir.toml:2:15: mime.system_file: must be an absolute path, or empty");
  CHECK(error_of("[mime]\ntypes = \"x\"") ==
        "weir.toml:2:9: mime.types: must be a table, not a string");
  CHECK(error_of("[mime.types]\nmd = 3") ==
        "weir.toml:2:6: mime.types.md: must be a string, not an integer");
  CHECK(error_of("[mime.types]\ngood = \"a/b\"\nmd = \"markdown\"")
            .starts_with("weir.toml:3:6: mime.types.md: "));
  CHECK(error_of("[mime.types]\nmd = \"a/b\\r\\nX: y\"").starts_with("weir.toml:2:6: "));
  CHECK(error_of("[mime.types]\n\"a/b\" = \"a/b\"").starts_with("weir.toml:2:9: "));
  CHECK(error_of("[mime.types]\nmd = \"a/b\"\n\".MD\" = \"a/b\"") ==
        "weir.toml:3:1: mime.types.\".MD\": is the same extension as in line 2");
  std::string many = "[mime.types]\n";
  for (int i = 0; i < 4097; ++i) many += "x" + std::to_string(i) + " = \"a/b\"\n";
  CHECK(error_of(many) == "weir.toml:1:1: mime.types: has 4097 types; there may be 4096");
}
