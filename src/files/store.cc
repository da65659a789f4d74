#include <weir/files/store.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>

#include <weir/runtime/sys.h>

namespace weir::files {

using base::Errc;
using base::Error;
using base::fail;
using base::Result;
using runtime::Task;

namespace {

constexpr int64_t kNsPerSecond = 1'000'000'000;

FileStamp stamp_of(const struct stat& found) noexcept {
  return {.modified_ns = found.st_mtim.tv_sec * kNsPerSecond + found.st_mtim.tv_nsec,
          .changed_ns = found.st_ctim.tv_sec * kNsPerSecond + found.st_ctim.tv_nsec,
          .size = static_cast<uint64_t>(found.st_size),
          .inode = found.st_ino};
}

// Whatever is wrong with a name, the client is told that there is nothing.
Error error_of(int os) noexcept {
  switch (os) {
    case ENOENT:
    case ENOTDIR:
    case ELOOP:  // a link where none may be
    case EXDEV:  // out of the root
    case ENAMETOOLONG:
    case ENXIO:  // a socket, or a FIFO without a reader
    case ENODEV: return {.code = Errc::kNotFound, .os = os};
    default: return base::from_errno(os);
  }
}

class OwnedFd {
 public:
  explicit OwnedFd(int fd) noexcept : fd_(fd) {}
  OwnedFd(const OwnedFd&) = delete;
  OwnedFd& operator=(const OwnedFd&) = delete;
  ~OwnedFd() {
    if (fd_ >= 0) runtime::sys::close(fd_);
  }
  [[nodiscard]] int get() const noexcept { return fd_; }
  int release() noexcept { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

uint64_t resolve_flags(LinkRule links) noexcept {
  // Never a link of /proc that leads to another process's files.
  switch (links) {
    case LinkRule::kBelowRoot: return RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
    case LinkRule::kNone: return RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
    case LinkRule::kAnywhere: return RESOLVE_NO_MAGICLINKS;
  }
  return RESOLVE_BENEATH;
}

// Null: the file is not what its stamp says, or cannot be read.
Task<std::unique_ptr<char[]>> read_whole(runtime::Reactor& reactor, const OpenFile& file) {
  const uint64_t size = file.stamp.size;
  auto bytes = std::make_unique_for_overwrite<char[]>(size + 1);
  uint64_t have = 0;
  while (have <= size) {  // one byte more: a file that grew is another one
    runtime::AwaitOp op;
    io_uring_sqe* entry = reactor.ring().sqe();
    io_uring_prep_read(entry, file.fd, bytes.get() + have, static_cast<unsigned>(size + 1 - have),
                       have);
    op.start(entry);
    const int32_t got = co_await op;
    if (got < 0) co_return nullptr;
    if (got == 0) break;
    have += static_cast<uint64_t>(got);
  }
  struct stat after{};
  if (have != size || runtime::sys::fstat(file.fd, &after) < 0 || stamp_of(after) != file.stamp) {
    co_return nullptr;
  }
  co_return bytes;
}

}  // namespace

OpenFile::~OpenFile() {
  --use.open;
  forget_content();
  if (fd >= 0) runtime::sys::close(fd);
}

void OpenFile::forget_content() noexcept {
  if (!content) return;
  use.content_bytes -= stamp.size;
  --use.contents_count;
  unlink();
  content.reset();
}

Store::Store(runtime::Reactor& reactor, const StoreLimits& limits) noexcept
    : reactor_(reactor), limits_(limits) {}

Store::~Store() {
  while (!order_.empty()) drop(order_.front());
  WEIR_CHECK(use_.open == 0);
}

void Store::set_limits(const StoreLimits& limits) noexcept {
  limits_ = limits;
  make_room();
  (void)make_room_for(0);
}

void Store::make_key(std::string_view root, std::string_view path, LinkRule links,
                     std::string& out) {
  out.assign(1, static_cast<char>('0' + static_cast<int>(links)));
  out.append(root);
  out.push_back('\0');  // in no path
  out.append(path);
}

bool Store::fresh(const Entry& entry) const noexcept {
  if (entry.file && entry.file->doubtful) return false;
  return reactor_.now_ms() - entry.checked_ms < limits_.revalidate_ms;
}

void Store::touch(Entry& entry) noexcept {
  entry.unlink();
  order_.push_front(entry);
}

std::optional<Result<FileRef>> Store::try_open(std::string_view root, std::string_view path,
                                               LinkRule links) noexcept {
  make_key(root, path, links, key_);
  const auto found = entries_.find(std::string_view(key_));
  if (found == entries_.end() || !fresh(*found->second)) return std::nullopt;
  Entry& entry = *found->second;
  touch(entry);
  if (entry.error.code != Errc::kOk) return Result<FileRef>(fail(entry.error));
  return Result<FileRef>(entry.file);
}

Task<int> Store::open_name(int directory, const char* path, uint64_t flags, uint64_t resolve) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = resolve;
  runtime::AwaitOp op;
  io_uring_sqe* entry = reactor_.ring().sqe();
  io_uring_prep_openat2(entry, directory, path, &how);
  op.start(entry);
  co_return co_await op;
}

// A descriptor, or -errno. `root` and `path` are the caller's until it is done.
Task<int> Store::open_below(const std::string& root, const std::string& path, LinkRule links) {
  // O_NONBLOCK: a FIFO must not keep us.
  constexpr uint64_t kFlags = O_RDONLY | O_NONBLOCK | O_NOCTTY;
  if (path == ".") co_return co_await open_name(AT_FDCWD, root.c_str(), kFlags, 0);
  // The root is the operator's: links on the way to it are followed, and it may be switched to
  // another release at any time.
  const OwnedFd top(co_await open_name(AT_FDCWD, root.c_str(), O_PATH, 0));
  if (top.get() < 0) co_return top.get();
  int opened = -EAGAIN;  // a name on the way was just moved (openat2(2)): once more may do
  for (unsigned tries = 0; tries < 3 && opened == -EAGAIN; ++tries) {
    opened = co_await open_name(top.get(), path.c_str(), kFlags, resolve_flags(links));
  }
  co_return opened;
}

Task<Result<FileRef>> Store::open(std::string root, std::string path, LinkRule links) {
  if (auto known = try_open(root, path, links)) co_return std::move(*known);
  std::string key;
  make_key(root, path, links, key);
  int opened = co_await open_below(root, path, links);
  if ((opened == -EMFILE || opened == -ENFILE) && !order_.empty()) {
    give_up_half();
    opened = co_await open_below(root, path, links);
  }
  if (opened < 0) {
    const Error error = error_of(-opened);
    // A lack of ours says nothing about the name.
    if (error.code == Errc::kNotFound || error.code == Errc::kPermission) keep(key, error, nullptr);
    co_return fail(error);
  }
  OwnedFd fd(opened);
  struct stat found{};
  const int status = runtime::sys::fstat(fd.get(), &found);
  const bool directory = status == 0 && S_ISDIR(found.st_mode);
  if (status < 0 || (!directory && !S_ISREG(found.st_mode))) {
    const Error error{.code = Errc::kNotFound, .os = -status};
    keep(key, error, nullptr);
    co_return fail(error);
  }
  // It was for opening only. The ring gives up on a file that says so where it could wait.
  runtime::sys::set_blocking(fd.get());
  const FileStamp stamp = stamp_of(found);
  const auto before = entries_.find(std::string_view(key));
  if (before != entries_.end() && before->second->file && before->second->file->stamp == stamp &&
      !before->second->file->tag.empty() && !before->second->file->doubtful) {
    before->second->checked_ms = reactor_.now_ms();
    touch(*before->second);
    co_return before->second->file;
  }
  auto file = std::make_shared<OpenFile>(use_);
  const int64_t now_ns = reactor_.unix_us() * 1000;
  file->fd = fd.release();
  file->kind = directory ? FileKind::kDirectory : FileKind::kRegular;
  file->stamp = stamp;
  if (is_settled(stamp, now_ns)) file->tag = make_entity_tag(stamp);
  file->modified = last_modified_to_send(stamp, now_ns);
  keep(std::move(key), {}, file);
  co_return file;
}

void Store::keep(std::string key, Error error, FileRef file) {
  const auto before = entries_.find(std::string_view(key));
  if (before != entries_.end()) drop(*before->second);
  auto entry = std::make_unique<Entry>();
  entry->key = std::move(key);
  entry->error = error;
  entry->file = std::move(file);
  entry->checked_ms = reactor_.now_ms();
  order_.push_front(*entry);
  const std::string_view name = entry->key;
  entries_.emplace(name, std::move(entry));
  make_room();
}

void Store::drop(Entry& entry) noexcept {
  entry.unlink();
  entries_.erase(entries_.find(std::string_view(entry.key)));
}

void Store::make_room() noexcept {
  constexpr size_t kNamesPerFile = 4;  // a file, and its precompressed ones that are not there
  while (entries_.size() > kNamesPerFile * limits_.entries_max) drop(order_.back());
  for (size_t left = entries_.size(); left > 0 && use_.open > limits_.entries_max; --left) {
    Entry& oldest = order_.back();
    // To forget a file that somebody else holds would close nothing.
    if (oldest.file && oldest.file.use_count() > 1) {
      touch(oldest);
    } else {
      drop(oldest);
    }
  }
}

// Of contents, those that were not asked for lately go; the files stay open.
bool Store::make_room_for(uint64_t content_bytes) noexcept {
  if (content_bytes > limits_.memory_max) return false;
  const uint64_t most = limits_.memory_max - content_bytes;
  for (uint32_t left = use_.contents_count; left > 0 && use_.content_bytes > most; --left) {
    OpenFile& file = use_.contents.back();
    if (file.senders == 0) {
      file.forget_content();
    } else {
      note_use(file);
    }
  }
  return use_.content_bytes <= most;
}

void Store::give_up_half() noexcept {
  const size_t left = entries_.size() / 2;
  while (entries_.size() > left) drop(order_.back());
}

void Store::note_use(OpenFile& file) noexcept {
  if (!file.content) return;
  file.unlink();
  use_.contents.push_front(file);
}

Task<bool> Store::load(FileRef file) {
  if (file->content) co_return true;
  const uint64_t size = file->stamp.size;
  if (file->loading || file->kind != FileKind::kRegular || size > limits_.content_max ||
      !make_room_for(size)) {
    co_return false;
  }
  // The room is taken before the bytes are there: many that load at once stay within it too.
  file->loading = true;
  use_.content_bytes += size;
  auto bytes = co_await read_whole(reactor_, *file);
  file->loading = false;
  use_.content_bytes -= size;
  if (!bytes || !make_room_for(size)) co_return false;  // the limits may be lower by now
  file->content = std::move(bytes);
  use_.content_bytes += size;
  ++use_.contents_count;
  use_.contents.push_front(*file);
  co_return true;
}

}  // namespace weir::files
