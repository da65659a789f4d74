// The system calls of a FileSink: opening what a target names, writing without waiting for readers,
// shifting rotated files. Private to the log room, stateless.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <sys/types.h>

#include <weir/base/result.h>
#include <weir/log/sink.h>

namespace weir::log {

// One write of this size never waits on a pipe that poll(2) calls writable: pipe(7), PIPE_BUF.
inline constexpr size_t kPollFirstBytes = 4096;

// The error carries errno in `os`.
base::Result<OpenedTarget> open_target(const std::string& target);

// write(2) in the way that the kind needs; -1 with errno EAGAIN when a reader is slow.
ssize_t write_to(int fd, SinkKind kind, const char* data, size_t size) noexcept;

// target.(N-1) -> target.N, ..., target -> target.1; with N = 0 the target is removed.
base::Result<void> shift_files(const std::string& target, uint32_t files_max);

}  // namespace weir::log
