#include <weir/control/config/load.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cross_checks.h"
#include "custom_settings.h"
#include "reader.h"
#include "suggest.h"

namespace weir::control::config {

namespace {

struct TopLevel {
  std::string_view key;
  void (*read)(Reader& reader, const Node& value, const KeyPath& path);
};

template <auto Member>
void read_settings(Reader& reader, const Node& value, const KeyPath& path) {
  reader.table(value, section(path.key), &(reader.config.*Member), path);
}

// In the order of reading: listeners may need certificates, upstreams start from their defaults,
// and routes name upstreams.
constexpr std::array kTopLevel = {
    TopLevel{"server", read_settings<&Config::server>},
    TopLevel{"tls", read_tls},
    TopLevel{"listener", read_listeners},
    TopLevel{"logging", read_settings<&Config::logging>},
    TopLevel{"performance", read_settings<&Config::performance>},
    TopLevel{"security", read_settings<&Config::security>},
    TopLevel{"mime", read_settings<&Config::mime>},
    TopLevel{"resolver", read_resolver},
    TopLevel{"control", read_settings<&Config::control>},
    TopLevel{"health_check", read_health_defaults},
    TopLevel{"load_balancer", read_settings<&Config::upstream_defaults>},
    TopLevel{"upstream_defaults", read_upstream_defaults},
    TopLevel{"upstream", read_upstreams},
    TopLevel{"route", read_routes},
    TopLevel{"host_routes", read_host_routes},
    TopLevel{"path_routes", read_path_routes},
};

void read_document(Reader& reader, const Node& root) {
  std::vector<Member> members;
  root.members(members);
  reader.has_listener_tables = root.has("listener");
  reader.has_route_tables = root.has("route") || root.has("host_routes") || root.has("path_routes");
  for (const TopLevel& part : kTopLevel) {
    for (const Member& member : members) {
      if (member.key == part.key) part.read(reader, member.value, KeyPath{.key = part.key});
    }
  }
  // Unknown ones: reported as in any table, with the parts above as what is known.
  std::array<Setting, kTopLevel.size()> known{};
  for (size_t i = 0; i < known.size(); ++i) known[i].key = kTopLevel[i].key;
  const Section top{.name = "", .header = "", .doc = "", .example = "", .settings = known};
  for (const Member& member : members) {
    if (Reader::find_setting(top, member.key) == nullptr) {
      reader.unknown_key(top, member, KeyPath{.key = member.key});
    }
  }
}

LoadResult failed(std::string file, std::string key, Place place, std::string message) {
  LoadResult result;
  result.config.file = file;
  result.errors.push_back({std::move(file), place, std::move(key), std::move(message)});
  return result;
}

std::string errno_text(int code) {
  std::array<char, 256> buffer{};
  return strerror_r(code, buffer.data(), buffer.size());
}

// Empty, with `complaint` set, when the file cannot be had.
std::optional<std::string> read_file(const std::string& path, std::string& complaint) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    complaint = "cannot open the file: " + errno_text(errno);
    return std::nullopt;
  }
  std::string text;
  std::array<char, 65536> block;
  ssize_t got = 0;
  while (text.size() <= kFileBytesMax) {
    got = ::read(fd, block.data(), block.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    text.append(block.data(), static_cast<size_t>(got));
  }
  const int code = got < 0 ? errno : 0;
  ::close(fd);
  if (code != 0) {
    complaint = "cannot read the file: " + errno_text(code);
    return std::nullopt;
  }
  return text;
}

}  // namespace

std::string Diagnostic::to_string() const {
  std::string result = file;
  result.append(":").append(std::to_string(place.line));
  result.append(":").append(std::to_string(place.column)).append(": ");
  if (!key.empty()) result.append(key).append(": ");
  return result.append(message);
}

EnvironmentLookup process_environment() {
  return [](std::string_view name) -> std::optional<std::string> {
    const char* value = std::getenv(std::string(name).c_str());
    return value != nullptr ? std::optional<std::string>(value) : std::nullopt;
  };
}

LoadResult load_config(const std::string& path, const EnvironmentLookup& environment) {
  std::string complaint;
  const auto text = read_file(path, complaint);
  if (!text) return failed(path, {}, {1, 1}, std::move(complaint));
  return parse_config(*text, path, environment);
}

LoadResult parse_config(std::string_view text, std::string name,
                        const EnvironmentLookup& environment) {
  if (text.size() > kFileBytesMax) {
    return failed(std::move(name), {}, {1, 1}, "the file is larger than 64 MiB");
  }
  Document document;
  SyntaxError syntax;
  if (!document.parse(text, syntax)) {
    return failed(std::move(name), "TOML", syntax.place, std::move(syntax.message));
  }
  LoadResult result;
  result.config.file = std::move(name);
  Reader reader(result.config, environment);
  read_document(reader, document.root());
  cross_check(reader);
  result.errors = reader.take_errors();
  result.warnings = reader.take_warnings();
  return result;
}

}  // namespace weir::control::config
