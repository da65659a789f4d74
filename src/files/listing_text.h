// Text for listings: names, links, sizes and times in HTML and JSON. Private to the files room;
// everything appends to a string of the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <weir/files/listing.h>

namespace weir::files {

// HTML text or a double-quoted attribute. What is not UTF-8, control characters, and the marks that
// change the direction of the text around them become U+FFFD: a name must not pose as another one.
void append_html(std::string& out, std::string_view text);

// The inside of a JSON string. What is not UTF-8 becomes U+FFFD. '<' and '&' are escaped, so that
// the text is inert also where somebody takes it for HTML.
void append_json(std::string& out, std::string_view text);

// Percent-encodes all but the unreserved characters.
void append_percent_encoded(std::string& out, std::string_view bytes);
// The same for a segment that is percent-encoded already: its escapes stay.
void append_reencoded(std::string& out, std::string_view segment);
std::string percent_decoded(std::string_view segment);

// "0 B", "1023 B", "1.0 KiB", "9.9 KiB", "10 KiB", "1.0 MiB".
void append_human_size(std::string& out, uint64_t bytes);

// "2026-01-31T23:59:59Z"; years 0000 to 9999, other times are clamped.
void append_iso_time(std::string& out, int64_t seconds);

// Where a page's relative links lead. They are made for the path as it was asked for: from
// "/a/b" the entry x is "./b/x", from "/a/b/" it is "./x".
class ListingLinks {
 public:
  explicit ListingLinks(const ListingPage& page);

  // How many segments the directory is below the route's own.
  [[nodiscard]] size_t depth() const noexcept { return depth_; }
  // The directory itself (0), its parent (1), and so on.
  void append_up(std::string& out, size_t levels) const;
  void append_entry(std::string& out, const ListingEntry& entry) const;
  // The segments below the route, first to last; `index` < depth(). Still percent-encoded.
  [[nodiscard]] std::string_view segment(size_t index) const noexcept;

 private:
  std::string_view below_;  // segments joined by '/', without slash at either end
  size_t depth_ = 0;
  std::string here_;  // "./", or "./b/" for a path without slash at its end
};

}  // namespace weir::files
