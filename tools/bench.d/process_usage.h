// What the processes of the proxy under test have used: CPU time and resident memory. Read by the
// load generator itself at its marks, so that no third process has to wake up in time.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace weir::bench {

// CPU time of all threads, living and ended, kernel workers of io_uring among them, to the
// nanosecond (the process CPU clock: what schedstat shows, brought up to date on reading). False
// when one of the processes is gone.
[[nodiscard]] bool read_cpu_ns(const std::vector<pid_t>& pids, uint64_t& total) noexcept;

// Resident bytes from smaps_rollup (exact; VmRSS lags by up to 32 pages for each CPU), or VmRSS
// where the kernel has no smaps_rollup.
[[nodiscard]] bool read_rss_bytes(const std::vector<pid_t>& pids, uint64_t& total);

}  // namespace weir::bench
