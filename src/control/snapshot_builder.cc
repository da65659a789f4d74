#include <weir/control/snapshot_builder.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/control/config/lower.h>
#include <weir/control/upstream_table.h>
#include <weir/files/mime.h>

namespace weir::control {

namespace {

uint32_t ms(config::Milliseconds time) noexcept { return static_cast<uint32_t>(time.count()); }

void fill_upstreams(const config::Config& config, config::LoweredRoutes& lowered,
                    Identities& identities, const BuildInputs& inputs, BuildResult& result) {
  for (route::UpstreamSpec& spec : lowered.upstreams) {
    spec.id = identities.upstream(spec.name);
    for (route::ServerSpec& server : spec.servers) {
      server.endpoint_id = identities.endpoint(spec.name, server.address_text);
    }
  }
  result.upstreams = lowered.upstreams;
  if (inputs.table != nullptr) inputs.table->fill(config, lowered.upstreams, identities);
}

std::string errno_text(int code) { return std::generic_category().message(code); }

// A regular file of at most `bytes_max`, read to its end. False: errno says why.
bool read_regular(const std::string& path, size_t bytes_max, std::string& out) {
  // O_NONBLOCK: a FIFO must not keep us.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return false;
  struct stat found{};
  int error = ::fstat(fd, &found) == 0 ? 0 : errno;
  if (error == 0 && !S_ISREG(found.st_mode)) error = EINVAL;
  while (error == 0) {
    char block[16384];
    const ssize_t got = ::read(fd, block, sizeof block);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) error = errno;
    if (got <= 0) break;
    out.append(block, static_cast<size_t>(got));
    if (out.size() > bytes_max) error = EFBIG;
  }
  ::close(fd);
  errno = error;
  return error == 0;
}

// Never null: what the configuration says itself was checked when it was loaded.
std::shared_ptr<const files::MimeTypes> mime_types(const config::Config& config,
                                                   BuildResult& result) {
  const config::MimeSettings& mime = config.mime;
  std::vector<files::MimeOverride> overrides;
  overrides.reserve(mime.types.size());
  for (const config::MimeType& one : mime.types) overrides.push_back({one.extension, one.type});
  std::string table;
  if (!mime.system_file.empty() &&
      !read_regular(mime.system_file, files::kMimeTableBytesMax, table)) {
    const int error = errno;
    table.clear();
    const auto given = config.places.find("mime.system_file");
    // Many machines have no such file, and do not need it.
    if (given != config.places.end() || error != ENOENT) {
      const uint32_t line = given != config.places.end() ? given->second.line : 1;
      result.warnings.push_back(config.file + ":" + std::to_string(line) +
                                ": mime.system_file: " + mime.system_file + " cannot be read (" +
                                errno_text(error) + "); weir's own types are used");
    }
  }
  files::MimeSettings settings{.table = table,
                               .overrides = overrides,
                               .default_type = mime.default_type,
                               .charset = mime.charset};
  auto built = files::MimeTypes::build(settings);
  if (!built) {
    result.warnings.push_back(config.file + ": mime: " + built.error() +
                              "; weir's own types are used");
    settings.table = {};
    built = files::MimeTypes::build(settings);
  }
  if (!built) {
    result.errors.push_back(config.file + ": mime: " + built.error());
    return nullptr;
  }
  return std::make_shared<const files::MimeTypes>(std::move(*built));
}

// A directory that is not there yet may come at any time: its requests get 404 until then.
void warn_of_missing_files(const config::Config& config, BuildResult& result) {
  std::set<std::string_view> seen;
  for (const config::Route& route : config.routes) {
    const auto* action = std::get_if<route::FileAction>(&route.spec.action);
    if (action == nullptr || !seen.insert(action->root).second) continue;
    struct stat found{};
    std::string trouble;
    if (::stat(action->root.c_str(), &found) != 0) {
      trouble = errno_text(errno);
    } else if (!S_ISREG(found.st_mode) && !S_ISDIR(found.st_mode)) {
      trouble = "neither a file nor a directory";
    }
    if (trouble.empty()) continue;
    result.warnings.push_back(config.file + ":" + std::to_string(route.place.line) + ": " +
                              route.key + ": " + action->root + " cannot be served (" + trouble +
                              ")");
  }
}

void fill_file_settings(const config::Config& config, const BuildInputs& inputs,
                        BuildResult& result, proxy::Settings& settings) {
  const config::PerformanceSettings& performance = config.performance;
  settings.splice_min = performance.splice_threshold;
  settings.pipes_max = inputs.pipes_max;
  settings.files.entries_max = std::min(performance.open_file_cache_entries, inputs.open_files_max);
  settings.files.revalidate_ms = ms(performance.open_file_cache_valid);
  settings.files.memory_max = performance.file_memory;
  settings.files.content_max = performance.file_memory_max_size;
  settings.mime = mime_types(config, result);
}

proxy::Settings settings_of(const config::Config& config, const BuildInputs& inputs) {
  const config::ServerSettings& server = config.server;
  proxy::Settings settings;
  settings.header_timeout_ms = ms(server.client_header_timeout);
  settings.body_timeout_ms = ms(server.client_body_timeout);
  settings.keepalive_timeout_ms = ms(server.keepalive_timeout);
  settings.send_timeout_ms = ms(server.send_timeout);
  settings.half_close_grace_ms = ms(server.half_close_grace);
  settings.tunnel_idle_timeout_ms = ms(server.tunnel_idle_timeout);
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

uint32_t Identities::endpoint_of_name(const std::string& upstream_name, const std::string& name,
                                      const std::string& address_text) {
  std::vector<NameAddress>& known = names_[upstream_name + '\n' + name];
  auto at = std::ranges::find(known, address_text, &NameAddress::address);
  if (at == known.end() && known.size() < kNameAddressesMax) {
    known.push_back({.address = address_text,
                     .id = endpoint(upstream_name, name + '|' + std::to_string(known.size()))});
    at = known.end() - 1;
  } else if (at == known.end()) {
    at = std::ranges::min_element(known, {}, &NameAddress::asked);
    at->address = address_text;
  }
  at->asked = ++asked_;
  return at->id;
}

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
  proxy::Settings settings = settings_of(config, inputs);
  fill_file_settings(config, inputs, result, settings);
  if (!result.errors.empty()) return result;
  if (inputs.look_at_files) warn_of_missing_files(config, result);
  result.generation = std::make_unique<proxy::Generation>();
  result.generation->epoch = inputs.epoch;
  result.generation->routes = std::move(*snapshot);
  result.generation->settings = std::move(settings);
  return result;
}

}  // namespace weir::control
