// One connected stream socket on one core: bytes in by provided buffers, bytes out by one send at a
// time, deadlines for both, and an orderly end. It owns the descriptor and every operation on it.
//
// Receiving is pushed: a multishot receive (or re-armed one-shots, where the kernel's multishot is
// not to be trusted) fills a short queue of pool buffers; past a limit it is stopped, which is the
// back-pressure. The reader awaits readable() and consumes. For large bodies the reader switches to
// direct mode: no receive is armed, recv(2) goes straight into the reader's memory and the ring
// only says when (PERFORMANCE.md section 4, "hybrid").
//
// At most one coroutine reads and one writes. A Transport ends through dispose(): it outlives the
// call until the kernel has given everything back, then closes and deletes itself (STYLE 2.5, 6).
// With TLS (secure()), a record layer sits between what is received and the queue, and before what
// is sent: readers and writers see plaintext, and nothing else changes for them. Without
// close_notify the end of the stream is an error.
#pragma once

#include <coroutine>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include <sys/uio.h>

#include <weir/base/result.h>
#include <weir/net/record_layer.h>
#include <weir/runtime/reactor.h>

namespace weir::net {

enum class ReadEvent : uint8_t {
  kData,         // front() has bytes (or, in direct mode, recv may have)
  kEnd,          // the peer has ended its direction and everything was consumed
  kError,        // error() says what; nothing more will come
  kTimeout,      // the deadline passed first
  kInterrupted,  // interrupt() was called
};

enum class Linger : uint8_t {
  kNo,     // everything the peer sent was read: close at once
  kReset,  // end with a reset, so that what was sent cannot pass for complete
  kYes,    // it may still be sending: end our side, drain for a while, so that no reset eats our
           // answer
};

class SendOp;

class Transport {
 public:
  static constexpr uint64_t kNoDeadline = 0;

  // Takes ownership of `fd`. `reactor` must be the current thread's.
  Transport(runtime::Reactor& reactor, int fd) noexcept;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;
  // Use dispose(). Public only for unique_ptr; CHECKs that nothing is in flight.
  ~Transport();

  // Ends the connection and frees the object when the kernel is done with it. The caller must not
  // be sending. May be called from anywhere on the thread, also while a receive is armed.
  static void dispose(std::unique_ptr<Transport> transport, Linger linger) noexcept;

  // ---- receiving
  // Arms the receive. Called once after construction; direct mode ends with it too.
  void start_receiving() noexcept;
  [[nodiscard]] bool has_data() const noexcept { return head_ != runtime::BufferPool::kNone; }
  // The same, or something is kept for want of a buffer.
  [[nodiscard]] bool has_input() const noexcept {
    return has_data() || (tls_ && tls_->has_input());
  }
  // Bytes of the first buffer; empty if there is none.
  [[nodiscard]] std::string_view front() const noexcept;
  // Drops the first `bytes` of front().
  void consume(size_t bytes) noexcept;
  // Views of the queued buffers in order, as many as fit; returns how many.
  size_t queued(std::span<std::string_view> out) const noexcept;
  // Drops `bytes` from the front of the queue, over as many buffers as they span.
  void consume_queued(size_t bytes) noexcept;
  // Takes the whole first buffer out of the queue; front() is read before, the ref keeps it valid.
  runtime::BufferRef take_front() noexcept;
  // Takes the first buffer but leaves what follows its first `bytes` in the queue (copied to a
  // buffer of its own). Empty, and nothing changed, when no buffer is free for that.
  runtime::BufferRef split_front(size_t bytes) noexcept;
  // Puts bytes that were read past their message (direct mode) back to the front of the queue,
  // which must be empty. False, and nothing queued, when the pool has not enough buffers.
  bool unread(std::string_view bytes) noexcept;
  // The peer ended its direction (there may still be bytes queued).
  [[nodiscard]] bool ended() const noexcept { return ended_; }
  [[nodiscard]] bool failed() const noexcept { return error_.code != base::Errc::kOk; }
  [[nodiscard]] base::Error error() const noexcept { return error_; }

  class ReadWait {
   public:
    ReadWait(Transport& transport, uint64_t deadline_ms) noexcept
        : transport_(transport), deadline_ms_(deadline_ms) {}
    bool await_ready() const noexcept { return transport_.has_event(); }
    void await_suspend(std::coroutine_handle<> handle) noexcept {
      transport_.wait_for_read(handle, deadline_ms_);
    }
    ReadEvent await_resume() noexcept { return transport_.take_event(); }

   private:
    Transport& transport_;
    uint64_t deadline_ms_;
  };
  // co_await: until there is something to read or a reason to stop. Monotonic ms, kNoDeadline:
  // none.
  [[nodiscard]] ReadWait readable(uint64_t deadline_ms) noexcept { return {*this, deadline_ms}; }
  // Makes a pending or the next readable() return kInterrupted.
  void interrupt() noexcept;
  void clear_interrupt() noexcept { interrupted_ = false; }

  // When the pool is used up, go to direct mode by itself instead of waiting for a buffer. For a
  // reader that copes with that at any readable(): what waits for an origin holds buffers, so an
  // origin that waited for a buffer could wait for itself.
  void set_direct_when_starved() noexcept { direct_when_starved_ = true; }

  // Told when the peer ends or fails while nobody reads (the client that leaves while we wait for
  // an origin). Called at most once per set.
  using EndWatcher = void (*)(void* context, bool failed) noexcept;
  void watch_end(EndWatcher watcher, void* context) noexcept;
  void unwatch_end() noexcept { end_watcher_ = nullptr; }

  // ---- TLS (net/handshake.h makes the record layer)
  // From now on. Before start_receiving(), in direct mode, with nothing received or being sent.
  void secure(std::unique_ptr<RecordLayer> layer) noexcept;
  [[nodiscard]] TlsFacts tls() const noexcept { return tls_ ? tls_->facts() : TlsFacts{}; }
  [[nodiscard]] bool secured() const noexcept { return tls_ != nullptr; }
  // The connection should end at the next message: its keys are used up.
  [[nodiscard]] bool worn_out() const noexcept { return tls_ && tls_->worn_out(); }

  // ---- direct mode
  // False: stay with the queue (a kernel whose poll(2) tells of records that are not whole).
  [[nodiscard]] bool may_go_direct() const noexcept;
  class QuiesceWait {
   public:
    explicit QuiesceWait(Transport& transport) noexcept : transport_(transport) {}
    bool await_ready() const noexcept { return !transport_.receive_op_.in_flight(); }
    void await_suspend(std::coroutine_handle<> handle) noexcept { transport_.quiescer_ = handle; }
    void await_resume() const noexcept {}

   private:
    Transport& transport_;
  };
  // co_await: stops the receive; what arrived is in the queue and must be consumed before recv().
  [[nodiscard]] QuiesceWait enter_direct_mode() noexcept;
  [[nodiscard]] bool direct_mode() const noexcept { return direct_; }
  // Whether a plain socket has something to read, or its end, that nobody has asked for. In direct
  // mode nothing else tells at once.
  [[nodiscard]] bool input_unasked() const noexcept;
  // Straight from the socket: > 0 bytes, 0 at the end, -EAGAIN: await readable(), else -errno.
  ssize_t recv_direct(void* out, size_t bytes) noexcept;
  // Straight to the socket; -EAGAIN: use send() for the rest. Only while no send() is under way.
  // With unsent() afterwards, part of what was taken still waits here, and a send() has to follow,
  // if only of nothing. `more`: the rest of the message follows at once, and a plain socket may
  // wait for it before it sends a segment that is not full.
  ssize_t send_direct(const void* data, size_t bytes, bool more = false) noexcept;
  ssize_t send_direct(iovec* pieces, unsigned count) noexcept;
  [[nodiscard]] bool unsent() const noexcept { return tls_ && !tls_->unsent().empty(); }
  // Direct mode without a reader (an idle connection): whatever becomes readable counts as the end.
  void watch_readable() noexcept;

  // ---- without a copy in userspace (transport_move.cc)
  // The peer's end is none of its own: its KeyUpdate could not be followed, and what it said after
  // that cannot be read.
  [[nodiscard]] bool deaf() const noexcept { return tls::kKernelTlsBuilt && tls_ && tls_->deaf(); }
  // File pages and pipes can go to and from the socket: no TLS, or its records are the kernel's.
  [[nodiscard]] bool may_splice() const noexcept { return !tls_ || tls_->in_kernel(); }
  // sendfile(2): > 0 bytes, 0: the file ends before `offset`, -EAGAIN: await writable(), else
  // -errno. Only while no send() is under way, as all that follow.
  ssize_t send_file(int file_fd, uint64_t offset, size_t bytes) noexcept;
  // TCP_CORK: short segments wait for more, until it is taken off. Does nothing to Unix sockets.
  void cork(bool on) noexcept;
  // splice(2) from the socket to a pipe, in direct mode: as recv_direct().
  ssize_t splice_to(int pipe_fd, size_t bytes) noexcept;
  // From a pipe to the socket: > 0 bytes, -EAGAIN: await writable(), else -errno. `more` follows.
  ssize_t splice_from(int pipe_fd, size_t bytes, bool more) noexcept;
  // co_await: until the socket takes more, or an error, as a send.
  [[nodiscard]] SendOp writable(uint32_t timeout_ms) noexcept;

  // ---- sending
  // co_await send(iov, count, timeout_ms): all of it, or an error. Each time the peer takes some,
  // be it only of what the kernel holds, the timeout starts anew. The array and what it points to
  // belong to the caller until then; the array is changed.
  [[nodiscard]] SendOp send(iovec* pieces, unsigned count, uint32_t timeout_ms) noexcept;
  // shutdown(2) of both directions: pending operations of both sides end soon. For giving up. The
  // peer sees an orderly end (FIN): not for a body whose end is the connection's.
  void abort() noexcept;
  // Ends a send under way soon, and every later one at once, with kCancelled; tells the peer
  // nothing.
  void cancel_sends() noexcept;
  void shutdown_write() noexcept;
  // co_await: close_notify, as an ordinary send: for a body that lasts until the end. Nothing may
  // be sent behind it. Without TLS it is done at once. dispose() says it too, but does not wait.
  [[nodiscard]] SendOp send_close_notify(uint32_t timeout_ms) noexcept;
  [[nodiscard]] bool sending() const noexcept { return sending_ != nullptr; }

  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] runtime::Reactor& reactor() noexcept { return reactor_; }

 private:
  friend class SendOp;
  struct ReceiveOp : runtime::Op {
    explicit ReceiveOp(Transport& owner) noexcept : Op(&Transport::on_receive), transport(owner) {}
    Transport& transport;
  };
  struct Parked : runtime::BufferWaiter {
    explicit Parked(Transport& owner) noexcept
        : BufferWaiter(&Transport::on_buffer), transport(owner) {}
    Transport& transport;
  };
  struct Deadline : runtime::Timer {
    explicit Deadline(Transport& owner) noexcept
        : Timer(&Transport::on_deadline), transport(owner) {}
    Transport& transport;
  };

  static void on_receive(runtime::Op& op, int32_t result, uint32_t flags) noexcept;
  static bool on_buffer(runtime::BufferWaiter& waiter) noexcept;
  static void on_deadline(runtime::Timer& timer) noexcept;

  [[nodiscard]] bool has_event() const noexcept;
  [[nodiscard]] bool input_waits() const noexcept;
  void wait_for_read(std::coroutine_handle<> handle, uint64_t deadline_ms) noexcept;
  ReadEvent take_event() noexcept;
  void wake_reader() noexcept;
  void resume_waiters() noexcept;  // last call of a completion: it may delete the object
  void deliver(uint16_t buffer, uint32_t bytes) noexcept;
  void enqueue(uint16_t buffer, uint32_t offset, uint32_t bytes) noexcept;
  void note_receive_error(int32_t result) noexcept;
  void note_end(bool failed) noexcept;
  void fail_receive(base::Error error) noexcept;
  void stop_receive() noexcept;
  void note_receive_end() noexcept;
  void note_send_error(int32_t result) noexcept;
  void note_sent(ssize_t result) noexcept;
  void arm_receive() noexcept;
  void arm_poll(unsigned events) noexcept;
  [[nodiscard]] bool may_arm() const noexcept;
  [[nodiscard]] uint16_t queued_max() const noexcept;
  void watch_deadline(uint64_t deadline_ms) noexcept;
  void drop_queue() noexcept;
  void close_if_done() noexcept;
  [[nodiscard]] uint16_t backlog() const noexcept;

  // transport_tls.cc
  void deliver_ciphertext(uint16_t buffer, uint32_t bytes) noexcept;
  void deliver_record(uint16_t buffer, uint32_t bytes) noexcept;
  [[nodiscard]] bool is_end(uint16_t buffer, uint32_t bytes) noexcept;  // a record, or TCP's end
  size_t open_records(std::string_view ciphertext, uint16_t& spare) noexcept;
  void open_kept() noexcept;
  void lack_buffer() noexcept;
  void note_tls_state(tls::ReadState state, std::string_view said) noexcept;
  void take_control_record(const tls::ReceivedPiece& piece) noexcept;
  void note_kernel_fault(int32_t result) noexcept;
  bool read_control_record() noexcept;
  ssize_t recv_direct_session(char* out, size_t bytes) noexcept;
  ssize_t recv_direct_kernel(void* out, size_t bytes) noexcept;
  ssize_t send_direct_session(iovec* pieces, unsigned count) noexcept;
  [[nodiscard]] bool may_send_record() noexcept;
  void send_alert(tls::Alert alert) noexcept;
  void say_close_notify() noexcept;

  runtime::Reactor& reactor_;
  int fd_;
  uint16_t head_ = runtime::BufferPool::kNone;
  uint16_t tail_ = runtime::BufferPool::kNone;
  uint16_t queued_ = 0;         // buffers in the queue; one batch may bring many more than allowed
  bool receiving_ : 1 = false;  // start_receiving() was called
  bool ended_ : 1 = false;
  bool interrupted_ : 1 = false;
  bool timed_out_ : 1 = false;
  bool direct_ : 1 = false;
  bool direct_when_starved_ : 1 = false;
  bool polling_ : 1 = false;   // direct mode: the op in flight is a poll
  bool pollable_ : 1 = false;  // direct mode: poll said that recv is worth a try
  bool stopping_ : 1 = false;  // a cancel of the receive is under way
  bool disposed_ : 1 = false;
  bool lingering_ : 1 = false;
  bool sends_cancelled_ : 1 = false;
  bool aborted_ : 1 = false;
  bool send_failed_ : 1 = false;  // the connection broke, and a send was told
  base::Error error_;
  std::coroutine_handle<> reader_;
  std::coroutine_handle<> quiescer_;
  uint64_t read_deadline_ms_ = kNoDeadline;
  uint64_t send_deadline_ms_ = kNoDeadline;
  SendOp* sending_ = nullptr;
  std::unique_ptr<RecordLayer> tls_;
  EndWatcher end_watcher_ = nullptr;
  void* end_context_ = nullptr;
  ReceiveOp receive_op_;
  Parked parked_;
  Deadline deadline_;
};

// One send of a gathered message; lives in the frame of the coroutine that awaits it. With TLS in
// userspace the message becomes ciphertext block by block, as the socket takes it.
class SendOp : public runtime::Op {
 public:
  // `close_notify`: to be said behind the message.
  SendOp(Transport& transport, iovec* pieces, unsigned count, uint32_t timeout_ms,
         bool close_notify = false) noexcept;
  // Sends nothing: waits until the socket would take something.
  struct WaitForRoom {};
  SendOp(Transport& transport, WaitForRoom, uint32_t timeout_ms) noexcept;

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) noexcept;
  base::Result<void> await_resume() noexcept;

 private:
  friend class Transport;
  enum class Next : uint8_t { kSubmitted, kDone, kFailed };  // error_ says why
  static void on_complete(runtime::Op& op, int32_t result, uint32_t flags) noexcept;
  Next next() noexcept;  // submits what has to go next
  Next next_poll() noexcept;
  Next next_records() noexcept;
  Next next_session() noexcept;
  Next next_kernel() noexcept;
  Next begin_control(RecordLayer::Control control) noexcept;
  Next submit_control() noexcept;
  Next submit_plain() noexcept;
  Next fail(int os) noexcept;
  void submit_bytes(const void* data, size_t bytes) noexcept;
  void submit_message(const msghdr* message) noexcept;
  void submitted(io_uring_sqe* entry) noexcept;
  // To be asked at next_look(): has the peer taken nothing for the whole timeout? The kernel wants
  // more only when a third of its buffer is free, and a peer that is slow takes long for that.
  [[nodiscard]] bool stalled(uint64_t now_ms) noexcept;
  [[nodiscard]] uint64_t next_look(uint64_t now_ms) const noexcept;
  void took(size_t bytes) noexcept;
  void advance(size_t bytes) noexcept;  // of the message
  [[nodiscard]] bool has_more() const noexcept;

  Transport& transport_;
  msghdr message_{};
  uint32_t timeout_ms_;
  uint64_t idle_since_ms_ = 0;
  int64_t acknowledged_ = -1;  // when last looked at; < 0: not yet, or the kernel does not say
  bool timed_out_ = false;
  bool cancelled_ = false;
  bool close_notify_ = false;
  enum class Poll : uint8_t { kNo, kDue, kUnderWay } poll_ = Poll::kNo;
  RecordLayer::Control control_ = RecordLayer::Control::kNone;  // what is being sent
  int32_t error_ = 0;
  runtime::BufferRef buffer_;  // ciphertext of a small message
  std::coroutine_handle<> waiter_;
};

}  // namespace weir::net
