#include <weir/server/core.h>

#include <cstdio>

#include <pthread.h>
#include <sched.h>

#include <weir/runtime/sys.h>

namespace weir::server {

Core::Core(const CoreOptions& options, log::Channel& channel, log::Logger& logger,
           proxy::GenerationCell& cell)
    : options_(options), channel_(channel), logger_(logger), cell_(cell) {}

Core::~Core() { WEIR_CHECK(!thread_.joinable()); }

Core::Listener::Listener(Core& owner, const Command& command) noexcept : core(owner) {
  info.id = command.id;
  info.address = command.address;
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
  if (options_.cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<size_t>(options_.cpu), &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
  }
  if (auto opened = open(); !opened) {
    tell({.kind = Notice::Kind::kFailed, .error = opened.error()});
    return;
  }
  tell({.kind = Notice::Kind::kStarted});
  while (!stopping_) turn(true);
  close();
}

base::Result<void> Core::open() {
  WEIR_TRY(reactor_, runtime::Reactor::open(options_.reactor));
  logger_.attach(channel_, options_.index);
  worker_ = std::make_unique<proxy::Worker>(*reactor_, channel_, logger_, cell_, options_.index,
                                            options_.cores);
  wake_fd_.store(reactor_->wake_fd(), std::memory_order_release);
  reactor_->wake();  // what was posted before the descriptor was known
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
  if (channel_.take_wake_request()) runtime::sys::wake(options_.control_wake_fd);
}

void Core::close() {
  wake_fd_.store(-1, std::memory_order_release);
  worker_.reset();
  reactor_->stop();
  reactor_.reset();
  logger_.detach();
}

void Core::execute(const Command& command) {
  switch (command.kind) {
    case Command::Kind::kOpenListener: open_listener(command); break;
    case Command::Kind::kCloseListener: close_listener(command.id); break;
    case Command::Kind::kNewGeneration: break;  // quiesce() follows
    case Command::Kind::kDrain:
      for (Listener& listener : listeners_) close_listener(listener.info.id);
      worker_->drain(command.value);
      report_quiet_ = true;
      break;
    case Command::Kind::kCancelAll:
      for (Listener& listener : listeners_) close_listener(listener.info.id);
      worker_->cancel_all();
      report_quiet_ = true;
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

void Core::close_listener(uint32_t id) noexcept {
  for (Listener& listener : listeners_) {
    if (listener.info.id != id || listener.closing) continue;
    listener.closing = true;
    listeners_changing_ = true;
    listener.acceptor->stop();
  }
}

// Closing takes a few turns: the accept ends, what was queued is accepted, the socket is closed,
// and the entry goes with its last connection.
void Core::tend_listeners() {
  listeners_changing_ = false;
  for (auto it = listeners_.begin(); it != listeners_.end();) {
    Listener& listener = *it;
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
}

void Core::on_accept(void* context, int fd) noexcept {
  auto& listener = *static_cast<Listener*>(context);
  listener.core.worker_->accept(listener.info, fd);
}

void Core::scrape(Scrape& out) const noexcept {
  out.counters = worker_->counters;
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
  // Control drains 256 at a time and a core says a handful of things in its life.
  WEIR_CHECK(notices_.try_post(notice));
  runtime::sys::wake(options_.control_wake_fd);
}

}  // namespace weir::server
