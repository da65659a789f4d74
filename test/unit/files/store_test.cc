// The open-file cache on real directories: what is found and what is not, and when a name is looked
// up again.
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "store_fixture.h"

using namespace weir;
using namespace weir::files;
using namespace weir::files::test;

namespace fs = std::filesystem;

namespace {

constexpr LinkRule kAllRules[] = {LinkRule::kBelowRoot, LinkRule::kAnywhere, LinkRule::kNone};

// Root may read everything; who it stands in for may not.
class Unprivileged {
 public:
  Unprivileged() : before_(setfsuid(kNobody)) {}
  Unprivileged(const Unprivileged&) = delete;
  Unprivileged& operator=(const Unprivileged&) = delete;
  ~Unprivileged() { setfsuid(static_cast<uid_t>(before_)); }

 private:
  static constexpr uid_t kNobody = 65534;
  int before_;
};

}  // namespace

// ---- what is found

TEST_CASE("a regular file: its bytes, its size, its tag and its date") {
  Bench bench;
  bench.tree.write("a/b.txt", "hello");
  const LinkRule rule = GENERATE(LinkRule::kBelowRoot, LinkRule::kAnywhere, LinkRule::kNone);
  const FileRef file = bench.file("a/b.txt", rule);
  CHECK(file->kind == FileKind::kRegular);
  CHECK(text_of(*file) == "hello");
  struct stat found{};
  REQUIRE(stat(bench.tree.at("a/b.txt").c_str(), &found) == 0);
  CHECK(file->stamp.size == 5);
  CHECK(file->stamp.inode == found.st_ino);
  CHECK(file->stamp.modified_ns == found.st_mtim.tv_sec * 1'000'000'000 + found.st_mtim.tv_nsec);
  CHECK(file->tag.view() == make_entity_tag(file->stamp).view());
  CHECK(file->modified == found.st_mtim.tv_sec);
  CHECK_FALSE(in_memory(*file));
  CHECK_FALSE(file->doubtful);
  CHECK((fcntl(file->fd, F_GETFD) & FD_CLOEXEC) != 0);
  CHECK((fcntl(file->fd, F_GETFL) & O_ACCMODE) == O_RDONLY);
}

TEST_CASE("a directory is found as one, and so is the root") {
  Bench bench;
  bench.tree.write("a/b.txt", "hello");
  const FileRef directory = bench.file("a");
  CHECK(directory->kind == FileKind::kDirectory);
  const FileRef root = bench.file(".");
  CHECK(root->kind == FileKind::kDirectory);
  struct stat found{};
  REQUIRE(stat(bench.tree.root().c_str(), &found) == 0);
  CHECK(root->stamp.inode == found.st_ino);
}

TEST_CASE("a root that is a file is that file") {
  Bench bench;
  bench.tree.write("only.txt", "all there is");
  const std::string root = bench.tree.at("only.txt").string();
  const auto found = bench.open_in(root, ".");
  REQUIRE(found);
  CHECK((*found)->kind == FileKind::kRegular);
  CHECK(text_of(**found) == "all there is");
  const auto below = bench.open_in(root, "more");
  REQUIRE_FALSE(below);
  CHECK(below.error().code == Errc::kNotFound);
}

TEST_CASE("what is not there, and why it is not, is not found, and remembered") {
  Bench bench;
  bench.tree.write("file", "x");
  const size_t before = open_descriptors();
  const std::string path = GENERATE(std::string("missing"), std::string("no/where"),
                                    std::string("file/below"), std::string(300, 'n'));
  CHECK_FALSE(bench.known(path));
  CHECK(bench.why(path) == Errc::kNotFound);
  const auto again = bench.store.try_open(bench.tree.root(), path, LinkRule::kBelowRoot);
  REQUIRE(again);
  REQUIRE_FALSE(*again);
  CHECK(again->error().code == Errc::kNotFound);
  CHECK(bench.store.entries() == 1);
  CHECK(open_descriptors() == before);
}

TEST_CASE("a root that is not there has nothing") {
  Bench bench;
  for (const std::string_view path : {".", "file"}) {
    const auto found = bench.open_in(bench.tree.root() + "/gone", path);
    REQUIRE_FALSE(found);
    CHECK(found.error().code == Errc::kNotFound);
  }
}

TEST_CASE("what may not be read is forbidden, and remembered") {
  Bench bench;
  bench.tree.write("secret", "x");
  bench.tree.write("closed/file", "x");
  fs::permissions(bench.tree.at("secret"), fs::perms::none);
  fs::permissions(bench.tree.at("closed"), fs::perms::none);
  const size_t before = open_descriptors();
  {
    const Unprivileged nobody;
    CHECK(bench.why("secret") == Errc::kPermission);
    CHECK(bench.why("closed/file") == Errc::kPermission);
  }
  const auto again = bench.store.try_open(bench.tree.root(), "secret", LinkRule::kBelowRoot);
  REQUIRE(again);
  REQUIRE_FALSE(*again);
  CHECK(again->error().code == Errc::kPermission);
  CHECK(open_descriptors() == before);
  fs::permissions(bench.tree.at("closed"), fs::perms::owner_all);
}

TEST_CASE("neither file nor directory: not found, at once, and nothing stays open") {
  Bench bench;
  REQUIRE(mkfifo(bench.tree.at("fifo").c_str(), 0600) == 0);
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  const std::string name = bench.tree.at("socket").string();
  REQUIRE(name.size() < sizeof address.sun_path);
  name.copy(address.sun_path, name.size());
  REQUIRE(bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  bench.tree.link("device", "/dev/null");
  const size_t before = open_descriptors();
  CHECK(bench.why("fifo") == Errc::kNotFound);
  CHECK(bench.why("socket") == Errc::kNotFound);
  CHECK(bench.why("device", LinkRule::kAnywhere) == Errc::kNotFound);
  CHECK(open_descriptors() == before);
  CHECK(bench.known("fifo"));
  close(listener);
}

TEST_CASE("links are followed as far as the rule says") {
  Bench bench;
  const Tree& tree = bench.tree;
  tree.write("real/file", "inside");
  tree.write(tree.outside("file"), "outside");
  struct Case {
    std::string_view path;
    fs::path link_at, to;
    bool below_root, anywhere;
  };
  const std::vector<Case> cases = {
      {"plain", "plain", "real/file", true, true},
      {"deep/up", "deep/up", "../real/file", true, true},
      {"directory/file", "directory", "real", true, true},
      {"chain", "chain", "plain", true, true},
      // openat2(2) knows no place that is named from the top.
      {"absolute", "absolute", tree.at("real/file"), false, true},
      {"out", "out", "../outside/file", false, true},
      {"out_and_back", "out_and_back", "../root/real/file", false, true},
      {"out_absolute", "out_absolute", tree.outside("file"), false, true},
      {"far/file", "far", tree.outside(""), false, true},
      {"dangling", "dangling", "nowhere", false, false},
      {"loop", "loop", "loop", false, false},
      // A link that is none: it leads to what a process has, whatever its name.
      {"magic", "magic", "/proc/self/exe", false, false},
      {"magic_directory/bin", "magic_directory", "/proc/self/root", false, false},
  };
  const size_t before = open_descriptors();
  for (const Case& one : cases) {
    CAPTURE(one.path);
    tree.link(one.link_at.string(), one.to);
    CHECK(bench.why(one.path, LinkRule::kNone) == Errc::kNotFound);
    CHECK(bench.why(one.path, LinkRule::kBelowRoot) ==
          (one.below_root ? Errc::kOk : Errc::kNotFound));
    CHECK(bench.why(one.path, LinkRule::kAnywhere) == (one.anywhere ? Errc::kOk : Errc::kNotFound));
  }
  CHECK(bench.store.entries() == 3 * cases.size());  // each rule has its own answer
  CHECK(text_of(*bench.file("out", LinkRule::kAnywhere)) == "outside");
  CHECK(text_of(*bench.file("deep/up")) == "inside");
  const size_t found = 4 + 9;
  CHECK(open_descriptors() == before + found);
}

TEST_CASE("links on the way to the root are the operator's, under every rule") {
  Bench bench({.revalidate_ms = 0});
  bench.tree.write("one/file", "first release");
  bench.tree.write("two/file", "second release");
  bench.tree.link("current", "one");
  const std::string root = bench.tree.at("current").string();
  for (const LinkRule rule : kAllRules) {
    const auto found = bench.open_in(root, "file", rule);
    REQUIRE(found);
    CHECK(text_of(**found) == "first release");
  }
  bench.tree.link("next", "two");
  fs::rename(bench.tree.at("next"), bench.tree.at("current"));
  for (const LinkRule rule : kAllRules) {
    const auto found = bench.open_in(root, "file", rule);
    REQUIRE(found);
    CHECK(text_of(**found) == "second release");
  }
}

TEST_CASE("without descriptors it is our lack, and says nothing about the name") {
  Bench bench;
  bench.tree.write("file", "x");
  Errc why = Errc::kOk;
  {
    const DescriptorLimit limit;
    limit.set(3);
    why = bench.why("file");
  }
  CHECK(why == Errc::kNoFiles);
  CHECK(bench.store.entries() == 0);
  CHECK(bench.why("file") == Errc::kOk);
}

// ---- when it is looked up again

TEST_CASE("a fresh name costs no look, a stale one does") {
  Bench bench({.revalidate_ms = 40});
  bench.tree.write("file", "x");
  const FileRef first = bench.file("file");
  const auto known = bench.store.try_open(bench.tree.root(), "file", LinkRule::kBelowRoot);
  REQUIRE(known);
  REQUIRE(*known);
  CHECK(**known == first);
  CHECK_FALSE(bench.known("file", LinkRule::kNone));
  bench.engine.pass(45);
  CHECK_FALSE(bench.known("file"));
  // The same file: what is known of it stays, also what was read of it.
  CHECK(bench.load(first));
  CHECK(bench.file("file") == first);
  CHECK(in_memory(*first));
  CHECK(bench.known("file"));
  CHECK(bench.store.entries() == 1);
}

TEST_CASE("within the time nothing is seen, behind it everything is") {
  Bench bench;
  bench.tree.write("replaced", "old");
  bench.tree.write("changed", "old");
  bench.tree.write("removed", "old");
  bench.tree.write("forbidden", "old");
  bench.tree.write("turned", "old");
  const size_t before = open_descriptors();
  std::vector<FileRef> old;
  for (const auto name : {"replaced", "changed", "removed", "forbidden", "turned"}) {
    old.push_back(bench.file(name));
    CHECK(bench.load(old.back()));
  }
  CHECK(bench.why("appears") == Errc::kNotFound);
  bench.tree.replace("replaced", "newer");
  Tree::overwrite(bench.tree.at("changed"), "new");
  fs::remove(bench.tree.at("removed"));
  fs::permissions(bench.tree.at("forbidden"), fs::perms::none);
  fs::remove(bench.tree.at("turned"));
  fs::create_directory(bench.tree.at("turned"));
  bench.tree.write("appears", "new");
  CHECK(bench.file("replaced") == old[0]);
  CHECK(bench.file("changed") == old[1]);
  CHECK(bench.file("removed") == old[2]);
  CHECK(bench.file("forbidden") == old[3]);
  CHECK(bench.file("turned") == old[4]);
  CHECK(bench.why("appears") == Errc::kNotFound);

  bench.store.set_limits({.revalidate_ms = 0});
  CHECK(text_of(*bench.file("replaced")) == "newer");
  CHECK(bench.file("replaced") != old[0]);
  CHECK(text_of(*bench.file("changed")) == "new");
  CHECK(bench.file("changed") != old[1]);
  CHECK_FALSE(in_memory(*bench.file("changed")));
  CHECK(bench.why("removed") == Errc::kNotFound);
  {
    const Unprivileged nobody;
    CHECK(bench.why("forbidden") == Errc::kPermission);
  }
  CHECK(bench.file("turned")->kind == FileKind::kDirectory);
  CHECK(text_of(*bench.file("appears")) == "new");
  CHECK(bench.store.entries() == 6);
  CHECK(bench.store.memory_bytes() == 15);  // of the old ones, which are held
  // Who holds an old one keeps it, with its bytes.
  CHECK(text_of(*old[0]) == "old");
  CHECK(content_of(*old[0]) == "old");
  CHECK(open_descriptors() == before + old.size() + 4);
  old.clear();
  CHECK(open_descriptors() == before + 4);
  CHECK(bench.store.open_files() == 4);
  CHECK(bench.store.memory_bytes() == 0);
}

TEST_CASE("a file of the same size and time under the name is another one") {
  Bench bench;
  bench.tree.write("file", "one");
  const FileRef old = bench.file("file");
  CHECK(bench.load(old));
  struct stat found{};
  REQUIRE(stat(bench.tree.at("file").c_str(), &found) == 0);
  bench.tree.write("other", "two");
  const timespec times[2] = {found.st_atim, found.st_mtim};
  REQUIRE(utimensat(AT_FDCWD, bench.tree.at("other").c_str(), times, 0) == 0);
  fs::rename(bench.tree.at("other"), bench.tree.at("file"));
  bench.store.set_limits({.revalidate_ms = 0});
  const FileRef now = bench.file("file");
  CHECK(now != old);
  CHECK(text_of(*now) == "two");
  CHECK_FALSE(in_memory(*now));
}

TEST_CASE("a file that is not settled has no tag, and is read anew until it is") {
  Bench bench({.revalidate_ms = 0});
  bench.tree.write("file", "x");
  // It was changed a moment ahead of our clock.
  Tree::set_age(bench.tree.at("file"), -std::chrono::milliseconds(700));
  const FileRef first = bench.file("file");
  CHECK(first->tag.empty());
  CHECK_FALSE(first->modified);
  CHECK(bench.load(first));
  const FileRef second = bench.file("file");
  CHECK(second != first);
  CHECK_FALSE(in_memory(*second));  // what was read may have changed since
  FileRef settled;
  CHECK(bench.engine.run_until([&] {
    bench.engine.settle();
    bench.engine->wake();
    return bench.engine->unix_us() * 1000 > first->stamp.modified_ns + 60'000'000;
  }));
  settled = bench.file("file");
  CHECK(settled->stamp == first->stamp);
  CHECK_FALSE(settled->tag.empty());
  CHECK(bench.file("file") == settled);
}

TEST_CASE("two who ask at once get the same file") {
  Bench bench;
  bench.tree.write("file", "x");
  const size_t before = open_descriptors();
  Result<FileRef> one = base::fail(Errc::kInvalid);
  Result<FileRef> two = base::fail(Errc::kInvalid);
  bench.engine.tasks.spawn(
      open_into(bench.store, bench.tree.root(), "file", LinkRule::kBelowRoot, one));
  bench.engine.tasks.spawn(
      open_into(bench.store, bench.tree.root(), "file", LinkRule::kBelowRoot, two));
  REQUIRE(bench.engine.run_until([&] { return bench.engine.tasks.running() == 0; }));
  REQUIRE(one);
  REQUIRE(two);
  CHECK(*one == *two);
  CHECK(bench.store.entries() == 1);
  CHECK(open_descriptors() == before + 1);
}

TEST_CASE("a doubtful file is not given out again, although its stamp is the same") {
  Bench bench;
  bench.tree.write("file", "x");
  const FileRef doubtful = bench.file("file");
  CHECK(bench.load(doubtful));
  doubtful->doubtful = true;
  CHECK_FALSE(bench.known("file"));
  const FileRef next = bench.file("file");
  CHECK(next != doubtful);
  CHECK(next->stamp == doubtful->stamp);
  CHECK_FALSE(in_memory(*next));
  CHECK_FALSE(next->doubtful);
  CHECK(bench.known("file"));
}
