// [[route]]: where it applies, and its one action.
#include <algorithm>
#include <string>
#include <utility>

#include <weir/base/text.h>

#include "custom_settings.h"
#include "suggest.h"
#include "syntax.h"

namespace weir::control::config {

namespace {

RouteDraft& draft_of(void* object) noexcept { return *static_cast<RouteDraft*>(object); }

bool check_value(Reader& reader, const Node& node, const KeyPath& path, std::string_view value) {
  if (is_field_value(value) && base::trim(value) == value) return true;
  reader.error(node.place(), path, "is a value that no request can have");
  return false;
}

void read_condition(Reader& reader, const Node& node, const KeyPath& path, std::string name,
                    std::vector<route::NameValueCondition>& out) {
  constexpr std::string_view kForms =
      "a string (that value), true (present), false (absent) or {prefix = \"...\"}";
  route::NameValueCondition condition;
  condition.name = std::move(name);
  if (node.kind() == Kind::kBool) {
    condition.match = node.boolean() ? route::ValueMatch::kPresent : route::ValueMatch::kAbsent;
  } else if (node.kind() == Kind::kString) {
    const auto value = reader.text(node, path);
    if (!value || !check_value(reader, node, path, *value)) return;
    condition.value = *value;
  } else if (node.kind() == Kind::kTable) {
    std::string prefix;
    reader.table(node, section("route.CONDITION"), &prefix, path);
    if (!node.has("prefix")) reader.error(node.place(), path, "has no prefix");
    if (prefix.empty() || !check_value(reader, node, path, prefix)) return;
    condition.match = route::ValueMatch::kPrefix;
    condition.value = std::move(prefix);
  } else {
    reader.expected(node, path, kForms);
    return;
  }
  out.push_back(std::move(condition));
}

}  // namespace

bool begin_action(Reader& reader, const TableEntry& entry, RouteDraft& draft) {
  if (draft.action_key.empty()) {
    draft.action_key = entry.member.key;
    return true;
  }
  reader.error(
      entry.member.place, entry.path,
      "is a second action beside " + quoted(draft.action_key) + ": a route has exactly one");
  return false;
}

std::string_view check_name(const ScalarValue& value) {
  return !value.text.empty() && is_field_value(value.text) ? "" : "must be a name";
}

void read_hosts(Reader& reader, const TableEntry& entry, void* object) {
  std::vector<std::string> hosts;
  for (const auto& listed : reader.text_list(entry.member.value, entry.path)) {
    auto host = parse_route_host(listed.text);
    if (!host) {
      reader.error(listed, entry.path, std::move(host.error()));
    } else if (std::ranges::find(hosts, *host) != hosts.end()) {
      reader.error(listed, entry.path, "names " + quoted(*host) + " twice");
    } else {
      hosts.push_back(std::move(*host));
    }
  }
  draft_of(object).route.spec.hosts = std::move(hosts);
}

void read_route_path(Reader& reader, const TableEntry& entry, void* object) {
  const auto text = reader.text(entry.member.value, entry.path);
  if (!text) return;
  auto path = parse_path(*text);
  if (!path) {
    reader.error(entry.member.value.place(), entry.path, std::move(path.error()));
    return;
  }
  draft_of(object).route.spec.path = std::move(*path);
}

std::vector<std::string> read_method_list(Reader& reader, const TableEntry& entry) {
  std::vector<std::string> methods;
  for (const auto& listed : reader.text_list(entry.member.value, entry.path)) {
    std::string upper(listed.text);
    for (char& c : upper) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 0x20) : c;
    if (!is_token(listed.text)) {
      reader.error(listed, entry.path, quoted(listed.text) + " is not a method");
    } else if (has_word("GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH", upper) &&
               upper != listed.text) {
      reader.error(listed, entry.path,
                   "methods are upper case: " + quoted(upper) + ", not " + quoted(listed.text));
    } else if (std::ranges::find(methods, listed.text) != methods.end()) {
      reader.error(listed, entry.path, "names " + quoted(listed.text) + " twice");
    } else {
      methods.emplace_back(listed.text);
    }
  }
  return methods;
}

void read_methods(Reader& reader, const TableEntry& entry, void* object) {
  draft_of(object).route.spec.methods = read_method_list(reader, entry);
}

void read_header_conditions(Reader& reader, const TableEntry& entry, void* object) {
  if (!reader.is_table(entry.member.value, entry.path)) return;
  for (const Member& member : entry.member.value.members_in_file_order()) {
    const KeyPath here{.parent = &entry.path, .key = member.key};
    auto& conditions = draft_of(object).route.spec.headers;
    std::string name = base::lowercase(member.key);
    if (!is_token(member.key)) {
      reader.error(member.place, here, "is not a header name");
    } else if (std::ranges::find(conditions, name, &route::NameValueCondition::name) !=
               conditions.end()) {
      reader.error(member.place, here, "is a second condition on the same header");
    } else {
      read_condition(reader, member.value, here, std::move(name), conditions);
    }
  }
}

void read_query_conditions(Reader& reader, const TableEntry& entry, void* object) {
  if (!reader.is_table(entry.member.value, entry.path)) return;
  for (const Member& member : entry.member.value.members_in_file_order()) {
    const KeyPath here{.parent = &entry.path, .key = member.key};
    if (member.key.empty()) {
      reader.error(member.place, here, "is not the name of a query parameter");
      continue;
    }
    read_condition(reader, member.value, here, std::string(member.key),
                   draft_of(object).route.spec.query);
  }
}

void read_source(Reader& reader, const TableEntry& entry, void* object) {
  draft_of(object).route.spec.source = read_blocks(reader, entry, false);
}

void read_proxy(Reader& reader, const TableEntry& entry, void* object) {
  if (!begin_action(reader, entry, draft_of(object))) return;
  if (auto action = read_proxy_target(reader, entry.member.value, entry.path)) {
    draft_of(object).route.spec.action = std::move(*action);
  }
}

void read_redirect(Reader& reader, const TableEntry& entry, void* object) {
  if (!begin_action(reader, entry, draft_of(object))) return;
  const Node& node = entry.member.value;
  RedirectDraft redirect;
  if (node.kind() == Kind::kTable) {
    reader.table(node, section("route.redirect"), &redirect, entry.path);
    if (!node.has("url")) reader.error(node.place(), entry.path, "has no url");
  } else if (node.kind() == Kind::kString) {
    set_location(reader, node, entry.path, redirect.location);
  } else {
    reader.expected(node, entry.path, "a URL or a table such as {url = \"...\", status = 301}");
  }
  draft_of(object).route.spec.action =
      route::RedirectAction{.status = redirect.status, .location = std::move(redirect.location)};
}

void read_respond(Reader& reader, const TableEntry& entry, void* object) {
  if (!begin_action(reader, entry, draft_of(object))) return;
  const Node& node = entry.member.value;
  if (node.kind() != Kind::kTable) {
    reader.expected(node, entry.path, "a table such as {status = 200, body = \"...\"}");
    return;
  }
  RespondDraft respond;
  reader.table(node, section("route.respond"), &respond, entry.path);
  route::RespondAction action;
  if (!finish_respond(reader, respond, node.place(), entry.path, action)) return;
  draft_of(object).route.spec.action = std::move(action);
}

void read_connect(Reader& reader, const TableEntry& entry, void* object) {
  if (!begin_action(reader, entry, draft_of(object))) return;
  draft_of(object).route.spec.action = read_connect_targets(reader, entry);
}

void read_upgrade(Reader& reader, const TableEntry& entry, void* object) {
  draft_of(object).upgrade = entry.member.place;
  draft_of(object).route.spec.upgrades = read_protocols(reader, entry);
}

void read_routes(Reader& reader, const Node& list, const KeyPath& path) {
  if (list.kind() != Kind::kList) {
    reader.error(list.place(), path, "must be a list of tables: write [[route]]");
    return;
  }
  const Section& route_section = section("route");
  reader.config.routes.reserve(reader.config.routes.size() + list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const KeyPath here{.parent = &path, .index = static_cast<int64_t>(i)};
    const Node table = list.item(i);
    const size_t errors_before = reader.error_count();
    RouteDraft draft;
    draft.route.place = table.place();
    draft.route.key = here.to_string();
    reader.table(table, route_section, &draft, here);
    if (table.kind() == Kind::kTable && draft.action_key.empty()) {
      reader.error(table.place(), here,
                   "has no action; give one of \"proxy\", \"redirect\", \"respond\", \"file\", "
                   "\"connect\"");
    } else if (draft.upgrade && draft.action_key != "proxy") {
      reader.error(*draft.upgrade, KeyPath{.parent = &here, .key = "upgrade"},
                   "goes with proxy only, not with " + std::string(draft.action_key));
    }
    if (draft.action_key == "connect") finish_connect(reader, table, here, draft);
    draft.route.spec.exact = draft.match != 0;
    // A route with errors would be compared with the others as something that it is not meant to
    // be.
    if (reader.error_count() == errors_before) {
      reader.config.routes.push_back(std::move(draft.route));
    }
  }
}

}  // namespace weir::control::config
