#include "cross_checks.h"

#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>

#include "suggest.h"
#include "units.h"

namespace weir::control::config {

namespace {

Place place_of(const Reader& reader, std::string_view key) {
  const auto found = reader.config.places.find(key);
  return found != reader.config.places.end() ? found->second : Place{1, 1};
}

void check_server(Reader& reader) {
  const ServerSettings& server = reader.config.server;
  if (!server.cpus.empty() && server.threads > server.cpus.size()) {
    reader.error(place_of(reader, "server.threads"), "server.threads",
                 "is " + std::to_string(server.threads) + ", but cpus names only " +
                     std::to_string(server.cpus.size()));
  }
  if (server.max_request_line > server.max_header_size) {
    const bool line_given = reader.config.places.contains("server.max_request_line");
    const std::string key = line_given ? "server.max_request_line" : "server.max_header_size";
    reader.error(place_of(reader, key), key,
                 "max_request_line (" + format_size(server.max_request_line) +
                     ") is more than max_header_size (" + format_size(server.max_header_size) +
                     ")");
  }
}

void check_listeners(Reader& reader) {
  const std::vector<Listener>& listeners = reader.config.listeners;
  const bool wanted = reader.config.places.contains("server.listen");
  if (listeners.empty() && !wanted && !reader.has_listener_tables) {
    reader.error({1, 1}, "listener",
                 "there is none; give one, for example [[listener]] address = \"0.0.0.0:80\"");
  }
  for (size_t i = 0; i < listeners.size(); ++i) {
    const base::SocketAddress& address = listeners[i].address;
    // Port 0 is another port each time.
    if (!address.is_unix() && address.port() == 0) continue;
    for (size_t earlier = 0; earlier < i; ++earlier) {
      if (!(listeners[earlier].address == address)) continue;
      const auto [first, second] = std::minmax(listeners[earlier].place, listeners[i].place);
      reader.error(second, "listener",
                   quoted(listeners[i].address_text) + " is given twice, first in line " +
                       std::to_string(first.line));
      break;
    }
  }
}

void check_tls_use(Reader& reader) {
  const std::vector<Listener>& listeners = reader.config.listeners;
  if (std::ranges::any_of(listeners, &Listener::tls)) return;
  if (reader.has_certificates) {
    reader.warn(reader.config.tls.place, "tls", "no listener has tls = true");
  }
  for (const Listener& listener : listeners) {
    if (listener.redirect_https == 0) continue;
    reader.warn(listener.place, "listener",
                "sends requests to https, but no listener has tls = true");
  }
}

void append_conditions(const std::vector<route::NameValueCondition>& conditions, std::string& out) {
  std::vector<std::string> lines;
  for (const route::NameValueCondition& condition : conditions) {
    std::string line = condition.name;
    line += '\0';
    line += static_cast<char>(condition.match);
    lines.push_back(line.append(condition.value.value_or(std::string())));
  }
  std::ranges::sort(lines);
  for (const std::string& line : lines) out.append(line).append(1, '\n');
}

// All that decides which requests a route gets, beside the host: equal texts never both match.
std::string identity(const route::RouteSpec& spec) {
  std::string_view path = spec.path;
  if (!spec.exact && path.ends_with('/')) path.remove_suffix(1);
  std::string result;
  result.append(path).append(1, spec.exact ? '=' : '^');
  if (spec.methods.empty() && spec.headers.empty() && spec.query.empty() && spec.source.empty()) {
    return result;
  }
  std::vector<std::string> words = spec.methods;
  std::ranges::sort(words);
  for (const std::string& word : words) result.append(word).append(1, ' ');
  result += '\1';
  append_conditions(spec.headers, result);
  result += '\2';
  append_conditions(spec.query, result);
  result += '\3';
  words.clear();
  for (const base::Cidr& block : spec.source) words.push_back(block.to_string());
  std::ranges::sort(words);
  for (const std::string& word : words) result.append(word).append(1, ' ');
  return result;
}

void check_routes(Reader& reader) {
  const std::vector<Route>& routes = reader.config.routes;
  if (routes.empty() && !reader.has_route_tables) {
    reader.warn({1, 1}, "route", "there is none: every request gets 404");
  }
  std::unordered_map<std::string, uint32_t> seen;
  seen.reserve(routes.size());
  for (uint32_t i = 0; i < routes.size(); ++i) {
    const Route& route = routes[i];
    const std::string what = identity(route.spec);
    const std::vector<std::string> any = {"*"};
    for (const std::string& host : route.spec.hosts.empty() ? any : route.spec.hosts) {
      std::string key = host;
      key.append(1, '\n').append(what);
      const auto [entry, added] = seen.emplace(std::move(key), i);
      if (added) continue;
      const Route& first = routes[entry->second];
      reader.error(route.place, route.key,
                   "has the same host (" + host + "), path and conditions as " + first.key +
                       " in line " + std::to_string(first.place.line) + " and would never be used");
      break;
    }
  }
}

void check_control(Reader& reader) {
  const std::string& path = reader.config.control.socket;
  if (path.empty()) return;
  const auto address = base::SocketAddress::parse("unix:" + path);
  for (const Listener& listener : reader.config.listeners) {
    if (!address || !(listener.address == *address)) continue;
    reader.error(place_of(reader, "control.socket"), "control.socket",
                 "is that of the listener in line " + std::to_string(listener.place.line));
  }
}

// A browser keeps one cookie of a name and path for a site: the second upstream's takes the place
// of the first one's, and neither session sticks.
void check_sticky(Reader& reader) {
  std::unordered_map<std::string, uint32_t> seen;
  std::vector<bool> told(reader.config.upstreams.size());
  for (const Route& route : reader.config.routes) {
    const auto* proxy = std::get_if<route::ProxyAction>(&route.spec.action);
    if (proxy == nullptr) continue;
    const Upstream& upstream = reader.config.upstreams[proxy->upstream];
    if (!upstream.sticky.enabled) continue;
    const std::vector<std::string> any = {"*"};
    for (const std::string& host : route.spec.hosts.empty() ? any : route.spec.hosts) {
      const std::string key = host + '\n' + upstream.sticky.cookie + '\n' + upstream.sticky.path;
      const uint32_t first = seen.emplace(key, proxy->upstream).first->second;
      if (first == proxy->upstream || told[proxy->upstream]) continue;
      told[proxy->upstream] = true;
      reader.warn(route.place, route.key,
                  "the upstreams " + quoted(reader.config.upstreams[first].name) + " and " +
                      quoted(upstream.name) + " have the same sticky cookie " +
                      quoted(upstream.sticky.cookie) + " for the host " + host +
                      ": give them different names or paths");
    }
  }
}

void check_upstreams(Reader& reader) {
  std::vector<bool> used(reader.config.upstreams.size());
  const auto use = [&used](uint32_t upstream) {
    if (upstream < used.size()) used[upstream] = true;
  };
  for (const Route& route : reader.config.routes) {
    if (const auto* proxy = std::get_if<route::ProxyAction>(&route.spec.action)) {
      use(proxy->upstream);
    } else if (const auto* connect = std::get_if<route::ConnectAction>(&route.spec.action)) {
      for (const route::ConnectTarget& target : connect->targets) use(target.upstream);
    }
  }
  for (size_t i = 0; i < used.size(); ++i) {
    const Upstream& upstream = reader.config.upstreams[i];
    if (used[i]) continue;
    const KeyPath table{.key = "upstream"};
    reader.warn(upstream.place, KeyPath{.parent = &table, .key = upstream.name},
                "no route uses this upstream");
  }
}

}  // namespace

void cross_check(Reader& reader) {
  check_server(reader);
  check_listeners(reader);
  check_routes(reader);
  check_control(reader);
  // After an error a route may have no upstream, or the wrong one.
  if (reader.error_count() == 0) {
    check_upstreams(reader);
    check_sticky(reader);
    check_tls_use(reader);
  }
}

}  // namespace weir::control::config
