// The production runtime and net rooms on the simulated kernel: a relay of Acceptor, connect() and
// Transport under every fault class. What goes in comes out, everything ends, nothing is left.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <sim/sim_kernel.h>

#include <weir/net/acceptor.h>
#include <weir/net/listen.h>
#include <weir/net/transport.h>
#include <weir/runtime/reactor.h>
#include <weir/runtime/task_group.h>

#include <catch2/catch_test_macros.hpp>

namespace {

using namespace weir;
using namespace weir::sim;
using net::Linger;
using net::ReadEvent;
using net::Transport;
using runtime::Reactor;
using runtime::Task;

constexpr uint32_t kConnectMs = 5'000;
constexpr uint32_t kIdleMs = 30'000;

struct Relay {
  explicit Relay(Reactor& owner) : reactor(owner) {}
  Reactor& reactor;
  runtime::TaskGroup sessions;
  uint64_t finished = 0;
  uint64_t failed = 0;
};

struct Session {
  Transport* client;
  Transport* upstream;
  bool failed = false;
};

void give_up(Session& session) {
  session.failed = true;
  session.client->abort();
  session.upstream->abort();
  session.client->interrupt();
  session.upstream->interrupt();
}

Task<> pump(Session& session, Transport& from, Transport& to) {
  while (!session.failed) {
    const ReadEvent event = co_await from.readable(from.reactor().now_ms() + kIdleMs);
    if (session.failed) co_return;
    if (event == ReadEvent::kEnd) {
      to.shutdown_write();
      co_return;
    }
    if (event != ReadEvent::kData) {
      give_up(session);
      co_return;
    }
    const std::string_view bytes = from.front();
    iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
    const runtime::BufferRef held = from.take_front();
    const base::Result<void> sent = co_await to.send(&piece, 1, kIdleMs);
    if (!sent) {
      if (!session.failed) give_up(session);
      co_return;
    }
  }
}

Task<> serve(Relay& relay, int fd) {
  auto client = std::make_unique<Transport>(relay.reactor, fd);
  const base::SocketAddress address = *base::SocketAddress::parse("127.0.0.1:9000");
  const base::Result<int> connected =
      co_await net::connect(relay.reactor, address, kConnectMs, nullptr);
  if (!connected) {
    ++relay.failed;
    Transport::dispose(std::move(client), Linger::kReset);
    co_return;
  }
  auto upstream = std::make_unique<Transport>(relay.reactor, *connected);
  Session session{client.get(), upstream.get()};
  client->start_receiving();
  upstream->start_receiving();
  {
    runtime::TaskGroup pumps;
    pumps.spawn(pump(session, *client, *upstream));
    pumps.spawn(pump(session, *upstream, *client));
    co_await pumps.join();
  }
  ++(session.failed ? relay.failed : relay.finished);
  const Linger linger = session.failed ? Linger::kReset : Linger::kNo;
  Transport::dispose(std::move(client), linger);
  Transport::dispose(std::move(upstream), linger);
}

void on_accept(void* context, int fd) noexcept {
  auto& relay = *static_cast<Relay*>(context);
  if (fd >= 0) relay.sessions.spawn(serve(relay, fd));
}

void script_origin(Kernel& kernel) {
  kernel.listen_origin("127.0.0.1:9000", [](Peer& origin) {
    origin.on_data = [](Peer& self) { self.send(self.take()); };
    origin.on_end = [](Peer& self) { self.close(); };
  });
}

std::string script_client(Kernel& kernel, Peer& client) {
  std::string payload(kernel.below(kernel.chance(70) ? 3000 : 60000), '\0');
  for (size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<char>('a' + i * 7 % 26);
  uint64_t when = 0;
  for (size_t at = 0; at < payload.size();) {
    const size_t piece = std::min<size_t>(payload.size() - at, 1 + kernel.below(20000));
    kernel.schedule(when, [&client, text = payload.substr(at, piece)] { client.send(text); });
    at += piece;
    when += kernel.below(3 * kMillisecond);
  }
  kernel.schedule(when, [&client] { client.shutdown_write(); });
  if (kernel.chance(20)) {
    client.stall();
    kernel.schedule(kernel.below(3 * kSecond), [&client] { client.resume(); });
  }
  return payload;
}

bool kills_connections(const Faults& faults) {
  return faults.reset != 0 || faults.vanish != 0 || faults.refuse != 0 ||
         faults.connect_hang != 0 || faults.clock_jump != 0;
}

struct Outcome {
  uint64_t digest = 0;
  uint64_t echoed = 0;
};

void run_clients(Kernel& kernel, const std::function<void()>& turn, Outcome& outcome) {
  const bool whole = !kills_connections(kernel.faults());
  std::vector<std::string> payloads;
  std::vector<Peer*> clients;
  for (size_t count = 1 + kernel.below(6); count > 0; --count) {
    clients.push_back(&kernel.connect_client("127.0.0.1:8080"));
    payloads.push_back(script_client(kernel, *clients.back()));
  }
  const auto all_ended = [&] {
    return std::all_of(clients.begin(), clients.end(), [](Peer* peer) { return peer->ended(); });
  };
  REQUIRE(kernel.run_until(turn, all_ended, 900 * kSecond));
  for (size_t i = 0; i < clients.size(); ++i) {
    INFO("seed " << kernel.seed() << ", client " << i);
    const std::string& got = clients[i]->received();
    REQUIRE(payloads[i].compare(0, got.size(), got) == 0);
    if (whole) {
      REQUIRE(clients[i]->eof());
      REQUIRE(got == payloads[i]);
    }
    if (got == payloads[i]) ++outcome.echoed;
  }
}

Outcome run(uint64_t seed, const Faults& faults) {
  Kernel kernel(seed, faults);
  Outcome outcome;
  script_origin(kernel);
  {
    runtime::ReactorOptions options;
    options.ring = {.entries = 64, .cq_entries = 256};
    options.buffers = {.count = 8u << kernel.below(4), .size = 1024, .ring_entries = 8};
    options.receive = kernel.chance(50) ? runtime::ReceiveStrategy::kMultishot
                                        : runtime::ReceiveStrategy::kOneShot;
    auto opened = Reactor::open(options);
    REQUIRE(opened.has_value());
    Reactor& reactor = **opened;
    Relay relay(reactor);
    auto listener = net::open_listener(*base::SocketAddress::parse("127.0.0.1:8080"), {});
    REQUIRE(listener.has_value());
    net::Acceptor acceptor(reactor, *listener, &on_accept, &relay);
    acceptor.start();
    const auto turn = [&] { reactor.turn(true); };
    run_clients(kernel, turn, outcome);
    kernel.calm();
    acceptor.stop();
    const auto drained = [&] {
      return acceptor.stopped() && relay.sessions.running() == 0 && reactor.disposing == 0;
    };
    REQUIRE(kernel.run_until(turn, drained, 120 * kSecond));
    REQUIRE(reactor.buffers().in_use() == 0);
    reactor.stop();
  }
  REQUIRE(kernel.finish() == "");
  // Nobody spins: the work is in proportion to the bytes.
  INFO("seed " << seed << ": completions");
  REQUIRE(kernel.completions() < 30'000);
  outcome.digest = kernel.digest();
  return outcome;
}

}  // namespace

// WEIR_SIM_SEED=n runs that seed alone; WEIR_SIM_SEEDS=n runs so many.
TEST_CASE("sim: transports under faults") {
  uint64_t first = 1;
  uint64_t last = 100;
  if (const char* one = std::getenv("WEIR_SIM_SEED"))
    first = last = std::strtoull(one, nullptr, 10);
  if (const char* many = std::getenv("WEIR_SIM_SEEDS")) last = std::strtoull(many, nullptr, 10);
  uint64_t echoed = 0;
  for (uint64_t seed = first; seed <= last; ++seed) {
    echoed += run(seed, Faults::swarm(seed)).echoed;
  }
  REQUIRE((last == first || echoed > last - first));
}

TEST_CASE("sim: transports replay exactly") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    REQUIRE(run(seed, Faults::swarm(seed)).digest == run(seed, Faults::swarm(seed)).digest);
  }
}
