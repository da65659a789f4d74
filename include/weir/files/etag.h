// The validators of a file: ETag and Last-Modified, and when there must be none. Pure values made
// from stat(2), any thread; nothing allocates.
//
// A strong tag promises: same tag, same bytes. Ranges of two answers are put together on that
// promise. What weir's tags rest on, and where that ends:
//
//  1. A tag is the modification time in nanoseconds and the size: "<mtime>-<size>" in hex. Both
//     are the same on every machine to which a deployment keeps times (rsync -t, tar, image
//     layers), so several weirs behind one name agree. Inode and change time never agree and are
//     left out (unless asked for, see 4).
//  2. Kernel time stamps advance in ticks (up to 10 ms; whole seconds on some file systems). A
//     file written twice within a tick keeps its stamp. So a file has no tag at all until its
//     stamp is older than a tick can be: is_settled(). A weak tag would not do: it would equal the
//     later strong one where tags are compared weakly, and 304 would confirm the older bytes.
//  3. Some deployments set all times to one constant (0, 1, or 1980-01-01: Nix, zip, reproducible
//     builds). Such a time says nothing: the tag is then made as in 4, and Last-Modified is not
//     sent.
//  4. TagSource::kMachine adds change time and inode. It also sees a file whose modification time
//     was set back by hand after a change of equal size, which kModified cannot see (`cp -p` of a
//     file of the same size and time). Tags then differ between machines.
//  5. Pages written through mmap(2) get their stamp when they are first dirtied, not at each store:
//     nothing made from stat(2) sees every change of a file written in place so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include <weir/files/coding.h>

namespace weir::files {

// From struct stat; times in nanoseconds since 1970.
struct FileStamp {
  int64_t modified_ns = 0;
  int64_t changed_ns = 0;
  uint64_t size = 0;
  uint64_t inode = 0;
  friend bool operator==(const FileStamp&, const FileStamp&) = default;
};

enum class TagSource : uint8_t { kModified, kMachine };

// A strong entity-tag as it is sent, with its quotes; or nothing.
class EntityTag {
 public:
  static constexpr size_t kBytesMax = 80;
  [[nodiscard]] std::string_view view() const noexcept { return {text_, size_}; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }

 private:
  friend EntityTag make_entity_tag(const FileStamp&, Coding, TagSource) noexcept;
  char text_[kBytesMax];  // only size_ of them are set
  uint8_t size_ = 0;
};

// Is the modification time one that a clock made (see 3)?
bool has_real_time(const FileStamp& stamp) noexcept;

// Can the file no longer change without a change of its stamp (see 2)? `now_ns` must not be later
// than the stat(2) that gave the stamp. A stamp more than two seconds in the future counts as
// settled: a write would set it back to now.
bool is_settled(const FileStamp& stamp, int64_t now_ns,
                TagSource source = TagSource::kModified) noexcept;

// The tag of a settled file. `stamp` is of the file whose bytes are sent: the .br file has a tag of
// its own, and `coding` sees to it that it is never that of the original.
EntityTag make_entity_tag(const FileStamp& stamp, Coding coding = Coding::kIdentity,
                          TagSource source = TagSource::kModified) noexcept;

// Last-Modified in seconds, rounded down. Empty, so that no such field is sent, when the file's
// time is no real one, or is not in a second before now: the file could change once more within
// the second, and RFC 9110 8.8.2.1 forbids a date in the future. So every date that is sent is a
// strong validator (8.8.2.2).
std::optional<int64_t> last_modified_to_send(const FileStamp& stamp, int64_t now_ns) noexcept;

}  // namespace weir::files
