// The origin half of the load generator: answers GET by path with prebuilt responses over
// keep-alive connections. Owned by main, runs on its thread; never blocks, never sleeps.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "poller.h"
#include "wire.h"

namespace weir::bench {

class Origin {
 public:
  Origin(Poller& poller, uint16_t port);
  ~Origin();
  Origin(const Origin&) = delete;
  Origin& operator=(const Origin&) = delete;

  void on_accept() noexcept;
  void on_peer_event(Endpoint& endpoint, uint32_t events) noexcept;
  // Frees the connections closed since the last call; to be called when no event of the current
  // batch can still name them.
  void end_turn() noexcept;

  [[nodiscard]] uint64_t requests() const noexcept { return requests_; }
  [[nodiscard]] uint64_t accepted() const noexcept { return accepted_; }
  // Requests that were not a GET for a known path, or broken off in the middle.
  [[nodiscard]] uint64_t bad_requests() const noexcept { return bad_requests_; }

 private:
  struct Peer : Endpoint {
    Peer() noexcept : Endpoint(EndpointKind::kOriginPeer) {}
    size_t slot = 0;  // index in peers_
    std::string_view out;
    bool close_after = false;
    size_t in_bytes = 0;
    std::array<char, kHeadBytesMax> in{};
  };

  void read_requests(Peer& peer, bool ended) noexcept;
  // False when the connection was closed or output is waiting for room.
  bool answer_requests(Peer& peer) noexcept;
  bool flush(Peer& peer) noexcept;
  void close_peer(Peer& peer) noexcept;

  Poller& poller_;
  Endpoint listener_;
  std::vector<std::unique_ptr<Peer>> peers_;
  std::vector<std::unique_ptr<Peer>> closed_;
  uint64_t requests_ = 0;
  uint64_t accepted_ = 0;
  uint64_t bad_requests_ = 0;
};

}  // namespace weir::bench
