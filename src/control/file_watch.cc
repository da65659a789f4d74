#include <weir/control/file_watch.h>

#include <cstring>
#include <deque>
#include <filesystem>

#include <sys/inotify.h>
#include <unistd.h>

namespace weir::control {

namespace fs = std::filesystem;

namespace {
constexpr uint32_t kEvents = IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_ATTRIB | IN_MOVE_SELF;
constexpr int kLinksMax = 40;  // as many as the kernel follows
}  // namespace

std::unique_ptr<FileWatch> FileWatch::open(runtime::Reactor& reactor, const std::string& path,
                                           std::function<void()> on_change) {
  const int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (fd < 0) return nullptr;
  std::unique_ptr<FileWatch> watch(new FileWatch());
  watch->fd_ = fd;
  watch->first_ = path;
  watch->on_change_ = std::move(on_change);
  File& file = watch->files_[path];
  file.path = path;
  if (!watch->follow(file)) {
    ::close(fd);
    return nullptr;
  }
  FileWatch* self = watch.get();
  watch->reader_ = std::make_unique<FdReader>(
      reactor, fd, [self](std::span<const std::byte> bytes) { self->on_events(bytes); });
  return watch;
}

std::vector<std::string> FileWatch::watch_also(const std::vector<std::string>& paths) {
  std::set<std::string> wanted(paths.begin(), paths.end());
  wanted.insert(first_);
  for (auto it = files_.begin(); it != files_.end();) {
    if (!wanted.contains(it->first)) forget(it->second);
    it = wanted.contains(it->first) ? std::next(it) : files_.erase(it);
  }
  std::vector<std::string> failed;
  for (const std::string& path : wanted) {
    File& file = files_[path];
    file.path = path;
    if (!follow(file) && path != first_) failed.push_back(path);
  }
  drop_unused();
  return failed;
}

void FileWatch::forget(File& file) {
  for (const Entry& entry : file.entries) {
    const auto found = by_entry_.find(entry);
    if (found == by_entry_.end()) continue;
    found->second.erase(&file);
    if (found->second.empty()) by_entry_.erase(found);
  }
  file.entries.clear();
}

// A directory that is watched already keeps its watch descriptor.
bool FileWatch::note(File& file, const std::string& directory, const std::string& name) {
  const int watched = inotify_add_watch(fd_, directory.c_str(), kEvents);
  if (watched < 0) return false;
  directories_.insert(watched);
  Entry entry(watched, name);
  by_entry_[entry].insert(&file);
  file.entries.push_back(std::move(entry));
  return true;
}

// Walks the path as the kernel does, and watches the directory of the file and of each link on the
// way to it (mounted configuration switches a link of a directory, "..data").
bool FileWatch::follow(File& file) {
  std::error_code error;
  const fs::path whole = fs::absolute(file.path, error);
  std::deque<fs::path> rest(whole.begin(), whole.end());
  forget(file);
  fs::path at = "/";
  bool watching = false;
  for (int links = 0; !rest.empty();) {
    const fs::path name = std::move(rest.front());
    rest.pop_front();
    if (name.empty() || name == "." || name == "/") continue;
    if (name == "..") {
      at = at.parent_path();
      continue;
    }
    const bool link = fs::is_symlink(at / name, error);
    const bool last = rest.empty();
    if (link || last) watching |= note(file, at, name);
    if (!link) {
      at /= name;
      continue;
    }
    const fs::path target = fs::read_symlink(at / name, error);
    if (error || ++links > kLinksMax) break;
    if (target.is_absolute()) at = "/";
    rest.insert(rest.begin(), target.begin(), target.end());
  }
  return watching;
}

// Directories in which no file is left.
void FileWatch::drop_unused() {
  for (auto it = directories_.begin(); it != directories_.end();) {
    const auto first = by_entry_.lower_bound(Entry(*it, std::string()));
    if (first != by_entry_.end() && first->first.first == *it) {
      ++it;
      continue;
    }
    inotify_rm_watch(fd_, *it);
    it = directories_.erase(it);
  }
}

void FileWatch::on_events(std::span<const std::byte> bytes) {
  std::set<File*> changed;
  bool lost = false;
  while (bytes.size() >= sizeof(inotify_event)) {
    inotify_event event;
    std::memcpy(&event, bytes.data(), sizeof event);
    const size_t whole = sizeof event + event.len;
    if (whole > bytes.size()) break;
    if ((event.mask & IN_Q_OVERFLOW) != 0) lost = true;
    if ((event.mask & (IN_IGNORED | IN_MOVE_SELF)) != 0) {
      // A directory of the way has gone, or goes by another name: another may be in its place.
      for (auto at = by_entry_.lower_bound(Entry(event.wd, std::string()));
           at != by_entry_.end() && at->first.first == event.wd; ++at) {
        changed.insert(at->second.begin(), at->second.end());
      }
      if ((event.mask & IN_IGNORED) != 0) directories_.erase(event.wd);
    }
    if (event.len > 0) {
      const char* name = reinterpret_cast<const char*>(bytes.data()) + sizeof event;
      const auto found = by_entry_.find({event.wd, std::string(name, strnlen(name, event.len))});
      if (found != by_entry_.end()) changed.insert(found->second.begin(), found->second.end());
    }
    bytes = bytes.subspan(whole);
  }
  if (changed.empty() && !lost) return;
  for (File* file : changed) follow(*file);  // a link may lead elsewhere now
  on_change_();
}

}  // namespace weir::control
