// From a Config to a Generation that cores can use: ids that stay the same over reloads, the
// servers of upstreams as they are known, the routing snapshot, the settings. Control thread (or
// command line). Nothing here waits for anybody.
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
  // Of one address of a name. Those that a name has had may be any number in the long run: of the
  // last kNameAddressesMax the ids are kept, and one that was not asked for any longer is used
  // again, for the same name.
  static constexpr size_t kNameAddressesMax = 256;
  uint32_t endpoint_of_name(const std::string& upstream_name, const std::string& name,
                            const std::string& address_text);

 private:
  struct NameAddress {
    std::string address;
    uint32_t id = 0;
    uint64_t asked = 0;  // the greater the later
  };
  using Table = std::map<std::string, uint32_t>;
  static uint32_t id(Table& table, const std::string& key) {
    return table.try_emplace(key, static_cast<uint32_t>(table.size())).first->second;
  }
  Table upstreams_;
  Table endpoints_;
  std::map<std::string, std::vector<NameAddress>> names_;
  uint64_t asked_ = 0;
};

struct BuildResult {
  std::unique_ptr<proxy::Generation> generation;  // null when there are errors
  std::vector<std::string> errors;                // "FILE:LINE: what is wrong"
  std::vector<std::string> warnings;              // files that are not there, and the like
  // As the configuration has them, with ids, names without their addresses.
  std::vector<route::UpstreamSpec> upstreams;
};

class UpstreamTable;

struct BuildInputs {
  uint64_t epoch = 1;
  uint32_t cores = 1;
  uint64_t connections_max = 0;          // of the process; 0: none
  uint32_t open_files_max = UINT32_MAX;  // that a core keeps, whatever the configuration wants
  uint32_t pipes_max = UINT32_MAX;       // per core
  // What is known of servers; null: servers given by name stay unresolved, and so do all states.
  const UpstreamTable* table = nullptr;
  bool look_at_files = true;  // false: none is looked for (weir explain)
};

BuildResult build_generation(const config::Config& config, Identities& identities,
                             const BuildInputs& inputs);

}  // namespace weir::control
