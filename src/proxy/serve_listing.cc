// Exchange, files: the listing of a directory.
#include <algorithm>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/files/file_path.h>
#include <weir/files/listing.h>

#include "exchange.h"
#include "file_answer.h"

namespace weir::proxy {

using runtime::Task;

namespace {

// Each costs a system call, and all of it happens in one turn of the core.
constexpr size_t kEntriesMax = 2000;

struct Contents {
  std::vector<std::string> names;
  std::vector<files::ListingEntry> entries;
  bool more = false;
};

bool read_directory(int directory, bool hidden, Contents& out) {
  const int fd = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return false;
  DIR* stream = ::fdopendir(fd);
  if (stream == nullptr) {
    ::close(fd);
    return false;
  }
  struct Found {
    size_t name;
    struct stat info;
  };
  std::vector<Found> found;
  while (const dirent* next = ::readdir(stream)) {
    const std::string_view name = next->d_name;
    if (!files::is_servable_name(name, {.allow_hidden = hidden})) continue;
    if (found.size() >= kEntriesMax) {
      out.more = true;
      break;
    }
    struct stat info{};
    // Links show as what they lead to; a request decides whether that may be served.
    if (::fstatat(fd, next->d_name, &info, 0) < 0) continue;
    if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) continue;
    found.push_back({out.names.size(), info});
    out.names.emplace_back(name);
  }
  ::closedir(stream);
  for (const Found& entry : found) {
    out.entries.push_back({.name = out.names[entry.name],
                           .is_directory = S_ISDIR(entry.info.st_mode),
                           .size = static_cast<uint64_t>(entry.info.st_size),
                           .modified = entry.info.st_mtim.tv_sec});
  }
  return true;
}

}  // namespace

Task<> Exchange::list_directory(const route::FileRoute& rules, const FileAnswer& answer,
                                std::string_view route_path) {
  Contents contents;
  if (!read_directory(answer.file->fd, rules.hidden, contents)) {
    co_return co_await reply(500, log::Reason::kInternal);
  }
  const files::ListingOptions options = files::parse_listing_query(request_.query);
  const files::ListingFormat format = files::choose_listing_format(options, request_.fields);
  files::sort_listing(contents.entries, options);
  const files::ListingPage page{
      .path = path_, .route_path = route_path, .options = options, .more = contents.more};
  std::string fields = "Vary: Accept\r\nCache-Control: no-cache\r\nContent-Type: ";
  files::Listing listing;
  if (format == files::ListingFormat::kJson) {
    listing = files::render_listing_json(page, contents.entries);
    fields.append(files::kListingJsonType);
    if (!listing.complete || contents.more) fields += "\r\nX-Listing-Incomplete: true";
  } else {
    listing = files::render_listing_html(page, contents.entries);
    fields.append(files::kListingHtmlType).append("\r\nContent-Security-Policy: ");
    fields.append(files::kListingPolicy);
  }
  fields += "\r\n";
  co_await send_reply(200, fields, listing.body);
}

}  // namespace weir::proxy
