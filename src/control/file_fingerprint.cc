#include <weir/control/file_fingerprint.h>

#include <array>
#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/base/hash.h>
#include <weir/net/tls/secret.h>

namespace weir::control {

namespace {

void note(const struct stat& info, FileFingerprint& out) noexcept {
  out.inode = info.st_ino;
  out.size = info.st_size;
  out.changed_s = info.st_ctim.tv_sec;
  out.changed_ns = info.st_ctim.tv_nsec;
}

bool same_file(const FileFingerprint& a, const FileFingerprint& b) noexcept {
  return a.inode == b.inode && a.size == b.size && a.changed_s == b.changed_s &&
         a.changed_ns == b.changed_ns;
}

// Among the files are private keys: what was read of them is wiped.
uint64_t hash_content(int fd) noexcept {
  std::array<char, 16 * 1024> block;
  uint64_t hash = base::fnv1a({});
  for (uint64_t total = 0; total < kFingerprintBytesMax;) {
    const ssize_t got = ::read(fd, block.data(), block.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    hash = base::fnv1a({block.data(), static_cast<size_t>(got)}, hash);
    total += static_cast<uint64_t>(got);
  }
  net::tls::wipe(block.data(), block.size());
  return hash;
}

}  // namespace

FileFingerprint fingerprint(const std::string& path) {
  FileFingerprint result;
  struct stat info{};
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) {
    const bool missing = errno == ENOENT || errno == ENOTDIR;
    result.state = missing ? FileFingerprint::State::kMissing : FileFingerprint::State::kDenied;
    if (!missing && ::stat(path.c_str(), &info) == 0) note(info, result);
    return result;
  }
  result.state = FileFingerprint::State::kRead;
  if (::fstat(fd, &info) == 0) {
    note(info, result);
    const bool sensible =
        S_ISREG(info.st_mode) && static_cast<uint64_t>(info.st_size) <= kFingerprintBytesMax;
    if (sensible) result.content = hash_content(fd);
  }
  ::close(fd);
  return result;
}

bool unchanged(const FileFingerprint& before, const FileFingerprint& now) noexcept {
  using State = FileFingerprint::State;
  if (now.state == State::kMissing) return before.state == State::kMissing;
  if (now.state == State::kDenied) {
    const bool unknown = now.inode == 0;
    return before.state != State::kMissing && (unknown || same_file(before, now));
  }
  if (before.state != State::kRead) return false;
  return now.content != 0 ? before.content == now.content : same_file(before, now);
}

void add_fingerprints(const std::vector<std::string>& paths, FileFingerprints& known) {
  for (const std::string& path : paths) {
    if (!known.contains(path)) known.emplace(path, fingerprint(path));
  }
}

}  // namespace weir::control
