// The hand-over as weir does it: handshake by tls::Session, which yields the keys, then the same
// exchange as in handoff_test. A client that sends data right behind its Finished has the first
// records of it read in userspace; the kernel goes on where the Session stopped.
#include <array>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>
#include <thread>

#include <sys/socket.h>

#include <weir/net/tls/certificates.h>
#include <weir/net/tls/context.h>
#include <weir/net/tls/ktls.h>
#include <weir/net/tls/library.h>
#include <weir/net/tls/session.h>

#include "exchange.h"
#include "peer.h"
#include "rig.h"

using namespace weir::net::tls;
using namespace weir::test::ktls;
// Session's Context is another one than that of the rig.
using EngineContext = weir::net::tls::Context;

namespace {

constexpr const char* kPemPath = "/tmp/ktls_engine_test.pem";

struct Engine {
  Library library;
  CertificateLoad certificates;
  TicketKeyRing tickets;

  bool prepare() {
    if (!write_certificate(kPemPath)) return false;
    CertificateSource source;
    source.cert_path = kPemPath;
    source.is_default = true;
    auto loaded = load_certificates({&source, 1}, std::time(nullptr));
    if (!loaded) {
      for (const std::string& why : loaded.error()) std::printf("  %s\n", why.c_str());
      return false;
    }
    certificates = std::move(*loaded);
    std::array<uint8_t, TicketKeyRing::kSeedBytes> seed{};
    Stream(1).fill(seed);
    tickets = tickets.rotated(seed, 0);
    return true;
  }
};

bool send_all(int fd, std::string& bytes) {
  const bool sent =
      send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
  bytes.clear();
  return sent;
}

// One Session on one socket, up to the hand-over.
struct Driver {
  Session& session;
  int fd;
  Digest& early;
  std::string to_send;

  bool feed(std::string_view ciphertext) {
    std::array<char, Session::kRecordPlaintextMax> plain{};
    while (!ciphertext.empty()) {
      const ReadResult result = session.read(ciphertext, plain, to_send);
      if (result.state == ReadState::kFailed || result.state == ReadState::kClosed) return false;
      early.add({reinterpret_cast<const uint8_t*>(plain.data()), result.produced});
      ciphertext.remove_prefix(result.consumed);
    }
    return true;
  }

  // `patient`: lets what the peer sends behind its Finished arrive together with it.
  bool shake_hands(bool server, bool patient) {
    std::array<char, 4096> room{};
    std::string_view received;
    if (!server && session.handshake({}, to_send).state == HandshakeState::kFailed) return false;
    while (!session.handshake_done()) {
      if (!to_send.empty() && !send_all(fd, to_send)) return false;
      if (patient) std::this_thread::sleep_for(std::chrono::milliseconds(100));
      const ssize_t got = recv(fd, room.data(), room.size(), 0);
      if (got <= 0) return false;
      received = {room.data(), static_cast<size_t>(got)};
      const HandshakeStep step = session.handshake(received, to_send);
      if (step.state == HandshakeState::kFailed) return false;
      received.remove_prefix(step.consumed);
    }
    if (!to_send.empty() && !send_all(fd, to_send)) return false;
    return feed(received) && finish_record();
  }

  // Reads to the end of a record that has begun, and not a byte further.
  bool finish_record() {
    std::array<char, 4096> room{};
    while (session.missing() > 0) {
      const ssize_t got = recv(fd, room.data(), std::min(room.size(), session.missing()), 0);
      if (got <= 0 || !feed({room.data(), static_cast<size_t>(got)})) return false;
    }
    return true;
  }
};

std::unique_ptr<Session> make_session(EngineContext& context, bool server) {
  if (server) return Session::make_server(context);
  auto made = Session::make_client(context, {.host_name = "localhost", .sessions = nullptr});
  if (!made) {
    std::printf("  %s\n", made.error().c_str());
    return nullptr;
  }
  return std::move(*made);
}

EngineContext::Made make_engine_context(Engine& engine, bool server, uint16_t version) {
  if (server) {
    ServerPolicy policy;
    policy.min_version = policy.max_version = version;
    return EngineContext::make_server(engine.library, policy, *engine.certificates.set,
                                      engine.tickets);
  }
  ClientPolicy policy;
  policy.min_version = policy.max_version = version;
  policy.verify = false;
  return EngineContext::make_client(engine.library, policy);
}

void run_case(Tally& tally, Engine& engine, KernelTls& tls, bool server, bool patient,
              uint16_t version, KernelCipher cipher) {
  const std::string name = title(version, cipher) + (server ? " server" : " client") +
                           (patient ? " with early data: " : ": ");
  const SocketCount before;
  TcpPair pair;
  tally.check(attach_ulp(pair.ours), name + "ULP at accept");
  Peer peer(pair.theirs, !server, version, cipher, play_exchange);
  const auto context = make_engine_context(engine, server, version);
  if (!tally.check(context.has_value(), name + "context", context ? "" : context.error())) return;
  std::unique_ptr<Session> session = make_session(**context, server);
  if (!tally.check(session != nullptr, name + "session")) return;
  Digest early;
  Driver driver{.session = *session, .fd = pair.ours, .early = early, .to_send = {}};
  if (!tally.check(driver.shake_hands(server, patient), name + "handshake",
                   session->failure_text())) {
    return;
  }
  tally.check(!patient || early.bytes() > 0, name + "data came with the handshake");
  const auto keys = session->kernel_keys();
  if (!tally.check(keys.has_value(), name + "the engine's keys",
                   to_string(session->why_not_kernel()))) {
    return;
  }
  session.reset();  // an idle connection keeps no OpenSSL object
  run_exchange(tally, name, tls, pair, peer, before,
               {.server = server, .keys = *keys, .received = early});
}

}  // namespace

int main() {
  Tally tally;
  Engine engine;
  if (!tally.check(engine.prepare(), "certificate and tickets")) return tally.finish();
  KernelTls tls(engine.library);
  const int64_t errors_before = tls_stat("TlsDecryptError");
  for (const uint16_t version : KernelSupport::kVersions) {
    for (const KernelCipher cipher : KernelSupport::kCiphers) {
      for (const bool server : {true, false}) {
        run_case(tally, engine, tls, server, false, version, cipher);
      }
      // With TLS 1.2 a client has nothing to say before it has our Finished.
      if (version == kTls13) run_case(tally, engine, tls, true, true, version, cipher);
    }
  }
  tally.equal(tls_stat("TlsDecryptError"), errors_before, "no decryption error");
  tally.check(tls_stat_becomes("TlsCurrTxSw", 0) && tls_stat_becomes("TlsCurrRxSw", 0),
              "no socket is left");
  return tally.finish();
}
