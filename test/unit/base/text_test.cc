#include <string>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/text.h>

using namespace std::string_view_literals;
using weir::base::edit_distance;
using weir::base::equals_ignore_case;
using weir::base::parse_decimal;
using weir::base::trim;

TEST_CASE("lower case touches ASCII letters only") {
  CHECK(weir::base::lowercase("AZaz09-_[@`{") == "azaz09-_[@`{");
  CHECK(weir::base::lowercase("\xC3\x84") == "\xC3\x84");  // not a locale's business
  for (int c = 0; c < 256; ++c) {
    const char in = static_cast<char>(c);
    const char out = weir::base::to_lower(in);
    CHECK(out == (c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : in));
  }
}

TEST_CASE("comparison ignores case, not length and not bytes that differ by bit 5") {
  CHECK(equals_ignore_case("Content-Length", "content-LENGTH"));
  CHECK(equals_ignore_case("", ""));
  CHECK_FALSE(equals_ignore_case("a", "ab"));
  CHECK_FALSE(equals_ignore_case("[", "{"));  // 0x5b and 0x7b: the trap of `| 0x20`
  CHECK_FALSE(equals_ignore_case("@", "`"));
  CHECK_FALSE(equals_ignore_case("\r", "-"));
}

TEST_CASE("trim takes spaces and tabs and nothing else") {
  CHECK(trim(" \t a b \t ") == "a b");
  CHECK(trim(" \t ") == "");
  CHECK(trim("") == "");
  CHECK(trim("\ra\n") == "\ra\n");
  CHECK(trim("\va\f") == "\va\f");
  CHECK(trim("\0 "sv) == "\0"sv);
}

TEST_CASE("decimal numbers are digits only and never wrap") {
  CHECK(parse_decimal("0") == 0);
  CHECK(parse_decimal("007") == 7);
  CHECK(parse_decimal("18446744073709551615") == UINT64_MAX);
  for (const auto bad : {""sv, "+1"sv, "-1"sv, " 1"sv, "1 "sv, "0x10"sv, "1,0"sv, "1_000"sv,
                         "1\0"sv, "18446744073709551616"sv, "99999999999999999999"sv,
                         "100000000000000000000"sv, "\xD9\xA1"sv}) {
    INFO(std::string(bad));
    CHECK_FALSE(parse_decimal(bad).has_value());
  }
}

TEST_CASE("edit distance counts insertions, deletions and substitutions") {
  CHECK(edit_distance("", "") == 0);
  CHECK(edit_distance("abc", "") == 3);
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("listen", "lisetn") == 2);
  CHECK(edit_distance("flaw", "lawn") == edit_distance("lawn", "flaw"));
  const std::string longer(1000, 'x');
  CHECK(edit_distance(longer, longer) == 0);
  CHECK(edit_distance(longer, "") == 64);  // cut: the cost is bounded
}
