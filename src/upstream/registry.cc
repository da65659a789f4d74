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
  slot->set_address(server.address);
  slot->set_tls(tls_, tls, server.tls_name);
  slot->set_limits({.connect_timeout_ms = spec.connect_timeout_ms,
                    .idle_timeout_ms = spec.idle_timeout_ms,
                    .lifetime_ms = spec.lifetime_ms,
                    .idle_max = share(spec.max_idle_per_host, cores_),
                    .connecting_max = share(spec.max_connecting, cores_)});
  named_[id] = true;
  return slot.get();
}

void Registry::adopt(const route::Snapshot& snapshot,
                     std::span<const std::shared_ptr<net::tls::ClientContext>> tls) {
  size_t place = 0;
  std::fill(named_.begin(), named_.end(), false);
  for (const route::UpstreamSpec& spec : snapshot.upstreams()) {
    const auto context =
        place < tls.size() ? tls[place] : std::shared_ptr<net::tls::ClientContext>();
    ++place;
    if (spec.id >= balancing_.size()) balancing_.resize(spec.id + 1);
    std::vector<Candidate>& state = balancing_[spec.id];
    std::vector<Candidate> next;
    next.reserve(spec.servers.size());
    for (const route::ServerSpec& server : spec.servers) {
      Endpoint* endpoint = endpoint_for(spec, server, context);
      const auto before = std::find_if(state.begin(), state.end(), [&](const Candidate& candidate) {
        return candidate.endpoint == endpoint && endpoint != nullptr;
      });
      next.push_back({.endpoint = endpoint,
                      .weight = server.weight,
                      .current = before != state.end() ? before->current : 0});
    }
    state = std::move(next);
  }
  sweep_due_ = true;
}

void Registry::sweep() {
  sweep_due_ = false;
  for (size_t id = 0; id < endpoints_.size(); ++id) {
    if (!endpoints_[id] || named_[id]) continue;
    endpoints_[id]->close_idle();
    if (!endpoints_[id]->unused()) continue;  // leased to an old request: the next sweep
    for (auto& state : balancing_) {
      std::erase_if(state, [&](const Candidate& c) { return c.endpoint == endpoints_[id].get(); });
    }
    endpoints_[id].reset();
  }
}

std::span<Candidate> Registry::candidates(const route::UpstreamSpec& spec) noexcept {
  if (spec.id >= balancing_.size()) return {};
  return balancing_[spec.id];
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
