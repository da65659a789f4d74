// The control surface (`weir ctl`, docs/CTL.md): a Unix socket on which a running weir tells of its
// upstreams and takes orders for their servers. Lives on the control thread's reactor and never
// blocks it. One request for each connection: a line of words, the first being the format of the
// answer ("text" or "json"). Owned by the supervisor: open(), start(), and at the end stop(), turn
// the reactor until stopped(), then destroy, after the cores are joined (they write into what was
// lent to them). Bounds: kConnectionsMax at a time (others wait in the backlog), kRequestBytesMax,
// and a deadline for each of request, numbers and answer.
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include <weir/base/intrusive_list.h>
#include <weir/control/upstream_table.h>
#include <weir/log/error_log.h>
#include <weir/net/transport.h>
#include <weir/runtime/reactor.h>
#include <weir/runtime/task_group.h>
#include <weir/upstream/sample.h>

namespace weir::control {

struct ControlRequest;

// What the commands look at and change.
struct ControlHooks {
  // As UpstreamTable has them.
  std::function<std::vector<ServerView>()> servers;
  std::function<std::expected<void, std::string>(std::string_view upstream, std::string_view server,
                                                 route::ServerState state)>
      set_state;
  std::function<std::expected<void, std::string>(std::string_view upstream, std::string_view server,
                                                 uint32_t weight)>
      set_weight;
  // Sends kScrapeUpstreams; ControlSocket::on_scraped() follows. `into` stays valid until then, and
  // for a core that never answers until the socket is destroyed.
  std::function<void(uint32_t core, upstream::UpstreamScrape& into)> ask_core;
  // Reads the configuration again; ControlSocket::on_reloaded() follows, perhaps before it returns.
  // Or why nothing follows.
  std::function<std::expected<void, std::string>()> reload;
  // Does this weir finish what is under way, and then end?
  std::function<bool()> draining;
};

struct ControlSocketOptions {
  std::string path{};    // absolute
  uint32_t mode = 0600;  // of the file
  uint32_t request_timeout_ms = 5'000;
  uint32_t numbers_timeout_ms = 2'000;
  uint32_t answer_timeout_ms = 10'000;  // the whole answer
};

class ControlSocket {
 public:
  static constexpr uint32_t kConnectionsMax = 16;
  static constexpr size_t kRequestBytesMax = 4096;  // without the end of the line

  // Listens; nobody is answered before start(). A socket file on which nobody listens any more is
  // replaced, and so is that of a weir that drains, so that its successor can start: it is asked,
  // which blocks for a second at most where it hangs. The error is a sentence.
  static std::expected<std::unique_ptr<ControlSocket>, std::string> open(
      runtime::Reactor& reactor, log::Logger& logger, const ControlSocketOptions& options,
      ControlHooks hooks);
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;
  ~ControlSocket();  // stopped; removes the file, if it is still ours

  // For a process that will become another user.
  std::expected<void, std::string> give_to(uid_t user, gid_t group);
  void start(uint32_t cores);
  // Notice kUpstreamsScraped.
  void on_scraped(uint32_t core);
  // The number of the generation now in force, or why the configuration was not taken.
  void on_reloaded(const std::expected<uint64_t, std::string>& outcome);

  // Gives up all connections, now and for good.
  void stop() noexcept;
  [[nodiscard]] bool stopped() const noexcept;
  [[nodiscard]] uint32_t connections() const noexcept { return count_; }

 private:
  // One question to all cores. Requests that come while it is under way wait for the next one, so
  // that they see what was ordered before them.
  struct Numbers {
    std::vector<upstream::UpstreamScrape> cores;
    std::vector<bool> answered;
    size_t missing = 0;
  };
  struct Connection;
  struct NumbersWait;
  struct ReloadWait;
  struct Line;
  struct AcceptOp : runtime::Op {
    explicit AcceptOp(ControlSocket& owner) noexcept
        : Op(&ControlSocket::on_accept), socket(owner) {}
    ControlSocket& socket;
  };
  struct Pause : runtime::Timer {
    explicit Pause(ControlSocket& owner) noexcept;
    ControlSocket& socket;
  };

  ControlSocket(runtime::Reactor& reactor, log::Logger& logger, const ControlSocketOptions& options,
                ControlHooks hooks, int fd) noexcept;
  static void on_accept(runtime::Op& op, int32_t result, uint32_t flags) noexcept;
  void accept_next() noexcept;
  runtime::Task<> serve(std::unique_ptr<Connection> connection);
  runtime::Task<Line> read_line(Connection& connection);
  runtime::Task<std::string> answer(Connection& connection, std::string_view line);
  runtime::Task<std::string> answer_reload(Connection& connection, const ControlRequest& request);
  void ask_cores();
  [[nodiscard]] std::string missing_cores() const;
  void remove_file() noexcept;

  runtime::Reactor& reactor_;
  log::Logger& logger_;
  ControlSocketOptions options_;
  ControlHooks hooks_;
  int fd_;
  // Of the file that was made.
  dev_t device_ = 0;
  ino_t inode_ = 0;
  uint32_t cores_ = 0;
  bool stopping_ = false;
  std::shared_ptr<Numbers> numbers_;  // under way
  base::IntrusiveList<Connection> connections_;
  uint32_t count_ = 0;  // of them
  AcceptOp accept_op_;
  Pause pause_;  // after accept() has failed
  runtime::TaskGroup tasks_;
};

// What `help` answers, for those who have no socket yet.
std::string control_help(bool json);

}  // namespace weir::control
