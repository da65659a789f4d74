// Owners for OpenSSL's objects and its error text. Private to net/tls.
#pragma once

#include <memory>
#include <string>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

namespace weir::net::tls {

template <auto kFree>
struct FreeBy {
  template <class T>
  void operator()(T* object) const noexcept {
    kFree(object);
  }
};
template <class T, auto kFree>
using Owned = std::unique_ptr<T, FreeBy<kFree>>;

inline void free_chain(STACK_OF(X509) * chain) noexcept { sk_X509_pop_free(chain, X509_free); }
inline void free_names(STACK_OF(X509_NAME) * names) noexcept {
  sk_X509_NAME_pop_free(names, X509_NAME_free);
}
inline void free_bytes(unsigned char* bytes) noexcept { OPENSSL_free(bytes); }

using OwnedLibrary = Owned<OSSL_LIB_CTX, OSSL_LIB_CTX_free>;
using OwnedSslContext = Owned<SSL_CTX, SSL_CTX_free>;
using OwnedSession = Owned<SSL_SESSION, SSL_SESSION_free>;
using OwnedCertificate = Owned<X509, X509_free>;
using OwnedCrl = Owned<X509_CRL, X509_CRL_free>;
using OwnedChain = Owned<STACK_OF(X509), free_chain>;
using OwnedNames = Owned<STACK_OF(X509_NAME), free_names>;
using OwnedGeneralNames = Owned<GENERAL_NAMES, GENERAL_NAMES_free>;
using OwnedKey = Owned<EVP_PKEY, EVP_PKEY_free>;
using OwnedBio = Owned<BIO, BIO_free_all>;
using OwnedBioMethod = Owned<BIO_METHOD, BIO_meth_free>;
using OwnedStore = Owned<X509_STORE, X509_STORE_free>;
using OwnedOcsp = Owned<OCSP_RESPONSE, OCSP_RESPONSE_free>;
using OwnedOcspBasic = Owned<OCSP_BASICRESP, OCSP_BASICRESP_free>;
using OwnedBytes = Owned<unsigned char, free_bytes>;

// The reason of the newest error of this thread; empties the queue.
inline std::string take_error() {
  const unsigned long code = ERR_peek_last_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  ERR_clear_error();
  return reason == nullptr ? "unknown error" : reason;
}

}  // namespace weir::net::tls
