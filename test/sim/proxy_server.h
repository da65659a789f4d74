// weir itself in the simulation: production cores run by hand in one thread, and a small control
// that gives them listeners, generations, drains and cancels, and reads their logs. Lives as long
// as the kernel.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <weir/log/channel.h>
#include <weir/log/error_log.h>
#include <weir/proxy/generation.h>
#include <weir/runtime/sys.h>
#include <weir/server/core.h>

#include <sim/proxy_origin.h>
#include <sim/proxy_run.h>

namespace weir::sim {

inline constexpr std::string_view kAddress = "127.0.0.1:8080";
inline constexpr std::string_view kAddressSecond = "127.0.0.1:8081";  // comes and goes
inline constexpr std::string_view kAddressV6 = "[::1]:8080";
extern const std::string kRespondBody;  // of Place::kRespond

class Proxy {
 public:
  explicit Proxy(Run& run);
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;
  ~Proxy();

  void start();
  // A turn of each core that runs, and control's chores.
  void turn();
  // Publishes another generation; sometimes a listener goes or comes.
  void reload();
  // A server of an upstream stops, or one that had stopped comes back.
  void change_server();
  // Control tells the cores, between two generations, what it has learned of a server, or which
  // servers an upstream has now.
  void change_state();
  void change_servers();
  void drain();
  void cancel();
  void scrape();
  [[nodiscard]] bool quiet() const;
  void stop();
  [[nodiscard]] bool stopped() const;
  // When stopped: ends the cores. What they keep that they should not goes to Run::violation.
  void close();
  // What was exercised; complete when closed.
  struct Coverage {
    uint64_t requests = 0, bad_requests = 0, bad_responses = 0, client_timeouts = 0,
             upstream_timeouts = 0, stale_retries = 0, failovers = 0, hedged = 0, ejections = 0,
             waited = 0, pending_refused = 0, retries_refused = 0, refused = 0,
             body_bytes_buffered = 0, body_bytes_direct = 0, starved = 0, records = 0,
             records_dropped = 0;
    void add(const Coverage& other) noexcept;
  };
  [[nodiscard]] const Coverage& coverage() const noexcept { return coverage_; }

 private:
  struct CoreSlot {
    CoreSlot() : channel(64 * 1024), logger(&runtime::sys::realtime_us) {}
    log::Channel channel;
    log::Logger logger;
    std::unique_ptr<server::Core> core;
    std::deque<server::Command> pending;
    bool quiet = false;
    server::Scrape scrape;
    bool scraping = false;
  };

  void send(CoreSlot& slot, const server::Command& command);
  void send_all(const server::Command& command);
  void open_listener(std::string_view address);
  void close_listener(uint32_t id);
  void publish();
  void watch_servers();
  [[nodiscard]] std::vector<route::RouteSpec> routes() const;
  [[nodiscard]] route::UpstreamSpec upstream(size_t which);
  [[nodiscard]] static uint32_t upstream_id(size_t which);
  void read_notices(CoreSlot& slot);
  void note_quiet();
  void read_log(CoreSlot& slot);
  void tell_event(const log::Record& record) const;
  void check_closed(CoreSlot& slot);
  void check_upstreams(proxy::Worker& worker);

  Run& run_;
  proxy::GenerationCell cell_;
  int control_wake_fd_ = -1;
  bool stopping_ = false;  // events that come later are of no use
  uint64_t epoch_ = 0;
  uint64_t cancelled_at_ns_ = 0;
  uint32_t next_listener_ = 1;
  uint32_t second_listener_ = 0;  // 0: closed
  std::deque<OriginServer> origins_[2];
  // Server sets of each generation so far, as bits.
  std::vector<uint32_t> sets_[2];
  route::ServerState states_[2][kServersMax] = {};  // as control knows them
  uint32_t down_[2] = {0, 0};                       // servers that were down at some time
  std::vector<std::unique_ptr<CoreSlot>> slots_;
  Coverage coverage_;
};

}  // namespace weir::sim
