// [resolver] and [control].
#include <algorithm>
#include <string>
#include <utility>

#include <weir/base/ip.h>

#include "custom_settings.h"
#include "suggest.h"
#include "syntax.h"
#include "units.h"

namespace weir::control::config {

namespace {

constexpr size_t kNameServersMax = 16;

}  // namespace

void read_name_servers(Reader& reader, const TableEntry& entry, void* object) {
  const size_t errors_before = reader.error_count();
  std::vector<std::string> servers;
  for (const auto& listed : reader.text_list(entry.member.value, entry.path, true)) {
    const auto address = parse_name_server(listed.text);
    if (!address) {
      reader.error(listed, entry.path,
                   "must be an IP address such as \"10.0.0.53\" or \"[fd00::53]:53\", not " +
                       quoted(listed.text));
      continue;
    }
    std::string text = address->to_string();
    if (std::ranges::find(servers, text) != servers.end()) {
      reader.error(listed, entry.path, "names " + quoted(text) + " twice");
    }
    servers.push_back(std::move(text));
  }
  if (servers.size() > kNameServersMax) {
    reader.error(entry.member.value.place(), entry.path, "names more than 16 servers");
  }
  if (reader.error_count() != errors_before) return;
  static_cast<ResolverSettings*>(object)->servers = std::move(servers);
}

void read_resolver(Reader& reader, const Node& table, const KeyPath& path) {
  ResolverSettings& resolver = reader.config.resolver;
  reader.table(table, section("resolver"), &resolver, path);
  if (resolver.min_ttl <= resolver.max_ttl) return;
  const auto given = reader.given(path, {"max_ttl", "min_ttl"});
  reader.error(given->place, KeyPath{.parent = &path, .key = given->key},
               "min_ttl (" + format_duration(resolver.min_ttl.count()) +
                   ") is more than max_ttl (" + format_duration(resolver.max_ttl.count()) + ")");
}

std::string_view check_control_socket(const ScalarValue& value) {
  if (value.text.empty()) return "";
  // A place in the abstract namespace would have no permissions.
  const bool good = value.text.starts_with('/') && is_field_value(value.text) &&
                    base::SocketAddress::parse("unix:" + std::string(value.text)).has_value();
  return good ? "" : "must be an absolute path of at most 107 bytes, or empty";
}

void read_socket_mode(Reader& reader, const TableEntry& entry, void* object) {
  const Node& node = entry.member.value;
  if (node.kind() != Kind::kString) {
    reader.expected(node, entry.path, "a string of octal digits such as \"0600\"");
    return;
  }
  const auto text = reader.text(node, entry.path);
  if (!text) return;
  uint32_t mode = 0;
  bool good = text->size() == 3 || (text->size() == 4 && text->front() == '0');
  for (const char c : *text) {
    good = good && c >= '0' && c <= '7';
    if (good) mode = mode * 8 + static_cast<uint32_t>(c - '0');
  }
  if (!good) {
    reader.error(node.place(), entry.path,
                 "must be permissions in octal such as \"0600\" or \"0660\", not " + quoted(*text));
    return;
  }
  static_cast<ControlSettings*>(object)->socket_mode = mode;
  constexpr uint32_t kOthersMayWrite = 0002;
  if ((mode & kOthersMayWrite) != 0) {
    reader.warn(node.place(), entry.path,
                "lets every user of this machine take servers out of service");
  }
}

}  // namespace weir::control::config
