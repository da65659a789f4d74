// Invariants. WEIR_CHECK is always on: a broken invariant is a bug of ours, the process says where
// and aborts, and the supervisor starts it again. WEIR_DCHECK is for costly ones (debug, sanitizer
// and simulation builds). Never use either on what a peer sent.
#pragma once

namespace weir::base {

[[noreturn]] void check_failed(const char* file, int line, const char* expression) noexcept;

}  // namespace weir::base

#define WEIR_CHECK(expression)                        \
  (__builtin_expect(static_cast<bool>(expression), 1) \
       ? static_cast<void>(0)                         \
       : ::weir::base::check_failed(__FILE__, __LINE__, #expression))

#ifdef WEIR_DEBUG_CHECKS
#define WEIR_DCHECK(expression) WEIR_CHECK(expression)
#else
#define WEIR_DCHECK(expression) static_cast<void>(sizeof(static_cast<bool>(expression)))
#endif
