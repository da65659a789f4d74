// [route.file] and [mime]: what can be said about files without opening one.
#include <algorithm>
#include <string>
#include <utility>

#include <weir/base/text.h>
#include <weir/files/file_path.h>
#include <weir/files/mime.h>

#include "custom_settings.h"
#include "suggest.h"
#include "syntax.h"

namespace weir::control::config {

namespace {

// Each is checked by itself, and all are copied at every reload.
constexpr size_t kMimeTypesMax = 4096;

route::FileAction& action_of(void* object) noexcept {
  return *static_cast<route::FileAction*>(object);
}

// One segment of a path, taken as it is: nothing is decoded. A complaint or empty.
std::string check_segment(std::string_view name) {
  if (name.empty()) return "has an empty name in it";
  if (name == "." || name == "..") return "must not have " + quoted(name) + " in it";
  if (name.size() > files::kNameBytesMax) return "has a name longer than 255 bytes";
  if (!is_field_value(name)) return "must not contain control characters";
  return {};
}

// "404.html", "errors/404.html" or "/errors/404.html": a file below the route's directory, without
// the slash at its start. Empty after an error.
std::string read_below(Reader& reader, const Node& node, const KeyPath& path) {
  const auto text = reader.text(node, path);
  if (!text) return {};
  const std::string_view below = text->starts_with('/') ? text->substr(1) : *text;
  std::string complaint;
  if (below.empty() || below.ends_with('/')) {
    complaint = "must name a file below the route's path, as \"404.html\" does";
  } else if (below.size() > files::kFilePathBytesMax) {
    complaint = "is longer than 4095 bytes";
  }
  for (std::string_view rest = below; complaint.empty();) {
    const size_t slash = rest.find('/');
    complaint = check_segment(rest.substr(0, slash));
    if (slash == std::string_view::npos) break;
    rest.remove_prefix(slash + 1);
  }
  if (complaint.empty()) return std::string(below);
  reader.error(node.place(), path, std::move(complaint));
  return {};
}

bool set_root(Reader& reader, const Node& node, const KeyPath& path, route::FileAction& action) {
  const auto text = reader.text(node, path);
  if (!text) return false;
  std::string_view root = *text;
  std::string complaint;
  if (!root.starts_with('/')) {
    complaint = "must be an absolute path such as \"/var/www/site\", not " + quoted(root);
  } else if (root.size() > files::kFilePathBytesMax) {
    complaint = "is longer than 4095 bytes";
  } else if (!is_field_value(root)) {
    complaint = "must not contain control characters";
  }
  if (!complaint.empty()) {
    reader.error(node.place(), path, std::move(complaint));
    return false;
  }
  while (root.size() > 1 && root.ends_with('/')) root.remove_suffix(1);
  action.root = root;
  return true;
}

// A status as a key: bare keys are texts. Only those that files lead to.
std::optional<uint16_t> error_status(std::string_view key) {
  constexpr uint16_t kStatuses[] = {403, 404, 405, 412, 416, 500, 503};
  const auto number = base::parse_decimal(key);
  if (!number || key.size() != 3) return std::nullopt;
  const auto found = std::ranges::find(kStatuses, *number);
  if (found == std::end(kStatuses)) return std::nullopt;
  return *found;
}

std::string normal_extension(std::string_view key) {
  return base::lowercase(key.starts_with('.') ? key.substr(1) : key);
}

}  // namespace

std::string_view check_media_type(const ScalarValue& value) {
  const auto types = files::MimeTypes::build({.default_type = value.text, .charset = ""});
  return types ? "" : "must be a type such as \"text/plain\", or empty";
}

std::string_view check_charset(const ScalarValue& value) {
  const auto types = files::MimeTypes::build({.charset = value.text});
  return types ? "" : "must be the name of a charset such as \"utf-8\", or empty";
}

std::string_view check_optional_absolute(const ScalarValue& value) {
  const bool good =
      value.text.empty() || (value.text.starts_with('/') && is_field_value(value.text));
  return good ? "" : "must be an absolute path, or empty";
}

void read_file_root(Reader& reader, const TableEntry& entry, void* object) {
  set_root(reader, entry.member.value, entry.path, action_of(object));
}

void read_file_index(Reader& reader, const TableEntry& entry, void* object) {
  std::vector<std::string> names;
  for (const auto& listed : reader.text_list(entry.member.value, entry.path, true)) {
    if (listed.text.find('/') != std::string_view::npos) {
      reader.error(listed, entry.path, quoted(listed.text) + " is a path, not a name");
    } else if (std::string complaint = check_segment(listed.text); !complaint.empty()) {
      reader.error(listed, entry.path, std::move(complaint));
    } else if (std::ranges::find(names, listed.text) != names.end()) {
      reader.error(listed, entry.path, "names " + quoted(listed.text) + " twice");
    } else {
      names.emplace_back(listed.text);
    }
  }
  action_of(object).index = std::move(names);
}

void read_file_fallback(Reader& reader, const TableEntry& entry, void* object) {
  action_of(object).fallback = read_below(reader, entry.member.value, entry.path);
}

void read_error_pages(Reader& reader, const TableEntry& entry, void* object) {
  if (!reader.is_table(entry.member.value, entry.path)) return;
  for (const Member& member : entry.member.value.members_in_file_order()) {
    const KeyPath here{.parent = &entry.path, .key = member.key};
    const auto status = error_status(member.key);
    if (!status) {
      reader.error(member.place, here,
                   "is not a status that files lead to: 403, 404, 405, 412, 416, 500 or 503");
      continue;
    }
    std::string page = read_below(reader, member.value, here);
    if (!page.empty()) action_of(object).error_pages.emplace_back(*status, std::move(page));
  }
}

void read_file(Reader& reader, const TableEntry& entry, void* object) {
  auto& draft = *static_cast<RouteDraft*>(object);
  if (!begin_action(reader, entry, draft)) return;
  const Node& node = entry.member.value;
  const Section& file_section = section("route.file");
  route::FileAction action;
  apply_defaults(file_section, &action);
  if (node.kind() == Kind::kTable) {
    reader.table(node, file_section, &action, entry.path);
    if (!node.has("path")) reader.error(node.place(), entry.path, "has no path");
  } else if (node.kind() == Kind::kString) {
    set_root(reader, node, entry.path, action);
  } else {
    reader.expected(node, entry.path,
                    "a path or a table such as {path = \"/var/www/site\", listing = true}");
  }
  draft.route.spec.action = std::move(action);
}

void read_mime_types(Reader& reader, const TableEntry& entry, void* object) {
  const Node& node = entry.member.value;
  if (!reader.is_table(node, entry.path)) return;
  if (node.size() > kMimeTypesMax) {
    reader.error(node.place(), entry.path,
                 "has " + std::to_string(node.size()) + " types; there may be " +
                     std::to_string(kMimeTypesMax));
    return;
  }
  std::vector<MimeType>& types = static_cast<MimeSettings*>(object)->types;
  for (const Member& member : node.members_in_file_order()) {
    const KeyPath here{.parent = &entry.path, .key = member.key};
    const auto type = reader.text(member.value, here);
    if (!type) continue;
    MimeType added{.place = member.place,
                   .extension = normal_extension(member.key),
                   .type = std::string(*type)};
    const auto first = std::ranges::find(types, added.extension, &MimeType::extension);
    if (first != types.end()) {
      reader.error(member.place, here,
                   "is the same extension as in line " + std::to_string(first->place.line));
      continue;
    }
    const files::MimeOverride one{.extension = member.key, .type = *type};
    if (const auto built = files::MimeTypes::build({.overrides = {&one, 1}}); !built) {
      reader.error(member.value.place(), here, built.error());
      continue;
    }
    types.push_back(std::move(added));
  }
}

}  // namespace weir::control::config
