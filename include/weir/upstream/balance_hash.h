// Keys for balancing by hash, and the table of Maglev (Eisenbud et al., NSDI 2016) with weights: a
// key's server in one look. A table is immutable; each core builds its own when servers or weights
// change, which takes 1 ms with 5 servers and 1.6 ms with 1000. Nothing here depends on the order
// in which the servers were given.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <weir/base/hash.h>
#include <weir/base/ip.h>
#include <weir/upstream/balance_server.h>

namespace weir::upstream {

// One seed for all weirs that are to agree on the servers of keys. A secret one (from the
// configuration) keeps clients from choosing keys that all go to one server.
inline constexpr uint64_t kHashSeed = 0x57e1'2a6c'0b5d'93f1ULL;

// The bytes of a header, a cookie or a URI; the caller says what a request without one gets.
inline uint64_t hash_key(std::string_view bytes, uint64_t seed = kHashSeed) noexcept {
  // Short keys pass one multiplication in hash_bytes, which is too little for neighbours.
  return base::mix(base::hash_bytes(bytes, seed) ^ seed, 0xbf58'476d'1ce4'e5b9ULL);
}
// A whole IPv4 address; of IPv6 the /64, for within it a client changes its address as it likes.
uint64_t hash_client(const base::IpAddress& client, uint64_t seed = kHashSeed) noexcept;

// From what names the server in the configuration and, where a name has several addresses, the
// address.
uint64_t server_identity(std::string_view configured, std::string_view address = {}) noexcept;

// The next place in the order of a key.
constexpr uint64_t next_hash(uint64_t hash) noexcept {
  return base::mix(hash ^ 0x9e37'79b9'7f4a'7c15ULL, 0xe703'7ed1'a0b4'28dbULL);
}
// [0, bound) by the high bits of `hash`.
constexpr uint64_t reduce(uint64_t hash, uint64_t bound) noexcept {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(hash) * bound) >> 64);
}

class MaglevTable {
 public:
  static constexpr size_t kServersMax = 65'535;
  // Primes. The size is configuration and does not follow the servers: with another one nearly all
  // keys move. Shares are right to one place, so that 100 places for each server are good for 1 %.
  static constexpr uint32_t kSizes[] = {65'537, 131'071, 262'139, 524'287};
  static constexpr uint32_t kSizeDefault = kSizes[0];

  MaglevTable() noexcept = default;  // of no servers
  // `size`: of kSizes. What counts is identity and weight; weight 0 gets no place, everybody else
  // at least one.
  explicit MaglevTable(std::span<const BalancedServer> servers, uint32_t size = kSizeDefault);

  [[nodiscard]] bool empty() const noexcept { return places_.empty(); }
  [[nodiscard]] size_t size() const noexcept { return places_.size(); }
  // The index, in the span it was built of, of the server of a key; not for an empty table.
  [[nodiscard]] uint32_t at(uint64_t hash) const noexcept {
    return places_[static_cast<size_t>(reduce(hash, places_.size()))];
  }
  [[nodiscard]] std::span<const uint16_t> places() const noexcept { return places_; }

 private:
  std::vector<uint16_t> places_;
};

}  // namespace weir::upstream
