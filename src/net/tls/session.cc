#include <weir/net/tls/session.h>

#include <algorithm>

#include <weir/base/check.h>
#include <weir/base/ip.h>

#include "context_state.h"
#include "session_hooks.h"

namespace weir::net::tls {
namespace {

constexpr size_t kHeaderBytes = 5;
constexpr size_t kHostNameMax = 255;

bool looks_like_http(std::string_view bytes) noexcept {
  for (const std::string_view start :
       {"GET /", "HEAD ", "POST ", "PUT /", "DELET", "OPTIO", "PATCH", "CONNE", "TRACE", "PRI *"}) {
    if (bytes.starts_with(start)) return true;
  }
  return false;
}

FailureCause cause_of(int reason) noexcept {
  switch (reason) {
    case SSL_R_HTTP_REQUEST: return FailureCause::kPlainHttp;
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_WRONG_SSL_VERSION:
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_UNKNOWN_PROTOCOL:
    case SSL_R_INAPPROPRIATE_FALLBACK: return FailureCause::kVersion;
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_NO_CIPHERS_SPECIFIED: return FailureCause::kNoSharedCipher;
    case SSL_R_NO_SUITABLE_KEY_SHARE:
    case SSL_R_NO_SUITABLE_GROUPS:
    case SSL_R_WRONG_CURVE: return FailureCause::kNoSharedGroup;
    case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
    case SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
    case SSL_R_MISSING_SIGALGS_EXTENSION: return FailureCause::kNoSharedSignature;
    case SSL_R_NO_APPLICATION_PROTOCOL: return FailureCause::kNoSharedAlpn;
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: return FailureCause::kNoClientCertificate;
    case SSL_R_CERTIFICATE_VERIFY_FAILED: return FailureCause::kCertificateRejected;
    case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
    case SSL_R_BAD_RECORD_TYPE:
    case SSL_R_LENGTH_TOO_SHORT: return FailureCause::kBadRecord;
    case SSL_R_PACKET_LENGTH_TOO_LONG:
    case SSL_R_ENCRYPTED_LENGTH_TOO_LONG:
    case SSL_R_DATA_LENGTH_TOO_LONG: return FailureCause::kRecordTooLarge;
    case SSL_R_EXCESSIVE_MESSAGE_SIZE: return FailureCause::kHandshakeTooLarge;
    default: break;
  }
  // OpenSSL reports the peer's alert N as reason 1000 + N.
  return reason >= SSL_AD_REASON_OFFSET ? FailureCause::kPeerAlert : FailureCause::kProtocol;
}

// The first error of TLS itself is the cause: those before it are details from below, those behind
// it say who was told. 0: there is none at all. Empties the queue.
unsigned long first_error() noexcept {
  const unsigned long first = ERR_peek_error();
  for (unsigned long code = ERR_get_error(); code != 0; code = ERR_get_error()) {
    if (ERR_GET_LIB(code) != ERR_LIB_SSL) continue;
    ERR_clear_error();
    return code;
  }
  return first;
}

// A plain alert, for a refusal before there are keys.
std::string plain_alert(uint8_t description) {
  return {'\x15', '\x03', '\x03', '\x00', '\x02', '\x02', static_cast<char>(description)};
}

}  // namespace

void Session::SslFree::operator()(ssl_st* ssl) const noexcept { SSL_free(ssl); }

void Session::RecordCount::add(uint8_t type, uint64_t nonce, bool finished) noexcept {
  if (type == SSL3_RT_CHANGE_CIPHER_SPEC) {
    cipher_changed = true;
    since_cipher_change = 0;
    return;
  }
  if (cipher_changed) {
    ++since_cipher_change;
    explicit_nonce = nonce;
  }
  if (finished) ++since_finished;
}

Session::Session(Context& context, bool server) noexcept
    : context_(context), ssl_(SSL_new(context.state().ssl.get())), server_(server) {
  WEIR_CHECK(context.state().server == server);
  WEIR_CHECK(ssl_ != nullptr);
  BIO* bio = BIO_new(context.state().library.state().session_bio.get());
  WEIR_CHECK(bio != nullptr);
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_.get(), bio, bio);
  SSL_set_app_data(ssl_.get(), this);
  if (server) {
    SSL_set_accept_state(ssl_.get());
  } else {
    SSL_set_connect_state(ssl_.get());
  }
  ++context.state().live;
}

Session::~Session() {
  // OpenSSL forgets a session that did not end in good order. Whether it did is for us to judge:
  // with the keys in the kernel the SSL never sees the end.
  if (done_ && !failed_) SSL_set_shutdown(ssl_.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
  ssl_.reset();
  --context_.state().live;
}

std::unique_ptr<Session> Session::make_server(Context& context) noexcept {
  return std::unique_ptr<Session>(new Session(context, true));
}

std::expected<std::unique_ptr<Session>, std::string> Session::make_client(
    Context& context, const ClientTarget& target) noexcept {
  const std::string name(target.host_name);
  if (name.size() > kHostNameMax || name.find('\0') != std::string::npos) {
    return std::unexpected(std::string("the name of the server is not a host name"));
  }
  if (name.empty() && context.state().verify) {
    return std::unexpected(std::string("without the name of the server it cannot be verified"));
  }
  std::unique_ptr<Session> session(new Session(context, false));
  SSL* ssl = session->ssl_.get();
  const bool address = base::IpAddress::parse(name).has_value();
  bool good = true;
  if (!name.empty() && !address) good = SSL_set_tlsext_host_name(ssl, name.c_str()) == 1;
  if (context.state().verify) {
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    good = good && (address ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name.c_str())
                            : SSL_set1_host(ssl, name.c_str())) == 1;
  }
  if (!good) return std::unexpected("the name of the server cannot be used: " + take_error());
  session->slot_ = target.sessions;
  if (target.sessions != nullptr) {
    WEIR_CHECK(&target.sessions->state().context == &context);
    const OwnedSession saved = target.sessions->state().take();
    if (saved != nullptr && SSL_set_session(ssl, saved.get()) != 1) ERR_clear_error();
  }
  return session;
}

HandshakeStep Session::handshake(std::string_view received, std::string& to_send) noexcept {
  WEIR_CHECK(!done_);
  WEIR_CHECK(!failed_);
  ERR_clear_error();
  out_text_ = &to_send;
  std::string_view rest = received;
  if (!server_ && !started_) {
    started_ = true;
    step_handshake(to_send);
  }
  while (!rest.empty() && !done_ && !failed_) {
    if (header_size_ < kHeaderBytes) {
      take_header(rest);
      if (header_size_ < kHeaderBytes) break;
      check_first_header();
      check_handshake_size(to_send);
      if (failed_) break;
    }
    take_body(rest);
    step_handshake(to_send);
  }
  out_text_ = nullptr;
  return {.state = failed_ ? HandshakeState::kFailed
                   : done_ ? HandshakeState::kDone
                           : HandshakeState::kWantMore,
          .consumed = received.size() - rest.size()};
}

// OpenSSL is given bytes up to the end of one record, never more. Its header goes first, when all
// of it is here, so that OpenSSL judges the length before a byte of the body is kept.
void Session::take_header(std::string_view& input) noexcept {
  const size_t bytes = std::min(input.size(), kHeaderBytes - header_size_);
  const std::string_view part = input.substr(0, bytes);
  std::copy(part.begin(), part.end(), header_.begin() + header_size_);
  header_size_ = static_cast<uint8_t>(header_size_ + bytes);
  input.remove_prefix(bytes);
  if (header_size_ < kHeaderBytes) return;
  header_window_ = {header_.data(), kHeaderBytes};
  body_left_ = static_cast<uint32_t>(static_cast<uint8_t>(header_[3]) << 8 |
                                     static_cast<uint8_t>(header_[4]));
}

void Session::take_body(std::string_view& input) noexcept {
  const size_t bytes = std::min<size_t>(input.size(), body_left_);
  body_window_ = input.substr(0, bytes);
  input.remove_prefix(bytes);
  body_left_ -= static_cast<uint32_t>(bytes);
  if (body_left_ != 0) return;
  received_.add(static_cast<uint8_t>(header_[0]), 0, done_);
  header_size_ = 0;
}

void Session::check_first_header() noexcept {
  if (first_header_seen_) return;
  first_header_seen_ = true;
  const auto type = static_cast<uint8_t>(header_[0]);
  if ((type == SSL3_RT_HANDSHAKE || type == SSL3_RT_ALERT) && header_[1] == SSL3_VERSION_MAJOR) {
    return;
  }
  fail(server_ && looks_like_http({header_.data(), kHeaderBytes}) ? FailureCause::kPlainHttp
                                                                  : FailureCause::kNotTls);
}

void Session::check_handshake_size(std::string& to_send) noexcept {
  if (failed_) return;
  const Limits& limits = context_.state().limits;
  handshake_bytes_ += static_cast<uint32_t>(kHeaderBytes) + body_left_;
  if (server_ && !answered_ && handshake_bytes_ > limits.client_hello_bytes_max) {
    to_send += plain_alert(SSL_AD_ILLEGAL_PARAMETER);
    failure_.alert_sent = SSL_AD_ILLEGAL_PARAMETER;
    fail(FailureCause::kClientHelloTooLarge);
  } else if (handshake_bytes_ > limits.handshake_bytes_max) {
    fail(FailureCause::kHandshakeTooLarge);
  }
}

void Session::step_handshake(std::string& to_send) noexcept {
  const size_t before = to_send.size();
  const int returned = SSL_do_handshake(ssl_.get());
  // TLS 1.3: what a server sends as it finishes (tickets) is under the traffic keys; what a client
  // sends then (its Finished) is not.
  count_output(std::string_view(to_send).substr(before), server_ && returned == 1);
  answered_ = answered_ || to_send.size() > before;
  if (returned == 1) {
    done_ = true;
    keep_renewed_session();
    // The finishing record was eaten whole, or kernel_keys() could not be exact.
    if (!header_window_.empty() || !body_window_.empty() || header_size_ != 0) {
      fail(FailureCause::kInternal);
    }
  } else if (SSL_get_error(ssl_.get(), returned) != SSL_ERROR_WANT_READ) {
    note_failure(returned);
  }
}

// TLS 1.2: OpenSSL tells of new sessions, but not of a new ticket for a resumed one.
void Session::keep_renewed_session() noexcept {
  if (server_ || slot_ == nullptr || SSL_version(ssl_.get()) != TLS1_2_VERSION) return;
  SSL_SESSION* session = SSL_get0_session(ssl_.get());
  if (SSL_session_reused(ssl_.get()) != 1 || SSL_SESSION_is_resumable(session) != 1) return;
  SSL_SESSION_up_ref(session);
  slot_->state().put(OwnedSession(session));
}

void Session::count_output(std::string_view records, bool finished) noexcept {
  while (records.size() >= kHeaderBytes) {
    const auto* at = reinterpret_cast<const uint8_t*>(records.data());
    const size_t body = static_cast<size_t>(at[3]) << 8 | at[4];
    uint64_t nonce = 0;
    if (body >= 8 && records.size() >= kHeaderBytes + 8) {
      for (size_t i = 0; i < 8; ++i) nonce = nonce << 8 | at[kHeaderBytes + i];
    }
    sent_.add(at[0], nonce, finished);
    records.remove_prefix(std::min(records.size(), kHeaderBytes + body));
  }
}

void Session::fail(FailureCause cause) noexcept {
  failed_ = true;
  failure_.cause = cause;
  client_secret_.clear();
  server_secret_.clear();
  ERR_clear_error();
}

void Session::note_failure(int returned) noexcept {
  const int kind = SSL_get_error(ssl_.get(), returned);
  const unsigned long code = first_error();
  failure_.library_error = code;
  failure_.verify_error = static_cast<int32_t>(SSL_get_verify_result(ssl_.get()));
  FailureCause cause = FailureCause::kInternal;
  if (unknown_name_) {
    cause = FailureCause::kUnknownServerName;
  } else if (certificate_unusable_) {
    cause = FailureCause::kCertificateUnusable;
  } else if (failure_.alert_sent == SSL_AD_BAD_RECORD_MAC) {
    cause = FailureCause::kBadRecord;
  } else if (kind == SSL_ERROR_SSL && ERR_GET_LIB(code) == ERR_LIB_SSL) {
    cause = cause_of(ERR_GET_REASON(code));
  } else if (kind == SSL_ERROR_SSL && code != 0) {
    cause = FailureCause::kProtocol;  // a parser below TLS refused what the peer sent
  }
  fail(cause);
}

}  // namespace weir::net::tls
