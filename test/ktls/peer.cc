#include "peer.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

namespace weir::test::ktls {

using namespace net::tls;

namespace {

void add_certificate(SSL_CTX* context) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 86400);
  X509_set_pubkey(certificate, key);
  X509_NAME* name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("localhost"), -1, -1, 0);
  X509_set_issuer_name(certificate, name);
  X509_sign(certificate, key, EVP_sha256());
  SSL_CTX_use_certificate(context, certificate);
  SSL_CTX_use_PrivateKey(context, key);
  X509_free(certificate);
  EVP_PKEY_free(key);
}

const char* suite(uint16_t version, KernelCipher cipher) {
  const bool new_names = version == kTls13;
  switch (cipher) {
    case KernelCipher::kAes128Gcm:
      return new_names ? "TLS_AES_128_GCM_SHA256" : "ECDHE-ECDSA-AES128-GCM-SHA256";
    case KernelCipher::kAes256Gcm:
      return new_names ? "TLS_AES_256_GCM_SHA384" : "ECDHE-ECDSA-AES256-GCM-SHA384";
    default: return new_names ? "TLS_CHACHA20_POLY1305_SHA256" : "ECDHE-ECDSA-CHACHA20-POLY1305";
  }
}

std::vector<uint8_t> from_hex(std::string_view text) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

// Our side of one handshake.
class Shaker {
 public:
  Shaker(SSL_CTX* context, int fd, bool server)
      : fd_(fd),
        server_(server),
        ssl_(SSL_new(context)),
        in_(BIO_new(BIO_s_mem())),
        out_(BIO_new(BIO_s_mem())) {
    SSL_set_bio(ssl_, in_, out_);
    SSL_set_app_data(ssl_, this);
    SSL_CTX_set_keylog_callback(context, on_secret);
    server ? SSL_set_accept_state(ssl_) : SSL_set_connect_state(ssl_);
  }
  ~Shaker() {
    SSL_set_shutdown(ssl_, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl_);
  }
  Shaker(const Shaker&) = delete;
  Shaker& operator=(const Shaker&) = delete;

  bool run() {
    while (true) {
      const int result = SSL_do_handshake(ssl_);
      const bool done = SSL_is_init_finished(ssl_) == 1;
      if (!flush(done)) return false;
      if (done) return true;
      if (SSL_get_error(ssl_, result) != SSL_ERROR_WANT_READ) {
        ERR_print_errors_fp(stderr);
        return false;
      }
      if (!feed_record()) return false;
    }
  }

  bool keys(KernelKeys& keys) {
    const SSL_CIPHER* cipher = SSL_get_current_cipher(ssl_);
    keys.version = static_cast<uint16_t>(SSL_version(ssl_));
    switch (SSL_CIPHER_get_cipher_nid(cipher)) {
      case NID_aes_128_gcm: keys.cipher = KernelCipher::kAes128Gcm; break;
      case NID_aes_256_gcm: keys.cipher = KernelCipher::kAes256Gcm; break;
      case NID_chacha20_poly1305: keys.cipher = KernelCipher::kChaCha20Poly1305; break;
      default: return false;
    }
    const EVP_MD* digest = SSL_CIPHER_get_handshake_digest(cipher);
    keys.hash = EVP_MD_get_size(digest) == 48 ? SuiteHash::kSha384 : SuiteHash::kSha256;
    keys.tx.record_number = sent_;
    keys.rx.record_number = received_;
    keys.tx.explicit_nonce = nonce_ + 1;
    if (keys.version == kTls13) {
      return keys.tx.traffic_secret.assign(server_ ? server_secret_ : client_secret_) &&
             keys.rx.traffic_secret.assign(server_ ? client_secret_ : server_secret_);
    }
    return key_block(keys, digest);
  }

 private:
  static void on_secret(const SSL* ssl, const char* line) {
    auto* self = static_cast<Shaker*>(SSL_get_app_data(ssl));
    const std::string_view text(line);
    const std::string_view value = text.substr(text.rfind(' ') + 1);
    if (text.starts_with("CLIENT_TRAFFIC_SECRET_0 ")) self->client_secret_ = from_hex(value);
    if (text.starts_with("SERVER_TRAFFIC_SECRET_0 ")) self->server_secret_ = from_hex(value);
  }

  // RFC 5246, 6.3: client key, server key, client iv, server iv.
  bool key_block(KernelKeys& keys, const EVP_MD* digest) {
    std::array<uint8_t, 48> master{};
    std::array<uint8_t, 64> seed{};
    SSL_SESSION_get_master_key(SSL_get_session(ssl_), master.data(), master.size());
    SSL_get_server_random(ssl_, seed.data(), 32);
    SSL_get_client_random(ssl_, &seed[32], 32);
    const size_t key_size = kernel_key_size(keys.cipher);
    const size_t iv_size = implicit_iv_size(keys.cipher);
    std::vector<uint8_t> block(2 * key_size + 2 * iv_size);
    EVP_KDF* kdf = EVP_KDF_fetch(nullptr, "TLS1-PRF", nullptr);
    EVP_KDF_CTX* context = EVP_KDF_CTX_new(kdf);
    char label[] = "key expansion";
    char* hash = const_cast<char*>(EVP_MD_get0_name(digest));
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, hash, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SECRET, master.data(), master.size()),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, label, sizeof label - 1),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, seed.data(), seed.size()),
        OSSL_PARAM_construct_end()};
    const bool done = EVP_KDF_derive(context, block.data(), block.size(), parameters) == 1;
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(kdf);
    DirectionKeys& client = server_ ? keys.rx : keys.tx;
    DirectionKeys& server = server_ ? keys.tx : keys.rx;
    const std::span<const uint8_t> all(block);
    return done && client.key.assign(all.first(key_size)) &&
           server.key.assign(all.subspan(key_size, key_size)) &&
           client.iv.assign(all.subspan(2 * key_size, iv_size)) &&
           server.iv.assign(all.last(iv_size));
  }

  // Counts what goes out under the keys of the application data.
  void count_sent(std::span<const uint8_t> bytes, bool finished) {
    while (bytes.size() >= 5) {
      const size_t size = 5 + size_t{bytes[3]} * 256 + bytes[4];
      if (SSL_version(ssl_) == kTls13) {
        if (finished && server_ && bytes[0] == 23) ++sent_;  // tickets
      } else if (bytes[0] == 20) {
        sent_protected_ = true;
      } else if (sent_protected_) {
        ++sent_;
        nonce_ = 0;
        for (size_t i = 0; i < 8; ++i) nonce_ = nonce_ << 8 | bytes[5 + i];
      }
      bytes = bytes.subspan(size);
    }
  }

  bool flush(bool finished) {
    uint8_t* bytes = nullptr;
    const long size = BIO_get_mem_data(out_, &bytes);
    if (size <= 0) return true;
    count_sent({bytes, static_cast<size_t>(size)}, finished);
    for (long at = 0; at < size;) {
      const ssize_t part = ::send(fd_, bytes + at, static_cast<size_t>(size - at), MSG_NOSIGNAL);
      if (part <= 0) return false;
      at += part;
    }
    (void)BIO_reset(out_);
    return true;
  }

  bool feed_record() {
    std::array<uint8_t, 5 + 16384 + 256> record{};
    if (::recv(fd_, record.data(), 5, MSG_WAITALL) != 5) return false;
    const size_t body = size_t{record[3]} * 256 + record[4];
    if (body > record.size() - 5) return false;
    if (::recv(fd_, &record[5], body, MSG_WAITALL) != static_cast<ssize_t>(body)) return false;
    if (SSL_version(ssl_) != kTls13) {
      if (record[0] == 20) {
        received_protected_ = true;
      } else if (received_protected_) {
        ++received_;
      }
    }
    const int size = static_cast<int>(5 + body);
    return BIO_write(in_, record.data(), size) == size;
  }

  int fd_;
  bool server_;
  SSL* ssl_;
  BIO* in_;
  BIO* out_;
  std::vector<uint8_t> client_secret_;
  std::vector<uint8_t> server_secret_;
  bool sent_protected_ = false;
  bool received_protected_ = false;
  uint64_t sent_ = 0;
  uint64_t received_ = 0;
  uint64_t nonce_ = 0;
};

}  // namespace

Context make_context(bool server, uint16_t version, KernelCipher cipher) {
  Context context(SSL_CTX_new(server ? TLS_server_method() : TLS_client_method()));
  SSL_CTX_set_min_proto_version(context.get(), version);
  SSL_CTX_set_max_proto_version(context.get(), version);
  if (version == kTls13) {
    SSL_CTX_set_ciphersuites(context.get(), suite(version, cipher));
  } else {
    SSL_CTX_set_cipher_list(context.get(), suite(version, cipher));
  }
  if (server) add_certificate(context.get());
  return context;
}

bool write_certificate(const char* path) {
  const Context context(SSL_CTX_new(TLS_server_method()));
  add_certificate(context.get());
  std::FILE* file = std::fopen(path, "w");
  if (file == nullptr) return false;
  const bool written = PEM_write_X509(file, SSL_CTX_get0_certificate(context.get())) == 1 &&
                       PEM_write_PrivateKey(file, SSL_CTX_get0_privatekey(context.get()), nullptr,
                                            nullptr, 0, nullptr, nullptr) == 1;
  return std::fclose(file) == 0 && written;
}

std::optional<KernelKeys> shake_hands(SSL_CTX* context, int fd, bool server) {
  Shaker shaker(context, fd, server);
  KernelKeys keys;
  if (!shaker.run() || !shaker.keys(keys)) return std::nullopt;
  return keys;
}

Peer::Peer(int fd, bool server, uint16_t version, KernelCipher cipher, Part part)
    : fd_(fd),
      server_(server),
      context_(make_context(server, version, cipher)),
      hash_(EVP_MD_CTX_new()),
      thread_([this, part = std::move(part)] { run(part); }) {}

Peer::~Peer() {
  if (thread_.joinable()) shutdown(fd_, SHUT_RDWR);  // our side gave up before it
  join();
  EVP_MD_CTX_free(hash_);
}

void Peer::join() {
  if (thread_.joinable()) thread_.join();
}

void Peer::fail(std::string what) {
  if (!fault_.empty()) return;
  fault_ = std::move(what);
  if (const unsigned long code = ERR_peek_error(); code != 0) {
    const char* reason = ERR_reason_error_string(code);
    fault_ += std::string(" (") + (reason == nullptr ? "?" : reason) + ")";
  }
}

void Peer::on_message(int write, int, int type, const void*, size_t, SSL*, void* argument) {
  auto* self = static_cast<Peer*>(argument);
  if (type != SSL3_RT_HEADER || !self->counting_) return;
  ++(write == 1 ? self->sent_ : self->received_);
}

void Peer::run(const Part& part) {
  EVP_DigestInit_ex(hash_, EVP_sha256(), nullptr);
  const timeval patience{.tv_sec = 20, .tv_usec = 0};
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  ssl_ = SSL_new(context_.get());
  SSL_set_fd(ssl_, fd_);
  SSL_set_msg_callback(ssl_, on_message);
  SSL_set_msg_callback_arg(ssl_, this);
  if ((server_ ? SSL_accept(ssl_) : SSL_connect(ssl_)) == 1) {
    counting_ = true;
    part(*this);
  } else {
    fail("handshake");
  }
  std::array<uint8_t, 32> raw{};
  EVP_DigestFinal_ex(hash_, raw.data(), nullptr);
  for (const uint8_t byte : raw) {
    std::array<char, 3> two{};
    std::snprintf(two.data(), two.size(), "%02x", byte);
    digest_ += two.data();
  }
  SSL_free(ssl_);
  ERR_clear_error();
}

void Peer::write(std::span<const uint8_t> bytes) {
  if (failed()) return;
  const int size = static_cast<int>(bytes.size());
  if (SSL_write(ssl_, bytes.data(), size) != size) fail("write");
}

void Peer::read(size_t bytes) {
  std::array<uint8_t, 16384> room{};
  while (bytes > 0 && !failed()) {
    const int got = SSL_read(ssl_, room.data(), static_cast<int>(std::min(bytes, room.size())));
    if (got <= 0) {
      fail("read: error " + std::to_string(SSL_get_error(ssl_, got)));
      return;
    }
    EVP_DigestUpdate(hash_, room.data(), static_cast<size_t>(got));
    bytes -= static_cast<size_t>(got);
  }
}

void Peer::key_update(bool request) {
  if (failed()) return;
  if (SSL_key_update(ssl_, request ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED) !=
          1 ||
      SSL_do_handshake(ssl_) != 1) {
    fail("key update");
  }
}

void Peer::expect_close_notify() {
  if (failed()) return;
  uint8_t byte = 0;
  const int got = SSL_read(ssl_, &byte, 1);
  const int error = SSL_get_error(ssl_, got);
  clean_end_ = got <= 0 && error == SSL_ERROR_ZERO_RETURN;
  if (!clean_end_)
    fail("no close_notify: read " + std::to_string(got) + ", error " + std::to_string(error));
}

void Peer::send_close_notify() {
  if (!failed() && SSL_shutdown(ssl_) < 0) fail("shutdown");
}

}  // namespace weir::test::ktls
