// From a Config to a Generation that cores can use: ids that stay the same over reloads, addresses
// of servers given by name, the routing snapshot, the settings. Control thread (or command line).
#pragma once

#include <cstdint>
#include <expected>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <weir/control/config/config.h>
#include <weir/proxy/generation.h>

namespace weir::control {

// Names -> dense ids, for the life of the process: an upstream or server that a reload leaves alone
// keeps its id, and with it its pooled connections and balancing state.
class Identities {
 public:
  uint32_t upstream(const std::string& name) { return id(upstreams_, name); }
  uint32_t endpoint(const std::string& upstream_name, const std::string& address_text) {
    return id(endpoints_, upstream_name + '\n' + address_text);
  }

 private:
  using Table = std::map<std::string, uint32_t>;
  static uint32_t id(Table& table, const std::string& key) {
    return table.try_emplace(key, static_cast<uint32_t>(table.size())).first->second;
  }
  Table upstreams_;
  Table endpoints_;
};

struct BuildResult {
  std::unique_ptr<proxy::Generation> generation;  // null when there are errors
  std::vector<std::string> errors;                // "FILE:LINE: what is wrong"
  std::vector<std::string> warnings;              // names that could not be resolved, and the like
};

struct BuildInputs {
  uint64_t epoch = 1;
  uint32_t cores = 1;
  uint64_t connections_max = 0;          // of the process; 0: none
  uint32_t open_files_max = UINT32_MAX;  // that a core keeps, whatever the configuration wants
  uint32_t pipes_max = UINT32_MAX;       // per core
  bool resolve_names = true;  // false: servers given by name stay unresolved (weir explain)
};

BuildResult build_generation(const config::Config& config, Identities& identities,
                             const BuildInputs& inputs);

}  // namespace weir::control
