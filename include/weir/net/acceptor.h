// Accepts connections on one listening socket of one core by a multishot accept. A long-lived
// object with stop() (STYLE 2.5, 9). It does not own the listening descriptor's address, only the
// socket.
#pragma once

#include <coroutine>
#include <cstdint>

#include <weir/base/result.h>
#include <weir/runtime/reactor.h>

namespace weir::net {

class Acceptor {
 public:
  // Called for each accepted descriptor (owned by the callee), while completions are reaped: it may
  // spawn, it must not resume.
  using OnAccept = void (*)(void* context, int fd) noexcept;

  // Takes ownership of `fd`. on_accept gets a descriptor to own, or -errno when accept() failed for
  // want of descriptors or memory.
  Acceptor(runtime::Reactor& reactor, int fd, OnAccept on_accept, void* context) noexcept;
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;
  ~Acceptor();  // stopped() must be true

  void start() noexcept;
  // Asks the accept to end. Connections that were accepted before still arrive. Poll stopped(),
  // then take_backlog() and destroy.
  void stop() noexcept;
  // Accepts what the kernel has queued up to now: closing the listener would reset it.
  void take_backlog() noexcept;
  [[nodiscard]] bool stopping() const noexcept { return stopping_; }
  [[nodiscard]] bool stopped() const noexcept { return stopping_ && !op_.in_flight(); }
  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] uint64_t accepted() const noexcept { return accepted_; }
  // accept() failed for want of descriptors or memory; it was paused for a moment each time.
  [[nodiscard]] uint64_t failures() const noexcept { return failures_; }
  [[nodiscard]] base::Error last_failure() const noexcept { return last_failure_; }

 private:
  struct AcceptOp : runtime::Op {
    explicit AcceptOp(Acceptor& owner) noexcept : Op(&Acceptor::on_complete), acceptor(owner) {}
    Acceptor& acceptor;
  };
  struct Pause : runtime::Timer {
    explicit Pause(Acceptor& owner) noexcept : Timer(&Acceptor::on_pause_over), acceptor(owner) {}
    Acceptor& acceptor;
  };
  static void on_complete(runtime::Op& op, int32_t result, uint32_t flags) noexcept;
  static void on_pause_over(runtime::Timer& timer) noexcept;
  void arm() noexcept;

  runtime::Reactor& reactor_;
  int fd_;
  OnAccept on_accept_;
  void* context_;
  bool stopping_ = false;
  uint64_t accepted_ = 0;
  uint64_t failures_ = 0;
  base::Error last_failure_;
  AcceptOp op_;
  Pause pause_;
};

}  // namespace weir::net
