// The open-file cache: what goes first when there are too many files, names or bytes, what is read
// into memory, and that nothing stays open.
#include <memory>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "store_fixture.h"

using namespace weir;
using namespace weir::files;
using namespace weir::files::test;

namespace fs = std::filesystem;

// ---- bounds

TEST_CASE("the file that was used last stays open, the one used longest ago is closed first") {
  Bench bench({.entries_max = 3, .revalidate_ms = kForever});
  for (const auto name : {"a", "b", "c", "d", "e"}) bench.tree.write(name, "x");
  const size_t before = open_descriptors();
  for (const auto name : {"a", "b", "c"}) bench.file(name);
  CHECK(open_descriptors() == before + 3);
  CHECK(bench.known("a"));  // used once more
  bench.file("d");
  CHECK(bench.store.entries() == 3);
  CHECK(bench.store.open_files() == 3);
  CHECK(open_descriptors() == before + 3);
  CHECK_FALSE(bench.known("b"));
  CHECK(bench.known("c"));
  CHECK(bench.known("a"));
  CHECK(bench.known("d"));
  bench.file("e");
  CHECK_FALSE(bench.known("c"));
  CHECK(open_descriptors() == before + 3);
  bench.store.set_limits({.entries_max = 1, .revalidate_ms = kForever});
  CHECK(bench.store.entries() == 1);
  CHECK(bench.known("e"));
  CHECK(open_descriptors() == before + 1);
}

TEST_CASE("names that are not there are bounded too, and cost no open file") {
  Bench bench({.entries_max = 3, .revalidate_ms = kForever});
  for (const auto name : {"a", "b"}) bench.tree.write(name, "x");
  bench.file("a");
  bench.file("b");
  for (int i = 0; i < 10; ++i) CHECK(bench.why("missing" + std::to_string(i)) == Errc::kNotFound);
  CHECK(bench.store.entries() == 12);  // four times as many
  CHECK(bench.store.open_files() == 2);
  CHECK(bench.known("a"));
  CHECK(bench.why("missing10") == Errc::kNotFound);
  CHECK(bench.store.entries() == 12);
  CHECK_FALSE(bench.known("b"));  // used longest ago
  CHECK(bench.known("a"));
  for (int i = 11; i < 50; ++i) CHECK(bench.why("missing" + std::to_string(i)) == Errc::kNotFound);
  CHECK(bench.store.entries() == 12);
  CHECK_FALSE(bench.known("a"));
  CHECK(bench.store.open_files() == 0);
}

TEST_CASE("a look that confirms a name counts as a use") {
  Bench bench({.entries_max = 2, .revalidate_ms = 0});
  for (const auto name : {"a", "b", "c"}) bench.tree.write(name, "x");
  const OpenFile* const a = bench.file("a").get();
  bench.file("b");
  CHECK(bench.file("a").get() == a);
  bench.file("c");
  CHECK(bench.store.open_files() == 2);
  bench.store.set_limits({.entries_max = 2, .revalidate_ms = kForever});
  CHECK_FALSE(bench.known("b"));
  CHECK(bench.file("a").get() == a);
}

TEST_CASE("files that are in use count as open, whatever name they have by now") {
  Bench bench({.entries_max = 3, .revalidate_ms = kForever});
  for (const auto name : {"a", "b", "c", "d"}) bench.tree.write(name, "x");
  const size_t before = open_descriptors();
  std::vector<FileRef> held = {bench.file("a"), bench.file("b")};
  bench.file("c");
  bench.file("d");
  CHECK(open_descriptors() == before + 3);
  CHECK(bench.store.open_files() == 3);
  CHECK(bench.known("d"));
  CHECK(text_of(*held[0]) == "x");
  CHECK(text_of(*held[1]) == "x");
  held.clear();
  CHECK(open_descriptors() == before + bench.store.open_files());
}

TEST_CASE("with no room at all files are opened all the same, and closed by who used them") {
  Bench bench({.entries_max = 0, .memory_max = 0, .revalidate_ms = kForever});
  bench.tree.write("a", "text");
  const size_t before = open_descriptors();
  {
    const FileRef file = bench.file("a");
    CHECK(text_of(*file) == "text");
    CHECK_FALSE(bench.load(file));
    CHECK_FALSE(in_memory(*file));
    CHECK(open_descriptors() == before + 1);
    CHECK(bench.store.open_files() == 1);
  }
  CHECK(open_descriptors() == before);
  CHECK(bench.store.entries() == 0);
  CHECK(bench.store.open_files() == 0);
}

TEST_CASE("when descriptors are scarce, those of half the names go, last used stays") {
  Bench bench;
  for (int i = 0; i < 10; ++i) bench.tree.write("file" + std::to_string(i), "x");
  for (int i = 0; i < 10; ++i) bench.file("file" + std::to_string(i));
  const size_t before = open_descriptors();
  bench.store.give_up_half();
  CHECK(open_descriptors() == before - 5);
  CHECK_FALSE(bench.known("file4"));
  CHECK(bench.known("file5"));
  CHECK(bench.known("file9"));
  for (int i = 0; i < 5; ++i) bench.store.give_up_half();
  CHECK(bench.store.entries() == 0);
  CHECK(open_descriptors() == before - 10);
}

TEST_CASE("where the process has no descriptor left, the store gives some of its own") {
  Bench bench;
  for (int i = 0; i < 10; ++i) bench.tree.write("file" + std::to_string(i), "x");
  bench.tree.write("wanted", "here");
  for (int i = 0; i < 10; ++i) bench.file("file" + std::to_string(i));
  // The lookups have left gaps below the descriptors of the files.
  std::vector<int> fillers;
  while (fillers.size() < 40) fillers.push_back(dup(STDIN_FILENO));
  Result<FileRef> found = base::fail(Errc::kInvalid);
  {
    const DescriptorLimit limit;
    limit.set(lowest_free());
    found = bench.look("wanted");
  }
  for (const int fd : fillers) close(fd);
  REQUIRE(found);
  CHECK(text_of(**found) == "here");
  CHECK(bench.store.open_files() == 6);
  CHECK(bench.known("file9"));
  CHECK_FALSE(bench.known("file0"));
}

// ---- contents

TEST_CASE("a file is read into memory if it is small enough, and only a file") {
  Bench bench({.memory_max = 1000, .content_max = 100, .revalidate_ms = kForever});
  bench.tree.write("fits", std::string(100, 'x'));
  bench.tree.write("large", std::string(101, 'x'));
  bench.tree.write("empty", "");
  fs::create_directory(bench.tree.at("directory"));
  const FileRef fits = bench.file("fits");
  CHECK(bench.load(fits));
  CHECK(content_of(*fits) == std::string(100, 'x'));
  CHECK(bench.load(fits));  // no second time
  CHECK(bench.store.memory_bytes() == 100);
  const FileRef large = bench.file("large");
  CHECK_FALSE(bench.load(large));
  CHECK_FALSE(in_memory(*large));
  const FileRef empty = bench.file("empty");
  CHECK(bench.load(empty));
  CHECK(content_of(*empty).empty());
  CHECK_FALSE(bench.load(bench.file("directory")));
  CHECK(bench.store.memory_bytes() == 100);
  bench.store.set_limits({.memory_max = 50, .content_max = 1000, .revalidate_ms = kForever});
  CHECK(bench.store.memory_bytes() == 0);
  CHECK_FALSE(in_memory(*fits));
  CHECK_FALSE(bench.load(large));  // larger than all the room there is
}

TEST_CASE("a file is read whole, also one that is not in the page cache") {
  Bench bench({.content_max = 1 << 20, .revalidate_ms = kForever});
  std::string text;
  for (int i = 0; text.size() < 600'000; ++i) text += std::to_string(i);
  bench.tree.write("file", text);
  const int fd = open(bench.tree.at("file").c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0);
  REQUIRE(fsync(fd) == 0);
  REQUIRE(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
  close(fd);
  const FileRef file = bench.file("file");
  CHECK(bench.load(file));
  const bool same = content_of(*file) == text;
  CHECK(same);
  CHECK(bench.store.memory_bytes() == text.size());
}

TEST_CASE("bytes of a file that changes while it is read are not kept") {
  Bench bench;
  bench.tree.write("file", "the first text");
  const FileRef file = bench.file("file");
  int loaded = -1;
  bench.engine.tasks.spawn(load_into(bench.store, file, loaded));
  bench.engine->turn(false);
  REQUIRE(loaded == -1);  // the read is prepared: the next turn submits it
  const fs::path path = bench.tree.at("file");
  switch (GENERATE(0, 1, 2, 3)) {
    case 0: Tree::overwrite(path, "the other text"); break;
    case 1: Tree::overwrite(path, "less"); break;
    case 2: Tree::overwrite(path, ""); break;
    default: Tree::overwrite(path, "more than before, by far"); break;
  }
  REQUIRE(bench.engine.run_until([&] { return loaded != -1; }));
  CHECK(loaded == 0);
  CHECK_FALSE(in_memory(*file));
  CHECK(bench.store.memory_bytes() == 0);
  CHECK(bench.store.entries() == 1);
}

TEST_CASE("contents are bounded; those used longest ago go, and their files stay open") {
  Bench bench({.memory_max = 250, .content_max = 100, .revalidate_ms = kForever});
  for (const auto name : {"a", "b", "c"}) bench.tree.write(name, std::string(100, *name));
  for (const auto name : {"a", "b"}) CHECK(bench.load(bench.file(name)));
  CHECK(bench.store.memory_bytes() == 200);
  const FileRef a = bench.file("a");
  bench.store.note_use(*a);
  const size_t before = open_descriptors();
  CHECK(bench.load(bench.file("c")));
  CHECK(open_descriptors() == before + 1);
  CHECK(bench.store.memory_bytes() == 200);
  CHECK(content_of(*a) == std::string(100, 'a'));
  CHECK(bench.known("b"));
  CHECK_FALSE(in_memory(*bench.file("b")));
  CHECK(content_of(*bench.file("c")) == std::string(100, 'c'));
  bench.store.note_use(*bench.file("b"));  // it has none: nothing happens
  bench.store.set_limits({.memory_max = 100, .content_max = 100, .revalidate_ms = kForever});
  CHECK(bench.store.memory_bytes() == 100);
  CHECK_FALSE(in_memory(*a));
  CHECK(in_memory(*bench.file("c")));
}

TEST_CASE("contents that are being sent stay, and there is no room beside them") {
  Bench bench({.memory_max = 250, .content_max = 100, .revalidate_ms = kForever});
  for (const auto name : {"a", "b", "c"}) bench.tree.write(name, std::string(100, *name));
  const FileRef a = bench.file("a");
  const FileRef b = bench.file("b");
  const FileRef c = bench.file("c");
  CHECK(bench.load(a));
  CHECK(bench.load(b));
  ++a->senders;
  CHECK(bench.load(c));  // in the place of b, although a was used before
  CHECK(content_of(*a) == std::string(100, 'a'));
  CHECK_FALSE(in_memory(*b));
  ++c->senders;
  CHECK_FALSE(bench.load(b));
  CHECK_FALSE(in_memory(*b));
  bench.store.set_limits({.memory_max = 0, .content_max = 100, .revalidate_ms = kForever});
  CHECK(content_of(*a) == std::string(100, 'a'));
  CHECK(content_of(*c) == std::string(100, 'c'));
  CHECK(bench.store.memory_bytes() == 200);
  --a->senders;
  --c->senders;
  bench.store.set_limits({.memory_max = 100, .content_max = 100, .revalidate_ms = kForever});
  CHECK(bench.store.memory_bytes() == 100);
}

TEST_CASE("contents count as long as anybody holds their file") {
  Bench bench({.memory_max = 250, .content_max = 100, .revalidate_ms = kForever});
  for (const auto name : {"a", "b", "c"}) bench.tree.write(name, std::string(100, *name));
  FileRef a = bench.file("a");
  CHECK(bench.load(a));
  bench.tree.replace("a", "another");
  bench.store.set_limits({.memory_max = 250, .content_max = 100, .revalidate_ms = 0});
  CHECK(bench.file("a") != a);
  CHECK(bench.store.memory_bytes() == 100);
  CHECK(content_of(*a) == std::string(100, 'a'));
  a.reset();
  CHECK(bench.store.memory_bytes() == 0);
}

TEST_CASE("bytes for a file that has lost its name meanwhile count too") {
  Bench bench;
  bench.tree.write("file", std::string(100, 'x'));
  FileRef file = bench.file("file");
  int loaded = -1;
  bench.engine.tasks.spawn(load_into(bench.store, file, loaded));
  bench.engine->turn(false);
  bench.store.give_up_half();
  bench.store.give_up_half();
  CHECK(bench.store.entries() == 0);
  REQUIRE(bench.engine.run_until([&] { return loaded != -1; }));
  CHECK(bench.store.memory_bytes() == (in_memory(*file) ? 100 : 0));
  CHECK(loaded == (in_memory(*file) ? 1 : 0));
  file.reset();
  CHECK(bench.store.memory_bytes() == 0);
  CHECK(bench.store.open_files() == 0);
}

TEST_CASE("several who want the same bytes cost the room of one") {
  Bench bench({.memory_max = 1000, .content_max = 100, .revalidate_ms = kForever});
  bench.tree.write("file", std::string(100, 'x'));
  const FileRef file = bench.file("file");
  int loaded[4] = {-1, -1, -1, -1};
  for (int& one : loaded) bench.engine.tasks.spawn(load_into(bench.store, file, one));
  bench.engine->turn(false);
  CHECK(bench.store.memory_bytes() == 100);  // while they are read already
  REQUIRE(bench.engine.run_until([&] { return bench.engine.tasks.running() == 0; }));
  CHECK(loaded[0] == 1);
  for (const int one : loaded) CHECK(one != -1);
  CHECK(content_of(*file) == std::string(100, 'x'));
  CHECK(bench.store.memory_bytes() == 100);
}

TEST_CASE("bytes that are being read count: many files at once take no more than there is") {
  Bench bench({.memory_max = 250, .content_max = 100, .revalidate_ms = kForever});
  std::vector<FileRef> files;
  int loaded[6] = {-1, -1, -1, -1, -1, -1};
  for (const auto name : {"a", "b", "c", "d", "e", "f"}) {
    bench.tree.write(name, std::string(100, *name));
    files.push_back(bench.file(name));
  }
  for (size_t i = 0; i < files.size(); ++i) {
    bench.engine.tasks.spawn(load_into(bench.store, files[i], loaded[i]));
  }
  bench.engine->turn(false);
  CHECK(bench.store.memory_bytes() == 200);
  REQUIRE(bench.engine.run_until([&] { return bench.engine.tasks.running() == 0; }));
  size_t held = 0;
  for (size_t i = 0; i < files.size(); ++i) {
    if (in_memory(*files[i])) held += 100;
    CHECK(loaded[i] == (in_memory(*files[i]) ? 1 : 0));
  }
  CHECK(held == bench.store.memory_bytes());
  CHECK(held == 200);
}

TEST_CASE("less room while a file is read: its bytes are not kept") {
  Bench bench({.memory_max = 250, .content_max = 100, .revalidate_ms = kForever});
  bench.tree.write("file", std::string(100, 'x'));
  const FileRef file = bench.file("file");
  int loaded = -1;
  bench.engine.tasks.spawn(load_into(bench.store, file, loaded));
  bench.engine->turn(false);
  bench.store.set_limits({.memory_max = 50, .content_max = 100, .revalidate_ms = kForever});
  REQUIRE(bench.engine.run_until([&] { return loaded != -1; }));
  CHECK(loaded == 0);
  CHECK_FALSE(in_memory(*file));
  CHECK(bench.store.memory_bytes() == 0);
}

// ---- precompressed files

TEST_CASE("variants are fresh for a while, and until one of them is doubtful") {
  Bench bench({.revalidate_ms = 40});
  bench.tree.write("a", "plain");
  bench.tree.write("a.br", "br");
  const FileRef file = bench.file("a");
  CHECK_FALSE(bench.store.variants_fresh(*file));  // never looked for
  file->variants_checked_ms = bench.engine->now_ms();
  CHECK(bench.store.variants_fresh(*file));  // there are none
  bench.note_variant(file, bench.file("a.br"));
  CHECK(bench.store.variants_fresh(*file));
  file->variants[0]->doubtful = true;
  CHECK_FALSE(bench.store.variants_fresh(*file));
  bench.note_variant(file, bench.file("a.br"));
  CHECK(bench.store.variants_fresh(*file));
  bench.engine.pass(45);
  CHECK_FALSE(bench.store.variants_fresh(*file));
}

TEST_CASE("a variant that only its original holds still counts, open and in memory") {
  Bench bench({.entries_max = 4, .memory_max = 250, .content_max = 100, .revalidate_ms = kForever});
  for (const auto name : {"a", "a.br", "b", "c", "d"}) {
    bench.tree.write(name, std::string(100, *name));
  }
  const size_t before = open_descriptors();
  bench.note_variant(bench.file("a"), bench.file("a.br"));
  CHECK(bench.load(bench.file("a.br")));
  for (const auto name : {"b", "c"}) {
    bench.file(name);
    CHECK(bench.known("a"));
  }
  CHECK(open_descriptors() == before + 4);
  bench.file("d");
  // To forget the variant, the oldest, would close nothing: b goes.
  CHECK(bench.known("a.br"));
  CHECK_FALSE(bench.known("b"));
  CHECK(bench.known("a"));
  CHECK(open_descriptors() == before + 4);
  CHECK(bench.store.open_files() == 4);
  CHECK(bench.store.memory_bytes() == 100);
  CHECK(in_memory(*bench.file("a")->variants[0]));
  // Its bytes are the oldest, also for who makes room.
  CHECK(bench.load(bench.file("c")));
  CHECK(bench.load(bench.file("d")));
  CHECK(bench.store.memory_bytes() == 200);
  CHECK_FALSE(in_memory(*bench.file("a")->variants[0]));
  bench.store.set_limits({.entries_max = 0});
  CHECK(open_descriptors() == before);
  CHECK(bench.store.open_files() == 0);
  CHECK(bench.store.memory_bytes() == 0);
}

TEST_CASE("an original that goes takes its variants along as far as they are its own") {
  Bench bench;
  bench.tree.write("a", "plain");
  bench.tree.write("a.br", "br");
  const size_t before = open_descriptors();
  bench.note_variant(bench.file("a"), bench.file("a.br"));
  FileRef held = bench.file("a.br");
  bench.store.set_limits({.entries_max = 0});
  CHECK(bench.store.entries() == 0);
  CHECK(open_descriptors() == before + 1);
  CHECK(text_of(*held) == "br");
  held.reset();
  CHECK(bench.store.open_files() == 0);
}

// ---- the end

TEST_CASE("the store closes all that nobody holds") {
  const Tree tree;
  Engine engine;
  const size_t before = open_descriptors();
  Result<FileRef> held = base::fail(Errc::kInvalid);
  {
    Store store(engine.get(), {});
    for (int i = 0; i < 20; ++i) {
      const std::string name = "file" + std::to_string(i);
      tree.write(name, "text");
      REQUIRE(engine.run(open_into(store, tree.root(), name, LinkRule::kBelowRoot, held)));
      REQUIRE(held);
      int loaded = -1;
      REQUIRE(engine.run(load_into(store, *held, loaded)));
      CHECK(loaded == 1);
    }
    CHECK(open_descriptors() == before + 20);
    CHECK(store.memory_bytes() == 80);
    held = base::fail(Errc::kInvalid);
  }
  CHECK(open_descriptors() == before);
}
