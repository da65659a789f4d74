#include <weir/base/check.h>

#include <cstdio>
#include <cstdlib>

namespace weir::base {

void check_failed(const char* file, int line, const char* expression) noexcept {
  std::fprintf(stderr, "weir: %s:%d: broken invariant: %s\n", file, line, expression);
  std::fflush(stderr);
  std::abort();
}

}  // namespace weir::base
