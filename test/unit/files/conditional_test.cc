#include <weir/files/conditional.h>

#include <catch2/catch_test_macros.hpp>

#include <array>
#include <optional>
#include <string>
#include <vector>

#include <weir/base/prng.h>

#include "fields.h"

namespace weir::files {

namespace {

using http::Method;

constexpr std::string_view kTag = "\"v1\"";
constexpr int64_t kModified = 784111777;  // Sun, 06 Nov 1994 08:49:37 GMT
constexpr int64_t kNow = 1785000000;
constexpr std::string_view kThen = "Sun, 06 Nov 1994 08:49:37 GMT";
constexpr std::string_view kBefore = "Sun, 06 Nov 1994 08:49:36 GMT";
constexpr std::string_view kAfter = "Sun, 06 Nov 1994 08:49:38 GMT";

Validators file() { return {kTag, kModified}; }

// "200", "206" (a range may be used), "304" or "412".
std::string answer(std::initializer_list<NameAndValue> lines, Method method = Method::kGet,
                   Validators validators = file(), SinceRule since = SinceRule::kNotLater) {
  const http::FieldTable fields = fields_of(lines);
  const Evaluation result = evaluate_preconditions(fields, method, validators, kNow, since);
  switch (result.outcome) {
    case Precondition::kProceed: return result.use_range ? "206" : "200";
    case Precondition::kNotModified: CHECK_FALSE(result.use_range); return "304";
    case Precondition::kFailed: CHECK_FALSE(result.use_range); return "412";
  }
  return "";
}

}  // namespace

TEST_CASE("no condition") {
  CHECK(answer({}) == "200");
  CHECK(answer({{"Range", "bytes=0-1"}}) == "206");
  CHECK(answer({{"Range", "bytes=0-1"}}, Method::kHead) == "200");
  CHECK(answer({{"Range", "bytes=0-1"}}, Method::kPost) == "200");
  CHECK(answer({{"If-Range", kTag}}) == "200");
}

TEST_CASE("If-Match") {
  CHECK(answer({{"If-Match", kTag}}) == "200");
  CHECK(answer({{"If-Match", "\"v2\""}}) == "412");
  CHECK(answer({{"If-Match", "\"v2\", \"v1\""}}) == "200");
  CHECK(answer({{"If-Match", "\"v2\",\"v3\""}}) == "412");
  CHECK(answer({{"If-Match", "*"}}) == "200");
  CHECK(answer({{"If-Match", "*"}}, Method::kGet, {{}, std::nullopt}) == "200");
  CHECK(answer({{"If-Match", "W/\"v1\""}}) == "412");  // strong comparison
  CHECK(answer({{"If-Match", "\"v1\""}}, Method::kGet, {"W/\"v1\"", kModified}) == "412");
  CHECK(answer({{"If-Match", ""}}) == "412");
  CHECK(answer({{"If-Match", "v1"}}) == "412");
  CHECK(answer({{"If-Match", kTag}}, Method::kGet, {{}, kModified}) == "412");
  CHECK(answer({{"If-Match", kTag}}, Method::kPut) == "200");
  CHECK(answer({{"If-Match", "\"v2\""}}, Method::kDelete) == "412");
}

TEST_CASE("If-None-Match") {
  CHECK(answer({{"If-None-Match", kTag}}) == "304");
  CHECK(answer({{"If-None-Match", kTag}}, Method::kHead) == "304");
  CHECK(answer({{"If-None-Match", kTag}}, Method::kPut) == "412");
  CHECK(answer({{"If-None-Match", "\"v2\""}}, Method::kPut) == "200");
  CHECK(answer({{"If-None-Match", "\"v2\""}}) == "200");
  CHECK(answer({{"If-None-Match", "W/\"v1\""}}) == "304");  // weak comparison
  CHECK(answer({{"If-None-Match", kTag}}, Method::kGet, {"W/\"v1\"", kModified}) == "304");
  CHECK(answer({{"If-None-Match", "*"}}) == "304");
  CHECK(answer({{"If-None-Match", " * "}}) == "304");
  CHECK(answer({{"If-None-Match", "*"}}, Method::kPost) == "412");
  CHECK(answer({{"If-None-Match", kTag}}, Method::kGet, {{}, kModified}) == "200");
}

TEST_CASE("lists of entity-tags") {
  const auto matches = [](std::string_view list) {
    const std::string none = answer({{"If-None-Match", list}});
    CHECK(answer({{"If-Match", list}}) == (none == "304" ? "200" : "412"));
    return none == "304";
  };
  // RFC 9110 13.1.1 and 13.1.2
  CHECK_FALSE(matches(R"("xyzzy")"));
  CHECK_FALSE(matches(R"("xyzzy", "r2d2xxxx", "c3piozzzz")"));
  CHECK(matches(R"("xyzzy", "r2d2xxxx", "v1")"));
  CHECK(matches(R"(,, "v1")"));
  CHECK(matches(R"("v1",)"));
  CHECK(matches(R"("a,b" , "v1")"));
  CHECK(matches("\"a\"\t,\t\"v1\"\t"));
  CHECK(matches(R"("a\", "v1")"));  // a backslash is a character like others
  CHECK(matches("\"\xff\xe4\", \"v1\""));
  CHECK(matches(R"(W/"x", "v1")"));
  CHECK_FALSE(matches(R"("v1)"));
  CHECK_FALSE(matches(R"(v1")"));
  CHECK_FALSE(matches(R"('v1')"));
  CHECK_FALSE(matches(R"("V1")"));
  CHECK_FALSE(matches(R"("v1 ")"));
  CHECK_FALSE(matches(R"("v1"x)"));
  CHECK_FALSE(matches(R"("a" "v1")"));
  CHECK_FALSE(matches(R"("a"; "v1")"));
  CHECK_FALSE(matches(R"(w/"v1")"));
  CHECK_FALSE(matches(R"(W/ "v1")"));
  CHECK_FALSE(matches(R"(junk, "v1")"));  // nothing behind what cannot be read
  CHECK_FALSE(matches(R"(*, "v1")"));
  CHECK(matches(R"("v1", junk)"));
  CHECK_FALSE(matches(R"("a b", "v1")"));
  CHECK_FALSE(matches(R"("")"));
  CHECK(matches(R"("v1", "v1)"));  // the first is whole
}

TEST_CASE("several lines of one field are one list") {
  CHECK(answer({{"If-None-Match", "\"a\""}, {"if-none-match", kTag}}) == "304");
  CHECK(answer({{"If-None-Match", "\"a\""}, {"X", "y"}, {"If-None-Match", "\"b\""}}) == "200");
  CHECK(answer({{"If-Match", "\"a\""}, {"If-Match", kTag}}) == "200");
  CHECK(answer({{"If-None-Match", "junk"}, {"If-None-Match", kTag}}) == "200");
  CHECK(answer({{"If-None-Match", "*"}, {"If-None-Match", "\"a\""}}) == "200");
}

TEST_CASE("If-Modified-Since") {
  CHECK(answer({{"If-Modified-Since", kThen}}) == "304");
  CHECK(answer({{"If-Modified-Since", kAfter}}) == "304");
  CHECK(answer({{"If-Modified-Since", kBefore}}) == "200");
  CHECK(answer({{"If-Modified-Since", kThen}}, Method::kHead) == "304");
  CHECK(answer({{"If-Modified-Since", kThen}}, Method::kPost) == "200");
  CHECK(answer({{"If-Modified-Since", "Sunday, 06-Nov-94 08:49:37 GMT"}}) == "304");
  CHECK(answer({{"If-Modified-Since", "Sun Nov  6 08:49:37 1994"}}) == "304");
  CHECK(answer({{"If-Modified-Since", "Sun Nov  6 08:49:36 1994"}}) == "200");
  CHECK(answer({{"If-Modified-Since", "soon"}}) == "200");
  CHECK(answer({{"If-Modified-Since", "784111777"}}) == "200");
  CHECK(answer({{"If-Modified-Since", ""}}) == "200");
  CHECK(answer({{"If-Modified-Since", kThen}, {"If-Modified-Since", kThen}}) == "200");
  CHECK(answer({{"If-Modified-Since", kThen}}, Method::kGet, {kTag, std::nullopt}) == "200");
}

TEST_CASE("If-Modified-Since by the exact date") {
  const auto exactly = [](std::string_view date) {
    return answer({{"If-Modified-Since", date}}, Method::kGet, file(), SinceRule::kExactly);
  };
  CHECK(exactly(kThen) == "304");
  CHECK(exactly(kAfter) == "200");  // the file was put back to an older version
  CHECK(exactly(kBefore) == "200");
}

TEST_CASE("If-Unmodified-Since") {
  CHECK(answer({{"If-Unmodified-Since", kThen}}) == "200");
  CHECK(answer({{"If-Unmodified-Since", kAfter}}) == "200");
  CHECK(answer({{"If-Unmodified-Since", kBefore}}) == "412");
  CHECK(answer({{"If-Unmodified-Since", kBefore}}, Method::kPut) == "412");
  CHECK(answer({{"If-Unmodified-Since", "Sunday, 06-Nov-94 08:49:36 GMT"}}) == "412");
  CHECK(answer({{"If-Unmodified-Since", "long ago"}}) == "200");
  CHECK(answer({{"If-Unmodified-Since", kBefore}, {"If-Unmodified-Since", kBefore}}) == "200");
  CHECK(answer({{"If-Unmodified-Since", kBefore}}, Method::kGet, {kTag, std::nullopt}) == "200");
}

TEST_CASE("If-Range") {
  const auto range = [](std::string_view value, Validators validators = file()) {
    return answer({{"Range", "bytes=0-1"}, {"If-Range", value}}, Method::kGet, validators);
  };
  CHECK(range(kTag) == "206");
  CHECK(range("\"v2\"") == "200");
  CHECK(range("W/\"v1\"") == "200");
  CHECK(range(kTag, {"W/\"v1\"", kModified}) == "200");
  CHECK(range("\"v1\", \"v2\"") == "200");  // one tag, no list
  CHECK(range("*") == "200");
  CHECK(range("") == "200");
  CHECK(range("\"v1") == "200");
  CHECK(range(kThen) == "206");
  CHECK(range(kAfter) == "200");  // exact, unlike the other dates
  CHECK(range(kBefore) == "200");
  CHECK(range("Sunday, 06-Nov-94 08:49:37 GMT") == "206");
  CHECK(range(kThen, {kTag, std::nullopt}) == "200");
  CHECK(range(kTag, {{}, kModified}) == "200");
  CHECK(answer({{"Range", "bytes=0-1"}, {"If-Range", kTag}, {"If-Range", kTag}}) == "200");
  CHECK(answer({{"Range", "bytes=0-1"}, {"If-Range", kTag}}, Method::kHead) == "200");
}

TEST_CASE("a date of the present second is no strong validator") {
  const http::FieldTable fields = fields_of({{"Range", "bytes=0-1"}, {"If-Range", kThen}});
  const auto use_at = [&fields](int64_t now) {
    return evaluate_preconditions(fields, Method::kGet, file(), now).use_range;
  };
  CHECK_FALSE(use_at(kModified - 1));
  CHECK_FALSE(use_at(kModified));
  CHECK(use_at(kModified + 1));
}

TEST_CASE("methods that select nothing have no conditions") {
  for (Method method : {Method::kOptions, Method::kConnect, Method::kTrace}) {
    CHECK(answer({{"If-Match", "\"v2\""}, {"If-None-Match", "*"}, {"Range", "bytes=0-1"}},
                 method) == "200");
  }
}

namespace {

// A state of one field: absent, or with a value that makes its condition true or false, or one that
// is not valid.
enum State { kAbsent, kTrue, kFalse, kInvalid, kStates };

struct Situation {
  State match;
  State unmodified;
  State none_match;
  State modified;
  State if_range;
  bool range;
  Method method;
};

// RFC 9110 13.2.2, written down step by step.
std::string expected(const Situation& s) {
  const bool reads = s.method == Method::kGet || s.method == Method::kHead;
  if (s.match != kAbsent) {
    if (s.match != kTrue) return "412";  // what cannot be read matches nothing
  } else if (s.unmodified == kFalse) {   // an invalid date is ignored
    return "412";
  }
  if (s.none_match != kAbsent) {
    if (s.none_match == kFalse) return reads ? "304" : "412";
  } else if (reads && s.modified == kFalse) {
    return "304";
  }
  if (s.method == Method::kGet && s.range && (s.if_range == kAbsent || s.if_range == kTrue)) {
    return "206";
  }
  return "200";
}

std::string actual(const Situation& s) {
  // By field and state. If-None-Match is false, and If-Modified-Since too, when nothing changed.
  constexpr std::array<std::string_view, kStates> kMatch{"", "\"v1\"", "\"v2\"", "v1"};
  constexpr std::array<std::string_view, kStates> kUnmodified{"", kThen, kBefore, "never"};
  constexpr std::array<std::string_view, kStates> kNoneMatch{"", "\"v2\"", "W/\"v1\"", "v1"};
  constexpr std::array<std::string_view, kStates> kModifiedSince{"", kBefore, kThen, "never"};
  constexpr std::array<std::string_view, kStates> kIfRange{"", "\"v1\"", "\"v2\"", "v1"};
  http::FieldTable fields;
  const auto add = [&fields](std::string_view name, std::string_view value, bool present) {
    if (present) REQUIRE(fields.push({name, value, http::classify_field(name), false}));
  };
  add("If-Range", kIfRange[s.if_range], s.if_range != kAbsent);
  add("Range", "bytes=0-0", s.range);
  add("If-Modified-Since", kModifiedSince[s.modified], s.modified != kAbsent);
  add("If-None-Match", kNoneMatch[s.none_match], s.none_match != kAbsent);
  add("If-Unmodified-Since", kUnmodified[s.unmodified], s.unmodified != kAbsent);
  add("If-Match", kMatch[s.match], s.match != kAbsent);
  const Evaluation result = evaluate_preconditions(fields, s.method, file(), kNow);
  if (result.outcome == Precondition::kNotModified) return "304";
  if (result.outcome == Precondition::kFailed) return "412";
  return result.use_range ? "206" : "200";
}

}  // namespace

TEST_CASE("every combination in the order of RFC 9110 13.2.2") {
  size_t combinations = 0;
  for (unsigned code = 0; code < 1024; ++code) {  // five fields of four states
    for (bool range : {false, true}) {
      for (Method method : {Method::kGet, Method::kHead, Method::kPut}) {
        const auto state = [code](unsigned field) {
          return static_cast<State>(code >> (2 * field) & 3U);
        };
        const Situation s{state(0), state(1), state(2), state(3), state(4), range, method};
        INFO("states " << code << ", range " << range << ", method " << static_cast<int>(method));
        CHECK(actual(s) == expected(s));
        ++combinations;
      }
    }
  }
  CHECK(combinations == 6144);
}

TEST_CASE("random tag lists agree with a plain reading of the grammar") {
  // Every element is made here, so it is known what is in the list.
  base::Prng prng(13);
  for (int i = 0; i < 30000; ++i) {
    std::string list;
    bool weak_match = false;
    bool strong_match = false;
    bool readable = true;
    const size_t count = prng.below(6);
    for (size_t element = 0; element < count; ++element) {
      if (element != 0) list += prng.chance(50) ? "," : " ,\t ";
      switch (prng.below(5)) {
        case 0: list += ""; break;
        case 1: list += "\"other\""; break;
        case 2:
          list += "\"v1\"";
          if (readable) weak_match = strong_match = true;
          break;
        case 3:
          list += "W/\"v1\"";
          if (readable) weak_match = true;
          break;
        default: list += "v1"; readable = false;
      }
    }
    INFO(list);
    CHECK(answer({{"If-None-Match", list}}) == (weak_match ? "304" : "200"));
    CHECK(answer({{"If-Match", list}}) == (strong_match ? "200" : "412"));
  }
}

TEST_CASE("random bytes in every field") {
  base::Prng prng(14);
  constexpr std::string_view kAlphabet = "\"\"\",,**W/v1 \t\\\xff=;-09SunGMT:";
  const auto text = [&prng, kAlphabet] {
    std::string made;
    const size_t size = prng.below(40);
    for (size_t i = 0; i < size; ++i) made += kAlphabet[prng.below(kAlphabet.size())];
    return made;
  };
  for (int i = 0; i < 30000; ++i) {
    const std::array<std::string, 6> values{text(), text(), text(), text(), text(), text()};
    const std::string got = answer({{"If-Match", values[0]},
                                    {"If-None-Match", values[1]},
                                    {"If-Modified-Since", values[2]},
                                    {"If-Unmodified-Since", values[3]},
                                    {"If-Range", values[4]},
                                    {"Range", values[5]}});
    // Without the tag (or *) in it, If-Match never holds.
    const bool has_tag =
        values[0].find("\"v1\"") != std::string::npos || values[0].find('*') != std::string::npos;
    if (!has_tag) CHECK(got == "412");
    if (got == "206") CHECK(values[4].find("\"v1\"") != std::string::npos);
  }
}

}  // namespace weir::files
