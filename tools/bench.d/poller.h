// The one epoll set of the load generator and what is registered in it. One thread. Everything is
// edge-triggered and registered once, so that a request costs no epoll_ctl.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <cstdint>

namespace weir::bench {

enum class EndpointKind : uint8_t { kListener, kOriginPeer, kClient };

// First base of everything that is registered; found again through epoll_data.
struct Endpoint {
  explicit Endpoint(EndpointKind endpoint_kind) noexcept : kind(endpoint_kind) {}
  EndpointKind kind;
  int fd = -1;
};

class Poller {
 public:
  static constexpr int kEventsMax = 512;

  Poller();
  ~Poller();
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  // Closing the descriptor ends the registration: no descriptor here is ever duplicated.
  void add(Endpoint& endpoint, uint32_t events) noexcept;
  // The events that are there now, after at most `timeout_ms` (0: never sleeps).
  int wait(int timeout_ms) noexcept;
  [[nodiscard]] const epoll_event& event(int index) const noexcept {
    return events_[static_cast<size_t>(index)];
  }

 private:
  int fd_;
  std::array<epoll_event, kEventsMax> events_{};
};

// A non-blocking TCP socket with Nagle off; ends the process when there is none to be had, because
// every figure after that would be wrong.
[[nodiscard]] int make_socket() noexcept;
void set_no_delay(int fd) noexcept;
[[noreturn]] void fail(const char* what) noexcept;

}  // namespace weir::bench
