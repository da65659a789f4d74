// What a Session knows about itself: facts, the peer's certificate, keys for the kernel, failures.
#include <algorithm>
#include <cstring>

#include <openssl/core_names.h>
#include <openssl/params.h>

#include <weir/base/ip.h>
#include <weir/net/tls/session.h>

#include "certificate_checks.h"
#include "context_state.h"
#include "openssl.h"

namespace weir::net::tls {
namespace {

std::optional<KernelCipher> kernel_cipher(const SSL_CIPHER* cipher) noexcept {
  switch (cipher == nullptr ? NID_undef : SSL_CIPHER_get_cipher_nid(cipher)) {
    case NID_aes_128_gcm: return KernelCipher::kAes128Gcm;
    case NID_aes_256_gcm: return KernelCipher::kAes256Gcm;
    case NID_chacha20_poly1305: return KernelCipher::kChaCha20Poly1305;
    default: return std::nullopt;
  }
}

// Safe in a header field and in a list joined with commas.
std::string escaped(std::string_view text) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte > 0x20 && byte < 0x7f && c != ',' && c != '"' && c != '%' && c != '\\') {
      out.push_back(c);
    } else {
      out.push_back('%');
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
  return out;
}

std::string_view text_of(const ASN1_STRING* string) noexcept {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(string)),
          static_cast<size_t>(ASN1_STRING_length(string))};
}

std::string address_text(std::string_view bytes) {
  base::IpAddress ip;
  if (bytes.size() == 4) {
    uint32_t v4 = 0;
    for (const char c : bytes) v4 = v4 << 8 | static_cast<uint8_t>(c);
    ip = base::IpAddress::from_v4(v4);
  } else if (bytes.size() == ip.bytes.size()) {
    std::memcpy(ip.bytes.data(), bytes.data(), bytes.size());
  } else {
    return escaped(bytes);
  }
  return ip.to_string();
}

std::vector<std::string> alternative_names(X509* certificate) {
  std::vector<std::string> found;
  const OwnedGeneralNames names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  if (names == nullptr) return found;
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    switch (name->type) {
      case GEN_DNS: found.push_back("DNS:" + escaped(text_of(name->d.dNSName))); break;
      case GEN_EMAIL: found.push_back("email:" + escaped(text_of(name->d.rfc822Name))); break;
      case GEN_URI:
        found.push_back("URI:" + escaped(text_of(name->d.uniformResourceIdentifier)));
        break;
      case GEN_IPADD: found.push_back("IP:" + address_text(text_of(name->d.iPAddress))); break;
      default: break;
    }
  }
  return found;
}

std::string serial_text(const X509* certificate) {
  const Owned<BIGNUM, BN_free> number(
      ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), nullptr));
  if (number == nullptr) return {};
  char* text = BN_bn2hex(number.get());
  std::string copy = text == nullptr ? "" : text;
  OPENSSL_free(text);
  return copy;
}

}  // namespace

Facts Session::facts() const noexcept {
  Facts facts;
  const SSL* ssl = ssl_.get();
  facts.version = static_cast<uint16_t>(SSL_version(ssl));
  if (const SSL_CIPHER* cipher = SSL_get_current_cipher(ssl); cipher != nullptr) {
    facts.cipher = SSL_CIPHER_standard_name(cipher);
  }
  if (const int group = static_cast<int>(SSL_get_negotiated_group(ssl_.get())); group > 0) {
    if (const char* name = SSL_group_to_name(ssl_.get(), group); name != nullptr) {
      facts.group = name;
    }
  }
  const unsigned char* alpn = nullptr;
  unsigned alpn_size = 0;
  SSL_get0_alpn_selected(ssl, &alpn, &alpn_size);
  facts.alpn = {reinterpret_cast<const char*>(alpn), alpn_size};
  if (const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name); name != nullptr) {
    facts.server_name = name;
  }
  facts.resumed = SSL_session_reused(ssl) == 1;
  return facts;
}

std::optional<PeerCertificate> Session::peer_certificate() const {
  X509* certificate = SSL_get0_peer_certificate(ssl_.get());
  if (certificate == nullptr) return std::nullopt;
  PeerCertificate peer;
  peer.subject = name_text(X509_get_subject_name(certificate));
  peer.issuer = name_text(X509_get_issuer_name(certificate));
  peer.serial = serial_text(certificate);
  peer.alternative_names = alternative_names(certificate);
  peer.not_before_s = unix_time(X509_get0_notBefore(certificate));
  peer.not_after_s = unix_time(X509_get0_notAfter(certificate));
  peer.der = der_of(certificate);
  size_t size = 0;
  EVP_Q_digest(context_.state().library.state().context.get(), "SHA256", nullptr, peer.der.data(),
               peer.der.size(), peer.sha256.data(), &size);
  ERR_clear_error();
  return peer;
}

KernelRefusal Session::why_not_kernel() const noexcept {
  const SSL* ssl = ssl_.get();
  const int version = SSL_version(ssl);
  if (!done_ || failed_) return KernelRefusal::kNotFinished;
  if (!context_.state().keep_kernel_keys) return KernelRefusal::kNotAsked;
  if (version != TLS1_2_VERSION && version != TLS1_3_VERSION) return KernelRefusal::kVersion;
  if (!kernel_cipher(SSL_get_current_cipher(ssl))) return KernelRefusal::kCipher;
  if (SSL_SESSION_get_max_fragment_length(SSL_get0_session(ssl)) != 0) {
    return KernelRefusal::kFragmentLength;
  }
  if (key_changed_ || key_updates_ != 0) return KernelRefusal::kKeyUpdate;
  if (closed_by_peer_ || closed_by_us_) return KernelRefusal::kCloseNotify;
  if (header_size_ != 0) return KernelRefusal::kInsideRecord;
  if (SSL_has_pending(ssl) == 1) return KernelRefusal::kUnreadPlaintext;
  if (version == TLS1_3_VERSION && (client_secret_.empty() || server_secret_.empty())) {
    return KernelRefusal::kNoSecret;
  }
  return KernelRefusal::kNone;
}

std::optional<KernelKeys> Session::kernel_keys() noexcept {
  if (why_not_kernel() != KernelRefusal::kNone) return std::nullopt;
  const SSL_CIPHER* cipher = SSL_get_current_cipher(ssl_.get());
  KernelKeys keys;
  keys.version = static_cast<uint16_t>(SSL_version(ssl_.get()));
  keys.cipher = *kernel_cipher(cipher);
  keys.hash = EVP_MD_get_type(SSL_CIPHER_get_handshake_digest(cipher)) == NID_sha384
                  ? SuiteHash::kSha384
                  : SuiteHash::kSha256;
  const bool filled = keys.version == kTls13 ? fill_tls13(keys) : fill_tls12(keys);
  ERR_clear_error();
  if (!filled) return std::nullopt;
  return keys;
}

bool Session::fill_tls13(KernelKeys& keys) noexcept {
  keys.tx.record_number = sent_.since_finished;
  keys.rx.record_number = received_.since_finished;
  return keys.tx.traffic_secret.assign((server_ ? server_secret_ : client_secret_).bytes()) &&
         keys.rx.traffic_secret.assign((server_ ? client_secret_ : server_secret_).bytes());
}

bool Session::fill_tls12(KernelKeys& keys) noexcept {
  const bool gcm = keys.cipher != KernelCipher::kChaCha20Poly1305;
  const size_t key_size = keys.cipher == KernelCipher::kAes128Gcm ? 16 : 32;
  const size_t iv_size = gcm ? 4 : 12;
  uint8_t master[SSL_MAX_MASTER_KEY_LENGTH];
  uint8_t seed[64];  // server random, client random
  uint8_t block[2 * 32 + 2 * 12];
  const size_t master_size =
      SSL_SESSION_get_master_key(SSL_get0_session(ssl_.get()), master, sizeof(master));
  SSL_get_server_random(ssl_.get(), seed, 32);
  SSL_get_client_random(ssl_.get(), seed + 32, 32);
  char digest[16] = "SHA256";
  if (keys.hash == SuiteHash::kSha384) std::memcpy(digest, "SHA384", 7);
  char label[] = "key expansion";
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SECRET, master, master_size),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, label, sizeof(label) - 1),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, seed, sizeof(seed)),
      OSSL_PARAM_construct_end()};
  const Owned<EVP_KDF_CTX, EVP_KDF_CTX_free> kdf(
      EVP_KDF_CTX_new(context_.state().library.state().tls12_prf.get()));
  bool good = kdf != nullptr && master_size != 0 &&
              EVP_KDF_derive(kdf.get(), block, 2 * (key_size + iv_size), parameters) == 1;
  if (good) {
    DirectionKeys& client = server_ ? keys.rx : keys.tx;
    DirectionKeys& server = server_ ? keys.tx : keys.rx;
    const uint8_t* at = block;
    for (Secret<32>* key : {&client.key, &server.key}) {
      good = key->assign({at, key_size}) && good;
      at += key_size;
    }
    for (Secret<12>* iv : {&client.iv, &server.iv}) {
      good = iv->assign({at, iv_size}) && good;
      at += iv_size;
    }
    keys.tx.record_number = sent_.since_cipher_change;
    keys.rx.record_number = received_.since_cipher_change;
    keys.tx.explicit_nonce = gcm ? sent_.explicit_nonce + 1 : 0;
    keys.rx.explicit_nonce = gcm ? keys.rx.record_number : 0;
  }
  wipe(master, sizeof(master));
  wipe(block, sizeof(block));
  return good;
}

std::string Session::failure_text() const {
  std::string text(to_string(failure_.cause));
  if (failure_.library_error != 0) {
    const char* reason = ERR_reason_error_string(failure_.library_error);
    if (reason != nullptr) text += std::string(": ") + reason;
  }
  if (failure_.verify_error != X509_V_OK) {
    text += std::string(", ") + X509_verify_cert_error_string(failure_.verify_error);
  }
  if (failure_.alert_received != Failure::kNoAlert) {
    text += std::string(", alert received: ") + SSL_alert_desc_string_long(failure_.alert_received);
  }
  if (failure_.alert_sent != Failure::kNoAlert) {
    text += std::string(", alert sent: ") + SSL_alert_desc_string_long(failure_.alert_sent);
  }
  return text;
}

std::string_view to_string(FailureCause cause) noexcept {
  constexpr std::array<std::string_view, static_cast<size_t>(FailureCause::kCount)> kNames = {
      "none",
      "not_tls",
      "plain_http",
      "client_hello_too_large",
      "handshake_too_large",
      "record_too_large",
      "version",
      "no_shared_cipher",
      "no_shared_group",
      "no_shared_signature",
      "no_shared_alpn",
      "unknown_server_name",
      "certificate_unusable",
      "no_client_certificate",
      "certificate_rejected",
      "peer_alert",
      "bad_record",
      "renegotiation",
      "too_many_messages",
      "truncated",
      "protocol",
      "internal"};
  return cause < FailureCause::kCount ? kNames[static_cast<size_t>(cause)] : "unknown";
}

std::string_view to_string(KernelRefusal refusal) noexcept {
  constexpr std::array<std::string_view, static_cast<size_t>(KernelRefusal::kCount)> kNames = {
      "none",          "not_asked",        "not_finished", "version",
      "cipher",        "fragment_length",  "key_update",   "close_notify",
      "inside_record", "unread_plaintext", "no_secret"};
  return refusal < KernelRefusal::kCount ? kNames[static_cast<size_t>(refusal)] : "unknown";
}

}  // namespace weir::net::tls
