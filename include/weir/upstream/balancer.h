// Choosing a server of an upstream: smooth weighted round robin (the algorithm of nginx), as a pure
// function over the core's own state. Several cores need no agreement: each keeps the ratio itself.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace weir::upstream {

class Endpoint;

struct Candidate {
  Endpoint* endpoint = nullptr;  // null: the address is not known (name not resolved)
  uint32_t weight = 1;
  int64_t current = 0;
};

// The next candidate, or -1 when none is usable. Those whose bit is set in `tried` (index < 64) are
// passed over.
int choose_round_robin(std::span<Candidate> candidates, uint64_t tried) noexcept;

}  // namespace weir::upstream
