// A core: one pinned thread with its reactor, listeners and worker. Created, commanded and joined
// by control; between start and join nobody else touches what is inside. A core never waits for
// another thread and takes no lock.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <thread>

#include <weir/log/channel.h>
#include <weir/log/error_log.h>
#include <weir/net/acceptor.h>
#include <weir/net/tls/engine.h>
#include <weir/proxy/worker.h>
#include <weir/runtime/mailbox.h>
#include <weir/runtime/reactor.h>
#include <weir/server/messages.h>

namespace weir::server {

struct CoreOptions {
  uint16_t index = 0;
  uint32_t cores = 1;
  int cpu = -1;                     // pinned there; -1: not pinned
  int control_wake_fd = -1;         // woken after each notice and when the log needs draining
  net::tls::Engine* tls = nullptr;  // outlives the core; nullptr: no TLS
  runtime::ReactorOptions reactor;
};

class Core {
 public:
  // `channel`, `logger` and `cell` outlive the core.
  Core(const CoreOptions& options, log::Channel& channel, log::Logger& logger,
       proxy::GenerationCell& cell);
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;
  ~Core();  // joined

  // Control's side.
  void start();  // the thread; the first notice is kStarted or kFailed
  void join();
  // False: the mailbox is full; try again later.
  bool send(const Command& command) noexcept;
  template <class Visitor>
  void receive(Visitor&& visit) {
    notices_.drain(std::forward<Visitor>(visit));
  }
  [[nodiscard]] uint16_t index() const noexcept { return options_.index; }

  // The core's own side, one step of its loop: exposed for the simulation, which runs cores by
  // hand.
  base::Result<void> open();
  void turn(bool may_wait);
  void close();
  [[nodiscard]] bool stopping() const noexcept { return stopping_; }
  [[nodiscard]] proxy::Worker& worker() noexcept { return *worker_; }

 private:
  struct Listener {
    Listener(Core& owner, const Command& command) noexcept;
    Core& core;
    proxy::ListenerInfo info;
    std::unique_ptr<net::Acceptor> acceptor;  // null once closed
    bool closing = false;
    uint64_t stop_accepting_ms = 0;  // while closing: handshakes under way have until then
  };

  void run();
  void execute(const Command& command);
  void open_listener(const Command& command);
  void set_listener(const Command& command) noexcept;
  void close_listener(Listener& listener, uint64_t grace_ms) noexcept;
  void tend_listeners();
  void scrape(Scrape& out) const noexcept;
  void tell(const Notice& notice) noexcept;
  void tell_again();
  static void on_accept(void* context, int fd) noexcept;

  CoreOptions options_;
  log::Channel& channel_;
  log::Logger& logger_;
  proxy::GenerationCell& cell_;
  runtime::Mailbox<Command> commands_;
  runtime::Mailbox<Notice> notices_;
  std::deque<Notice> unsent_;  // what a full mailbox did not take
  std::thread thread_;

  std::unique_ptr<runtime::Reactor> reactor_;
  std::unique_ptr<proxy::Worker> worker_;
  std::list<Listener> listeners_;
  // Only wakes the loop, for tend_listeners() and tell_again().
  runtime::Timer revisit_timer_{[](runtime::Timer&) noexcept {}};
  bool listeners_changing_ = false;
  bool report_quiet_ = false;
  bool stopping_ = false;
  std::atomic<int> wake_fd_{-1};
};

}  // namespace weir::server
