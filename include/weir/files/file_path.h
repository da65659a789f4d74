// From the path of a request to a path below a directory. The first of two walls: what comes out
// cannot leave the root by its text; symbolic links are for openat2(2) with RESOLVE_BENEATH. Pure
// functions, any thread; nothing allocates. Nothing is decoded twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string_view>

namespace weir::files {

inline constexpr size_t kNameBytesMax = 255;       // NAME_MAX
inline constexpr size_t kFilePathBytesMax = 4095;  // PATH_MAX without the NUL

struct FilePathRules {
  bool allow_hidden = false;  // names that begin with a dot
};

// Why there is no such file. The client is told 404 in every case; the log may say more.
enum class PathRefusal : uint8_t {
  kOutsideRoute,  // the path is not below the route's: a mistake of the caller
  kBadEscape,     // '%' without two hex digits
  kBadByte,       // a control byte or NUL (raw or escaped), raw '?' or '#'
  kEscapedSlash,  // %2F
  kBackslash,     // raw or escaped: a separator to some file systems and gateways
  kOverlong,      // ASCII in an overlong UTF-8 form: a dot or slash to sloppy decoders
  kEmptySegment,  // "//"
  kDotSegment,    // "." or ".." after decoding
  kHidden,        // begins with a dot and is not ".well-known"
  kNameTooLong,   // longer than kNameBytesMax
  kPathTooLong,   // longer than kFilePathBytesMax, or than the scratch bytes
};
std::string_view refusal_text(PathRefusal why) noexcept;

struct FilePath {
  // Relative, without empty and dot segments and without a slash at either end; "." for the root
  // itself. A NUL follows it, so that data() can be given to the kernel.
  std::string_view path;
  // The request had a slash at its end: only a directory will do.
  bool must_be_directory = false;
};

// `route_path` is Route::path, which matched `request_path` (normalised by http::normalise_path;
// other text is refused or harmless, never dangerous). The file's path is written to `scratch`,
// which must have room for its NUL: kFilePathBytesMax + 1 bytes suffice for every path.
std::expected<FilePath, PathRefusal> resolve_file_path(std::string_view route_path,
                                                       std::string_view request_path,
                                                       FilePathRules rules,
                                                       std::span<char> scratch) noexcept;

// Could a request name this entry of a directory? If not, a listing must not show it: the link
// would lead to 404.
bool is_servable_name(std::string_view name, FilePathRules rules) noexcept;

}  // namespace weir::files
