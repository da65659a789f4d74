#include <memory>
#include <string>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/result.h>

using weir::base::Errc;
using weir::base::Error;
using weir::base::fail;
using weir::base::Result;
using weir::base::Side;

namespace {

int calls = 0;

Result<int> half(int value) {
  ++calls;
  if (value % 2 != 0) return fail(Errc::kInvalid);
  return value / 2;
}

Result<void> refuse_odd(int value) {
  if (value % 2 != 0) return fail(Error{.code = Errc::kLimit, .side = Side::kUpstream, .os = 3});
  return {};
}

Result<std::string> quarter(int value) {
  WEIR_TRY(const int first, half(value));
  WEIR_TRY(const int second, half(first));
  return std::to_string(second);
}

Result<int> guarded(int value) {
  WEIR_TRY_VOID(refuse_odd(value));
  WEIR_TRY_VOID(refuse_odd(value / 2));
  return value;
}

Result<std::unique_ptr<int>> make(bool good) {
  if (!good) return fail(Errc::kNoMemory);
  return std::make_unique<int>(5);
}

Result<int> unwrap(bool good) {
  WEIR_TRY(auto owned, make(good));  // a move-only value passes through
  return *owned;
}

}  // namespace

TEST_CASE("WEIR_TRY gives the value or leaves with the error of that step") {
  calls = 0;
  CHECK(quarter(12).value() == "3");
  CHECK(calls == 2);
  calls = 0;
  CHECK(quarter(7).error().code == Errc::kInvalid);
  CHECK(calls == 1);  // the second step never ran
  calls = 0;
  CHECK(quarter(6).error().code == Errc::kInvalid);
  CHECK(calls == 2);
}

TEST_CASE("WEIR_TRY_VOID passes the whole error on") {
  CHECK(guarded(4).value() == 4);
  CHECK(guarded(6).error() == Error{.code = Errc::kLimit, .side = Side::kUpstream, .os = 3});
  CHECK(guarded(5).error().code == Errc::kLimit);
}

TEST_CASE("a move-only value comes through WEIR_TRY") {
  CHECK(unwrap(true).value() == 5);
  CHECK(unwrap(false).error().code == Errc::kNoMemory);
}
