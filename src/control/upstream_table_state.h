// The inside of UpstreamTable: what the configuration says of every upstream, and the servers that
// this, DNS, checks and operators make of it. Private to control.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <weir/control/upstream_table.h>

#include "name_source.h"
#include "secure_checks.h"

namespace weir::control {

// One of `servers` in the configuration.
struct TableEntry {
  route::ServerSpec spec;  // as lowered; of a name, what all its addresses have
  bool is_name = false;
  WatchedName name;
  std::string host;         // of the Host field of checks
  std::string verify_name;  // as ServerSpec::tls_name, also where only checks speak TLS
};

// One server as the cores have it.
struct TableServer {
  route::ServerSpec spec;  // with state and weight in force
  size_t entry = 0;
  uint32_t weight_configured = 1;
  uint64_t identity = 0;  // as the balancers have it
  uint64_t check = 0;     // of its health check; 0: there is none

  [[nodiscard]] const std::string& name() const noexcept {
    return spec.name.empty() ? spec.address_text : spec.name;
  }
};

struct TableUpstream {
  route::UpstreamSpec spec;  // without servers
  config::HealthSettings health;
  HealthKind kind = HealthKind::kHttp;
  route::UpstreamTlsSpec secure_checks;
  std::vector<TableEntry> entries;
  std::vector<TableServer> servers;
  bool dirty = false;  // some name has changed
  // What was last told about its names.
  struct Told {
    std::string trouble;
    std::vector<ResolvedAddress> addresses;
    uint32_t left_out = 0;
  };
  std::map<WatchedName, Told> told;
};

// What an operator has set; of a server and of the name it belongs to the later one counts.
struct OperatorSetting {
  route::ServerState state = route::ServerState::kUp;
  uint64_t state_order = 0;  // 0: not set
  uint32_t weight = 0;
  uint32_t weight_instead_of = 0;  // the configuration's when it was set
  uint64_t weight_order = 0;       // 0: not set, or over
  std::string entry;               // what the configuration calls the server
};

struct UpstreamTable::State {
  struct Flush : runtime::Timer {
    explicit Flush(State& owner) noexcept
        : Timer([](Timer& timer) noexcept { static_cast<Flush&>(timer).state.flush(); }),
          state(owner) {}
    State& state;
  };
  struct Place {
    size_t upstream = 0;
    size_t server = 0;
  };
  using SettingKey = std::pair<std::string, std::string>;  // upstream, server's text

  State(runtime::Reactor& the_reactor, log::Logger& the_logger, net::tls::Engine* engine,
        Send the_send);

  // upstream_table_servers.cc
  [[nodiscard]] static TableUpstream describe(const config::Config& config, size_t place,
                                              const route::UpstreamSpec& spec);
  [[nodiscard]] std::vector<TableServer> servers_of(const TableUpstream& upstream,
                                                    Identities& ids) const;
  static void add_addresses(const TableUpstream& upstream, size_t entry_at, const KnownName& known,
                            Identities& ids, std::vector<TableServer>& out);
  void apply_settings(const TableUpstream& upstream, std::vector<TableServer>& servers) const;
  void send_upstream(const TableUpstream& upstream) const;
  // Of the kinds that are about one server.
  void send_server(const TableUpstream& upstream, const TableServer& server,
                   server::Command::Kind kind) const;
  // Makes the servers anew, and tells the cores what is another thing now. True: which there are.
  bool refresh(TableUpstream& upstream);
  void refresh_settings(TableUpstream& upstream);
  void take_settings(TableUpstream& upstream, std::vector<TableServer> next);
  void refresh_index();

  // upstream_table_names.cc
  static void add_names(const config::Config& config, std::vector<WatchedName>& out);
  static void add_names(const TableUpstream& upstream, std::vector<WatchedName>& out);
  void on_name(const WatchedName& name);
  void flush();
  void tell_names(TableUpstream& upstream);
  void tell_name(const TableUpstream& upstream, const std::string& text, const KnownName& known,
                 TableUpstream::Told& told);

  // upstream_table_health.cc
  [[nodiscard]] bool healthy(const TableUpstream& upstream, const TableServer& server) const;
  [[nodiscard]] route::ServerState state_of(const TableUpstream& upstream,
                                            const TableServer& server) const;
  void set_targets();
  [[nodiscard]] static HealthTarget target_of(const TableUpstream& upstream,
                                              const TableServer& server);
  void on_health(const HealthChange& change);

  // upstream_table_operator.cc
  struct Meant {
    TableUpstream* upstream = nullptr;
    const TableServer* server = nullptr;  // the first
    OperatorSetting* setting = nullptr;
  };
  std::expected<Meant, std::string> find_meant(std::string_view upstream_name,
                                               std::string_view text);
  [[nodiscard]] const OperatorSetting* find_setting(const std::string& upstream,
                                                    const std::string& text) const;
  [[nodiscard]] route::ServerState state_set(const TableUpstream& upstream,
                                             const TableServer& server) const;
  [[nodiscard]] uint32_t weight_of(const TableUpstream& upstream, const TableServer& server) const;
  void forget_settings();
  void forget_weights(const TableUpstream& upstream);

  runtime::Reactor& reactor;
  log::Logger& logger;
  Send send;
  Identities* identities = nullptr;
  uint64_t epoch = 0;
  std::unique_ptr<NameSource> names;
  SecureChecks secure_checks;
  HealthChecker checker;
  std::vector<TableUpstream> upstreams;
  std::map<WatchedName, std::vector<size_t>> users;  // places in `upstreams`
  std::unordered_multimap<uint64_t, Place> checked;  // by TableServer::check
  std::map<SettingKey, OperatorSetting> settings;
  uint64_t last_order = 0;
  Flush flush_timer;
  bool prepared = false;  // prepare() was called since take()
  bool stopping = false;
};

// What to look up for a server that is a name.
WatchedName watched_name(const config::Upstream& upstream, const config::UpstreamServer& server);
// But for state and weight.
bool same_servers(const std::vector<TableServer>& a, const std::vector<TableServer>& b);

}  // namespace weir::control
