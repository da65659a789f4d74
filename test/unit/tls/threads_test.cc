// Cores share a CertificateSet and a ring of ticket keys, and nothing else: run under TSan.
#include <atomic>
#include <thread>

#include <catch2/catch_test_macros.hpp>

#include "peers.h"

using namespace weir::net::tls;
using namespace tls_test;

namespace {

constexpr int kRounds = 30;

// One core: handshakes for several names, resumed in between. Returns how many were resumed.
int run_core(const CertificateSet& certificates, const TicketKeyRing& tickets,
             const ServerPolicy& server_settings, const ClientPolicy& client_settings) {
  int resumed = 0;
  Library library;
  auto server = std::move(*Context::make_server(library, server_settings, certificates, tickets));
  auto client = std::move(*Context::make_client(library, client_settings));
  ResumptionSlot slot(*client);
  for (int i = 0; i < kRounds; ++i) {
    Pair pair;
    pair.server = Session::make_server(*server);
    const bool again = i % 3 != 0;
    pair.client = std::move(
        *Session::make_client(*client, {.host_name = again ? "a.example" : "b.wild.example",
                                        .sessions = again ? &slot : nullptr}));
    if (!pair.handshake()) return -1;
    decrypt(*pair.client, pair.to_client);
    pair.to_client.clear();
    const std::string text(20000, static_cast<char>('a' + i % 26));
    if (pair.send(*pair.server, text) != text) return -1;
    resumed += pair.server->facts().resumed ? 1 : 0;
  }
  return resumed;
}

}  // namespace

TEST_CASE("two cores share certificates and ticket keys") {
  const CertificateSet& certificates = *World::get().certificates;
  const TicketKeyRing tickets = ring(3);
  const ServerPolicy server_settings = server_policy();
  const ClientPolicy client_settings = client_policy();
  int results[2] = {-1, -1};
  std::thread threads[2];
  for (int i = 0; i < 2; ++i) {
    threads[i] = std::thread(
        [&, i] { results[i] = run_core(certificates, tickets, server_settings, client_settings); });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(results[0] == kRounds / 3 * 2 - 1);  // the first of a name has nothing to resume
  CHECK(results[1] == results[0]);
}
