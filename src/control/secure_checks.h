// The TLS settings of health checks: one context in the control thread's engine for each kind of
// upstream, made again only when files or settings have changed, since a check with another one is
// another check. Owned by the table of upstreams, private to control; control thread. The engine
// outlives it.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <vector>

#include <weir/control/file_fingerprint.h>
#include <weir/net/tls/engine.h>
#include <weir/route/spec.h>

namespace weir::control {

class SecureChecks {
 public:
  explicit SecureChecks(net::tls::Engine* engine) noexcept : engine_(engine) {}

  // A configuration was loaded: files are looked at again, and what nobody asks for between begin()
  // and end() is dropped.
  void begin() noexcept;
  void end();
  // Null: `error` says why. Files that cannot be read any more leave the context of before.
  std::shared_ptr<net::tls::ClientContext> get(const route::UpstreamTlsSpec& spec, int64_t now_s,
                                               std::string& error);

 private:
  struct Kept {
    route::UpstreamTlsSpec spec;
    FileFingerprints files;
    uint64_t system_cas = 0;  // a hash; 0: not used
    std::shared_ptr<net::tls::ClientContext> context;
    std::string error;
    bool fresh = false;  // since begin()
  };
  void renew(Kept& kept, int64_t now_s);

  net::tls::Engine* engine_;
  std::vector<Kept> kept_;
};

}  // namespace weir::control
