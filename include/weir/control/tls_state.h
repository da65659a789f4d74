// TLS as control keeps it over reloads: the cores' engines, the certificates, what the kernel can,
// the keys of session tickets. From a configuration it makes what every core needs
// (proxy::CoreTls), and uses again what neither settings nor files have changed, so that
// connections and tickets outlive a reload. Control thread (weir check has one of its own);
// destroyed after the cores have been joined and all generations are gone, since Contexts live in
// the engines made here.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <weir/control/config/config.h>
#include <weir/control/file_fingerprint.h>
#include <weir/net/tls/engine.h>
#include <weir/proxy/generation.h>
#include <weir/route/spec.h>

namespace weir::control {

// How to find out what the kernel can do.
struct KernelQuestion {
  bool built = false;                                // this weir has kernel TLS
  std::function<net::tls::KernelSupport()> probe{};  // empty: do not ask (weir check)
};
// What the running weir asks.
KernelQuestion ask_kernel();
// Only settings and files are of interest.
KernelQuestion ask_nobody();

// What one configuration makes of TLS; nothing is in force before commit().
struct TlsPlan {
  std::vector<proxy::CoreTls> cores;  // for Generation::tls; empty: no TLS anywhere
  std::vector<std::string> errors;    // "FILE:LINE: what is wrong"; then the plan is no use
  std::vector<std::string> warnings;
  std::vector<std::string> notes;  // for the log, at level info
  bool tickets_changed = false;    // the cores need tickets()

  struct Server {
    bool wanted = false;   // by a listener; else kept for connections that are on their way
    std::string settings;  // all that the contexts were made of, beside the files
    FileFingerprints files;
    std::vector<std::shared_ptr<net::tls::ServerContext>> contexts;  // by core
  };
  struct Client {
    route::UpstreamTlsSpec spec;
    std::string settings;
    FileFingerprints files;
    std::vector<std::shared_ptr<net::tls::ClientContext>> contexts;  // by core
  };
  struct Tickets {
    net::tls::TicketKeyRing ring;
    FileFingerprints files;
    std::vector<std::string> file_names;  // in their order
    uint64_t rotation_ms = 0;             // 0: not made by weir itself
    uint32_t previous_kept = 0;
  };
  Server server;
  std::vector<Client> clients;
  Tickets tickets;
};

class TlsState {
 public:
  explicit TlsState(uint32_t cores, KernelQuestion question = ask_kernel());
  TlsState(const TlsState&) = delete;
  TlsState& operator=(const TlsState&) = delete;
  ~TlsState();

  [[nodiscard]] net::tls::Engine* engine(size_t core) const noexcept {
    return engines_[core].get();
  }

  // Every file that TLS reads for this configuration, without the system's CAs.
  static std::vector<std::string> files(const config::Config& config);

  // `upstreams` in the order of the snapshot, which is that of config.upstreams. `files`: the
  // fingerprints of files(config), taken before (a change after that shows the next time).
  TlsPlan plan(const config::Config& config, std::span<const route::UpstreamSpec> upstreams,
               const FileFingerprints& files, int64_t now_s);
  // Makes it the present. Its `cores` may have been moved away.
  void commit(TlsPlan&& plan, uint64_t now_ms);

  // Keys for session tickets, as all cores have to use them.
  [[nodiscard]] const net::tls::TicketKeyRing& tickets() const noexcept {
    return present_.tickets.ring;
  }
  // When weir's own keys are to be rotated, on the clock of commit(); nothing: never.
  [[nodiscard]] std::optional<uint64_t> rotation_due_ms() const noexcept;
  void rotate_tickets(uint64_t now_ms);

 private:
  struct Kernel {
    const net::tls::KernelSupport* support = nullptr;
    net::tls::RecordPath why_userspace = net::tls::RecordPath::kSwitchedOff;
    bool userspace_allowed = true;
  };
  // tls_kernel.cc
  Kernel choose_kernel(const config::Config& config, TlsPlan& plan);
  const net::tls::KernelSupport* ask_once(TlsPlan& plan, std::string& nothing);
  // tls_server.cc
  void plan_server(const config::Config& config, const Kernel& kernel,
                   const FileFingerprints& files, int64_t now_s, TlsPlan& plan);
  void make_server(const config::Config& config, const Kernel& kernel, int64_t now_s,
                   TlsPlan& plan);
  void plan_tickets(const config::Config& config, const FileFingerprints& files, TlsPlan& plan);
  // tls_clients.cc
  void plan_clients(const config::Config& config, std::span<const route::UpstreamSpec> upstreams,
                    const Kernel& kernel, const FileFingerprints& files, int64_t now_s,
                    TlsPlan& plan);
  void make_clients(const config::Config& config, const config::Upstream& upstream,
                    const net::tls::ClientPolicy& policy, const Kernel& kernel,
                    TlsPlan::Client& out, TlsPlan& plan);

  KernelQuestion question_;
  std::optional<net::tls::KernelSupport> kernel_;
  bool kernel_told_ = false;
  std::vector<std::unique_ptr<net::tls::Engine>> engines_;
  struct Present {
    TlsPlan::Server server;
    std::vector<TlsPlan::Client> clients;
    TlsPlan::Tickets tickets;
  };
  Present present_;  // after engines_: it dies first
  uint64_t tickets_since_ms_ = 0;
};

}  // namespace weir::control
