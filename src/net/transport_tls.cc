// Transport with the records of TLS in userspace: what is received becomes plaintext before it is
// queued, what is sent becomes records before it is submitted.
#include <algorithm>
#include <cerrno>
#include <string>

#include <weir/net/transport.h>
#include <weir/runtime/sys.h>

namespace weir::net {

using runtime::BufferPool;
using runtime::BufferRef;

namespace {
// Less room than this at the end of a buffer is not worth a read of its own.
constexpr uint32_t kRoomMin = 256;
constexpr base::Error kBrokenRecord{.code = base::Errc::kMalformed, .os = EPROTO};
}  // namespace

void Transport::secure(std::unique_ptr<RecordLayer> layer) noexcept {
  WEIR_CHECK(direct_ && !receive_op_.in_flight() && sending_ == nullptr && !has_data());
  tls_ = std::move(layer);
  pollable_ = false;
}

bool Transport::may_go_direct() const noexcept { return !tls_ || tls_->may_go_direct(); }

// ---- receiving, records in userspace

void Transport::deliver_ciphertext(uint16_t buffer, uint32_t bytes) noexcept {
  BufferPool& pool = reactor_.buffers();
  std::string_view in(pool.data(buffer), bytes);
  uint16_t spare = BufferPool::kNone;
  if (!tls_->has_input()) in.remove_prefix(open_records(in, spare));
  if (!ended_ && !failed() && (!in.empty() || tls_->has_input())) {
    // There was no room. What came is put aside, and its own buffer is the room: receiving never
    // depends on other buffers than those that were received into.
    tls_->add_ciphertext(in);
    spare = buffer;
    open_records({}, spare);
    if (!tls_->has_input()) {
      parked_.unlink();  // nothing waits any more
    } else if (!ended_ && !failed()) {
      lack_buffer();
    }
    if (spare == BufferPool::kNone) return;
  }
  pool.release(buffer);
}

// Opens what is kept and then `ciphertext` into the queue, until there is nothing left to open or
// no buffer for it. Returns how much of `ciphertext` was taken. `spare`: a buffer to use where none
// is free; kNone when it was used.
size_t Transport::open_records(std::string_view ciphertext, uint16_t& spare) noexcept {
  BufferPool& pool = reactor_.buffers();
  size_t consumed = 0;
  std::string alert;
  while (!ended_ && !failed() && (consumed < ciphertext.size() || tls_->has_input())) {
    uint16_t id = tail_;
    const bool fresh = id == BufferPool::kNone ||
                       pool.size() - pool.meta(id).offset - pool.meta(id).length < kRoomMin;
    if (fresh) {
      const auto allocated = pool.allocate();
      if (!allocated && spare == BufferPool::kNone) break;
      id = allocated ? *allocated : std::exchange(spare, BufferPool::kNone);
      pool.meta(id) = {};
    }
    BufferPool::Meta& meta = pool.meta(id);
    const uint32_t used = meta.offset + meta.length;
    const RecordLayer::Opened opened =
        tls_->open(ciphertext.substr(consumed), {pool.data(id) + used, pool.size() - used}, alert);
    consumed += opened.consumed;
    if (!fresh) {
      meta.length += static_cast<uint32_t>(opened.produced);
    } else if (opened.produced > 0) {
      enqueue(id, 0, static_cast<uint32_t>(opened.produced));
    } else {
      pool.release(id);
    }
    note_tls_state(opened.state, std::exchange(alert, {}));
  }
  return consumed;
}

// Opens what is kept, now that there may be room.
void Transport::open_kept() noexcept {
  uint16_t none = BufferPool::kNone;
  open_records({}, none);
  if (tls_->has_input() && !ended_ && !failed()) lack_buffer();
}

// The rest waits in the record layer. Readers that can do without buffers go on without.
void Transport::lack_buffer() noexcept {
  if (direct_) return;  // recv_direct() goes on from there
  if (direct_when_starved_) {
    // What the receive still brings comes before what recv(2) would get: on_receive() tries again.
    if (receive_op_.in_flight() && !polling_) return stop_receive();
    direct_ = pollable_ = true;
    if (end_watcher_ != nullptr) note_end(false);
  } else if (!parked_.linked()) {
    reactor_.buffers().wait_to_allocate(parked_);
  }
}

void Transport::note_tls_state(tls::ReadState state, std::string_view said) noexcept {
  if (!said.empty()) tls_->keep_answer(said);
  if (state == tls::ReadState::kClosed) {
    tls_->note_closed_by_peer();
    tls_->drop_input();
    stop_receive();
    note_end(false);
  } else if (state == tls::ReadState::kFailed) {
    const bool gave_up = tls_->session().failure().cause == tls::FailureCause::kPeerAlert;
    if (!gave_up) ++tls_->counters().bad_records;
    // Best effort: behind a send under way it would be in the middle of a record.
    const std::string alert = tls_->take_answer();
    if (sending_ == nullptr && tls_->unsent().empty() && !alert.empty()) {
      (void)runtime::sys::send(fd_, alert.data(), alert.size(), 0);
    }
    tls_->drop_input();
    stop_receive();
    fail_receive(kBrokenRecord);
  }
}

ssize_t Transport::recv_direct_session(char* out, size_t bytes) noexcept {
  std::string alert;
  while (!ended_ && !failed()) {
    std::string_view in;
    if (!tls_->has_input()) {
      // Not much more than there is room for: what is behind it has to be kept.
      const size_t wanted =
          std::min(tls::Engine::kBlockBytes, tls::Session::ciphertext_bound(bytes));
      const ssize_t got = runtime::sys::recv(fd_, tls_->engine().block(), wanted, 0);
      if (got == -EAGAIN || got == -EINTR) return -EAGAIN;
      if (got == 0) {
        note_receive_end();
        break;
      }
      if (got < 0) {
        fail_receive(base::from_errno(static_cast<int>(-got)));
        break;
      }
      in = {tls_->engine().block(), static_cast<size_t>(got)};
    }
    const RecordLayer::Opened opened = tls_->open(in, {out, bytes}, alert);
    if (opened.state != tls::ReadState::kClosed && opened.state != tls::ReadState::kFailed) {
      tls_->add_ciphertext(in.substr(opened.consumed));
    }
    note_tls_state(opened.state, std::exchange(alert, {}));
    if (opened.produced > 0) return static_cast<ssize_t>(opened.produced);
  }
  if (!failed()) return 0;
  return error_.os != 0 ? -error_.os : -EIO;
}

// ---- sending

void Transport::say_close_notify() noexcept {
  if (!tls_ || failed() || tls_->closed_by_us() || !tls_->may_close()) return;
  tls_->note_closed_by_us();
  if (tls::kKernelTlsBuilt && tls_->in_kernel()) return send_alert(tls::Alert::kCloseNotify);
  std::string record = tls_->take_answer();
  tls_->session().close(record);
  if (!record.empty()) (void)runtime::sys::send(fd_, record.data(), record.size(), 0);
}

SendOp Transport::send_close_notify(uint32_t timeout_ms) noexcept {
  return {*this, nullptr, 0, timeout_ms, true};
}

ssize_t Transport::send_direct_session(iovec* pieces, unsigned count) noexcept {
  // send() says what is wrong, or what has to go first.
  if (!tls_->may_seal() || !tls_->unsent().empty() || tls_->has_answer()) return -EAGAIN;
  size_t taken = 0;
  while (count > 0 && tls_->unsent().empty()) {
    const size_t sealed = tls_->seal(pieces, count);
    if (sealed == 0) break;
    size_t rest = sealed;
    while (count > 0 && rest >= pieces->iov_len) {
      rest -= pieces->iov_len;
      ++pieces;
      --count;
    }
    if (count > 0) {
      pieces->iov_base = static_cast<char*>(pieces->iov_base) + rest;
      pieces->iov_len -= rest;
    }
    const ssize_t result =
        runtime::sys::send(fd_, tls_->records().data(), tls_->records().size(), 0);
    note_send_error(static_cast<int32_t>(std::min<ssize_t>(result, 0)));
    if (result < 0 && result != -EAGAIN && result != -EINTR) {
      tls_->break_sending();
      return result;
    }
    tls_->keep_unsent(result > 0 ? static_cast<size_t>(result) : 0);
    taken += sealed;
  }
  return taken > 0 ? static_cast<ssize_t>(taken) : -EAGAIN;
}

// ---- SendOp

SendOp::Next SendOp::next_records() noexcept {
  if (tls::kKernelTlsBuilt && transport_.tls_->in_kernel()) return next_kernel();
  return next_session();
}

SendOp::Next SendOp::next_session() noexcept {
  RecordLayer& tls = *transport_.tls_;
  BufferPool& pool = transport_.reactor_.buffers();
  while (true) {
    if (tls.broken()) return fail(ECANCELED);
    if (!tls.unsent().empty()) {
      submit_bytes(tls.unsent().data(), tls.unsent().size());
      return Next::kSubmitted;
    }
    buffer_.reset();
    if (tls.has_answer()) {
      tls.send_answer();
      continue;
    }
    if (message_.msg_iovlen == 0) {
      if (!std::exchange(close_notify_, false) || !tls.may_seal()) return Next::kDone;
      tls.keep_close_notify();
      continue;
    }
    if (!tls.may_seal()) return fail(ECANCELED);
    size_t bytes = 0;
    for (size_t i = 0; i < message_.msg_iovlen; ++i) bytes += message_.msg_iov[i].iov_len;
    if (tls::Session::ciphertext_bound(bytes) <= pool.size() && !pool.scarce()) {
      if (const auto id = pool.allocate()) buffer_ = BufferRef(pool, *id);
    }
    const size_t sealed = buffer_ ? tls.seal_small(message_.msg_iov, message_.msg_iovlen,
                                                   {buffer_.data(), pool.size()})
                                  : tls.seal(message_.msg_iov, message_.msg_iovlen);
    if (sealed == 0) return fail(EPROTO);
    advance(sealed);
    if (buffer_) continue;
    // A block is large enough for a system call of its own, and nothing has to be kept then.
    const ssize_t result =
        runtime::sys::send(transport_.fd_, tls.records().data(), tls.records().size(), 0);
    if (result < 0 && result != -EAGAIN && result != -EINTR) return fail(static_cast<int>(-result));
    tls.keep_unsent(result > 0 ? static_cast<size_t>(result) : 0);
  }
}

SendOp::Next SendOp::fail(int os) noexcept {
  error_ = os;
  return Next::kFailed;
}

// Of what was submitted.
void SendOp::took(size_t bytes) noexcept {
  RecordLayer* tls = transport_.tls_.get();
  if (tls == nullptr || (tls->in_kernel() && control_ == RecordLayer::Control::kNone)) {
    if (tls::kKernelTlsBuilt && tls != nullptr) tls->count_records(bytes);
    advance(bytes);
  } else if (tls->in_kernel()) {
    tls->control().advance(bytes);
  } else {
    tls->sent(bytes);
  }
}

bool SendOp::has_more() const noexcept {
  const RecordLayer* tls = transport_.tls_.get();
  return message_.msg_iovlen > 0 || close_notify_ || (tls != nullptr && !tls->unsent().empty());
}

}  // namespace weir::net
