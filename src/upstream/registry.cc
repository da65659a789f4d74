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

Balancer& Registry::balancer_for(const route::UpstreamSpec& spec) {
  if (spec.id >= balancers_.size()) {
    balancers_.resize(spec.id + 1);
    balanced_.resize(spec.id + 1);
  }
  balanced_[spec.id] = true;
  auto& slot = balancers_[spec.id];
  const BalanceOptions options{.algorithm = spec.balance.algorithm,
                               .slow_start_ms = spec.balance.slow_start_ms,
                               .load_bound_percent = spec.balance.load_bound_percent};
  if (!slot) {
    slot = std::make_unique<Balancer>(options, next_hash(random_seed_ ^ spec.id));
  } else if (slot->options() != options) {
    slot->set_options(options);
  }
  return *slot;
}

void Registry::adopt(const route::Snapshot& snapshot,
                     std::span<const std::shared_ptr<net::tls::ClientContext>> tls) {
  size_t place = 0;
  std::fill(named_.begin(), named_.end(), false);
  std::fill(balanced_.begin(), balanced_.end(), false);
  std::vector<ServerFacts> servers;
  for (const route::UpstreamSpec& spec : snapshot.upstreams()) {
    const auto context =
        place < tls.size() ? tls[place] : std::shared_ptr<net::tls::ClientContext>();
    ++place;
    servers.clear();
    for (const route::ServerSpec& server : spec.servers) {
      servers.push_back({.endpoint = endpoint_for(spec, server, context),
                         .identity = server_identity(server.address_text),
                         .weight = server.weight,
                         .max_connections = share(server.max_connections, cores_),
                         .priority = server.priority,
                         .backup = server.backup});
    }
    balancer_for(spec).set_servers(servers, reactor_.now_ns());
  }
  sweep_due_ = true;
}

void Registry::sweep() {
  sweep_due_ = false;
  // Before the endpoints, to which they point.
  for (size_t id = 0; id < balancers_.size(); ++id) {
    if (!balancers_[id] || balanced_[id]) continue;
    balancers_[id]->set_servers({}, reactor_.now_ns());
    if (balancers_[id]->unused()) balancers_[id].reset();
  }
  for (size_t id = 0; id < endpoints_.size(); ++id) {
    if (!endpoints_[id] || named_[id]) continue;
    endpoints_[id]->close_idle();
    // Leased to an old request: the next sweep.
    if (endpoints_[id]->unused()) endpoints_[id].reset();
  }
}

Turn Registry::choose(uint32_t upstream_id, const Pick& pick) noexcept {
  Turn turn;
  Balancer* const balancer = this->balancer(upstream_id);
  if (balancer == nullptr) {
    turn.choice_.missing = NoServer::kDown;
    return turn;
  }
  turn.choice_ = balancer->choose(pick);
  if (!turn.choice_) return turn;
  balancer->begin(turn.choice_);
  turn.registry_ = this;
  turn.endpoint_ = balancer->servers()[static_cast<size_t>(turn.choice_.place)].facts.endpoint;
  turn.upstream_ = upstream_id;
  turn.begin_ns_ = pick.now_ns;
  return turn;
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
