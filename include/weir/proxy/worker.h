// What one core's proxy code works with: the thread's engine, logs, counters, the current routes
// and settings, its upstreams and its connections. Owned by server::Core, one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include <weir/base/intrusive_list.h>
#include <weir/base/ip.h>
#include <weir/files/store.h>
#include <weir/log/channel.h>
#include <weir/log/error_log.h>
#include <weir/net/pipe_pool.h>
#include <weir/proxy/counters.h>
#include <weir/proxy/generation.h>
#include <weir/runtime/reactor.h>
#include <weir/runtime/task_group.h>
#include <weir/upstream/registry.h>

namespace weir::proxy {

class Exchange;
struct ClientConnection;

// Where a connection came in, and what is served there. Lives as long as any connection of it
// (server::Core sees to that).
struct ListenerInfo {
  uint32_t id = 0;
  base::SocketAddress address;
  bool tls = false;
  uint16_t redirect_https = 0;  // port of https to send every request to; 0: served here
  uint32_t connections = 0;     // of this core, through this listener
};

class Worker {
 public:
  // Bytes of the scratch through which large bodies pass (PERFORMANCE.md, finding 5: one hot
  // block). It has room for one byte more, to look behind a body.
  static constexpr size_t kScratchBytes = 256 * 1024;

  Worker(runtime::Reactor& reactor, log::Channel& channel, log::Logger& logger,
         GenerationCell& cell, uint16_t core, uint32_t cores, net::tls::Engine* tls = nullptr);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker();

  // A fresh connection; called while completions are reaped, takes the descriptor.
  void accept(ListenerInfo& listener, int fd) noexcept;
  // Descriptors or memory are scarce: gives up what is only kept for later.
  void note_accept_failure(base::Error error) noexcept;

  // Between turns: picks up a new generation.
  void quiesce();
  // TLS of the newest generation, as this core uses it.
  [[nodiscard]] const CoreTls& core_tls() const noexcept;
  // Keys for session tickets, from the next handshake on.
  // `number` tells older keys from newer ones.
  void use_tickets(std::unique_ptr<net::tls::TicketKeyRing> tickets, uint64_t number) noexcept;

  // What control says of upstreams between two generations. `epoch`: of the newest generation when
  // it said so; a newer one than that holds it already.
  void update_upstream(const route::UpstreamSpec& spec, uint64_t epoch);
  void set_server(uint32_t upstream, uint64_t identity, route::ServerState state, uint32_t weight,
                  uint64_t epoch);

  void note_reached(uint32_t upstream, uint64_t identity, uint64_t epoch);
  // Whom to tell of a server that was put aside because nothing could be connected.
  using OnUnreachable = void (*)(void* context, uint32_t upstream, uint64_t identity);
  void on_unreachable(OnUnreachable handler, void* context) noexcept {
    on_unreachable_ = handler;
    unreachable_context_ = context;
  }

  // Graceful end: every response from now on closes its connection, and idle connections are closed
  // after `idle_grace_ms` (a request that was already on its way is answered).
  void drain(uint64_t idle_grace_ms) noexcept;
  // Ends everything that is left: exchanges are cancelled, connections closed.
  void cancel_all() noexcept;
  [[nodiscard]] bool draining() const noexcept { return draining_; }
  [[nodiscard]] uint64_t drain_grace_ms() const noexcept { return drain_grace_ms_; }
  [[nodiscard]] uint32_t connections() const noexcept { return connection_count_; }
  // No connection, no exchange, nothing that waits for the kernel.
  [[nodiscard]] bool quiet() const noexcept;

  // Fixed-width "Sun, 06 Nov 1994 08:49:37 GMT" of this second.
  std::string_view http_date() noexcept;
  struct RequestId {
    uint64_t high;
    uint64_t low;
  };
  RequestId next_request_id() noexcept { return {id_high_, id_low_++}; }

  std::unique_ptr<Exchange> take_exchange();
  void give_back(std::unique_ptr<Exchange> exchange) noexcept;

  runtime::Reactor& reactor;
  log::Channel& channel;
  log::Logger& logger;
  GenerationReader generations;
  upstream::Registry upstreams;
  Counters counters;
  net::PipePool pipes;
  files::Store files;
  const uint16_t core;
  net::tls::Engine* const tls;  // null: no TLS anywhere
  char* scratch() noexcept { return scratch_.get(); }
  // Where bytes are read to that nobody wants: pages are to be in memory then. kScratchBytes.
  char* waste();

 private:
  friend struct ClientConnection;
  struct DrainTimer : runtime::Timer {
    explicit DrainTimer(Worker& owner) noexcept : Timer(&Worker::on_drain_timer), worker(owner) {}
    Worker& worker;
  };
  static void on_pool_event(void* context, const upstream::PoolEvent& event);
  bool up_to_date(uint64_t epoch);
  static void on_drain_timer(runtime::Timer& timer) noexcept;
  void close_idle_clients() noexcept;

  OnUnreachable on_unreachable_ = nullptr;
  void* unreachable_context_ = nullptr;
  runtime::TaskGroup tasks_;
  std::unique_ptr<net::tls::TicketKeyRing> tickets_;  // the newest; null: those of the contexts
  uint64_t tickets_number_ = 0;
  base::IntrusiveList<ClientConnection> clients_;
  uint32_t connection_count_ = 0;
  bool draining_ = false;
  bool cancelling_ = false;
  uint64_t drain_grace_ms_ = 0;
  std::unique_ptr<char[]> scratch_;
  std::unique_ptr<char[]> waste_;    // null until it is needed
  std::unique_ptr<Exchange> spare_;  // chain of finished exchanges, to be used again
  uint32_t spare_count_ = 0;
  int64_t date_second_ = -1;
  char date_[32]{};
  uint64_t id_high_;
  uint64_t id_low_;
  DrainTimer drain_timer_;
};

}  // namespace weir::proxy
