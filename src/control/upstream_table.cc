// UpstreamTable: what others call.
#include <weir/control/upstream_table.h>

#include <algorithm>
#include <utility>

#include <sys/resource.h>

#include <weir/base/check.h>

#include "upstream_table_state.h"

namespace weir::control {

namespace {

std::unique_ptr<NameSource> make_names(runtime::Reactor& reactor, NameSource::OnChange change) {
#if WEIR_CARES
  return make_dns_names(reactor, std::move(change));
#else
  static_cast<void>(reactor);
  static_cast<void>(change);
  return make_system_names();
#endif
}

// A server that hangs keeps a descriptor for all of its timeout: with few at a time a great outage
// would delay the checks of all others. A small part of what the system allows, since checks stand
// beside the connections that descriptors were shared out to.
HealthOptions checks_at_a_time() noexcept {
  constexpr rlim_t kShare = 64;
  constexpr rlim_t kMost = 512;
  HealthOptions options;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return options;
  options.in_flight_max =
      std::max<size_t>(options.in_flight_max, std::min<rlim_t>(limit.rlim_cur / kShare, kMost));
  return options;
}

}  // namespace

UpstreamTable::State::State(runtime::Reactor& the_reactor, log::Logger& the_logger,
                            net::tls::Engine* engine, Send the_send)
    : reactor(the_reactor),
      logger(the_logger),
      send(std::move(the_send)),
      names(make_names(the_reactor, [this](const WatchedName& name) { on_name(name); })),
      secure_checks(engine),
      checker(the_reactor, engine, checks_at_a_time(),
              [this](const HealthChange& change) { on_health(change); }),
      flush_timer(*this) {}

UpstreamTable::UpstreamTable(runtime::Reactor& reactor, log::Logger& logger,
                             net::tls::Engine* engine, Send send)
    : state_(std::make_unique<State>(reactor, logger, engine, std::move(send))) {}

UpstreamTable::~UpstreamTable() { WEIR_CHECK(stopped()); }

void UpstreamTable::prepare(const config::Config& config) {
  State& state = *state_;
  if (state.stopping) return;
  std::string error;
  if (!state.names->configure(config.resolver, error)) {
    WEIR_LOG(state.logger, kError, "upstream", error);
  }
  std::vector<WatchedName> wanted;
  State::add_names(config, wanted);
  for (const TableUpstream& upstream : state.upstreams) State::add_names(upstream, wanted);
  state.names->set_names(wanted);
  state.prepared = true;
}

size_t UpstreamTable::unasked() const noexcept { return state_->names->unasked(); }

void UpstreamTable::fill(const config::Config& config, std::span<route::UpstreamSpec> specs,
                         Identities& identities) const {
  for (size_t i = 0; i < specs.size(); ++i) {
    const TableUpstream upstream = state_->describe(config, i, specs[i]);
    specs[i].servers.clear();
    for (TableServer& server : state_->servers_of(upstream, identities)) {
      specs[i].servers.push_back(std::move(server.spec));
    }
  }
}

void UpstreamTable::take(const config::Config& config, std::span<const route::UpstreamSpec> specs,
                         Identities& identities, uint64_t epoch) {
  State& state = *state_;
  if (state.stopping) return;
  state.identities = &identities;
  state.epoch = epoch;
  std::vector<TableUpstream> next;
  std::vector<WatchedName> wanted;
  for (size_t i = 0; i < specs.size(); ++i) {
    TableUpstream& upstream = next.emplace_back(state.describe(config, i, specs[i]));
    // What the generation was filled with.
    upstream.servers = state.servers_of(upstream, identities);
    State::add_names(upstream, wanted);
    const auto before = std::ranges::find(
        state.upstreams, upstream.spec.name,
        [](const TableUpstream& one) -> const std::string& { return one.spec.name; });
    if (before != state.upstreams.end()) upstream.told = std::move(before->told);
  }
  state.upstreams = std::move(next);
  state.forget_settings();
  if (!std::exchange(state.prepared, false)) {
    prepare(config);
    state.prepared = false;
  }
  state.names->set_names(wanted);
  state.secure_checks.begin();
  for (TableUpstream& upstream : state.upstreams) state.refresh(upstream);
  state.refresh_index();
  state.set_targets();
  state.secure_checks.end();
  for (TableUpstream& upstream : state.upstreams) state.tell_names(upstream);
}

void UpstreamTable::note_unreachable(uint32_t upstream_id, uint64_t identity) noexcept {
  for (const TableUpstream& upstream : state_->upstreams) {
    if (upstream.spec.id != upstream_id) continue;
    const auto server = std::ranges::find(upstream.servers, identity, &TableServer::identity);
    if (server == upstream.servers.end() || server->check == 0) return;
    state_->checker.await_pass(server->check);
    return;
  }
}

void UpstreamTable::stop() noexcept {
  State& state = *state_;
  state.stopping = true;
  state.reactor.timers().disarm(state.flush_timer);
  state.checker.stop();
  state.names->stop();
}

bool UpstreamTable::stopped() const noexcept {
  return state_->stopping && state_->checker.stopped() && state_->names->stopped();
}

}  // namespace weir::control
