#include <weir/files/range.h>

#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <string>
#include <vector>

#include <weir/base/prng.h>

#include "fields.h"

namespace weir::files {

namespace {

// "200", "416", or "first-last,first-last".
std::string selected(std::string_view value, uint64_t size) {
  const RangeSelection selection = select_ranges(value, size);
  CHECK(selection.file_size == size);
  switch (selection.verdict) {
    case RangeVerdict::kWhole: CHECK(selection.count == 0); return "200";
    case RangeVerdict::kUnsatisfiable: CHECK(selection.count == 0); return "416";
    case RangeVerdict::kPartial: break;
  }
  std::string text;
  for (const FileRange& range : selection.ranges()) {
    if (!text.empty()) text += ',';
    text += std::to_string(range.offset) + '-' + std::to_string(range.offset + range.size - 1);
  }
  return text;
}

}  // namespace

TEST_CASE("the examples of RFC 9110 14.1.2") {
  CHECK(selected("bytes=0-499", 10000) == "0-499");
  CHECK(selected("bytes=500-999", 10000) == "500-999");
  CHECK(selected("bytes=-500", 10000) == "9500-9999");
  CHECK(selected("bytes=9500-", 10000) == "9500-9999");
  CHECK(selected("bytes=0-0,-1", 10000) == "0-0,9999-9999");
  CHECK(selected("bytes= 0-999, 4500-5499, -1000", 10000) == "0-999,4500-5499,9000-9999");
  CHECK(selected("bytes=500-600,601-999", 10000) == "500-999");
  CHECK(selected("bytes=500-700,601-999", 10000) == "500-999");
}

TEST_CASE("one range") {
  CHECK(selected("bytes=0-", 10) == "0-9");  // the whole file, but asked for: 206
  CHECK(selected("bytes=0-9", 10) == "0-9");
  CHECK(selected("bytes=0-10", 10) == "0-9");
  CHECK(selected("bytes=9-", 10) == "9-9");
  CHECK(selected("bytes=9-9", 10) == "9-9");
  CHECK(selected("bytes=-1", 10) == "9-9");
  CHECK(selected("bytes=-10", 10) == "0-9");
  CHECK(selected("bytes=-11", 10) == "0-9");
  CHECK(selected("bytes=007-0008", 10) == "7-8");
  CHECK(selected("Bytes=1-2", 10) == "1-2");
  CHECK(selected("BYTES=1-2", 10) == "1-2");
}

TEST_CASE("what cannot be satisfied") {
  CHECK(selected("bytes=10-", 10) == "416");
  CHECK(selected("bytes=10-20", 10) == "416");
  CHECK(selected("bytes=-0", 10) == "416");
  CHECK(selected("bytes=10-,20-30,-0", 10) == "416");
  CHECK(selected("bytes=10-,3-4,20-30", 10) == "3-4");
  CHECK(selected("bytes=0-", 0) == "416");
  CHECK(selected("bytes=0-0", 0) == "416");
  CHECK(selected("bytes=-0", 0) == "416");
  // A suffix of an empty file is all of it, and no Content-Range can say so.
  CHECK(selected("bytes=-1", 0) == "200");
  CHECK(selected("bytes=0-,-5", 0) == "200");
}

TEST_CASE("what is no range is passed over") {
  for (const char* value : {"",
                            "bytes",
                            "bytes=",
                            "bytes=,",
                            "bytes= , ,",
                            "byte=0-1",
                            "items=0-1",
                            "bytes:0-1",
                            "bytes =0-1",
                            " bytes=0-1",
                            "bytes=0",
                            "bytes=-",
                            "bytes=a-b",
                            "bytes=0-1-2",
                            "bytes=--1",
                            "bytes=1--1",
                            "bytes=+1-2",
                            "bytes=1-+2",
                            "bytes=0x1-0x2",
                            "bytes=1 - 2",
                            "bytes=1- 2",
                            "bytes=2-1",
                            "bytes=0-1;2-3",
                            "bytes=0-1,2-1",
                            "bytes=0-1,junk",
                            "bytes=junk,0-1",
                            "bytes=0-1 2-3",
                            "bytes=0-1, bytes=2-3",
                            "bytes=1.5-2",
                            "bytes=0-1\xff",
                            "bytes=*",
                            "bytes=\"0-1\"",
                            "bytes=0-1,5-2",
                            "bytes=20-10"}) {
    INFO(value);
    CHECK(selected(value, 10) == "200");
  }
}

TEST_CASE("empty elements and white space between elements") {
  CHECK(selected("bytes=,0-1", 10) == "0-1");
  CHECK(selected("bytes=0-1,,5-6,", 10) == "0-1,5-6");
  CHECK(selected("bytes=0-1\t,\t5-6 ", 10) == "0-1,5-6");
}

TEST_CASE("large numbers") {
  const uint64_t most = UINT64_MAX;
  CHECK(selected("bytes=0-18446744073709551615", 10) == "0-9");
  CHECK(selected("bytes=0-18446744073709551616", 10) == "0-9");
  CHECK(selected("bytes=0-99999999999999999999999999999999", 10) == "0-9");
  CHECK(selected("bytes=-99999999999999999999999999999999", 10) == "0-9");
  CHECK(selected("bytes=99999999999999999999999999999999-", 10) == "416");
  CHECK(selected("bytes=99999999999999999999-99999999999999999999", most) == "416");
  CHECK(selected("bytes=0000000000000000000000000000000000000001-2", 10) == "1-2");
  CHECK(selected("bytes=0-000000000000000000000000000000000000000", 10) == "0-0");
  CHECK(selected("bytes=18446744073709551614-", most) ==
        "18446744073709551614-18446744073709551614");
  CHECK(selected("bytes=0-", most) == "0-18446744073709551614");
  CHECK(selected("bytes=-18446744073709551615,0-", most) == "200");
}

TEST_CASE("merging keeps the order as asked") {
  CHECK(selected("bytes=80-89,10-19", 100) == "80-89,10-19");
  CHECK(selected("bytes=80-89,10-19,20-29", 100) == "80-89,10-29");
  CHECK(selected("bytes=20-29,80-89,10-19", 100) == "10-29,80-89");
  CHECK(selected("bytes=80-89,20-29,10-19,5-24", 100) == "80-89,5-29");
  CHECK(selected("bytes=0-1,4-5,2-3", 100) == "0-5");
  CHECK(selected("bytes=0-1,3-4", 100) == "0-1,3-4");  // one byte between them
  CHECK(selected("bytes=0-50,10-20,5-6", 100) == "0-50");
  CHECK(selected("bytes=50-59,50-59", 100) == "50-59");
  CHECK(selected("bytes=-10,80-89", 100) == "80-99");
}

TEST_CASE("ranges that would cost more than they save") {
  // More bytes than there are, because they overlap.
  CHECK(selected("bytes=0-,0-", 100) == "200");
  CHECK(selected("bytes=0-60,40-99", 100) == "200");
  CHECK(selected("bytes=0-49,50-99", 100) == "0-99");
  CHECK(selected("bytes=0-60,61-70,30-58", 100) == "0-70");
  // 16 parts are sent, 17 are not; adjacent ones count as one.
  const auto every_other = [](size_t count) {
    std::string value = "bytes=";
    for (size_t i = 0; i < count; ++i) {
      const std::string at = std::to_string(2 * i);
      value += at + "-" + at + ",";
    }
    return value;
  };
  const RangeSelection most = select_ranges(every_other(kRangesMax), 1000);
  CHECK(most.verdict == RangeVerdict::kPartial);
  CHECK(most.count == kRangesMax);
  CHECK(selected(every_other(kRangesMax + 1), 1000) == "200");
  std::string adjacent = "bytes=";
  for (int i = 0; i < 128; ++i) adjacent += std::to_string(i) + "-" + std::to_string(i) + ",";
  CHECK(selected(adjacent, 1000) == "0-127");
  CHECK(selected(adjacent + "128-128", 1000) == "200");
  CHECK(selected(adjacent + "junk", 1000) == "200");
  // Beyond the limit even those that cannot be satisfied.
  std::string outside = "bytes=";
  for (int i = 0; i < 129; ++i) outside += "5000-,";
  CHECK(selected(outside, 1000) == "200");
}

TEST_CASE("of a request") {
  const auto verdict = [](std::initializer_list<NameAndValue> lines) {
    return select_ranges(fields_of(lines), 10).verdict;
  };
  CHECK(verdict({}) == RangeVerdict::kWhole);
  CHECK(verdict({{"Range", "bytes=0-1"}}) == RangeVerdict::kPartial);
  CHECK(verdict({{"range", "  bytes=0-1  "}}) == RangeVerdict::kPartial);
  CHECK(verdict({{"Range", "bytes=99-"}}) == RangeVerdict::kUnsatisfiable);
  CHECK(verdict({{"Range", "bytes=0-1"}, {"Range", "bytes=0-1"}}) == RangeVerdict::kWhole);
  CHECK(verdict({{"Range", ""}}) == RangeVerdict::kWhole);
}

namespace {

// The oracle works on single bytes: which parts of the file were asked for, in which order.
struct Asked {
  uint64_t first;
  uint64_t last;
};

std::string oracle(const std::vector<Asked>& asked, size_t size) {
  if (asked.empty()) return "416";
  uint64_t sum = 0;
  std::vector<bool> wanted(size + 1, false);
  for (const Asked& range : asked) {
    sum += range.last - range.first + 1;
    for (uint64_t at = range.first; at <= range.last; ++at) wanted[at] = true;
  }
  if (asked.size() > 1 && sum > size) return "200";
  std::string text;
  size_t parts = 0;
  for (const Asked& range : asked) {
    if (!wanted[range.first]) continue;  // went out with an earlier one
    uint64_t begin = range.first;
    uint64_t end = range.first;
    while (begin > 0 && wanted[begin - 1]) --begin;
    while (wanted[end]) ++end;
    for (uint64_t at = begin; at < end; ++at) wanted[at] = false;
    text += (parts++ == 0 ? "" : ",") + std::to_string(begin) + "-" + std::to_string(end - 1);
  }
  return parts > kRangesMax ? "200" : text;
}

}  // namespace

TEST_CASE("random range sets agree with an oracle that looks at single bytes") {
  base::Prng prng(206);
  size_t partial = 0;
  for (int i = 0; i < 40000; ++i) {
    const size_t size = 1 + prng.below(prng.chance(50) ? 12 : 300);
    const size_t count = 1 + prng.below(prng.chance(80) ? 5 : 40);
    std::string value = "bytes=";
    std::vector<Asked> asked;
    for (size_t range = 0; range < count; ++range) {
      const uint64_t first = prng.below(size + size / 4 + 1);
      if (range != 0) value += prng.chance(50) ? "," : ", ";
      if (prng.chance(15)) {  // a suffix
        value += "-" + std::to_string(first);
        if (first != 0) asked.push_back({size - std::min<uint64_t>(first, size), size - 1});
      } else if (prng.chance(15)) {  // to the end
        value += std::to_string(first) + "-";
        if (first < size) asked.push_back({first, size - 1});
      } else {
        const uint64_t last = first + prng.below(prng.chance(70) ? 4 : size);
        value += std::to_string(first) + "-" + std::to_string(last);
        if (first < size) asked.push_back({first, std::min<uint64_t>(last, size - 1)});
      }
    }
    INFO(value << " of " << size);
    const std::string got = selected(value, size);
    CHECK(got == oracle(asked, size));
    partial += got != "200" && got != "416";
  }
  CHECK(partial > 10000);
}

TEST_CASE("random bytes never give a range outside the file") {
  base::Prng prng(416);
  constexpr std::string_view kAlphabet = "0123456789---,,, \t=bytes\xff";
  for (int i = 0; i < 100000; ++i) {
    std::string value = prng.chance(90) ? "bytes=" : "";
    const size_t length = prng.below(60);
    for (size_t at = 0; at < length; ++at) value += kAlphabet[prng.below(kAlphabet.size())];
    const uint64_t size = prng.chance(20) ? prng.next() : prng.below(2000);
    const RangeSelection selection = select_ranges(value, size);
    uint64_t sum = 0;
    for (const FileRange& range : selection.ranges()) {
      CHECK(range.size != 0);
      CHECK(range.offset < size);
      CHECK(range.size <= size - range.offset);
      sum += range.size;
    }
    CHECK(sum <= size);
    CHECK((selection.verdict == RangeVerdict::kPartial) == (selection.count != 0));
  }
}

}  // namespace weir::files
