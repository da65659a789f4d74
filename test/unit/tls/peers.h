// Pairs of connections in memory: a client Session against a server Session, and a plain OpenSSL
// client (an SSL over memory BIOs) against a server Session.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <openssl/ssl.h>

#include <weir/net/tls/session.h>

#include "authority.h"

namespace tls_test {

using weir::net::tls::CertificateLoad;
using weir::net::tls::CertificateSet;
using weir::net::tls::ClientPolicy;
using weir::net::tls::ClientTarget;
using weir::net::tls::Context;
using weir::net::tls::HandshakeState;
using weir::net::tls::Library;
using weir::net::tls::ReadState;
using weir::net::tls::ResumptionSlot;
using weir::net::tls::ServerPolicy;
using weir::net::tls::Session;
using weir::net::tls::TicketKeyRing;

// A root, an intermediate and a server's certificates for a.example (ECDSA and RSA), *.wild.example
// (ECDSA) and the default.example default; client certificates. Made once: RSA keys are slow.
struct World {
  World();
  static const World& get();

  Issued root, intermediate;
  Issued ecdsa, rsa, wildcard, fallback;
  Issued client, revoked_client, stranger_root, stranger;
  Directory files;
  std::unique_ptr<const CertificateSet> certificates;

  // One source: writes the chain and the key to files of this name.
  [[nodiscard]] weir::net::tls::CertificateSource source(const std::string& name,
                                                         const Issued& leaf) const;
};

std::string chain_pem(const World& world, const Issued& leaf);
weir::net::tls::KeyPair pair_of(const Issued& leaf, const Issued& intermediate);
// A ring of one key whose bytes follow from `seed`.
TicketKeyRing ring(uint8_t seed);
TicketKeyRing rotated(const TicketKeyRing& from, uint8_t seed, size_t kept);

ServerPolicy server_policy();
ClientPolicy client_policy();

// How bytes are cut on their way.
using Cut = std::function<size_t(size_t available)>;
size_t whole(size_t available);

// Two Sessions, joined. Bytes that a side has produced and the other has not yet taken stay here.
struct Pair {
  std::unique_ptr<Session> client, server;
  std::string to_server, to_client;
  weir::net::tls::HandshakeStep client_step, server_step;

  // True when both are done. Leaves behind what follows the handshakes.
  bool handshake(const Cut& cut = whole);
  // Sends through `from` to the other side; returns what came out there.
  std::string send(Session& from, std::string_view plaintext);
};

// Encrypts all of it.
std::string encrypt(Session& session, std::string_view plaintext);
struct Decrypted {
  std::string plaintext;
  std::string to_send;
  ReadState state = ReadState::kWantMore;
  size_t left = 0;  // ciphertext not taken
};
Decrypted decrypt(Session& session, std::string_view ciphertext, size_t room = 16384,
                  const Cut& cut = whole);

// A plain OpenSSL client.
class PlainClient {
 public:
  PlainClient();
  PlainClient(const PlainClient&) = delete;
  PlainClient& operator=(const PlainClient&) = delete;
  ~PlainClient();

  SSL_CTX* context() { return context_; }  // to be set up before connect()
  SSL* connect(const char* server_name);
  SSL* ssl() { return ssl_; }
  void feed(std::string_view bytes);
  std::string take();  // what it wants to send
  // Runs the handshake; true when both are done. The rest of the client's bytes stays in pending().
  bool handshake(Session& server, const Cut& cut = whole);
  std::string& pending() { return pending_; }
  weir::net::tls::HandshakeStep step;

 private:
  SSL_CTX* context_;
  SSL* ssl_ = nullptr;
  std::string pending_;
};

// Splits a stream into whole TLS records.
std::vector<std::string> records(std::string_view stream);

}  // namespace tls_test
