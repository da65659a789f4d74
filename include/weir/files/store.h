// The files of one core that are open: descriptor, stamp, validators, and the bytes of small ones.
// A hot file costs no system call; once in `revalidate_ms` its name is looked up again. What is not
// there is remembered as long. Bounded by entries and by bytes, used last first. One thread; never
// blocks on a disk for names (the ring opens them); who holds a FileRef keeps that file open.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include <weir/base/intrusive_list.h>
#include <weir/base/result.h>
#include <weir/files/coding.h>
#include <weir/files/etag.h>
#include <weir/runtime/reactor.h>
#include <weir/runtime/task.h>

namespace weir::files {

struct StoreLimits {
  uint32_t entries_max = 1024;      // open files; and four times as many names
  uint64_t memory_max = 32 << 20;   // bytes of contents
  uint64_t content_max = 64 << 10;  // of one file
  uint32_t revalidate_ms = 1000;
};

enum class FileKind : uint8_t { kRegular, kDirectory };

// Symbolic links on the way to a file.
enum class LinkRule : uint8_t {
  kBelowRoot,  // followed as long as they stay below the root (openat2(2), RESOLVE_BENEATH)
  kAnywhere,
  kNone,
};

struct OpenFile;

// What all open files of a store take, also those that only an exchange or an original still holds.
struct StoreUse {
  uint32_t open = 0;
  uint64_t content_bytes = 0;  // also of those that are being read
  uint32_t contents_count = 0;
  base::IntrusiveList<OpenFile> contents;  // last used first
};

struct OpenFile : base::ListNode {
  int fd = -1;
  FileKind kind = FileKind::kRegular;
  FileStamp stamp;
  EntityTag tag;                    // empty: not settled yet
  std::optional<int64_t> modified;  // seconds, to be sent; empty: none
  std::unique_ptr<char[]> content;  // null: not in memory
  bool loading = false;             // somebody reads it into memory
  uint32_t senders = 0;             // of the content: it stays while there are any
  // Precompressed ones beside it, in the order of kCodings; null where there is none. Found by who
  // serves the file.
  std::array<std::shared_ptr<OpenFile>, kCodings.size()> variants;
  uint64_t variants_checked_ms = 0;  // 0: never
  // Until then so many bytes from its start count as in memory, without being asked for again.
  uint64_t warm_until_ms = 0;
  uint64_t warm_bytes = 0;
  bool asks_at_once = true;  // false: its file system cannot say what is in memory (RWF_NOWAIT)
  bool doubtful = false;     // not what its stamp says: not to be given out again

  explicit OpenFile(StoreUse& store) noexcept : use(store) { ++use.open; }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  ~OpenFile();
  void forget_content() noexcept;

  StoreUse& use;
};
// Shared by the store and the exchanges of its core; not by other threads.
using FileRef = std::shared_ptr<OpenFile>;

class Store {
 public:
  Store(runtime::Reactor& reactor, const StoreLimits& limits) noexcept;
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  ~Store();

  void set_limits(const StoreLimits& limits) noexcept;

  // `root`: an absolute path, a directory or (then `path` is ".") a file. `path`: relative, as
  // resolve_file_path() makes it. Regular files and directories only: kNotFound for anything else,
  // and for whatever leads outside; kPermission; kNoFiles; kIo.
  runtime::Task<base::Result<FileRef>> open(std::string root, std::string path, LinkRule links);
  // The same without waiting, if it is known and fresh.
  [[nodiscard]] std::optional<base::Result<FileRef>> try_open(std::string_view root,
                                                              std::string_view path,
                                                              LinkRule links) noexcept;

  // Reads the whole file into memory, if that is allowed for its size and there is room. Bytes that
  // changed while they were read are not kept. False: it is not in memory, or not yet.
  runtime::Task<bool> load(FileRef file);
  // Its content was served: it is not the next to go.
  void note_use(OpenFile& file) noexcept;
  // Descriptors are scarce: closes those of the files that were not asked for lately, half of all.
  void give_up_half() noexcept;

  [[nodiscard]] bool variants_fresh(const OpenFile& file) const noexcept {
    for (const auto& variant : file.variants) {
      if (variant && variant->doubtful) return false;
    }
    return file.variants_checked_ms != 0 &&
           reactor_.now_ms() - file.variants_checked_ms < limits_.revalidate_ms;
  }
  [[nodiscard]] size_t entries() const noexcept { return entries_.size(); }
  [[nodiscard]] uint32_t open_files() const noexcept { return use_.open; }
  [[nodiscard]] uint64_t memory_bytes() const noexcept { return use_.content_bytes; }

 private:
  // What is known of one name.
  struct Entry : base::ListNode {
    std::string key;
    base::Error error;  // kOk: `file`
    FileRef file;
    uint64_t checked_ms = 0;
  };
  static void make_key(std::string_view root, std::string_view path, LinkRule links,
                       std::string& out);
  [[nodiscard]] bool fresh(const Entry& entry) const noexcept;
  void keep(std::string key, base::Error error, FileRef file);
  void drop(Entry& entry) noexcept;
  void make_room() noexcept;
  bool make_room_for(uint64_t content_bytes) noexcept;
  void touch(Entry& entry) noexcept;
  runtime::Task<int> open_below(const std::string& root, const std::string& path, LinkRule links);
  runtime::Task<int> open_name(int directory, const char* path, uint64_t flags, uint64_t resolve);

  runtime::Reactor& reactor_;
  StoreLimits limits_;
  StoreUse use_;
  std::string key_;  // of the lookup under way
  struct KeyHash {
    using is_transparent = void;
    size_t operator()(std::string_view key) const noexcept {
      return std::hash<std::string_view>{}(key);
    }
  };
  std::unordered_map<std::string_view, std::unique_ptr<Entry>, KeyHash, std::equal_to<>> entries_;
  base::IntrusiveList<Entry> order_;  // last used first
};

}  // namespace weir::files
