// [tls] and [[tls.certificates]]: what can be said about them without opening a file.
#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>

#include "custom_settings.h"
#include "suggest.h"
#include "syntax.h"
#include "tls_names.h"
#include "units.h"

namespace weir::control::config {

namespace {

// A certificate for each type of key (ECDSA, RSA, EdDSA) may serve the same name.
constexpr uint32_t kSameNameMax = 3;

TlsSettings& settings_of(void* object) noexcept { return *static_cast<TlsSettings*>(object); }

// "A:B" or ["A", "B"] to the names that `look_up` gives for them. Keeps `fallback` after an error.
std::string read_names(Reader& reader, const TableEntry& entry, NameLookup look_up,
                       std::string fallback) {
  const size_t errors_before = reader.error_count();
  std::vector<std::string_view> names;
  for (const auto& listed : reader.text_list(entry.member.value, entry.path)) {
    std::string_view rest = listed.text;
    while (true) {
      const size_t colon = rest.find(':');
      const auto name = look_up(rest.substr(0, colon));
      if (!name) {
        reader.error(listed, entry.path, name.error());
      } else if (std::ranges::find(names, *name) != names.end()) {
        reader.error(listed, entry.path, "names " + quoted(*name) + " twice");
      } else {
        names.push_back(*name);
      }
      if (colon == std::string_view::npos) break;
      rest.remove_prefix(colon + 1);
    }
  }
  if (reader.error_count() != errors_before || names.empty()) return fallback;
  std::string result;
  for (const std::string_view name : names) {
    result.append(result.empty() ? "" : ":").append(name);
  }
  return result;
}

std::expected<std::string, std::string> parse_certificate_host(std::string_view text) {
  if (text == "*") return std::unexpected("must be a name; for all names, give default = true");
  auto host = parse_route_host(text);
  if (!host) return host;
  if (is_host_name(host->starts_with("*.") ? std::string_view(*host).substr(2) : *host)) {
    return host;
  }
  return std::unexpected(quoted(text) + " is an address: no client asks for one by name; give " +
                         "default = true");
}

// What goes with a key: true when nothing is missing.
template <class Files>
bool check_files(Reader& reader, const Node& table, const KeyPath& path, const Files& files) {
  const size_t errors_before = reader.error_count();
  for (const Member& member : table.members_in_file_order()) {
    const KeyPath here{.parent = &path, .key = member.key};
    if (files.cert_path.empty() && !table.has("cert_path") &&
        has_word("key_path key_passphrase_file ocsp_response_path", member.key)) {
      reader.error(member.place, here, "has no cert_path beside it");
    } else if (files.key_path.empty() && member.key == "key_passphrase_file" &&
               !table.has("key_path")) {
      reader.error(member.place, here,
                   "has no key_path beside it (which may be the same file as cert_path)");
    }
  }
  return reader.error_count() == errors_before;
}

std::string shown_name(std::string_view name) {
  return name.empty() ? "the names in the certificate" : quoted(name);
}

// Certificates that can never be told apart. Whether two have keys of the same type is known only
// once they are loaded.
void check_certificates(Reader& reader) {
  struct Use {
    uint32_t count = 0;
    Place last;
  };
  std::unordered_map<std::string, Use> files;
  std::unordered_map<std::string, Use> names;
  const std::string default_name = "*";
  for (const CertificateFiles& one : reader.config.tls.certificates) {
    std::vector<std::string> served = one.hostnames;
    if (served.empty()) served.emplace_back();
    if (one.is_default) served.push_back(default_name);
    for (const std::string& name : served) {
      const std::string what =
          name == default_name ? std::string("as the default") : "for " + shown_name(name);
      Use& file = files[one.cert_path + '\n' + name];
      if (file.count++ != 0) {
        reader.error(one.place, "tls.certificates",
                     quoted(one.cert_path) + " is given twice " + what + ", first in line " +
                         std::to_string(file.last.line));
        break;
      }
      file.last = one.place;
      if (name.empty()) continue;
      Use& use = names[name];
      if (use.count++ == kSameNameMax) {
        reader.error(one.place, "tls.certificates",
                     "is one more certificate " + what + " than there are types of keys (ECDSA, " +
                         "RSA, EdDSA), after line " + std::to_string(use.last.line));
      }
      use.last = one.place;
    }
  }
}

void check_versions(Reader& reader, const Node& table, const KeyPath& path) {
  const TlsSettings& tls = reader.config.tls;
  if (tls.min_version > tls.max_version) {
    const std::string key = table.has("max_version") ? "tls.max_version" : "tls.min_version";
    reader.error(reader.config.places.at(key), key, "min_version (1.3) is above max_version (1.2)");
    return;
  }
  for (const Member& member : table.members_in_file_order()) {
    const KeyPath here{.parent = &path, .key = member.key};
    if (member.key == "ciphers" && tls.min_version == TlsVersion::kTls13) {
      reader.warn(member.place, here, "is for TLS 1.2, which min_version excludes");
    }
    if (member.key == "ciphersuites" && tls.max_version == TlsVersion::kTls12) {
      reader.warn(member.place, here, "is for TLS 1.3, which max_version excludes");
    }
  }
}

void check_tickets(Reader& reader, const Node& table, const KeyPath& path) {
  const TlsSettings& tls = reader.config.tls;
  const auto place = [&reader, &table](std::string_view key) {
    const auto found = reader.config.places.find("tls." + std::string(key));
    return found != reader.config.places.end() ? found->second : table.place();
  };
  if (!tls.ticket_key_files.empty()) {
    if (reader.config.places.contains("tls.ticket_rotation")) {
      reader.error(place("ticket_rotation"), KeyPath{.parent = &path, .key = "ticket_rotation"},
                   "is for weir's own keys; those of ticket_key_files change when the files do");
    }
  } else if (tls.session_tickets && tls.previous_ticket_keys() >= kTicketKeysMax) {
    const bool rotation = reader.config.places.contains("tls.ticket_rotation");
    const std::string_view key = rotation ? "ticket_rotation" : "session_lifetime";
    reader.error(place(key), KeyPath{.parent = &path, .key = key},
                 "session_lifetime (" + format_duration(tls.session_lifetime.count()) +
                     ") is more than " + std::to_string(kTicketKeysMax - 1) +
                     " times ticket_rotation (" + format_duration(tls.ticket_rotation.count()) +
                     "): weir keeps " + std::to_string(kTicketKeysMax) + " keys");
  }
}

void check_client_auth(Reader& reader, const Node& table, const KeyPath& path) {
  const TlsSettings& tls = reader.config.tls;
  if (tls.client_auth != ClientAuth::kOff && !table.has("client_ca_path")) {
    reader.error(reader.config.places.at("tls.client_auth"),
                 KeyPath{.parent = &path, .key = "client_auth"},
                 "needs client_ca_path, the CAs whose clients are let in");
  }
  // An explicit "off" is a switch; without the key, clients would be let in that nobody meant.
  if (table.has("client_auth")) return;
  for (const Member& member : table.members_in_file_order()) {
    if (!has_word("client_ca_path client_crl_path client_verify_depth client_cert_headers",
                  member.key)) {
      continue;
    }
    reader.error(member.place, KeyPath{.parent = &path, .key = member.key},
                 "has no client_auth beside it: give \"required\", \"optional\" or \"off\"");
  }
}

void check_ktls(Reader& reader, const KeyPath& path) {
  const TlsSettings& tls = reader.config.tls;
  if (tls.ktls_enabled || tls.ktls_fallback_enabled) return;
  reader.error(reader.config.places.at("tls.ktls_fallback_enabled"),
               KeyPath{.parent = &path, .key = "ktls_fallback_enabled"},
               "false and ktls_enabled = false leave nothing to encrypt with");
}

}  // namespace

std::string_view check_file_path(const ScalarValue& value) {
  return !value.text.empty() && is_field_value(value.text) ? "" : "must name a file";
}

std::string_view check_whole_seconds(const ScalarValue& value) {
  return value.number % 1000 == 0 ? "" : "must be whole seconds";
}

std::string_view check_server_name(const ScalarValue& value) {
  return is_host_name(value.text) || base::IpAddress::parse(value.text)
             ? ""
             : "must be a host name or IP address, without port and brackets";
}

uint32_t TlsSettings::previous_ticket_keys() const noexcept {
  const int64_t rotation = std::max<int64_t>(ticket_rotation.count(), 1);
  return static_cast<uint32_t>((session_lifetime.count() + rotation - 1) / rotation);
}

void read_ciphers(Reader& reader, const TableEntry& entry, void* object) {
  TlsSettings& tls = settings_of(object);
  tls.ciphers = read_names(reader, entry, find_cipher, std::move(tls.ciphers));
}

void read_ciphersuites(Reader& reader, const TableEntry& entry, void* object) {
  TlsSettings& tls = settings_of(object);
  tls.ciphersuites = read_names(reader, entry, find_ciphersuite, std::move(tls.ciphersuites));
}

void read_groups(Reader& reader, const TableEntry& entry, void* object) {
  TlsSettings& tls = settings_of(object);
  tls.groups = read_names(reader, entry, find_group, std::move(tls.groups));
}

void read_alpn(Reader& reader, const TableEntry& entry, void* object) {
  std::vector<std::string> protocols;
  for (const auto& listed : reader.text_list(entry.member.value, entry.path, true)) {
    const auto protocol = find_protocol(listed.text);
    if (!protocol) {
      reader.error(listed, entry.path, protocol.error());
    } else if (std::ranges::find(protocols, *protocol) != protocols.end()) {
      reader.error(listed, entry.path, "names " + quoted(*protocol) + " twice");
    } else {
      protocols.emplace_back(*protocol);
    }
  }
  settings_of(object).alpn = std::move(protocols);
}

void read_ticket_key_files(Reader& reader, const TableEntry& entry, void* object) {
  std::vector<std::string> files;
  for (const auto& listed : reader.text_list(entry.member.value, entry.path)) {
    if (const auto complaint = check_file_path({.text = listed.text}); !complaint.empty()) {
      reader.error(listed, entry.path, std::string(complaint));
    } else if (std::ranges::find(files, listed.text) != files.end()) {
      reader.error(listed, entry.path, "names " + quoted(listed.text) + " twice");
    } else {
      files.emplace_back(listed.text);
    }
  }
  if (files.size() > kTicketKeysMax) {
    reader.error(entry.member.value.place(), entry.path,
                 "names " + std::to_string(files.size()) + " files; there are at most " +
                     std::to_string(kTicketKeysMax) + " keys");
    return;
  }
  settings_of(object).ticket_key_files = std::move(files);
}

void read_hostnames(Reader& reader, const TableEntry& entry, void* object) {
  std::vector<std::string> hosts;
  for (const auto& listed : reader.text_list(entry.member.value, entry.path)) {
    auto host = parse_certificate_host(listed.text);
    if (!host) {
      reader.error(listed, entry.path, std::move(host.error()));
    } else if (std::ranges::find(hosts, *host) != hosts.end()) {
      reader.error(listed, entry.path, "names " + quoted(*host) + " twice");
    } else {
      hosts.push_back(std::move(*host));
    }
  }
  static_cast<CertificateFiles*>(object)->hostnames = std::move(hosts);
}

void read_certificates(Reader& reader, const TableEntry& entry, void* object) {
  const Node& list = entry.member.value;
  if (list.kind() != Kind::kList) {
    reader.error(list.place(), entry.path, "must be a list of tables: write [[tls.certificates]]");
    return;
  }
  const Section& certificate_section = section("tls.certificates");
  for (size_t i = 0; i < list.size(); ++i) {
    const KeyPath here{.parent = &entry.path, .index = static_cast<int64_t>(i)};
    const Node table = list.item(i);
    reader.has_certificates = true;
    CertificateFiles files;
    files.place = table.place();
    reader.table(table, certificate_section, &files, here);
    if (table.kind() != Kind::kTable) continue;
    if (!table.has("cert_path")) {
      reader.error(table.place(), here, "has no cert_path");
    } else if (check_files(reader, table, here, files) && !files.cert_path.empty()) {
      settings_of(object).certificates.push_back(std::move(files));
    }
  }
}

void read_tls(Reader& reader, const Node& table, const KeyPath& path) {
  TlsSettings& tls = reader.config.tls;
  tls.place = table.place();
  reader.table(table, section("tls"), &tls, path);
  if (table.kind() != Kind::kTable) return;
  if (table.has("cert_path")) reader.has_certificates = true;
  if (check_files(reader, table, path, tls) && !tls.cert_path.empty()) {
    CertificateFiles own{.place = reader.config.places.at("tls.cert_path"),
                         .hostnames = {},
                         .is_default = true,
                         .cert_path = tls.cert_path,
                         .key_path = tls.key_path,
                         .key_passphrase_file = tls.key_passphrase_file,
                         .ocsp_response_path = tls.ocsp_response_path};
    tls.certificates.insert(tls.certificates.begin(), std::move(own));
  }
  check_certificates(reader);
  check_versions(reader, table, path);
  check_tickets(reader, table, path);
  check_client_auth(reader, table, path);
  check_ktls(reader, path);
}

}  // namespace weir::control::config
