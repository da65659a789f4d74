// What a route lets through as raw bytes: protocols of Upgrade, and targets of CONNECT.
#include <algorithm>
#include <string>
#include <utility>

#include <weir/base/text.h>

#include "custom_settings.h"
#include "suggest.h"
#include "syntax.h"

namespace weir::control::config {

namespace {

// "websocket" or "proto/1.0" (RFC 9110 7.8).
bool is_protocol(std::string_view text) noexcept {
  const size_t slash = text.find('/');
  return is_token(text.substr(0, slash)) &&
         (slash == std::string_view::npos || is_token(text.substr(slash + 1)));
}

// A complaint or empty; `protocol` is lower case.
std::string check_protocol(std::string_view protocol) {
  if (protocol == "*") return "names protocols one by one; \"*\" does not stand for all";
  if (!is_protocol(protocol)) return quoted(protocol) + " is not a protocol such as \"websocket\"";
  const std::string_view name = protocol.substr(0, protocol.find('/'));
  // HTTP/2 inside of a tunnel would bypass the routes, and everything else that looks at requests.
  if (name == "h2c" || name == "http") {
    return quoted(protocol) + " is never passed on: requests inside of it would pass by the routes";
  }
  return {};
}

// "HOST:PORT" as a CONNECT request names it.
std::string authority_of(const UpstreamServer& server) {
  if (server.kind == UpstreamServer::Kind::kName) {
    return server.host + ":" + std::to_string(server.port);
  }
  return server.address.to_string();
}

}  // namespace

std::vector<std::string> read_protocols(Reader& reader, const TableEntry& entry) {
  const Node& node = entry.member.value;
  std::vector<std::string> protocols;
  if (node.kind() == Kind::kBool && !node.boolean()) return protocols;
  if (node.kind() != Kind::kString && node.kind() != Kind::kList) {
    reader.expected(node, entry.path, "a protocol, a list of protocols or false");
    return protocols;
  }
  for (const auto& listed : reader.text_list(node, entry.path, true)) {
    std::string protocol = base::lowercase(listed.text);
    if (std::string complaint = check_protocol(protocol); !complaint.empty()) {
      reader.error(listed, entry.path, std::move(complaint));
    } else if (std::ranges::find(protocols, protocol) != protocols.end()) {
      reader.error(listed, entry.path, "names " + quoted(protocol) + " twice");
    } else {
      protocols.push_back(std::move(protocol));
    }
  }
  return protocols;
}

route::ConnectAction read_connect_targets(Reader& reader, const TableEntry& entry) {
  route::ConnectAction action;
  for (const auto& listed : reader.text_list(entry.member.value, entry.path)) {
    if (listed.text.find('*') != std::string_view::npos) {
      reader.error(listed, entry.path,
                   "names targets one by one; a star would let clients reach anything");
      continue;
    }
    auto server = parse_server(listed.text);
    if (!server) {
      reader.error(listed, entry.path, std::move(server.error()));
      continue;
    }
    if (server->https || server->kind == UpstreamServer::Kind::kUnix) {
      reader.error(listed, entry.path,
                   "must be \"HOST:PORT\", as clients name it, not " + quoted(listed.text));
      continue;
    }
    std::string authority = authority_of(*server);
    if (std::ranges::find(action.targets, authority, &route::ConnectTarget::authority) !=
        action.targets.end()) {
      reader.error(listed, entry.path, "names " + quoted(authority) + " twice");
      continue;
    }
    const uint32_t upstream =
        implicit_upstream(reader, "connect://" + authority, std::move(*server), listed.place);
    // What speaks in there nobody knows, so a connection has to do.
    reader.config.upstreams[upstream].health.type = HealthType::kTcp;
    action.targets.push_back({.authority = std::move(authority), .upstream = upstream});
  }
  return action;
}

void finish_connect(Reader& reader, const Node& table, const KeyPath& path, RouteDraft& draft) {
  route::RouteSpec& spec = draft.route.spec;
  for (const Member& member : table.members_in_file_order()) {
    const KeyPath here{.parent = &path, .key = member.key};
    const Setting* setting = Reader::find_setting(section("route"), member.key);
    const std::string_view key = setting != nullptr ? setting->key : std::string_view();
    if (key == "methods" && spec.methods != std::vector<std::string>{"CONNECT"}) {
      reader.error(member.place, here, "does not go with connect: its method is CONNECT only");
    } else if (key == "path" && spec.path != "/") {
      reader.error(member.place, here, "does not go with connect: CONNECT has no path");
    } else if ((key == "match" && draft.match != 0) || key == "query") {
      reader.error(member.place, here, "does not go with connect: CONNECT has no path");
    }
  }
  spec.methods = {"CONNECT"};
}

}  // namespace weir::control::config
