#include <weir/http/head.h>

#include <catch2/catch_test_macros.hpp>

#include <string>

namespace weir::http {

TEST_CASE("methods are case-sensitive") {
  CHECK(classify_method("GET") == Method::kGet);
  CHECK(classify_method("HEAD") == Method::kHead);
  CHECK(classify_method("POST") == Method::kPost);
  CHECK(classify_method("PUT") == Method::kPut);
  CHECK(classify_method("DELETE") == Method::kDelete);
  CHECK(classify_method("CONNECT") == Method::kConnect);
  CHECK(classify_method("OPTIONS") == Method::kOptions);
  CHECK(classify_method("TRACE") == Method::kTrace);
  CHECK(classify_method("PATCH") == Method::kPatch);
  for (const char* other : {"", "get", "GETS", "GE", "PURGE", "Head", "OPTIONZ", "CONNECTS"}) {
    CHECK(classify_method(other) == Method::kOther);
  }
}

TEST_CASE("every known field is found in every case, and nothing near it") {
  for (unsigned i = 1; i < static_cast<unsigned>(KnownField::kCount); ++i) {
    const auto known = static_cast<KnownField>(i);
    const std::string name(field_name(known));
    INFO(name);
    REQUIRE_FALSE(name.empty());
    CHECK(classify_field(name) == known);
    std::string upper = name;
    for (char& c : upper) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 0x20) : c;
    CHECK(classify_field(upper) == known);
    CHECK(classify_field(name + "x") == KnownField::kOther);
    CHECK(classify_field(name.substr(1)) != known);
    for (size_t at = 0; at < name.size(); ++at) {
      for (const char other : {'_', 'q', '~', '!'}) {
        if (name[at] == other) continue;
        std::string changed = name;
        changed[at] = other;
        CHECK(classify_field(changed) != known);
      }
    }
  }
  CHECK(classify_field("") == KnownField::kOther);
  CHECK(classify_field(std::string(300, 'x')) == KnownField::kOther);
  CHECK(field_name(KnownField::kOther).empty());
}

TEST_CASE("a field table finds by identity and by name") {
  FieldTable table;
  CHECK(table.empty());
  CHECK(table.push({"Host", "a", KnownField::kHost, false}));
  CHECK(table.push({"X-A", "1", KnownField::kOther, false}));
  CHECK(table.push({"Via", "v1", KnownField::kVia, false}));
  CHECK(table.push({"x-a", "2", KnownField::kOther, false}));
  CHECK(table.push({"via", "v2", KnownField::kVia, false}));
  CHECK(table.size() == 5);
  REQUIRE(table.find(KnownField::kVia) != nullptr);
  CHECK(table.find(KnownField::kVia)->value == "v1");
  CHECK(table.count(KnownField::kVia) == 2);
  CHECK(table.has(KnownField::kHost));
  CHECK_FALSE(table.has(KnownField::kDate));
  CHECK(table.find(KnownField::kDate) == nullptr);
  CHECK(table.count(KnownField::kDate) == 0);
  REQUIRE(table.find("X-a") != nullptr);
  CHECK(table.find("X-a")->value == "1");
  CHECK(table.count("X-A") == 2);
  CHECK(table.find("X-B") == nullptr);

  const FieldTable copy = table;
  CHECK(copy.size() == 5);
  CHECK(copy.find(KnownField::kHost)->value == "a");

  table.clear();
  CHECK(table.empty());
  CHECK(table.begin() == table.end());
  CHECK_FALSE(table.has(KnownField::kHost));
  CHECK(copy.size() == 5);
}

TEST_CASE("a field table is bounded") {
  FieldTable table;
  for (size_t i = 0; i < FieldTable::kFieldsMax; ++i) CHECK(table.push({"n", "v"}));
  CHECK_FALSE(table.push({"n", "v"}));
  CHECK(table.size() == FieldTable::kFieldsMax);
}

TEST_CASE("Connection nominates unknown fields only") {
  FieldTable table;
  CHECK_FALSE(connection_nominates(table));
  CHECK(table.push({"Connection", "Close, keep-alive, TE", KnownField::kConnection, true}));
  CHECK(table.push({"Connection", "x-forwarded-for , ,Upgrade", KnownField::kConnection, true}));
  CHECK_FALSE(connection_nominates(table));
  CHECK(table.push({"Connection", "close, X-A", KnownField::kConnection, true}));
  CHECK(connection_nominates(table));
}

}  // namespace weir::http
