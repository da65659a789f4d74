#include <weir/control/name_watch.h>

#include <algorithm>
#include <utility>

#include <weir/runtime/random_seed.h>

namespace weir::control {

namespace {

// Adds to `fresh` what was known about the parts that could not be learnt this time.
void keep_gaps(const std::vector<ResolvedAddress>& known, const std::vector<Resolution::Gap>& gaps,
               std::vector<ResolvedAddress>& fresh) {
  for (const ResolvedAddress& one : known) {
    const auto ip = one.address.ip();
    const bool kept = std::ranges::any_of(gaps, [&](const Resolution::Gap& gap) {
      return gap.target == one.target && ip && gap.v6 == !ip->is_v4();
    });
    if (kept) fresh.push_back(one);
  }
}

}  // namespace

NameWatch::EntryTimer::EntryTimer(Entry& owner) noexcept
    : Timer([](Timer& timer) noexcept {
        Entry& entry = static_cast<EntryTimer&>(timer).entry;
        entry.watch.ask(entry);
      }),
      entry(owner) {}

NameWatch::Entry::Entry(NameWatch& owner, WatchedName watched)
    : watch(owner), name(std::move(watched)), timer(*this) {}

NameWatch::NameWatch(runtime::Reactor& reactor, Resolver& resolver, const NameWatchOptions& options,
                     OnChange on_change, OnTrouble on_trouble)
    : reactor_(reactor),
      resolver_(&resolver),
      options_(options),
      on_change_(std::move(on_change)),
      on_trouble_(std::move(on_trouble)),
      chance_(runtime::random_seed()) {}

NameWatch::~NameWatch() {
  queue_.clear();
  for (const auto& [name, entry] : entries_) forget(*entry);
}

void NameWatch::set_names(const std::vector<WatchedName>& names) {
  std::map<WatchedName, std::unique_ptr<Entry>> before = std::move(entries_);
  entries_.clear();
  for (const WatchedName& name : names) {
    std::unique_ptr<Entry>& entry = entries_[name];
    if (entry) continue;  // named twice
    if (const auto known = before.find(name); known != before.end()) {
      entry = std::move(known->second);
      before.erase(known);
      continue;
    }
    entry = std::make_unique<Entry>(*this, name);
    ask(*entry);
  }
  for (const auto& [name, entry] : before) forget(*entry);
  ask_queued();
}

void NameWatch::refresh() {
  for (const auto& [name, entry] : entries_) {
    if (entry->query == 0) ask(*entry);
  }
}

void NameWatch::use(Resolver& resolver) {
  for (const auto& [name, entry] : entries_) cancel_query(*entry);
  resolver_ = &resolver;
  refresh();
}

const NameWatch::State* NameWatch::find(const WatchedName& name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : &found->second->state;
}

size_t NameWatch::unasked() const noexcept {
  return static_cast<size_t>(
      std::ranges::count_if(entries_, [](const auto& one) { return !one.second->state.asked; }));
}

void NameWatch::forget(Entry& entry) {
  reactor_.timers().disarm(entry.timer);
  if (entry.queued) std::erase(queue_, &entry);
  entry.queued = false;
  cancel_query(entry);
}

void NameWatch::cancel_query(Entry& entry) {
  if (entry.query == 0) return;
  resolver_->cancel(entry.query);
  entry.query = 0;
  --in_flight_;
}

void NameWatch::ask(Entry& entry) {
  reactor_.timers().disarm(entry.timer);
  if (entry.queued) return;
  if (in_flight_ >= options_.in_flight_max) {
    queue_.push_back(&entry);
    entry.queued = true;
    return;
  }
  ++in_flight_;
  // The entry outlives its query: forget() cancels it.
  entry.query = resolver_->resolve(
      entry.name.name, entry.name.port, {.srv = entry.name.srv, .family = entry.name.family},
      [this, &entry](Resolution result) { on_answer(entry, std::move(result)); });
}

void NameWatch::ask_queued() {
  while (!queue_.empty() && in_flight_ < options_.in_flight_max) {
    Entry& entry = *queue_.front();
    queue_.pop_front();
    entry.queued = false;
    ask(entry);
  }
}

void NameWatch::wait(Entry& entry, uint64_t delay_ms) {
  entry.state.next_ms = reactor_.now_ms() + delay_ms;
  reactor_.timers().arm(entry.timer, entry.state.next_ms);
}

void NameWatch::on_answer(Entry& entry, Resolution result) {
  entry.query = 0;
  --in_flight_;
  const ResolveError error_before = entry.state.error;
  std::vector<ResolvedAddress> addresses_before = entry.state.addresses;
  entry.state.asked = true;
  entry.state.error = result.error;
  if (result.error == ResolveError::kNone) {
    take_good(entry, result);
  } else {
    take_bad(entry, result.error);
  }
  ask_queued();
  // Last, and from copies: the callbacks may take the name away.
  const WatchedName name = entry.name;
  const bool trouble = entry.state.error != error_before;
  if (entry.state.addresses != addresses_before) {
    const std::vector<ResolvedAddress> addresses = entry.state.addresses;
    on_change_(name, addresses);
  }
  if (trouble) on_trouble_(name, result.error);
}

void NameWatch::take_good(Entry& entry, Resolution& result) {
  State& state = entry.state;
  if (!result.gaps.empty()) {
    keep_gaps(state.addresses, result.gaps, result.addresses);
    result.left_out += put_in_order(result.addresses);
  }
  state.addresses = std::move(result.addresses);
  state.left_out = result.left_out;
  state.failures = 0;
  state.answer_ms = reactor_.now_ms();
  entry.absent_since_ms = 0;
  const uint64_t spread_ms = uint64_t{result.ttl_ms} * options_.jitter_percent / 100;
  wait(entry, result.ttl_ms + chance_.below(spread_ms + 1));
}

void NameWatch::take_bad(Entry& entry, ResolveError error) {
  State& state = entry.state;
  const uint64_t now_ms = reactor_.now_ms();
  const uint32_t doublings = std::min<uint32_t>(state.failures, 20);
  uint64_t delay_ms =
      std::min<uint64_t>(uint64_t{options_.retry_min_ms} << doublings, options_.retry_max_ms);
  delay_ms = delay_ms * 3 / 4 + chance_.below(delay_ms / 2 + 1);
  ++state.failures;
  if (is_absent(error) && !state.addresses.empty()) {
    if (entry.absent_since_ms == 0) entry.absent_since_ms = now_ms;
    const uint64_t given_up_ms = entry.absent_since_ms + options_.absent_hold_ms;
    if (now_ms >= given_up_ms) {
      state.addresses.clear();
    } else {
      delay_ms = std::min(delay_ms, given_up_ms - now_ms);
    }
  }
  wait(entry, delay_ms);
}

}  // namespace weir::control
