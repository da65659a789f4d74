// UpstreamTable: which servers are checked in which way, and what comes of it.
#include <algorithm>
#include <utility>

#include <weir/base/check.h>

#include "upstream_table_state.h"

namespace weir::control {

namespace {

uint32_t ms(config::Milliseconds time) noexcept { return static_cast<uint32_t>(time.count()); }

}  // namespace

bool UpstreamTable::State::healthy(const TableUpstream& upstream, const TableServer& server) const {
  if (server.check == 0) return true;
  const HealthState* known = checker.find(server.check);
  return known != nullptr ? known->healthy : upstream.health.initially_healthy;
}

route::ServerState UpstreamTable::State::state_of(const TableUpstream& upstream,
                                                  const TableServer& server) const {
  const route::ServerState set = state_set(upstream, server);
  if (set != route::ServerState::kUp) return set;
  return healthy(upstream, server) ? route::ServerState::kUp : route::ServerState::kDown;
}

HealthTarget UpstreamTable::State::target_of(const TableUpstream& upstream,
                                             const TableServer& server) {
  const config::HealthSettings& health = upstream.health;
  const TableEntry& entry = upstream.entries[server.entry];
  HealthTarget target;
  target.identity = server.check;
  target.address = server.spec.address;
  if (health.port != 0 && !target.address.is_unix()) target.address.set_port(health.port);
  target.kind = upstream.kind;
  target.method = health.method;
  target.path = health.path;
  target.host = entry.host;
  for (const auto& [name, value] : health.headers) target.headers.push_back({name, value});
  target.status.clear();
  for (const config::ExpectedStatus& range : health.expected_status) {
    target.status.push_back({range.first, range.last});
  }
  target.body = health.expected_body;
  target.interval_ms = ms(health.interval);
  target.timeout_ms = ms(health.timeout);
  target.jitter_percent = health.jitter_percent;
  target.unhealthy_threshold = health.unhealthy_threshold;
  target.healthy_threshold = health.healthy_threshold;
  target.initially_healthy = health.initially_healthy;
  target.tls_name = entry.verify_name;
  return target;
}

void UpstreamTable::State::set_targets() {
  constexpr int64_t kMicrosecondsPerSecond = 1'000'000;
  std::vector<HealthTarget> targets;
  for (const TableUpstream& upstream : upstreams) {
    if (!upstream.health.enabled) continue;
    std::string problem;
    std::shared_ptr<net::tls::ClientContext> tls;
    if (upstream.kind == HealthKind::kHttps || upstream.kind == HealthKind::kTls) {
      tls = secure_checks.get(upstream.secure_checks, reactor.unix_us() / kMicrosecondsPerSecond,
                              problem);
    }
    for (const TableServer& server : upstream.servers) {
      if (server.check == 0 || !problem.empty()) continue;
      HealthTarget target = target_of(upstream, server);
      target.tls = tls;
      problem = problem_of(target);
      if (problem.empty()) targets.push_back(std::move(target));
    }
    if (problem.empty()) continue;
    WEIR_LOG(logger, kError, "upstream", "the servers of an upstream cannot be checked",
             {"upstream", upstream.spec.name}, {"error", problem});
  }
  checker.set_targets(targets);
}

void UpstreamTable::State::on_health(const HealthChange& change) {
  const auto [begin, end] = checked.equal_range(change.identity);
  for (auto at = begin; at != end; ++at) {
    TableUpstream& upstream = upstreams[at->second.upstream];
    TableServer& server = upstream.servers[at->second.server];
    if (!change.turned) {
      send_server(upstream, server, server::Command::Kind::kReached);
      continue;
    }
    if (change.healthy) {
      WEIR_LOG(logger, kInfo, "upstream", "a server is healthy again",
               {"upstream", upstream.spec.name}, {"server", server.name()},
               {"address", server.spec.address_text});
    } else {
      WEIR_LOG(logger, kWarn, "upstream", "a server is not healthy",
               {"upstream", upstream.spec.name}, {"server", server.name()},
               {"address", server.spec.address_text}, {"reason", change.reason});
    }
    const route::ServerState now = state_of(upstream, server);
    if (std::exchange(server.spec.state, now) != now)
      send_server(upstream, server, server::Command::Kind::kServer);
  }
}

}  // namespace weir::control
