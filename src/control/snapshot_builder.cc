#include <weir/control/snapshot_builder.h>

#include <algorithm>
#include <cstring>
#include <set>

#include <netdb.h>

#include <weir/control/config/lower.h>

namespace weir::control {

namespace {

uint32_t ms(config::Milliseconds time) noexcept { return static_cast<uint32_t>(time.count()); }

// getaddrinfo(3): /etc/hosts and the system's resolver. It may take seconds, on control's thread
// only, and an answer is kept until the next reload.
bool resolve(const config::UpstreamServer& server, base::SocketAddress& out, std::string& error) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(server.port);
  const int status = getaddrinfo(server.host.c_str(), port.c_str(), &hints, &found);
  if (status != 0 && (server.host == "localhost" || server.host.ends_with(".localhost"))) {
    // RFC 6761 6.3: always the loopback, also where no /etc/hosts says so.
    out = base::SocketAddress::from_ip(base::IpAddress::from_v4(INADDR_LOOPBACK), server.port);
    return true;
  }
  if (status != 0) {
    error = gai_strerror(status);
    return false;
  }
  // IPv4 first: "localhost" is ::1 first on many systems, and most servers listen on 127.0.0.1.
  const addrinfo* best = found;
  for (const addrinfo* it = found; it != nullptr; it = it->ai_next) {
    if (it->ai_family == AF_INET) {
      best = it;
      break;
    }
  }
  std::memcpy(&out.un, best->ai_addr, best->ai_addrlen);
  out.length = best->ai_addrlen;
  freeaddrinfo(found);
  return true;
}

void fill_upstreams(const config::Config& config, config::LoweredRoutes& lowered,
                    Identities& identities, const BuildInputs& inputs, BuildResult& result) {
  for (size_t i = 0; i < lowered.upstreams.size(); ++i) {
    route::UpstreamSpec& spec = lowered.upstreams[i];
    const config::Upstream& upstream = config.upstreams[i];
    spec.id = identities.upstream(spec.name);
    std::set<uint32_t> seen;
    for (size_t k = 0; k < spec.servers.size(); ++k) {
      route::ServerSpec& server = spec.servers[k];
      server.endpoint_id = identities.endpoint(spec.name, server.address_text);
      if (server.resolved || !inputs.resolve_names) continue;
      std::string error;
      server.resolved = resolve(upstream.servers[k], server.address, error);
      if (server.resolved) continue;
      result.warnings.push_back(config.file + ":" + std::to_string(upstream.servers[k].place.line) +
                                ": upstream " + spec.name + ": " + server.address_text +
                                " cannot be resolved (" + error + "); it takes no requests");
    }
  }
}

proxy::Settings settings_of(const config::Config& config, const BuildInputs& inputs) {
  const config::ServerSettings& server = config.server;
  proxy::Settings settings;
  settings.header_timeout_ms = ms(server.client_header_timeout);
  settings.body_timeout_ms = ms(server.client_body_timeout);
  settings.keepalive_timeout_ms = ms(server.keepalive_timeout);
  settings.send_timeout_ms = ms(server.send_timeout);
  settings.half_close_grace_ms = ms(server.half_close_grace);
  settings.max_requests_per_connection = server.max_requests_per_connection;
  settings.connections_max = static_cast<uint32_t>(
      std::min<uint64_t>(UINT32_MAX, (inputs.connections_max + inputs.cores - 1) / inputs.cores));
  settings.head_limits.head_bytes_max = server.max_header_size;
  settings.head_limits.request_line_bytes_max = server.max_request_line;
  settings.head_limits.fields_max = static_cast<uint16_t>(server.max_header_fields);
  settings.x_forwarded = server.x_forwarded;
  settings.forwarded = server.forwarded;
  settings.access_log = config.logging.access_log != "off";
  settings.client_cert_headers = config.tls.client_cert_headers;
  settings.via = server.via;
  settings.server = server.server_header;
  settings.trusted_proxies = config.security.trusted_proxies;
  return settings;
}

}  // namespace

BuildResult build_generation(const config::Config& config, Identities& identities,
                             const BuildInputs& inputs) {
  BuildResult result;
  config::LoweredRoutes lowered = config::lower_routes(config);
  fill_upstreams(config, lowered, identities, inputs, result);
  auto snapshot =
      route::build_snapshot(lowered.routes, std::move(lowered.upstreams), {.epoch = inputs.epoch});
  if (!snapshot) {
    for (const route::BuildError& error : snapshot.error()) {
      result.errors.push_back(error.origin + ": " + error.message);
    }
    return result;
  }
  result.generation = std::make_unique<proxy::Generation>();
  result.generation->epoch = inputs.epoch;
  result.generation->routes = std::move(*snapshot);
  result.generation->settings = settings_of(config, inputs);
  return result;
}

}  // namespace weir::control
