// A seed for a base::Prng that is another one each time.
#pragma once

#include <cstdint>

#include <weir/runtime/sys.h>

namespace weir::runtime {

inline uint64_t random_seed() noexcept {
  uint64_t seed = 0;
  sys::random_bytes(&seed, sizeof seed);
  return seed;
}

}  // namespace weir::runtime
