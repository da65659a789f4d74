// The functions that OpenSSL calls back, all of them for one Session: its BIO, names, certificates,
// tickets, messages and secrets. On the Session's thread, inside one of its calls. Private to
// net/tls.
#pragma once

#include <weir/net/tls/session.h>

#include "openssl.h"

namespace weir::net::tls {

struct SessionHooks {
  static OwnedBioMethod make_bio_method() noexcept;

  static int on_read(BIO* bio, char* out, size_t size, size_t* taken) noexcept;
  static int on_write(BIO* bio, const char* bytes, size_t size, size_t* written) noexcept;
  static long on_control(BIO* bio, int command, long number, void* pointer) noexcept;

  static int on_server_name(SSL* ssl, int* alert, void* context) noexcept;
  static int on_certificate(SSL* ssl, void* context) noexcept;
  static int on_status(SSL* ssl, void* context) noexcept;
  static int on_alpn(SSL* ssl, const unsigned char** out, unsigned char* out_size,
                     const unsigned char* offered, unsigned offered_size, void* context) noexcept;
  static int on_ticket(SSL* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher,
                       EVP_MAC_CTX* mac, int sealing) noexcept;
  static int on_new_session(SSL* ssl, SSL_SESSION* session) noexcept;
  static void on_message(int writing, int version, int content_type, const void* bytes, size_t size,
                         SSL* ssl, void* context) noexcept;
  static void on_secret(const SSL* ssl, const char* line) noexcept;

 private:
  static Session& session_of(const SSL* ssl) noexcept;
};

}  // namespace weir::net::tls
