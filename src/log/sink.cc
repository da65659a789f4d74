#include <weir/log/sink.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/base/check.h>

#include "sink_target.h"

namespace weir::log {

namespace {

constexpr int kWaitSliceMs = 10;

uint64_t count_lines(std::string_view text) noexcept {
  return static_cast<uint64_t>(std::count(text.begin(), text.end(), '\n'));
}

}  // namespace

FileSink::~FileSink() {
  if (fd_ >= 0) ::close(fd_);
}

base::Result<void> FileSink::open(SinkOptions options) {
  WEIR_CHECK(fd_ < 0);
  WEIR_TRY(const OpenedTarget opened, open_target(options.target));
  options_ = std::move(options);
  adopt(opened);
  pending_.reserve(2 * kBatchBytes);
  return {};
}

void FileSink::adopt(const OpenedTarget& opened) noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = opened.fd;
  kind_ = opened.kind;
  rotatable_ = opened.rotatable;
  size_ = opened.size;
  rotate_at_ = options_.size_bytes_max;
  blocked_ = false;
}

void FileSink::set_limits(uint64_t size_bytes_max, uint32_t files_max) noexcept {
  options_.size_bytes_max = size_bytes_max;
  options_.files_max = files_max;
  rotate_at_ = size_bytes_max;
}

base::Result<void> FileSink::reopen() {
  if (options_.target == "stdout" || options_.target == "stderr") return {};
  flush();
  WEIR_TRY(const OpenedTarget opened, open_target(options_.target));
  drop_torn_rest();
  adopt(opened);
  return {};
}

base::Result<void> FileSink::give_to(uid_t user, gid_t group) noexcept {
  if (rotatable_ && ::fchown(fd_, user, group) != 0) return base::fail(base::from_errno(errno));
  return {};
}

std::string& FileSink::begin_line() {
  if (begin_ == pending_.size()) {
    pending_.clear();
    begin_ = 0;
  }
  line_begin_ = pending_.size();
  return pending_;
}

// While the reader is slow only flush() tries again, and a line beyond the bound goes at once.
void FileSink::end_line() {
  if (!blocked_) {
    if (pending() >= std::min(kBatchBytes, options_.pending_bytes_max)) write_pending();
  } else if (pending() > options_.pending_bytes_max) {
    pending_.resize(line_begin_);
    lose(1, EAGAIN);
  }
}

void FileSink::append(std::string_view line) {
  begin_line().append(line);
  end_line();
}

// A slow reader gets slices of time. One that reads makes progress in pipe-sized steps, which
// bounds the number of turns; one that does not costs `wait_ms`.
void FileSink::flush(int wait_ms) {
  blocked_ = false;
  write_pending();
  int slices = wait_ms / kWaitSliceMs;
  size_t turns = static_cast<size_t>(slices) + pending() / kPollFirstBytes;
  while (blocked_ && slices > 0 && turns > 0) {
    pollfd ready{.fd = fd_, .events = POLLOUT, .revents = 0};
    if (::poll(&ready, 1, kWaitSliceMs) <= 0) --slices;
    --turns;
    blocked_ = false;
    write_pending();
  }
}

void FileSink::write_pending() {
  if (pending() == 0) return;
  while (pending() != 0) {
    const size_t chunk = next_chunk();
    const ssize_t written = write_to(fd_, kind_, pending_.data() + begin_, chunk);
    if (written > 0) {
      on_written(static_cast<size_t>(written));
    } else if (written == 0) {
      return on_failed(EIO);  // no file of ours answers so; do not spin
    } else if (errno == EAGAIN) {
      return on_blocked();
    } else if (errno != EINTR) {
      return on_failed(errno);
    }
  }
  pending_.clear();
  begin_ = 0;
  if (loss_.os != 0) recovered_ = true;
}

// How much may go into the file as it is: all, or the whole lines below the rotation size. Rotates
// when not even one line fits. A line that is larger than a whole file gets a file of its own.
size_t FileSink::next_chunk() {
  const std::string_view rest = std::string_view(pending_).substr(begin_);
  if (!rotatable_ || rotate_at_ == 0 || size_ + rest.size() <= rotate_at_) return rest.size();
  const size_t line_end = rest.find('\n') + 1;
  WEIR_CHECK(line_end != 0);
  if (torn_) return line_end;  // finish it first, wherever that leads
  size_t fitting = whole_lines_that_fit(rest);
  if (fitting == 0 && size_ != 0) {
    if (!rotate()) return rest.size();
    fitting = whole_lines_that_fit(rest);
  }
  return std::max(fitting, line_end);
}

size_t FileSink::whole_lines_that_fit(std::string_view lines) const noexcept {
  if (rotate_at_ <= size_) return 0;
  const std::string_view fitting = lines.substr(0, static_cast<size_t>(rotate_at_ - size_));
  return fitting.rfind('\n') + 1;  // npos + 1 = 0
}

void FileSink::on_written(size_t size) noexcept {
  begin_ += size;
  size_ += size;
  torn_ = pending_[begin_ - 1] != '\n';
  counters_.bytes_written += size;
  ++counters_.writes;
}

// The reader is slow. Written text is taken out of the buffer only when it is much: each time costs
// a move of the rest.
void FileSink::on_blocked() {
  blocked_ = true;
  if (begin_ < kBatchBytes) return;
  pending_.erase(0, begin_);
  begin_ = 0;
}

// Nothing can be written (disk full, reader gone): the lines are lost, but the rest of a line that
// is half in the file is kept, so that the file has whole lines once writing works again.
void FileSink::on_failed(int os) {
  std::string_view rest = std::string_view(pending_).substr(begin_);
  const size_t keep = torn_ ? rest.find('\n') + 1 : 0;
  const uint64_t lines = count_lines(rest.substr(keep));
  pending_.resize(begin_ + keep);
  pending_.erase(0, begin_);
  begin_ = 0;
  lose(lines, os);
}

void FileSink::lose(uint64_t lines, int os) noexcept {
  if (loss_.os == 0 || recovered_) {
    failure_new_ = true;
    if (recovered_) loss_.lines = 0;  // nobody asked after the former trouble
    recovered_ = false;
  }
  loss_.os = os;
  loss_.lines += lines;
  counters_.lines_lost += lines;
}

// The end of a line whose beginning is in a file that is left behind.
void FileSink::drop_torn_rest() {
  if (!torn_) return;
  const size_t end = pending_.find('\n', begin_);
  WEIR_CHECK(end != std::string::npos);
  begin_ = end + 1;
  torn_ = false;
  lose(1, EAGAIN);
}

void FileSink::discard() {
  const uint64_t lines = count_lines(std::string_view(pending_).substr(begin_));
  pending_.clear();
  begin_ = 0;
  torn_ = false;
  if (lines != 0) lose(lines, EAGAIN);
}

std::optional<int> FileSink::take_failure() noexcept {
  if (!std::exchange(failure_new_, false)) return std::nullopt;
  return loss_.os;
}

std::optional<SinkLoss> FileSink::take_recovery() noexcept {
  if (!std::exchange(recovered_, false)) return std::nullopt;
  return std::exchange(loss_, {});
}

std::optional<int> FileSink::take_rotation_failure() noexcept {
  if (rotation_error_ == 0) return std::nullopt;
  return std::exchange(rotation_error_, 0);
}

// Renames target.N-1 .. target and begins a new file. When something refuses, the open file is used
// on and the next try is due after as much again: a failing rotation must not cost a few system
// calls per line.
bool FileSink::rotate() {
  base::Result<void> shifted = shift_files(options_.target, options_.files_max);
  if (shifted) {
    base::Result<OpenedTarget> opened = open_target(options_.target);
    if (opened) {
      adopt(*opened);
      ++counters_.rotations;
      return true;
    }
    shifted = base::fail(opened.error());
  }
  ++counters_.rotations_failed;
  rotation_error_ = shifted.error().os;
  rotate_at_ = size_ + options_.size_bytes_max;
  return false;
}

}  // namespace weir::log
