#include "process_usage.h"

#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "clock.h"

namespace weir::bench {

namespace {

// The first "KEY: N kB" line of the file, in bytes.
bool read_kib_field(const std::string& path, const char* key, uint64_t& bytes) {
  std::FILE* file = std::fopen(path.c_str(), "re");
  if (file == nullptr) return false;
  char line[256];
  bool found = false;
  while (!found && std::fgets(line, sizeof line, file) != nullptr) {
    if (std::strncmp(line, key, std::strlen(key)) != 0) continue;
    bytes = std::strtoull(line + std::strlen(key), nullptr, 10) * 1024;
    found = true;
  }
  std::fclose(file);
  return found;
}

}  // namespace

bool read_cpu_ns(const std::vector<pid_t>& pids, uint64_t& total) noexcept {
  total = 0;
  for (const pid_t pid : pids) {
    clockid_t clock{};
    timespec value{};
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &value) != 0) return false;
    total +=
        static_cast<uint64_t>(value.tv_sec) * kNsPerSecond + static_cast<uint64_t>(value.tv_nsec);
  }
  return true;
}

bool read_rss_bytes(const std::vector<pid_t>& pids, uint64_t& total) {
  total = 0;
  for (const pid_t pid : pids) {
    const std::string directory = "/proc/" + std::to_string(pid);
    uint64_t bytes = 0;
    if (!read_kib_field(directory + "/smaps_rollup", "Rss:", bytes) &&
        !read_kib_field(directory + "/status", "VmRSS:", bytes)) {
      return false;
    }
    total += bytes;
  }
  return true;
}

}  // namespace weir::bench
