// The short form: [host_routes."HOST"] and [path_routes."HOST"."PATH"], lowered to the same routes
// as [[route]].
#include <array>
#include <string>
#include <utility>

#include "custom_settings.h"
#include "suggest.h"
#include "syntax.h"

namespace weir::control::config {

namespace {

constexpr std::array<std::string_view, 4> kTypeNames = {"Proxy", "Redirect", "Respond", "File"};
// The keys that go with each type, in the order of kTypeNames.
constexpr std::array<std::string_view, 4> kTypeKeys = {
    "type url security", "type url status security",
    "type status body headers content_type security",
    "type path index fallback listing redirect_slash hidden symlinks precompressed cache_control "
    "expires mode "
    "error_pages security"};

const Section& short_section() { return section("path_routes.HOST.PATH"); }

size_t position_of(ShortType type) noexcept {
  return static_cast<size_t>(type) - static_cast<size_t>(ShortType::kProxy);
}

bool check_keys(Reader& reader, const Node& table, const KeyPath& path, ShortType type) {
  const size_t position = position_of(type);
  std::vector<Member> members;
  table.members(members);
  bool good = true;
  for (const Member& member : members) {
    const Setting* setting = Reader::find_setting(short_section(), member.key);
    if (setting == nullptr || has_word(kTypeKeys[position], setting->key)) continue;
    reader.error(member.place, KeyPath{.parent = &path, .key = member.key},
                 "does not go with type = " + quoted(kTypeNames[position]));
    good = false;
  }
  return good;
}

bool set_file(Reader& reader, const Node& table, const KeyPath& path, ShortDraft& draft) {
  const size_t errors_before = reader.error_count();
  const Section& file_section = section("route.file");
  route::FileAction action;
  apply_defaults(file_section, &action);
  for (const Member& member : draft.file) reader.entry(member, file_section, &action, path);
  if (!table.has("path")) reader.error(table.place(), path, "has no path");
  draft.route.spec.action = std::move(action);
  return reader.error_count() == errors_before;
}

bool set_action(Reader& reader, const Node& table, const KeyPath& path, ShortDraft& draft) {
  if (draft.type == ShortType::kRespond) {
    if (draft.status != 0) draft.respond.status = draft.status;
    route::RespondAction action;
    if (!finish_respond(reader, draft.respond, table.place(), path, action)) return false;
    draft.route.spec.action = std::move(action);
    return true;
  }
  if (draft.type == ShortType::kFile) return set_file(reader, table, path, draft);
  if (!draft.url) {
    reader.error(table.place(), path, "has no url");
    return false;
  }
  const KeyPath url_path{.parent = &path, .key = draft.url->key};
  if (draft.type == ShortType::kProxy) {
    auto action = read_proxy_target(reader, draft.url->value, url_path);
    if (!action) return false;
    draft.route.spec.action = std::move(*action);
    return true;
  }
  RedirectDraft redirect;
  if (!set_location(reader, draft.url->value, url_path, redirect.location)) return false;
  if (draft.status != 0) {
    if (!is_redirect_status(draft.status)) {
      reader.error(table.place(), path, std::string(kRedirectStatusComplaint));
      return false;
    }
    redirect.status = draft.status;
  }
  draft.route.spec.action =
      route::RedirectAction{.status = redirect.status, .location = std::move(redirect.location)};
  return true;
}

// A method that is not allowed gets 405, which a method condition alone would not give: a second
// route without condition, which the routing room tries after the first.
route::RouteSpec refusal_of(const route::RouteSpec& spec, const std::vector<std::string>& allowed) {
  route::RespondAction refuse{.status = 405, .headers = {}, .body = "405 Method Not Allowed\n"};
  std::string allow;
  for (const std::string& method : allowed) allow.append(allow.empty() ? "" : ", ").append(method);
  refuse.headers.emplace_back("Allow", std::move(allow));
  refuse.headers.emplace_back("Content-Type", "text/plain; charset=utf-8");
  route::RouteSpec result;
  result.hosts = spec.hosts;
  result.path = spec.path;
  result.action = std::move(refuse);
  return result;
}

void read_short_table(Reader& reader, const Node& table, const KeyPath& path,
                      const std::string& host, std::string route_path) {
  if (!reader.is_table(table, path)) return;
  ShortDraft draft;
  draft.route.place = table.place();
  draft.route.key = path.to_string();
  draft.route.spec.hosts.push_back(host);
  draft.route.spec.path = std::move(route_path);
  const size_t errors_before = reader.error_count();
  reader.table(table, short_section(), &draft, path);
  if (draft.type == ShortType::kNone) {
    if (!table.has("type")) {
      reader.error(table.place(), path,
                   "has no type; one of " + joined_quoted({kTypeNames.begin(), kTypeNames.end()}));
    }
    return;
  }
  if (!check_keys(reader, table, path, draft.type)) return;
  if (!set_action(reader, table, path, draft)) return;
  if (reader.error_count() != errors_before) return;
  if (!draft.allowed_methods.empty()) {
    Route refusal;
    refusal.place = draft.route.place;
    refusal.key = draft.route.key;
    refusal.max_body_size = draft.route.max_body_size;
    refusal.spec = refusal_of(draft.route.spec, draft.allowed_methods);
    draft.route.spec.methods = std::move(draft.allowed_methods);
    reader.config.routes.push_back(std::move(draft.route));
    reader.config.routes.push_back(std::move(refusal));
    return;
  }
  reader.config.routes.push_back(std::move(draft.route));
}

// Empty after an error.
std::string read_host_key(Reader& reader, const Member& member, const KeyPath& path) {
  if (member.key == "default") return "*";
  auto host = parse_route_host(member.key);
  if (host) return std::move(*host);
  reader.error(member.place, path, std::move(host.error()));
  return {};
}

}  // namespace

void read_short_type(Reader& reader, const TableEntry& entry, void* object) {
  constexpr Setting kType{
      .key = "type", .type = ValueType::kChoice, .choices = "Proxy Redirect Respond File"};
  const auto value = reader.scalar(entry.member.value, kType, entry.path);
  if (!value) return;
  static_cast<ShortDraft*>(object)->type =
      static_cast<ShortType>(static_cast<int64_t>(ShortType::kProxy) + value->number);
}

void read_short_url(Reader& /*reader*/, const TableEntry& entry, void* object) {
  static_cast<ShortDraft*>(object)->url = entry.member;
}

void read_short_file(Reader& /*reader*/, const TableEntry& entry, void* object) {
  static_cast<ShortDraft*>(object)->file.push_back(entry.member);
}

void read_short_headers(Reader& reader, const TableEntry& entry, void* object) {
  read_response_headers(reader, entry, &static_cast<ShortDraft*>(object)->respond);
}

void read_short_security(Reader& reader, const TableEntry& entry, void* object) {
  reader.table(entry.member.value, section("path_routes.HOST.PATH.security"), object, entry.path);
}

void read_allowed_methods(Reader& reader, const TableEntry& entry, void* object) {
  static_cast<ShortDraft*>(object)->allowed_methods = read_method_list(reader, entry);
}

void read_host_routes(Reader& reader, const Node& table, const KeyPath& path) {
  if (!reader.is_table(table, path)) return;
  for (const Member& member : table.members_in_file_order()) {
    const KeyPath here{.parent = &path, .key = member.key};
    const std::string host = read_host_key(reader, member, here);
    if (!host.empty()) read_short_table(reader, member.value, here, host, "/");
  }
}

void read_path_routes(Reader& reader, const Node& table, const KeyPath& path) {
  if (!reader.is_table(table, path)) return;
  for (const Member& member : table.members_in_file_order()) {
    const KeyPath host_path{.parent = &path, .key = member.key};
    const std::string host = read_host_key(reader, member, host_path);
    if (host.empty() || !reader.is_table(member.value, host_path)) continue;
    for (const Member& inner : member.value.members_in_file_order()) {
      const KeyPath here{.parent = &host_path, .key = inner.key};
      auto route_path = parse_path(inner.key);
      if (!route_path) {
        reader.error(inner.place, here, std::move(route_path.error()));
        continue;
      }
      read_short_table(reader, inner.value, here, host, std::move(*route_path));
    }
  }
}

}  // namespace weir::control::config
