// OpenSSL as one core sees it: a library context of its own, so that no lock and no reference count
// of OpenSSL 3.0 is shared with another core (USERS 13: shared ones cost a factor of 10 to 200),
// the algorithms that we call ourselves, fetched once, and a buffer to gather a record in. Made and
// destroyed on its core's thread, outlives every Context of that core.
#pragma once

#include <memory>

namespace weir::net::tls {

class Library {
 public:
  Library();
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  ~Library();

  struct State;  // src/net/tls/library_state.h
  [[nodiscard]] State& state() const noexcept { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

}  // namespace weir::net::tls
