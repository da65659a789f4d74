// Content types by file name. Built once by control when the configuration is loaded, then
// immutable and read by all cores without synchronisation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <weir/files/coding.h>

namespace weir::files {

inline constexpr size_t kMimeTableBytesMax = 4 * 1024 * 1024;
inline constexpr size_t kMimeExtensionsMax = 65536;
inline constexpr size_t kMimeExtensionBytesMax = 40;
inline constexpr size_t kMimeTypeBytesMax = 255;

struct MimeOverride {
  std::string_view extension;  // "md" or ".md", may have a dot inside ("spdx.json")
  std::string_view type;       // "text/markdown", may have parameters
};

struct MimeSettings {
  // The text of a mime.types file: in each line a type and its extensions, '#' begins a comment.
  // Lines that make no sense are skipped and counted: the file is the system's, not ours.
  std::string_view table{};
  std::span<const MimeOverride> overrides{};
  std::string_view default_type = "application/octet-stream";  // empty: no Content-Type
  std::string_view charset = "utf-8";                          // empty: none is named
};

// Where an extension's type comes from, the first that has it: overrides; `table`, in which the
// last line wins; the built-in table. Two types that Debian's table gives for the desktop are not
// taken from `table`: .ts is video/mp2t (not a Qt translation), .rss is application/rss+xml.
//
// "; charset=..." is added, unless the type names one itself, to text/*, JavaScript and the XML
// types that browsers show (application/xml, xhtml, atom, rss, image/svg+xml). JSON is UTF-8 by
// definition (RFC 8259) and has no such parameter.
class MimeTypes {
 public:
  // An error is a sentence about an override, the default type or the charset, or says that the
  // table is too large.
  static std::expected<MimeTypes, std::string> build(const MimeSettings& settings);

  // The whole value of Content-Type for the bytes of that file as they are: "a.css.gz" is
  // application/gzip. By the extension of the last segment, its case ignored; of "x.spdx.json" the
  // extension is "spdx.json" if there is a type for that, else "json". A dot at the start makes no
  // extension. Valid as long as this object.
  [[nodiscard]] std::string_view lookup(std::string_view path) const noexcept;

  // The same for what is inside: the type of "a.css.gz", "a.css.br" and "a.css.zst" is text/css.
  // For who sends Content-Encoding with it; `coding` says which.
  struct Inner {
    std::string_view type;
    Coding coding = Coding::kIdentity;
  };
  [[nodiscard]] Inner lookup_inner(std::string_view path) const noexcept;

  [[nodiscard]] size_t extensions() const noexcept { return entries_.size(); }
  [[nodiscard]] size_t skipped_lines() const noexcept { return skipped_lines_; }

 private:
  // Offsets, not views: the object can be moved.
  struct Entry {
    uint32_t extension_at = 0;
    uint32_t type_at = 0;
    uint16_t extension_size = 0;
    uint16_t type_size = 0;
  };
  MimeTypes() = default;
  [[nodiscard]] std::string_view extension(const Entry& entry) const noexcept;
  [[nodiscard]] const Entry* find(std::string_view lower_case_extension) const noexcept;

  std::string text_;
  std::vector<Entry> entries_;  // sorted by extension
  Entry default_;
  size_t skipped_lines_ = 0;
  bool has_compound_ = false;  // some extension has a dot inside
};

}  // namespace weir::files
