#include <weir/files/listing.h>

#include <algorithm>

#include "listing_text.h"

namespace weir::files {

namespace {

constexpr std::string_view kHeadBegin = R"(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>)";

constexpr std::string_view kHeadEnd = R"html(</title>
<style>
:root{--ink:#1c2430;--soft:#667080;--line:#e3e7ec;--back:#f6f7f9;--card:#fff;--link:#0b5cad;
--hover:#f0f5fb;--fold:#d9982b;--file:#93a0b0}
@media(prefers-color-scheme:dark){:root{--ink:#dfe5ec;--soft:#8d98a6;--line:#2b323b;--back:#14181d;
--card:#1b2026;--link:#7ab7ff;--hover:#222a33;--fold:#e0ab4f;--file:#6f7c8b}}
*{box-sizing:border-box}
body{margin:0;padding:2rem 1rem;background:var(--back);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:60rem;margin:0 auto}
h1{font-size:1.15rem;font-weight:600;margin:0 0 1rem;overflow-wrap:anywhere}
h1 i{font-style:normal;font-weight:400;color:var(--soft);padding:0 .3em}
a{color:var(--link);text-decoration:none}
a:hover{text-decoration:underline}
table{width:100%;border-collapse:separate;border-spacing:0;background:var(--card);
border:1px solid var(--line);border-radius:8px;overflow:hidden}
th,td{padding:.45rem .9rem;text-align:left;border-bottom:1px solid var(--line)}
tbody tr:last-child td{border-bottom:0}
tbody tr:hover td{background:var(--hover)}
th{font-size:.82rem;font-weight:600;white-space:nowrap}
th a{color:var(--soft)}
td a{display:block;overflow-wrap:anywhere;padding-left:1.75rem;position:relative}
svg{position:absolute;left:0;top:.2rem;width:1.15rem;height:1.15rem;fill:none;stroke:var(--file);
stroke-width:1.6;stroke-linejoin:round}
.n{display:none}.o{fill:var(--fold);stroke:none}
.s,.t{text-align:right;white-space:nowrap;color:var(--soft);font-variant-numeric:tabular-nums}
.s{width:7rem}.t{width:11rem}
p{color:var(--soft);font-size:.85rem;margin:.8rem .2rem}
p.e{text-align:center;margin:1.5rem}
p.m{color:var(--ink);font-weight:600}
@media(max-width:36rem){.t{display:none}body{padding:1rem .5rem}th,td{padding:.45rem .6rem}
.s{width:5.5rem}}
</style>
</head>
<body>
<svg class="n">
<symbol id="d" viewBox="0 0 20 20"><path class="o"
d="M2 5a2 2 0 0 1 2-2h4l2 2h6a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2H4a2 2 0 0 1-2-2z"/></symbol>
<symbol id="f" viewBox="0 0 20 20"><path d="M4.5 2.5h7l4 4v11h-11zM11.5 2.5v4h4"/></symbol>
<symbol id="u" viewBox="0 0 20 20"><path d="M10 16V5M5 9.5 10 4.5l5 5"/></symbol>
</svg>
<main>
)html";

constexpr std::string_view kEnd = "</main>\n</body>\n</html>\n";

// The title: "Index of /static/a b/".
void append_title(std::string& out, const ListingPage& page) {
  out += "Index of ";
  append_html(out, percent_decoded(page.path));
  if (!page.path.ends_with('/')) out += '/';
}

// Where the directory is, from the route's own down; each step but the last is a link.
void append_crumbs(std::string& out, const ListingPage& page, const ListingLinks& links) {
  std::string_view route = page.route_path;
  if (route.ends_with('/')) route.remove_suffix(1);
  out += "<h1>";
  for (size_t i = 0; i <= links.depth(); ++i) {
    const size_t up = links.depth() - i;
    if (i > 0) out += "<i>/</i>";
    if (up != 0) {
      out += "<a href=\"";
      links.append_up(out, up);
      out += "\">";
    }
    out += "<bdi>";
    if (i > 0) {
      append_html(out, percent_decoded(links.segment(i - 1)));
    } else if (route.empty()) {
      out += "Index";
    } else {
      append_html(out, percent_decoded(route));
    }
    out += "</bdi>";
    if (up != 0) out += "</a>";
  }
  out += "</h1>\n";
}

// A column's head: a link that sorts by it, or the other way round if it is sorted by it already.
void append_column(std::string& out, const ListingOptions& options, ListingSort key,
                   std::string_view title, std::string_view word, std::string_view kind) {
  const bool current = options.sort == key;
  const bool descends = current && options.descending;
  out += "<th scope=\"col\"";
  if (!kind.empty()) {
    out += " class=\"";
    out += kind;
    out += '"';
  }
  if (current) out += descends ? " aria-sort=\"descending\"" : " aria-sort=\"ascending\"";
  out += "><a href=\"?";
  if (options.format == ListingFormat::kHtml) out += "format=html&amp;";
  out += "sort=";
  out += word;
  // The newest and the largest are what one looks for first.
  const bool next_descends = current ? !descends : key != ListingSort::kName;
  out += next_descends ? "&amp;order=desc\">" : "&amp;order=asc\">";
  out += title;
  if (current) out += descends ? " \xe2\x96\xbe" : " \xe2\x96\xb4";
  out += "</a></th>";
}

void append_columns(std::string& out, const ListingOptions& options) {
  out += "<table>\n<thead><tr>";
  append_column(out, options, ListingSort::kName, "Name", "name", "");
  append_column(out, options, ListingSort::kSize, "Size", "size", "s");
  append_column(out, options, ListingSort::kModified, "Modified (UTC)", "time", "t");
  out += "</tr></thead>\n<tbody>\n";
}

void append_row(std::string& out, const ListingLinks& links, const ListingEntry& entry) {
  out += "<tr><td><a href=\"";
  links.append_entry(out, entry);
  out += entry.is_directory ? "\"><svg><use href=\"#d\"/></svg><bdi>"
                            : "\"><svg><use href=\"#f\"/></svg><bdi>";
  append_html(out, entry.name);
  out +=
      entry.is_directory ? "/</bdi></a></td><td class=\"s\">" : "</bdi></a></td><td class=\"s\">";
  if (entry.is_directory) {
    out += "\xe2\x80\x93";  // there is no size to tell
  } else {
    append_human_size(out, entry.size);
  }
  std::string time;
  append_iso_time(time, entry.modified);
  out += "</td><td class=\"t\"><time datetime=\"";
  out += time;
  out += "\">";
  out.append(time, 0, 10);
  out += ' ';
  out.append(time, 11, 5);
  out += "</time></td></tr>\n";
}

void append_count(std::string& out, size_t count, std::string_view one, std::string_view many) {
  out += std::to_string(count);
  out += ' ';
  out += count == 1 ? one : many;
}

void append_totals(std::string& out, std::span<const ListingEntry> shown) {
  size_t directories = 0;
  uint64_t bytes = 0;
  for (const ListingEntry& entry : shown) {
    if (entry.is_directory) {
      ++directories;
    } else if (__builtin_add_overflow(bytes, entry.size, &bytes)) {
      bytes = UINT64_MAX;
    }
  }
  const size_t files = shown.size() - directories;
  out += "<p>";
  append_count(out, directories, "directory", "directories");
  out += ", ";
  append_count(out, files, "file", "files");
  if (files != 0) {
    out += ", ";
    append_human_size(out, bytes);
  }
  out += "</p>\n";
}

}  // namespace

Listing render_listing_html(const ListingPage& page, std::span<const ListingEntry> entries) {
  const ListingLinks links(page);
  Listing listing;
  std::string& out = listing.body;
  out.reserve(kHeadBegin.size() + kHeadEnd.size() + 1024 +
              std::min(entries.size(), kListingEntriesMax) * 256);
  out += kHeadBegin;
  append_title(out, page);
  out += kHeadEnd;
  append_crumbs(out, page, links);
  append_columns(out, page.options);
  if (links.depth() != 0) {
    out += "<tr><td colspan=\"3\"><a href=\"";
    links.append_up(out, 1);
    out += "\"><svg><use href=\"#u\"/></svg>Parent directory</a></td></tr>\n";
  }
  for (const ListingEntry& entry : entries) {
    if (listing.shown == kListingEntriesMax) break;
    const size_t before = out.size();
    append_row(out, links, entry);
    if (out.size() > kListingBytesMax) {
      out.resize(before);
      break;
    }
    ++listing.shown;
  }
  out += "</tbody>\n</table>\n";
  listing.complete = !page.more && listing.shown == entries.size();
  if (!listing.complete) {
    out += "<p class=\"m\">There are more entries: only ";
    out += std::to_string(listing.shown);
    out += " are shown.</p>\n";
  }
  if (entries.empty() && listing.complete) out += "<p class=\"e\">This directory is empty.</p>\n";
  append_totals(out, entries.first(listing.shown));
  out += kEnd;
  return listing;
}

}  // namespace weir::files
