// The simulated kernel, as tests see it: a virtual clock, TCP-like connections, scripted clients
// and origins, injected faults and the checks at the end of a run. It stands behind the seam of
// weir/runtime/{ring,sys}.h (see ring_sim.cc, sys_sim.cc), so the program under test is production
// object code. One at a time, one thread. Everything that happens follows from the seed: it must
// never look at the real clock, at addresses, or at anything else that differs between two runs.
//
//   Kernel kernel(seed, Faults::swarm(seed));
//   kernel.listen_origin("127.0.0.1:9000", [](Peer& origin) { origin.on_data = ...; });
//   ... start the program; it listens on 127.0.0.1:8080 ...
//   Peer& client = kernel.connect_client("127.0.0.1:8080");
//   client.send("GET / HTTP/1.1\r\n...");
//   REQUIRE(kernel.run_until([&] { reactor.turn(); }, [&] { return client.ended(); }, kMinute));
//   ... stop the program ...
//   REQUIRE(kernel.finish() == "");
//
// Callbacks of peers run inside the program's wait: they note what they see and never REQUIRE. With
// WEIR_SIM_TRACE in the environment every event is written to stderr as it happens.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <sim/faults.h>
#include <sim/peer.h>

namespace weir::sim {

inline constexpr uint64_t kMicrosecond = 1'000;
inline constexpr uint64_t kMillisecond = 1'000'000;
inline constexpr uint64_t kSecond = 1'000'000'000;

class World;

class Kernel {
 public:
  explicit Kernel(uint64_t seed, const Faults& faults = Faults::none());
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;
  ~Kernel();

  static Kernel& current();

  [[nodiscard]] uint64_t seed() const noexcept;
  [[nodiscard]] const Faults& faults() const noexcept;
  [[nodiscard]] const FaultCounts& fault_counts() const noexcept;
  [[nodiscard]] uint64_t now_ns() const noexcept;
  // A random number below `bound`, from the run's seed: for choices of the scenario.
  uint64_t below(uint64_t bound) noexcept;
  bool chance(uint32_t percent) noexcept;

  // Runs `action` when the virtual clock has come that far.
  void schedule(uint64_t delay_ns, std::function<void()> action);

  // Addresses are in the form that base::SocketAddress::parse takes. `from` is the source address
  // ("10.1.2.3:0" picks a port); empty: the loopback address of the family.
  Peer& connect_client(std::string_view to, std::string_view from = {});
  // Each connect of the program to `address` from now on makes a Peer and calls `on_connection`.
  void listen_origin(std::string_view address, std::function<void(Peer&)> on_connection);
  // From now on connects there are refused (living connections stay).
  void stop_origin(std::string_view address);
  // Connects there get no answer.
  void black_hole(std::string_view address);
  [[nodiscard]] size_t peers() const noexcept;
  Peer& peer(size_t index) noexcept;

  // Calls `turn` (one turn of the program, which waits in its ring) until `done`. False, with the
  // seed and the last events on stderr, if that is not so after `limit_ns` of virtual time.
  bool run_until(const std::function<void()>& turn, const std::function<bool()>& done,
                 uint64_t limit_ns);
  // No new fault from now on (those that already struck stay): what is alive must then finish.
  void calm() noexcept;

  // For programs that give each provided buffer back to its ring as soon as they are done with it
  // (a pool may keep some aside, and must then count for itself): one that is not there when its
  // group is unregistered is something left behind.
  void expect_all_buffers_back() noexcept;
  // To be called when the program has ended: what it left behind (open descriptors, operations in
  // flight, provided buffers), one line each with the seed; empty if nothing.
  [[nodiscard]] std::string finish();

  // A hash over everything that happened: equal seeds give equal digests.
  [[nodiscard]] uint64_t digest() const noexcept;
  // Completions delivered so far.
  [[nodiscard]] uint64_t completions() const noexcept;
  // Descriptors of the program that are open.
  [[nodiscard]] size_t open_files() const noexcept;
  void print_trace() const;

 private:
  std::unique_ptr<World> world_;
};

}  // namespace weir::sim
