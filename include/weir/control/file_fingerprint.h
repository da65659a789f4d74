// Whether a file is still the one that was read: by its content, or, where weir may not read it any
// more (a key of root's, after the privileges are gone), by what the directory says about it.
// Control thread, or the command line. Only regular files up to kFingerprintBytesMax are read: a
// pipe would be emptied, and a device has no end.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace weir::control {

inline constexpr uint64_t kFingerprintBytesMax = uint64_t{128} << 20;

struct FileFingerprint {
  enum class State : uint8_t {
    kMissing,
    kDenied,  // there, but not to be read
    kRead,
  };
  State state = State::kMissing;
  uint64_t content = 0;  // a hash; 0 where the content was not read
  // Of the file itself. All 0: nothing is known about it, not even that.
  uint64_t inode = 0;
  int64_t size = 0;
  int64_t changed_s = 0;
  int64_t changed_ns = 0;
};

FileFingerprint fingerprint(const std::string& path);
// A file that was read and cannot be looked at any more counts as unchanged: nothing says that it
// has changed, and nothing could be done about it.
bool unchanged(const FileFingerprint& before, const FileFingerprint& now) noexcept;

using FileFingerprints = std::map<std::string, FileFingerprint>;
// Of those of `paths` that are not in `known` yet.
void add_fingerprints(const std::vector<std::string>& paths, FileFingerprints& known);

}  // namespace weir::control
