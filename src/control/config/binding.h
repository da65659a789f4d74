// Ties a row of the schema to the member that it fills, so that a row is one expression.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <type_traits>

#include <weir/control/config/schema.h>

namespace weir::control::config {

template <class T>
struct MemberPointer;
template <class C, class T>
struct MemberPointer<T C::*> {
  using Object = C;
  using Value = T;
};

template <auto Member>
void store_member(void* object, const ScalarValue& value) {
  using Pointer = MemberPointer<decltype(Member)>;
  using T = typename Pointer::Value;
  T& field = static_cast<typename Pointer::Object*>(object)->*Member;
  if constexpr (std::is_same_v<T, std::string>) {
    field = value.text;
  } else if constexpr (std::is_same_v<T, bool>) {
    field = value.number != 0;
  } else if constexpr (std::is_same_v<T, std::chrono::milliseconds>) {
    field = std::chrono::milliseconds(value.number);
  } else if constexpr (std::is_same_v<T, std::optional<uint64_t>>) {
    field = static_cast<uint64_t>(value.number);
  } else {
    field = static_cast<T>(value.number);
  }
}

template <auto Member>
bool same_member(const void* a, const void* b) {
  using Object = typename MemberPointer<decltype(Member)>::Object;
  return static_cast<const Object*>(a)->*Member == static_cast<const Object*>(b)->*Member;
}

// For a row about a member of a member.
template <auto Outer, auto Inner>
void store_within(void* object, const ScalarValue& value) {
  using Object = typename MemberPointer<decltype(Outer)>::Object;
  store_member<Inner>(&(static_cast<Object*>(object)->*Outer), value);
}

template <auto Outer, auto Inner>
bool same_within(const void* a, const void* b) {
  using Object = typename MemberPointer<decltype(Outer)>::Object;
  return same_member<Inner>(&(static_cast<const Object*>(a)->*Outer),
                            &(static_cast<const Object*>(b)->*Outer));
}

// A scalar row.
template <auto Member>
constexpr Setting bind(Setting row) {
  row.store = store_member<Member>;
  row.same = same_member<Member>;
  return row;
}

template <auto Outer, auto Inner>
constexpr Setting bind_within(Setting row) {
  row.store = store_within<Outer, Inner>;
  row.same = same_within<Outer, Inner>;
  return row;
}

}  // namespace weir::control::config
