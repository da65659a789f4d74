#include "compile.h"

#include <algorithm>

#include <weir/base/text.h>

#include "check_spec.h"
#include "conditions.h"

namespace weir::route {
namespace {

std::string_view without_slash(std::string_view path) noexcept {
  if (path.ends_with('/')) path.remove_suffix(1);
  return path;
}

void add_named(const std::vector<NameValueCondition>& specs, Condition::Kind kind, Arena& arena,
               std::vector<Condition>& conditions) {
  for (const NameValueCondition& spec : specs) {
    const bool header = kind == Condition::Kind::kHeader;
    conditions.push_back({.kind = kind,
                          .match = spec.match,
                          .name = arena.store(header ? base::lowercase(spec.name) : spec.name),
                          .value = arena.store(spec.value.value_or("")),
                          .methods = {},
                          .sources = {}});
  }
}

// In the order in which they are cheapest to try.
std::span<const Condition> compile_conditions(const RouteSpec& spec, Arena& arena) {
  std::vector<Condition> conditions;
  if (!spec.methods.empty()) {
    std::vector<std::string_view> methods;
    methods.reserve(spec.methods.size());
    for (const std::string& method : spec.methods) methods.push_back(arena.store(method));
    Condition& condition = conditions.emplace_back();
    condition.kind = Condition::Kind::kMethod;
    condition.methods = arena.store_array(methods);
  }
  if (!spec.source.empty()) {
    std::vector<base::Cidr> sources = spec.source;
    normalise_sources(sources);
    Condition& condition = conditions.emplace_back();
    condition.kind = Condition::Kind::kSource;
    condition.sources = arena.store_array(sources);
  }
  add_named(spec.headers, Condition::Kind::kHeader, arena, conditions);
  add_named(spec.query, Condition::Kind::kQuery, arena, conditions);
  return arena.store_array(conditions);
}

const Redirect* compile_redirect(const RedirectAction& action, Arena& arena) {
  std::vector<LocationPiece> pieces;
  std::string unused;
  parse_location(arena.store(action.location), pieces, unused);
  return arena.store_value(Redirect{arena.store_array(pieces)});
}

const Respond* compile_respond(const RespondAction& action, Arena& arena) {
  std::string lines;
  for (const auto& [name, value] : action.headers) {
    lines.append(name).append(": ").append(base::trim(value)).append("\r\n");
  }
  Respond respond;
  respond.field_lines = arena.store(lines);
  respond.body = arena.store(action.body);
  std::vector<ResponseField> fields;
  const char* at = respond.field_lines.data();
  for (const auto& [name, value] : action.headers) {
    const size_t value_length = base::trim(value).size();
    fields.push_back({{at, name.size()}, {at + name.size() + 2, value_length}});
    at += name.size() + 2 + value_length + 2;
  }
  respond.headers = arena.store_array(fields);
  return arena.store_value(respond);
}

std::span<const std::string_view> store_list(const std::vector<std::string>& list, Arena& arena) {
  std::vector<std::string_view> views;
  views.reserve(list.size());
  for (const std::string& text : list) views.push_back(arena.store(text));
  return arena.store_array(views);
}

const FileRoute* compile_file(const FileAction& action, Arena& arena) {
  std::vector<ErrorPage> pages;
  pages.reserve(action.error_pages.size());
  for (const auto& [status, path] : action.error_pages)
    pages.push_back({status, arena.store(path)});
  return arena.store_value(FileRoute{.root = arena.store(action.root),
                                     .index = store_list(action.index, arena),
                                     .fallback = arena.store(action.fallback),
                                     .error_pages = arena.store_array(pages),
                                     .cache_control = arena.store(action.cache_control),
                                     .expires_s = action.expires_s,
                                     .links = action.links,
                                     .listing = action.listing,
                                     .hidden = action.hidden,
                                     .redirect_slash = action.redirect_slash,
                                     .precompressed = action.precompressed,
                                     .in_memory = action.in_memory});
}

const ConnectRoute* compile_connect(const ConnectAction& action, Arena& arena) {
  std::vector<ConnectRoute::Target> targets;
  targets.reserve(action.targets.size());
  for (const ConnectTarget& target : action.targets) {
    targets.push_back({arena.store(target.authority), target.upstream});
  }
  return arena.store_value(ConnectRoute{arena.store_array(targets)});
}

// Length first, so that no text can run into the next.
void append_sized(std::string_view text, std::string& out) {
  out += std::to_string(text.size());
  out += ':';
  out += text;
}

void append_signature(const std::vector<NameValueCondition>& conditions, bool header,
                      std::string& out) {
  std::vector<std::string> parts;
  for (const NameValueCondition& condition : conditions) {
    std::string& part = parts.emplace_back();
    append_sized(header ? base::lowercase(condition.name) : condition.name, part);
    part += static_cast<char>('0' + static_cast<int>(condition.match));
    append_sized(condition.value.value_or(""), part);
  }
  std::sort(parts.begin(), parts.end());
  out += header ? 'h' : 'q';
  for (const std::string& part : parts) append_sized(part, out);
}

}  // namespace

std::string_view path_key(const RouteSpec& spec) noexcept {
  return spec.exact ? std::string_view(spec.path) : without_slash(spec.path);
}

uint64_t specificity(const RouteSpec& spec) noexcept {
  uint64_t count = (spec.methods.empty() ? 0U : 1U) + (spec.source.empty() ? 0U : 1U);
  uint64_t exact = 0;
  uint64_t prefix = 0;
  for (const auto* conditions : {&spec.headers, &spec.query}) {
    count += conditions->size();
    for (const NameValueCondition& condition : *conditions) {
      exact += condition.match == ValueMatch::kExact ? 1U : 0U;
      prefix += condition.match == ValueMatch::kPrefix ? 1U : 0U;
    }
  }
  // 21 bits each: far more conditions than a route can be given in a configuration file.
  constexpr uint64_t kMax = (1U << 21) - 1;
  return std::min(count, kMax) << 42 | std::min(exact, kMax) << 21 | std::min(prefix, kMax);
}

std::string condition_signature(const RouteSpec& spec) {
  std::string out;
  if (specificity(spec) == 0) return out;
  std::vector<std::string> methods = spec.methods;
  std::sort(methods.begin(), methods.end());
  methods.erase(std::unique(methods.begin(), methods.end()), methods.end());
  for (const std::string& method : methods) append_sized(method, out);
  out += 's';
  std::vector<base::Cidr> sources = spec.source;
  normalise_sources(sources);
  for (const base::Cidr& block : sources) append_sized(block.to_string(), out);
  append_signature(spec.headers, true, out);
  append_signature(spec.query, false, out);
  return out;
}

Route compile_route(const RouteSpec& spec, uint32_t index, Arena& arena) {
  Route route;
  route.exact = spec.exact;
  route.index = index;
  route.max_body_bytes = spec.max_body_bytes;
  route.path = arena.store(path_key(spec));
  route.name = arena.store(spec.name);
  route.origin_text = arena.store(spec.origin_text);
  const auto conditions = compile_conditions(spec, arena);
  route.conditions = conditions.data();
  route.condition_count = static_cast<uint32_t>(conditions.size());
  if (const auto* proxy = std::get_if<ProxyAction>(&spec.action)) {
    route.kind = ActionKind::kProxy;
    route.upstream = proxy->upstream;
    route.upgrades = store_list(spec.upgrades, arena);
    if (proxy->target_path) {
      const std::string_view target = *proxy->target_path;
      route.has_target = true;
      route.target_path = arena.store(spec.exact ? target : without_slash(target));
    }
  } else if (const auto* redirect = std::get_if<RedirectAction>(&spec.action)) {
    route.kind = ActionKind::kRedirect;
    route.status = redirect->status;
    route.redirect = compile_redirect(*redirect, arena);
  } else if (const auto* respond = std::get_if<RespondAction>(&spec.action)) {
    route.kind = ActionKind::kRespond;
    route.status = respond->status;
    route.respond = compile_respond(*respond, arena);
  } else if (const auto* file = std::get_if<FileAction>(&spec.action)) {
    route.kind = ActionKind::kFile;
    route.file = compile_file(*file, arena);
  } else if (const auto* connect = std::get_if<ConnectAction>(&spec.action)) {
    route.kind = ActionKind::kConnect;
    route.connect = compile_connect(*connect, arena);
  }
  return route;
}

}  // namespace weir::route
