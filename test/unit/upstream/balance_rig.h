// Servers, keys and shares for the tests of the balancer.
#pragma once

#include <cmath>
#include <cstddef>
#include <initializer_list>

#include <span>
#include <string>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/upstream/balance.h>

namespace weir::upstream::rig {

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kSecond = 1000 * kMs;
constexpr int kChoices = 100'000;

// Never looked into by the balancer.
inline Endpoint* some_endpoint() { return reinterpret_cast<Endpoint*>(alignof(std::max_align_t)); }

inline uint64_t identity_of(size_t i) {
  return server_identity("10.0." + std::to_string(i / 256) + "." + std::to_string(i % 256) +
                         ":8080");
}

inline std::vector<ServerFacts> servers_of(std::span<const uint32_t> weights) {
  std::vector<ServerFacts> servers;
  for (const uint32_t weight : weights) {
    servers.push_back(
        {.endpoint = some_endpoint(), .identity = identity_of(servers.size()), .weight = weight});
  }
  return servers;
}
inline std::vector<ServerFacts> servers_of(std::initializer_list<uint32_t> weights) {
  return servers_of(std::span(weights.begin(), weights.size()));
}

inline Balancer balancer_of(const BalanceOptions& options, std::span<const ServerFacts> servers,
                            uint64_t seed = 1) {
  Balancer balancer(options, seed);
  balancer.set_servers(servers, 0);
  return balancer;
}

// Keys that differ as little as real ones do.
inline uint64_t key_of(int i) { return hash_key("/shop/item?id=" + std::to_string(i)); }

// Each count is within `part` of its share, plus `deviations` standard deviations of a draw.
inline void check_shares(std::span<const uint32_t> counts, std::span<const uint32_t> weights,
                         double part, double deviations) {
  double weight_sum = 0;
  double total = 0;
  for (const uint32_t weight : weights) weight_sum += weight;
  for (const uint32_t count : counts) total += count;
  size_t off = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double share = total * weights[i] / weight_sum;
    const double error = std::abs(counts[i] - share);
    if (error > part * share + deviations * std::sqrt(share) + 1) {
      ++off;
      UNSCOPED_INFO("server " << i << ": " << counts[i] << " instead of " << share);
    }
    if (error > 0.01 * total) ++off;
  }
  CHECK(off == 0);
}

}  // namespace weir::upstream::rig
