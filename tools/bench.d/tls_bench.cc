// TLS without sockets: full and resumed handshakes per second on one and on two threads, each with
// its own Library; records sealed and opened; the time to load many certificates.
//
// All rates are per second of CPU time (of the thread), so that a machine with other work to do
// does not spoil them: "both" sums the rates of the threads for client and server together,
// "server" is the server's side of one thread. Threads that get in each other's way show in the
// ratio when they spin or bounce cache lines, and in "waits" (voluntary switches per 1,000
// handshakes) when they sleep on a lock.
//
//   tls_bench [rounds]
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <sys/resource.h>

#include <weir/base/check.h>
#include <weir/net/tls/session.h>

#include "../../test/unit/tls/authority.h"

namespace {

using namespace weir::net::tls;

double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

long waits_so_far() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nvcsw;
}

struct Authority {
  tls_test::Issued root = tls_test::issue({.common_name = "root", .authority = true}, nullptr);
  tls_test::Directory files;

  CertificateSource source(const std::string& name, tls_test::Kind kind) const {
    const auto leaf =
        tls_test::issue({.common_name = name, .san = {"DNS:" + name}, .kind = kind}, &root);
    CertificateSource source;
    source.cert_path = files.write(name + ".crt", leaf.certificate_pem() + root.certificate_pem());
    source.key_path = files.write(name + ".key", leaf.key_pem());
    return source;
  }
  std::unique_ptr<const CertificateSet> load(const std::vector<CertificateSource>& sources) const {
    auto loaded = load_certificates(sources, tls_test::now_s());
    WEIR_CHECK(loaded.has_value());
    return std::move(loaded->set);
  }
};

struct Settings {
  const CertificateSet* certificates;
  const TicketKeyRing* tickets;
  std::vector<Der> cas;
  uint16_t version;
  bool resumed;
};

// A client and a server on one thread.
class Pair {
 public:
  explicit Pair(const Settings& settings) {
    ServerPolicy server_policy;
    ClientPolicy policy;
    policy.cas = settings.cas;
    policy.min_version = policy.max_version = settings.version;
    policy.reuse_sessions = settings.resumed;
    server_ = std::move(
        *Context::make_server(library_, server_policy, *settings.certificates, *settings.tickets));
    client_ = std::move(*Context::make_client(library_, policy));
    slot_ = std::make_unique<ResumptionSlot>(*client_);
  }

  void connect(bool resumed) {
    const double start = cpu_seconds();
    server = Session::make_server(*server_);
    server_time += cpu_seconds() - start;
    client = std::move(*Session::make_client(
        *client_, {.host_name = "bench.example", .sessions = resumed ? slot_.get() : nullptr}));
    std::string up;
    std::string down;
    client->handshake({}, up);
    while (!server->handshake_done()) {
      serve(up, down);
      if (!client->handshake_done()) {
        const auto step = client->handshake(down, up);
        WEIR_CHECK(step.state != HandshakeState::kFailed);
        down.erase(0, step.consumed);
      }
    }
    if (!client->handshake_done()) down.erase(0, client->handshake(down, up).consumed);
    WEIR_CHECK(client->handshake_done());
    char none[16];
    client->read(down, none, up);  // tickets
    WEIR_CHECK(server->facts().resumed == resumed || !slot_ready_ || !resumed);
    slot_ready_ = slot_->size() != 0;
  }

  void disconnect() {
    const double start = cpu_seconds();
    server.reset();
    server_time += cpu_seconds() - start;
    client.reset();
  }

  // Sessions go before the Contexts they were made with.
  ~Pair() { disconnect(); }
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;

  std::unique_ptr<Session> server;
  std::unique_ptr<Session> client;
  double server_time = 0;

 private:
  void serve(std::string& up, std::string& down) {
    const double start = cpu_seconds();
    const auto step = server->handshake(up, down);
    server_time += cpu_seconds() - start;
    WEIR_CHECK(step.state != HandshakeState::kFailed);
    up.erase(0, step.consumed);
  }

  Library library_;
  std::unique_ptr<Context> server_;
  std::unique_ptr<Context> client_;
  std::unique_ptr<ResumptionSlot> slot_;
  bool slot_ready_ = false;
};

struct Rate {
  double both = 0;    // handshakes per CPU second, summed over the threads
  double server = 0;  // of one thread's server side
  double waits = 0;   // per 1,000 handshakes
};

struct Counted {
  size_t handshakes = 0;
  double cpu = 0;
  double server_cpu = 0;
  long waits = 0;
};

Counted run_thread(const Settings& settings, std::atomic<unsigned>& ready,
                   const std::atomic<bool>& go, const std::atomic<bool>& stop) {
  Pair pair(settings);
  for (int warm = 0; warm < 5; ++warm) {
    pair.connect(settings.resumed);
    pair.disconnect();
  }
  ready.fetch_add(1);
  while (!go.load()) std::this_thread::yield();
  pair.server_time = 0;
  const double cpu = cpu_seconds();
  const long waits = waits_so_far();
  Counted counted;
  for (; !stop.load(std::memory_order_relaxed); ++counted.handshakes) {
    pair.connect(settings.resumed);
    pair.disconnect();
  }
  counted.cpu = cpu_seconds() - cpu;
  counted.server_cpu = pair.server_time;
  counted.waits = waits_so_far() - waits;
  return counted;
}

Rate measure(const Settings& settings, unsigned threads, double seconds) {
  std::vector<Counted> counted(threads);
  std::atomic<unsigned> ready{0};
  std::atomic<bool> go{false};
  std::atomic<bool> stop{false};
  std::vector<std::thread> running;
  for (unsigned i = 0; i < threads; ++i) {
    running.emplace_back([&, i] { counted[i] = run_thread(settings, ready, go, stop); });
  }
  while (ready.load() != threads) std::this_thread::yield();
  go.store(true);
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  stop.store(true);
  for (std::thread& each : running) each.join();
  Rate rate;
  for (const Counted& each : counted) {
    const auto handshakes = static_cast<double>(each.handshakes);
    rate.both += handshakes / each.cpu;
    rate.server += handshakes / each.server_cpu / threads;
    rate.waits += 1000 * static_cast<double>(each.waits) / handshakes / threads;
  }
  return rate;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void handshakes(const char* name, const Settings& settings, int rounds) {
  // One and two threads in turn, so that the machine's other load meets both alike; medians.
  std::vector<double> one, two, ratio, server_one, server_two, waits;
  for (int round = 0; round < rounds; ++round) {
    const Rate a = measure(settings, 1, 0.4);
    const Rate b = measure(settings, 2, 0.4);
    one.push_back(a.both);
    two.push_back(b.both);
    ratio.push_back(b.both / a.both);
    server_one.push_back(a.server);
    server_two.push_back(b.server);
    waits.push_back(b.waits);
  }
  std::printf("%-26s %9.0f %9.0f %6.2f %11.0f %11.0f %7.2f\n", name, median(one), median(two),
              median(ratio), median(server_one), median(server_two), median(waits));
}

void records(const Settings& settings) {
  Pair pair(settings);
  pair.connect(false);
  const std::string text(1 << 20, 'x');
  std::string wire(Session::ciphertext_bound(text.size()), '\0');
  std::string plain(16384, '\0');
  std::string none;
  double sealing = 0;
  double opening = 0;
  constexpr int kRounds = 300;
  for (int i = 0; i < kRounds; ++i) {
    const double start = cpu_seconds();
    const std::array<std::string_view, 1> pieces = {text};
    const WriteResult written = pair.server->write(pieces, wire);
    const double between = cpu_seconds();
    std::string_view rest(wire.data(), written.produced);
    size_t got = 0;
    while (!rest.empty()) {
      const ReadResult read = pair.client->read(rest, plain, none);
      rest.remove_prefix(read.consumed);
      got += read.produced;
    }
    WEIR_CHECK(got == text.size());
    sealing += between - start;
    opening += cpu_seconds() - between;
  }
  std::printf("records of 16 KiB, %s: %.0f MiB/s sealed, %.0f MiB/s opened\n",
              std::string(pair.server->facts().cipher).c_str(), kRounds / sealing,
              kRounds / opening);
}

void loading(const Authority& authority) {
  std::vector<CertificateSource> sources;
  for (int i = 0; i < 1000; ++i) {
    sources.push_back(
        authority.source("n" + std::to_string(i) + ".example", tls_test::Kind::kP256));
  }
  double best = 1e9;
  for (int round = 0; round < 3; ++round) {
    const double start = cpu_seconds();
    const auto set = authority.load(sources);
    best = std::min(best, cpu_seconds() - start);
  }
  std::printf("loading 1,000 certificates (P-256, chain of 2): %.0f ms of CPU time\n", best * 1e3);
}

}  // namespace

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const int rounds = count > 1 ? std::atoi(arguments[1]) : 3;
  const Authority authority;
  const auto ecdsa = authority.load({authority.source("bench.example", tls_test::Kind::kP256)});
  std::vector<CertificateSource> rsa_sources = {
      authority.source("bench.example", tls_test::Kind::kRsa2048)};
  const auto rsa = authority.load(rsa_sources);
  std::array<uint8_t, TicketKeyRing::kSeedBytes> seed;
  seed.fill(5);
  const TicketKeyRing tickets = TicketKeyRing().rotated(seed, 0);
  Settings settings{.certificates = ecdsa.get(),
                    .tickets = &tickets,
                    .cas = {authority.root.der()},
                    .version = kTls13,
                    .resumed = false};
  std::printf("%-26s %9s %9s %6s %11s %11s %7s\n", "handshakes per CPU second", "both, 1",
              "both, 2", "ratio", "server, 1", "server, 2", "waits");
  handshakes("TLS 1.3 P-256 full", settings, rounds);
  settings.resumed = true;
  handshakes("TLS 1.3 resumed (ECDHE)", settings, rounds);
  settings.version = kTls12;
  settings.resumed = false;
  handshakes("TLS 1.2 P-256 full", settings, rounds);
  settings.resumed = true;
  handshakes("TLS 1.2 resumed", settings, rounds);
  settings.certificates = rsa.get();
  settings.version = kTls13;
  settings.resumed = false;
  handshakes("TLS 1.3 RSA-2048 full", settings, rounds);
  settings.certificates = ecdsa.get();
  records(settings);
  loading(authority);
  return 0;
}
