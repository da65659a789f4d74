// Where the addresses of names come from: DNS by c-ares, kept up to date (DnsNames), or where weir
// was built without it the system's resolver, asked once per load (SystemNames). Owned by the table
// of upstreams, private to control; control thread. stop(), turn the reactor until stopped(), then
// destroy.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <weir/control/config/config.h>
#include <weir/control/name_watch.h>
#include <weir/runtime/reactor.h>

namespace weir::control {

struct KnownName {
  std::vector<ResolvedAddress> addresses;  // empty: none; at most Resolver::kAddressesMax
  uint32_t left_out = 0;                   // more than that
  std::string trouble;                     // of the last answer, a phrase; then they are stale
  bool asked = false;                      // there was an answer, or a failure
};

// `known` becomes that of `names`: what was known of them stays, all others are forgotten.
inline void keep_known(std::map<WatchedName, KnownName>& known,
                       const std::vector<WatchedName>& names) {
  std::map<WatchedName, KnownName> kept;
  for (const WatchedName& name : names) kept.insert(known.extract(name));
  for (const WatchedName& name : names) kept.try_emplace(name);
  known = std::move(kept);
}

class NameSource {
 public:
  // find() may say something else now. Not called by the functions below.
  using OnChange = std::function<void(const WatchedName&)>;

  NameSource() = default;
  NameSource(const NameSource&) = delete;
  NameSource& operator=(const NameSource&) = delete;
  virtual ~NameSource() = default;

  // A configuration is about to be loaded: settings, and what does not keep up with the world by
  // itself. False: `error` says why, and the settings of before stay.
  virtual bool configure(const config::ResolverSettings& settings, std::string& error) = 0;
  // Those that were there before keep what is known of them, the others are forgotten.
  virtual void set_names(const std::vector<WatchedName>& names) = 0;
  [[nodiscard]] virtual const KnownName* find(const WatchedName& name) const = 0;  // may be null
  // Names that nothing is known about yet.
  [[nodiscard]] virtual size_t unasked() const noexcept = 0;
  virtual void stop() noexcept = 0;
  [[nodiscard]] virtual bool stopped() const noexcept = 0;
};

// name_source_dns.cc; with WEIR_CARES only.
std::unique_ptr<NameSource> make_dns_names(runtime::Reactor& reactor, NameSource::OnChange change);
// name_source_system.cc. It keeps the thread waiting for as long as the system's resolver takes.
std::unique_ptr<NameSource> make_system_names();

}  // namespace weir::control
