#include "session_hooks.h"

#include <algorithm>
#include <cstring>

#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include "context_state.h"

namespace weir::net::tls {
namespace {

Session& owner(BIO* bio) noexcept { return *static_cast<Session*>(BIO_get_data(bio)); }

int8_t hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return static_cast<int8_t>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<int8_t>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<int8_t>(c - 'A' + 10);
  return -1;
}

void parse_secret(std::string_view hex, Secret<48>& out) noexcept {
  uint8_t bytes[48];
  const size_t size = hex.size() / 2;
  bool good = hex.size() % 2 == 0 && size > 0 && size <= sizeof(bytes);
  for (size_t i = 0; good && i < size; ++i) {
    const int8_t high = hex_digit(hex[2 * i]);
    const int8_t low = hex_digit(hex[2 * i + 1]);
    good = high >= 0 && low >= 0;
    bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  out.clear();
  if (good) out.assign({bytes, size});
  wipe(bytes, sizeof(bytes));
}

}  // namespace

Session& SessionHooks::session_of(const SSL* ssl) noexcept {
  return *static_cast<Session*>(SSL_get_app_data(ssl));
}

OwnedBioMethod SessionHooks::make_bio_method() noexcept {
  OwnedBioMethod method(BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "weir session"));
  BIO_meth_set_read_ex(method.get(), &SessionHooks::on_read);
  BIO_meth_set_write_ex(method.get(), &SessionHooks::on_write);
  BIO_meth_set_ctrl(method.get(), &SessionHooks::on_control);
  return method;
}

int SessionHooks::on_read(BIO* bio, char* out, size_t size, size_t* taken) noexcept {
  Session& session = owner(bio);
  BIO_clear_retry_flags(bio);
  std::string_view& window =
      session.header_window_.empty() ? session.body_window_ : session.header_window_;
  *taken = std::min(size, window.size());
  if (*taken == 0) {
    BIO_set_retry_read(bio);
    return 0;
  }
  std::memcpy(out, window.data(), *taken);
  window.remove_prefix(*taken);
  return 1;
}

int SessionHooks::on_write(BIO* bio, const char* bytes, size_t size, size_t* written) noexcept {
  Session& session = owner(bio);
  BIO_clear_retry_flags(bio);
  *written = 0;
  if (session.out_text_ != nullptr) {
    session.out_text_->append(bytes, size);
  } else {
    if (size > session.out_room_) return 0;  // write() leaves room for every record: a bug of ours
    std::memcpy(session.out_at_, bytes, size);
    session.out_at_ += size;
    session.out_room_ -= size;
  }
  *written = size;
  return 1;
}

long SessionHooks::on_control(BIO* /*bio*/, int command, long /*number*/,
                              void* /*pointer*/) noexcept {
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

int SessionHooks::on_server_name(SSL* ssl, int* alert, void* /*context*/) noexcept {
  Session& session = session_of(ssl);
  const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  session.choice_ =
      session.context_.state().certificates->pick(name == nullptr ? std::string_view() : name);
  if (session.choice_ != nullptr) return SSL_TLSEXT_ERR_OK;
  session.unknown_name_ = true;
  *alert = SSL_AD_UNRECOGNIZED_NAME;
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

// All types of key that the name has; OpenSSL takes the one that fits the client's signature
// algorithms and suites.
int SessionHooks::on_certificate(SSL* ssl, void* /*context*/) noexcept {
  Session& session = session_of(ssl);
  Context::State& context = session.context_.state();
  const Choice* fallback = context.certificates->fallback();
  if (session.choice_ == nullptr) return 0;
  if (fallback != nullptr && *session.choice_ == *fallback) return 1;  // it is in the SSL_CTX
  SSL_certs_clear(ssl);
  for (const uint32_t index : session.choice_->by_type) {
    if (index == Choice::kNone) continue;
    const ParsedPair* pair = context.parsed.get(*context.certificates, index);
    if (pair == nullptr ||
        SSL_use_cert_and_key(ssl, pair->leaf.get(), pair->key.get(), pair->chain.get(), 1) != 1) {
      session.certificate_unusable_ = true;
      return 0;
    }
  }
  return 1;
}

int SessionHooks::on_status(SSL* ssl, void* /*context*/) noexcept {
  Session& session = session_of(ssl);
  const Context::State& context = session.context_.state();
  const X509* used = SSL_get_certificate(ssl);
  if (session.choice_ == nullptr || used == nullptr) return SSL_TLSEXT_ERR_NOACK;
  const int type = EVP_PKEY_get_base_id(X509_get0_pubkey(used));
  const KeyType key_type = type == EVP_PKEY_EC    ? KeyType::kEcdsa
                           : type == EVP_PKEY_RSA ? KeyType::kRsa
                                                  : KeyType::kEdDsa;
  const uint32_t index = session.choice_->by_type[static_cast<size_t>(key_type)];
  if (index == Choice::kNone) return SSL_TLSEXT_ERR_NOACK;
  const Certificate& certificate = context.certificates->at(index);
  const Der& response = certificate.ocsp_response;
  const bool current = certificate.ocsp_next_update_s == 0 || context.now_s == 0 ||
                       context.now_s <= certificate.ocsp_next_update_s;
  if (response.empty() || !current) return SSL_TLSEXT_ERR_NOACK;
  void* copy = OPENSSL_memdup(response.data(), response.size());  // the SSL frees it
  if (copy == nullptr) return SSL_TLSEXT_ERR_NOACK;
  SSL_set_tlsext_status_ocsp_resp(ssl, copy, static_cast<long>(response.size()));
  return SSL_TLSEXT_ERR_OK;
}

int SessionHooks::on_alpn(SSL* ssl, const unsigned char** out, unsigned char* out_size,
                          const unsigned char* offered, unsigned offered_size,
                          void* /*context*/) noexcept {
  const std::string& ours = session_of(ssl).context_.state().alpn;
  unsigned char* chosen = nullptr;
  const int result =
      SSL_select_next_proto(&chosen, out_size, reinterpret_cast<const unsigned char*>(ours.data()),
                            static_cast<unsigned>(ours.size()), offered, offered_size);
  *out = chosen;
  return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

int SessionHooks::on_ticket(SSL* ssl, unsigned char* name, unsigned char* iv,
                            EVP_CIPHER_CTX* cipher, EVP_MAC_CTX* mac, int sealing) noexcept {
  const Context::State& context = session_of(ssl).context_.state();
  const Library::State& library = context.library.state();
  const TicketKeyRing& ring = context.tickets;
  const TicketKey* key =
      sealing != 0 ? &ring.sealing() : ring.find(std::span<const uint8_t, 16>(name, size_t{16}));
  if (key == nullptr || ring.size() == 0) return sealing != 0 ? -1 : 0;
  const EVP_CIPHER* algorithm =
      key->key_bytes == 16 ? library.ticket_aes128.get() : library.ticket_aes256.get();
  char digest[] = "SHA256";
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY,
                                        const_cast<uint8_t*>(key->mac_key.data()), key->key_bytes),
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_end()};
  if (EVP_MAC_CTX_set_params(mac, parameters) != 1) return -1;
  if (sealing != 0) {
    std::memcpy(name, key->name.data(), key->name.size());
    if (RAND_bytes_ex(library.context.get(), iv, 16, 0) != 1 ||
        EVP_EncryptInit_ex(cipher, algorithm, nullptr, key->cipher_key.data(), iv) != 1) {
      return -1;
    }
    return 1;
  }
  if (EVP_DecryptInit_ex(cipher, algorithm, nullptr, key->cipher_key.data(), iv) != 1) return -1;
  // 2: resume and give out a new ticket. A ticket of TLS 1.3 is for one connection (RFC 8446 C.4),
  // so that each one must be followed by another; one of TLS 1.2 is good until its key is replaced.
  return key == &ring.sealing() && SSL_version(ssl) != TLS1_3_VERSION ? 1 : 2;
}

int SessionHooks::on_new_session(SSL* ssl, SSL_SESSION* session) noexcept {
  ResumptionSlot* slot = session_of(ssl).slot_;
  if (slot == nullptr || SSL_SESSION_is_resumable(session) != 1) return 0;
  slot->state().put(OwnedSession(session));
  return 1;  // the reference is ours now
}

void SessionHooks::on_message(int writing, int /*version*/, int content_type, const void* bytes,
                              size_t size, SSL* ssl, void* /*context*/) noexcept {
  Session& session = session_of(ssl);
  const auto* message = static_cast<const uint8_t*>(bytes);
  if (content_type == SSL3_RT_ALERT && size == 2) {
    if (message[1] == SSL_AD_CLOSE_NOTIFY) return;
    int16_t& alert = writing != 0 ? session.failure_.alert_sent : session.failure_.alert_received;
    alert = message[1];
  } else if (content_type == SSL3_RT_HANDSHAKE && size != 0 && session.done_) {
    const bool key_update = message[0] == SSL3_MT_KEY_UPDATE;
    if (key_update) session.key_changed_ = true;
    if (writing != 0) return;
    if (!session.server_ && message[0] == SSL3_MT_NEWSESSION_TICKET) {
      ++session.tickets_received_;
    } else {
      ++session.key_updates_;
    }
  }
}

void SessionHooks::on_secret(const SSL* ssl, const char* line) noexcept {
  Session& session = session_of(ssl);
  const std::string_view text(line);
  const size_t label_end = text.find(' ');
  const size_t random_end = text.find(' ', label_end + 1);
  if (label_end == std::string_view::npos || random_end == std::string_view::npos) return;
  const std::string_view label = text.substr(0, label_end);
  const std::string_view secret = text.substr(random_end + 1);
  if (label == "CLIENT_TRAFFIC_SECRET_0") {
    parse_secret(secret, session.client_secret_);
  } else if (label == "SERVER_TRAFFIC_SECRET_0") {
    parse_secret(secret, session.server_secret_);
  } else if (label.ends_with("TRAFFIC_SECRET_N")) {
    session.key_changed_ = true;
  }
}

}  // namespace weir::net::tls
