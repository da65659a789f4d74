#include "peers.h"

#include <algorithm>
#include <array>

#include <weir/base/check.h>

namespace tls_test {

using weir::net::tls::CertificateSource;
using weir::net::tls::HandshakeStep;
using weir::net::tls::KeyPair;
using weir::net::tls::ReadResult;
using weir::net::tls::SecretBytes;
using weir::net::tls::WriteResult;

std::string chain_pem(const World& world, const Issued& leaf) {
  return leaf.certificate_pem() + world.intermediate.certificate_pem();
}

World::World() {
  root = issue({.common_name = "Root", .san = {}, .authority = true}, nullptr);
  intermediate = issue({.common_name = "Intermediate", .san = {}, .authority = true}, &root);
  ecdsa = issue({.common_name = "a ecdsa", .san = {"DNS:a.example"}}, &intermediate);
  rsa = issue({.common_name = "a rsa", .san = {"DNS:a.example"}, .kind = Kind::kRsa2048},
              &intermediate);
  wildcard = issue({.common_name = "wild", .san = {"DNS:*.wild.example"}}, &intermediate);
  fallback = issue({.common_name = "default", .san = {"DNS:default.example", "IP:127.0.0.1"}},
                   &intermediate);
  client =
      issue({.common_name = "client é, one",
             .san = {"DNS:client.example", "URI:spiffe://x/y", "IP:10.0.0.1", "email:a@b.example"}},
            &intermediate);
  revoked_client = issue({.common_name = "revoked", .san = {}}, &intermediate);
  stranger_root = issue({.common_name = "Stranger Root", .san = {}, .authority = true}, nullptr);
  stranger = issue({.common_name = "stranger", .san = {}}, &stranger_root);

  std::vector<CertificateSource> sources = {source("ecdsa", ecdsa), source("rsa", rsa),
                                            source("wildcard", wildcard),
                                            source("default", fallback)};
  sources.back().is_default = true;
  auto loaded = weir::net::tls::load_certificates(sources, now_s());
  WEIR_CHECK(loaded.has_value());
  certificates = std::move(loaded->set);
}

const World& World::get() {
  static const World world;
  return world;
}

CertificateSource World::source(const std::string& name, const Issued& leaf) const {
  CertificateSource source;
  source.cert_path = files.write(name + ".crt", chain_pem(*this, leaf));
  source.key_path = files.write(name + ".key", leaf.key_pem());
  return source;
}

KeyPair pair_of(const Issued& leaf, const Issued& intermediate) {
  KeyPair pair;
  pair.chain = {leaf.der(), intermediate.der()};
  unsigned char* bytes = nullptr;
  const int size = i2d_PrivateKey(leaf.key.get(), &bytes);
  pair.key = SecretBytes({bytes, static_cast<size_t>(size)});
  OPENSSL_free(bytes);
  return pair;
}

TicketKeyRing rotated(const TicketKeyRing& from, uint8_t seed, size_t kept) {
  std::array<uint8_t, TicketKeyRing::kSeedBytes> random;
  random.fill(seed);
  return from.rotated(random, kept);
}

TicketKeyRing ring(uint8_t seed) { return rotated({}, seed, 0); }

ServerPolicy server_policy() {
  ServerPolicy policy;
  policy.alpn = {"http/1.1"};
  return policy;
}

ClientPolicy client_policy() {
  ClientPolicy policy;
  policy.cas = {World::get().root.der()};
  policy.alpn = {"http/1.1"};
  return policy;
}

size_t whole(size_t available) { return available; }

namespace {

// Feeds `bytes` to `session` in cuts until they are gone or the step ends. Removes what was taken.
void step(Session& session, std::string& bytes, std::string& out, const Cut& cut,
          HandshakeStep& last) {
  size_t at = 0;
  while (at < bytes.size() && last.state == HandshakeState::kWantMore) {
    const size_t size = std::clamp<size_t>(cut(bytes.size() - at), 1, bytes.size() - at);
    last = session.handshake(std::string_view(bytes).substr(at, size), out);
    at += last.consumed;
  }
  bytes.erase(0, at);
}

}  // namespace

bool Pair::handshake(const Cut& cut) {
  client_step = client->handshake({}, to_server);
  for (int turn = 0; turn < 20; ++turn) {
    const size_t before = to_server.size() + to_client.size();
    step(*server, to_server, to_client, cut, server_step);
    step(*client, to_client, to_server, cut, client_step);
    const bool idle = before == 0 && to_server.empty() && to_client.empty();
    if (idle || (client_step.state != HandshakeState::kWantMore &&
                 server_step.state != HandshakeState::kWantMore)) {
      break;
    }
  }
  return client_step.state == HandshakeState::kDone && server_step.state == HandshakeState::kDone;
}

std::string encrypt(Session& session, std::string_view plaintext) {
  std::string out(Session::ciphertext_bound(plaintext.size()) * 2 + 65536, '\0');
  const std::array<std::string_view, 1> pieces = {plaintext};
  const WriteResult written = session.write(pieces, out);
  WEIR_CHECK(!written.failed);
  WEIR_CHECK(written.consumed == plaintext.size());
  out.resize(written.produced);
  return out;
}

Decrypted decrypt(Session& session, std::string_view ciphertext, size_t room, const Cut& cut) {
  Decrypted all;
  std::string out(room, '\0');
  size_t at = 0;
  do {
    const size_t size = std::min(cut(ciphertext.size() - at), ciphertext.size() - at);
    const ReadResult read = session.read(ciphertext.substr(at, size), out, all.to_send);
    at += read.consumed;
    all.plaintext.append(out, 0, read.produced);
    all.state = read.state;
    if (read.state == ReadState::kFailed || read.state == ReadState::kClosed) break;
  } while (at < ciphertext.size() || all.state == ReadState::kFull);
  all.left = ciphertext.size() - at;
  return all;
}

std::string Pair::send(Session& from, std::string_view plaintext) {
  Session& to = &from == client.get() ? *server : *client;
  std::string& way = &from == client.get() ? to_server : to_client;
  way += encrypt(from, plaintext);
  Decrypted got = decrypt(to, way);
  way.clear();
  (&from == client.get() ? to_client : to_server) += got.to_send;
  return got.plaintext;
}

PlainClient::PlainClient() : context_(SSL_CTX_new(TLS_client_method())) {
  X509_STORE_add_cert(SSL_CTX_get_cert_store(context_), World::get().root.certificate.get());
  SSL_CTX_set_verify(context_, SSL_VERIFY_PEER, nullptr);
}

PlainClient::~PlainClient() {
  SSL_free(ssl_);
  SSL_CTX_free(context_);
}

SSL* PlainClient::connect(const char* server_name) {
  SSL_free(ssl_);
  pending_.clear();
  step = {};
  ssl_ = SSL_new(context_);
  SSL_set_bio(ssl_, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
  BIO_set_mem_eof_return(SSL_get_rbio(ssl_), -1);
  SSL_set_connect_state(ssl_);
  if (server_name != nullptr) SSL_set_tlsext_host_name(ssl_, server_name);
  return ssl_;
}

void PlainClient::feed(std::string_view bytes) {
  BIO_write(SSL_get_rbio(ssl_), bytes.data(), static_cast<int>(bytes.size()));
}

std::string PlainClient::take() {
  char* text = nullptr;
  const long size = BIO_get_mem_data(SSL_get_wbio(ssl_), &text);
  std::string bytes(text, static_cast<size_t>(size));
  BIO_reset(SSL_get_wbio(ssl_));
  return bytes;
}

bool PlainClient::handshake(Session& server, const Cut& cut) {
  bool done = false;
  for (int turn = 0; turn < 20; ++turn) {
    done = SSL_do_handshake(ssl_) == 1;
    pending_ += take();
    std::string answer;
    tls_test::step(server, pending_, answer, cut, step);
    feed(answer);
    if (step.state == HandshakeState::kFailed) return false;
    if (done && step.state == HandshakeState::kDone) return true;
    if (pending_.empty() && answer.empty()) return false;
  }
  return false;
}

std::vector<std::string> records(std::string_view stream) {
  std::vector<std::string> found;
  while (stream.size() >= 5) {
    const size_t body =
        static_cast<size_t>(static_cast<uint8_t>(stream[3])) << 8 | static_cast<uint8_t>(stream[4]);
    WEIR_CHECK(stream.size() >= 5 + body);
    found.emplace_back(stream.substr(0, 5 + body));
    stream.remove_prefix(5 + body);
  }
  WEIR_CHECK(stream.empty());
  return found;
}

}  // namespace tls_test
