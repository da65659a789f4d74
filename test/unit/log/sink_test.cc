#include <weir/log/sink.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <string>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include "fixtures.h"

namespace weir::log {
namespace {

namespace fs = std::filesystem;
using test::contents;

std::string line_of(size_t size, char c) { return std::string(size - 1, c) + '\n'; }

size_t count_lines(const std::string& text) {
  return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
}

// Puts `fd` in the place of stdout as long as it lives.
class StdoutAs {
 public:
  explicit StdoutAs(int fd) : saved_(::dup(STDOUT_FILENO)) { ::dup2(fd, STDOUT_FILENO); }
  StdoutAs(const StdoutAs&) = delete;
  StdoutAs& operator=(const StdoutAs&) = delete;
  ~StdoutAs() {
    ::dup2(saved_, STDOUT_FILENO);
    ::close(saved_);
  }

 private:
  int saved_;
};

std::string read_available(int fd) {
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  std::string all;
  std::array<char, 65536> buffer;
  for (ssize_t n = 0; (n = ::read(fd, buffer.data(), buffer.size())) > 0;) {
    all.append(buffer.data(), static_cast<size_t>(n));
  }
  return all;
}

TEST_CASE("sink: lines are batched, appended, and the file is not for everybody") {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("a.log");
  {
    FileSink sink;
    REQUIRE(sink.open({.target = path}));
    sink.append("one\n");
    sink.append("two\n");
    CHECK(contents(path).empty());
    sink.flush();
    CHECK(contents(path) == "one\ntwo\n");
    CHECK(sink.counters().writes == 1);
    CHECK(sink.pending() == 0);
    struct stat info;
    REQUIRE(::stat(path.c_str(), &info) == 0);
    CHECK((info.st_mode & 07) == 0);
  }
  FileSink sink;
  REQUIRE(sink.open({.target = path}));
  sink.append("three\n");
  sink.flush();
  CHECK(contents(path) == "one\ntwo\nthree\n");
}

TEST_CASE("sink: under load each write has at least the size of a batch") {
  const test::TemporaryDirectory directory;
  FileSink sink;
  REQUIRE(sink.open({.target = directory.file("a.log")}));
  for (int i = 0; i < 10'000; ++i) sink.append(line_of(300, 'x'));
  sink.flush();
  CHECK(sink.counters().bytes_written == 3'000'000);
  CHECK(sink.counters().writes <= 3'000'000 / FileSink::kBatchBytes + 1);
  CHECK(contents(directory.file("a.log")).size() == 3'000'000);
}

TEST_CASE("sink: opening reports what the system said") {
  FileSink sink;
  const auto opened = sink.open({.target = "/nonexistent-directory/a.log"});
  REQUIRE_FALSE(opened.has_value());
  CHECK(opened.error().code == base::Errc::kNotFound);
  CHECK(opened.error().os == ENOENT);
  CHECK_FALSE(sink.is_open());
}

TEST_CASE("sink: rotation keeps the newest files, whole lines, none above its size") {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("a.log");
  FileSink sink;
  REQUIRE(sink.open({.target = path, .size_bytes_max = 100, .files_max = 2}));
  // Ten lines of 30 bytes: three to a file, so a.log.3 would be the first three.
  for (char c = 'a'; c < 'k'; ++c) sink.append(line_of(30, c));
  sink.flush();
  CHECK(contents(path) == line_of(30, 'j'));
  CHECK(contents(path + ".1") == line_of(30, 'g') + line_of(30, 'h') + line_of(30, 'i'));
  CHECK(contents(path + ".2") == line_of(30, 'd') + line_of(30, 'e') + line_of(30, 'f'));
  CHECK_FALSE(fs::exists(path + ".3"));
  CHECK(sink.counters().rotations == 3);
  CHECK(sink.counters().lines_lost == 0);
}

TEST_CASE("sink: rotation at exact sizes, of large lines, and of what was there before") {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("a.log");
  FileSink sink;
  REQUIRE(sink.open({.target = path, .size_bytes_max = 60, .files_max = 5}));
  sink.append(line_of(30, 'a'));
  sink.append(line_of(30, 'b'));
  sink.flush();
  CHECK(sink.counters().rotations == 0);  // exactly full is not too full
  sink.append(line_of(200, 'c'));         // larger than a file: gets one of its own
  sink.append(line_of(30, 'd'));
  sink.flush();
  CHECK(contents(path + ".2") == line_of(30, 'a') + line_of(30, 'b'));
  CHECK(contents(path + ".1") == line_of(200, 'c'));
  CHECK(contents(path) == line_of(30, 'd'));
  FileSink after_restart;
  REQUIRE(after_restart.open({.target = path, .size_bytes_max = 50, .files_max = 5}));
  after_restart.append(line_of(30, 'e'));
  after_restart.flush();
  CHECK(contents(path + ".1") == line_of(30, 'd'));
  CHECK(contents(path) == line_of(30, 'e'));
}

TEST_CASE("sink: rotation without kept files begins anew") {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("a.log");
  FileSink sink;
  REQUIRE(sink.open({.target = path, .size_bytes_max = 50, .files_max = 0}));
  for (char c = 'a'; c < 'e'; ++c) sink.append(line_of(30, c));
  sink.flush();
  CHECK(contents(path) == line_of(30, 'd'));
  CHECK_FALSE(fs::exists(path + ".1"));
}

TEST_CASE("sink: a rotation that is refused keeps writing and says so, not at every line") {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("a.log");
  FileSink sink;
  REQUIRE(sink.open({.target = path, .size_bytes_max = 100, .files_max = 1}));
  fs::create_directory(path + ".1");  // rename(2) of a file onto a directory: EISDIR
  for (char c = 'a'; c < 'k'; ++c) {
    sink.append(line_of(30, c));
    sink.flush();
  }
  CHECK(count_lines(contents(path)) == 10);
  CHECK(sink.counters().rotations == 0);
  CHECK(sink.counters().rotations_failed == 3);  // at 90, 180 and 270 bytes
  CHECK(sink.take_rotation_failure() == EISDIR);
  CHECK_FALSE(sink.take_rotation_failure().has_value());
  fs::remove(path + ".1");
  for (char c = 'k'; c < 'p'; ++c) {
    sink.append(line_of(30, c));
    sink.flush();
  }
  CHECK(sink.counters().rotations >= 1);
  CHECK(sink.counters().lines_lost == 0);
}

TEST_CASE("sink: reopen follows a rename, and keeps the old file when it cannot") {
  const test::TemporaryDirectory directory;
  fs::create_directory(directory.file("logs"));
  const std::string path = directory.file("logs/a.log");
  FileSink sink;
  REQUIRE(sink.open({.target = path}));
  sink.append("before\n");
  fs::rename(path, path + ".old");
  REQUIRE(sink.reopen());
  sink.append("after\n");
  sink.flush();
  CHECK(contents(path + ".old") == "before\n");  // what was pending went where it belonged
  CHECK(contents(path) == "after\n");
  fs::rename(directory.file("logs"), directory.file("moved"));
  const auto reopened = sink.reopen();
  REQUIRE_FALSE(reopened.has_value());
  CHECK(reopened.error().os == ENOENT);
  sink.append("still\n");
  sink.flush();
  CHECK(contents(directory.file("moved/a.log")) == "after\nstill\n");
}

TEST_CASE("sink: a full disk loses lines, counts them, tells once") {
  FileSink sink;
  REQUIRE(sink.open({.target = "/dev/full"}));
  for (int i = 0; i < 7; ++i) sink.append("line\n");
  sink.flush();
  CHECK(sink.failing());
  CHECK(sink.counters().lines_lost == 7);
  CHECK(sink.counters().bytes_written == 0);
  CHECK(sink.pending() == 0);
  CHECK(sink.take_failure() == ENOSPC);
  sink.flush();  // nothing pending: no news
  CHECK_FALSE(sink.take_recovery().has_value());
  sink.append("line\n");
  sink.flush();
  CHECK(sink.counters().lines_lost == 8);
  CHECK_FALSE(sink.take_failure().has_value());
  CHECK_FALSE(sink.take_recovery().has_value());
}

// RLIMIT_FSIZE stands for a disk that is full in the middle of a line (EFBIG, SIGXFSZ ignored) and
// has room again later. In a child, because the limit is the process's.
TEST_CASE("sink: a line cut by a full disk is finished when there is room again") {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("a.log");
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit limit{};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    const rlim_t before = limit.rlim_cur;
    limit.rlim_cur = 45;
    ::setrlimit(RLIMIT_FSIZE, &limit);
    FileSink sink;
    if (!sink.open({.target = path})) ::_exit(1);
    for (char c = 'a'; c < 'e'; ++c) sink.append(line_of(30, c));
    sink.flush();
    if (sink.counters().lines_lost != 2 || !sink.failing()) ::_exit(2);
    if (sink.counters().bytes_written != 45) ::_exit(3);
    limit.rlim_cur = before;
    ::setrlimit(RLIMIT_FSIZE, &limit);
    // Nor may a rotation that is due come between its halves.
    sink.set_limits(50, 2);
    sink.append(line_of(30, 'z'));
    sink.flush();
    const auto loss = sink.take_recovery();
    if (!loss || loss->lines != 2 || loss->os != EFBIG || sink.failing()) ::_exit(4);
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(contents(path + ".1") == line_of(30, 'a') + line_of(30, 'b'));
  CHECK(contents(path) == line_of(30, 'z'));
}

struct Pipe {
  int read_end = -1;
  int write_end = -1;
  Pipe() {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    read_end = ends[0];
    write_end = ends[1];
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    if (read_end >= 0) ::close(read_end);
    ::close(write_end);
  }
};

TEST_CASE("sink: a pipe that nobody reads holds nobody up; beyond the bound lines are counted") {
  const Pipe pipe;
  FileSink sink;
  {
    const StdoutAs as_stdout(pipe.write_end);
    REQUIRE(sink.open({.target = "stdout", .pending_bytes_max = 200'000}));
  }
  // The description that others share must stay as it was.
  CHECK((::fcntl(pipe.write_end, F_GETFL) & O_NONBLOCK) == 0);
  const std::string line = line_of(100, 'p');
  const size_t lines = 5'000;  // 500 kB: pipe 64 KiB, queue 200 kB, the rest is lost
  for (size_t i = 0; i < lines; ++i) sink.append(line);
  sink.flush();
  CHECK(sink.pending() <= 200'000 + line.size());
  const uint64_t lost = sink.counters().lines_lost;
  CHECK(lost > 1'000);
  CHECK(sink.take_failure() == EAGAIN);
  CHECK_FALSE(sink.take_recovery().has_value());
  std::string got;
  for (int i = 0; i < 100 && sink.pending() != 0; ++i) {
    got += read_available(pipe.read_end);
    sink.flush();
  }
  got += read_available(pipe.read_end);
  CHECK(sink.pending() == 0);
  CHECK(got.size() % line.size() == 0);
  CHECK(count_lines(got) + lost == lines);
  for (size_t at = 0; at < got.size(); at += line.size()) {
    REQUIRE(got.compare(at, line.size(), line) == 0);
  }
  const auto loss = sink.take_recovery();
  REQUIRE(loss.has_value());
  CHECK(loss->lines == lost);
  CHECK(loss->os == EAGAIN);
  CHECK_FALSE(sink.failing());
}

TEST_CASE("sink: flushing at the end waits for a slow reader, but not for ever") {
  const Pipe pipe;
  FileSink sink;
  {
    const StdoutAs as_stdout(pipe.write_end);
    REQUIRE(sink.open({.target = "stdout"}));
  }
  for (size_t i = 0; i < 5'000; ++i) sink.append(line_of(100, 'p'));
  sink.flush(50);
  CHECK(sink.pending() > 0);
  sink.discard();
  CHECK(sink.pending() == 0);
  CHECK(sink.counters().bytes_written / 100 + sink.counters().lines_lost >= 4'999);
}

TEST_CASE("sink: a pipe whose reader is gone loses lines and lives") {
  std::signal(SIGPIPE, SIG_IGN);
  Pipe pipe;
  FileSink sink;
  {
    const StdoutAs as_stdout(pipe.write_end);
    REQUIRE(sink.open({.target = "stdout"}));
  }
  ::close(pipe.read_end);
  pipe.read_end = -1;
  sink.append("line\n");
  sink.flush();
  CHECK(sink.take_failure() == EPIPE);
  CHECK(sink.counters().lines_lost == 1);
}

// A named pipe without a reader cannot be opened anew (ENXIO), which leaves the way that polls
// first.
TEST_CASE("sink: a pipe that cannot be opened anew holds nobody up either") {
  std::signal(SIGPIPE, SIG_IGN);
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("fifo");
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  int reader = ::open(path.c_str(), O_RDONLY | O_NONBLOCK);
  const int writer = ::open(path.c_str(), O_WRONLY);
  REQUIRE(reader >= 0);
  REQUIRE(writer >= 0);
  ::close(reader);
  FileSink sink;
  {
    const StdoutAs as_stdout(writer);
    REQUIRE(sink.open({.target = "stdout", .pending_bytes_max = 100'000}));
  }
  const std::string line = line_of(100, 'q');
  sink.append(line);
  sink.flush();
  CHECK(sink.take_failure() == EPIPE);
  reader = ::open(path.c_str(), O_RDONLY | O_NONBLOCK);
  REQUIRE(reader >= 0);
  for (size_t i = 0; i < 5'000; ++i) sink.append(line);
  sink.flush();
  CHECK(sink.counters().lines_lost > 1'000);
  CHECK((::fcntl(writer, F_GETFL) & O_NONBLOCK) == 0);
  std::string got;
  for (int i = 0; i < 100 && sink.pending() != 0; ++i) {
    got += read_available(reader);
    sink.flush();
  }
  got += read_available(reader);
  CHECK(count_lines(got) + sink.counters().lines_lost == 5'001);
  CHECK(got.size() == 100 * count_lines(got));
  ::close(reader);
  ::close(writer);
}

TEST_CASE("sink: a socket as stdout (as journald gives) does not hold anybody up either") {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  FileSink sink;
  {
    const StdoutAs as_stdout(ends[1]);
    REQUIRE(sink.open({.target = "stdout", .pending_bytes_max = 100'000}));
  }
  for (size_t i = 0; i < 20'000; ++i) sink.append(line_of(100, 's'));
  sink.flush();
  CHECK(sink.counters().lines_lost > 0);
  CHECK(read_available(ends[0]).starts_with(line_of(100, 's')));
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("sink: the path of a pipe is opened without waiting for a reader") {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("fifo");
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  FileSink refused;
  const auto opened = refused.open({.target = path});
  REQUIRE_FALSE(opened.has_value());
  CHECK(opened.error().os == ENXIO);
  const int reader = ::open(path.c_str(), O_RDONLY | O_NONBLOCK);
  FileSink sink;
  REQUIRE(sink.open({.target = path, .size_bytes_max = 10}));
  sink.append("longer than the size\n");
  sink.flush();
  CHECK(read_available(reader) == "longer than the size\n");
  CHECK(sink.counters().rotations == 0);
  ::close(reader);
}

TEST_CASE("sink: stdout that is a file shares its position with others") {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("out");
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT, 0600);
  FileSink sink;
  {
    const StdoutAs as_stdout(file);
    REQUIRE(sink.open({.target = "stdout", .size_bytes_max = 5}));
  }
  sink.append("ours\n");
  sink.flush();
  REQUIRE(::write(file, "theirs\n", 7) == 7);
  sink.append("ours again\n");
  REQUIRE(sink.reopen());
  sink.flush();
  CHECK(contents(path) == "ours\ntheirs\nours again\n");
  CHECK(sink.counters().rotations == 0);
  ::close(file);
}

}  // namespace
}  // namespace weir::log
