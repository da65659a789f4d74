#include <weir/files/listing.h>

#include <algorithm>

#include "listing_text.h"

namespace weir::files {

Listing render_listing_json(const ListingPage& page, std::span<const ListingEntry> entries) {
  const ListingLinks links(page);
  Listing listing;
  std::string& out = listing.body;
  out.reserve(2 + std::min(entries.size(), kListingEntriesMax) * 128);
  out += '[';
  for (const ListingEntry& entry : entries) {
    if (listing.shown == kListingEntriesMax) break;
    const size_t before = out.size();
    out += listing.shown == 0 ? "\n{\"name\":\"" : ",\n{\"name\":\"";
    append_json(out, entry.name);
    out += entry.is_directory ? R"(","type":"directory")" : R"(","type":"file","size":)";
    if (!entry.is_directory) out += std::to_string(entry.size);
    out += R"(,"mtime":")";
    append_iso_time(out, entry.modified);
    out += R"(","href":")";
    links.append_entry(out, entry);
    out += "\"}";
    if (out.size() > kListingBytesMax) {
      out.resize(before);
      break;
    }
    ++listing.shown;
  }
  out += "\n]\n";
  listing.complete = !page.more && listing.shown == entries.size();
  return listing;
}

}  // namespace weir::files
