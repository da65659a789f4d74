#include "tls_stream.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace weir::bench {

namespace {

constexpr unsigned char kAlpn[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};

void check(bool good, const char* what) noexcept {
  if (good) return;
  std::fprintf(stderr, "loadgen: %s\n", what);
  ERR_print_errors_fp(stderr);
  std::exit(1);
}

}  // namespace

struct TlsCallbacks {
  static int read(BIO* bio, char* data, int size) noexcept {
    auto& stream = *static_cast<TlsStream*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    const size_t count = std::min(stream.input_.size(), static_cast<size_t>(size));
    if (count == 0) {
      BIO_set_retry_read(bio);
      return -1;
    }
    std::memcpy(data, stream.input_.data(), count);
    stream.input_.remove_prefix(count);
    return static_cast<int>(count);
  }
  static int write(BIO* bio, const char* data, int size) noexcept {
    auto& stream = *static_cast<TlsStream*>(BIO_get_data(bio));
    stream.output_.append(data, static_cast<size_t>(size));
    return size;
  }
  static long control(BIO*, int command, long, void*) noexcept {
    return command == BIO_CTRL_FLUSH ? 1 : 0;
  }
  static int new_session(SSL* ssl, SSL_SESSION* session) noexcept {
    static_cast<TlsStream*>(SSL_get_app_data(ssl))->ticket_.reset(session);
    return 1;  // its reference is ours now
  }
};

void TlsFree::operator()(bio_method_st* method) const noexcept { BIO_meth_free(method); }
void TlsFree::operator()(ssl_ctx_st* context) const noexcept { SSL_CTX_free(context); }
void TlsFree::operator()(ssl_session_st* session) const noexcept { SSL_SESSION_free(session); }
void TlsFree::operator()(ssl_st* ssl) const noexcept { SSL_free(ssl); }

TlsSettings::TlsSettings()
    : bio_(BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "loadgen")),
      context_(SSL_CTX_new(TLS_client_method())) {
  check(bio_ != nullptr && context_ != nullptr, "OpenSSL cannot be used");
  BIO_meth_set_read(bio_.get(), TlsCallbacks::read);
  BIO_meth_set_write(bio_.get(), TlsCallbacks::write);
  BIO_meth_set_ctrl(bio_.get(), TlsCallbacks::control);
  SSL_CTX* context = context_.get();
  // One offer of each kind: every contender does the same work, or none at all.
  check(SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1, "TLS 1.3");
  check(SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") == 1, "AES-128-GCM");
  check(SSL_CTX_set1_groups_list(context, "X25519") == 1, "X25519");
  check(SSL_CTX_set_alpn_protos(context, kAlpn, sizeof kAlpn) == 0, "ALPN");
  SSL_CTX_set_verify(context, SSL_VERIFY_NONE, nullptr);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(context, TlsCallbacks::new_session);
}

TlsStream::TlsStream(const TlsSettings& settings, const TlsTicket& ticket)
    : ssl_(SSL_new(settings.context_.get())) {
  check(ssl_ != nullptr, "no memory for a connection");
  BIO* bio = BIO_new(settings.bio_.get());
  check(bio != nullptr, "no memory for a connection");
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_.get(), bio, bio);
  SSL_set_app_data(ssl_.get(), this);
  SSL_set_connect_state(ssl_.get());
  check(SSL_set_tlsext_host_name(ssl_.get(), "bench.example") == 1, "the server's name");
  if (ticket != nullptr) check(SSL_set_session(ssl_.get(), ticket.get()) == 1, "a ticket");
}

// OpenSSL would spoil the ticket of a connection that did not end as it should.
TlsStream::~TlsStream() { SSL_set_shutdown(ssl_.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); }

TlsStream::Step TlsStream::handshake() noexcept {
  const int done = SSL_do_handshake(ssl_.get());
  if (done == 1) return Step::kDone;
  if (SSL_get_error(ssl_.get(), done) == SSL_ERROR_WANT_READ) return Step::kWantMore;
  ERR_clear_error();
  return Step::kFailed;
}

TlsStream::Step TlsStream::read(std::span<char> plaintext, size_t& size) noexcept {
  const int done = SSL_read_ex(ssl_.get(), plaintext.data(), plaintext.size(), &size);
  if (done == 1) return Step::kDone;
  const int error = SSL_get_error(ssl_.get(), done);
  if (error == SSL_ERROR_WANT_READ) return Step::kWantMore;
  if (error == SSL_ERROR_ZERO_RETURN) return Step::kClosed;
  ERR_clear_error();
  return Step::kFailed;
}

bool TlsStream::write(std::string_view plaintext) noexcept {
  size_t size = 0;
  if (SSL_write_ex(ssl_.get(), plaintext.data(), plaintext.size(), &size) == 1) return true;
  ERR_clear_error();
  return false;
}

bool TlsStream::resumed() const noexcept { return SSL_session_reused(ssl_.get()) == 1; }

bool TlsStream::inside_record() const noexcept {
  return !input_.empty() || SSL_has_pending(ssl_.get()) == 1;
}

}  // namespace weir::bench
