#include <weir/control/config/lower.h>

#include <algorithm>
#include <string>
#include <utility>

#include <sys/random.h>

#include <weir/base/check.h>

#include "syntax.h"

namespace weir::control::config {

namespace {

// Of upstreams without a key_file: sessions outlive a reload, as long as this process does.
const std::string& process_sticky_key() {
  static const std::string key = [] {
    std::string made(32, '\0');
    WEIR_CHECK(getrandom(made.data(), made.size(), 0) == static_cast<ssize_t>(made.size()));
    return made;
  }();
  return key;
}

uint32_t milliseconds(Milliseconds value) { return static_cast<uint32_t>(value.count()); }

std::string tls_name(const Upstream& upstream, const UpstreamServer& server) {
  if (!upstream.tls_server_name.empty()) return upstream.tls_server_name;
  switch (server.kind) {
    case UpstreamServer::Kind::kName: return server.host;
    case UpstreamServer::Kind::kIp: return server.address.ip()->to_string();
    case UpstreamServer::Kind::kUnix: break;
  }
  return {};
}

void lower_tls(const Upstream& upstream, route::UpstreamSpec& spec) {
  spec.tls = upstream.tls;
  spec.tls_settings.verify = upstream.tls_verify;
  spec.tls_settings.ca_path = upstream.tls_ca_path;
  spec.tls_settings.cert_path = upstream.tls_cert_path;
  spec.tls_settings.key_path = upstream.tls_key_path;
  spec.tls_settings.min_version = wire_version(upstream.tls_min_version);
}

void lower_balance(const Upstream& upstream, route::BalanceSpec& spec) {
  spec.algorithm = upstream.balance;
  const auto key = parse_hash_key(upstream.hash_key);
  WEIR_CHECK(key.has_value());  // the schema has checked it
  spec.hash_key = *key;
  spec.load_bound_percent = upstream.hash_load_bound;
  spec.slow_start_ms = milliseconds(upstream.slow_start);
}

void lower_retry(const Upstream& upstream, route::RetrySpec& spec) {
  const RetrySettings& retry = upstream.retry;
  spec.tries_max = retry.retries + 1;
  spec.on_connect = retry.on_connect;
  spec.on_reset = retry.on_reset;
  spec.on_timeout = retry.on_timeout;
  spec.on_status = retry.on_status;
  spec.non_idempotent = retry.non_idempotent;
  spec.try_timeout_ms = milliseconds(retry.try_timeout);
  spec.total_timeout_ms = milliseconds(retry.total_timeout);
  spec.budget_percent = retry.budget_percent;
  spec.budget_per_second = retry.budget_per_second;
  spec.hedge_after_ms = milliseconds(retry.hedge_after);
}

// Longer than a try takes until its answer begins; what it takes besides is not what breaks
// circuits.
uint32_t trial_timeout(const Upstream& upstream) {
  constexpr Milliseconds kLeast{60'000};
  const Milliseconds whole =
      upstream.connect_timeout + upstream.send_timeout + upstream.response_timeout;
  return static_cast<uint32_t>(
      std::min<int64_t>(std::max(whole, kLeast).count(), int64_t{UINT32_MAX}));
}

void lower_sticky(const StickySettings& sticky, route::StickySpec& spec) {
  if (!sticky.enabled) return;
  spec.cookie = sticky.cookie;
  spec.key = sticky.key_file.empty() ? process_sticky_key() : sticky.key;
  spec.path = sticky.path;
  spec.age_max_s = static_cast<uint32_t>(sticky.max_age.count() / 1000);
  spec.secure = sticky.secure;
  spec.same_site = sticky.same_site;
}

void lower_failover(const Upstream& upstream, route::UpstreamSpec& spec) {
  lower_retry(upstream, spec.retry);
  spec.outliers = upstream.passive;
  spec.circuit = upstream.circuit;
  spec.circuit.trial_timeout_ms = trial_timeout(upstream);
  lower_sticky(upstream.sticky, spec.sticky);
  spec.max_connections = upstream.max_connections;
  spec.max_pending = upstream.max_pending;
  spec.pending_timeout_ms = milliseconds(upstream.pending_timeout);
  spec.connect_race_ms = milliseconds(upstream.connect_race);
}

route::UpstreamSpec lower_upstream(const Upstream& upstream) {
  route::UpstreamSpec spec;
  spec.name = upstream.name;
  spec.connect_timeout_ms = milliseconds(upstream.connect_timeout);
  spec.response_timeout_ms = milliseconds(upstream.response_timeout);
  spec.read_timeout_ms = milliseconds(upstream.read_timeout);
  spec.send_timeout_ms = milliseconds(upstream.send_timeout);
  spec.idle_timeout_ms = milliseconds(upstream.idle_connection_timeout);
  spec.lifetime_ms = milliseconds(upstream.max_connection_lifetime);
  spec.max_idle_per_host = upstream.max_idle_connections_per_host;
  spec.max_connecting = upstream.max_connecting;
  spec.host_header = upstream.host_header;
  lower_balance(upstream, spec.balance);
  lower_failover(upstream, spec);
  if (upstream.tls) lower_tls(upstream, spec);
  for (const UpstreamServer& server : upstream.servers) {
    route::ServerSpec lowered;
    lowered.address_text = server.text;
    lowered.address = server.address;
    lowered.resolved = server.kind != UpstreamServer::Kind::kName;
    lowered.weight = server.weight;
    lowered.max_connections = server.max_connections;
    lowered.priority = server.priority;
    lowered.backup = server.backup;
    if (upstream.tls) lowered.tls_name = tls_name(upstream, server);
    spec.servers.push_back(std::move(lowered));
  }
  return spec;
}

}  // namespace

LoweredRoutes lower_routes(const Config& config) {
  LoweredRoutes result;
  result.upstreams.reserve(config.upstreams.size());
  for (const Upstream& upstream : config.upstreams) {
    const auto id = static_cast<uint32_t>(result.upstreams.size());
    result.upstreams.push_back(lower_upstream(upstream));
    result.upstreams.back().id = id;
  }
  result.routes.reserve(config.routes.size());
  for (const Route& route : config.routes) {
    route::RouteSpec& spec = result.routes.emplace_back(route.spec);
    spec.origin_text = config.file + ":" + std::to_string(route.place.line);
    const uint64_t limit = route.max_body_size.value_or(config.server.max_body_size);
    spec.max_body_bytes = limit == 0 ? UINT64_MAX : limit;
  }
  return result;
}

}  // namespace weir::control::config
