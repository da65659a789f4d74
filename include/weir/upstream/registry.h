// The upstreams of one core: endpoints by their process-wide id and the balancing state of each
// upstream. Endpoints live across reloads (their pooled connections with them); those that no
// configuration names any more are dropped once nothing uses them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <weir/route/snapshot.h>
#include <weir/upstream/balancer.h>
#include <weir/upstream/endpoint.h>

namespace weir::upstream {

class Registry {
 public:
  // `cores`: limits that hold for the whole process are divided by it.
  // `tls`: null where no upstream speaks TLS.
  Registry(runtime::Reactor& reactor, uint32_t cores, net::tls::Engine* tls = nullptr) noexcept
      : reactor_(reactor), cores_(cores), tls_(tls) {}
  ~Registry();

  // Takes over the upstreams of a new snapshot; called when the core picks it up. What it does not
  // name stays: a request may be pinned to an older one and not have chosen its server yet.
  // `tls`: by place of the upstream in the snapshot, null without TLS; empty: none has.
  void adopt(const route::Snapshot& snapshot,
             std::span<const std::shared_ptr<net::tls::ClientContext>> tls = {});
  // Drops the endpoints that the newest snapshot does not name, except those in use (the sweep
  // after the next adopt() takes them). For when nothing is pinned to an older snapshot any more.
  void sweep();
  [[nodiscard]] bool sweep_due() const noexcept { return sweep_due_; }
  // The balancing state of the upstream at `index` of the adopted snapshot's successor-or-self: ids
  // are stable, so a request pinned to an older snapshot passes its own spec.
  std::span<Candidate> candidates(const route::UpstreamSpec& spec) noexcept;

  void close_idle() noexcept;
  [[nodiscard]] uint32_t idle_connections() const noexcept;
  [[nodiscard]] std::span<const std::unique_ptr<Endpoint>> endpoints() const noexcept {
    return endpoints_;
  }

 private:
  Endpoint* endpoint_for(const route::UpstreamSpec& spec, const route::ServerSpec& server,
                         const std::shared_ptr<net::tls::ClientContext>& tls);

  runtime::Reactor& reactor_;
  uint32_t cores_;
  net::tls::Engine* tls_;
  bool sweep_due_ = false;
  std::vector<std::unique_ptr<Endpoint>> endpoints_;  // by endpoint id; null where unused
  std::vector<bool> named_;                           // by endpoint id: in the newest snapshot
  std::vector<std::vector<Candidate>> balancing_;     // by upstream id
};

}  // namespace weir::upstream
