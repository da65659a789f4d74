// What control knows of every upstream's servers beside the configuration: the addresses of names,
// the results of health checks, and what an operator has set. It survives reloads, fills in the
// routing snapshot when one is built, and tells the cores by message what changes between two of
// them. Owned by the supervisor, control thread: stop(), turn the reactor until stopped(), then
// destroy.
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <weir/control/config/config.h>
#include <weir/control/health.h>
#include <weir/control/snapshot_builder.h>
#include <weir/log/error_log.h>
#include <weir/net/tls/engine.h>
#include <weir/runtime/reactor.h>
#include <weir/server/messages.h>

namespace weir::control {

// One server, for those who look.
struct ServerView {
  std::string upstream;  // its name
  uint32_t upstream_id = 0;
  std::string name;       // as configured: "10.0.0.1:80", "app:3000"
  std::string address;    // "10.0.0.1:3000"; of a name without address (yet) the same as `name`
  uint64_t identity = 0;  // as cores have it
  bool resolved = false;
  std::string trouble;  // of its name, where there is some; a phrase
  uint32_t weight = 1;  // in force
  uint32_t weight_configured = 1;
  uint32_t priority = 0;
  uint32_t max_connections = 0;
  bool backup = false;
  route::ServerState set = route::ServerState::kUp;  // by an operator: kUp, kDraining, kDown
  route::ServerState state =
      route::ServerState::kUp;  // of that and the checks: what cores are told
  bool checked = false;         // there are active checks of it
  HealthState health{};         // meaningful when `checked`
};

class UpstreamTable {
 public:
  // To every core. What a kUpstream points to is lent for the call: each core gets a copy.
  using Send = std::function<void(const server::Command&)>;
  // Operators' settings that are remembered at a time.
  static constexpr size_t kSettingsMax = 100'000;

  // `engine`: of the control thread, for checks that speak TLS; outlives the table and all of the
  // reactor's connections.
  UpstreamTable(runtime::Reactor& reactor, log::Logger& logger, net::tls::Engine* engine,
                Send send);
  UpstreamTable(const UpstreamTable&) = delete;
  UpstreamTable& operator=(const UpstreamTable&) = delete;
  ~UpstreamTable();

  // `config` is about to be built: its names are asked for, those in force stay. What the hosts
  // file has is known at once, the rest while the reactor turns (without c-ares: all, after as long
  // as the system's resolver takes). May be called again with another one; take() ends it.
  void prepare(const config::Config& config);
  // Names that nothing is known about yet, neither addresses nor why there are none.
  [[nodiscard]] size_t unasked() const noexcept;
  // For build_generation(): the servers of `specs` (by place those of config.upstreams, with ids)
  // become those that are known: names are replaced by their addresses, states and weights are
  // those in force. Changes nothing here, for the configuration may yet be refused.
  void fill(const config::Config& config, std::span<route::UpstreamSpec> specs,
            Identities& identities) const;
  // The configuration is in force, in the generation `epoch`: begins to watch its names and to
  // check its servers. `specs` as fill() was given them (BuildResult::upstreams). `identities`
  // outlives the table.
  void take(const config::Config& config, std::span<const route::UpstreamSpec> specs,
            Identities& identities, uint64_t epoch);

  [[nodiscard]] std::vector<ServerView> servers() const;
  // `server`: a name or an address as servers() has them; a name stands for all its addresses. The
  // error is a sentence. kEjected is none that can be set.
  std::expected<void, std::string> set_state(std::string_view upstream, std::string_view server,
                                             route::ServerState state);
  // 0 to BalancedServer::kWeightMax, but not 0 for all servers of an upstream. In force until the
  // configuration (or an SRV record) has another weight for it.
  std::expected<void, std::string> set_weight(std::string_view upstream, std::string_view server,
                                              uint32_t weight);

  // A core has put this server aside because nothing could be connected: the next check that it
  // passes says that this is over.
  void note_unreachable(uint32_t upstream_id, uint64_t identity) noexcept;

  void stop() noexcept;
  [[nodiscard]] bool stopped() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace weir::control
