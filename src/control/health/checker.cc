// HealthChecker: who is checked when, and what the results make of a server.
#include <algorithm>
#include <utility>

#include <weir/control/health.h>
#include <weir/runtime/random_seed.h>

#include "check.h"

namespace weir::control {

HealthChecker::EntryTimer::EntryTimer(Entry& owner) noexcept
    : Timer([](Timer& timer) noexcept {
        Entry& entry = static_cast<EntryTimer&>(timer).entry;
        entry.checker.due(entry);
      }),
      entry(owner) {}

HealthChecker::Entry::Entry(HealthChecker& owner, const HealthTarget& target)
    : checker(owner), plan(std::make_shared<const CheckPlan>(target)), timer(*this) {
  state.healthy = target.initially_healthy;
  state.since_ms = owner.reactor_.now_ms();
}

HealthChecker::HealthChecker(runtime::Reactor& reactor, net::tls::Engine* engine,
                             const HealthOptions& options, OnChange on_change)
    : reactor_(reactor),
      engine_(engine),
      options_(options),
      on_change_(std::move(on_change)),
      chance_(runtime::random_seed()) {
  WEIR_CHECK(options_.in_flight_max > 0);
}

HealthChecker::~HealthChecker() { WEIR_CHECK(stopped()); }

void HealthChecker::set_targets(const std::vector<HealthTarget>& targets) {
  if (stopping_) return;
  std::map<uint64_t, std::unique_ptr<Entry>> before = std::move(entries_);
  entries_.clear();
  for (const HealthTarget& target : targets) {
    WEIR_CHECK(problem_of(target).empty());
    WEIR_CHECK(!target.tls || engine_ != nullptr);
    std::unique_ptr<Entry>& entry = entries_[target.identity];
    if (entry) continue;  // named twice
    if (const auto known = before.find(target.identity); known != before.end()) {
      entry = std::move(known->second);
      before.erase(known);
      if (entry->plan->target != target) replan(*entry, target);
      continue;
    }
    entry = std::make_unique<Entry>(*this, target);
    // Not all at once, but soon: nothing is known about it.
    const uint64_t spread_ms = uint64_t{target.interval_ms} * target.jitter_percent / 100;
    wait_for_next(*entry, chance_.below(spread_ms + 1));
  }
  for (const auto& [identity, entry] : before) forget(*entry);
  begin_queued();
}

const HealthState* HealthChecker::find(uint64_t identity) const {
  const auto found = entries_.find(identity);
  return found == entries_.end() ? nullptr : &found->second->state;
}

// What was counted towards the next turn was an answer to another question.
void HealthChecker::replan(Entry& entry, const HealthTarget& target) {
  forget(entry);
  entry.plan = std::make_shared<const CheckPlan>(target);
  entry.state.passed_row = 0;
  entry.state.failed_row = 0;
  wait_for_next(entry, 0);
}

void HealthChecker::forget(Entry& entry) {
  reactor_.timers().disarm(entry.timer);
  if (entry.queued) std::erase(queue_, &entry);
  entry.queued = false;
  entry.state.checking = false;
  if (entry.run == nullptr) return;
  CheckRun& under_way = *std::exchange(entry.run, nullptr);
  under_way.entry = nullptr;
  under_way.ask_to_stop(CheckStop::kGivenUp);
}

void HealthChecker::wait_for_next(Entry& entry, uint64_t delay_ms) {
  entry.state.next_ms = reactor_.now_ms() + delay_ms;
  reactor_.timers().arm(entry.timer, entry.state.next_ms);
}

void HealthChecker::due(Entry& entry) {
  if (in_flight_ < options_.in_flight_max) {
    begin(entry);
    return;
  }
  entry.queued = true;
  // Those that get requests first: many that hang must not keep the failure of another from being
  // noticed. None of them changes while it waits.
  const auto place = entry.state.healthy
                         ? std::ranges::partition_point(
                               queue_, [](const Entry* one) { return one->state.healthy; })
                         : queue_.end();
  queue_.insert(place, &entry);
}

void HealthChecker::begin(Entry& entry) {
  auto next = std::make_unique<CheckRun>(reactor_, entry.plan);
  next->entry = &entry;
  entry.run = next.get();
  entry.state.checking = true;
  ++in_flight_;
  tasks_.spawn(check_once(std::move(next)));
}

void HealthChecker::begin_queued() {
  while (!stopping_ && !queue_.empty() && in_flight_ < options_.in_flight_max) {
    Entry& entry = *queue_.front();
    queue_.pop_front();
    entry.queued = false;
    begin(entry);
  }
}

runtime::Task<> HealthChecker::check_once(std::unique_ptr<CheckRun> run) {
  CheckResult result = co_await check_server(*run, engine_);
  --in_flight_;
  Entry* const entry = run->entry;
  const bool turned = entry != nullptr && take(*entry, result, run->began_ns);
  const bool passed = entry != nullptr && result.result == HealthResult::kPassed;
  const bool awaited = passed && std::exchange(entry->pass_awaited, false);
  begin_queued();
  if (!turned && !awaited) co_return;
  // Last, and from a copy: the callback may take the server away.
  const HealthChange change{.identity = run->plan->target.identity,
                            .healthy = entry->state.healthy,
                            .turned = turned,
                            .reason = std::move(result.text)};
  on_change_(change);
}

bool HealthChecker::take(Entry& entry, CheckResult& result, uint64_t began_ns) {
  const HealthTarget& target = entry.plan->target;
  HealthState& state = entry.state;
  entry.run = nullptr;
  state.checking = false;
  state.last = result.result;
  state.reason = result.text;
  state.status = result.status;
  state.checked_ms = reactor_.now_ms();
  state.duration_us = (reactor_.now_ns() - began_ns) / 1000;
  const uint64_t period_ms =
      target.interval_ms +
      chance_.below(uint64_t{target.interval_ms} * target.jitter_percent / 100 + 1);
  const uint64_t spent_ms = state.duration_us / 1000;
  wait_for_next(entry, period_ms - std::min(period_ms, spent_ms));
  if (result.result == HealthResult::kLocal) return false;
  const bool passed = result.result == HealthResult::kPassed;
  if (passed) {
    ++state.passed;
    ++state.passed_row;
    state.failed_row = 0;
  } else {
    ++state.failed;
    ++state.failed_row;
    state.passed_row = 0;
  }
  const bool turned = passed ? !state.healthy && state.passed_row >= target.healthy_threshold
                             : state.healthy && state.failed_row >= target.unhealthy_threshold;
  if (!turned) return false;
  state.healthy = passed;
  state.since_ms = reactor_.now_ms();
  ++state.changes;
  return true;
}

void HealthChecker::await_pass(uint64_t identity) noexcept {
  const auto known = entries_.find(identity);
  if (known != entries_.end()) known->second->pass_awaited = true;
}

void HealthChecker::stop() noexcept {
  stopping_ = true;
  queue_.clear();
  for (const auto& [identity, entry] : entries_) {
    entry->queued = false;
    forget(*entry);
  }
  entries_.clear();
}

}  // namespace weir::control
