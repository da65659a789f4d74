// Keeps the names of the configuration resolved: each is asked for again when its answer has become
// old (with jitter), and only what has changed is reported. While DNS fails, what was known stays
// and is asked for with back-off; that the name servers say "no such name" is believed after a
// while only. Owned by the table of upstreams, destroyed before its Resolver is; control thread. At
// most in_flight_max queries at a time.
#pragma once

#include <compare>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <weir/base/prng.h>
#include <weir/control/resolver.h>
#include <weir/runtime/reactor.h>

namespace weir::control {

struct WatchedName {
  std::string name;
  uint16_t port = 0;  // of the addresses; SRV records have their own
  bool srv = false;
  ResolveFamily family = ResolveFamily::kAny;
  friend auto operator<=>(const WatchedName&, const WatchedName&) = default;
};

struct NameWatchOptions {
  size_t in_flight_max = 32;
  uint32_t jitter_percent = 10;  // of the time to live, added to it
  uint32_t retry_min_ms = 1'000;
  uint32_t retry_max_ms = 30'000;
  // How long the name servers have to say that a name is not there (or has no address) until the
  // addresses that it had are given up.
  uint32_t absent_hold_ms = 30'000;
};

class NameWatch {
 public:
  struct State {
    std::vector<ResolvedAddress> addresses;  // what was last reported; empty: none so far
    // Of the last answer. With addresses: they are stale.
    ResolveError error = ResolveError::kNone;
    bool asked = false;      // there was an answer, or a failure
    uint32_t left_out = 0;   // addresses past Resolver::kAddressesMax
    uint32_t failures = 0;   // in a row
    uint64_t answer_ms = 0;  // when the last good answer came (Reactor::now_ms)
    uint64_t next_ms = 0;    // when it is asked for again
  };
  // Both are called on a turn of the reactor and may call set_names() and refresh(), but not
  // destroy the watch.
  using OnChange = std::function<void(const WatchedName&, const std::vector<ResolvedAddress>&)>;
  // The error has become another one; kNone: it is over.
  using OnTrouble = std::function<void(const WatchedName&, ResolveError)>;

  NameWatch(runtime::Reactor& reactor, Resolver& resolver, const NameWatchOptions& options,
            OnChange on_change, OnTrouble on_trouble);
  NameWatch(const NameWatch&) = delete;
  NameWatch& operator=(const NameWatch&) = delete;
  ~NameWatch();

  // Names that were watched before keep their state; the others are forgotten without a report.
  void set_names(const std::vector<WatchedName>& names);
  // Asks for all of them now (the name servers are others, for example).
  void refresh();
  // The same with another resolver, from now on: what the one before was asked is forgotten.
  void use(Resolver& resolver);
  [[nodiscard]] const State* find(const WatchedName& name) const;  // null: not watched
  [[nodiscard]] size_t unasked() const noexcept;  // names that nothing is known about yet
  [[nodiscard]] size_t in_flight() const noexcept { return in_flight_; }

 private:
  struct Entry;
  struct EntryTimer : runtime::Timer {
    explicit EntryTimer(Entry& owner) noexcept;
    Entry& entry;
  };
  struct Entry {
    Entry(NameWatch& owner, WatchedName watched);
    NameWatch& watch;
    WatchedName name;
    State state;
    Resolver::Handle query = 0;
    bool queued = false;
    uint64_t absent_since_ms = 0;
    EntryTimer timer;
  };
  void ask(Entry& entry);
  void ask_queued();
  void on_answer(Entry& entry, Resolution result);
  void take_good(Entry& entry, Resolution& result);
  void take_bad(Entry& entry, ResolveError error);
  void forget(Entry& entry);
  void cancel_query(Entry& entry);
  void wait(Entry& entry, uint64_t delay_ms);

  runtime::Reactor& reactor_;
  Resolver* resolver_;
  NameWatchOptions options_;
  OnChange on_change_;
  OnTrouble on_trouble_;
  base::Prng chance_;
  std::map<WatchedName, std::unique_ptr<Entry>> entries_;
  std::deque<Entry*> queue_;  // due, but too many are in flight
  size_t in_flight_ = 0;
};

}  // namespace weir::control
