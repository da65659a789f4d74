// Hashes. wyhash-style mixing for tables; FNV-1a where a stable value is written down.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace weir::base {

constexpr uint64_t fnv1a(std::string_view text, uint64_t seed = 0xcbf29ce484222325ULL) noexcept {
  for (char c : text) seed = (seed ^ static_cast<uint8_t>(c)) * 0x100000001b3ULL;
  return seed;
}

constexpr uint64_t mix(uint64_t a, uint64_t b) noexcept {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// Fast, seeded, not stable across versions.
inline uint64_t hash_bytes(std::string_view text, uint64_t seed = 0) noexcept {
  const char* p = text.data();
  size_t n = text.size();
  uint64_t h = seed ^ 0xa0761d6478bd642fULL;
  while (n >= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    h = mix(h ^ word, 0xe7037ed1a0b428dbULL);
    p += 8;
    n -= 8;
  }
  uint64_t tail = 0;
  if (n != 0) std::memcpy(&tail, p, n);
  return mix(h ^ tail, 0x8ebc6af09c88c6e3ULL ^ text.size());
}

}  // namespace weir::base
