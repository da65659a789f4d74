// Every way in which a configuration file is changed by editors, people and orchestrators is seen;
// what happens to other files is not.
#include <cstdio>
#include <filesystem>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/file_watch.h>

#include "../runtime/engine.h"
#include "directory.h"

using namespace weir;
using control::FileWatch;
using control::test::Directory;
using runtime::test::Engine;
namespace fs = std::filesystem;

namespace {

struct Watched {
  explicit Watched(const std::string& file)
      : watch(FileWatch::open(*engine, file, [this] { ++changes; })) {
    REQUIRE(watch);
    engine.settle();
  }
  ~Watched() {
    watch->stop();
    CHECK(engine.run_until([&] { return watch->stopped(); }));
  }
  // What was done since the last call: seen, or (nothing is waited for) not.
  bool seen() {
    engine.settle();
    return std::exchange(changes, 0) > 0;
  }
  Engine engine{runtime::test::EngineOptions{.buffers = 64, .ring_entries = 64}};
  int changes = 0;
  std::unique_ptr<FileWatch> watch;
};

}  // namespace

TEST_CASE("written in place, renamed over, removed and made again") {
  const Directory directory;
  directory.write("weir.toml", "1");
  Watched watched(directory.path("weir.toml"));
  CHECK_FALSE(watched.seen());
  directory.write("weir.toml", "2");
  CHECK(watched.seen());
  directory.write("weir.toml.new", "3");
  CHECK_FALSE(watched.seen());
  fs::rename(directory.path("weir.toml.new"), directory.path("weir.toml"));
  CHECK(watched.seen());
  directory.write("weir.toml", "4");  // the new file is watched as the old one was
  CHECK(watched.seen());
  fs::remove(directory.path("weir.toml"));
  watched.seen();
  directory.write("weir.toml", "5");
  CHECK(watched.seen());
}

TEST_CASE("other files of the directory are nobody's business") {
  const Directory directory;
  directory.write("weir.toml", "1");
  Watched watched(directory.path("weir.toml"));
  directory.write("other.toml", "1");
  directory.write("weir.toml~", "1");
  fs::create_directory(directory.path("sub"));
  fs::remove(directory.path("other.toml"));
  CHECK_FALSE(watched.seen());
}

TEST_CASE("a file that is not there yet is watched for") {
  const Directory directory;
  Watched watched(directory.path("weir.toml"));
  directory.write("weir.toml", "1");
  CHECK(watched.seen());
}

TEST_CASE("a link is switched, and the file that it leads to then is watched") {
  const Directory directory;
  fs::create_directory(directory.path("a"));
  fs::create_directory(directory.path("b"));
  directory.write("a/real.toml", "1");
  directory.write("b/real.toml", "2");
  fs::create_symlink(directory.path("a/real.toml"), directory.path("weir.toml"));
  Watched watched(directory.path("weir.toml"));
  directory.write("a/real.toml", "3");
  CHECK(watched.seen());
  fs::create_symlink(directory.path("b/real.toml"), directory.path("next"));
  CHECK_FALSE(watched.seen());
  fs::rename(directory.path("next"), directory.path("weir.toml"));
  CHECK(watched.seen());
  directory.write("b/real.toml", "4");
  CHECK(watched.seen());
}

TEST_CASE("mounted configuration: the link of a directory on the way is switched") {
  const Directory directory;
  for (const char* version : {"..1", "..2"}) {
    fs::create_directory(directory.path(version));
    directory.write(std::string(version) + "/weir.toml", version);
  }
  fs::create_directory_symlink("..1", directory.path("..data"));
  fs::create_symlink("..data/weir.toml", directory.path("weir.toml"));
  Watched watched(directory.path("weir.toml"));
  for (const char* version : {"..2", "..1", "..2"}) {
    fs::create_directory_symlink(version, directory.path("..data_tmp"));
    watched.seen();
    fs::rename(directory.path("..data_tmp"), directory.path("..data"));
    CHECK(watched.seen());
    directory.write(std::string(version) + "/weir.toml", "again");
    CHECK(watched.seen());
  }
}

TEST_CASE("a directory that does not exist cannot be watched") {
  const Directory directory;
  Engine engine;
  CHECK(FileWatch::open(*engine, directory.path("no/weir.toml"), [] {}) == nullptr);
}

TEST_CASE("many changes at once are more than one read, and none is overlooked") {
  const Directory directory;
  directory.write("weir.toml", "1");
  Watched watched(directory.path("weir.toml"));
  for (int i = 0; i < 500; ++i) {
    directory.write("a-file-with-a-rather-long-name-" + std::to_string(i), "x");
  }
  directory.write("weir.toml", "2");
  REQUIRE(watched.engine.run_until([&] { return watched.changes > 0; }));
}

TEST_CASE("further files are watched by the same descriptor, until others take their place") {
  const Directory directory;
  fs::create_directory(directory.path("keys"));
  directory.write("weir.toml", "1");
  directory.write("keys/a.key", "1");
  directory.write("keys/b.key", "1");
  directory.write("weir.crt", "1");
  Watched watched(directory.path("weir.toml"));
  CHECK(watched.watch->watch_also({directory.path("keys/a.key"), directory.path("weir.crt")})
            .empty());
  CHECK_FALSE(watched.seen());
  for (const char* name : {"weir.toml", "weir.crt", "keys/a.key"}) {
    directory.write(name, "2");
    CHECK(watched.seen());
  }
  directory.write("keys/b.key", "2");
  directory.write("a.key", "2");  // of that name in a watched directory, but not that file
  directory.write("keys/weir.toml", "2");
  CHECK_FALSE(watched.seen());

  CHECK(watched.watch->watch_also({directory.path("keys/b.key")}).empty());
  directory.write("keys/b.key", "3");
  CHECK(watched.seen());
  directory.write("keys/a.key", "3");
  directory.write("weir.crt", "3");
  CHECK_FALSE(watched.seen());
  directory.write("weir.toml", "3");
  CHECK(watched.seen());

  CHECK(watched.watch->watch_also({}).empty());
  directory.write("keys/b.key", "4");
  CHECK_FALSE(watched.seen());
}

TEST_CASE("two files by the same link of a directory, and one that has no directory") {
  const Directory directory;
  for (const char* version : {"v1", "v2"}) {
    fs::create_directory(directory.path(version));
    directory.write(std::string(version) + "/a.crt", version);
    directory.write(std::string(version) + "/a.key", version);
  }
  fs::create_directory_symlink(directory.path("v1"), directory.path("now"));
  directory.write("weir.toml", "1");
  Watched watched(directory.path("weir.toml"));
  const std::string missing = directory.path("no/a.crt");
  CHECK(watched.watch->watch_also({directory.path("now/a.crt"), directory.path("now/a.key"),
                                   missing}) == std::vector<std::string>{missing});
  directory.write("v1/a.key", "1");
  CHECK(watched.seen());
  directory.write("v2/a.key", "1");
  CHECK_FALSE(watched.seen());
  fs::create_directory_symlink(directory.path("v2"), directory.path("next"));
  watched.seen();
  fs::rename(directory.path("next"), directory.path("now"));
  CHECK(watched.seen());
  directory.write("v2/a.crt", "2");
  CHECK(watched.seen());
  directory.write("v1/a.crt", "2");
  CHECK_FALSE(watched.seen());
}

TEST_CASE("links that lead in a circle end") {
  const Directory directory;
  fs::create_symlink(directory.path("b"), directory.path("a"));
  fs::create_symlink(directory.path("a"), directory.path("b"));
  Watched watched(directory.path("a"));
  fs::remove(directory.path("b"));
  directory.write("b", "1");
  CHECK(watched.seen());
}
