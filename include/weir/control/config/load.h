// From a TOML file to a Config, or to every fault of it at once. Called by the control thread and
// by the command line tools, never on a core: it reads files (the configuration, and the keys of
// sticky sessions) and allocates freely. It opens no socket and resolves no name.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <weir/control/config/config.h>

namespace weir::control::config {

// Larger files are refused: 100,000 routes take about 7 MB.
inline constexpr size_t kFileBytesMax = size_t{64} << 20;

struct Diagnostic {
  std::string file;
  Place place{1, 1};
  std::string key;  // dotted: "upstream.api.servers[1].weight", counted from 0; empty: whole file
  std::string message;

  // "FILE:LINE:COL: KEY: what is wrong"
  [[nodiscard]] std::string to_string() const;
};

// The value of an environment variable; empty where it is not set.
using EnvironmentLookup = std::function<std::optional<std::string>(std::string_view name)>;
EnvironmentLookup process_environment();

struct LoadResult {
  Config config;                     // meaningful only without errors
  std::vector<Diagnostic> errors;    // in the order of the file
  std::vector<Diagnostic> warnings;  // likewise

  [[nodiscard]] bool ok() const noexcept { return errors.empty(); }
};

LoadResult load_config(const std::string& path,
                       const EnvironmentLookup& environment = process_environment());

// The same for text that is already in memory; `name` stands for the file in messages.
LoadResult parse_config(std::string_view text, std::string name,
                        const EnvironmentLookup& environment = process_environment());

}  // namespace weir::control::config
