// UpstreamTable: from the configuration and what is known of names to the servers of the cores.
#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include <weir/base/check.h>
#include <weir/upstream/balance_hash.h>

#include "upstream_table_state.h"

namespace weir::control {

namespace {

// "_https._tcp.example.com" is about example.com (RFC 6125, 6.4: that is what a certificate has to
// be for, since whoever answers for DNS may name any target).
std::string without_service(std::string_view name) {
  while (name.starts_with('_') && name.contains('.')) name.remove_prefix(name.find('.') + 1);
  return std::string(name);
}

HealthKind kind_of(const config::Upstream& upstream) {
  switch (upstream.health.type) {
    case config::HealthType::kAuto: break;
    case config::HealthType::kHttp: return HealthKind::kHttp;
    case config::HealthType::kHttps: return HealthKind::kHttps;
    case config::HealthType::kTcp: return HealthKind::kTcp;
    case config::HealthType::kTls: return HealthKind::kTls;
  }
  return upstream.tls ? HealthKind::kHttps : HealthKind::kHttp;
}

ResolveFamily family_of(config::NameFamily family) {
  switch (family) {
    case config::NameFamily::kAny: break;
    case config::NameFamily::kIpv4: return ResolveFamily::kV4;
    case config::NameFamily::kIpv6: return ResolveFamily::kV6;
  }
  return ResolveFamily::kAny;
}

// As a client would name it, were there no proxy.
std::string host_of(const config::UpstreamServer& server, bool srv, HealthKind kind) {
  if (server.kind != config::UpstreamServer::Kind::kName) return {};
  if (srv) return without_service(server.host);
  constexpr uint16_t kHttpPort = 80;
  constexpr uint16_t kHttpsPort = 443;
  const uint16_t usual = kind == HealthKind::kHttps ? kHttpsPort : kHttpPort;
  return server.port == usual ? server.host : server.host + ":" + std::to_string(server.port);
}

std::string name_to_verify(const config::Upstream& upstream, const config::UpstreamServer& server) {
  if (!upstream.tls_server_name.empty()) return upstream.tls_server_name;
  switch (server.kind) {
    case config::UpstreamServer::Kind::kName:
      return upstream.resolve_srv ? without_service(server.host) : server.host;
    case config::UpstreamServer::Kind::kIp: return server.address.ip()->to_string();
    case config::UpstreamServer::Kind::kUnix: break;
  }
  return {};
}

TableEntry describe_entry(const config::Upstream& upstream, const config::UpstreamServer& server,
                          const route::ServerSpec& spec, HealthKind kind) {
  TableEntry entry;
  entry.spec = spec;
  entry.is_name = server.kind == config::UpstreamServer::Kind::kName;
  if (entry.is_name) entry.name = watched_name(upstream, server);
  entry.verify_name = name_to_verify(upstream, server);
  if (upstream.tls) entry.spec.tls_name = entry.verify_name;
  entry.host = upstream.health.host;
  if (entry.host.empty()) entry.host = upstream.host_header;
  if (entry.host.empty()) entry.host = host_of(server, entry.name.srv, kind);
  return entry;
}

// RFC 2782: records of weight 0 take what little is left by the others; if all are so, they share.
uint32_t weight_of_record(const KnownName& known, const ResolvedAddress& record) {
  constexpr uint32_t kBesideZero = 15;  // 65535 times that is within kWeightMax
  static_assert(65'535 * kBesideZero <= upstream::BalancedServer::kWeightMax);
  if (record.weight == 0) return 1;
  const bool beside_zero = std::ranges::any_of(known.addresses, [&](const ResolvedAddress& one) {
    return one.priority == record.priority && one.weight == 0;
  });
  return beside_zero ? record.weight * kBesideZero : record.weight;
}

// Balancers give a repeated identity another one, in the order of the servers.
void make_distinct(std::vector<TableServer>& servers) {
  std::unordered_map<uint64_t, uint64_t> seen;
  for (TableServer& server : servers) {
    const uint64_t own = upstream::server_identity(server.spec.address_text);
    const uint64_t repeated = seen[own]++;
    server.identity = repeated == 0 ? own : upstream::next_hash(own + repeated);
  }
}

bool same_place(const TableServer& a, const TableServer& b) {
  return a.identity == b.identity && a.check == b.check && a.entry == b.entry &&
         a.spec.address_text == b.spec.address_text && a.spec.name == b.spec.name &&
         a.spec.resolved == b.spec.resolved && a.spec.endpoint_id == b.spec.endpoint_id &&
         a.spec.priority == b.spec.priority && a.spec.race_group == b.spec.race_group;
}

}  // namespace

bool same_servers(const std::vector<TableServer>& a, const std::vector<TableServer>& b) {
  return std::ranges::equal(a, b, same_place);
}

WatchedName watched_name(const config::Upstream& upstream, const config::UpstreamServer& server) {
  return {.name = server.absolute ? server.host + "." : server.host,
          .port = server.port,
          .srv = upstream.resolve_srv,
          .family = family_of(upstream.resolve_family)};
}

TableUpstream UpstreamTable::State::describe(const config::Config& config, size_t place,
                                             const route::UpstreamSpec& spec) {
  const config::Upstream& upstream = config.upstreams[place];
  WEIR_CHECK(upstream.servers.size() == spec.servers.size());
  TableUpstream described;
  described.spec = spec;
  described.spec.servers.clear();
  described.health = upstream.health;
  described.kind = kind_of(upstream);
  described.secure_checks = {.verify = upstream.tls_verify,
                             .ca_path = upstream.tls_ca_path,
                             .cert_path = upstream.tls_cert_path,
                             .key_path = upstream.tls_key_path,
                             .min_version = config::wire_version(upstream.tls_min_version)};
  for (size_t i = 0; i < spec.servers.size(); ++i) {
    described.entries.push_back(
        describe_entry(upstream, upstream.servers[i], spec.servers[i], described.kind));
  }
  return described;
}

void UpstreamTable::State::add_addresses(const TableUpstream& upstream, size_t entry_at,
                                         const KnownName& known, Identities& ids,
                                         std::vector<TableServer>& out) {
  const TableEntry& entry = upstream.entries[entry_at];
  // Each host (of SRV there may be several) by the family of its addresses.
  std::map<std::pair<std::string_view, uint16_t>, std::array<uint32_t, 2>> hosts;
  const auto families = [&](const ResolvedAddress& one) -> std::array<uint32_t, 2>& {
    return hosts[{one.target, one.address.port()}];
  };
  for (const ResolvedAddress& one : known.addresses) {
    ++families(one)[one.address.ip()->is_v4() ? 0 : 1];
  }
  for (const ResolvedAddress& one : known.addresses) {
    TableServer server;
    server.entry = entry_at;
    server.spec = entry.spec;
    server.spec.name = entry.spec.address_text;
    server.spec.address_text = one.address.to_string();
    server.spec.address = one.address;
    server.spec.resolved = true;
    server.spec.endpoint_id =
        ids.endpoint_of_name(upstream.spec.name, entry.spec.address_text, server.spec.address_text);
    if (entry.name.srv) {  // then the entry has neither
      server.spec.weight = weight_of_record(known, one);
      server.spec.priority = one.priority;
    }
    const auto& [v4, v6] = families(one);
    if (v4 != 0 && v6 != 0) {
      const auto host = std::distance(hosts.begin(), hosts.find({one.target, one.address.port()}));
      server.spec.race_group =
          static_cast<uint32_t>(entry_at * Resolver::kAddressesMax + static_cast<size_t>(host) + 1);
    }
    out.push_back(std::move(server));
  }
}

std::vector<TableServer> UpstreamTable::State::servers_of(const TableUpstream& upstream,
                                                          Identities& ids) const {
  std::vector<TableServer> servers;
  for (size_t i = 0; i < upstream.entries.size(); ++i) {
    const TableEntry& entry = upstream.entries[i];
    const KnownName* known = entry.is_name ? names->find(entry.name) : nullptr;
    if (known != nullptr && !known->addresses.empty()) {
      add_addresses(upstream, i, *known, ids, servers);
      continue;
    }
    servers.push_back({.spec = entry.spec, .entry = i});
  }
  // Each entry has at least one in the configuration's own limit, so that this is about names.
  if (servers.size() > route::kServersMax) servers.resize(route::kServersMax);
  make_distinct(servers);
  for (TableServer& server : servers) {
    server.weight_configured = server.spec.weight;
    if (!upstream.health.enabled || !server.spec.resolved) continue;
    server.check = upstream::server_identity(upstream.spec.name,
                                             server.spec.address_text + '\n' + server.name());
  }
  apply_settings(upstream, servers);
  return servers;
}

void UpstreamTable::State::apply_settings(const TableUpstream& upstream,
                                          std::vector<TableServer>& servers) const {
  uint64_t sum = 0;
  for (TableServer& server : servers) {
    server.spec.state = state_of(upstream, server);
    server.spec.weight = weight_of(upstream, server);
    sum += server.spec.weight;
  }
  if (sum != 0) return;
  // Those that had another weight are gone: what was set makes no sense any more.
  for (TableServer& server : servers) server.spec.weight = server.weight_configured;
}

void UpstreamTable::State::send_upstream(const TableUpstream& upstream) const {
  route::UpstreamSpec spec = upstream.spec;
  spec.servers.reserve(upstream.servers.size());
  for (const TableServer& server : upstream.servers) spec.servers.push_back(server.spec);
  server::Command command;
  command.kind = server::Command::Kind::kUpstream;
  command.id = spec.id;
  command.upstream = &spec;
  command.epoch = epoch;
  send(command);
}

void UpstreamTable::State::send_server(const TableUpstream& upstream, const TableServer& server,
                                       server::Command::Kind kind) const {
  server::Command command;
  command.kind = kind;
  command.id = upstream.spec.id;
  command.value = server.identity;
  command.state = server.spec.state;
  command.weight = server.spec.weight;
  command.epoch = epoch;
  send(command);
}

bool UpstreamTable::State::refresh(TableUpstream& upstream) {
  upstream.dirty = false;
  std::vector<TableServer> next = servers_of(upstream, *identities);
  const bool same = same_servers(next, upstream.servers);
  if (same) {
    take_settings(upstream, std::move(next));
  } else {
    upstream.servers = std::move(next);
    send_upstream(upstream);
  }
  forget_weights(upstream);
  return !same;
}

void UpstreamTable::State::refresh_settings(TableUpstream& upstream) {
  std::vector<TableServer> next = upstream.servers;
  apply_settings(upstream, next);
  take_settings(upstream, std::move(next));
}

// `next`: the same servers.
void UpstreamTable::State::take_settings(TableUpstream& upstream, std::vector<TableServer> next) {
  upstream.servers.swap(next);
  for (size_t i = 0; i < next.size(); ++i) {
    const route::ServerSpec& before = next[i].spec;
    const route::ServerSpec& now = upstream.servers[i].spec;
    if (before.state == now.state && before.weight == now.weight) continue;
    send_server(upstream, upstream.servers[i], server::Command::Kind::kServer);
  }
}

void UpstreamTable::State::refresh_index() {
  users.clear();
  checked.clear();
  for (size_t u = 0; u < upstreams.size(); ++u) {
    for (const TableEntry& entry : upstreams[u].entries) {
      if (!entry.is_name) continue;
      std::vector<size_t>& places = users[entry.name];
      if (places.empty() || places.back() != u) places.push_back(u);
    }
    for (size_t s = 0; s < upstreams[u].servers.size(); ++s) {
      const TableServer& server = upstreams[u].servers[s];
      if (server.check != 0) checked.emplace(server.check, Place{.upstream = u, .server = s});
    }
  }
}

}  // namespace weir::control
