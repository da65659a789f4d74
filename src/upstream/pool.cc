#include <weir/upstream/pool.h>

#include <algorithm>
#include <unordered_map>

#include <weir/base/check.h>

namespace weir::upstream {

namespace {

constexpr uint64_t kNsPerUs = 1000;
// How often latencies are compared, and ejections and open circuits looked at.
constexpr uint64_t kReviewMs = 500;
// A new value counts for an eighth in the moving average.
constexpr uint64_t kAverageParts = 8;

uint32_t share(uint32_t limit, uint32_t cores) noexcept {
  if (limit == 0) return 0;
  return std::max<uint32_t>(1, (limit + cores - 1) / cores);
}

// No budget, no retry; else enough for a few at once where requests are few.
uint32_t budget_burst(const route::RetrySpec& retry, uint32_t cores) noexcept {
  if (retry.budget_percent == 0 && retry.budget_per_second == 0) return 0;
  return std::max(share(retry.budget_per_second, cores) * 10, 10u);
}

// No traffic could go there anyway: nothing rests on it when others are put aside.
bool out_of_service(const BalancedServer& server) noexcept {
  return server.told != ServerState::kUp || server.facts.weight == 0 ||
         server.facts.endpoint == nullptr;
}

}  // namespace

Pool::Pool(runtime::Reactor& reactor, uint32_t cores, uint64_t random_seed, OnEvent on_event,
           void* context)
    : reactor_(reactor),
      cores_(cores),
      on_event_(on_event),
      context_(context),
      balancer_({}, random_seed),
      review_timer_(*this) {}

Pool::~Pool() {
  reactor_.timers().disarm(review_timer_);
  WEIR_CHECK(active_ == 0 && waiting_ == 0);
}

// ---- what control says

void Pool::set(const route::UpstreamSpec& spec, std::span<Endpoint* const> endpoints) {
  WEIR_CHECK(endpoints.size() == spec.servers.size());
  set_rules(spec);
  const std::vector<ServerFacts> facts = facts_of(spec, endpoints);
  balancer_.set_servers(facts, reactor_.now_ns());
  set_outliers(spec.outliers);
  for (const ServerFacts& told : facts) {
    take_word(balancer_.at(balancer_.find(told.identity)), told.state, told.weight);
  }
  for (size_t i = 0; i < servers(); ++i) {
    BalancedServer& server = balancer_.at(static_cast<int>(i));
    if (!outliers_) server.ejected = false;
    if (circuit_.failures == 0) server.circuit.close();  // it begins anew when switched on
    refresh(server);
  }
  review();  // times may be others now
}

void Pool::set_rules(const route::UpstreamSpec& spec) {
  name_ = spec.name;
  id_ = spec.id;
  const BalanceOptions options{.algorithm = spec.balance.algorithm,
                               .slow_start_ms = spec.balance.slow_start_ms,
                               .load_bound_percent = spec.balance.load_bound_percent};
  if (balancer_.options() != options) balancer_.set_options(options);
  if (sticky_spec_ != spec.sticky) {
    sticky_spec_ = spec.sticky;
    signer_.reset();
    if (!spec.sticky.cookie.empty()) {
      const auto* key = reinterpret_cast<const uint8_t*>(spec.sticky.key.data());
      signer_ = StickySigner::make({key, spec.sticky.key.size()});
    }
  }
  circuit_ = spec.circuit;
  active_max_ = share(spec.max_connections, cores_);
  waiting_max_ = share(spec.max_pending, cores_);
  wait_timeout_ms_ = spec.pending_timeout_ms;
  budget_.set_options({.percent = spec.retry.budget_percent,
                       .per_second = share(spec.retry.budget_per_second, cores_),
                       .burst = budget_burst(spec.retry, cores_)});
}

std::vector<ServerFacts> Pool::facts_of(const route::UpstreamSpec& spec,
                                        std::span<Endpoint* const> endpoints) {
  std::vector<ServerFacts> facts;
  facts.reserve(spec.servers.size());
  std::unordered_map<uint64_t, uint64_t> seen;
  for (size_t i = 0; i < spec.servers.size(); ++i) {
    const route::ServerSpec& server = spec.servers[i];
    // Two lines with one server are two servers: named as control and the balancer do.
    const uint64_t own = server_identity(server.address_text);
    const uint64_t repeated = seen[own]++;
    const uint64_t identity = repeated == 0 ? own : next_hash(own + repeated);
    facts.push_back({.endpoint = endpoints[i],
                     .identity = identity,
                     .tag = signer_ ? signer_->tag(identity) : 0,
                     .weight = server.weight,
                     .max_connections = share(server.max_connections, cores_),
                     .priority = server.priority,
                     .backup = server.backup,
                     .race_group = server.race_group,
                     .state = server.state});
  }
  return facts;
}

void Pool::set_outliers(const route::OutlierSpec& spec) {
  outlier_spec_ = spec;
  if (!spec.enabled) return outliers_.reset();
  if (!outliers_) outliers_ = std::make_unique<Outliers>(spec);
  changes_.clear();
  outliers_->set_options(spec);
  std::vector<uint64_t> identities;
  for (const BalancedServer& server : balancer_.servers()) {
    identities.push_back(server.facts.identity);
  }
  outliers_->set_servers(identities, reactor_.now_ms(), changes_);
  // They may be new, and the servers not.
  for (const BalancedServer& server : balancer_.servers()) {
    outliers_->set_down(server.facts.identity, out_of_service(server), reactor_.now_ms(), changes_);
  }
  for (const OutlierChange& change : changes_) apply(change);
}

void Pool::retire() {
  balancer_.set_servers({}, reactor_.now_ns());
  outliers_.reset();
  serve_waiters();
}

bool Pool::set_server(uint64_t identity, ServerState state, uint32_t weight) {
  const int place = balancer_.find(identity);
  if (place < 0) return false;
  take_word(balancer_.at(place), state, weight);
  serve_waiters();
  return true;
}

void Pool::note_reached(uint64_t identity) {
  const int place = balancer_.find(identity);
  if (place < 0) return;
  BalancedServer& server = balancer_.at(place);
  if (!server.unreachable) return;
  server.unreachable = false;
  changes_.clear();
  if (outliers_ && server.ejected && !out_of_service(server)) {
    outliers_->set_down(identity, true, reactor_.now_ms(), changes_);
    outliers_->set_down(identity, false, reactor_.now_ms(), changes_);
  }
  for (const OutlierChange& change : changes_) apply(change);
  if (server.circuit.state() != CircuitState::kClosed) {
    server.circuit.close();
    tell(server, "circuit_breaker", false, 0);
  }
  refresh(server);
  serve_waiters();
}

void Pool::take_word(BalancedServer& server, ServerState state, uint32_t weight) {
  const uint64_t identity = server.facts.identity;
  if (server.facts.weight != std::min(weight, BalancedServer::kWeightMax)) {
    balancer_.set_weight(identity, weight);
  }
  const bool changed = server.told != state;
  server.told = state;
  changes_.clear();
  if (outliers_) {
    outliers_->set_down(identity, out_of_service(server), reactor_.now_ms(), changes_);
  }
  for (const OutlierChange& change : changes_) apply(change);
  // Whoever says that it is up has asked it.
  if (changed && state == ServerState::kUp) {
    const bool closes = server.circuit.state() != CircuitState::kClosed;
    server.circuit.close();
    if (closes) tell(server, "circuit_breaker", false, 0);
  }
  refresh(server);
}

// ---- one request

Turn Pool::choose(const Pick& pick) noexcept {
  Turn turn;
  // Those that wait come first; a request that has tried a server has waited already.
  if (full(pick.has_place) || (!waiters_.empty() && pick.tried.empty())) {
    turn.choice_.missing = balancer_.any_open() ? NoServer::kFull : NoServer::kDown;
    return turn;
  }
  Choice choice;
  if (pick.sticky_tag != 0) choice = balancer_.choose_sticky(pick.sticky_tag, pick);
  if (!choice) choice = balancer_.choose(pick);
  if (!choice) {
    turn.choice_.missing = choice.missing;
    return turn;
  }
  return begin(choice, pick.now_ns);
}

Turn Pool::begin(const Choice& choice, uint64_t now_ns) noexcept {
  balancer_.begin(choice);
  ++active_;
  BalancedServer& server = balancer_.at(choice.place);
  ++server.counts.requests;
  Turn turn;
  turn.pool_ = this;
  turn.endpoint_ = server.facts.endpoint;
  turn.endpoint_->hold();  // also for a waiter that has not been resumed yet
  turn.choice_ = choice;
  turn.tag_ = server.facts.tag;
  turn.race_group_ = server.facts.race_group;
  turn.begin_ns_ = now_ns;
  if (circuit_.failures != 0) {
    const CircuitBreaker::Pass pass = server.circuit.try_pass(circuit_, reactor_.now_ms());
    // A session may go to its server while that is drained, whatever its circuit says: no trial.
    turn.circuit_round_ = pass.allowed ? pass.round : pass.round - 1;
    if (server.circuit.state() != CircuitState::kClosed) refresh(server);
  }
  return turn;
}

void Pool::end(const Turn& turn) noexcept {
  --active_;
  turn.endpoint_->let_go();
  // With latency 0 the balancer's own average is left alone.
  balancer_.end(turn.choice_, turn.latency_ns_, reactor_.now_ns());
  if (turn.outcome_ != CircuitOutcome::kUnknown || circuit_.failures != 0) note_outcome(turn);
  if (waiting_ != 0) serve_waiters();
}

void Pool::note_outcome(const Turn& turn) noexcept {
  auto place = turn.choice_.place;
  if (static_cast<size_t>(place) >= servers() ||
      balancer_.at(place).facts.identity != turn.choice_.identity) {
    place = balancer_.find(turn.choice_.identity);
  }
  if (place < 0) return;
  judge(balancer_.at(place), turn);
}

void Pool::judge(BalancedServer& server, const Turn& turn) noexcept {
  const uint64_t now_ms = reactor_.now_ms();
  const bool bad = turn.outcome_ == CircuitOutcome::kBad;
  const uint64_t latency_us = turn.latency_ns_ / kNsPerUs;
  ServerCounts& counts = server.counts;
  if (bad) {
    ++counts.failures;
    server.unreachable = turn.unreachable_;
  }
  if (turn.outcome_ == CircuitOutcome::kGood) {
    ++counts.answers;
    counts.latency_us_sum += latency_us;
    counts.latency_us =
        counts.latency_us == 0
            ? latency_us
            : counts.latency_us - counts.latency_us / kAverageParts + latency_us / kAverageParts;
  }
  if (circuit_.failures != 0) note_circuit(server, turn.circuit_round_, turn.outcome_);
  if (!outliers_ || turn.outcome_ == CircuitOutcome::kUnknown) return;
  const auto change = outliers_->note(turn.choice_.identity, bad, latency_us, now_ms);
  if (change) apply(*change);
  if (outlier_spec_.latency_percent != 0) review_by(now_ms + kReviewMs);
}

void Pool::note_circuit(BalancedServer& server, uint32_t round, CircuitOutcome outcome) noexcept {
  const uint64_t now_ms = reactor_.now_ms();
  const CircuitState before = server.circuit.state();
  server.circuit.note(circuit_, round, outcome, now_ms);
  const CircuitState after = server.circuit.state();
  if (after == CircuitState::kOpen && before != CircuitState::kOpen) {
    tell(server, "circuit_breaker", true, server.circuit.until_ms() - now_ms);
    review_by(server.circuit.until_ms());
  }
  if (after == CircuitState::kClosed && before != CircuitState::kClosed) {
    tell(server, "circuit_breaker", false, 0);
  }
  if (before != CircuitState::kClosed || after != CircuitState::kClosed) refresh(server);
}

// Downloads and tunnels may last for hours, and those who wait for the trial's end would be turned
// away as long.
void Turn::settle_trial() noexcept {
  if (pool_ != nullptr && pool_->circuit_.failures != 0) pool_->settle_trial(*this);
}

void Pool::settle_trial(Turn& turn) noexcept {
  const int place = balancer_.find(turn.choice_.identity);
  if (place < 0) return;
  BalancedServer& server = balancer_.at(place);
  if (server.circuit.state() != CircuitState::kHalfOpen) return;
  note_circuit(server, turn.circuit_round_, turn.outcome_);
  --turn.circuit_round_;  // a round that is over: its end says nothing more
  serve_waiters();
}

bool Pool::try_retry() noexcept {
  if (!budget_.try_retry(reactor_.now_ms())) {
    ++counts_.retries_refused;
    return false;
  }
  ++counts_.retries;
  return true;
}

void Pool::take_back_retry() noexcept {
  budget_.give_back();
  --counts_.retries;
}

// ---- states

void Pool::refresh(BalancedServer& server) noexcept {
  ServerState state = server.told;
  if (state == ServerState::kUp) {
    const bool broken =
        circuit_.failures != 0 && !server.circuit.would_pass(circuit_, reactor_.now_ms());
    if (server.ejected || broken) state = ServerState::kEjected;
  }
  balancer_.set_state(server.facts.identity, state, reactor_.now_ns());
}

void Pool::apply(const OutlierChange& change) noexcept {
  const int place = balancer_.find(change.identity);
  if (place < 0) return;
  BalancedServer& server = balancer_.at(place);
  server.ejected = change.ejected;
  refresh(server);
  const uint64_t now_ms = reactor_.now_ms();
  const uint64_t for_ms = change.until_ms > now_ms ? change.until_ms - now_ms : 0;
  tell(server, to_string(change.cause), change.ejected, for_ms);
  if (change.ejected) review_by(change.until_ms);
}

void Pool::tell(const BalancedServer& server, std::string_view cause, bool ejected,
                uint64_t for_ms) noexcept {
  if (on_event_ == nullptr) return;
  std::string_view address;
  if (server.facts.endpoint != nullptr) address = server.facts.endpoint->address_text();
  on_event_(context_, {.upstream = name_,
                       .address = address,
                       .cause = cause,
                       .upstream_id = id_,
                       .identity = server.facts.identity,
                       .ejected = ejected,
                       .unreachable = server.unreachable,
                       .for_ms = for_ms});
}

void Pool::review_by(uint64_t at_ms) noexcept {
  if (review_timer_.armed() && review_timer_.expires_ms() <= at_ms) return;
  reactor_.timers().arm(review_timer_, at_ms);
}

void Pool::on_review(runtime::Timer& timer) noexcept {
  static_cast<ReviewTimer&>(timer).pool.review();
}

void Pool::review() noexcept {
  const uint64_t now_ms = reactor_.now_ms();
  changes_.clear();
  if (outliers_) outliers_->review(now_ms, changes_);
  for (const OutlierChange& change : changes_) apply(change);
  uint64_t next_ms = UINT64_MAX;
  if (circuit_.failures != 0) {
    for (size_t i = 0; i < servers(); ++i) {
      BalancedServer& server = balancer_.at(static_cast<int>(i));
      if (server.circuit.state() == CircuitState::kClosed) continue;
      refresh(server);
      // Half-open: a trial may never be heard of again.
      next_ms = std::min(next_ms, std::max(server.circuit.until_ms(), now_ms + kReviewMs));
    }
  }
  if (outliers_) {
    for (const BalancedServer& server : balancer_.servers()) {
      const Outliers::Server* known = outliers_->find(server.facts.identity);
      if (known == nullptr || !known->ejected) continue;
      next_ms = std::min(next_ms, std::max(known->until_ms, now_ms + 1));
    }
  }
  if (next_ms != UINT64_MAX) review_by(next_ms);
  serve_waiters();
}

// ---- the cookie

uint64_t Pool::read_cookie(std::string_view value, uint32_t now_s) noexcept {
  if (!signer_) return 0;
  return signer_->read(value, name_, now_s, sticky_spec_.age_max_s).value_or(0);
}

void Pool::write_cookie(std::span<char, StickySigner::kValueBytes> out, uint64_t tag,
                        uint32_t now_s) noexcept {
  WEIR_CHECK(signer_.has_value());
  signer_->write(out, name_, tag, now_s);
}

// ---- numbers

void Pool::sample(uint32_t id, UpstreamScrape& out) const {
  UpstreamSample sum = counts_;
  sum.upstream = id;
  sum.active = active_;
  sum.pending = waiting_;
  out.upstreams.push_back(sum);
  for (const BalancedServer& server : balancer_.servers()) {
    const Outliers::Server* judged = outliers_ ? outliers_->find(server.facts.identity) : nullptr;
    out.servers.push_back(
        {.upstream = id,
         .identity = server.facts.identity,
         .state = server.facts.state,
         .circuit = server.circuit.state(),
         .cause = judged != nullptr && judged->ejected ? judged->cause : OutlierCause::kNone,
         .weight = server.facts.weight,
         .active = server.active,
         .idle = server.facts.endpoint != nullptr ? server.facts.endpoint->idle() : 0,
         .ejections = judged != nullptr ? judged->ejections : 0,
         .counts = server.counts});
  }
}

}  // namespace weir::upstream
