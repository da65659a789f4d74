// Command line of the load generator. Parsed once by main, before anything else runs.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace weir::bench {

enum class Mode : uint8_t { kRun, kIdle, kOrigin };

struct Options {
  Mode mode = Mode::kRun;
  uint16_t origin_port = 0;
  uint16_t target_port = 0;  // the proxy
  uint16_t second_port = 0;  // of another proxy, for every other connection; 0: none
  size_t connections = 64;
  uint64_t body_bytes = 128;
  double seconds = 1.5;
  double warm_seconds = 0.3;
  bool connection_per_request = false;
  bool tls = false;     // the clients speak it
  bool resume = false;  // ... and resume their sessions
  bool sleep = false;   // modes run and origin: may sleep in epoll_wait
  int cpu = -1;         // pinned to it unless negative
  std::vector<pid_t> pids;
};

extern const char* const kUsage;

// True when the arguments make sense; otherwise `error` says what does not.
[[nodiscard]] bool parse_options(int argc, char** argv, Options& options, std::string& error);

}  // namespace weir::bench
