// Pool: requests that wait for a server with room.
#include <utility>

#include <weir/runtime/timed_wait.h>
#include <weir/upstream/pool.h>

namespace weir::upstream {

// Lives in the frame of wait(). Its server is chosen by whoever made the room, so that nobody who
// comes before it is resumed can take it.
struct WaitHandle::Waiter : runtime::TimedWait {
  Waiter(runtime::Reactor& reactor, const Pick& facts) noexcept : TimedWait(reactor), pick(facts) {}
  Pick pick;
  Turn turn;
};

void WaitHandle::cancel() noexcept {
  if (waiter_ != nullptr) waiter_->wake();
}

runtime::Task<Turn> Pool::wait(WaitHandle& handle, Pick pick, uint64_t deadline_ms) {
  Turn none;
  none.choice_.missing = NoServer::kFull;
  if (waiting_ >= waiting_max_) {
    ++counts_.pending_refused;
    co_return none;
  }
  ++counts_.waited;
  ++waiting_;
  {
    WaitHandle::Waiter waiter(reactor_, pick);
    waiter.turn.choice_.missing = NoServer::kFull;  // until there is one
    (pick.tried.empty() ? waiters_ : retrying_).push_back(waiter);
    handle.waiter_ = &waiter;
    waiter.wake_at(std::min(reactor_.now_ms() + wait_timeout_ms_, deadline_ms));
    co_await waiter;
    handle.waiter_ = nullptr;
    --waiting_;
    // One that was given a server in the moment it was cancelled gives it on when it ends it.
    none = std::move(waiter.turn);
  }
  if (!none) ++counts_.pending_refused;
  co_return none;
}

// Those that have lost a server come first: fewer are of use to them, and they have waited before.
void Pool::serve_waiters() noexcept {
  retrying_.for_each([this](WaitHandle::Waiter& waiter) { (void)serve(waiter); });
  while (!waiters_.empty() && serve(waiters_.front())) {
  }
}

// False: it has to go on waiting.
bool Pool::serve(WaitHandle::Waiter& waiter) noexcept {
  if (full() && balancer_.any_open()) return false;
  waiter.pick.now_ns = reactor_.now_ns();
  Choice choice;
  // A session may go to its server while that is drained, but not beyond the limit.
  if (waiter.pick.sticky_tag != 0 && !full()) {
    choice = balancer_.choose_sticky(waiter.pick.sticky_tag, waiter.pick);
  }
  if (!choice) choice = balancer_.choose(waiter.pick);
  if (choice) {
    waiter.turn = begin(choice, waiter.pick.now_ns);
  } else if (choice.missing == NoServer::kFull) {
    return false;
  } else {
    waiter.turn.choice_.missing = choice.missing;  // there is nothing to wait for
  }
  waiter.wake();
  return true;
}

void Pool::send_waiters_away() noexcept {
  const auto away = [](WaitHandle::Waiter& waiter) {
    waiter.turn.choice_.missing = NoServer::kDown;
    waiter.wake();
  };
  retrying_.for_each(away);
  waiters_.for_each(away);
}

}  // namespace weir::upstream
