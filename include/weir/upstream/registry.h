// The upstreams of one core: endpoints by their process-wide id, and a balancer for each upstream
// by its id. Both live across reloads (with the endpoints their pooled connections, with the
// balancers counts, latencies and turns); those that no configuration names any more are dropped
// once nothing uses them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <weir/route/snapshot.h>
#include <weir/upstream/balance.h>
#include <weir/upstream/endpoint.h>

namespace weir::upstream {

class Registry;

// A server that was chosen for a request, which it counts as its own until end() or the destructor,
// whichever comes first.
class Turn {
 public:
  Turn() noexcept = default;
  Turn(Turn&& other) noexcept { swap(other); }
  Turn& operator=(Turn&& other) noexcept {
    end();
    swap(other);
    return *this;
  }
  ~Turn() { end(); }

  // Nothing was chosen, or it has ended.
  explicit operator bool() const noexcept { return registry_ != nullptr; }
  // Why nothing was chosen.
  [[nodiscard]] NoServer missing() const noexcept { return choice_.missing; }
  // Those below are for one that has not ended.
  [[nodiscard]] Endpoint& endpoint() const noexcept { return *endpoint_; }
  [[nodiscard]] uint64_t identity() const noexcept { return choice_.identity; }
  // The server's time counts from here, not from the choice.
  void restart_clock(uint64_t now_ns) noexcept { begin_ns_ = now_ns; }
  // It has answered, or was waited for in vain; a turn that ends without says nothing of its speed.
  void note_latency(uint64_t now_ns) noexcept {
    latency_ns_ = now_ns > begin_ns_ ? now_ns - begin_ns_ : 1;
    seen_ns_ = now_ns;
  }
  void end() noexcept;

 private:
  friend class Registry;
  void swap(Turn& other) noexcept {
    std::swap(registry_, other.registry_);
    std::swap(endpoint_, other.endpoint_);
    std::swap(choice_, other.choice_);
    std::swap(upstream_, other.upstream_);
    std::swap(begin_ns_, other.begin_ns_);
    std::swap(latency_ns_, other.latency_ns_);
    std::swap(seen_ns_, other.seen_ns_);
  }

  Registry* registry_ = nullptr;
  Endpoint* endpoint_ = nullptr;
  Choice choice_;
  uint32_t upstream_ = 0;
  uint64_t begin_ns_ = 0;
  uint64_t latency_ns_ = 0;
  uint64_t seen_ns_ = 0;
};

class Registry {
 public:
  // `cores`: limits that hold for the whole process are divided by it.
  // `random_seed`: another one for every core.
  // `tls`: null where no upstream speaks TLS.
  Registry(runtime::Reactor& reactor, uint32_t cores, uint64_t random_seed,
           net::tls::Engine* tls = nullptr) noexcept
      : reactor_(reactor), cores_(cores), random_seed_(random_seed), tls_(tls) {}
  Registry(const Registry&) = delete;  // turns know where it is
  Registry& operator=(const Registry&) = delete;
  ~Registry();  // no turn is under way

  // Takes over the upstreams of a new snapshot; called when the core picks it up. What it does not
  // name stays: a request may be pinned to an older one and not have chosen its server yet.
  // `tls`: by place of the upstream in the snapshot, null without TLS; empty: none has.
  void adopt(const route::Snapshot& snapshot,
             std::span<const std::shared_ptr<net::tls::ClientContext>> tls = {});
  // Drops what the newest snapshot does not name, except what is in use (the sweep after the next
  // adopt() takes that). For when nothing is pinned to an older snapshot any more.
  void sweep();
  [[nodiscard]] bool sweep_due() const noexcept { return sweep_due_; }

  // Chooses a server of the upstream with this id as the newest snapshot that names it has it (a
  // request may be pinned to an older one), and counts the request there.
  Turn choose(uint32_t upstream_id, const Pick& pick) noexcept;
  // Null: no snapshot named it, or it was swept. For states and weights that others set.
  [[nodiscard]] Balancer* balancer(uint32_t upstream_id) noexcept {
    return upstream_id < balancers_.size() ? balancers_[upstream_id].get() : nullptr;
  }

  void close_idle() noexcept;
  [[nodiscard]] uint32_t idle_connections() const noexcept;
  [[nodiscard]] std::span<const std::unique_ptr<Endpoint>> endpoints() const noexcept {
    return endpoints_;
  }

 private:
  Endpoint* endpoint_for(const route::UpstreamSpec& spec, const route::ServerSpec& server,
                         const std::shared_ptr<net::tls::ClientContext>& tls);
  Balancer& balancer_for(const route::UpstreamSpec& spec);

  runtime::Reactor& reactor_;
  uint32_t cores_;
  uint64_t random_seed_;
  net::tls::Engine* tls_;
  bool sweep_due_ = false;
  std::vector<std::unique_ptr<Endpoint>> endpoints_;  // by endpoint id; null where unused
  std::vector<bool> named_;                           // by endpoint id: in the newest snapshot
  std::vector<std::unique_ptr<Balancer>> balancers_;  // by upstream id; null where unused
  std::vector<bool> balanced_;                        // by upstream id: in the newest snapshot
};

inline void Turn::end() noexcept {
  if (registry_ == nullptr) return;
  Registry& registry = *std::exchange(registry_, nullptr);
  // One with requests under way is never dropped.
  if (Balancer* balancer = registry.balancer(upstream_)) {
    balancer->end(choice_, latency_ns_, seen_ns_);
  }
}

}  // namespace weir::upstream
