// Tells when a file may have changed: written, or replaced as editors and configuration management
// do (a new file renamed over it, a symbolic link switched). Watches directories by inotify(7), so
// that a file that vanishes for a moment is still watched.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>

#include <weir/control/fd_reader.h>

namespace weir::control {

class FileWatch {
 public:
  // Null when inotify is not to be had. `on_change` is called while completions are reaped,
  // possibly several times for one change.
  static std::unique_ptr<FileWatch> open(runtime::Reactor& reactor, const std::string& path,
                                         std::function<void()> on_change);
  void stop() noexcept { reader_->stop(); }
  [[nodiscard]] bool stopped() const noexcept { return reader_->stopped(); }

 private:
  FileWatch() = default;
  bool follow(int fd);
  void on_events(std::span<const std::byte> bytes);

  std::string path_;
  std::set<std::string> names_;  // the file's, and those of the links that lead to it
  std::function<void()> on_change_;
  std::unique_ptr<FdReader> reader_;
};

}  // namespace weir::control
