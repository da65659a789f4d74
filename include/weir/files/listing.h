// The listing of a directory as HTML or JSON. Pure functions, any thread; time and memory grow with
// the number of entries, both bounded here. A large listing takes milliseconds: who calls this on a
// core must have bounded the entries further.
//
// The HTML is one page without script, in the colours that the browser asks for; all links are
// relative to the request, so that they hold behind a proxy that changes the prefix, and for a path
// without trailing slash.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <weir/http/head.h>

namespace weir::files {

inline constexpr size_t kListingEntriesMax = 10'000;
inline constexpr size_t kListingBytesMax = 8 * 1024 * 1024;

inline constexpr std::string_view kListingHtmlType = "text/html; charset=utf-8";
inline constexpr std::string_view kListingJsonType = "application/json";
// Content-Security-Policy for the HTML: nothing but its own style.
inline constexpr std::string_view kListingPolicy =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'";

struct ListingEntry {
  std::string_view name;  // any bytes but '/' and NUL
  bool is_directory = false;
  uint64_t size = 0;     // files only
  int64_t modified = 0;  // seconds since 1970
};

enum class ListingFormat : uint8_t { kHtml, kJson };
enum class ListingSort : uint8_t { kName, kSize, kModified };

// What "?format=json&sort=size&order=desc" asks for. Unknown keys and values are passed over, of a
// repeated key the last counts.
struct ListingOptions {
  std::optional<ListingFormat> format;
  ListingSort sort = ListingSort::kName;
  bool descending = false;
};
ListingOptions parse_listing_query(std::string_view query) noexcept;

// `options.format`, else by Accept (send "Vary: Accept"): JSON if it weighs more than HTML.
ListingFormat choose_listing_format(const ListingOptions& options,
                                    const http::FieldTable& fields) noexcept;

// Directories first, then by the key, then by name; names without regard to ASCII case.
void sort_listing(std::span<ListingEntry> entries, const ListingOptions& options) noexcept;

struct ListingPage {
  std::string_view path{};        // of the request, normalised, with or without slash at its end
  std::string_view route_path{};  // Route::path: links lead no higher
  ListingOptions options{};
  bool more = false;  // the directory has entries that were not given
};

struct Listing {
  std::string body;
  size_t shown = 0;
  // The body has all entries. If not, the HTML says so; for JSON, which is a bare array, only a
  // header field can.
  bool complete = true;
};

// `entries` must be sorted; at most kListingEntriesMax of them are taken, and fewer when the body
// would grow beyond kListingBytesMax.
Listing render_listing_html(const ListingPage& page, std::span<const ListingEntry> entries);

// An array of objects: name, type ("file" or "directory"), size (files only), mtime (UTC, RFC 3339)
// and href, relative to the request, which is exact also where the name is not valid UTF-8 and has
// replacement characters.
Listing render_listing_json(const ListingPage& page, std::span<const ListingEntry> entries);

}  // namespace weir::files
