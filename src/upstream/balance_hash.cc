#include <weir/upstream/balance_hash.h>

#include <algorithm>

#include <weir/base/check.h>

namespace weir::upstream {
namespace {

struct Share {
  uint64_t identity = 0;
  uint16_t index = 0;  // in the span of servers
  uint64_t weight = 0;
  uint64_t remainder = 0;
  uint32_t quota = 0;
  uint32_t position = 0;  // in its own order of all places
  uint32_t step = 0;
};

std::vector<Share> shares_of(std::span<const BalancedServer> servers) {
  std::vector<Share> shares;
  shares.reserve(servers.size());
  for (size_t i = 0; i < servers.size(); ++i) {
    const ServerFacts& facts = servers[i].facts;
    if (facts.weight == 0) continue;
    shares.push_back(
        {.identity = facts.identity, .index = static_cast<uint16_t>(i), .weight = facts.weight});
  }
  std::ranges::sort(shares, {}, &Share::identity);
  return shares;
}

// By largest remainder, and at least one place each: the sum is `size`.
void set_quotas(std::vector<Share>& shares, uint64_t size, uint64_t total) {
  uint64_t given = 0;
  for (Share& share : shares) {
    share.quota = static_cast<uint32_t>(std::max<uint64_t>(1, size * share.weight / total));
    share.remainder = size * share.weight % total;
    given += share.quota;
  }
  std::vector<Share*> order;
  order.reserve(shares.size());
  for (Share& share : shares) order.push_back(&share);
  if (given < size) {
    std::ranges::sort(order, [](const Share* a, const Share* b) {
      return a->remainder != b->remainder ? a->remainder > b->remainder : a < b;
    });
    for (size_t i = 0; given < size; i = (i + 1) % order.size(), ++given) ++order[i]->quota;
  } else {
    // The single places of many tiny ones come from those who have most.
    std::ranges::sort(order, [](const Share* a, const Share* b) {
      return a->quota != b->quota ? a->quota > b->quota : a < b;
    });
    // Turn by turn; those with one place are at the end, and there are less servers than places.
    for (size_t i = 0; given > size; --given) {
      if (i == order.size() || order[i]->quota == 1) i = 0;
      --order[i++]->quota;
    }
  }
}

// Which share is next, for all `size` turns: by the moment, to one part of `size`, then by
// identity.
std::vector<uint16_t> turns_of(std::span<const Share> shares, uint32_t size) {
  // The moment of the k-th turn is first / 2 + k * first, in parts of `size` with 32 bits behind
  // the point; never more than `size`, because the division rounds down.
  const auto for_each = [&](const auto& visit) {
    for (size_t i = 0; i < shares.size(); ++i) {
      const uint64_t step = (uint64_t{size} << 32) / shares[i].quota;
      uint64_t moment = step / 2;
      for (uint32_t k = 0; k < shares[i].quota; ++k, moment += step) visit(i, moment >> 32);
    }
  };
  std::vector<uint32_t> begins(size + 1);
  for_each([&](size_t, uint64_t moment) { ++begins[static_cast<size_t>(moment) + 1]; });
  for (uint32_t i = 0; i < size; ++i) begins[i + 1] += begins[i];
  std::vector<uint16_t> turns(size);
  for_each([&](size_t i, uint64_t moment) {
    turns[begins[static_cast<size_t>(moment)]++] = static_cast<uint16_t>(i);
  });
  return turns;
}

}  // namespace

uint64_t hash_client(const base::IpAddress& client, uint64_t seed) noexcept {
  const char* bytes = reinterpret_cast<const char*>(client.bytes.data());
  return hash_key(client.is_v4() ? std::string_view(bytes + 12, 4) : std::string_view(bytes, 8),
                  seed);
}

uint64_t server_identity(std::string_view configured, std::string_view address) noexcept {
  // FNV alone differs little for addresses that differ in their last digit.
  return next_hash(base::fnv1a(address, next_hash(base::fnv1a(configured))));
}

// Servers take turns, the k-th of a server's q places at the moment (k + 1/2) / q; each takes the
// next place of its own order that is still free. That order depends on the server alone, which is
// why most places keep their server when another one comes or goes.
MaglevTable::MaglevTable(std::span<const BalancedServer> servers, uint32_t size) {
  WEIR_CHECK(std::ranges::find(kSizes, size) != std::end(kSizes));
  WEIR_CHECK(servers.size() <= kServersMax);
  std::vector<Share> shares = shares_of(servers);
  if (shares.empty()) return;
  uint64_t total = 0;
  for (const Share& share : shares) total += share.weight;
  set_quotas(shares, size, total);
  for (Share& share : shares) {
    share.position = static_cast<uint32_t>(reduce(share.identity, size));
    share.step = static_cast<uint32_t>(1 + reduce(next_hash(share.identity), size - 1));
  }
  places_.assign(size, 0);
  // Nearly all looks are at places that are taken: one bit for each stays in the nearest cache.
  std::vector<uint64_t> taken(size / 64 + 1);
  for (const uint16_t turn : turns_of(shares, size)) {
    Share& share = shares[turn];
    uint32_t position = share.position;
    while ((taken[position / 64] >> position % 64 & 1) != 0) {
      position += share.step;
      if (position >= size) position -= size;
    }
    share.position = position;
    taken[position / 64] |= uint64_t{1} << position % 64;
    places_[position] = share.index;
  }
}

}  // namespace weir::upstream
