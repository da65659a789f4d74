#include <algorithm>
#include <string>
#include <utility>

#include <weir/base/check.h>
#include <weir/base/text.h>

#include "custom_settings.h"
#include "suggest.h"
#include "syntax.h"

namespace weir::control::config {

namespace {

constexpr size_t kUpstreamNameBytesMax = 64;

bool is_upstream_name(std::string_view name) {
  return !name.empty() && name.size() <= kUpstreamNameBytesMax &&
         std::ranges::all_of(name, [](char c) { return is_bare_key({&c, 1}) || c == '.'; });
}

// A server on its way into its upstream, which says how names are to be read.
struct ServerDraft : UpstreamServer {
  bool srv = false;
};

void read_server_table(Reader& reader, const Node& node, const KeyPath& path, Upstream& upstream) {
  ServerDraft draft;
  draft.place = node.place();
  draft.srv = upstream.resolve_srv;
  reader.table(node, section("upstream.NAME.servers[]"), static_cast<UpstreamServer*>(&draft),
               path);
  if (!node.has("address")) reader.error(node.place(), path, "has no address");
  if (draft.srv && draft.kind == UpstreamServer::Kind::kName) {
    for (const Member& member : node.members_in_file_order()) {
      if (member.key != "weight" && member.key != "priority") continue;
      reader.error(member.place, KeyPath{.parent = &path, .key = member.key},
                   "is what the SRV records of a name say: give it in them");
    }
  }
  if (!draft.text.empty()) upstream.servers.push_back(std::move(draft));
}

void read_one_server(Reader& reader, const Node& node, const KeyPath& path, Upstream& upstream) {
  if (node.kind() == Kind::kTable) {
    read_server_table(reader, node, path, upstream);
    return;
  }
  if (node.kind() != Kind::kString) {
    reader.expected(node, path, "a string or a table such as {address = \"10.0.0.1:80\"}");
    return;
  }
  const auto text = reader.text(node, path);
  if (!text) return;
  auto server = upstream.resolve_srv ? parse_srv_server(*text) : parse_server(*text);
  if (!server) {
    reader.error(node.place(), path, std::move(server.error()));
    return;
  }
  server->place = node.place();
  upstream.servers.push_back(std::move(*server));
}

std::string unknown_upstream(const Reader& reader, std::string_view name) {
  std::vector<std::string_view> names;
  for (const Upstream& upstream : reader.config.upstreams) {
    if (!upstream.implicit) names.push_back(upstream.name);
  }
  std::string message = "there is no upstream " + quoted(name);
  if (const auto near = nearest(name, names); !near.empty()) {
    return message.append("; did you mean ").append(quoted(near)).append("?");
  }
  return message.append("; give it as [upstream.")
      .append(is_upstream_name(name) ? std::string(name) : quoted(name))
      .append("], or write a URL such as \"http://127.0.0.1:3000\"");
}

// Whether TLS is spoken: as `tls` says, or as the servers are written.
void settle_tls(Reader& reader, const Node& table, const KeyPath& path, Upstream& upstream) {
  const KeyPath servers{.parent = &path, .key = "servers"};
  const auto odd = [&upstream](bool https) {
    return std::ranges::find(upstream.servers, https, &UpstreamServer::https);
  };
  if (table.has("tls")) {
    if (upstream.tls || odd(true) == upstream.servers.end()) return;
    reader.error(odd(true)->place, servers,
                 quoted("https://" + odd(true)->text) + " contradicts tls = false");
  } else if (odd(true) != upstream.servers.end()) {
    upstream.tls = true;
    if (odd(false) == upstream.servers.end()) return;
    reader.error(odd(false)->place, servers,
                 quoted(odd(false)->text) + " has no https://, but " +
                     quoted("https://" + odd(true)->text) +
                     " has; an upstream speaks TLS to all of its servers or to none");
  }
}

// Be it only to ask its servers how they are.
bool speaks_tls(const Upstream& upstream) noexcept {
  const HealthSettings& health = upstream.health;
  const bool secure = health.type == HealthType::kHttps || health.type == HealthType::kTls;
  return upstream.tls || (health.enabled && secure);
}

void check_tls(Reader& reader, const Node& table, const KeyPath& path, Upstream& upstream) {
  for (const Member& member : table.members_in_file_order()) {
    if (!member.key.starts_with("tls_") ||
        Reader::find_setting(section("upstream.NAME"), member.key) == nullptr) {
      continue;
    }
    const KeyPath here{.parent = &path, .key = member.key};
    // An explicit false is a switch.
    if (!speaks_tls(upstream) && !table.has("tls")) {
      reader.error(member.place, here,
                   "is for TLS, which this upstream does not speak: give tls = true, or write its "
                   "servers as \"https://HOST[:PORT]\"");
    } else if (member.key == "tls_verify" && speaks_tls(upstream) && !upstream.tls_verify) {
      reader.warn(member.place, here, "the certificates of this upstream are not checked");
    }
  }
  if (!speaks_tls(upstream) || !upstream.tls_verify || !upstream.tls_server_name.empty()) return;
  for (const UpstreamServer& server : upstream.servers) {
    if (server.kind != UpstreamServer::Kind::kUnix) continue;
    reader.error(server.place, KeyPath{.parent = &path, .key = "servers"},
                 quoted(server.text) + " names no host to check certificates for: give " +
                     "tls_server_name");
  }
}

void check_names(Reader& reader, const KeyPath& path, const Upstream& upstream) {
  // Without any server something else is wrong, and has been said.
  if (upstream.servers.empty() ||
      std::ranges::find(upstream.servers, UpstreamServer::Kind::kName, &UpstreamServer::kind) !=
          upstream.servers.end()) {
    return;
  }
  const auto complain = [&](std::string_view key) {
    const auto place = reader.given(path, key);
    if (!place) return;
    reader.error(*place, KeyPath{.parent = &path, .key = key},
                 "is for servers given by name, and there is none");
  };
  if (upstream.resolve_srv) complain("resolve_srv");
  if (upstream.resolve_family != NameFamily::kAny) complain("resolve_family");
}

// A Unix socket has no port, and weir does not guess that another one is meant.
void check_health_port(Reader& reader, const KeyPath& path, const Upstream& upstream) {
  const KeyPath table{.parent = &path, .key = "health_check"};
  const auto place = reader.given(table, "port");
  if (!place || upstream.health.port == 0) return;
  if (!std::ranges::all_of(upstream.servers, [](const UpstreamServer& server) {
        return server.kind == UpstreamServer::Kind::kUnix;
      })) {
    return;
  }
  reader.error(*place, KeyPath{.parent = &table, .key = "port"},
               "is not for Unix sockets, and all of the servers are on such");
}

void check_balance(Reader& reader, const Node& table, const KeyPath& path,
                   const Upstream& upstream) {
  if (upstream.servers.size() > route::kServersMax) {
    reader.error(upstream.servers[route::kServersMax].place,
                 KeyPath{.parent = &path, .key = "servers"},
                 "are more than " + std::to_string(route::kServersMax));
  }
  if (upstream.balance == route::Balance::kConsistentHash) return;
  for (const Member& member : table.members_in_file_order()) {
    if (member.key != "hash_key" && member.key != "hash_load_bound") continue;
    reader.error(member.place, KeyPath{.parent = &path, .key = member.key},
                 "is for balance = \"consistent_hash\"");
  }
}

// A circuit breaker judges errors in a way of its own: passive checks count them beside it only
// where the file says so.
void settle_errors(Reader& reader, const KeyPath& path, UpstreamSettings& settings) {
  if (settings.circuit.failures == 0) return;
  const KeyPath defaults{.key = "upstream_defaults"};
  const auto given = [&](std::string_view key) {
    return reader.given({.parent = &path, .key = "passive_check"}, key) ||
           reader.given({.parent = &defaults, .key = "passive_check"}, key);
  };
  if (!given("consecutive_errors")) settings.passive.consecutive_errors = 0;
  if (!given("error_percent")) settings.passive.error_percent = 0;
}

// A certificate and its key come from the same table, or the key would be that of another one.
void pair_key(Reader& reader, const Node& table, const KeyPath& path, UpstreamSettings& settings) {
  if (table.has("tls_cert_path")) {
    if (!table.has("tls_key_path")) settings.tls_key_path.clear();
    return;
  }
  for (const Member& member : table.members_in_file_order()) {
    if (member.key != "tls_key_path") continue;
    reader.error(member.place, KeyPath{.parent = &path, .key = member.key},
                 "has no tls_cert_path beside it");
  }
}

uint32_t upstream_of_url(Reader& reader, const ProxyUrl& url, const Place& place) {
  const uint16_t port = url.port.value_or(url.https ? 443 : 80);
  const std::string address = base::lowercase(url.host) + ":" + std::to_string(port);
  auto server = parse_server(address);
  WEIR_CHECK(server.has_value());  // parse_proxy_url() applied the same rules to host and port
  server->https = url.https;
  return implicit_upstream(reader, (url.https ? "https://" : "http://") + address,
                           std::move(*server), place);
}

}  // namespace

uint32_t implicit_upstream(Reader& reader, std::string name, UpstreamServer server,
                           const Place& place) {
  if (const auto known = reader.find_upstream(name)) return *known;
  Upstream upstream;
  static_cast<UpstreamSettings&>(upstream) = reader.config.upstream_defaults;
  upstream.place = place;
  upstream.name = std::move(name);
  upstream.implicit = true;
  upstream.tls = server.https;
  upstream.resolve_srv = false;  // a URL says its port, or means that of its scheme
  server.place = place;
  upstream.servers.push_back(std::move(server));
  settle_errors(reader, KeyPath{.key = "upstream_defaults"}, upstream);
  return reader.add_upstream(std::move(upstream));
}

void read_server_address(Reader& reader, const TableEntry& entry, void* object) {
  const auto text = reader.text(entry.member.value, entry.path);
  if (!text) return;
  auto& server = static_cast<ServerDraft&>(*static_cast<UpstreamServer*>(object));
  auto parsed = server.srv ? parse_srv_server(*text) : parse_server(*text);
  if (!parsed) {
    reader.error(entry.member.value.place(), entry.path, std::move(parsed.error()));
    return;
  }
  // All that an address says; the rest is that of other keys.
  server.kind = parsed->kind;
  server.text = std::move(parsed->text);
  server.host = std::move(parsed->host);
  server.absolute = parsed->absolute;
  server.port = parsed->port;
  server.address = parsed->address;
  server.https = parsed->https;
}

std::string_view check_host_header(const ScalarValue& value) {
  if (value.text.empty()) return "";
  // With a port, or without one: then any will do.
  const bool good = !value.text.starts_with("unix:") && !value.text.starts_with("https://") &&
                    (parse_server(value.text) || parse_server(std::string(value.text) + ":80"));
  return good ? "" : "must be a host such as \"app.internal\" or \"app.internal:8080\", or empty";
}

// Keys are read in alphabetical order (Node::members): resolve_srv has been read by now.
void read_servers(Reader& reader, const TableEntry& entry, void* object) {
  auto& upstream = *static_cast<Upstream*>(static_cast<UpstreamSettings*>(object));
  const Node& node = entry.member.value;
  if (node.kind() == Kind::kString) {
    read_one_server(reader, node, entry.path, upstream);
    return;
  }
  if (node.kind() != Kind::kList) {
    reader.expected(node, entry.path, "a list of servers");
    return;
  }
  if (node.size() == 0) reader.error(node.place(), entry.path, "must name at least one server");
  for (size_t i = 0; i < node.size(); ++i) {
    read_one_server(reader, node.item(i),
                    KeyPath{.parent = &entry.path, .index = static_cast<int64_t>(i)}, upstream);
  }
}

void read_upstream_defaults(Reader& reader, const Node& table, const KeyPath& path) {
  UpstreamSettings& defaults = reader.config.upstream_defaults;
  reader.table(table, section("upstream_defaults"), &defaults, path);
  if (table.kind() != Kind::kTable) return;
  pair_key(reader, table, path, defaults);
  check_retries(reader, path, defaults);
  if (defaults.tls_verify) return;
  reader.warn(reader.config.places.at("upstream_defaults.tls_verify"),
              KeyPath{.parent = &path, .key = "tls_verify"},
              "the certificates of upstreams are not checked");
}

void read_upstreams(Reader& reader, const Node& table, const KeyPath& path) {
  if (!reader.is_table(table, path)) return;
  const Section& upstream_section = section("upstream.NAME");
  for (const Member& member : table.members_in_file_order()) {
    const KeyPath here{.parent = &path, .key = member.key};
    if (member.value.kind() != Kind::kTable) {
      reader.error(member.place, here,
                   "must be a table: write [upstream.NAME] with servers = [...]");
      continue;
    }
    if (!is_upstream_name(member.key)) {
      reader.error(
          member.place, here,
          "an upstream's name has 1 to 64 letters, digits, '-', '_' " + std::string("and '.'"));
      continue;
    }
    Upstream upstream;
    static_cast<UpstreamSettings&>(upstream) = reader.config.upstream_defaults;
    upstream.place = member.value.place();
    upstream.name = member.key;
    reader.table(member.value, upstream_section, static_cast<UpstreamSettings*>(&upstream), here);
    if (!member.value.has("servers")) {
      reader.error(member.value.place(), here, "has no servers");
    }
    settle_tls(reader, member.value, here, upstream);
    check_tls(reader, member.value, here, upstream);
    pair_key(reader, member.value, here, upstream);
    check_balance(reader, member.value, here, upstream);
    check_retries(reader, here, upstream);
    check_names(reader, here, upstream);
    check_health_port(reader, here, upstream);
    settle_errors(reader, here, upstream);
    reader.add_upstream(std::move(upstream));
  }
}

std::optional<route::ProxyAction> read_proxy_target(Reader& reader, const Node& node,
                                                    const KeyPath& path) {
  const auto text = reader.text(node, path);
  if (!text) return std::nullopt;
  route::ProxyAction action;
  if (const auto named = reader.find_upstream(*text)) {
    action.upstream = *named;
    return action;
  }
  if (is_upstream_name(*text)) {
    reader.error(node.place(), path, unknown_upstream(reader, *text));
    return std::nullopt;
  }
  auto url = parse_proxy_url(*text);
  if (!url) {
    reader.error(node.place(), path, std::move(url.error()));
    return std::nullopt;
  }
  // As in nginx, the host of a URL may be the name of an upstream.
  const auto named = url->port ? std::nullopt : reader.find_upstream(url->host);
  if (named && reader.config.upstreams[*named].tls != url->https) {
    const std::string name = quoted(url->host);
    reader.error(node.place(), path,
                 url->https ? "the upstream " + name + " has no tls: write it with http://"
                            : "the upstream " + name + " has tls: write it with https://");
    return std::nullopt;
  }
  action.upstream = named ? *named : upstream_of_url(reader, *url, node.place());
  action.target_path = std::move(url->path);
  return action;
}

}  // namespace weir::control::config
