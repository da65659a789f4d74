#include <weir/net/transport.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <poll.h>

#include <weir/runtime/sys.h>

namespace weir::net {

using runtime::BufferPool;
using runtime::BufferRef;

namespace {
// Buffers one stream may have queued before its receive is stopped, and where it starts again.
// Under pressure (a quarter of the pool left) one buffer each must do.
constexpr uint16_t kQueuedMax = 4;
constexpr uint64_t kLingerMs = 2000;
// Connections of a core that linger at once. They count in no limit of connections, and whoever
// provokes refusals could use up the descriptors by them; beyond it they are closed at once.
constexpr uint32_t kLingeringMax = 1024;
}  // namespace

Transport::Transport(runtime::Reactor& reactor, int fd) noexcept
    : reactor_(reactor), fd_(fd), receive_op_(*this), parked_(*this), deadline_(*this) {}

Transport::~Transport() {
  WEIR_CHECK(!receive_op_.in_flight());
  WEIR_CHECK(sending_ == nullptr);
  WEIR_CHECK(!reader_);
  parked_.unlink();
  drop_queue();
  reactor_.timers().disarm(deadline_);
  if (fd_ >= 0) reactor_.close_fd(fd_);
}

void Transport::dispose(std::unique_ptr<Transport> transport, Linger linger) noexcept {
  Transport* self = transport.release();
  WEIR_CHECK(!self->disposed_);
  WEIR_CHECK(self->sending_ == nullptr);
  self->disposed_ = true;
  ++self->reactor_.disposing;
  self->drop_queue();
  self->end_watcher_ = nullptr;
  self->read_deadline_ms_ = kNoDeadline;
  if (linger != Linger::kReset) self->say_close_notify();
  if (self->tls_) self->tls_->drop_input();
  // What nobody can open stays in the socket, and closing would be a reset that eats our last
  // words: the peer has to close first.
  const bool deaf = self->tls_ && self->tls_->deaf();
  const bool peer_done = (self->ended_ || self->failed()) && !deaf;
  const bool wait = linger == Linger::kYes || (deaf && linger == Linger::kNo);
  if (wait && !peer_done && self->reactor_.disposing <= kLingeringMax) {
    self->lingering_ = true;
    if (deaf) {
      self->ended_ = false;
      self->error_ = {};
    }
    self->direct_ = false;
    self->shutdown_write();
    self->receiving_ = true;
    self->watch_deadline(self->reactor_.now_ms() + kLingerMs);
    self->read_deadline_ms_ = self->reactor_.now_ms() + kLingerMs;
    if (!self->receive_op_.in_flight()) self->arm_receive();
    return;
  }
  if (linger == Linger::kReset) {
    // No shutdown(2) here: it would send the FIN that must not be sent.
    const struct linger none = {.l_onoff = 1, .l_linger = 0};
    runtime::sys::setsockopt(self->fd_, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    self->receive_op_.cancel(self->reactor_.ring());
    self->close_if_done();
    return;
  }
  // shutdown(2) completes a pending receive at once; close(2) alone would leave it (STYLE 2.5, 6).
  if (self->receive_op_.in_flight()) {
    runtime::sys::shutdown(self->fd_, SHUT_RDWR);
    if (self->direct_) self->receive_op_.cancel(self->reactor_.ring());
  }
  self->close_if_done();
}

void Transport::close_if_done() noexcept {
  if (!disposed_ || receive_op_.in_flight()) return;
  if (lingering_ && !ended_ && !failed() && !timed_out_) return;
  --reactor_.disposing;
  delete this;
}

void Transport::drop_queue() noexcept {
  BufferPool& pool = reactor_.buffers();
  while (head_ != BufferPool::kNone) {
    const uint16_t next = pool.meta(head_).next;
    pool.release(head_);
    head_ = next;
  }
  tail_ = BufferPool::kNone;
  queued_ = 0;
}

std::string_view Transport::front() const noexcept {
  if (head_ == BufferPool::kNone) return {};
  BufferPool& pool = reactor_.buffers();
  const BufferPool::Meta& meta = pool.meta(head_);
  return {pool.data(head_) + meta.offset, meta.length};
}

void Transport::consume(size_t bytes) noexcept {
  if (head_ == BufferPool::kNone) return;
  BufferPool& pool = reactor_.buffers();
  BufferPool::Meta& meta = pool.meta(head_);
  WEIR_CHECK(bytes <= meta.length);
  meta.offset += static_cast<uint32_t>(bytes);
  meta.length -= static_cast<uint32_t>(bytes);
  if (meta.length == 0) take_front();
}

size_t Transport::queued(std::span<std::string_view> out) const noexcept {
  BufferPool& pool = reactor_.buffers();
  size_t count = 0;
  for (uint16_t id = head_; id != BufferPool::kNone && count < out.size();
       id = pool.meta(id).next) {
    const BufferPool::Meta& meta = pool.meta(id);
    out[count++] = {pool.data(id) + meta.offset, meta.length};
  }
  return count;
}

void Transport::consume_queued(size_t bytes) noexcept {
  while (bytes > 0) {
    const size_t part = std::min(bytes, front().size());
    WEIR_CHECK(part > 0);
    consume(part);
    bytes -= part;
  }
}

BufferRef Transport::take_front() noexcept {
  WEIR_CHECK(head_ != BufferPool::kNone);
  BufferPool& pool = reactor_.buffers();
  const uint16_t id = head_;
  head_ = pool.meta(id).next;
  if (head_ == BufferPool::kNone) tail_ = BufferPool::kNone;
  --queued_;
  if (!receive_op_.in_flight() && may_arm()) arm_receive();
  return {pool, id};
}

BufferRef Transport::split_front(size_t bytes) noexcept {
  WEIR_CHECK(head_ != BufferPool::kNone);
  BufferPool& pool = reactor_.buffers();
  const BufferPool::Meta first = pool.meta(head_);
  WEIR_CHECK(bytes <= first.length);
  if (bytes == first.length) return take_front();
  const auto rest = pool.allocate();
  if (!rest) return {};
  const auto left = static_cast<uint32_t>(first.length - bytes);
  std::memcpy(pool.data(*rest), pool.data(head_) + first.offset + bytes, left);
  pool.meta(*rest) = {.next = first.next, .offset = 0, .length = left};
  const uint16_t taken = head_;
  if (tail_ == head_) tail_ = *rest;
  head_ = *rest;
  return {pool, taken};
}

bool Transport::unread(std::string_view bytes) noexcept {
  WEIR_CHECK(!has_data());
  BufferPool& pool = reactor_.buffers();
  while (!bytes.empty()) {
    const auto id = pool.allocate();
    if (!id) {
      drop_queue();
      return false;
    }
    const auto part = static_cast<uint32_t>(std::min<size_t>(bytes.size(), pool.size()));
    std::memcpy(pool.data(*id), bytes.data(), part);
    pool.meta(*id) = {.next = BufferPool::kNone, .offset = 0, .length = part};
    if (tail_ == BufferPool::kNone) {
      head_ = *id;
    } else {
      pool.meta(tail_).next = *id;
    }
    tail_ = *id;
    ++queued_;
    bytes.remove_prefix(part);
  }
  return true;
}

// ---- receiving

void Transport::start_receiving() noexcept {
  receiving_ = true;
  direct_ = false;
  pollable_ = false;
  if (tls_ && tls_->has_input()) open_kept();
  if (!receive_op_.in_flight() && may_arm()) arm_receive();
}

uint16_t Transport::queued_max() const noexcept {
  return reactor_.buffers().scarce() ? 1 : kQueuedMax;
}

bool Transport::may_arm() const noexcept {
  return receiving_ && !direct_ && !ended_ && error_.code == base::Errc::kOk && !parked_.linked() &&
         backlog() < queued_max();
}

// Buffers in the queue, and what would fill some once there is room for it.
uint16_t Transport::backlog() const noexcept {
  if (!tls_) return queued_;
  return static_cast<uint16_t>(queued_ + tls_->input_bytes() / reactor_.buffers().size());
}

void Transport::arm_receive() noexcept {
  if (lingering_ && tls_ && tls_->deaf()) return arm_poll(POLLRDHUP);
  io_uring_sqe* entry = reactor_.ring().sqe();
  if (tls::kKernelTlsBuilt && tls_ && tls_->in_kernel()) {
    io_uring_prep_recvmsg_multishot(entry, fd_, &tls_->engine().receive_template.message, 0);
  } else if (reactor_.receive_strategy() == runtime::ReceiveStrategy::kMultishot) {
    io_uring_prep_recv_multishot(entry, fd_, nullptr, 0, 0);
  } else {
    io_uring_prep_recv(entry, fd_, nullptr, 0, 0);
    entry->ioprio |= IORING_RECVSEND_POLL_FIRST;
  }
  entry->flags |= IOSQE_BUFFER_SELECT;
  entry->buf_group = BufferPool::kGroup;
  stopping_ = false;
  receive_op_.start(entry);
}

void Transport::arm_poll(unsigned events) noexcept {
  io_uring_sqe* entry = reactor_.ring().sqe();
  io_uring_prep_poll_add(entry, fd_, events);
  polling_ = true;
  receive_op_.start(entry);
}

void Transport::on_receive(runtime::Op& op, int32_t result, uint32_t flags) noexcept {
  Transport& self = static_cast<ReceiveOp&>(op).transport;
  if (self.polling_) {
    self.polling_ = false;
    if (result != -ECANCELED) self.pollable_ = true;  // recv(2) will say what it is
    self.stopping_ = false;
    // What a lingering transport waits for that cannot receive.
    if (self.lingering_ && self.tls_ && self.tls_->deaf() && result > 0 &&
        (result & (POLLRDHUP | POLLHUP | POLLERR)) != 0) {
      self.note_end(false);
    }
    if (self.end_watcher_ != nullptr && self.direct_) self.note_end(false);
    if (!self.direct_) {
      self.pollable_ = false;
      if (self.may_arm() && (!self.disposed_ || self.lingering_)) self.arm_receive();
    }
    self.resume_waiters();
    return;
  }
  if ((flags & IORING_CQE_F_BUFFER) != 0) {
    const uint16_t buffer = self.reactor_.buffers().take_completed(flags);
    if (result > 0) {
      self.deliver(buffer, static_cast<uint32_t>(result));
    } else {
      self.reactor_.buffers().release(buffer);
    }
  }
  if (result == 0) {
    self.note_receive_end();
  } else if (result < 0) {
    self.note_receive_error(result);
  }
  if (!self.receive_op_.in_flight()) {
    self.stopping_ = false;
    // lack_buffer() waited for this.
    if (self.direct_when_starved_ && !self.direct_ && self.tls_ && self.tls_->has_input()) {
      self.open_kept();
    }
    if (self.may_arm() && (!self.disposed_ || self.lingering_)) self.arm_receive();
  } else if (self.backlog() >= self.queued_max()) {
    self.stop_receive();
  }
  self.resume_waiters();
}

void Transport::resume_waiters() noexcept {
  wake_reader();
  if (quiescer_ && !receive_op_.in_flight()) reactor_.ready(std::exchange(quiescer_, {}));
  close_if_done();
}

void Transport::stop_receive() noexcept {
  if (stopping_ || !receive_op_.in_flight()) return;
  stopping_ = true;
  receive_op_.cancel(reactor_.ring());
}

void Transport::deliver(uint16_t buffer, uint32_t bytes) noexcept {
  if (disposed_ || ended_ || failed()) {
    // TLS may end before TCP does. The end of TCP comes in a buffer with kernel TLS.
    if (tls::kKernelTlsBuilt && tls_ && tls_->in_kernel() && is_end(buffer, bytes)) {
      note_receive_end();
    }
    reactor_.buffers().release(buffer);
  } else if (!tls_) {
    enqueue(buffer, 0, bytes);
  } else if (tls::kKernelTlsBuilt && tls_->in_kernel()) {
    deliver_record(buffer, bytes);
  } else {
    deliver_ciphertext(buffer, bytes);
  }
}

void Transport::enqueue(uint16_t buffer, uint32_t offset, uint32_t bytes) noexcept {
  BufferPool& pool = reactor_.buffers();
  if (tail_ != BufferPool::kNone) {
    // Small pieces share a buffer, or a peer that drips bytes would hold many nearly empty ones.
    BufferPool::Meta& last = pool.meta(tail_);
    const uint32_t used = last.offset + last.length;
    if (pool.size() - used >= bytes) {
      std::memcpy(pool.data(tail_) + used, pool.data(buffer) + offset, bytes);
      last.length += bytes;
      pool.release(buffer);
      return;
    }
  }
  BufferPool::Meta& meta = pool.meta(buffer);
  meta = {.next = BufferPool::kNone, .offset = offset, .length = bytes};
  if (tail_ == BufferPool::kNone) {
    head_ = buffer;
  } else {
    pool.meta(tail_).next = buffer;
  }
  tail_ = buffer;
  ++queued_;
}

void Transport::note_receive_error(int32_t result) noexcept {
  if (result == -ENOBUFS) {
    BufferPool& pool = reactor_.buffers();
    if (pool.exhausted() && direct_when_starved_ && !disposed_) {
      direct_ = pollable_ = true;  // recv(2) will say what it is
      if (end_watcher_ != nullptr) note_end(false);
    } else if (pool.exhausted()) {
      pool.wait_for_buffer(parked_);
    } else {
      pool.widen();  // free ones were there, too few were offered; re-armed by the caller
    }
    return;
  }
  if (result == -ECANCELED || result == -EINTR || result == -EAGAIN) return;
  if (tls::kKernelTlsBuilt && tls_ && tls_->deaf()) return note_kernel_fault(result);
  if (ended_) return;  // TLS has: what became of TCP does not matter any more
  if (tls::kKernelTlsBuilt && tls_ && tls_->in_kernel() && !disposed_) {
    return note_kernel_fault(result);
  }
  if (tls_ && !disposed_ && tls_->has_input()) {
    send_failed_ = true;  // what waits for a buffer came before it
    return;
  }
  fail_receive(base::from_errno(-result));
}

void Transport::fail_receive(base::Error error) noexcept {
  error_ = error;
  note_end(true);
}

void Transport::note_end(bool failed) noexcept {
  if (!failed) ended_ = true;
  if (end_watcher_ == nullptr) return;
  const EndWatcher watcher = std::exchange(end_watcher_, nullptr);
  watcher(end_context_, failed);
}

// The kernel tells of a broken connection once. When it told a send, receivers only see an end,
// which must not pass for the peer's: that could complete a body which lasts until the end.
void Transport::note_send_error(int32_t result) noexcept {
  // EPIPE: the peer's end came first, or the error was told before.
  if (result >= 0 || result == -EPIPE || result == -ECANCELED || result == -EAGAIN ||
      result == -EINTR) {
    return;
  }
  send_failed_ = true;
}

void Transport::note_receive_end() noexcept {
  if (ended_ || failed()) return;
  // The end of what waits for a buffer may be close_notify. Whoever receives behind it asks again.
  if (tls_ && !disposed_ && tls_->has_input()) return;
  if (send_failed_) return fail_receive(base::from_errno(ECONNRESET));
  if (!tls_ || disposed_) return note_end(false);
  // Anybody can end a TCP stream; only the peer can say that this was all (RFC 8446 6.1).
  if (!aborted_) ++tls_->counters().truncated;
  fail_receive({.code = base::Errc::kClosed});
}

void Transport::watch_end(EndWatcher watcher, void* context) noexcept {
  end_watcher_ = watcher;
  end_context_ = context;
  if (ended_ || failed()) note_end(failed());
}

bool Transport::on_buffer(runtime::BufferWaiter& waiter) noexcept {
  Transport& self = static_cast<Parked&>(waiter).transport;
  if (self.tls_ && !self.disposed_ && !self.direct_ && self.tls_->has_input()) {
    self.open_kept();
    // It may have been a part of a record only, and the reader is not told.
    if (!self.receive_op_.in_flight() && self.may_arm()) self.arm_receive();
    self.wake_reader();
    return true;
  }
  // A full queue, direct mode, the end: whoever is next shall have the buffer.
  if (self.receive_op_.in_flight() || !self.may_arm()) return false;
  if (self.disposed_ && !self.lingering_) return false;
  self.arm_receive();
  return true;
}

// ---- waiting

bool Transport::has_event() const noexcept {
  return interrupted_ || timed_out_ || has_data() || pollable_ || ended_ || failed() ||
         input_waits();
}

// Direct mode: the record layer has something that recv_direct() would give.
bool Transport::input_waits() const noexcept {
  return direct_ && tls_ && !ended_ && !failed() && tls_->has_input();
}

void Transport::wait_for_read(std::coroutine_handle<> handle, uint64_t deadline_ms) noexcept {
  WEIR_CHECK(!reader_);
  reader_ = handle;
  read_deadline_ms_ = deadline_ms;
  if (deadline_ms != kNoDeadline) watch_deadline(deadline_ms);
  if (direct_ && !receive_op_.in_flight()) arm_poll(POLLIN);
}

ReadEvent Transport::take_event() noexcept {
  read_deadline_ms_ = kNoDeadline;
  // It was this wait's; whatever ends the wait, the next one must not find it.
  const bool timed_out = timed_out_;
  timed_out_ = false;
  if (interrupted_) {
    interrupted_ = false;
    return ReadEvent::kInterrupted;
  }
  if (has_data() || pollable_ || input_waits()) {
    pollable_ = false;
    return ReadEvent::kData;
  }
  if (failed()) return ReadEvent::kError;
  if (ended_) return ReadEvent::kEnd;
  WEIR_CHECK(timed_out);
  return ReadEvent::kTimeout;
}

void Transport::wake_reader() noexcept {
  if (reader_ && has_event()) reactor_.ready(std::exchange(reader_, {}));
}

void Transport::interrupt() noexcept {
  interrupted_ = true;
  wake_reader();
}

// The timer is armed for the earliest deadline ever asked for and re-armed lazily when it fires, so
// that a busy connection does not touch the wheel for every message.
void Transport::watch_deadline(uint64_t deadline_ms) noexcept {
  if (deadline_.armed() && deadline_.expires_ms() <= deadline_ms) return;
  reactor_.timers().arm(deadline_, deadline_ms);
}

void Transport::on_deadline(runtime::Timer& timer) noexcept {
  Transport& self = static_cast<Deadline&>(timer).transport;
  const uint64_t now = self.reactor_.now_ms();
  if (self.send_deadline_ms_ != kNoDeadline && self.send_deadline_ms_ <= now) {
    if (self.sending_->stalled(now)) {
      self.send_deadline_ms_ = kNoDeadline;
      self.sending_->timed_out_ = true;
      self.sending_->cancel(self.reactor_.ring());
    } else {
      self.send_deadline_ms_ = self.sending_->next_look(now);
    }
  }
  if (self.read_deadline_ms_ != kNoDeadline && self.read_deadline_ms_ <= now) {
    self.read_deadline_ms_ = kNoDeadline;
    self.timed_out_ = true;
    if (self.lingering_) {
      runtime::sys::shutdown(self.fd_, SHUT_RDWR);
      self.parked_.unlink();
      self.close_if_done();
      return;
    }
    self.wake_reader();
  }
  uint64_t next = UINT64_MAX;
  if (self.read_deadline_ms_ != kNoDeadline) next = self.read_deadline_ms_;
  if (self.send_deadline_ms_ != kNoDeadline) next = std::min(next, self.send_deadline_ms_);
  if (next != UINT64_MAX) self.reactor_.timers().arm(self.deadline_, next);
}

// ---- direct mode

Transport::QuiesceWait Transport::enter_direct_mode() noexcept {
  direct_ = true;
  pollable_ = false;
  parked_.unlink();
  if (receive_op_.in_flight() && !stopping_) {
    stopping_ = true;
    receive_op_.cancel(reactor_.ring());
  }
  return QuiesceWait(*this);
}

ssize_t Transport::recv_direct(void* out, size_t bytes) noexcept {
  WEIR_CHECK(direct_ && !has_data() && bytes > 0);
  // The kernel tells of a reset once; whoever asks again is told "end", as if all had come.
  if (failed()) return error_.os != 0 ? -error_.os : -EIO;
  if (tls_ && ended_) return 0;
  if (tls::kKernelTlsBuilt && tls_ && tls_->in_kernel() && !tls_->has_input()) {
    return recv_direct_kernel(out, bytes);
  }
  if (tls_) return recv_direct_session(static_cast<char*>(out), bytes);
  const ssize_t result = runtime::sys::recv(fd_, out, bytes, 0);
  if (result == 0) {
    note_receive_end();
    if (failed()) return -ECONNRESET;
  }
  if (result < 0 && result != -EAGAIN && result != -EINTR) {
    error_ = base::from_errno(static_cast<int>(-result));
  }
  return result == -EINTR ? -EAGAIN : result;
}

bool Transport::input_unasked() const noexcept {
  char byte;
  return !tls_ && runtime::sys::recv(fd_, &byte, 1, MSG_PEEK) >= 0;
}

void Transport::note_sent(ssize_t result) noexcept {
  note_send_error(static_cast<int32_t>(std::min<ssize_t>(result, 0)));
  if (tls::kKernelTlsBuilt && tls_ && result > 0) tls_->count_records(static_cast<size_t>(result));
}

ssize_t Transport::send_direct(const void* data, size_t bytes, bool more) noexcept {
  WEIR_CHECK(sending_ == nullptr);
  if (tls_ && !tls_->in_kernel()) {
    iovec piece{const_cast<void*>(data), bytes};
    return send_direct_session(&piece, 1);
  }
  if (tls::kKernelTlsBuilt && tls_ && !may_send_record()) return -EAGAIN;
  // Records of the kernel end with each call: what follows may be longer in coming.
  const ssize_t result = runtime::sys::send(fd_, data, bytes, more && !tls_ ? MSG_MORE : 0);
  note_sent(result);
  return result == -EINTR ? -EAGAIN : result;
}

ssize_t Transport::send_direct(iovec* pieces, unsigned count) noexcept {
  WEIR_CHECK(sending_ == nullptr);
  if (tls_ && !tls_->in_kernel()) return send_direct_session(pieces, count);
  if (tls::kKernelTlsBuilt && tls_ && !may_send_record()) return -EAGAIN;
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = count;
  const ssize_t result = runtime::sys::sendmsg(fd_, &message, 0);
  note_sent(result);
  return result == -EINTR ? -EAGAIN : result;
}

void Transport::watch_readable() noexcept {
  WEIR_CHECK(direct_);
  if (!receive_op_.in_flight() && !ended_ && !failed()) arm_poll(POLLIN);
}

// ---- sending

void Transport::abort() noexcept {
  aborted_ = true;
  runtime::sys::shutdown(fd_, SHUT_RDWR);
}
void Transport::cancel_sends() noexcept {
  sends_cancelled_ = true;
  if (sending_ == nullptr) return;
  sending_->cancelled_ = true;
  sending_->cancel(reactor_.ring());
}
void Transport::shutdown_write() noexcept { runtime::sys::shutdown(fd_, SHUT_WR); }

SendOp Transport::send(iovec* pieces, unsigned count, uint32_t timeout_ms) noexcept {
  return {*this, pieces, count, timeout_ms};
}

SendOp::SendOp(Transport& transport, iovec* pieces, unsigned count, uint32_t timeout_ms,
               bool close_notify) noexcept
    : Op(&SendOp::on_complete),
      transport_(transport),
      timeout_ms_(timeout_ms),
      close_notify_(close_notify) {
  message_.msg_iov = pieces;
  message_.msg_iovlen = count;
}

bool SendOp::await_suspend(std::coroutine_handle<> handle) noexcept {
  WEIR_CHECK(transport_.sending_ == nullptr);
  if (transport_.sends_cancelled_) error_ = ECANCELED;
  advance(0);
  if (error_ != 0) return false;
  waiter_ = handle;
  const Next step = next();
  if (step != Next::kSubmitted) {
    if (step == Next::kFailed && transport_.tls_) transport_.tls_->break_sending();
    return false;
  }
  transport_.sending_ = this;
  return true;
}

SendOp::Next SendOp::next() noexcept {
  if (poll_ != Poll::kNo) return next_poll();
  if (transport_.tls_) return next_records();
  if (message_.msg_iovlen == 0) return Next::kDone;
  return submit_plain();
}

SendOp::Next SendOp::submit_plain() noexcept {
  if (message_.msg_iovlen == 1) {
    submit_bytes(message_.msg_iov->iov_base, message_.msg_iov->iov_len);
  } else {
    submit_message(&message_);
  }
  return Next::kSubmitted;
}

void SendOp::submit_bytes(const void* data, size_t bytes) noexcept {
  io_uring_sqe* entry = transport_.reactor_.ring().sqe();
  io_uring_prep_send(entry, transport_.fd_, data, bytes, MSG_NOSIGNAL);
  submitted(entry);
}

void SendOp::submit_message(const msghdr* message) noexcept {
  io_uring_sqe* entry = transport_.reactor_.ring().sqe();
  io_uring_prep_sendmsg(entry, transport_.fd_, message, MSG_NOSIGNAL);
  submitted(entry);
}

void SendOp::submitted(io_uring_sqe* entry) noexcept {
  start(entry);
  idle_since_ms_ = transport_.reactor_.now_ms();
  acknowledged_ = -1;
  const uint64_t look = next_look(idle_since_ms_);
  transport_.send_deadline_ms_ = look;
  transport_.watch_deadline(look);
}

uint64_t SendOp::next_look(uint64_t now_ms) const noexcept {
  constexpr uint32_t kLooks = 8;  // in the time of a timeout
  return std::min(idle_since_ms_ + timeout_ms_, now_ms + std::max(timeout_ms_ / kLooks, 1u));
}

bool SendOp::stalled(uint64_t now_ms) noexcept {
  const int64_t acknowledged = runtime::sys::acknowledged(transport_.fd_);
  if (acknowledged_ >= 0 && acknowledged > acknowledged_) idle_since_ms_ = now_ms;
  acknowledged_ = acknowledged;
  return now_ms - idle_since_ms_ >= timeout_ms_;
}

void SendOp::advance(size_t bytes) noexcept {
  while (message_.msg_iovlen > 0 && bytes >= message_.msg_iov->iov_len) {
    bytes -= message_.msg_iov->iov_len;
    ++message_.msg_iov;
    --message_.msg_iovlen;
  }
  if (message_.msg_iovlen == 0) return;
  message_.msg_iov->iov_base = static_cast<char*>(message_.msg_iov->iov_base) + bytes;
  message_.msg_iov->iov_len -= bytes;
}

void SendOp::on_complete(runtime::Op& op, int32_t result, uint32_t) noexcept {
  auto& self = static_cast<SendOp&>(op);
  if (result >= 0 && self.poll_ != Poll::kUnderWay) self.took(static_cast<size_t>(result));
  const bool again = result == -EINTR || result == -EAGAIN;
  if (result >= 0 || again) {
    result = 0;
    if (self.timed_out_ || self.cancelled_) {
      // The cancel met a short send: it is over all the same.
      if (again || self.has_more()) result = -ECANCELED;
    } else {
      const Next step = self.next();
      if (step == Next::kSubmitted) return;
      if (step == Next::kFailed) result = -self.error_;
    }
  }
  self.transport_.note_send_error(result);
  if (result == -ECANCELED && self.timed_out_) result = -ETIMEDOUT;
  self.error_ = result < 0 ? -result : 0;
  if (result < 0 && self.transport_.tls_) self.transport_.tls_->break_sending();
  self.buffer_.reset();
  self.transport_.send_deadline_ms_ = Transport::kNoDeadline;
  self.transport_.sending_ = nullptr;
  self.transport_.reactor_.ready(self.waiter_);
}

base::Result<void> SendOp::await_resume() noexcept {
  if (error_ != 0) return base::fail(base::from_errno(error_));
  return {};
}

}  // namespace weir::net
