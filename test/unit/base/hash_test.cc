#include <bit>
#include <set>
#include <string>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/hash.h>

using weir::base::fnv1a;
using weir::base::hash_bytes;

TEST_CASE("fnv1a gives the published values") {
  // Test vectors of the FNV authors, 64 bit, variant 1a.
  STATIC_REQUIRE(fnv1a("") == 0xcbf29ce484222325ULL);
  STATIC_REQUIRE(fnv1a("a") == 0xaf63dc4c8601ec8cULL);
  STATIC_REQUIRE(fnv1a("foobar") == 0x85944171f73967e8ULL);
}

TEST_CASE("hash_bytes sees every byte, every length and the seed") {
  std::set<uint64_t> seen;
  size_t inserted = 0;
  for (size_t length = 0; length <= 40; ++length) {
    const std::string zeroes(length, '\0');  // only the length tells these apart
    seen.insert(hash_bytes(zeroes));
    ++inserted;
    for (size_t i = 0; i < length; ++i) {
      std::string one = zeroes;
      one[i] = 1;
      seen.insert(hash_bytes(one));
      ++inserted;
    }
  }
  CHECK(seen.size() == inserted);
  CHECK(hash_bytes("example.com", 1) != hash_bytes("example.com", 2));
  CHECK(hash_bytes("example.com", 1) == hash_bytes(std::string("example.com"), 1));
}

TEST_CASE("hash_bytes spreads small differences over all bits") {
  // Flipping one input bit should flip about half of the output bits: 32 +- 6 on average.
  unsigned flipped = 0;
  constexpr unsigned kTrials = 512;
  for (unsigned i = 0; i < kTrials; ++i) {
    std::string text = "host-" + std::to_string(i * 7919) + ".example.com";
    const uint64_t before = hash_bytes(text);
    text[i % text.size()] = static_cast<char>(text[i % text.size()] ^ (1 << (i % 7)));
    flipped += static_cast<unsigned>(std::popcount(before ^ hash_bytes(text)));
  }
  CHECK(flipped > kTrials * 26);
  CHECK(flipped < kTrials * 38);
}
