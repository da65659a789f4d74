// One origin server as one core sees it: its idle connections, the bound on connects under way, and
// who waits for one. Everything here belongs to one core's thread; nothing is shared.
#pragma once

#include <coroutine>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <weir/base/intrusive_list.h>
#include <weir/base/ip.h>
#include <weir/base/result.h>
#include <weir/net/handshake.h>
#include <weir/net/listen.h>
#include <weir/net/transport.h>
#include <weir/runtime/task.h>

namespace weir::upstream {

class Endpoint;

// A connection to an origin: leased by one exchange, or idle in its endpoint's list.
struct Connection : base::ListNode {
  Connection(Endpoint& owner, std::unique_ptr<net::Transport> stream, uint64_t now_ms,
             std::shared_ptr<net::TlsTarget> target = nullptr) noexcept
      : endpoint(owner), tls(std::move(target)), transport(std::move(stream)), created_ms(now_ms) {}
  Endpoint& endpoint;
  const std::shared_ptr<net::TlsTarget> tls;  // how it was secured; null: it was not
  std::unique_ptr<net::Transport> transport;
  uint64_t created_ms;
  uint64_t idle_since_ms = 0;
  uint32_t exchanges = 0;  // finished ones: 0 means that the connection is fresh
};

// This core's share of the limits, and the times, from the upstream's configuration.
struct EndpointLimits {
  uint32_t connect_timeout_ms = 10'000;
  uint32_t idle_timeout_ms = 30'000;
  uint32_t lifetime_ms = 0;  // 0: no limit
  uint32_t idle_max = 256;
  uint32_t connecting_max = 64;
};

// What a waiting acquire() can be stopped by; a field of the exchange.
class AcquireHandle {
 public:
  AcquireHandle() noexcept = default;
  AcquireHandle(const AcquireHandle&) = delete;
  AcquireHandle& operator=(const AcquireHandle&) = delete;
  // Makes the acquire under way, if any, end soon with kCancelled.
  void cancel() noexcept;

 private:
  friend class Endpoint;
  struct Waiter;
  net::ConnectHandle connect_;
  net::Transport* handshaking_ = nullptr;
  bool cancelled_ =
      false;  // of the acquire under way: whatever it waits for next is not waited for
  Waiter* waiter_ = nullptr;
};

struct EndpointCounters {
  uint64_t connects = 0;
  uint64_t connect_failures = 0;
  uint64_t reuses = 0;
  uint64_t waits = 0;        // acquires that met the bound on connects
  uint64_t idle_closed = 0;  // idle connections that the origin ended
};

class Endpoint {
 public:
  static constexpr uint32_t kWaitersMax = 4096;

  Endpoint(runtime::Reactor& reactor, std::string upstream_name, std::string address_text,
           const base::SocketAddress& address) noexcept;
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;
  ~Endpoint();  // nothing leased, nobody waiting

  void set_limits(const EndpointLimits& limits) noexcept;
  // Connections to another address than this are not used again.
  // `text`: of it, for logs.
  void set_address(const base::SocketAddress& address, std::string_view text);
  // The same with TLS: connections that were made in another way are not used again.
  void set_tls(net::tls::Engine* engine, const std::shared_ptr<net::tls::ClientContext>& context,
               const std::string& host_name);

  // An idle connection that is still good, or null. The most recently used first.
  std::unique_ptr<Connection> try_idle() noexcept;
  // An idle connection, or (always, with `fresh`) a new one; within the connect timeout and until
  // `deadline_ms`, waiting and TLS handshake included. Errors: those of connect(2), kTimedOut,
  // kLimit (too many waiting), kCancelled, kHandshake.
  runtime::Task<base::Result<std::unique_ptr<Connection>>> acquire(
      AcquireHandle& handle, bool fresh, uint64_t deadline_ms = UINT64_MAX);

  // Gives a connection back after an exchange that ended cleanly; it is kept if there is room.
  void release(std::unique_ptr<Connection> connection) noexcept;
  // Ends it.
  static void discard(std::unique_ptr<Connection> connection,
                      net::Linger linger = net::Linger::kNo) noexcept;
  // Keeps the endpoint itself (its names are logged when its connection is long given back).
  void hold() noexcept { ++held_; }
  void let_go() noexcept { --held_; }
  // Ends all idle ones (shutdown, or the endpoint left the configuration).
  void close_idle() noexcept;

  [[nodiscard]] const std::string& upstream_name() const noexcept { return upstream_name_; }
  [[nodiscard]] const std::string& address_text() const noexcept { return address_text_; }
  // What was wrong with the last TLS handshake that failed.
  [[nodiscard]] const std::string& handshake_failure() const noexcept { return handshake_failure_; }
  [[nodiscard]] uint32_t idle() const noexcept { return idle_count_; }
  [[nodiscard]] uint32_t leased() const noexcept { return leased_; }
  [[nodiscard]] bool unused() const noexcept {
    return idle_count_ == 0 && leased_ == 0 && connecting_ == 0 && waiting_ == 0 && held_ == 0;
  }
  [[nodiscard]] const EndpointCounters& counters() const noexcept { return counters_; }

 private:
  friend struct AcquireHandle::Waiter;
  struct IdleTimer : runtime::Timer {
    explicit IdleTimer(Endpoint& owner) noexcept
        : Timer(&Endpoint::on_idle_timer), endpoint(owner) {}
    Endpoint& endpoint;
  };
  static void on_idle_timer(runtime::Timer& timer) noexcept;
  static void on_idle_end(void* context, bool failed) noexcept;
  [[nodiscard]] bool still_good(const Connection& connection) const noexcept;
  void drop_idle(Connection& connection) noexcept;
  void grant_places() noexcept;
  void pass_place_on() noexcept;
  void wake_for_idle() noexcept;
  runtime::Task<base::Result<std::unique_ptr<Connection>>> open(AcquireHandle& handle,
                                                                uint32_t timeout_ms);
  runtime::Task<base::Result<void>> make_secure(AcquireHandle& handle, net::Transport& transport,
                                                std::shared_ptr<net::TlsTarget> target,
                                                uint64_t deadline_ms);

  runtime::Reactor& reactor_;
  std::string upstream_name_;
  std::string address_text_;
  base::SocketAddress address_;
  uint64_t address_since_ms_ = 0;
  net::tls::Engine* engine_ = nullptr;
  std::shared_ptr<net::TlsTarget> tls_;  // null: plain
  std::string handshake_failure_;
  EndpointLimits limits_;
  base::IntrusiveList<Connection> idle_;  // most recently used first
  uint32_t idle_count_ = 0;
  uint32_t leased_ = 0;
  uint32_t connecting_ = 0;
  uint32_t waiting_ = 0;
  uint32_t granted_ = 0;  // places that belong to waiters who were woken and not resumed yet
  uint32_t held_ = 0;
  base::IntrusiveList<AcquireHandle::Waiter> waiters_;
  IdleTimer idle_timer_;
  EndpointCounters counters_;
};

}  // namespace weir::upstream
