// Which changes a reload cannot bring about.
#include <string>
#include <vector>

#include <weir/control/config/config.h>
#include <weir/control/config/schema.h>

namespace weir::control::config {

namespace {

void compare(std::string_view section_name, const std::string& prefix, const void* a, const void* b,
             std::vector<std::string>& out) {
  for (const Setting& setting : section(section_name).settings) {
    if (setting.restart && !setting.same(a, b)) out.push_back(prefix + std::string(setting.key));
  }
}

}  // namespace

std::vector<std::string> restart_needed(const Config& running, const Config& next) {
  std::vector<std::string> result;
  for (size_t i = 0; i < next.listeners.size(); ++i) {
    for (const Listener& old : running.listeners) {
      if (!(old.address == next.listeners[i].address)) continue;
      const std::string name = "listener[" + std::to_string(i) + "].";
      compare("listener", name, &old, &next.listeners[i], result);
      break;
    }
  }
  compare("server", "server.", &running.server, &next.server, result);
  compare("logging", "logging.", &running.logging, &next.logging, result);
  compare("performance", "performance.", &running.performance, &next.performance, result);
  compare("security", "security.", &running.security, &next.security, result);
  compare("control", "control.", &running.control, &next.control, result);
  return result;
}

}  // namespace weir::control::config
