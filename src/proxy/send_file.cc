// Exchange, files: the bytes. Small files go with the head in one send; large ones by sendfile(2)
// where the socket takes pages (plain, or kernel TLS), else through the core's scratch. A page that
// is not in memory is read by the ring first: the core never waits for a disk.
#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

#include <sys/stat.h>

#include <weir/runtime/sys.h>

#include "exchange.h"
#include "file_answer.h"

namespace weir::proxy {

using base::Errc;
using files::FileRef;
using http::Method;
using net::Transport;
using runtime::Task;

namespace {

// Sent at once. tools/bench file10m: 1 MiB with the socket corked costs 0.68 of 256 KiB without.
constexpr size_t kPieceBytes = 1024 * 1024;
// Between two looks at what is in memory, and read at once where it is not.
constexpr size_t kReadBytes = 256 * 1024;
// Files of this size are kept in memory in any mode: to read one costs more than to look it up.
constexpr uint64_t kKeptBytes = 4096;
// A stretch from which on the socket is corked: below, two system calls cost more than they save.
constexpr uint64_t kCorkBytes = 128 * 1024;
// For so long bytes that were in memory count as being there.
constexpr uint64_t kWarmMs = 500;
// The same where the file system cannot be asked (tmpfs, overlays).
constexpr uint64_t kWarmUnaskedMs = 5000;
// Sent before others get their turn.
constexpr size_t kBytesPerTurn = 1024 * 1024;

// Whether the contents are still what the stamp says: what was sent belongs together then. The
// change time says nothing about that: it also moves when the name goes to another file, the usual
// way to replace one.
bool unchanged(const files::OpenFile& file) noexcept {
  struct stat now{};
  if (runtime::sys::fstat(file.fd, &now) < 0) return false;
  constexpr int64_t kNs = 1'000'000'000;
  return static_cast<uint64_t>(now.st_size) == file.stamp.size &&
         now.st_mtim.tv_sec * kNs + now.st_mtim.tv_nsec == file.stamp.modified_ns;
}

// pread(2), -EAGAIN where it would have to wait for a disk.
ssize_t read_now(files::OpenFile& file, void* out, size_t bytes, uint64_t offset,
                 uint64_t now_ms) noexcept {
  if (file.asks_at_once) {
    const ssize_t got = runtime::sys::pread_cached(file.fd, out, bytes, offset);
    if (got != -EOPNOTSUPP) return got;
    file.asks_at_once = false;
  }
  const bool warm = now_ms < file.warm_until_ms && offset + bytes <= file.warm_bytes;
  return warm ? runtime::sys::pread(file.fd, out, bytes, offset) : -EAGAIN;
}

// These bytes are in memory: so they count for a while from when the first of the file were, as
// far as they follow each other. Nobody else has to ask then.
void note_warm(files::OpenFile& file, uint64_t offset, size_t bytes, uint64_t now_ms) noexcept {
  if (now_ms >= file.warm_until_ms) {
    file.warm_bytes = 0;
    if (offset == 0) file.warm_until_ms = now_ms + (file.asks_at_once ? kWarmMs : kWarmUnaskedMs);
  }
  if (offset <= file.warm_bytes && now_ms < file.warm_until_ms) {
    file.warm_bytes = std::max(file.warm_bytes, offset + bytes);
  }
}

// How many of the bytes from `offset` on are in memory: all, or those before the first look that
// says no. The first and last byte of each kReadBytes stand for those between, which the kernel
// reads ahead. Of a broken disk it says no: reading tells.
size_t in_memory(files::OpenFile& file, uint64_t offset, size_t bytes, uint64_t now_ms) noexcept {
  if (now_ms < file.warm_until_ms && offset + bytes <= file.warm_bytes) return bytes;
  char byte;
  for (size_t at = 0; at < bytes; at += kReadBytes) {
    const size_t last = std::min(at + kReadBytes, bytes) - 1;
    if (read_now(file, &byte, 1, offset + at, now_ms) < 0) return at;
    if (last > at && read_now(file, &byte, 1, offset + last, now_ms) < 0) return at;
  }
  if (file.asks_at_once) note_warm(file, offset, bytes, now_ms);
  return bytes;
}

// Whether sendfile(2) failed for the file's sake, not the socket's.
bool fault_of_file(ssize_t error) noexcept {
  return error == -EIO || error == -EINVAL || error == -EOVERFLOW || error == -ESTALE ||
         error == -EISDIR;
}

}  // namespace

// Makes the pages of a stretch be in memory. False: the disk failed.
Task<bool> Exchange::warm_pages(files::OpenFile& file, uint64_t offset, size_t bytes) {
  static_assert(kReadBytes <= Worker::kScratchBytes);
  runtime::AwaitOp op;
  io_uring_sqe* entry = worker_->reactor.ring().sqe();
  io_uring_prep_read(entry, file.fd, worker_->waste(), static_cast<unsigned>(bytes), offset);
  op.start(entry);
  if (co_await op < 0) co_return false;
  note_warm(file, offset, bytes, worker_->reactor.now_ms());
  co_return true;
}

// The head and the body, unless the file has changed since it was opened: while nothing of it was
// sent, that costs nobody more than another look.
Task<FileSent> Exchange::send_file_answer(const route::FileRoute& rules, FileAnswer& answer,
                                          std::string_view tag) {
  const bool with_body = request_.method != Method::kHead && answer.body.status != 304;
  if (worker_->draining() || client_->transport->worn_out()) keep_alive_ = false;
  std::vector<files::BodyPiece> pieces = std::move(answer.body.pieces);
  if (pieces.empty() && answer.body.length > 0) {
    pieces.push_back({.from_file = true, .offset = 0, .size = answer.body.length});
  }
  if (!with_body) pieces.clear();
  const bool keep = rules.in_memory || answer.file->stamp.size <= kKeptBytes;
  if (keep && !pieces.empty() && !answer.file->content)
    (void)co_await worker_->files.load(answer.file);
  out_.fill(worker_->reactor.buffers(),
            [&](base::ByteWriter& out) { write_file_head(out, rules, answer, tag); });
  const bool fits = pieces.size() == 1 && pieces[0].size <= out_.room();
  if (fits && answer.file->content) {  // one buffer costs the kernel less than two
    out_.append({answer.file->content.get() + pieces[0].offset, pieces[0].size});
    worker_->counters.file_bytes_memory += pieces[0].size;
    pieces.clear();
  } else if (!pieces.empty() && !answer.file->content) {
    const bool failed = fits && !co_await read_behind_head(*answer.file, pieces[0]);
    if (!unchanged(*answer.file)) {
      answer.file->doubtful = true;  // its name is looked up again
      co_return FileSent::kChanged;
    }
    if (failed) {
      answer.file->doubtful = true;
      co_return FileSent::kUnreadable;
    }
    if (fits) pieces.clear();
  }
  record_.status = answer.body.status;
  answered_ = true;
  // From here on nothing of the routes is needed, and a long download must not hold them.
  const uint32_t timeout = pin_->settings.send_timeout_ms;
  pin_.reset();
  client_->transport->watch_end(&Exchange::on_client_end, this);
  worker_->files.note_use(*answer.file);
  ++answer.file->senders;
  const bool whole = co_await send_pieces(answer, pieces, timeout);
  --answer.file->senders;
  unwatch_client();
  pin_ = worker_->generations.pin();
  if (!whole) broken_ = true;
  co_return FileSent::kAnswered;
}

// A small body goes with its head. False: it could not be read, or not all of it.
Task<bool> Exchange::read_behind_head(files::OpenFile& file, files::BodyPiece piece) {
  char* const place = out_.data() + out_.size();
  ssize_t got = read_now(file, place, piece.size, piece.offset, worker_->reactor.now_ms());
  if (got != static_cast<ssize_t>(piece.size)) {  // not all of it is in memory
    runtime::AwaitOp op;
    io_uring_sqe* entry = worker_->reactor.ring().sqe();
    io_uring_prep_read(entry, file.fd, place, static_cast<unsigned>(piece.size), piece.offset);
    op.start(entry);
    got = co_await op;
    if (got > 0) {
      note_warm(file, piece.offset, static_cast<size_t>(got), worker_->reactor.now_ms());
    }
  }
  if (got != static_cast<ssize_t>(piece.size)) co_return false;
  worker_->counters.file_bytes_copied += piece.size;
  out_.extend(piece.size);
  co_return true;
}

Task<bool> Exchange::send_pieces(const FileAnswer& answer, std::span<const files::BodyPiece> pieces,
                                 uint32_t timeout_ms) {
  std::string_view head = out_.view();
  for (const files::BodyPiece& piece : pieces) {
    if (!piece.from_file) {
      if (!co_await send_bytes(head, answer.body.literal(piece), timeout_ms)) co_return false;
    } else if (answer.file->content) {
      const std::string_view content(answer.file->content.get() + piece.offset, piece.size);
      if (!co_await send_bytes(head, content, timeout_ms)) co_return false;
      worker_->counters.file_bytes_memory += piece.size;
    } else if (!co_await send_stretch(*answer.file, piece, head, timeout_ms)) {
      co_return false;
    }
    head = {};
  }
  if (!head.empty()) co_return co_await send_bytes(head, {}, timeout_ms);
  co_return true;
}

Task<bool> Exchange::send_bytes(std::string_view head, std::string_view body, uint32_t timeout_ms) {
  iovec parts[2] = {{const_cast<char*>(head.data()), head.size()},
                    {const_cast<char*>(body.data()), body.size()}};
  const auto sent = co_await client_->transport->send(parts, 2, timeout_ms);
  if (!sent) {
    client_failed(sent.error().code == Errc::kTimedOut);
    co_return false;
  }
  record_.bytes_out += head.size() + body.size();
  co_return true;
}

// A stretch of the file behind `head`.
Task<bool> Exchange::send_stretch(files::OpenFile& file, files::BodyPiece piece,
                                  std::string_view head, uint32_t timeout_ms) {
  Transport& client = *client_->transport;
  const bool corked = piece.size >= kCorkBytes && client.may_splice() && !client.secured();
  if (corked) client.cork(true);
  const bool whole = co_await move_stretch(file, piece, head, timeout_ms);
  if (corked) client.cork(false);
  co_return whole;
}

Task<bool> Exchange::move_stretch(files::OpenFile& file, files::BodyPiece piece,
                                  std::string_view head, uint32_t timeout_ms) {
  Transport& client = *client_->transport;
  // The head goes out with the first bytes of the file. Whoever gave it has just looked at the
  // file.
  bool sure = !head.empty();
  if (!head.empty() && client.may_splice()) {
    const ssize_t sent = client.send_direct(head.data(), head.size(), true);
    if (sent < 0 && sent != -EAGAIN) co_return client_failed(false), false;
    if (sent > 0) {
      record_.bytes_out += static_cast<uint64_t>(sent);
      head.remove_prefix(static_cast<size_t>(sent));
    }
  }
  if (!head.empty()) {
    if (!co_await send_bytes(head, {}, timeout_ms)) co_return false;
    sure = false;
  }
  size_t moved = 0;
  while (piece.size > 0) {
    if (cancelled_ != log::Reason::kNone) co_return false;
    const size_t wanted = std::min<uint64_t>(kPieceBytes, piece.size);
    size_t bytes = in_memory(file, piece.offset, wanted, worker_->reactor.now_ms());
    if (bytes == 0) {
      bytes = std::min(kReadBytes, wanted);
      if (!co_await warm_pages(file, piece.offset, bytes)) co_return file_failed(file);
      sure = false;
      if (cancelled_ != log::Reason::kNone) co_return false;
    }
    // The last bytes make the response look complete: they are sent only of an unchanged file.
    if (bytes == piece.size && !sure && !unchanged(file)) co_return file_failed(file);
    sure = false;
    const ssize_t sent = send_some(file, piece.offset, bytes);
    // An end before it should be, or a disk that fails.
    if (sent == 0 || fault_of_file(sent)) co_return file_failed(file);
    if (sent < 0 && sent != -EAGAIN) co_return client_failed(false), false;
    if (sent > 0) {
      piece.offset += static_cast<uint64_t>(sent);
      piece.size -= static_cast<uint64_t>(sent);
      moved += static_cast<size_t>(sent);
    }
    if (client.unsent() || (sent < 0 && !client.may_splice())) {
      const auto later = co_await client.send(nullptr, 0, timeout_ms);
      moved = 0;
      if (!later) co_return client_failed(later.error().code == Errc::kTimedOut), false;
    } else if (sent == -EAGAIN) {
      const auto room = co_await client.writable(timeout_ms);
      moved = 0;
      if (!room) co_return client_failed(room.error().code == Errc::kTimedOut), false;
    } else if (moved >= kBytesPerTurn) {
      moved = 0;
      co_await worker_->reactor.yield();
    }
  }
  co_return true;
}

// What the socket takes now, counted; 0 where the file ends.
ssize_t Exchange::send_some(files::OpenFile& file, uint64_t offset, size_t bytes) noexcept {
  Transport& client = *client_->transport;
  const bool by_kernel = client.may_splice();
  const ssize_t sent =
      by_kernel ? client.send_file(file.fd, offset, bytes) : send_copied(file, offset, bytes);
  if (sent <= 0) return sent;
  record_.bytes_out += static_cast<uint64_t>(sent);
  Counters& counters = worker_->counters;
  (by_kernel ? counters.file_bytes_sendfile : counters.file_bytes_copied) +=
      static_cast<uint64_t>(sent);
  return sent;
}

// For TLS in userspace: as send_direct(), 0 where the file ends, -EAGAIN also where the pages have
// gone again.
ssize_t Exchange::send_copied(files::OpenFile& file, uint64_t offset, size_t bytes) noexcept {
  char* const block = worker_->scratch();
  bytes = std::min(bytes, Worker::kScratchBytes);
  // Whoever calls has seen to it that they are in memory, or has just read them.
  const ssize_t got = file.asks_at_once ? runtime::sys::pread_cached(file.fd, block, bytes, offset)
                                        : runtime::sys::pread(file.fd, block, bytes, offset);
  if (got == -EAGAIN) file.warm_until_ms = 0;  // so they are asked for
  if (got <= 0) return got;
  return client_->transport->send_direct(block, static_cast<size_t>(got));
}

// The file shrank, changed, or cannot be read: what was sent must not look complete.
bool Exchange::file_failed(files::OpenFile& file) noexcept {
  file.doubtful = true;  // the next request looks its name up
  record_.reason = log::Reason::kInternal;
  WEIR_LOG_LIMITED(worker_->logger, kWarn, "files", "a file changed or failed while it was sent",
                   {"path", request_.path});
  return false;
}

}  // namespace weir::proxy
