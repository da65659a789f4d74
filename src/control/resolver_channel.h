// c-ares driven by a reactor: each of its sockets is watched by a poll operation of the ring, its
// timeouts by one timer. All of c-ares runs in step(), which the timer calls, never while
// completions are reaped and never inside a callback of its own. Owned by Resolver; control thread.
//
// The sockets are c-ares' own but for three things, for which their calls go through functions of
// ours: it reads for as long as there is something, which a server that floods us would make for
// ever; it forgets (1.18) that all servers have answered SERVFAIL or REFUSED, and says that none
// could be reached; and it takes (1.34) a packet that is no DNS message for the end of the whole
// connection, so that noise would end queries: packets without a question are dropped. (One that
// is bent behind its question, from the server's address and to the right port, still costs a try.)
//
// A poll operation lives in a Watch, which outlives the socket that c-ares closes: it is cancelled
// then, and freed when its completion has come (STYLE 2.5).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ares.h>

#include <weir/control/resolver.h>
#include <weir/runtime/reactor.h>

#include "resolver_answer.h"
#include "resolver_search.h"

namespace weir::control {

class DnsChannel {
 public:
  // `on_step` is called in each step, after c-ares: it takes answers on and returns when it wants
  // the next step at the latest (UINT64_MAX: it does not).
  DnsChannel(runtime::Reactor& reactor, std::function<uint64_t()> on_step);
  DnsChannel(const DnsChannel&) = delete;
  DnsChannel& operator=(const DnsChannel&) = delete;
  ~DnsChannel();  // stopped

  // Also again: queries in flight end with ARES_EDESTRUCTION then.
  bool open(const ResolverOptions& options, std::string& error);
  // In on_step only. The callback is called exactly once, possibly before this returns.
  void query(const std::string& name, RecordType type, ares_callback callback, void* argument);
  void step_soon();
  // The last failure that a server has told about this question, not before `since_ms`; 0: none.
  [[nodiscard]] uint8_t rcode_since(const std::string& name, RecordType type,
                                    uint64_t since_ms) const;
  void stop() noexcept;
  [[nodiscard]] bool stopped() const noexcept { return !channel_ && watches_.empty(); }

  // Names to ask for in place of a relative one, best first (resolv.conf(5), search and ndots).
  [[nodiscard]] std::vector<std::string> candidates(std::string_view text) const;

 private:
  struct Watch : runtime::Op {
    Watch(DnsChannel& owner, int watched) noexcept
        : Op(&DnsChannel::on_poll), channel(owner), fd(watched) {}
    DnsChannel& channel;
    int fd;
    uint32_t wanted = 0;  // POLLIN, POLLOUT
    uint32_t armed = 0;
    uint32_t ready = 0;
    bool closed = false;
  };
  struct StepTimer : runtime::Timer {
    explicit StepTimer(DnsChannel& owner) noexcept;
    DnsChannel& channel;
  };
  struct Failure {
    uint8_t rcode = 0;
    uint64_t at_ms = 0;
  };
  struct Destroy {
    void operator()(ares_channeldata* channel) const noexcept { ares_destroy(channel); }
  };
  static void on_poll(runtime::Op& op, int32_t result, uint32_t flags) noexcept;
  static void on_socket(void* self, ares_socket_t fd, int readable, int writable) noexcept;
  static ares_ssize_t receive(ares_socket_t fd, void* out, size_t bytes, int flags, sockaddr* from,
                              ares_socklen_t* from_length, void* self) noexcept;
  static const ares_socket_functions kSocketFunctions;
  void note_failure(DnsQuestion question);
  void step() noexcept;
  void process_ready();
  void sweep();
  void arm(Watch& watch) noexcept;
  void arm_timer(uint64_t wanted_ms);

  runtime::Reactor& reactor_;
  std::function<uint64_t()> on_step_;
  std::unique_ptr<ares_channeldata, Destroy> channel_;
  std::vector<std::unique_ptr<Watch>> watches_;  // few: a socket for each server and kind
  std::map<std::pair<std::string, uint16_t>, Failure> failures_;
  uint32_t received_ = 0;  // packets, in this step
  SearchList search_;
  bool stepping_ = false;
  bool again_ = false;
  bool stopping_ = false;
  StepTimer timer_;
};

}  // namespace weir::control
