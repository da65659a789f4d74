#include <sim/proxy_server.h>

#include <algorithm>
#include <charconv>

#include <weir/net/listen.h>
#include <weir/route/snapshot.h>
#include <weir/runtime/sys.h>

namespace weir::sim {

using proxy::Generation;
using server::Command;
using server::Notice;

const std::string kRespondBody(3000, 'w');

namespace {
constexpr uint64_t kCancelMax = 3 * kSecond;
}

Proxy::Proxy(Run& run) : run_(run), cell_(run.setup.cores) {
  for (size_t which = 0; which < 2; ++which) {
    for (uint32_t k = 0; k < run.setup.servers[which]; ++k) {
      static constexpr const char* kHosts[] = {"127.0.0.1:90", "[::1]:90", "unix:@origin",
                                               "127.0.0.1:91", "[::1]:91"};
      static_assert(std::size(kHosts) == kServersMax);
      const std::string number = std::to_string(which) + std::to_string(k);
      origins_[which].emplace_back(run, which, kHosts[k] + number).up();
    }
  }
}

Proxy::~Proxy() = default;

// ---- what is configured

std::vector<route::RouteSpec> Proxy::routes() const {
  std::vector<route::RouteSpec> specs(5);
  specs[0].path = "/first/";
  specs[0].action = route::ProxyAction{.upstream = 0, .target_path = {}};
  specs[1].path = "/second";
  specs[1].action = route::ProxyAction{.upstream = 1, .target_path = "/app/"};
  specs[2].path = "/small";
  specs[2].action = route::ProxyAction{.upstream = 0, .target_path = {}};
  specs[2].max_body_bytes = kSmallBodyMax;
  specs[3].path = "/respond";
  specs[3].action = route::RespondAction{
      .status = 200, .headers = {{"Content-Type", "text/plain"}}, .body = kRespondBody};
  specs[4].path = "/redirect";
  specs[4].action = route::RedirectAction{.status = 302, .location = "http://other${path}"};
  return specs;
}

uint32_t Proxy::upstream_id(size_t which) { return which == 0 ? 2 : 0; }

route::UpstreamSpec Proxy::upstream(size_t which) {
  const Setup& setup = run_.setup;
  const Policy& policy = setup.policies[which];
  route::UpstreamSpec spec = policy.spec;
  spec.name = which == 0 ? "first" : "second";
  spec.id = upstream_id(which);
  const std::deque<OriginServer>& servers = origins_[which];
  uint32_t set = 0;
  while (set == 0) {
    set = epoch_ <= 1 ? (1u << servers.size()) - 1
                      : static_cast<uint32_t>(run_.kernel.below(1u << servers.size()));
  }
  sets_[which].push_back(set);
  for (uint32_t k = 0; k < servers.size(); ++k) {
    if (((set >> k) & 1) == 0) continue;
    spec.servers.push_back({.address_text = servers[k].address(),
                            .address = *base::SocketAddress::parse(servers[k].address()),
                            .resolved = true,
                            .weight = static_cast<uint32_t>(1 + run_.kernel.below(3)),
                            .endpoint_id = static_cast<uint32_t>(which) * kServersMax + k,
                            .max_connections = policy.server_limit,
                            .state = states_[which][k],
                            .race_group = policy.races ? 1 + k / 2 : 0});
  }
  spec.connect_timeout_ms = setup.times.connect;
  spec.response_timeout_ms = setup.times.response;
  spec.read_timeout_ms = setup.times.read;
  spec.send_timeout_ms = setup.times.origin_send;
  spec.idle_timeout_ms = setup.times.origin_idle;
  spec.lifetime_ms = setup.lifetime_ms;
  spec.max_idle_per_host = setup.max_idle;
  spec.max_connecting = setup.max_connecting;
  return spec;
}

void Proxy::publish() {
  ++epoch_;
  std::vector<route::UpstreamSpec> upstreams;
  upstreams.push_back(upstream(0));
  upstreams.push_back(upstream(1));
  auto built = route::build_snapshot(routes(), std::move(upstreams), {.epoch = epoch_});
  WEIR_CHECK(built.has_value());
  auto generation = std::make_unique<Generation>();
  generation->epoch = epoch_;
  generation->routes = std::move(*built);
  proxy::Settings& settings = generation->settings;
  const Times& times = run_.setup.times;
  settings.header_timeout_ms = times.header;
  settings.body_timeout_ms = times.body;
  settings.keepalive_timeout_ms = times.keepalive;
  settings.send_timeout_ms = times.send;
  settings.half_close_grace_ms = times.half_close_grace;
  settings.max_requests_per_connection = run_.setup.requests_max;
  settings.connections_max = run_.setup.connections_max;
  settings.access_log = true;
  settings.via = "weir";
  settings.server = "weir";
  settings.forwarded = epoch_ % 2 == 0;
  cell_.publish(std::move(generation));
  watch_servers();
}

// Notes when a request may find no server of an upstream: it tries one after the other, and reloads
// come in between.
void Proxy::watch_servers() {
  for (size_t which = 0; which < 2; ++which) {
    for (size_t k = 0; k < origins_[which].size(); ++k) {
      if (!origins_[which][k].is_up()) down_[which] |= 1u << k;
    }
    run_.any_down[which] |= down_[which] != 0;
    for (const uint32_t set : sets_[which]) {
      if ((set & ~down_[which]) == 0) run_.all_down[which] = true;
    }
  }
}

void Proxy::change_server() {
  std::deque<OriginServer>& servers = origins_[run_.kernel.below(2)];
  OriginServer& server = servers[run_.kernel.below(servers.size())];
  run_.tell("server " + server.address() + (server.is_up() ? " stops" : " is back"));
  if (server.is_up()) {
    server.down();
  } else {
    server.up();
  }
  watch_servers();
}

// ---- what control learns between two generations

void Proxy::change_state() {
  const size_t which = run_.kernel.below(2);
  if (run_.draining || !run_.setup.policies[which].talkative) return;
  using route::ServerState;
  static constexpr ServerState kStates[] = {ServerState::kUp, ServerState::kUp, ServerState::kUp,
                                            ServerState::kDown, ServerState::kDraining};
  const size_t k = run_.kernel.below(origins_[which].size());
  const ServerState state = kStates[run_.kernel.below(std::size(kStates))];
  states_[which][k] = state;
  run_.told_down[which] |= state != ServerState::kUp;
  run_.tell("control says that " + origins_[which][k].address() + " is " +
            std::string(upstream::to_string(state)));
  send_all({.kind = Command::Kind::kServer,
            .id = upstream_id(which),
            .value = upstream::server_identity(origins_[which][k].address()),
            .epoch = epoch_,
            .weight = static_cast<uint32_t>(1 + run_.kernel.below(3)),
            .state = state});
}

void Proxy::change_servers() {
  const size_t which = run_.kernel.below(2);
  if (run_.draining || !run_.setup.policies[which].talkative) return;
  run_.tell("control has other servers for upstream " + std::to_string(which));
  const route::UpstreamSpec spec = upstream(which);
  for (auto& slot : slots_) {
    // The core's own from now on.
    send(*slot, {.kind = Command::Kind::kUpstream,
                 .upstream = new route::UpstreamSpec(spec),
                 .epoch = epoch_});
  }
  watch_servers();
}

// ---- control

void Proxy::start() {
  publish();
  control_wake_fd_ = runtime::sys::wake_fd();
  const Setup& setup = run_.setup;
  for (uint32_t index = 0; index < setup.cores; ++index) {
    CoreSlot& slot = *slots_.emplace_back(std::make_unique<CoreSlot>());
    server::CoreOptions options;
    options.index = static_cast<uint16_t>(index);
    options.cores = setup.cores;
    options.control_wake_fd = control_wake_fd_;
    options.reactor.ring = {.entries = 64, .cq_entries = 512};
    options.reactor.buffers = {
        .count = setup.buffers, .size = setup.buffer_bytes, .ring_entries = setup.buffers_offered};
    if (setup.one_shot) options.reactor.receive = runtime::ReceiveStrategy::kOneShot;
    slot.core = std::make_unique<server::Core>(options, slot.channel, slot.logger, cell_);
    WEIR_CHECK(slot.core->open().has_value());
  }
  open_listener(kAddress);
  open_listener(kAddressV6);
  second_listener_ = next_listener_;
  open_listener(kAddressSecond);
}

void Proxy::send(CoreSlot& slot, const Command& command) {
  if (slot.pending.empty() && slot.core->send(command)) return;
  slot.pending.push_back(command);
}

void Proxy::send_all(const Command& command) {
  for (auto& slot : slots_) send(*slot, command);
}

void Proxy::open_listener(std::string_view address) {
  const base::SocketAddress where = *base::SocketAddress::parse(address);
  const uint32_t id = next_listener_++;
  for (auto& slot : slots_) {
    auto fd = net::open_listener(where, {});
    WEIR_CHECK(fd.has_value());
    send(*slot, {.kind = Command::Kind::kOpenListener, .id = id, .fd = *fd, .address = where});
  }
}

void Proxy::close_listener(uint32_t id) {
  run_.listeners_closed = true;
  send_all({.kind = Command::Kind::kCloseListener, .id = id});
}

void Proxy::reload() {
  if (run_.draining) return;
  run_.tell("control publishes a generation");
  publish();
  send_all({.kind = Command::Kind::kNewGeneration});
  if (!run_.kernel.chance(40)) return;
  if (second_listener_ != 0) {
    close_listener(std::exchange(second_listener_, 0));
  } else {
    second_listener_ = next_listener_;
    open_listener(kAddressSecond);
  }
}

void Proxy::drain() {
  if (run_.draining) return;
  run_.tell("control drains");
  run_.draining = true;
  run_.drain_at_ns = run_.kernel.now_ns();
  run_.drain_grace_ms = run_.kernel.below(600);
  send_all({.kind = Command::Kind::kDrain, .value = run_.drain_grace_ms});
}

void Proxy::cancel() {
  if (stopping_) return;
  run_.tell("control cancels");
  if (!run_.draining) run_.drain_at_ns = run_.kernel.now_ns();
  run_.draining = run_.cancelled = true;
  cancelled_at_ns_ = run_.kernel.now_ns();
  for (auto& slot : slots_) slot->quiet = false;
  send_all({.kind = Command::Kind::kCancelAll});
}

void Proxy::scrape() {
  if (stopping_) return;
  for (auto& slot : slots_) {
    if (slot->scraping) continue;
    slot->scraping = true;
    send(*slot, {.kind = Command::Kind::kScrape, .scrape = &slot->scrape});
  }
}

void Proxy::stop() {
  send_all({.kind = Command::Kind::kStop});
  stopping_ = true;
}

bool Proxy::quiet() const {
  return std::ranges::all_of(slots_, [](const auto& slot) { return slot->quiet; });
}

bool Proxy::stopped() const {
  return std::ranges::all_of(slots_, [](const auto& slot) { return slot->core->stopping(); });
}

void Proxy::turn() {
  const size_t first = run_.kernel.below(slots_.size());
  for (size_t i = 0; i < slots_.size(); ++i) {
    CoreSlot& slot = *slots_[(first + i) % slots_.size()];
    if (slot.core->stopping()) continue;
    runtime::set_current_reactor(&slot.core->worker().reactor);
    slot.core->turn(true);
    read_notices(slot);
    read_log(slot);
    while (!slot.pending.empty() && slot.core->send(slot.pending.front())) {
      slot.pending.pop_front();
    }
  }
  cell_.reclaim();
}

void Proxy::read_notices(CoreSlot& slot) {
  slot.core->receive([&](const Notice& notice) {
    if (notice.kind == Notice::Kind::kQuiet) {
      slot.quiet = true;
      note_quiet();
    }
    if (notice.kind != Notice::Kind::kScraped) return;
    slot.scraping = false;
    if (slot.scrape.buffers_in_use > run_.setup.buffers) {
      run_.violation("more buffers are in use than there are");
    }
  });
}

// Told to end everything, weir waits for nobody but clients that do not see that it is over.
void Proxy::note_quiet() {
  if (!run_.cancelled) return;
  const FaultCounts& counts = run_.kernel.fault_counts();
  if (counts.clock_jump != 0 || counts.slow_peer != 0) return;
  if (run_.kernel.now_ns() <= cancelled_at_ns_ + kCancelMax) return;
  run_.violation("it takes " +
                 std::to_string((run_.kernel.now_ns() - cancelled_at_ns_) / kMillisecond) +
                 " ms to end everything");
}

void Proxy::tell_event(const log::Record& record) const {
  const auto event = log::parse_event(record.bytes);
  if (!event) return run_.violation("a log event that cannot be read");
  std::string text = "event: " + std::string(event->message);
  for (size_t i = 0; i < event->field_count; ++i) {
    text += " " + std::string(event->fields[i].key) + "=" + std::string(event->fields[i].value);
  }
  run_.tell(text);
}

void Proxy::read_log(CoreSlot& slot) {
  slot.channel.begin_drain();
  while (const auto record = slot.channel.next()) {
    if (record->kind == log::RecordKind::kEvent) {
      tell_event(*record);
      continue;
    }
    const auto access = log::parse_access(record->bytes);
    if (!access) {
      run_.violation("an access record that cannot be read");
      continue;
    }
    LogLine line;
    line.ip = access->client.to_string();
    line.port = access->client_port;
    // "/first/1001?q=1"; CONNECT and what was never parsed have no id there.
    const size_t slash = access->path.rfind('/');
    if (slash != std::string_view::npos) {
      const std::string_view text = access->path.substr(slash + 1);
      std::from_chars(text.data(), text.data() + text.size(), line.id);
    }
    line.status = access->status;
    line.reason = access->reason;
    line.bytes_in = access->bytes_in;
    line.bytes_out = access->bytes_out;
    line.tries = access->tries;
    line.at_ns = run_.kernel.now_ns();
    run_.tell("log: " + line.ip + " request " + std::to_string(line.id) + " status " +
              std::to_string(line.status) + " reason " + std::string(to_string(line.reason)));
    run_.log.push_back(std::move(line));
    ++coverage_.records;
  }
  slot.channel.end_drain();
}

// What they count is what there is: nothing any more.
void Proxy::check_upstreams(proxy::Worker& worker) {
  upstream::UpstreamScrape scrape;
  worker.upstreams.sample(scrape);
  for (const upstream::UpstreamSample& one : scrape.upstreams) {
    if (one.active != 0) run_.violation("requests are counted at an upstream, and there are none");
    if (one.pending != 0) run_.violation("requests wait at an upstream, and there are none");
    const size_t which = one.upstream == upstream_id(0) ? 0 : 1;
    run_.retries_refused[which] |= one.retries_refused != 0;
    coverage_.add({.waited = one.waited,
                   .pending_refused = one.pending_refused,
                   .retries_refused = one.retries_refused});
  }
  for (const upstream::ServerSample& one : scrape.servers) {
    if (one.active != 0) run_.violation("requests are counted at a server, and there are none");
    // One that left and came back counts from then on.
    const size_t which = one.upstream == upstream_id(0) ? 0 : 1;
    const bool may_leave = run_.setup.reloads || run_.setup.policies[which].talkative;
    if (!may_leave && one.counts.answers + one.counts.failures > one.counts.requests) {
      run_.violation("a server has answered more than it was asked");
    }
  }
}

void Proxy::check_closed(CoreSlot& slot) {
  proxy::Worker& worker = slot.core->worker();
  const auto none = [&](uint64_t count, const std::string& what) {
    if (count != 0) run_.violation(std::to_string(count) + " " + what + " left behind");
  };
  none(worker.connections(), "client connections");
  none(worker.generations.alive() - 1, "old generations");
  // An idle upstream connection may hold what its origin sent beyond an answer.
  if (!run_.extra_bytes) none(worker.reactor.buffers().in_use(), "buffers");
  check_upstreams(worker);
  const proxy::Counters& counted = worker.counters;
  coverage_.add({.requests = counted.requests,
                 .bad_requests = counted.bad_requests,
                 .bad_responses = counted.bad_responses,
                 .client_timeouts = counted.client_timeouts,
                 .upstream_timeouts = counted.upstream_timeouts,
                 .stale_retries = counted.stale_retries,
                 .failovers = counted.failovers,
                 .hedged = counted.hedged,
                 .ejections = counted.ejections,
                 .refused = counted.connections_refused,
                 .body_bytes_buffered = counted.body_bytes_buffered,
                 .body_bytes_direct = counted.body_bytes_direct,
                 .starved = worker.reactor.buffers().starved(),
                 .records_dropped = counted.access_records_dropped});
  run_.starved = coverage_.starved != 0;
}

void Proxy::Coverage::add(const Coverage& other) noexcept {
  requests += other.requests;
  bad_requests += other.bad_requests;
  bad_responses += other.bad_responses;
  client_timeouts += other.client_timeouts;
  upstream_timeouts += other.upstream_timeouts;
  stale_retries += other.stale_retries;
  failovers += other.failovers;
  hedged += other.hedged;
  ejections += other.ejections;
  waited += other.waited;
  pending_refused += other.pending_refused;
  retries_refused += other.retries_refused;
  refused += other.refused;
  body_bytes_buffered += other.body_bytes_buffered;
  body_bytes_direct += other.body_bytes_direct;
  starved += other.starved;
  records += other.records;
  records_dropped += other.records_dropped;
}

void Proxy::close() {
  for (auto& slot : slots_) {
    runtime::set_current_reactor(&slot->core->worker().reactor);
    check_closed(*slot);
    slot->core->close();
    slot->core.reset();
    for (const Command& unsent : slot->pending) delete unsent.upstream;
    read_log(*slot);
  }
  const size_t left = cell_.reclaim();
  if (left != 1) run_.violation(std::to_string(left - 1) + " old generations cannot be freed");
  runtime::sys::close(control_wake_fd_);
  for (auto& servers : origins_) {
    for (OriginServer& origin : servers) origin.close_books();
  }
}

}  // namespace weir::sim
