#include "resolver_hosts.h"

#include <algorithm>
#include <cerrno>
#include <string_view>

#include <fcntl.h>
#include <unistd.h>

#include "resolver_answer.h"

namespace weir::control {

const std::vector<base::IpAddress>& HostsFile::find(const std::string& name) {
  refresh();
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? none_ : found->second;
}

void HostsFile::refresh() {
  struct stat now{};
  if (::stat(path_.c_str(), &now) != 0 || !S_ISREG(now.st_mode)) now = {};
  const bool same =
      now.st_ino == seen_.st_ino && now.st_dev == seen_.st_dev && now.st_size == seen_.st_size &&
      now.st_mtim.tv_sec == seen_.st_mtim.tv_sec && now.st_mtim.tv_nsec == seen_.st_mtim.tv_nsec &&
      now.st_ctim.tv_sec == seen_.st_ctim.tv_sec && now.st_ctim.tv_nsec == seen_.st_ctim.tv_nsec;
  if (same) return;
  seen_ = now;
  by_name_.clear();
  if (now.st_size > 0) read();
}

void HostsFile::read() {
  const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return;
  std::string text;
  char block[16384];
  while (text.size() < kHostsBytesMax) {
    const ssize_t got = ::read(fd, block, sizeof block);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    text.append(block, static_cast<size_t>(got));
  }
  ::close(fd);
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    add_line(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
}

void HostsFile::add_line(std::string_view line) {
  line = line.substr(0, line.find('#'));
  std::optional<base::IpAddress> address;
  while (true) {
    line.remove_prefix(std::min(line.find_first_not_of(" \t\r"), line.size()));
    if (line.empty()) return;
    const std::string_view word = line.substr(0, line.find_first_of(" \t\r"));
    line.remove_prefix(word.size());
    if (!address) {
      address = base::IpAddress::parse(word);
      if (!address) return;  // also "fe80::1%lo0": of no use without its link
      continue;
    }
    const std::string name = to_host_name(word);
    if (name.empty()) continue;
    std::vector<base::IpAddress>& known = by_name_[name];
    if (std::ranges::find(known, *address) == known.end()) known.push_back(*address);
  }
}

}  // namespace weir::control
