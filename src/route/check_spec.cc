#include "check_spec.h"

#include <algorithm>
#include <array>
#include <unordered_set>

#include <weir/base/text.h>

namespace weir::route {
namespace {

constexpr size_t kHostBytesMax = 253;  // RFC 1035 2.3.4, in text form
constexpr size_t kLabelBytesMax = 63;

std::string quoted(std::string_view text) { return '"' + std::string(text) + '"'; }

bool is_alnum(char c) noexcept {
  const char lower = base::to_lower(c);
  return (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9');
}

bool is_hex(char c) noexcept {
  const char lower = base::to_lower(c);
  return (c >= '0' && c <= '9') || (lower >= 'a' && lower <= 'f');
}

// Visible ASCII.
bool is_graphic(char c) noexcept { return c > 0x20 && c < 0x7f; }

// What a header value may hold: no control bytes but tab.
bool is_field_value(std::string_view text) noexcept {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return c == '\t' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
  });
}

// Empty when good.
std::string host_fault(std::string_view host) {
  if (host == "*") return {};
  if (host.starts_with('[')) {
    const bool good =
        host.ends_with(']') && base::IpAddress::parse(host.substr(1, host.size() - 2));
    return good ? "" : "is not an IPv6 address in brackets";
  }
  if (host.ends_with('.')) host.remove_suffix(1);
  if (host.empty()) return "is empty";
  if (host.size() > kHostBytesMax) return "is longer than 253 bytes";
  if (host.starts_with("*.")) host.remove_prefix(2);
  while (true) {
    const size_t dot = host.find('.');
    const std::string_view label = host.substr(0, dot);
    if (label.empty()) return "has an empty label";
    if (label.size() > kLabelBytesMax) return "has a label longer than 63 bytes";
    for (char c : label) {
      if (c == '*') return "may hold a star only as its whole first label (\"*.example.com\")";
      if (c == ':') return "must not name a port";
      if (static_cast<unsigned char>(c) >= 0x80) return "must be written in ASCII (xn--...)";
      if (!is_alnum(c) && c != '-' && c != '_') return "holds a byte that no host name has";
    }
    if (dot == std::string_view::npos) return {};
    host.remove_prefix(dot + 1);
  }
}

// For route paths and target paths. Empty when good.
std::string path_fault(std::string_view path) {
  if (!path.starts_with('/')) return "must begin with \"/\"";
  if (path.size() > kRoutePathBytesMax) return "is longer than 8192 bytes";
  for (size_t i = 0; i < path.size(); ++i) {
    const char c = path[i];
    if (c == '?' || c == '#') return "must not hold \"?\" or \"#\"";
    if (!is_graphic(c)) return "holds a byte that must be percent-encoded";
    if (c == '%' && !(i + 2 < path.size() && is_hex(path[i + 1]) && is_hex(path[i + 2]))) {
      return "has a \"%\" without two hexadecimal digits";
    }
  }
  for (std::string_view rest = path.substr(1); !rest.empty();) {
    const size_t slash = rest.find('/');
    const std::string_view segment = rest.substr(0, slash);
    if (segment.empty()) return "has an empty segment (\"//\")";
    if (segment == "." || segment == "..") return "has a \".\" or \"..\" segment";
    rest = slash == std::string_view::npos ? std::string_view{} : rest.substr(slash + 1);
  }
  return {};
}

void check_condition(const NameValueCondition& condition, bool header, std::string_view origin,
                     ErrorList& errors) {
  const std::string what =
      (header ? "header condition " : "query condition ") + quoted(condition.name);
  const bool good_name = header ? is_token(condition.name) : !condition.name.empty();
  if (!good_name) errors.add(origin, what + (header ? " is not a header name." : " has no name."));
  const bool wants_value =
      condition.match == ValueMatch::kExact || condition.match == ValueMatch::kPrefix;
  if (wants_value != condition.value.has_value()) {
    errors.add(origin, what + (wants_value ? " needs a value." : " takes no value."));
  }
  if (header && condition.value &&
      (!is_field_value(*condition.value) || base::trim(*condition.value) != *condition.value)) {
    errors.add(origin, what + " has a value that no header can have.");
  }
}

void check_action(const ProxyAction& action, size_t upstream_count, std::string_view origin,
                  ErrorList& errors) {
  if (action.upstream >= upstream_count) {
    errors.add(origin, "The route's upstream does not exist.");
  }
  if (!action.target_path) return;
  if (std::string fault = path_fault(*action.target_path); !fault.empty()) {
    errors.add(origin, "The target path " + quoted(*action.target_path) + ' ' + fault + '.');
  }
}

void check_action(const RedirectAction& action, std::string_view origin, ErrorList& errors) {
  constexpr std::array<uint16_t, 5> kStatuses{301, 302, 303, 307, 308};
  if (std::find(kStatuses.begin(), kStatuses.end(), action.status) == kStatuses.end()) {
    errors.add(origin, "A redirect's status is 301, 302, 303, 307 or 308, not " +
                           std::to_string(action.status) + '.');
  }
  std::vector<LocationPiece> pieces;
  std::string message;
  if (!parse_location(action.location, pieces, message)) errors.add(origin, std::move(message));
}

// Fields that frame the message or belong to the connection, and Date: the server sets those.
bool is_reserved_field(std::string_view name) noexcept {
  constexpr std::array<std::string_view, 9> kReserved{
      "connection", "content-length", "date",    "keep-alive",       "proxy-connection",
      "te",         "trailer",        "upgrade", "transfer-encoding"};
  return std::any_of(kReserved.begin(), kReserved.end(), [name](std::string_view reserved) {
    return base::equals_ignore_case(name, reserved);
  });
}

void check_action(const RespondAction& action, std::string_view origin, ErrorList& errors) {
  if (action.status < 200 || action.status > 599) {
    errors.add(origin, "A response's status is between 200 and 599, not " +
                           std::to_string(action.status) + '.');
  }
  const bool bodiless = action.status == 204 || action.status == 205 || action.status == 304;
  if (bodiless && !action.body.empty()) {
    errors.add(origin,
               "A response with status " + std::to_string(action.status) + " cannot have a body.");
  }
  for (const auto& [name, value] : action.headers) {
    if (!is_token(name)) {
      errors.add(origin, quoted(name) + " is not a header name.");
    } else if (is_reserved_field(name)) {
      errors.add(origin, "The server sets the header " + quoted(name) + " itself.");
    }
    if (!is_field_value(value)) {
      errors.add(origin, "The value of the header " + quoted(name) + " holds a control byte.");
    }
  }
}

void check_action(const FileAction& action, std::string_view origin, ErrorList& errors) {
  if (!action.root.starts_with('/')) {
    errors.add(origin, "The path of the files " + quoted(action.root) + " is not absolute.");
  }
  if (!is_field_value(action.cache_control)) {
    errors.add(origin, "The value of Cache-Control holds a control byte.");
  }
  for (const std::string& name : action.index) {
    if (name.empty() || name.find('/') != std::string::npos) {
      errors.add(origin, "The index " + quoted(name) + " is not the name of a file.");
    }
  }
}

void check_action(const ConnectAction& action, size_t upstream_count, std::string_view origin,
                  ErrorList& errors) {
  for (const ConnectTarget& target : action.targets) {
    if (target.upstream >= upstream_count) {
      errors.add(origin, "The upstream of " + quoted(target.authority) + " does not exist.");
    }
  }
  if (action.targets.empty()) errors.add(origin, "CONNECT has no targets.");
}

void check_upstream(const UpstreamSpec& upstream, std::string_view origin, ErrorList& errors) {
  uint64_t weight = 0;
  for (const ServerSpec& server : upstream.servers) {
    weight += server.weight;
    if (server.resolved && server.address.length == 0) {
      errors.add(origin, "The server " + quoted(server.address_text) + " has no address.");
    }
  }
  if (upstream.servers.empty()) {
    errors.add(origin, "The upstream has no servers.");
  } else if (weight == 0) {
    errors.add(origin, "All servers of the upstream have weight 0.");
  }
  if (upstream.servers.size() > kServersMax) {
    errors.add(origin, "The upstream has more than " + std::to_string(kServersMax) + " servers.");
  }
  const HashKeySpec& key = upstream.balance.hash_key;
  const bool named =
      key.source == HashKeySpec::Source::kHeader || key.source == HashKeySpec::Source::kCookie;
  if (named && !is_token(key.name)) {
    errors.add(origin, "The hash key's name " + quoted(key.name) + " is not one.");
  }
  const std::string& host = upstream.host_header;
  if (!std::all_of(host.begin(), host.end(), is_graphic)) {
    errors.add(origin, "The host header " + quoted(host) + " holds a byte that it may not hold.");
  }
}

}  // namespace

bool is_token(std::string_view text) noexcept {
  static constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return is_alnum(c) || kMarks.find(c) != std::string_view::npos;
  });
}

void check_route(const RouteSpec& route, size_t upstream_count, ErrorList& errors) {
  const std::string_view origin = route.origin_text;
  for (const std::string& host : route.hosts) {
    if (std::string fault = host_fault(host); !fault.empty()) {
      errors.add(origin, "The host " + quoted(host) + ' ' + fault + '.');
    }
  }
  if (std::string fault = path_fault(route.path); !fault.empty()) {
    errors.add(origin, "The path " + quoted(route.path) + ' ' + fault + '.');
  }
  for (const std::string& method : route.methods) {
    if (!is_token(method)) errors.add(origin, quoted(method) + " is not a method.");
  }
  for (const auto& condition : route.headers) check_condition(condition, true, origin, errors);
  for (const auto& condition : route.query) check_condition(condition, false, origin, errors);
  if (const auto* proxy = std::get_if<ProxyAction>(&route.action)) {
    check_action(*proxy, upstream_count, origin, errors);
  } else if (const auto* redirect = std::get_if<RedirectAction>(&route.action)) {
    check_action(*redirect, origin, errors);
  } else if (const auto* respond = std::get_if<RespondAction>(&route.action)) {
    check_action(*respond, origin, errors);
  } else if (const auto* file = std::get_if<FileAction>(&route.action)) {
    check_action(*file, origin, errors);
  } else if (const auto* connect = std::get_if<ConnectAction>(&route.action)) {
    check_action(*connect, upstream_count, origin, errors);
  }
}

void check_upstreams(std::span<const UpstreamSpec> upstreams, ErrorList& errors) {
  std::unordered_set<std::string_view> names;
  std::unordered_set<uint32_t> ids;
  for (const UpstreamSpec& upstream : upstreams) {
    const std::string origin = "upstream " + upstream.name;
    if (upstream.name.empty()) errors.add(origin, "The upstream has no name.");
    if (!names.insert(upstream.name).second) errors.add(origin, "The upstream exists twice.");
    if (!ids.insert(upstream.id).second) {
      errors.add(origin, "The upstream's id " + std::to_string(upstream.id) + " is taken.");
    }
    check_upstream(upstream, origin, errors);
  }
}

}  // namespace weir::route
