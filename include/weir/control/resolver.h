// Names to addresses: c-ares on control's thread and ring, without a thread of its own (its sockets
// are watched by poll operations, its timeouts are a timer of the reactor). /etc/hosts is honoured,
// addresses need no query, SRV names lead to addresses by option. Owned by the table of upstreams;
// control thread: stop(), turn the reactor until stopped(), then destroy. Built with -Dcares only
// (WEIR_CARES). Limits: kQueriesMax requests at a time, kAddressesMax addresses an answer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <weir/base/ip.h>
#include <weir/runtime/reactor.h>

namespace weir::control {

enum class ResolveError : uint8_t {
  kNone,
  kNoSuchName,     // the name servers say that there is no such name (NXDOMAIN)
  kNoData,         // the name is there, but has no record of the kind
  kTimeout,        // no answer in time
  kRefused,        // the name servers do not answer us (REFUSED)
  kServerFailure,  // SERVFAIL, NOTIMP, FORMERR
  kMalformed,      // the answer makes no sense
  kUnreachable,    // no name server can be reached
  kBadName,        // not a host name; nothing was asked
  kBusy,           // too many requests at a time; nothing was asked
};
std::string_view to_text(ResolveError error) noexcept;
// The name servers have spoken: there is nothing. Any other error may be gone at the next try.
[[nodiscard]] constexpr bool is_absent(ResolveError error) noexcept {
  return error == ResolveError::kNoSuchName || error == ResolveError::kNoData;
}

enum class ResolveFamily : uint8_t { kAny, kV4, kV6 };

struct ResolveOptions {
  bool srv = false;  // the name has SRV records; their targets are resolved, the port is theirs
  ResolveFamily family = ResolveFamily::kAny;
  friend bool operator==(const ResolveOptions&, const ResolveOptions&) = default;
};

struct ResolvedAddress {
  base::SocketAddress address;
  std::string target;     // of SRV: the host that has this address; empty otherwise
  uint16_t priority = 0;  // of SRV: lower ones first
  uint16_t weight = 0;    // of SRV
  friend bool operator==(const ResolvedAddress&, const ResolvedAddress&) = default;
};

// By priority, IPv4 first, then by value, so that the same set is always the same list; each socket
// address once, at most Resolver::kAddressesMax of them. Returns how many were cut off.
uint32_t put_in_order(std::vector<ResolvedAddress>& addresses);

struct Resolution {
  // A part that could not be learnt although others were: addresses that were known for it before
  // are better kept.
  struct Gap {
    std::string target;  // as in ResolvedAddress
    bool v6 = false;
    ResolveError error = ResolveError::kNone;
  };
  ResolveError error = ResolveError::kNone;  // kNone: there is at least one address
  std::vector<ResolvedAddress> addresses;    // put_in_order()
  uint32_t left_out = 0;                     // addresses past kAddressesMax
  uint32_t ttl_ms = 0;  // the smallest of all records, within the limits of the options
  std::vector<Gap> gaps;
};

struct ResolverOptions {
  std::vector<std::string> servers = {};  // "127.0.0.1:53", "[::1]:53"; empty: those of resolv.conf
  std::string resolv_conf = "/etc/resolv.conf";
  std::string hosts = "/etc/hosts";
  uint32_t try_timeout_ms = 2'000;  // of the first round of the servers; each next one doubles it
  uint32_t tries = 3;               // rounds
  uint32_t total_timeout_ms = 10'000;
  uint32_t min_ttl_ms = 5'000;
  uint32_t max_ttl_ms = 300'000;
};

class Resolver {
 public:
  static constexpr size_t kQueriesMax = 256;
  static constexpr size_t kAddressesMax = 64;
  using Handle = uint64_t;  // never 0
  // Called once, on a later turn of the reactor; it may call resolve(), cancel(), reload() and
  // stop(), but not destroy the resolver.
  using Callback = std::function<void(Resolution)>;

  // Null: `error` says why.
  static std::unique_ptr<Resolver> open(runtime::Reactor& reactor, const ResolverOptions& options,
                                        std::string& error);
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;
  ~Resolver();  // stopped

  Handle resolve(std::string_view name, uint16_t port, const ResolveOptions& options,
                 Callback callback);
  // True: the callback will not be called any more (and is gone). False: it was.
  bool cancel(Handle handle);
  // What needs no query: addresses, what the hosts file names, localhost (RFC 6761). As resolve()
  // would answer; nothing otherwise.
  std::vector<ResolvedAddress> instant(std::string_view name, uint16_t port,
                                       const ResolveOptions& options);
  // Reads resolv.conf again; what is in flight is asked again. False: `error` says why, and the
  // name servers stay those of before. (The hosts file is looked at with each request.)
  bool reload(std::string& error);
  // Forgets all requests without calling back; those that come later are forgotten at once.
  void stop() noexcept;
  [[nodiscard]] bool stopped() const noexcept;
  [[nodiscard]] size_t in_flight() const noexcept;  // requests without an answer yet

 private:
  class Engine;
  explicit Resolver(std::unique_ptr<Engine> engine) noexcept;
  std::unique_ptr<Engine> engine_;
};

}  // namespace weir::control
