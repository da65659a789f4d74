// The upstreams of one core: endpoints by their process-wide id, and a pool for each upstream by
// its id. Both live across reloads (with the endpoints their connections, with the pools counts,
// latencies, ejections and turns); those that no configuration names any more are dropped once
// nothing uses them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <weir/route/snapshot.h>
#include <weir/upstream/endpoint.h>
#include <weir/upstream/pool.h>

namespace weir::upstream {

class Registry {
 public:
  // `cores`: limits that hold for the whole process are divided by it.
  // `random_seed`: another one for every core.
  // `tls`: null where no upstream speaks TLS.
  Registry(runtime::Reactor& reactor, uint32_t cores, uint64_t random_seed,
           net::tls::Engine* tls = nullptr) noexcept
      : reactor_(reactor), cores_(cores), random_seed_(random_seed), tls_(tls) {}
  Registry(const Registry&) = delete;
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

  // Servers that were put aside and came back, from adopt() on.
  void on_event(Pool::OnEvent handler, void* context) noexcept {
    on_event_ = handler;
    event_context_ = context;
  }
  // Between two snapshots: the servers of one upstream are these now. One that the newest snapshot
  // does not name is left alone.
  void update(const route::UpstreamSpec& spec);
  void set_server(uint32_t upstream_id, uint64_t identity, ServerState state, uint32_t weight);

  // The upstream with this id as the newest snapshot that names it has it (a request may be pinned
  // to an older one). Null: no snapshot named it, or it was swept.
  [[nodiscard]] Pool* pool(uint32_t upstream_id) noexcept {
    return upstream_id < pools_.size() ? pools_[upstream_id].get() : nullptr;
  }
  void sample(UpstreamScrape& out) const;

  void close_idle() noexcept;
  [[nodiscard]] uint32_t idle_connections() const noexcept;
  [[nodiscard]] std::span<const std::unique_ptr<Endpoint>> endpoints() const noexcept {
    return endpoints_;
  }

 private:
  Endpoint* endpoint_for(const route::UpstreamSpec& spec, const route::ServerSpec& server,
                         const std::shared_ptr<net::tls::ClientContext>& tls);
  Pool& pool_for(const route::UpstreamSpec& spec);
  void set(Pool& pool, const route::UpstreamSpec& spec);

  runtime::Reactor& reactor_;
  uint32_t cores_;
  uint64_t random_seed_;
  net::tls::Engine* tls_;
  Pool::OnEvent on_event_ = nullptr;
  void* event_context_ = nullptr;
  bool sweep_due_ = false;
  std::vector<std::unique_ptr<Endpoint>> endpoints_;  // by endpoint id; null where unused
  std::vector<bool> named_;                           // by endpoint id: of a pool's servers
  std::vector<std::unique_ptr<Pool>> pools_;          // by upstream id; null where unused
  std::vector<bool> pooled_;                          // by upstream id: in the newest snapshot
};

}  // namespace weir::upstream
