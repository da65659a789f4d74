#include <weir/proxy/worker.h>

#include <algorithm>

#include <sys/mman.h>

#include <weir/http/h1/writer.h>
#include <weir/runtime/random_seed.h>
#include <weir/runtime/sys.h>

#include "client_connection.h"
#include "exchange.h"

namespace weir::proxy {

namespace {
constexpr uint32_t kSpareExchangesMax = 256;

// The answer to a connection beyond the limit. Nothing of its request is read.
constexpr std::string_view kBusy =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 20\r\nContent-Type: text/plain\r\n"
    "Retry-After: 1\r\nConnection: close\r\n\r\nservice unavailable\n";
// The same before a handshake: a fatal alert, internal_error (RFC 8446 6.2).
constexpr std::string_view kBusyTls("\x15\x03\x01\x00\x02\x02\x50", 7);

}  // namespace

Worker::Worker(runtime::Reactor& engine, log::Channel& records, log::Logger& log,
               GenerationCell& cell, uint16_t index, uint32_t cores, net::tls::Engine* tls_engine)
    : reactor(engine),
      channel(records),
      logger(log),
      generations(cell, index),
      upstreams(engine, cores, runtime::random_seed(), tls_engine),
      files(engine, {}),
      core(index),
      tls(tls_engine),
      scratch_(std::make_unique_for_overwrite<char[]>(kScratchBytes + 1)),
      drain_timer_(*this) {
  runtime::sys::random_bytes(&id_high_, sizeof id_high_);
  runtime::sys::random_bytes(&id_low_, sizeof id_low_);
  upstreams.on_event(&Worker::on_pool_event, this);
  quiesce();
}

Worker::~Worker() {
  // Transports that still await the kernel (idle upstream connections just closed) need the reactor
  // only.
  WEIR_CHECK(connection_count_ == 0 && tasks_.running() == 0);
  reactor.timers().disarm(drain_timer_);
  while (spare_) spare_ = std::move(spare_->next_spare);
}

void Worker::quiesce() {
  if (generations.quiesce()) {
    upstreams.adopt(*generations.current().routes, core_tls().upstreams);
    const Settings& settings = generations.current().settings;
    files.set_limits(settings.files);
    pipes.set_limit(settings.pipes_max);
    // Its context may have been made before the newest keys were.
    const bool newer = tickets_number_ > generations.current().tickets_number;
    if (newer && core_tls().server) core_tls().server->context->use_tickets(*tickets_);
  }
  if (upstreams.sweep_due() && generations.alive() == 1) upstreams.sweep();
}

void Worker::on_pool_event(void* context, const upstream::PoolEvent& event) {
  Worker& self = *static_cast<Worker*>(context);
  if (event.ejected) {
    ++self.counters.ejections;
    if (event.unreachable && self.on_unreachable_ != nullptr) {
      self.on_unreachable_(self.unreachable_context_, event.upstream_id, event.identity);
    }
    WEIR_LOG_LIMITED(self.logger, kWarn, "upstream", "server put aside",
                     {"upstream", event.upstream}, {"address", event.address},
                     {"cause", event.cause}, {"for_ms", event.for_ms});
  } else {
    WEIR_LOG_LIMITED(self.logger, kInfo, "upstream", "server is back", {"upstream", event.upstream},
                     {"address", event.address}, {"cause", event.cause});
  }
}

// What was said after the newest generation was published needs that one; what was said before is
// part of it.
bool Worker::up_to_date(uint64_t epoch) {
  quiesce();
  return epoch >= generations.current().epoch;
}

void Worker::update_upstream(const route::UpstreamSpec& spec, uint64_t epoch) {
  if (up_to_date(epoch)) upstreams.update(spec);
}

void Worker::set_server(uint32_t upstream, uint64_t identity, route::ServerState state,
                        uint32_t weight, uint64_t epoch) {
  if (up_to_date(epoch)) upstreams.set_server(upstream, identity, state, weight);
}

void Worker::note_reached(uint32_t upstream, uint64_t identity, uint64_t epoch) {
  if (!up_to_date(epoch)) return;
  if (upstream::Pool* const pool = upstreams.pool(upstream)) pool->note_reached(identity);
}

const CoreTls& Worker::core_tls() const noexcept {
  static const CoreTls kNone;
  const auto& all = generations.current().tls;
  return core < all.size() ? all[core] : kNone;
}

void Worker::use_tickets(std::unique_ptr<net::tls::TicketKeyRing> tickets,
                         uint64_t number) noexcept {
  tickets_ = std::move(tickets);
  tickets_number_ = number;
  if (core_tls().server) core_tls().server->context->use_tickets(*tickets_);
}

void Worker::accept(ListenerInfo& listener, int fd) noexcept {
  ++counters.connections_accepted;
  if (cancelling_) {  // came from the backlog after everything was told to end
    reactor.close_fd(fd);
    return;
  }
  const uint32_t most = generations.current().settings.connections_max;
  if (most != 0 && connection_count_ >= most) {
    ++counters.connections_refused;
    WEIR_LOG_LIMITED(logger, kWarn, "proxy", "connection limit reached", {"limit", most});
    auto transport = std::make_unique<net::Transport>(reactor, fd);
    // It fits an empty socket buffer; if not, the client sees a close, which is true as well.
    const std::string_view answer = listener.tls ? kBusyTls : kBusy;
    transport->send_direct(answer.data(), answer.size());
    net::Transport::dispose(std::move(transport), net::Linger::kYes);
    return;
  }
  tasks_.spawn(serve_connection(std::make_unique<ClientConnection>(*this, listener, fd)));
}

void Worker::note_accept_failure(base::Error error) noexcept {
  WEIR_LOG_LIMITED(logger, kWarn, "proxy", "cannot accept a connection", {"error", error.code},
                   {"connections", connection_count_});
  files.give_up_half();
  pipes.drop_kept();
}

char* Worker::waste() {
  if (!waste_) waste_ = std::make_unique_for_overwrite<char[]>(kScratchBytes);
  return waste_.get();
}

void Worker::drain(uint64_t idle_grace_ms) noexcept {
  if (draining_) return;
  draining_ = true;
  drain_grace_ms_ = idle_grace_ms;
  reactor.timers().arm(drain_timer_, reactor.now_ms() + idle_grace_ms);
}

void Worker::on_drain_timer(runtime::Timer& timer) noexcept {
  static_cast<DrainTimer&>(timer).worker.close_idle_clients();
}

void Worker::close_idle_clients() noexcept {
  upstreams.close_idle();
  clients_.for_each([](ClientConnection& client) {
    if (client.exchange == nullptr) client.transport->interrupt();
  });
}

void Worker::cancel_all() noexcept {
  draining_ = cancelling_ = true;
  clients_.for_each([](ClientConnection& client) { client.cancel(); });
  upstreams.close_idle();
}

bool Worker::quiet() const noexcept {
  return connection_count_ == 0 && tasks_.running() == 0 && reactor.disposing == 0;
}

std::string_view Worker::http_date() noexcept {
  const int64_t second = reactor.unix_us() / 1'000'000;
  if (second != date_second_) {
    date_second_ = second;
    http::h1::format_http_date(date_, second);
  }
  return {date_, http::h1::kHttpDateBytes};
}

std::unique_ptr<Exchange> Worker::take_exchange() {
  if (!spare_) return std::make_unique<Exchange>();
  std::unique_ptr<Exchange> exchange = std::move(spare_);
  spare_ = std::move(exchange->next_spare);
  --spare_count_;
  return exchange;
}

void Worker::give_back(std::unique_ptr<Exchange> exchange) noexcept {
  if (spare_count_ >= kSpareExchangesMax) return;
  exchange->next_spare = std::move(spare_);
  spare_ = std::move(exchange);
  ++spare_count_;
}

}  // namespace weir::proxy
