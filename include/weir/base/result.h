// Result<T> = std::expected<T, Error>, and the two ways to pass an error on.
#pragma once

#include <expected>
#include <utility>

#include <weir/base/error.h>

namespace weir::base {

template <class T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(Errc code) noexcept {
  return std::unexpected(Error{.code = code});
}
inline std::unexpected<Error> fail(Error error) noexcept { return std::unexpected(error); }

}  // namespace weir::base

#define WEIR_CONCAT_INNER(a, b) a##b
#define WEIR_CONCAT(a, b) WEIR_CONCAT_INNER(a, b)

// WEIR_TRY(auto value, f()): in a plain function; WEIR_CO_TRY the same in a coroutine.
#define WEIR_TRY_IMPL(temporary, declaration, expression, leave) \
  auto temporary = (expression);                                 \
  if (!temporary) leave std::unexpected(temporary.error());      \
  declaration = std::move(*temporary)
#define WEIR_TRY(declaration, expression) \
  WEIR_TRY_IMPL(WEIR_CONCAT(weir_try_, __LINE__), declaration, expression, return)
#define WEIR_CO_TRY(declaration, expression) \
  WEIR_TRY_IMPL(WEIR_CONCAT(weir_try_, __LINE__), declaration, expression, co_return)

// The same where there is no value to keep.
#define WEIR_TRY_VOID(expression) \
  if (auto weir_result = (expression); !weir_result) return std::unexpected(weir_result.error())
#define WEIR_CO_TRY_VOID(expression) \
  if (auto weir_result = (expression); !weir_result) co_return std::unexpected(weir_result.error())
