// The hosts file (hosts(5)) by name, read again when it has changed. Control thread; at most
// kHostsBytesMax of it are read, so that nothing a file may hold keeps the thread for long.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include <sys/stat.h>

#include <weir/base/ip.h>

namespace weir::control {

inline constexpr size_t kHostsBytesMax = size_t{8} << 20;

class HostsFile {
 public:
  explicit HostsFile(std::string path) : path_(std::move(path)) {}
  // In the file's order; empty: the file does not name it. `name` is of to_host_name().
  const std::vector<base::IpAddress>& find(const std::string& name);

 private:
  void refresh();
  void read();
  void add_line(std::string_view line);

  std::string path_;
  struct stat seen_{};
  std::unordered_map<std::string, std::vector<base::IpAddress>> by_name_;
  std::vector<base::IpAddress> none_;
};

}  // namespace weir::control
