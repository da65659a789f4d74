// weir run, weir check.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <unistd.h>

#include <weir/control/config/load.h>
#include <weir/control/snapshot_builder.h>
#include <weir/control/supervisor.h>
#include <weir/control/tls_state.h>
#include <weir/runtime/probe.h>
#include <weir/runtime/sys.h>

#include "cli.h"
#include "default_config.h"

namespace weir::app {

namespace config = control::config;

namespace {

void print(const config::LoadResult& loaded) {
  for (const auto& error : loaded.errors) std::fprintf(stderr, "%s\n", error.to_string().c_str());
  for (const auto& warning : loaded.warnings) {
    std::fprintf(stderr, "%s (warning)\n", warning.to_string().c_str());
  }
}

// There is no file at the default place: the embedded one is used, and written there if that is
// allowed, so that there is something to edit. Returns the file to watch, or nothing.
std::string place_default_config() {
  const std::filesystem::path path{kDefaultPath};
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  std::ofstream file;
  if (!error) file.open(path, std::ios::binary);
  file << kDefaultConfig;
  file.close();
  if (file.fail()) {
    std::fprintf(stderr,
                 "weir: no configuration at %s: using the embedded one, a welcome page on port "
                 "8080 (it cannot be written there)\n",
                 path.c_str());
    return {};
  }
  std::fprintf(stderr,
               "weir: no configuration at %s: wrote one there, a welcome page on port 8080; "
               "edit it, changes take effect at once\n",
               path.c_str());
  return path;
}

bool report_kernel(const runtime::ProbeReport& probe) {
  if (probe.usable) return true;
  std::fprintf(stderr, "weir: %s\nweir: what to do: %s\n", probe.cause.c_str(), probe.cure.c_str());
  return false;
}

// Reads the certificates and all that goes with them, as a start would. What the kernel can do is a
// matter of the machine, not of the file.
bool check_tls(const config::Config& config, const proxy::Generation& generation) {
  constexpr int64_t kMicrosecondsPerSecond = 1'000'000;
  control::FileFingerprints files;
  control::add_fingerprints(control::TlsState::files(config), files);
  control::TlsState tls(1, control::ask_nobody());
  const control::TlsPlan plan = tls.plan(config, generation.routes->upstreams(), files,
                                         runtime::sys::realtime_us() / kMicrosecondsPerSecond);
  for (const std::string& error : plan.errors) std::fprintf(stderr, "%s\n", error.c_str());
  for (const std::string& warning : plan.warnings) {
    std::fprintf(stderr, "%s (warning)\n", warning.c_str());
  }
  return plan.errors.empty();
}

}  // namespace

int command_run(const Arguments& arguments) {
  const runtime::ProbeReport probe = runtime::probe_kernel();
  if (!report_kernel(probe)) return control::kExitFailed;
  std::string file = arguments.file;
  const bool missing = !arguments.file_given && access(file.c_str(), F_OK) != 0 && errno == ENOENT;
  if (missing) file = place_default_config();
  config::LoadResult loaded = file.empty()
                                  ? config::parse_config(kDefaultConfig, "(embedded configuration)")
                                  : config::load_config(file);
  print(loaded);
  if (!loaded.ok()) {
    std::fprintf(stderr, "weir: not started: %zu error%s in %s\n", loaded.errors.size(),
                 loaded.errors.size() == 1 ? "" : "s", file.c_str());
    return control::kExitFailed;
  }
  control::Supervisor supervisor(std::move(loaded.config), file, probe);
  return supervisor.run();
}

int command_check(const Arguments& arguments) {
  const config::LoadResult loaded = config::load_config(arguments.file);
  print(loaded);
  if (!loaded.ok()) return control::kExitFailed;
  control::Identities identities;
  const control::BuildResult built = control::build_generation(loaded.config, identities, {});
  for (const std::string& error : built.errors) std::fprintf(stderr, "%s\n", error.c_str());
  for (const std::string& warning : built.warnings) {
    std::fprintf(stderr, "%s (warning)\n", warning.c_str());
  }
  if (!built.generation || !check_tls(loaded.config, *built.generation)) {
    return control::kExitFailed;
  }
  std::printf("%s: good: %zu listener%s, %zu upstream%s, %zu route%s\n", arguments.file.c_str(),
              loaded.config.listeners.size(), loaded.config.listeners.size() == 1 ? "" : "s",
              loaded.config.upstreams.size(), loaded.config.upstreams.size() == 1 ? "" : "s",
              loaded.config.routes.size(), loaded.config.routes.size() == 1 ? "" : "s");
  return control::kExitEnded;
}

}  // namespace weir::app
