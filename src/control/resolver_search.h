// The search list of resolv.conf(5), and how many dots make a name be asked for as it is first.
// c-ares reads both, but does not tell: 1.34 (Debian 13) gives back only what its caller has set.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace weir::control {

struct SearchList {
  std::vector<std::string> domains;  // of to_host_name()
  size_t ndots = 1;
};

// A file that cannot be read is an empty one. LOCALDOMAIN and RES_OPTIONS of the environment count
// more; without any list it is the domain of the host's own name.
SearchList read_search_list(const std::string& path);

}  // namespace weir::control
