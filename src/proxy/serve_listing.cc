// Exchange, files: the listing of a directory.
#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <weir/files/file_path.h>
#include <weir/files/listing.h>

#include "exchange.h"
#include "file_answer.h"

namespace weir::proxy {

using runtime::Task;

namespace {

constexpr size_t kEntriesMax = 2000;
// Names that are looked at, shown or not.
constexpr size_t kNamesMax = 20'000;
// Between two of which others get their turn: each costs a system call or two.
constexpr size_t kNamesPerTurn = 64;

// A directory that is being read, and what was found in it.
class DirectoryReader {
 public:
  explicit DirectoryReader(int directory) noexcept {
    const int fd = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
      error_ = errno;
    } else if (stream_ = ::fdopendir(fd); stream_ == nullptr) {
      error_ = errno;
      ::close(fd);
    }
  }
  DirectoryReader(const DirectoryReader&) = delete;
  DirectoryReader& operator=(const DirectoryReader&) = delete;
  ~DirectoryReader() {
    if (stream_ != nullptr) ::closedir(stream_);
  }

  // Goes on; false at the end. `root` and `below`: where links may lead to.
  bool read_some(const route::FileRoute& rules, std::string_view below);

  [[nodiscard]] int error() const noexcept { return error_; }  // why nothing could be read
  [[nodiscard]] bool more() const noexcept { return more_; }
  [[nodiscard]] std::vector<files::ListingEntry> entries() const;

 private:
  struct Found {
    std::string name;
    struct stat info;
  };
  [[nodiscard]] bool look_at(const char* name, const route::FileRoute& rules,
                             std::string_view below, struct stat& info) const;

  DIR* stream_ = nullptr;
  int error_ = 0;
  bool more_ = false;
  size_t names_ = 0;
  std::vector<Found> found_;
};

// What a link leads to is told only where a request for it would be served.
bool DirectoryReader::look_at(const char* name, const route::FileRoute& rules,
                              std::string_view below, struct stat& info) const {
  const int fd = ::dirfd(stream_);
  if (fd < 0) return false;
  if (::fstatat(fd, name, &info, AT_SYMLINK_NOFOLLOW) < 0) return false;
  if (!S_ISLNK(info.st_mode)) return true;
  if (rules.links == route::FileLinks::kNone) return false;
  if (rules.links == route::FileLinks::kAnywhere) return ::fstatat(fd, name, &info, 0) == 0;
  const std::string root(rules.root);
  const int top = ::openat(AT_FDCWD, root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (top < 0) return false;
  std::string path = below == "." ? std::string() : std::string(below) + "/";
  path += name;
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  const auto target = static_cast<int>(::syscall(SYS_openat2, top, path.c_str(), &how, sizeof how));
  ::close(top);
  if (target < 0) return false;
  const bool known = ::fstat(target, &info) == 0;
  ::close(target);
  return known;
}

bool DirectoryReader::read_some(const route::FileRoute& rules, std::string_view below) {
  for (size_t i = 0; i < kNamesPerTurn; ++i) {
    const dirent* next = ::readdir(stream_);
    if (next == nullptr) return false;
    if (++names_ > kNamesMax || found_.size() >= kEntriesMax) {
      more_ = true;
      return false;
    }
    if (!files::is_servable_name(next->d_name, {.allow_hidden = rules.hidden})) continue;
    struct stat info{};
    if (!look_at(next->d_name, rules, below, info)) continue;
    if (S_ISREG(info.st_mode) || S_ISDIR(info.st_mode)) found_.push_back({next->d_name, info});
  }
  return true;
}

std::vector<files::ListingEntry> DirectoryReader::entries() const {
  std::vector<files::ListingEntry> entries;
  entries.reserve(found_.size());
  for (const Found& found : found_) {
    entries.push_back({.name = found.name,
                       .is_directory = S_ISDIR(found.info.st_mode),
                       .size = static_cast<uint64_t>(found.info.st_size),
                       .modified = found.info.st_mtim.tv_sec});
  }
  return entries;
}

}  // namespace

Task<> Exchange::list_directory(const route::FileRoute& rules, const FileAnswer& answer,
                                std::string_view route_path) {
  DirectoryReader directory(answer.file->fd);
  if (directory.error() != 0) {
    const bool lack = directory.error() == EMFILE || directory.error() == ENFILE;
    co_return co_await reply(lack ? 503 : 500, log::Reason::kInternal);
  }
  while (directory.read_some(rules, answer.path)) co_await worker_->reactor.yield();
  std::vector<files::ListingEntry> entries = directory.entries();
  const files::ListingOptions options = files::parse_listing_query(request_.query);
  const files::ListingFormat format = files::choose_listing_format(options, request_.fields);
  files::sort_listing(entries, options);
  const files::ListingPage page{
      .path = path_, .route_path = route_path, .options = options, .more = directory.more()};
  std::string fields = "Vary: Accept\r\nCache-Control: no-cache\r\nContent-Type: ";
  files::Listing listing;
  if (format == files::ListingFormat::kJson) {
    listing = files::render_listing_json(page, entries);
    fields.append(files::kListingJsonType);
    if (!listing.complete || directory.more()) fields += "\r\nX-Listing-Incomplete: true";
  } else {
    listing = files::render_listing_html(page, entries);
    fields.append(files::kListingHtmlType).append("\r\nContent-Security-Policy: ");
    fields.append(files::kListingPolicy);
  }
  fields += "\r\n";
  co_await send_reply(200, fields, listing.body);
}

}  // namespace weir::proxy
