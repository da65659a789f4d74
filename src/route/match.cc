#include <weir/route/match.h>

#include <algorithm>

#include "conditions.h"
#include "walk.h"

namespace weir::route {
namespace {

// One walk's fixed parts.
struct Search {
  const Tables& tables;
  const RequestView& request;
  WalkTrace* trace;
};

// Where a walk down a path tree ended.
struct Descent {
  const PathNode* exact = nullptr;   // holds routes for exactly this path
  const PathNode* prefix = nullptr;  // the longest prefix that has routes
  size_t prefix_length = 0;
};

// A prefix of that length ends at a segment boundary. The root prefix ("") fits any path, "*" too.
bool at_boundary(std::string_view path, size_t length) noexcept {
  return length == 0 || length == path.size() || path[length] == '/';
}

Descent descend(const PathForest& paths, uint32_t root, std::string_view path) noexcept {
  Descent found;
  size_t length = 0;
  for (uint32_t index = root; index != kNoNode;) {
    const PathNode& node = paths.node(index);
    const std::string_view label = paths.label(node);
    if (!path.substr(length).starts_with(label)) break;
    length += label.size();
    if (node.prefix_count != 0 && at_boundary(path, length)) {
      found.prefix = &node;
      found.prefix_length = length;
    }
    if (length == path.size()) {
      if (node.exact_count != 0) found.exact = &node;
      break;
    }
    index = paths.child(node, path[length]);
  }
  return found;
}

// The first of these routes whose conditions hold.
const Route* first_fitting(const Search& search, std::span<const uint32_t> candidates,
                           HostRule rule, std::string_view host) noexcept {
  for (const uint32_t index : candidates) {
    const Route& route = search.tables.routes[index];
    const Condition* failed =
        route.condition_count == 0 ? nullptr : first_failed(route, search.request);
    if (search.trace != nullptr) search.trace->push_back({rule, host, &route, failed});
    if (failed == nullptr) return &route;
  }
  return nullptr;
}

const Route* walk_paths(const Search& search, uint32_t root, HostRule rule,
                        std::string_view host) noexcept {
  const PathForest& paths = search.tables.paths;
  const std::string_view path = search.request.path;
  const Descent found = descend(paths, root, path);
  if (search.trace != nullptr && found.exact == nullptr && found.prefix == nullptr) {
    search.trace->push_back({rule, host, nullptr, nullptr});
  }
  if (found.exact != nullptr) {
    const Route* route = first_fitting(search, paths.exact_routes(*found.exact), rule, host);
    if (route != nullptr) return route;
  }
  const PathNode* node = found.prefix;
  size_t length = found.prefix_length;
  while (node != nullptr) {
    if (node->prefix_count != 0 && at_boundary(path, length)) {
      const Route* route = first_fitting(search, paths.prefix_routes(*node), rule, host);
      if (route != nullptr) return route;
    }
    length -= node->label_length;
    node = node->parent == kNoNode ? nullptr : &paths.node(node->parent);
  }
  return nullptr;
}

// Suffixes of the host from the longest on, skipping lengths that no wildcard has.
const Route* walk_wildcards(const Search& search, std::string_view host) noexcept {
  const Tables& tables = search.tables;
  // From the second byte on: where a host begins with a dot, the star has nothing to stand for.
  auto labels = static_cast<size_t>(std::count(host.begin() + 1, host.end(), '.'));
  for (size_t dot = host.find('.', 1); dot != std::string_view::npos;
       dot = host.find('.', dot + 1)) {
    if ((tables.wildcard_depths >> std::min<size_t>(labels, 63) & 1) != 0) {
      const std::string_view suffix = host.substr(dot);
      const uint32_t root = tables.wildcard_hosts.find(suffix);
      if (root != kNoRoot) {
        const Route* route = walk_paths(search, root, HostRule::kWildcard, suffix);
        if (route != nullptr) return route;
      }
    }
    --labels;
  }
  return nullptr;
}

}  // namespace

const Route* walk(const Tables& tables, const RequestView& request, WalkTrace* trace) noexcept {
  const Search search{tables, request, trace};
  std::string_view host = request.host;
  if (host.ends_with('.')) host.remove_suffix(1);
  if (!host.empty()) {
    if (const uint32_t root = tables.exact_hosts.find(host); root != kNoRoot) {
      const Route* route = walk_paths(search, root, HostRule::kExact, host);
      if (route != nullptr) return route;
    }
    if (tables.wildcard_depths != 0) {
      if (const Route* route = walk_wildcards(search, host); route != nullptr) return route;
    }
  }
  if (tables.any_host == kNoRoot) return nullptr;
  return walk_paths(search, tables.any_host, HostRule::kAny, {});
}

const Route* match(const Snapshot& snapshot, const RequestView& request) noexcept {
  return walk(snapshot.tables(), request, nullptr);
}

Rewrite rewrite_path(const Route& route, std::string_view path) noexcept {
  if (!route.has_target || !path.starts_with('/')) return {{}, path};
  if (route.exact) return {route.target_path, {}};
  const std::string_view rest = path.substr(std::min(route.path.size(), path.size()));
  if (route.target_path.empty() && rest.empty()) return {"/", {}};
  return {route.target_path, rest};
}

}  // namespace weir::route
