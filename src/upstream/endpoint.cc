#include <weir/upstream/endpoint.h>

#include <algorithm>
#include <utility>

#include <weir/runtime/timed_wait.h>

namespace weir::upstream {

using base::Errc;
using base::fail;
using base::Result;
using net::Linger;
using net::Transport;

// An acquire that waits for its turn; lives in the frame of acquire().
struct AcquireHandle::Waiter : runtime::TimedWait {
  Waiter(runtime::Reactor& reactor, bool only_fresh) noexcept
      : TimedWait(reactor), fresh(only_fresh) {}
  const bool fresh;      // an idle connection is of no use to it
  bool granted = false;  // it was woken for a place, which is counted in granted_
  bool cancelled = false;
};

void AcquireHandle::cancel() noexcept {
  cancelled_ = true;
  connect_.cancel();
  if (handshaking_ != nullptr) {
    handshaking_->cancel_sends();
    handshaking_->interrupt();
  }
  if (waiter_ != nullptr) {
    waiter_->cancelled = true;
    waiter_->wake();
  }
}

Endpoint::Endpoint(runtime::Reactor& reactor, std::string upstream_name, std::string address_text,
                   const base::SocketAddress& address) noexcept
    : reactor_(reactor),
      upstream_name_(std::move(upstream_name)),
      address_text_(std::move(address_text)),
      address_(address),
      idle_timer_(*this) {}

Endpoint::~Endpoint() {
  close_idle();
  reactor_.timers().disarm(idle_timer_);
  WEIR_CHECK(leased_ == 0 && connecting_ == 0);
}

void Endpoint::set_address(const base::SocketAddress& address, std::string_view text) {
  if (address_text_ != text) address_text_ = text;
  if (address == address_) return;
  address_ = address;
  address_since_ms_ = reactor_.now_ms();
  close_idle();
}

void Endpoint::set_tls(net::tls::Engine* engine,
                       const std::shared_ptr<net::tls::ClientContext>& context,
                       const std::string& host_name) {
  const bool same = tls_ ? tls_->context == context && tls_->host_name == host_name : !context;
  if (same) return;
  WEIR_CHECK(!context || engine != nullptr);
  engine_ = engine;
  tls_ = context ? std::make_shared<net::TlsTarget>(context, host_name) : nullptr;
  close_idle();
}

void Endpoint::set_limits(const EndpointLimits& limits) noexcept {
  limits_ = limits;
  grant_places();
}

bool Endpoint::still_good(const Connection& connection) const noexcept {
  const Transport& transport = *connection.transport;
  // Bytes on an idle connection answer nothing: the framing of that origin is not to be trusted.
  if (transport.ended() || transport.failed() || transport.has_input()) return false;
  if (transport.direct_mode() && transport.input_unasked()) return false;
  if (connection.created_ms < address_since_ms_) return false;  // the name leads elsewhere now
  if (connection.tls != tls_ || transport.worn_out()) return false;
  return limits_.lifetime_ms == 0 ||
         reactor_.now_ms() - connection.created_ms < limits_.lifetime_ms;
}

std::unique_ptr<Connection> Endpoint::try_idle() noexcept {
  while (!idle_.empty()) {
    std::unique_ptr<Connection> connection(idle_.pop_front());
    --idle_count_;
    connection->transport->unwatch_end();
    ++leased_;
    if (still_good(*connection)) {
      ++counters_.reuses;
      return connection;
    }
    discard(std::move(connection));
  }
  return nullptr;
}

runtime::Task<Result<std::unique_ptr<Connection>>> Endpoint::acquire(AcquireHandle& handle,
                                                                     bool fresh,
                                                                     uint64_t deadline_ms) {
  deadline_ms = std::min(deadline_ms, reactor_.now_ms() + limits_.connect_timeout_ms);
  handle.cancelled_ = false;
  bool waited = false;
  bool granted = false;
  while (true) {
    if (!fresh) {
      if (auto connection = try_idle()) {
        if (granted) pass_place_on();
        co_return connection;
      }
    }
    if (granted) --granted_;
    if (granted || connecting_ + granted_ < limits_.connecting_max) break;
    AcquireHandle::Waiter waiter(reactor_, fresh);
    if (waited) {
      // Somebody was quicker to the idle connection; those who came later stay behind all the same.
      waiters_.push_front(waiter);
    } else {
      if (waiting_ >= kWaitersMax) co_return fail(Errc::kLimit);
      ++counters_.waits;
      waiters_.push_back(waiter);
    }
    waited = true;
    ++waiting_;
    handle.waiter_ = &waiter;
    waiter.wake_at(deadline_ms);
    co_await waiter;
    handle.waiter_ = nullptr;
    --waiting_;
    granted = waiter.granted;
    if (waiter.cancelled) {
      // What it was woken for is another's.
      if (granted) pass_place_on();
      if (idle_count_ > 0) wake_for_idle();
      co_return fail(Errc::kCancelled);
    }
    if (waiter.timed_out()) co_return fail(Errc::kTimedOut);
  }
  const uint64_t now_ms = reactor_.now_ms();
  if (now_ms >= deadline_ms) {
    grant_places();
    co_return fail(Errc::kTimedOut);
  }
  co_return co_await open(handle, static_cast<uint32_t>(deadline_ms - now_ms));
}

runtime::Task<Result<std::unique_ptr<Connection>>> Endpoint::open(AcquireHandle& handle,
                                                                  uint32_t timeout_ms) {
  const uint64_t deadline_ms = reactor_.now_ms() + timeout_ms;
  // A reload may change it meanwhile; the connection is of the old kind then, and not kept.
  const std::shared_ptr<net::TlsTarget> target = tls_;
  std::unique_ptr<Transport> transport;
  ++connecting_;
  ++counters_.connects;
  auto fd = co_await net::connect(reactor_, address_, timeout_ms, &handle.connect_);
  Result<void> ready;
  if (fd) {
    transport = std::make_unique<Transport>(reactor_, *fd);
    transport->set_direct_when_starved();
    // The connect may have been done already when it was to be cancelled.
    if (handle.cancelled_) ready = fail(Errc::kCancelled);
    if (target && ready) {
      ready = co_await make_secure(handle, *transport, target, deadline_ms);
      // So may the handshake; but who was cancelled in it sends nothing any more.
      if (handle.cancelled_) ready = fail(Errc::kCancelled);
    }
  } else {
    ready = std::unexpected(fd.error());
  }
  --connecting_;
  grant_places();
  if (!ready) {
    ++counters_.connect_failures;
    if (transport) Transport::dispose(std::move(transport), Linger::kNo);
    co_return std::unexpected(ready.error());
  }
  transport->start_receiving();
  ++leased_;
  co_return std::make_unique<Connection>(*this, std::move(transport), reactor_.now_ms(), target);
}

runtime::Task<Result<void>> Endpoint::make_secure(AcquireHandle& handle, Transport& transport,
                                                  std::shared_ptr<net::TlsTarget> target,
                                                  uint64_t deadline_ms) {
  handle.handshaking_ = &transport;
  auto outcome = co_await net::connect_tls(transport, *engine_, std::move(target), deadline_ms);
  handle.handshaking_ = nullptr;
  switch (outcome.end) {
    case net::HandshakeEnd::kDone: co_return Result<void>{};
    case net::HandshakeEnd::kTimedOut: co_return fail(Errc::kTimedOut);
    case net::HandshakeEnd::kInterrupted: co_return fail(Errc::kCancelled);
    case net::HandshakeEnd::kGone: co_return fail(Errc::kReset);
    case net::HandshakeEnd::kFailed: break;
  }
  handshake_failure_ = std::move(outcome.text);
  co_return fail(Errc::kHandshake);
}

// A free place belongs to who waits longest from this moment on: nobody who comes before that one
// is resumed can take it.
void Endpoint::grant_places() noexcept {
  while (!waiters_.empty() && connecting_ + granted_ < limits_.connecting_max) {
    AcquireHandle::Waiter& first = waiters_.front();
    ++granted_;
    first.granted = true;
    first.wake();
  }
}

void Endpoint::pass_place_on() noexcept {
  --granted_;
  grant_places();
}

// For an idle connection: the first who can use one.
void Endpoint::wake_for_idle() noexcept {
  AcquireHandle::Waiter* first = nullptr;
  waiters_.for_each([&](AcquireHandle::Waiter& waiter) {
    if (first == nullptr && !waiter.fresh) first = &waiter;
  });
  if (first != nullptr) first->wake();
}

void Endpoint::release(std::unique_ptr<Connection> connection) noexcept {
  ++connection->exchanges;
  connection->transport->clear_interrupt();
  if (idle_count_ >= limits_.idle_max || !still_good(*connection)) {
    discard(std::move(connection));
    return;
  }
  --leased_;
  ++idle_count_;
  Connection* kept = connection.release();
  kept->idle_since_ms = reactor_.now_ms();
  idle_.push_front(*kept);
  // With TLS not all that comes is the origin's data, so it has to be looked at.
  if (kept->transport->direct_mode() && kept->tls) kept->transport->start_receiving();
  if (kept->transport->direct_mode()) kept->transport->watch_readable();
  kept->transport->watch_end(&Endpoint::on_idle_end, kept);
  if (!idle_timer_.armed()) {
    reactor_.timers().arm(idle_timer_, reactor_.now_ms() + limits_.idle_timeout_ms);
  }
  wake_for_idle();
}

void Endpoint::discard(std::unique_ptr<Connection> connection, Linger linger) noexcept {
  Endpoint& endpoint = connection->endpoint;
  --endpoint.leased_;
  Transport::dispose(std::move(connection->transport), linger);
}

void Endpoint::drop_idle(Connection& connection) noexcept {
  std::unique_ptr<Connection> owned(&connection);
  connection.unlink();
  --idle_count_;
  connection.transport->unwatch_end();
  Transport::dispose(std::move(connection.transport), Linger::kNo);
}

// Called while completions are reaped: the transport must not go under its own completion, so it is
// only taken from the list when it is next looked at, at the latest by the timer.
void Endpoint::on_idle_end(void* context, bool) noexcept {
  auto* connection = static_cast<Connection*>(context);
  Endpoint& endpoint = connection->endpoint;
  ++endpoint.counters_.idle_closed;
  if (connection->previous != nullptr) {
    connection->unlink();
    connection->idle_since_ms = 0;  // the oldest: the timer meets it first
    endpoint.idle_.push_back(*connection);
  }
  endpoint.reactor_.timers().arm(endpoint.idle_timer_, endpoint.reactor_.now_ms() + 1);
}

void Endpoint::on_idle_timer(runtime::Timer& timer) noexcept {
  Endpoint& self = static_cast<IdleTimer&>(timer).endpoint;
  const uint64_t now = self.reactor_.now_ms();
  while (!self.idle_.empty()) {
    Connection& oldest = self.idle_.back();
    const uint64_t expires = oldest.idle_since_ms + self.limits_.idle_timeout_ms;
    if (expires > now && self.still_good(oldest)) {
      self.reactor_.timers().arm(self.idle_timer_, expires);
      return;
    }
    self.drop_idle(oldest);
  }
}

void Endpoint::close_idle() noexcept {
  while (!idle_.empty()) drop_idle(idle_.front());
}

}  // namespace weir::upstream
