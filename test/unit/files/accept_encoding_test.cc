#include <weir/files/accept_encoding.h>

#include <catch2/catch_test_macros.hpp>

#include <string>

#include <weir/base/prng.h>

#include "fields.h"

namespace weir::files {

namespace {

CodingSet set_of(std::string_view letters) {  // b, z, g
  CodingSet set;
  for (char c : letters) {
    set.add(c == 'b' ? Coding::kBrotli : c == 'z' ? Coding::kZstd : Coding::kGzip);
  }
  return set;
}

// "br", "zstd", "gzip", "-" for the original, "!" for the original although it is refused.
std::string chosen(std::string_view accept, std::string_view available = "bzg") {
  const http::FieldTable fields = fields_of({{"Accept-Encoding", accept}});
  const CodingChoice choice = choose_coding(fields, set_of(available));
  CHECK(choice.vary == !available.empty());
  if (choice.identity_refused) {
    CHECK(choice.coding == Coding::kIdentity);
    return "!";
  }
  return choice.coding == Coding::kIdentity ? "-" : std::string(coding_name(choice.coding));
}

}  // namespace

TEST_CASE("names and suffixes of codings") {
  CHECK(coding_name(Coding::kBrotli) == "br");
  CHECK(coding_name(Coding::kZstd) == "zstd");
  CHECK(coding_name(Coding::kGzip) == "gzip");
  CHECK(coding_name(Coding::kIdentity).empty());
  CHECK(coding_suffix(Coding::kZstd) == ".zst");
  CHECK(coding_suffix(Coding::kIdentity).empty());
  CodingSet set;
  set.add(Coding::kIdentity);
  CHECK(set.empty());
  set.add(Coding::kZstd);
  CHECK(set.has(Coding::kZstd));
  CHECK_FALSE(set.has(Coding::kGzip));
  CHECK_FALSE(set.has(Coding::kIdentity));
}

TEST_CASE("browsers get the best that there is") {
  CHECK(chosen("gzip, deflate, br, zstd") == "br");
  CHECK(chosen("gzip, deflate, br, zstd", "zg") == "zstd");
  CHECK(chosen("gzip, deflate, br", "zg") == "gzip");
  CHECK(chosen("gzip, deflate", "b") == "-");
  CHECK(chosen("gzip, deflate, br, zstd", "") == "-");
  CHECK(chosen("GZIP, BR") == "br");
  CHECK(chosen("x-gzip") == "gzip");
  CHECK(chosen("brotli, gz, zst, brx") == "-");
}

TEST_CASE("a client that says nothing gets the original") {
  const CodingChoice choice = choose_coding(http::FieldTable{}, set_of("bzg"));
  CHECK(choice.coding == Coding::kIdentity);
  CHECK(choice.vary);
  CHECK_FALSE(choice.identity_refused);
  CHECK_FALSE(choose_coding(http::FieldTable{}, CodingSet{}).vary);
  CHECK(chosen("") == "-");
  CHECK(chosen(",  ,,") == "-");
}

TEST_CASE("the examples of RFC 9110 12.5.3") {
  CHECK(chosen("compress, gzip") == "gzip");
  CHECK(chosen("*") == "br");
  CHECK(chosen("compress;q=0.5, gzip;q=1.0") == "gzip");
  CHECK(chosen("gzip;q=1.0, identity; q=0.5, *;q=0") == "gzip");
  CHECK(chosen("gzip;q=1.0, identity; q=0.5, *;q=0", "bz") == "-");
}

TEST_CASE("weights") {
  CHECK(chosen("br;q=0.5, gzip;q=0.8") == "gzip");
  CHECK(chosen("br;q=0.8, gzip;q=0.8") == "br");
  CHECK(chosen("br;q=0, gzip;q=0.001") == "gzip");
  CHECK(chosen("br;q=0, gzip;q=0, zstd;q=0") == "-");
  CHECK(chosen("br;Q=0.1, gzip;q=0.2") == "gzip");
  CHECK(chosen("br ; q=0.1 , gzip ;q=0.2\t") == "gzip");
  CHECK(chosen("br;q=0.1234567, gzip;q=0.123") == "br");
  CHECK(chosen("br;level=5;q=0.1, gzip;q=0.2") == "gzip");
  CHECK(chosen("*;q=0.5, br;q=0.1") == "zstd");
  CHECK(chosen("*;q=0, br") == "br");
  CHECK(chosen("*;q=0, br", "zg") == "!");
  CHECK(chosen("gzip, gzip;q=0") == "-");  // refused somewhere is refused
  CHECK(chosen("gzip;q=0, gzip") == "-");
  CHECK(chosen("*, *;q=0") == "!");
}

TEST_CASE("weights that cannot be read") {
  for (const char* weight : {"q=", "q=2", "q=1.1", "q=.5", "q=-1", "q=a", "q=0.5.5", "q=0,5",
                             "q=00.5", "q=1.0001", "q=0x1", "q =0.5", "q= 0.5"}) {
    INFO(weight);
    const std::string accept = "br;" + std::string(weight) + ", gzip;q=0.1";
    // "q =0.5" is no q at all.
    CHECK(chosen(accept) == (std::string_view(weight) == "q =0.5" ? "br" : "gzip"));
  }
  CHECK(chosen("*;q=x") == "-");
  CHECK(chosen("identity;q=x") == "-");
}

TEST_CASE("the original, when it is preferred or refused") {
  CHECK(chosen("identity, gzip;q=0.5") == "-");
  CHECK(chosen("identity;q=0.5, gzip") == "gzip");
  CHECK(chosen("identity, gzip") == "gzip");  // equal: smaller wins
  CHECK(chosen("identity;q=0") == "!");
  CHECK(chosen("identity;q=0, br;q=0.001") == "br");
  CHECK(chosen("identity;q=0, deflate") == "!");
  CHECK(chosen("*;q=0") == "!");
  CHECK(chosen("*;q=0, identity") == "-");
  CHECK(chosen("*;q=0, identity;q=0.1") == "-");
  CHECK(chosen("identity;q=0, *", "") == "!");
}

TEST_CASE("several field lines are one list") {
  const http::FieldTable fields = fields_of({{"accept-encoding", "gzip;q=0.5"},
                                             {"Accept", "br"},
                                             {"Accept-Encoding", "zstd;q=0.6, br;q=0"}});
  CHECK(choose_coding(fields, set_of("bzg")).coding == Coding::kZstd);
  CHECK(choose_coding(fields, set_of("bg")).coding == Coding::kGzip);
  CHECK(choose_coding(fields, set_of("b")).coding == Coding::kIdentity);
}

TEST_CASE("random fields never give what is not there or was refused") {
  base::Prng prng(12);
  const char* const kPieces[] = {
      "br", "gzip", "zstd", "identity", "*", ";q=0", ";q=1", ",",      ", ",       ";", ";q=0.5",
      "\"", "\\",   "q=",   "\t",       "=", ".",    "\xff", "x-gzip", ";q=0.000", "0"};
  for (int i = 0; i < 50000; ++i) {
    std::string accept;
    const size_t count = prng.below(12);
    for (size_t piece = 0; piece < count; ++piece) accept += kPieces[prng.below(21)];
    std::string available;
    for (char c : {'b', 'z', 'g'}) {
      if (prng.chance(50)) available += c;
    }
    const http::FieldTable fields = fields_of({{"Accept-Encoding", accept}});
    const CodingChoice choice = choose_coding(fields, set_of(available));
    if (choice.coding == Coding::kIdentity) continue;
    INFO(accept);
    CHECK(set_of(available).has(choice.coding));
    const bool named = accept.find(coding_name(choice.coding)) != std::string::npos;
    CHECK((named || accept.find('*') != std::string::npos));
    CHECK_FALSE(choice.identity_refused);
  }
}

}  // namespace weir::files
