// weir explain: the walk that a request would take through the routes, for people.
#include <cstdio>
#include <vector>

#include <weir/base/text.h>
#include <weir/control/config/load.h>
#include <weir/control/snapshot_builder.h>
#include <weir/control/supervisor.h>
#include <weir/http/uri.h>
#include <weir/route/match.h>

#include "cli.h"

namespace weir::app {

namespace {

struct Target {
  std::string scheme = "http";
  std::string host;
  std::string path;
  std::string query;
};

// "http://host/path?query", or "/path?query" for a request without a host of its own.
std::expected<Target, std::string> split_url(std::string_view url) {
  Target target;
  const size_t question = url.find('?');
  if (question != std::string_view::npos) target.query = url.substr(question + 1);
  url = url.substr(0, question);
  std::string_view raw_path = url;
  if (!url.starts_with('/')) {
    const auto parsed = http::parse_url(url);
    if (!parsed)
      return std::unexpected("not a URL: \"" + std::string(url) + "\" (http://host/path or /path)");
    target.scheme = parsed->scheme;
    std::vector<char> scratch(parsed->host.size() + 1);
    target.host = http::lowercase_host(parsed->host, scratch);
    raw_path = parsed->path;
  }
  std::vector<char> scratch(raw_path.size() + 1);
  const auto path = http::normalise_path(raw_path, scratch);
  if (!path) return std::unexpected("weir would answer 400: the path cannot be normalised");
  target.path = path->path;
  return target;
}

using Headers = std::vector<std::pair<std::string, std::string>>;

bool find_header(const void* context, std::string_view name, uint32_t& cursor,
                 std::string_view& value) {
  const auto& headers = *static_cast<const Headers*>(context);
  for (; cursor < headers.size(); ++cursor) {
    if (!base::equals_ignore_case(headers[cursor].first, name)) continue;
    value = headers[cursor++].second;
    return true;
  }
  return false;
}

}  // namespace

int command_explain(const Arguments& arguments) {
  const auto loaded = control::config::load_config(arguments.file);
  for (const auto& error : loaded.errors) std::fprintf(stderr, "%s\n", error.to_string().c_str());
  if (!loaded.ok()) return control::kExitFailed;
  control::Identities identities;
  control::BuildInputs inputs;
  inputs.look_at_files = false;
  const auto built = control::build_generation(loaded.config, identities, inputs);
  for (const std::string& error : built.errors) std::fprintf(stderr, "%s\n", error.c_str());
  if (!built.generation) return control::kExitFailed;
  auto target = split_url(arguments.url);
  if (!target) {
    std::fprintf(stderr, "weir: %s\n", target.error().c_str());
    return control::kExitFailed;
  }
  for (const auto& [name, value] : arguments.headers) {
    if (!base::equals_ignore_case(name, "host")) continue;
    std::string_view host;
    std::string_view port;
    if (http::split_host_port(value, host, port)) target->host = base::lowercase(host);
  }
  const auto client =
      base::IpAddress::parse(arguments.client.empty() ? "127.0.0.1" : arguments.client);
  const route::RequestView request{
      .host = target->host,
      .path = target->path,
      .query = target->query,
      .method = arguments.method,
      .client = &*client,
      .scheme = target->scheme,
      .headers = {.context = &arguments.headers, .find = &find_header}};
  const auto explanation = route::explain(*built.generation->routes, request);
  std::fputs(route::to_text(explanation).c_str(), stdout);
  return explanation.route != nullptr ? control::kExitEnded : control::kExitFailed;
}

}  // namespace weir::app
