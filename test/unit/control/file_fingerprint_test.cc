// Changes of a file show in its fingerprint, whatever way it was changed, and nothing else does.
#include <filesystem>
#include <string>

#include <sys/stat.h>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/file_fingerprint.h>

#include "directory.h"

using namespace weir::control;
using weir::control::test::Directory;
namespace fs = std::filesystem;

TEST_CASE("content counts, not the time or the name it came by") {
  const Directory directory;
  directory.write("a", "one");
  const FileFingerprint before = fingerprint(directory.path("a"));
  CHECK(before.state == FileFingerprint::State::kRead);
  CHECK(before.content != 0);
  directory.write("a", "one");
  CHECK(unchanged(before, fingerprint(directory.path("a"))));
  directory.write("b", "one");
  fs::rename(directory.path("b"), directory.path("a"));
  CHECK(unchanged(before, fingerprint(directory.path("a"))));
  directory.write("a", "two");
  CHECK_FALSE(unchanged(before, fingerprint(directory.path("a"))));
  directory.write("a", std::string(100'000, 'x'));
  const FileFingerprint longer = fingerprint(directory.path("a"));
  directory.write("a", std::string(99'999, 'x') + "y");
  CHECK_FALSE(unchanged(longer, fingerprint(directory.path("a"))));
}

TEST_CASE("a file that is gone, and one that comes back") {
  const Directory directory;
  const FileFingerprint missing = fingerprint(directory.path("a"));
  CHECK(missing.state == FileFingerprint::State::kMissing);
  CHECK(unchanged(missing, fingerprint(directory.path("no/such"))));
  directory.write("a", "");
  const FileFingerprint empty = fingerprint(directory.path("a"));
  CHECK(empty.state == FileFingerprint::State::kRead);
  CHECK_FALSE(unchanged(missing, empty));
  CHECK_FALSE(unchanged(empty, missing));
}

TEST_CASE("denied: what the directory says decides, and where it says nothing, nothing changed") {
  FileFingerprint read{.state = FileFingerprint::State::kRead,
                       .content = 7,
                       .inode = 3,
                       .size = 2,
                       .changed_s = 1,
                       .changed_ns = 1};
  FileFingerprint denied = read;
  denied.state = FileFingerprint::State::kDenied;
  denied.content = 0;
  CHECK(unchanged(read, denied));
  CHECK(unchanged(denied, denied));
  CHECK_FALSE(unchanged(denied, read));  // now it can be read
  FileFingerprint other = denied;
  other.changed_s = 2;
  CHECK_FALSE(unchanged(read, other));
  CHECK_FALSE(unchanged(denied, other));
  const FileFingerprint invisible{.state = FileFingerprint::State::kDenied};
  CHECK(unchanged(read, invisible));
  CHECK_FALSE(unchanged(FileFingerprint{}, invisible));
}

TEST_CASE("what is no file is not read: a pipe would be emptied, or waited for") {
  const Directory directory;
  REQUIRE(mkfifo(directory.path("pipe").c_str(), 0600) == 0);
  const FileFingerprint pipe = fingerprint(directory.path("pipe"));
  CHECK(pipe.state == FileFingerprint::State::kRead);
  CHECK(pipe.content == 0);
  CHECK(unchanged(pipe, fingerprint(directory.path("pipe"))));
  CHECK(fingerprint("/dev/zero").content == 0);
}
