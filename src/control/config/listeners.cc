#include <string>
#include <utility>

#include "custom_settings.h"
#include "suggest.h"

namespace weir::control::config {

namespace {

std::string address_complaint(std::string_view text) {
  const bool local_name = text.starts_with("localhost:");
  std::string result = "must be an address such as \"0.0.0.0:80\", \"[::]:80\", \"*:80\" or ";
  result.append("\"unix:/PATH\", not ").append(quoted(text));
  if (local_name) result.append("; did you mean \"127.0.0.1").append(text.substr(9)).append("\"?");
  return result;
}

}  // namespace

void read_listener_address(Reader& reader, const TableEntry& entry, void* object) {
  auto& listener = *static_cast<Listener*>(object);
  const auto text = reader.text(entry.member.value, entry.path);
  if (!text) return;
  const auto address = base::SocketAddress::parse(*text);
  if (!address) {
    reader.error(entry.member.value.place(), entry.path, address_complaint(*text));
    return;
  }
  listener.address_text = *text;
  listener.address = *address;
}

void read_listen(Reader& reader, const TableEntry& entry, void* /*object*/) {
  for (const auto& listed : reader.text_list(entry.member.value, entry.path)) {
    const auto address = base::SocketAddress::parse(listed.text);
    if (!address) {
      reader.error(listed, entry.path, address_complaint(listed.text));
      continue;
    }
    Listener listener;
    listener.place = listed.place;
    listener.name = listed.text;
    listener.address_text = listed.text;
    listener.address = *address;
    reader.config.listeners.push_back(std::move(listener));
  }
}

void read_listeners(Reader& reader, const Node& list, const KeyPath& path) {
  if (list.kind() != Kind::kList) {
    reader.error(list.place(), path, "must be a list of tables: write [[listener]]");
    return;
  }
  const Section& listener_section = section("listener");
  for (size_t i = 0; i < list.size(); ++i) {
    const KeyPath here{.parent = &path, .index = static_cast<int64_t>(i)};
    const Node table = list.item(i);
    Listener listener;
    listener.place = table.place();
    reader.table(table, listener_section, &listener, here);
    if (table.kind() == Kind::kTable && !table.has("address")) {
      reader.error(table.place(), here, "has no address");
    }
    if (listener.address_text.empty()) continue;
    if (listener.name.empty()) listener.name = listener.address_text;
    reader.config.listeners.push_back(std::move(listener));
  }
}

}  // namespace weir::control::config
