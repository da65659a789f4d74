#include <weir/server/core.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include <pthread.h>
#include <sched.h>

#include <weir/runtime/sys.h>

namespace weir::server {

Core::Core(const CoreOptions& options, log::Channel& channel, log::Logger& logger,
           proxy::GenerationCell& cell)
    : options_(options), channel_(channel), logger_(logger), cell_(cell) {}

Core::~Core() {
  WEIR_CHECK(!thread_.joinable());
  // What came behind kStop, or to a core that could not start.
  commands_.drain([](const Command& command) {
    delete command.tickets;
    delete command.upstream;
  });
  const int fd = wake_fd_.load(std::memory_order_relaxed);
  if (fd >= 0) runtime::sys::close(fd);
}

Core::Listener::Listener(Core& owner, const Command& command) noexcept : core(owner) {
  info.id = command.id;
  info.address = command.address;
  info.tls = command.tls;
  info.redirect_https = command.redirect_https;
}

// ---- control's side

void Core::start() {
  thread_ = std::thread([this] { run(); });
}

void Core::join() {
  if (thread_.joinable()) thread_.join();
}

bool Core::send(const Command& command) noexcept {
  if (!commands_.try_post(command)) return false;
  const int fd = wake_fd_.load(std::memory_order_acquire);
  if (fd >= 0) runtime::sys::wake(fd);
  return true;
}

// ---- the core's side

void Core::run() {
  char name[16];
  std::snprintf(name, sizeof name, "weir-core-%u", unsigned{options_.index});
  pthread_setname_np(pthread_self(), name);
  int pin_error = 0;
  if (options_.cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<size_t>(options_.cpu), &set);
    pin_error = pthread_setaffinity_np(pthread_self(), sizeof set, &set);
  }
  if (auto opened = open(); !opened) {
    tell({.kind = Notice::Kind::kFailed, .error = opened.error()});
    return;
  }
  if (pin_error != 0) {
    WEIR_LOG(logger_, kWarn, "runtime", "this core cannot be pinned to its CPU and runs anywhere",
             {"cpu", options_.cpu}, {"error", std::strerror(pin_error)});
  }
  tell({.kind = Notice::Kind::kStarted});
  while (!stopping_) turn(true);
  close();
}

base::Result<void> Core::open() {
  const int wake_fd = runtime::sys::wake_fd();
  if (wake_fd < 0) return base::fail(base::from_errno(-wake_fd));
  // It is closed with the Core: control may still be about to write to it when the reactor ends.
  wake_fd_.store(wake_fd, std::memory_order_release);
  options_.reactor.wake_fd = wake_fd;
  WEIR_TRY(reactor_, runtime::Reactor::open(options_.reactor));
  logger_.attach(channel_, options_.index);
  worker_ = std::make_unique<proxy::Worker>(*reactor_, channel_, logger_, cell_, options_.index,
                                            options_.cores, options_.tls);
  worker_->on_unreachable(
      [](void* core, uint32_t upstream, uint64_t identity) {
        static_cast<Core*>(core)->tell(
            {.kind = Notice::Kind::kUnreachable, .id = upstream, .value = identity});
      },
      this);
  reactor_->wake();                        // what was posted before the descriptor was known
  const bool first = options_.index == 0;  // one line is enough
  if (first && options_.reactor.buffers.huge_pages && !reactor_->buffers().huge()) {
    WEIR_LOG(logger_, kWarn, "runtime", "no huge pages for the receive buffers, using normal pages",
             {"hint", "sysctl vm.nr_hugepages"});
  }
  return {};
}

void Core::turn(bool may_wait) {
  reactor_->turn(may_wait);
  commands_.drain([this](const Command& command) { execute(command); });
  worker_->quiesce();
  if (listeners_changing_) tend_listeners();
  if (report_quiet_ && listeners_.empty() && worker_->quiet()) {
    report_quiet_ = false;
    tell({.kind = Notice::Kind::kQuiet});
  }
  if (!unsent_.empty()) tell_again();
  if (channel_.take_wake_request()) runtime::sys::wake(options_.control_wake_fd);
}

void Core::tell_again() {
  while (!unsent_.empty() && notices_.try_post(unsent_.front())) unsent_.pop_front();
  runtime::sys::wake(options_.control_wake_fd);
  // Control does not say when it has made room.
  if (!unsent_.empty()) reactor_->timers().arm(revisit_timer_, reactor_->now_ms() + 1);
}

void Core::close() {
  worker_.reset();
  reactor_->timers().disarm(revisit_timer_);
  reactor_->stop();
  reactor_.reset();
  logger_.detach();
}

void Core::execute(const Command& command) {
  switch (command.kind) {
    case Command::Kind::kOpenListener: open_listener(command); break;
    case Command::Kind::kCloseListener:
      for (Listener& listener : listeners_) {
        if (listener.info.id == command.id) close_listener(listener, command.value);
      }
      break;
    case Command::Kind::kSetListener: set_listener(command); break;
    case Command::Kind::kNewGeneration: break;  // quiesce() follows
    case Command::Kind::kNewTickets:
      worker_->use_tickets(std::unique_ptr<net::tls::TicketKeyRing>(command.tickets),
                           command.value);
      break;
    case Command::Kind::kDrain:
      for (Listener& listener : listeners_) {
        close_listener(listener, std::min(command.value, kHandshakeGraceMs));
      }
      worker_->drain(command.value);
      report_quiet_ = true;
      break;
    case Command::Kind::kCancelAll:
      for (Listener& listener : listeners_) close_listener(listener, 0);
      worker_->cancel_all();
      report_quiet_ = true;
      break;
    case Command::Kind::kUpstream: {
      const std::unique_ptr<const route::UpstreamSpec> upstream(command.upstream);
      worker_->update_upstream(*upstream, command.epoch);
      break;
    }
    case Command::Kind::kServer:
      worker_->set_server(command.id, command.value, command.state, command.weight, command.epoch);
      break;
    case Command::Kind::kReached:
      worker_->note_reached(command.id, command.value, command.epoch);
      break;
    case Command::Kind::kScrapeUpstreams:
      worker_->upstreams.sample(*command.upstreams);
      tell({.kind = Notice::Kind::kUpstreamsScraped});
      break;
    case Command::Kind::kScrape:
      scrape(*command.scrape);
      tell({.kind = Notice::Kind::kScraped});
      break;
    case Command::Kind::kStop: stopping_ = true; break;
  }
}

void Core::open_listener(const Command& command) {
  Listener& listener = listeners_.emplace_back(*this, command);
  listener.acceptor =
      std::make_unique<net::Acceptor>(*reactor_, command.fd, &Core::on_accept, &listener);
  listener.acceptor->start();
}

// Of a connection that is there already only the redirect can change, with its next request.
void Core::set_listener(const Command& command) noexcept {
  for (Listener& listener : listeners_) {
    if (listener.info.id != command.id) continue;
    listener.info.tls = command.tls;
    listener.info.redirect_https = command.redirect_https;
  }
}

void Core::close_listener(Listener& listener, uint64_t grace_ms) noexcept {
  if (listener.acceptor == nullptr) return;
  const uint64_t end = reactor_->now_ms() + grace_ms;
  if (!listener.closing && grace_ms > 0) net::refuse_new_connections(listener.acceptor->fd());
  listener.stop_accepting_ms = listener.closing ? std::min(listener.stop_accepting_ms, end) : end;
  listener.closing = true;
  listeners_changing_ = true;
}

// Closing takes a few turns: connections that have begun are accepted for a while, the accept ends,
// what is still queued is accepted, the socket is closed, and the entry goes with its last
// connection.
void Core::tend_listeners() {
  listeners_changing_ = false;
  uint64_t next_ms = UINT64_MAX;
  for (auto it = listeners_.begin(); it != listeners_.end();) {
    Listener& listener = *it;
    if (listener.closing && listener.acceptor != nullptr && !listener.acceptor->stopping()) {
      if (listener.stop_accepting_ms <= reactor_->now_ms()) {
        listener.acceptor->stop();
      } else {
        next_ms = std::min(next_ms, listener.stop_accepting_ms);
      }
    }
    if (listener.closing && listener.acceptor != nullptr && listener.acceptor->stopped()) {
      listener.acceptor->take_backlog();
      listener.acceptor.reset();
      tell({.kind = Notice::Kind::kListenerClosed, .id = listener.info.id});
    }
    if (listener.closing) listeners_changing_ = true;
    if (listener.closing && listener.acceptor == nullptr && listener.info.connections == 0) {
      it = listeners_.erase(it);
    } else {
      ++it;
    }
  }
  if (next_ms != UINT64_MAX) reactor_->timers().arm(revisit_timer_, next_ms);
}

void Core::on_accept(void* context, int fd) noexcept {
  auto& listener = *static_cast<Listener*>(context);
  if (fd < 0) return listener.core.worker_->note_accept_failure(base::from_errno(-fd));
  listener.core.worker_->accept(listener.info, fd);
}

void Core::scrape(Scrape& out) const noexcept {
  out.counters = worker_->counters;
  if (options_.tls != nullptr) out.tls = options_.tls->counters;
  out.connections = worker_->connections();
  out.idle_upstream_connections = worker_->upstreams.idle_connections();
  out.generations_alive = worker_->generations.alive();
  out.turns = reactor_->turns();
  out.ring_enters = reactor_->ring().enters();
  out.buffers_in_use = reactor_->buffers().in_use();
  out.buffer_starvations = reactor_->buffers().starved();
  out.accept_failures = 0;
  for (const Listener& listener : listeners_) {
    if (listener.acceptor) out.accept_failures += listener.acceptor->failures();
  }
}

void Core::tell(const Notice& notice) noexcept {
  // A core says a handful of things in its life, unless hundreds of listeners close at once.
  if (!unsent_.empty() || !notices_.try_post(notice)) unsent_.push_back(notice);
  runtime::sys::wake(options_.control_wake_fd);
}

}  // namespace weir::server
