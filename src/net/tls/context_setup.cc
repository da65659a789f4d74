#include "context_setup.h"

#include <string_view>
#include <vector>

#include <weir/base/text.h>

#include "session_hooks.h"

namespace weir::net::tls {
namespace {

// 112 bits: no RSA below 2048, no SHA-1 signatures, whatever the distribution's default is.
constexpr int kSecurityLevel = 2;

std::vector<std::string> split(std::string_view list) {
  std::vector<std::string> parts;
  while (!list.empty()) {
    const size_t colon = list.find(':');
    parts.emplace_back(list.substr(0, colon));
    list = colon == std::string_view::npos ? std::string_view() : list.substr(colon + 1);
  }
  return parts;
}

// Names only: OpenSSL's list language ("ALL:!aNULL:@SECLEVEL=0") could let in what nobody meant.
bool is_suite_name(std::string_view name) {
  for (const char c : name) {
    const bool good = (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    if (!good) return false;
  }
  return !name.empty();
}

// True when `name` is one suite of TLS 1.2, not a group of them.
bool is_tls12_suite(SSL_CTX* ssl, const std::string& name) {
  if (!is_suite_name(name) || SSL_CTX_set_cipher_list(ssl, name.c_str()) != 1) return false;
  size_t found = 0;
  bool same = false;
  const STACK_OF(SSL_CIPHER)* ciphers = SSL_CTX_get_ciphers(ssl);
  for (int i = 0; i < sk_SSL_CIPHER_num(ciphers); ++i) {
    const SSL_CIPHER* cipher = sk_SSL_CIPHER_value(ciphers, i);
    if (std::string_view(SSL_CIPHER_get_version(cipher)) == "TLSv1.3") continue;
    ++found;
    same = name == SSL_CIPHER_get_name(cipher);
  }
  return found == 1 && same;
}

Wrong set_ciphers(SSL_CTX* ssl, const ProtocolPolicy& policy) {
  std::string list;
  for (const std::string& part : split(policy.ciphers)) {
    // The RFC's name is as good as OpenSSL's.
    const std::string_view translated = OPENSSL_cipher_name(part.c_str());
    const std::string name = translated == "(NONE)" ? part : std::string(translated);
    if (!is_tls12_suite(ssl, name)) {
      ERR_clear_error();
      return "'" + part + "' is not a cipher suite of TLS 1.2";
    }
    if (!list.empty()) list.push_back(':');
    list += name;
  }
  if (policy.min_version <= kTls12 && list.empty()) {
    return std::string("TLS 1.2 is allowed, but no cipher suite for it");
  }
  if (!list.empty() && SSL_CTX_set_cipher_list(ssl, list.c_str()) != 1) {
    return "the cipher suites cannot be set: " + take_error();
  }
  return std::nullopt;
}

Wrong set_ciphersuites(SSL_CTX* ssl, const ProtocolPolicy& policy) {
  for (const std::string& part : split(policy.ciphersuites)) {
    if (!is_suite_name(part) || SSL_CTX_set_ciphersuites(ssl, part.c_str()) != 1) {
      ERR_clear_error();
      return "'" + part + "' is not a cipher suite of TLS 1.3";
    }
  }
  if (policy.max_version >= kTls13 && policy.ciphersuites.empty()) {
    return std::string("TLS 1.3 is allowed, but no cipher suite for it");
  }
  if (SSL_CTX_set_ciphersuites(ssl, policy.ciphersuites.c_str()) != 1) {
    return "the cipher suites of TLS 1.3 cannot be set: " + take_error();
  }
  return std::nullopt;
}

// OpenSSL still knows curves that no client should be offered.
bool is_known_group(std::string_view name) {
  for (const std::string_view known :
       {"X25519", "X448", "P-256", "P-384", "P-521", "secp256r1", "secp384r1", "secp521r1",
        "prime256v1", "ffdhe2048", "ffdhe3072", "ffdhe4096"}) {
    if (base::equals_ignore_case(name, known)) return true;
  }
  return false;
}

Wrong set_groups(SSL_CTX* ssl, const ProtocolPolicy& policy) {
  for (const std::string& part : split(policy.groups)) {
    if (!is_known_group(part) || SSL_CTX_set1_groups_list(ssl, part.c_str()) != 1) {
      ERR_clear_error();
      return "'" + part + "' is not a group for key exchange";
    }
  }
  if (SSL_CTX_set1_groups_list(ssl, policy.groups.c_str()) != 1) {
    return "the groups for key exchange cannot be set: " + take_error();
  }
  return std::nullopt;
}

OwnedCertificate parse_anchor(Context::State& state, const Der& der) {
  X509* certificate = X509_new_ex(state.library.state().context.get(), nullptr);
  const unsigned char* at = der.data();
  return OwnedCertificate(d2i_X509(&certificate, &at, static_cast<long>(der.size())));
}

}  // namespace

Wrong check_protocol(const ProtocolPolicy& policy) {
  for (const uint16_t version : {policy.min_version, policy.max_version}) {
    if (version != kTls12 && version != kTls13) {
      return std::string("only TLS 1.2 and TLS 1.3 are spoken");
    }
  }
  if (policy.min_version > policy.max_version) {
    return std::string("the lowest version of TLS is above the highest");
  }
  for (const std::string& protocol : policy.alpn) {
    if (protocol.empty() || protocol.size() > 255) {
      return std::string("an ALPN protocol has 1 to 255 bytes");
    }
  }
  return std::nullopt;
}

Wrong apply_protocol(Context::State& state, const ProtocolPolicy& policy) {
  SSL_CTX* ssl = state.ssl.get();
  SSL_CTX_set_security_level(ssl, kSecurityLevel);
  if (SSL_CTX_set_min_proto_version(ssl, policy.min_version) != 1 ||
      SSL_CTX_set_max_proto_version(ssl, policy.max_version) != 1) {
    return "the versions cannot be set: " + take_error();
  }
  if (auto wrong = set_ciphers(ssl, policy)) return wrong;
  if (auto wrong = set_ciphersuites(ssl, policy)) return wrong;
  if (auto wrong = set_groups(ssl, policy)) return wrong;
  SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
#ifdef SSL_OP_NO_RX_CERTIFICATE_COMPRESSION
  // OpenSSL 3.2 and newer: else a peer's few bytes could become many behind our back, before the
  // peer is known, and handshake_bytes_max would count the few.
  SSL_CTX_set_options(ssl, SSL_OP_NO_RX_CERTIFICATE_COMPRESSION);
#endif
  // No read-ahead: OpenSSL must take exactly the record that it is given. No automatic chain: what
  // is sent is what was loaded and checked.
  SSL_CTX_set_read_ahead(ssl, 0);
  SSL_CTX_set_mode(
      ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_max_cert_list(ssl, static_cast<long>(policy.limits.handshake_bytes_max));
  SSL_CTX_set_msg_callback(ssl, &SessionHooks::on_message);
  if (policy.keep_kernel_keys) SSL_CTX_set_keylog_callback(ssl, &SessionHooks::on_secret);
  return std::nullopt;
}

Wrong trust(Context::State& state, std::span<const Der> anchors, std::span<const Der> crls) {
  X509_STORE* store = SSL_CTX_get_cert_store(state.ssl.get());
  for (const Der& der : anchors) {
    const OwnedCertificate certificate = parse_anchor(state, der);
    if (certificate == nullptr || X509_STORE_add_cert(store, certificate.get()) != 1) {
      return "a CA certificate cannot be used: " + take_error();
    }
  }
  for (const Der& der : crls) {
    const unsigned char* at = der.data();
    const OwnedCrl crl(d2i_X509_CRL(nullptr, &at, static_cast<long>(der.size())));
    if (crl == nullptr || X509_STORE_add_crl(store, crl.get()) != 1) {
      return "a revocation list cannot be used: " + take_error();
    }
  }
  if (!crls.empty()) {
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
  }
  // An anchor need not be a root: an operator may trust one intermediate and nothing above it.
  X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
  return std::nullopt;
}

Wrong name_client_cas(Context::State& state, std::span<const Der> anchors) {
  OwnedNames names(sk_X509_NAME_new_null());
  for (const Der& der : anchors) {
    const OwnedCertificate certificate = parse_anchor(state, der);
    if (certificate == nullptr) return "a CA certificate cannot be parsed: " + take_error();
    sk_X509_NAME_push(names.get(), X509_NAME_dup(X509_get_subject_name(certificate.get())));
  }
  SSL_CTX_set_client_CA_list(state.ssl.get(), names.release());
  return std::nullopt;
}

}  // namespace weir::net::tls
