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

void check_tls(Reader& reader, const Node& table, const KeyPath& path, const Listener& listener) {
  if (!listener.tls) return;
  for (const Member& member : table.members_in_file_order()) {
    const KeyPath here{.parent = &path, .key = member.key};
    if (member.key == "tls" && !reader.has_certificates) {
      reader.error(member.place, here,
                   "needs a certificate: give [tls] cert_path and key_path (`weir cert "
                   "self-signed` makes both for a trial)");
    }
    if (member.key == "redirect_https" && listener.redirect_https != 0) {
      reader.error(member.place, here, "is for a listener without tls: this one speaks https");
    }
  }
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

void read_redirect_https(Reader& reader, const TableEntry& entry, void* object) {
  constexpr Setting kPort{
      .key = "redirect_https", .type = ValueType::kInteger, .minimum = 1, .maximum = 65535};
  constexpr uint16_t kHttpsPort = 443;
  auto& listener = *static_cast<Listener*>(object);
  const Node& node = entry.member.value;
  if (node.kind() == Kind::kBool) {
    listener.redirect_https = node.boolean() ? kHttpsPort : 0;
  } else if (node.kind() != Kind::kInteger && node.kind() != Kind::kString) {
    reader.expected(node, entry.path, "true, false or the port of https");
  } else if (const auto port = reader.scalar(node, kPort, entry.path)) {
    listener.redirect_https = static_cast<uint16_t>(port->number);
  }
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
    check_tls(reader, table, here, listener);
    if (listener.address_text.empty()) continue;
    if (listener.name.empty()) listener.name = listener.address_text;
    reader.config.listeners.push_back(std::move(listener));
  }
}

}  // namespace weir::control::config
