#include <weir/control/file_watch.h>

#include <cstring>
#include <filesystem>

#include <sys/inotify.h>
#include <unistd.h>

namespace weir::control {

namespace fs = std::filesystem;

namespace {
constexpr uint32_t kEvents = IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_ATTRIB | IN_MOVE_SELF;
constexpr int kLinksMax = 8;
}  // namespace

std::unique_ptr<FileWatch> FileWatch::open(runtime::Reactor& reactor, const std::string& path,
                                           std::function<void()> on_change) {
  const int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (fd < 0) return nullptr;
  std::unique_ptr<FileWatch> watch(new FileWatch());
  watch->path_ = path;
  watch->on_change_ = std::move(on_change);
  if (!watch->follow(fd)) {
    ::close(fd);
    return nullptr;
  }
  FileWatch* self = watch.get();
  watch->reader_ = std::make_unique<FdReader>(
      reactor, fd, [self](std::span<const std::byte> bytes) { self->on_events(bytes); });
  return watch;
}

// Watches the directories of the file and of each link on the way to it. Adding one that is already
// watched changes nothing; those of links that were switched stay, and go with their directory.
bool FileWatch::follow(int fd) {
  std::error_code error;
  fs::path at = fs::absolute(path_, error);
  bool watching = false;
  names_.clear();
  for (int i = 0; i < kLinksMax && !at.empty(); ++i) {
    watching |= inotify_add_watch(fd, at.parent_path().c_str(), kEvents) >= 0;
    names_.insert(at.filename());
    if (!fs::is_symlink(at, error)) break;
    const fs::path target = fs::read_symlink(at, error);
    if (error) break;
    at = target.is_absolute() ? target : at.parent_path() / target;
    // Mounted configuration switches a link of a directory on the way ("..data").
    if (target.has_parent_path()) names_.insert(*target.begin());
  }
  return watching;
}

void FileWatch::on_events(std::span<const std::byte> bytes) {
  bool changed = false;
  while (bytes.size() >= sizeof(inotify_event)) {
    inotify_event event;
    std::memcpy(&event, bytes.data(), sizeof event);
    const size_t whole = sizeof event + event.len;
    if (whole > bytes.size()) break;
    if (event.len > 0) {
      const char* name = reinterpret_cast<const char*>(bytes.data()) + sizeof event;
      changed |= names_.contains(std::string(name, strnlen(name, event.len)));
    }
    bytes = bytes.subspan(whole);
  }
  if (!changed) return;
  follow(reader_->fd());  // a link may lead elsewhere now
  on_change_();
}

}  // namespace weir::control
