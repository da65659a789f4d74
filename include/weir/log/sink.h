// Where log lines go: a file (rotated by size, reopened on demand), stdout or stderr. Control's
// thread only. Lines are batched; writing to a regular file may wait for the disk, writing to a
// pipe, terminal or socket never waits: lines queue up to a bound, beyond it they are lost and
// counted. The process must ignore SIGPIPE.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <sys/types.h>

#include <weir/base/result.h>

namespace weir::log {

struct SinkOptions {
  std::string target = "stderr";  // "stdout", "stderr" or a path
  uint64_t size_bytes_max = 0;    // a file is rotated rather than grown beyond it; 0: never
  uint32_t files_max = 5;         // rotated files kept: target.1 (newest) .. target.N
  size_t pending_bytes_max = 4 * 1024 * 1024;  // queued for a reader that does not read
};

struct SinkCounters {
  uint64_t bytes_written = 0;
  uint64_t writes = 0;  // write(2) calls that moved bytes
  uint64_t lines_lost = 0;
  uint64_t rotations = 0;
  uint64_t rotations_failed = 0;
};

// Lines lost between the first failure and the return to normal. errno is EAGAIN when the reader
// was too slow.
struct SinkLoss {
  uint64_t lines = 0;
  int os = 0;
};

// How a target is written to: a pipe and a terminal need O_NONBLOCK, a socket MSG_DONTWAIT, and
// what could not be opened anew is polled first.
enum class SinkKind : uint8_t { kFile, kNonBlocking, kSocket, kPollFirst };
struct OpenedTarget {
  int fd = -1;
  SinkKind kind = SinkKind::kFile;
  bool rotatable = false;  // a regular file that was opened by its path
  uint64_t size = 0;
};

class FileSink {
 public:
  // A batch is written as soon as it has this size, else by flush().
  static constexpr size_t kBatchBytes = 64 * 1024;

  FileSink() noexcept = default;
  FileSink(const FileSink&) = delete;
  FileSink& operator=(const FileSink&) = delete;
  ~FileSink();  // closes; flush() or discard() first

  // Once. A path is created with mode 0640, appended to when it exists.
  base::Result<void> open(SinkOptions options);
  [[nodiscard]] bool is_open() const noexcept { return fd_ >= 0; }
  [[nodiscard]] const SinkOptions& options() const noexcept { return options_; }
  // New limits for the same target.
  void set_limits(uint64_t size_bytes_max, uint32_t files_max) noexcept;
  // Opens the path anew (somebody renamed the file); nothing for stdout and stderr. On failure the
  // old file stays in use.
  base::Result<void> reopen();
  // Gives the file to the user that the process is about to become; nothing for stdout and stderr.
  base::Result<void> give_to(uid_t user, gid_t group) noexcept;

  // One line is appended to begin_line()'s buffer, newline included, then accepted by end_line().
  std::string& begin_line();
  void end_line();
  void append(std::string_view line);
  // Writes what is pending; waits at most about `wait_ms` for a slow reader.
  void flush(int wait_ms = 0);
  // Gives up what is pending, counted as lost.
  void discard();
  [[nodiscard]] size_t pending() const noexcept { return pending_.size() - begin_; }

  [[nodiscard]] const SinkCounters& counters() const noexcept { return counters_; }
  // Lines have been lost and writing has not worked since.
  [[nodiscard]] bool failing() const noexcept { return loss_.os != 0 && !recovered_; }
  // Once for each trouble: its errno when it begins, the loss when it is over.
  std::optional<int> take_failure() noexcept;
  std::optional<SinkLoss> take_recovery() noexcept;
  // errno of a rotation that did not work (the file is then used on); once each.
  std::optional<int> take_rotation_failure() noexcept;

 private:
  void adopt(const OpenedTarget& opened) noexcept;
  void write_pending();
  size_t next_chunk();
  [[nodiscard]] size_t whole_lines_that_fit(std::string_view lines) const noexcept;
  void on_written(size_t size) noexcept;
  void on_blocked();
  void on_failed(int os);
  void lose(uint64_t lines, int os) noexcept;
  void drop_torn_rest();
  bool rotate();

  SinkOptions options_;
  int fd_ = -1;
  SinkKind kind_ = SinkKind::kFile;
  bool rotatable_ = false;
  uint64_t size_ = 0;
  uint64_t rotate_at_ = 0;  // size that the file must not exceed; 0: never
  std::string pending_;     // whole lines, after the rest of one that is torn
  size_t begin_ = 0;        // of what is not yet written
  size_t line_begin_ = 0;
  bool torn_ = false;     // the last line in the file lacks its end, which begins pending_
  bool blocked_ = false;  // the reader is slow; wait for the next flush()
  SinkCounters counters_;
  SinkLoss loss_;  // since the trouble began
  bool failure_new_ = false;
  bool recovered_ = false;
  int rotation_error_ = 0;
};

}  // namespace weir::log
