#include <weir/base/check.h>
#include <weir/net/tls/kernel_keys.h>
#include <weir/net/tls/library.h>

#include "library_state.h"
#include "session_hooks.h"

namespace weir::net::tls {

Library::State::State() {
  // No openssl.cnf: what TLS does here is said in weir's configuration and nowhere else.
  WEIR_CHECK(OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr) == 1);
  context.reset(OSSL_LIB_CTX_new());
  WEIR_CHECK(context != nullptr);
  session_bio = SessionHooks::make_bio_method();
  ticket_aes128.reset(EVP_CIPHER_fetch(context.get(), "AES-128-CBC", nullptr));
  ticket_aes256.reset(EVP_CIPHER_fetch(context.get(), "AES-256-CBC", nullptr));
  tls12_prf.reset(EVP_KDF_fetch(context.get(), "TLS1-PRF", nullptr));
  WEIR_CHECK(ticket_aes128 != nullptr);
  WEIR_CHECK(ticket_aes256 != nullptr);
  WEIR_CHECK(tls12_prf != nullptr);
}

Library::Library() : state_(std::make_unique<State>()) {}
Library::~Library() = default;

std::string_view to_string(KernelCipher cipher) noexcept {
  switch (cipher) {
    case KernelCipher::kAes128Gcm: return "AES-128-GCM";
    case KernelCipher::kAes256Gcm: return "AES-256-GCM";
    case KernelCipher::kChaCha20Poly1305: return "CHACHA20-POLY1305";
  }
  return "unknown";
}

}  // namespace weir::net::tls
