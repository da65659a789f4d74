// The inside of the simulated kernel: clock, events, descriptors, network. Tests use sim_kernel.h;
// this is for ring_sim, sys_sim, network and peer only. One thread, one at a time.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <weir/base/ip.h>
#include <weir/base/prng.h>

#include <sim/faults.h>
#include <sim/peer.h>
#include <sim/stream.h>

namespace weir::sim {

class RingSim;

enum class FileKind : uint8_t { kSocket, kListener, kEvent };

// An open descriptor of the program under test. Numbers are never used twice, so that a stale one
// is always noticed.
struct File {
  FileKind kind = FileKind::kSocket;
  int fd = -1;
  uint32_t ops = 0;  // ring operations that hold it

  uint64_t counter = 0;  // kEvent

  int family = 0;  // sockets
  bool bound = false;
  base::SocketAddress local;
  std::map<std::pair<int, int>, int> options;

  bool connecting = false;
  bool connected = false;
  int connect_result = 1;  // 1: not known yet; 0 or -errno is taken by the CONNECT operation
  uint32_t attempt = 0;    // tells answers to an abandoned connect from those to the present one
  base::SocketAddress remote;
  Stream* stream = nullptr;

  uint64_t order = 0;  // of listeners, oldest first
  int backlog = 0;
  bool shut = false;  // shutdown(2) of a listener, or of what is not connected
  std::deque<Stream*> queue;

  [[nodiscard]] bool option(int level, int name) const {
    const auto found = options.find({level, name});
    return found != options.end() && found->second != 0;
  }
};

struct Origin {
  base::SocketAddress address;
  std::function<void(Peer&)> on_connection;
};

class World {
 public:
  World(uint64_t seed, const Faults& faults);
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  ~World();

  static World& current();

  // --- clock and events (world.cc) ---
  uint64_t now = 0;
  int64_t wall_offset_us = 0;
  void at(uint64_t when, std::function<void()> action);
  [[nodiscard]] uint64_t next_event() const noexcept;  // UINT64_MAX: none
  void run_due();
  // Goes on to `when` at the latest, running the events in between; stops after an event.
  void advance(uint64_t when);

  // --- what happened (world.cc) ---
  // `what` must be a literal. Numbers must not depend on addresses.
  void trace(const char* what, int64_t a = 0, int64_t b = 0, int64_t c = 0) noexcept;
  void print_trace(const char* reason) const noexcept;
  // For what the program under test must never do, or what the simulation does not know.
  [[noreturn]] void die(const char* what, int64_t a = 0, int64_t b = 0) const noexcept;
  [[nodiscard]] uint64_t digest() const noexcept { return digest_; }

  bool strike(uint8_t rate, uint64_t& count) noexcept;  // a fault's throw of the dice

  // --- descriptors (world.cc) ---
  File& open_file(FileKind kind);
  File& file(int fd, const char* who);  // dies if it is not open
  File* find_file(int fd) noexcept;     // null if it is not open
  int close_file(int fd, const char* who);
  [[nodiscard]] size_t open_files() const noexcept { return open_files_; }
  [[nodiscard]] std::string leftovers() const;

  // --- network (network.cc) ---
  int bind(File& file, const base::SocketAddress& address);
  int listen(File& file, int backlog);
  void connect(File& file, const base::SocketAddress& to);
  int accept(File& listener, base::SocketAddress* from);  // takes from the queue: a descriptor
  Peer& connect_client(const base::SocketAddress& to, const base::SocketAddress& from);
  void close_socket(File& file);
  int shutdown(File& file, int how);
  int64_t stream_send(Stream& stream, std::string_view bytes);
  int64_t stream_recv(Stream& stream, char* out, size_t bytes, bool peek);
  void stream_shutdown_write(Stream& stream);
  void stream_reset(Stream& stream);  // RST goes out; this end is dead
  void stream_close(Stream& stream, bool abort);
  [[nodiscard]] uint32_t poll_mask(const File& file) const;

  std::vector<Origin> origins;
  std::vector<base::SocketAddress> black_holes;
  std::vector<std::unique_ptr<Peer>> peers;
  bool calmed = false;  // planned faults do not strike any more

  // --- rings (ring_sim.cc) ---
  std::vector<RingSim*> rings;
  uint64_t next_op = 0;
  uint64_t completions = 0;
  bool all_buffers_back = false;        // see Kernel::expect_all_buffers_back
  std::vector<std::string> complaints;  // found on the way, reported at the end
  // While Kernel::run_until runs: waits return when this is so, or at run_limit.
  std::function<bool()> run_done;
  uint64_t run_limit = UINT64_MAX;
  bool stuck = false;  // a ring would have waited for ever, with nothing left to happen
  [[nodiscard]] bool interrupted() const { return run_done && (now >= run_limit || run_done()); }

  const uint64_t seed;
  Faults faults;
  FaultCounts counts;
  base::Prng rng;
  base::Prng random_bytes;  // for sys::random_bytes

 private:
  struct Event {
    uint64_t when;
    uint64_t order;
    std::function<void()> action;
  };
  struct Later {
    bool operator()(const Event& a, const Event& b) const noexcept {
      return a.when != b.when ? a.when > b.when : a.order > b.order;
    }
  };
  struct TraceEntry {
    uint64_t when = 0;
    const char* what = nullptr;
    int64_t a = 0, b = 0, c = 0;
  };

  static void print_entry(const TraceEntry& entry);
  Connection& make_connection(const base::SocketAddress& client, const base::SocketAddress& server);
  void plan_doom(Connection& connection);
  void deliver(Stream& to, size_t bytes);
  void deliver_fin(Stream& to);
  void deliver_reset(Stream& to);
  void arrival(Stream& to, std::function<void()> action);
  void notify(Stream& stream);
  File* find_listener(const base::SocketAddress& to);
  Origin* find_origin(const base::SocketAddress& to);
  [[nodiscard]] bool black_holed(const base::SocketAddress& to) const;
  void fail_connect(int fd, uint32_t attempt, uint64_t when, int error);
  void syn(int fd, uint32_t attempt, uint32_t tries);
  void syn_from_peer(Peer& peer, base::SocketAddress to, base::SocketAddress from, uint32_t tries);
  base::SocketAddress ephemeral(int family);

  std::priority_queue<Event, std::vector<Event>, Later> events_;
  uint64_t next_order_ = 0;
  uint64_t digest_ = 0;
  std::array<TraceEntry, 256> trace_{};
  uint64_t traced_ = 0;
  bool tell_all_ = false;  // WEIR_SIM_TRACE: every event goes to stderr as it happens
  std::vector<std::unique_ptr<File>> files_;
  size_t open_files_ = 0;
  std::map<uint64_t, File*> listeners_;  // by order
  std::map<int, File*> bound_;           // bound sockets by fd
  std::vector<std::unique_ptr<Connection>> connections_;
  uint16_t next_port_ = 32768;
  std::set<std::string> unix_paths_;  // names that a socket was bound to once
};

}  // namespace weir::sim
