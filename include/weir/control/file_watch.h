// Tells when one of several files may have changed: written, or replaced as editors and
// configuration management do (a new file renamed over it, a symbolic link of the file or of a
// directory on the way switched). Watches directories by inotify(7), so that a file that vanishes
// for a moment is still watched. One descriptor for all files; control thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <weir/control/fd_reader.h>

namespace weir::control {

class FileWatch {
 public:
  // Null when inotify is not to be had, or the directory of `path` is not. `on_change` is called
  // while completions are reaped, possibly several times for one change.
  static std::unique_ptr<FileWatch> open(runtime::Reactor& reactor, const std::string& path,
                                         std::function<void()> on_change);
  // Watches these files as well, in place of those of the last call. Returns what cannot be
  // watched: no directory, or one that may not be read.
  std::vector<std::string> watch_also(const std::vector<std::string>& paths);
  void stop() noexcept { reader_->stop(); }
  [[nodiscard]] bool stopped() const noexcept { return reader_->stopped(); }

 private:
  // A name in a watched directory: what inotify speaks of.
  using Entry = std::pair<int, std::string>;
  struct File {
    std::string path;
    std::vector<Entry> entries;  // the file's own, and those of the links that lead to it
  };
  FileWatch() = default;
  bool follow(File& file);
  bool note(File& file, const std::string& directory, const std::string& name);
  void forget(File& file);
  void drop_unused();
  void on_events(std::span<const std::byte> bytes);

  int fd_ = -1;                        // the reader's
  std::map<std::string, File> files_;  // by path
  std::map<Entry, std::set<File*>> by_entry_;
  std::set<int> directories_;  // watch descriptors
  std::string first_;
  std::function<void()> on_change_;
  std::unique_ptr<FdReader> reader_;
};

}  // namespace weir::control
