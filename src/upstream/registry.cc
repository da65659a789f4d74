#include <weir/upstream/registry.h>

#include <algorithm>

namespace weir::upstream {

namespace {
uint32_t share(uint32_t limit, uint32_t cores) noexcept {
  if (limit == 0) return 0;
  return std::max<uint32_t>(1, (limit + cores - 1) / cores);
}
}  // namespace

Registry::~Registry() = default;

Endpoint* Registry::endpoint_for(const route::UpstreamSpec& spec, const route::ServerSpec& server,
                                 const std::shared_ptr<net::tls::ClientContext>& tls) {
  if (!server.resolved) return nullptr;
  // Never in the clear for want of settings.
  if (spec.tls && !tls) return nullptr;
  const size_t id = server.endpoint_id;
  if (id >= endpoints_.size()) {
    endpoints_.resize(id + 1);
    named_.resize(id + 1);
  }
  auto& slot = endpoints_[id];
  if (!slot)
    slot = std::make_unique<Endpoint>(reactor_, spec.name, server.address_text, server.address);
  slot->set_address(server.address, server.address_text);
  slot->set_tls(tls_, tls, server.tls_name);
  slot->set_limits({.connect_timeout_ms = spec.connect_timeout_ms,
                    .idle_timeout_ms = spec.idle_timeout_ms,
                    .lifetime_ms = spec.lifetime_ms,
                    .idle_max = share(spec.max_idle_per_host, cores_),
                    .connecting_max = share(spec.max_connecting, cores_)});
  named_[id] = true;
  return slot.get();
}

Pool& Registry::pool_for(const route::UpstreamSpec& spec) {
  if (spec.id >= pools_.size()) {
    pools_.resize(spec.id + 1);
    pooled_.resize(spec.id + 1);
  }
  pooled_[spec.id] = true;
  auto& slot = pools_[spec.id];
  if (!slot) {
    slot = std::make_unique<Pool>(reactor_, cores_, next_hash(random_seed_ ^ spec.id), on_event_,
                                  event_context_);
  }
  return *slot;
}

void Registry::set(Pool& pool, const route::UpstreamSpec& spec) {
  std::vector<Endpoint*> endpoints;
  endpoints.reserve(spec.servers.size());
  for (const route::ServerSpec& server : spec.servers) {
    endpoints.push_back(endpoint_for(spec, server, pool.tls()));
  }
  pool.set(spec, endpoints);
}

void Registry::adopt(const route::Snapshot& snapshot,
                     std::span<const std::shared_ptr<net::tls::ClientContext>> tls) {
  size_t place = 0;
  std::fill(named_.begin(), named_.end(), false);
  std::fill(pooled_.begin(), pooled_.end(), false);
  for (const route::UpstreamSpec& spec : snapshot.upstreams()) {
    Pool& pool = pool_for(spec);
    pool.set_tls(place < tls.size() ? tls[place] : std::shared_ptr<net::tls::ClientContext>());
    ++place;
    set(pool, spec);
  }
  for (size_t id = 0; id < pools_.size(); ++id) {
    if (pools_[id] && !pooled_[id]) pools_[id]->send_waiters_away();
  }
  sweep_due_ = true;
}

void Registry::update(const route::UpstreamSpec& spec) {
  if (spec.id >= pools_.size() || !pools_[spec.id] || !pooled_[spec.id]) return;
  Pool& pool = *pools_[spec.id];
  // Those that are no servers of it any more go with the next sweep.
  for (size_t id = 0; id < endpoints_.size(); ++id) {
    if (endpoints_[id] && endpoints_[id]->upstream_name() == spec.name) named_[id] = false;
  }
  set(pool, spec);
  sweep_due_ = true;
}

void Registry::set_server(uint32_t upstream_id, uint64_t identity, ServerState state,
                          uint32_t weight) {
  if (Pool* known = pool(upstream_id)) known->set_server(identity, state, weight);
}

void Registry::sweep() {
  sweep_due_ = false;
  // Before the endpoints, to which they point.
  for (size_t id = 0; id < pools_.size(); ++id) {
    if (!pools_[id] || pooled_[id]) continue;
    pools_[id]->retire();
    if (pools_[id]->unused()) pools_[id].reset();
  }
  for (size_t id = 0; id < endpoints_.size(); ++id) {
    if (!endpoints_[id] || named_[id]) continue;
    endpoints_[id]->close_idle();
    // Leased to an old request: the next sweep.
    if (endpoints_[id]->unused()) endpoints_[id].reset();
  }
}

void Registry::sample(UpstreamScrape& out) const {
  for (size_t id = 0; id < pools_.size(); ++id) {
    if (pools_[id] && pooled_[id]) pools_[id]->sample(static_cast<uint32_t>(id), out);
  }
}

void Registry::close_idle() noexcept {
  for (auto& endpoint : endpoints_) {
    if (endpoint) endpoint->close_idle();
  }
}

uint32_t Registry::idle_connections() const noexcept {
  uint32_t sum = 0;
  for (const auto& endpoint : endpoints_) {
    if (endpoint) sum += endpoint->idle();
  }
  return sum;
}

}  // namespace weir::upstream
