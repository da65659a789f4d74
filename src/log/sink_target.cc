#include "sink_target.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace weir::log {

namespace {

std::unexpected<base::Error> os_failure() noexcept { return base::fail(base::from_errno(errno)); }

// stdout and stderr are shared with other processes, so O_NONBLOCK must not be set on them: what a
// name in /proc opens is a description of our own. Where that is refused (another user's terminal
// after privileges were dropped), poll(2) before each small write does nearly as well.
base::Result<OpenedTarget> open_standard(int standard_fd) {
  struct stat info;
  if (::fstat(standard_fd, &info) != 0) return os_failure();
  OpenedTarget opened;
  opened.kind = S_ISSOCK(info.st_mode) ? SinkKind::kSocket : SinkKind::kFile;
  if (S_ISFIFO(info.st_mode) || S_ISCHR(info.st_mode)) {
    char name[32];
    std::snprintf(name, sizeof(name), "/proc/self/fd/%d", standard_fd);
    opened.kind = SinkKind::kNonBlocking;
    opened.fd = ::open(name, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (opened.fd >= 0) return opened;
    opened.kind = SinkKind::kPollFirst;
  }
  opened.fd = ::fcntl(standard_fd, F_DUPFD_CLOEXEC, 3);
  if (opened.fd < 0) return os_failure();
  return opened;
}

std::string numbered(const std::string& target, uint32_t number) {
  return target + '.' + std::to_string(number);
}

}  // namespace

base::Result<OpenedTarget> open_target(const std::string& target) {
  if (target == "stdout") return open_standard(STDOUT_FILENO);
  if (target == "stderr") return open_standard(STDERR_FILENO);
  OpenedTarget opened;
  // O_NONBLOCK means nothing to a regular file, and keeps a pipe without a reader from stopping us.
  opened.fd = ::open(target.c_str(),
                     O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0640);
  if (opened.fd < 0) return os_failure();
  struct stat info;
  if (::fstat(opened.fd, &info) != 0) {
    const auto error = os_failure();
    ::close(opened.fd);
    return error;
  }
  opened.rotatable = S_ISREG(info.st_mode);
  opened.kind = opened.rotatable ? SinkKind::kFile : SinkKind::kNonBlocking;
  if (opened.rotatable) opened.size = static_cast<uint64_t>(info.st_size);
  return opened;
}

ssize_t write_to(int fd, SinkKind kind, const char* data, size_t size) noexcept {
  switch (kind) {
    case SinkKind::kFile:
    case SinkKind::kNonBlocking: return ::write(fd, data, size);
    case SinkKind::kSocket: return ::send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    case SinkKind::kPollFirst: {
      pollfd ready{.fd = fd, .events = POLLOUT, .revents = 0};
      const int count = ::poll(&ready, 1, 0);
      if (count < 0) return -1;
      if (count == 0) {
        errno = EAGAIN;
        return -1;
      }
      return ::write(fd, data, std::min(size, kPollFirstBytes));
    }
  }
  errno = EINVAL;
  return -1;
}

base::Result<void> shift_files(const std::string& target, uint32_t files_max) {
  if (files_max == 0) {
    if (::unlink(target.c_str()) != 0 && errno != ENOENT) return os_failure();
    return {};
  }
  for (uint32_t number = files_max; number > 0; --number) {
    const std::string from = number == 1 ? target : numbered(target, number - 1);
    if (::rename(from.c_str(), numbered(target, number).c_str()) != 0 && errno != ENOENT) {
      return os_failure();
    }
  }
  return {};
}

}  // namespace weir::log
