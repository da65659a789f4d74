// TLS over production transports on the simulated kernel: an echo server, clients of our own in the
// same program, and OpenSSL's client as a scripted peer, under every fault class. What comes back
// is a prefix of what was sent, all of it and with close_notify unless a fault explains the rest,
// and an end without close_notify never passes for one.
//
// The choices and faults follow from the seed, and so do the sizes of nearly all records (the
// server has an RSA key: ECDSA signatures differ in length), but not the bytes, nor the size of a
// ticket: a seed that fails fails again nearly always.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <sim/sim_kernel.h>

#include <weir/net/acceptor.h>
#include <weir/net/handshake.h>
#include <weir/net/listen.h>
#include <weir/runtime/task_group.h>

#include <catch2/catch_test_macros.hpp>

#include "../unit/tls/peers.h"

namespace {

using namespace weir;
using namespace weir::sim;
namespace tls = weir::net::tls;
using net::HandshakeEnd;
using net::Linger;
using net::ReadEvent;
using net::Transport;
using runtime::Reactor;
using runtime::Task;

constexpr uint32_t kIdleMs = 30'000;
// Of a whole handshake: a slow peer of the simulation takes its time.
constexpr uint32_t kHandshakeMs = 300'000;
constexpr const char* kAddress = "127.0.0.1:8443";

// What the whole program under test has.
struct Rig {
  explicit Rig(Reactor& owner) : reactor(owner) {
    const auto& world = tls_test::World::get();
    auto loaded = tls::load_certificates({{world.source("sim", world.rsa)}}, tls_test::now_s());
    REQUIRE(loaded.has_value());
    server->certificates = std::move(loaded->set);
    auto made = tls::Context::make_server(engine.library, tls_test::server_policy(),
                                          *server->certificates, tls_test::ring(1));
    REQUIRE(made.has_value());
    server->context = std::move(*made);
    server->handshake_timeout_ms = kHandshakeMs;
    auto client = std::make_shared<tls::ClientContext>();
    auto client_made = tls::Context::make_client(engine.library, tls_test::client_policy());
    REQUIRE(client_made.has_value());
    client->context = std::move(*client_made);
    target = std::make_shared<net::TlsTarget>(client, "a.example");
  }

  Reactor& reactor;
  tls::Engine engine;
  std::shared_ptr<tls::ServerContext> server = std::make_shared<tls::ServerContext>();
  std::shared_ptr<net::TlsTarget> target;
  runtime::TaskGroup sessions;
  uint64_t clean = 0;   // connections that the server saw end in good order
  uint64_t broken = 0;  // all others
};

// How a reader reads.
enum class Style : uint8_t { kQueue, kDirectWhenStarved, kDirect, kAlternate };
Style any_style() { return static_cast<Style>(Kernel::current().below(4)); }

struct Step {
  std::string_view bytes;
  runtime::BufferRef held;  // where they are, unless in the block
};

// The next bytes of a stream, whatever the style; nothing at its end, which `last` tells.
class Reader {
 public:
  static constexpr size_t kBlock = 20'000;
  Reader(Transport& transport, Style style) : transport_(transport), style_(style) {
    if (style == Style::kDirectWhenStarved) transport.set_direct_when_starved();
    transport.start_receiving();
  }
  Task<Step> next() {
    while (true) {
      if (style_ == Style::kDirect && !transport_.direct_mode()) {
        co_await transport_.enter_direct_mode();
      }
      if (style_ == Style::kAlternate && Kernel::current().chance(20)) {
        if (!transport_.direct_mode()) {
          co_await transport_.enter_direct_mode();
        } else if (!transport_.has_data()) {
          transport_.start_receiving();
        }
      }
      if (transport_.has_data()) {
        Step step{.bytes = transport_.front(), .held = {}};
        step.held = transport_.take_front();
        co_return step;
      }
      if (transport_.direct_mode()) {
        const size_t wanted = 1 + Kernel::current().below(kBlock);
        const ssize_t got = transport_.recv_direct(block_.get(), wanted);
        if (got > 0) co_return Step{.bytes = {block_.get(), static_cast<size_t>(got)}, .held = {}};
      }
      last = co_await transport_.readable(transport_.reactor().now_ms() + kIdleMs);
      if (last != ReadEvent::kData) co_return Step{};
    }
  }
  ReadEvent last = ReadEvent::kData;

 private:
  Transport& transport_;
  Style style_;
  std::unique_ptr<char[]> block_ = std::make_unique<char[]>(kBlock);
};

// By send() or straight, as it comes.
Task<bool> pass_on(Transport& to, std::string_view bytes) {
  std::string rest(bytes);
  if (Kernel::current().chance(50)) {
    const ssize_t sent = to.send_direct(bytes.data(), bytes.size());
    if (sent < 0 && sent != -EAGAIN) co_return false;
    rest.erase(0, sent > 0 ? static_cast<size_t>(sent) : 0);
    if (rest.empty() && !to.unsent()) co_return true;
  }
  iovec piece{rest.data(), rest.size()};
  const base::Result<void> sent = co_await to.send(&piece, 1, kIdleMs);
  co_return sent.has_value();
}

Task<> serve(Rig& rig, int fd) {
  auto transport = std::make_unique<Transport>(rig.reactor, fd);
  const auto outcome = co_await net::accept_tls(*transport, rig.engine, rig.server, 1'700'000'000);
  bool good = outcome.end == HandshakeEnd::kDone;
  if (good) {
    Reader reader(*transport, any_style());
    while (good) {
      const Step step = co_await reader.next();
      if (step.bytes.empty()) break;
      good = co_await pass_on(*transport, step.bytes);
    }
    good = good && reader.last == ReadEvent::kEnd;
    if (good) good = (co_await transport->send_close_notify(kIdleMs)).has_value();
  }
  ++(good ? rig.clean : rig.broken);
  Transport::dispose(std::move(transport), good ? Linger::kNo : Linger::kReset);
}

void on_accept(void* context, int fd) noexcept {
  auto& rig = *static_cast<Rig*>(context);
  if (fd >= 0) rig.sessions.spawn(serve(rig, fd));
}

std::string make_payload(Kernel& kernel) {
  std::string payload(kernel.below(kernel.chance(70) ? 3000 : 60'000), '\0');
  for (size_t i = 0; i < payload.size(); ++i) {
    payload[i] = static_cast<char>('a' + (i * 7 + i / 251) % 26);
  }
  return payload;
}

// A client in the program under test.
struct Caller {
  std::string payload;
  std::string received;
  bool ended = false;
  bool clean = false;
};

Task<> write_all(Transport& transport, std::string_view text) {
  while (!text.empty()) {
    const size_t bytes = std::min<size_t>(text.size(), 1 + Kernel::current().below(20'000));
    if (!co_await pass_on(transport, text.substr(0, bytes))) co_return;
    text.remove_prefix(bytes);
  }
  (void)co_await transport.send_close_notify(kIdleMs);
}

Task<> call(Rig& rig, Caller& caller) {
  const base::SocketAddress address = *base::SocketAddress::parse(kAddress);
  const base::Result<int> fd = co_await net::connect(rig.reactor, address, kIdleMs, nullptr);
  if (fd) {
    auto transport = std::make_unique<Transport>(rig.reactor, *fd);
    // The server holds buffers while it sends to us: we must not wait for them.
    transport->set_direct_when_starved();
    const auto outcome = co_await net::connect_tls(*transport, rig.engine, rig.target,
                                                   rig.reactor.now_ms() + kHandshakeMs);
    if (outcome.end == HandshakeEnd::kDone) {
      Reader reader(*transport, any_style());
      runtime::TaskGroup writer;
      writer.spawn(write_all(*transport, caller.payload));
      while (true) {
        const Step step = co_await reader.next();
        if (step.bytes.empty()) break;
        caller.received += step.bytes;
      }
      caller.clean = reader.last == ReadEvent::kEnd;
      if (!caller.clean) transport->cancel_sends();
      co_await writer.join();
    }
    Transport::dispose(std::move(transport), caller.clean ? Linger::kNo : Linger::kReset);
  }
  caller.ended = true;
}

// A client outside of it.
class Script {
 public:
  Script(Kernel& kernel, Peer& peer)
      : payload(make_payload(kernel)), cut(kernel.chance(15)), peer_(peer) {
    if (kernel.chance(40)) SSL_CTX_set_max_proto_version(client_.context(), TLS1_2_VERSION);
    client_.connect("a.example");
    for (size_t at = 0; at < payload.size();) {
      sizes_.push_back(std::min<size_t>(payload.size() - at, 1 + kernel.below(20'000)));
      at += sizes_.back();
    }
    key_update_ = static_cast<int>(kernel.below(3));
    peer.on_connect = [this](Peer&) { go_on(); };
    peer.on_data = [this](Peer& from) {
      client_.feed(from.take());
      go_on();
    };
    if (kernel.chance(20)) {
      peer.stall();
      kernel.schedule(kernel.below(3 * kSecond), [&peer] { peer.resume(); });
    }
  }

  const std::string payload;
  const bool cut;  // ends without close_notify
  std::string received;
  bool clean = false;
  std::string failure;

 private:
  void note_failure() {
    char text[256];
    ERR_error_string_n(ERR_peek_error(), text, sizeof text);
    if (failure.empty()) failure = text;
  }
  void go_on() {
    ERR_clear_error();
    if (!SSL_is_init_finished(client_.ssl())) {
      const int result = SSL_do_handshake(client_.ssl());
      flush();
      if (result != 1) {
        if (SSL_get_error(client_.ssl(), result) == SSL_ERROR_SSL) note_failure();
        return;
      }
      write_all();
    }
    char block[4096];
    int got = 0;
    while ((got = SSL_read(client_.ssl(), block, sizeof block)) > 0) {
      received.append(block, static_cast<size_t>(got));
    }
    const int error = SSL_get_error(client_.ssl(), got);
    if (error == SSL_ERROR_ZERO_RETURN && !clean) {
      clean = true;
      peer_.close();
    } else if (error == SSL_ERROR_SSL) {
      note_failure();
    }
    flush();
  }
  void write_all() {
    size_t at = 0;
    for (const size_t size : sizes_) {
      if (key_update_ != 0 && SSL_version(client_.ssl()) == TLS1_3_VERSION) {
        SSL_key_update(client_.ssl(),
                       key_update_ == 1 ? SSL_KEY_UPDATE_NOT_REQUESTED : SSL_KEY_UPDATE_REQUESTED);
        if (at > 20'000) key_update_ = 0;
      }
      SSL_write(client_.ssl(), payload.data() + at, static_cast<int>(size));
      at += size;
    }
    if (!cut) SSL_shutdown(client_.ssl());
    flush();
    if (cut) peer_.shutdown_write();
  }
  void flush() {
    const std::string bytes = client_.take();
    if (!bytes.empty()) peer_.send(bytes);
  }

  Peer& peer_;
  tls_test::PlainClient client_;
  std::vector<size_t> sizes_;
  int key_update_ = 0;
};

bool kills_connections(const Faults& faults) {
  return faults.reset != 0 || faults.vanish != 0 || faults.refuse != 0 ||
         faults.connect_hang != 0 || faults.clock_jump != 0;
}

struct Outcome {
  uint64_t digest = 0;
  uint64_t echoed = 0;
};

void check(const Kernel& kernel, const std::string& payload, const std::string& received,
           bool clean, bool must, Outcome& outcome) {
  INFO("seed " << kernel.seed() << ": " << received.size() << " of " << payload.size());
  REQUIRE(payload.starts_with(received));
  if (clean) REQUIRE(received == payload);
  if (must) REQUIRE(clean);
  if (clean) ++outcome.echoed;
}

void run_clients(Kernel& kernel, Rig& rig, const std::function<void()>& turn, Outcome& outcome) {
  const bool whole = !kills_connections(kernel.faults());
  std::vector<Peer*> peers;
  std::vector<std::unique_ptr<Script>> scripts;
  for (size_t count = kernel.below(4); count > 0; --count) {
    peers.push_back(&kernel.connect_client(kAddress));
    scripts.push_back(std::make_unique<Script>(kernel, *peers.back()));
  }
  std::vector<std::unique_ptr<Caller>> callers;
  for (size_t count = 1 + kernel.below(3); count > 0; --count) {
    callers.push_back(std::make_unique<Caller>());
    callers.back()->payload = make_payload(kernel);
    rig.sessions.spawn(call(rig, *callers.back()));
  }
  const auto all_ended = [&] {
    return std::all_of(callers.begin(), callers.end(),
                       [](const auto& caller) { return caller->ended; }) &&
           std::all_of(peers.begin(), peers.end(), [](Peer* peer) { return peer->ended(); });
  };
  REQUIRE(kernel.run_until(turn, all_ended, 900 * kSecond));
  for (size_t i = 0; i < scripts.size(); ++i) {
    const Script& script = *scripts[i];
    CAPTURE(kernel.seed(), i, script.cut);
    REQUIRE(script.failure == "");
    if (script.cut) REQUIRE_FALSE(script.clean);
    check(kernel, script.payload, script.received, script.clean, whole && !script.cut, outcome);
    peers[i]->on_data = nullptr;
  }
  for (const auto& caller : callers) {
    check(kernel, caller->payload, caller->received, caller->clean, whole, outcome);
  }
}

Outcome run(uint64_t seed, const Faults& faults) {
  Kernel kernel(seed, faults);
  Outcome outcome;
  {
    runtime::ReactorOptions options;
    options.ring = {.entries = 64, .cq_entries = 256};
    options.buffers = {.count = 8u << kernel.below(4), .size = 1024, .ring_entries = 8};
    options.receive = kernel.chance(50) ? runtime::ReceiveStrategy::kMultishot
                                        : runtime::ReceiveStrategy::kOneShot;
    auto opened = Reactor::open(options);
    REQUIRE(opened.has_value());
    Reactor& reactor = **opened;
    Rig rig(reactor);
    auto listener = net::open_listener(*base::SocketAddress::parse(kAddress), {});
    REQUIRE(listener.has_value());
    net::Acceptor acceptor(reactor, *listener, &on_accept, &rig);
    acceptor.start();
    const auto turn = [&] { reactor.turn(true); };
    run_clients(kernel, rig, turn, outcome);
    kernel.calm();
    acceptor.stop();
    const auto drained = [&] {
      return acceptor.stopped() && rig.sessions.running() == 0 && reactor.disposing == 0;
    };
    REQUIRE(kernel.run_until(turn, drained, 400 * kSecond));
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
TEST_CASE("sim: TLS under faults") {
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

TEST_CASE("sim: TLS without faults comes back whole") {
  for (uint64_t seed = 1; seed <= 20; ++seed) REQUIRE(run(seed, Faults::none()).echoed > 0);
}
