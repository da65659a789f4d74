// build_snapshot: check all specs, compile the routes, sort (host, path, precedence) entries, and
// lay out one path tree per host.
#include <algorithm>
#include <numeric>
#include <unordered_map>

#include <weir/base/check.h>
#include <weir/base/text.h>

#include "check_spec.h"
#include "compile.h"
#include "tables.h"

namespace weir::route {
namespace {

constexpr std::string_view kAnyHost = "*";

// One route under one host.
struct Entry {
  uint32_t host = 0;  // index into HostList::names
  uint32_t rank = 0;  // precedence of the route among all routes, 0 first
  PathKey path;
};

// All hosts named, in normal form; wildcards with their star.
struct HostList {
  std::vector<std::string> names;
  std::unordered_map<std::string, uint32_t> index;

  uint32_t intern(std::string_view host) {
    std::string name = base::lowercase(host);
    if (name.size() > 1 && name.ends_with('.')) name.pop_back();
    const auto [place, added] =
        index.try_emplace(std::move(name), static_cast<uint32_t>(names.size()));
    if (added) names.push_back(place->first);
    return place->second;
  }
};

// By specificity, then by place in the file.
std::vector<uint32_t> rank_routes(const std::vector<RouteSpec>& specs) {
  std::vector<std::pair<uint64_t, uint32_t>> order;
  order.reserve(specs.size());
  for (const RouteSpec& spec : specs) {
    // Inverted, so that plain ascending order puts the most specific first.
    order.emplace_back(~specificity(spec), static_cast<uint32_t>(order.size()));
  }
  std::sort(order.begin(), order.end());
  std::vector<uint32_t> ranks(specs.size());
  for (uint32_t rank = 0; rank < order.size(); ++rank) ranks[order[rank].second] = rank;
  return ranks;
}

std::vector<Entry> make_entries(const std::vector<RouteSpec>& specs,
                                const std::vector<Route>& routes, HostList& hosts) {
  const std::vector<uint32_t> ranks = rank_routes(specs);
  std::vector<Entry> entries;
  entries.reserve(specs.size());
  for (uint32_t i = 0; i < specs.size(); ++i) {
    const auto add = [&](std::string_view host) {
      entries.push_back({hosts.intern(host), ranks[i], {routes[i].path, routes[i].exact, i}});
    };
    if (specs[i].hosts.empty()) add(kAnyHost);
    for (const std::string& host : specs[i].hosts) add(host);
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    if (a.host != b.host) return a.host < b.host;
    if (const int order = a.path.key.compare(b.path.key); order != 0) return order < 0;
    if (a.path.exact != b.path.exact) return a.path.exact;
    return a.rank < b.rank;
  });
  return entries;
}

bool same_place(const Entry& a, const Entry& b) noexcept {
  return a.host == b.host && a.path.exact == b.path.exact && a.path.key == b.path.key;
}

std::string place_text(const Entry& entry, const HostList& hosts) {
  std::string path(entry.path.key.empty() ? "/" : entry.path.key);
  return "host " + hosts.names[entry.host] + (entry.path.exact ? ", exact path " : ", path ") +
         path;
}

// `group`: all entries for one host and path.
void check_group(std::span<const Entry> group, const std::vector<RouteSpec>& specs,
                 const HostList& hosts, ErrorList& errors) {
  if (group.size() > kRoutesPerPathMax) {
    errors.add(specs[group[kRoutesPerPathMax].path.route].origin_text,
               "There are more than " + std::to_string(kRoutesPerPathMax) + " routes for " +
                   place_text(group[0], hosts) + '.');
    return;
  }
  std::unordered_map<std::string, uint32_t> seen;
  for (const Entry& entry : group) {
    const RouteSpec& spec = specs[entry.path.route];
    const auto [first, added] = seen.try_emplace(condition_signature(spec), entry.path.route);
    if (added) continue;
    if (first->second == entry.path.route) {
      errors.add(spec.origin_text,
                 "The route names the host " + hosts.names[entry.host] + " twice.");
      continue;
    }
    errors.add(spec.origin_text,
               "The route can never be taken: " + specs[first->second].origin_text +
                   " has the same conditions for " + place_text(entry, hosts) + '.');
  }
}

void check_groups(std::span<const Entry> entries, const std::vector<RouteSpec>& specs,
                  const HostList& hosts, ErrorList& errors) {
  for (size_t begin = 0; begin < entries.size();) {
    size_t end = begin + 1;
    while (end < entries.size() && same_place(entries[begin], entries[end])) ++end;
    if (end - begin > 1) check_group(entries.subspan(begin, end - begin), specs, hosts, errors);
    begin = end;
  }
}

void reserve_hosts(const HostList& hosts, Tables& tables) {
  size_t exact = 0;
  size_t exact_bytes = 0;
  size_t wildcard = 0;
  size_t wildcard_bytes = 0;
  for (const std::string& name : hosts.names) {
    if (name == kAnyHost) continue;
    if (name.starts_with('*')) {
      ++wildcard;
      wildcard_bytes += name.size() - 1;
    } else {
      ++exact;
      exact_bytes += name.size();
    }
  }
  tables.exact_hosts.reserve(exact, exact_bytes);
  tables.wildcard_hosts.reserve(wildcard, wildcard_bytes);
}

void add_host(std::string_view name, uint32_t root, Tables& tables) {
  if (name == kAnyHost) {
    tables.any_host = root;
  } else if (name.starts_with('*')) {
    const auto labels = std::min<size_t>(63, std::count(name.begin(), name.end(), '.'));
    tables.wildcard_depths |= uint64_t{1} << labels;
    tables.wildcard_hosts.insert(name.substr(1), root);
  } else {
    tables.exact_hosts.insert(name, root);
  }
}

void build_trees(const std::vector<Entry>& entries, const HostList& hosts, Tables& tables) {
  reserve_hosts(hosts, tables);
  tables.paths.reserve(entries.size());
  std::vector<PathKey> keys;
  for (size_t begin = 0; begin < entries.size();) {
    keys.clear();
    size_t end = begin;
    while (end < entries.size() && entries[end].host == entries[begin].host) {
      keys.push_back(entries[end++].path);
    }
    add_host(hosts.names[entries[begin].host], tables.paths.add_tree(keys), tables);
    begin = end;
  }
  tables.paths.shrink();
}

bool check_counts(const std::vector<RouteSpec>& routes, ErrorList& errors) {
  size_t entries = 0;
  for (const RouteSpec& route : routes) entries += std::max<size_t>(1, route.hosts.size());
  if (routes.size() > kRoutesMax) {
    errors.add("", "There are more than " + std::to_string(kRoutesMax) + " routes.");
  } else if (entries > kEntriesMax) {
    errors.add("", "The routes name more than " + std::to_string(kEntriesMax) + " hosts in all.");
  }
  return errors.empty();
}

}  // namespace

std::expected<std::unique_ptr<Snapshot>, std::vector<BuildError>> build_snapshot(
    const std::vector<RouteSpec>& routes, std::vector<UpstreamSpec> upstreams,
    BuildOptions options) {
  ErrorList errors;
  if (!check_counts(routes, errors)) return std::unexpected(errors.take());
  check_upstreams(upstreams, errors);
  for (const RouteSpec& route : routes) check_route(route, upstreams.size(), errors);
  if (!errors.empty()) return std::unexpected(errors.take());

  auto tables = std::make_unique<Tables>();
  tables->upstreams = std::move(upstreams);
  tables->routes.reserve(routes.size());
  for (const RouteSpec& route : routes) {
    const auto index = static_cast<uint32_t>(tables->routes.size());
    tables->routes.push_back(compile_route(route, index, tables->arena));
  }
  HostList hosts;
  const std::vector<Entry> entries = make_entries(routes, tables->routes, hosts);
  check_groups(entries, routes, hosts, errors);
  if (!errors.empty()) return std::unexpected(errors.take());
  build_trees(entries, hosts, *tables);
  return std::unique_ptr<Snapshot>(new Snapshot(std::move(tables), options.epoch));
}

Snapshot::Snapshot(std::unique_ptr<const Tables> tables, uint64_t epoch) noexcept
    : tables_(std::move(tables)), epoch_(epoch) {}

Snapshot::~Snapshot() = default;

std::span<const Route> Snapshot::routes() const noexcept { return tables_->routes; }

std::span<const UpstreamSpec> Snapshot::upstreams() const noexcept { return tables_->upstreams; }

const UpstreamSpec& Snapshot::upstream(uint32_t index) const noexcept {
  WEIR_CHECK(index < tables_->upstreams.size());
  return tables_->upstreams[index];
}

size_t Snapshot::memory_bytes() const noexcept {
  const Tables& t = *tables_;
  return sizeof(Snapshot) + sizeof(Tables) + t.arena.bytes() + t.routes.capacity() * sizeof(Route) +
         t.exact_hosts.bytes() + t.wildcard_hosts.bytes() + t.paths.bytes();
}

}  // namespace weir::route
