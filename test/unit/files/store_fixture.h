// A store on a directory of its own, for the tests of what it finds and of its bounds.
#pragma once

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include <weir/files/store.h>

#include "../runtime/engine.h"

namespace weir::files::test {

using base::Errc;
using base::Result;
using runtime::Task;
using runtime::test::Engine;

inline constexpr uint32_t kForever = 3'600'000;

inline size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
    ++count;
  return count;
}

// A directory with "root" and "outside" in it; gone at the end.
class Tree {
 public:
  Tree() {
    std::string name = (std::filesystem::temp_directory_path() / "weir_store_XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    top_ = std::filesystem::canonical(name);
    std::filesystem::permissions(top_, std::filesystem::perms(0755));
    std::filesystem::create_directories(top_ / "root");
    std::filesystem::create_directories(top_ / "outside");
  }
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;
  ~Tree() {
    std::error_code ignored;
    std::filesystem::remove_all(top_, ignored);
  }

  [[nodiscard]] std::string root() const { return (top_ / "root").string(); }
  [[nodiscard]] std::filesystem::path at(const std::filesystem::path& name) const {
    return top_ / "root" / name;
  }
  [[nodiscard]] std::filesystem::path outside(std::string_view name) const {
    return top_ / "outside" / name;
  }

  // A file, below the root unless the path is absolute, that nobody has touched for an hour.
  void write(const std::filesystem::path& name, std::string_view text) const {
    const std::filesystem::path path = at(name);
    std::filesystem::create_directories(path.parent_path());
    overwrite(path, text);
    set_age(path, std::chrono::hours(1));
  }
  static void overwrite(const std::filesystem::path& path, std::string_view text) {
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out << text;
    out.close();
    REQUIRE(out.good());
  }
  static void set_age(const std::filesystem::path& path, std::chrono::nanoseconds age) {
    std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now() - age);
  }
  // What editors and deployments do: a new file takes the name.
  void replace(std::string_view name, std::string_view text) const {
    write(".new", text);
    std::filesystem::rename(at(".new"), at(name));
  }
  void link(std::string_view name, const std::filesystem::path& to) const {
    std::filesystem::create_directories(at(name).parent_path());
    std::filesystem::create_symlink(to, at(name));
  }

 private:
  std::filesystem::path top_;
};

inline Task<> open_into(Store& store, std::string root, std::string path, LinkRule links,
                        Result<FileRef>& out) {
  out = co_await store.open(std::move(root), std::move(path), links);
}

inline Task<> load_into(Store& store, FileRef file, int& out) {
  const bool loaded = co_await store.load(std::move(file));
  out = loaded ? 1 : 0;
}

struct Bench {
  explicit Bench(const StoreLimits& limits = {.revalidate_ms = kForever})
      : store(engine.get(), limits) {}

  Result<FileRef> open_in(const std::string& root, std::string_view path,
                          LinkRule links = LinkRule::kBelowRoot) {
    Result<FileRef> found = base::fail(Errc::kInvalid);
    REQUIRE(engine.run(open_into(store, root, std::string(path), links, found)));
    return found;
  }
  Result<FileRef> look(std::string_view path, LinkRule links = LinkRule::kBelowRoot) {
    return open_in(tree.root(), path, links);
  }
  // A file that must be there.
  FileRef file(std::string_view path, LinkRule links = LinkRule::kBelowRoot) {
    CAPTURE(path);
    auto found = look(path, links);
    REQUIRE(found);
    REQUIRE(*found);
    return std::move(*found);
  }
  Errc why(std::string_view path, LinkRule links = LinkRule::kBelowRoot) {
    const auto found = look(path, links);
    return found ? Errc::kOk : found.error().code;
  }
  // Known without a look at the disk.
  bool known(std::string_view path, LinkRule links = LinkRule::kBelowRoot) {
    return store.try_open(tree.root(), path, links).has_value();
  }
  bool load(const FileRef& one) {
    int loaded = -1;
    REQUIRE(engine.run(load_into(store, one, loaded)));
    REQUIRE(loaded >= 0);
    return loaded == 1;
  }
  // `br` beside the file, as who serves it notes it.
  void note_variant(const FileRef& original, const FileRef& variant) {
    original->variants[0] = variant;
    original->variants_checked_ms = engine->now_ms();
  }

  Tree tree;
  Engine engine;
  Store store;
};

inline std::string text_of(const OpenFile& file) {
  std::string text(file.stamp.size + 1, '\0');
  const ssize_t got = pread(file.fd, text.data(), text.size(), 0);
  REQUIRE(got >= 0);
  text.resize(static_cast<size_t>(got));
  return text;
}

inline bool in_memory(const OpenFile& file) { return file.content != nullptr; }

inline std::string_view content_of(const OpenFile& file) {
  REQUIRE(in_memory(file));
  return {file.content.get(), file.stamp.size};
}

// The limit of open descriptors, put back at the end.
class DescriptorLimit {
 public:
  DescriptorLimit() { REQUIRE(getrlimit(RLIMIT_NOFILE, &before_) == 0); }
  DescriptorLimit(const DescriptorLimit&) = delete;
  DescriptorLimit& operator=(const DescriptorLimit&) = delete;
  ~DescriptorLimit() { setrlimit(RLIMIT_NOFILE, &before_); }
  void set(rlim_t descriptors) const {
    const rlimit now{.rlim_cur = descriptors, .rlim_max = before_.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &now) == 0);
  }

 private:
  rlimit before_{};
};

// As a limit: nothing more can be opened.
inline rlim_t lowest_free() {
  const int fd = dup(STDIN_FILENO);
  REQUIRE(fd >= 0);
  close(fd);
  return static_cast<rlim_t>(fd);
}

}  // namespace weir::files::test
