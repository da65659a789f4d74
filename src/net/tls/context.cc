#include <weir/net/tls/context.h>

#include <weir/base/check.h>

#include "context_setup.h"
#include "context_state.h"
#include "session_hooks.h"

namespace weir::net::tls {
namespace {

// Sessions resume only under the same demands on the client: a ticket from a listener without
// client certificates must not open one with them, and a new revocation list ends old sessions.
bool set_session_scope(Context::State& state, const ServerPolicy& policy) {
  std::string text = policy.session_scope;
  text.push_back('\0');
  text.push_back(static_cast<char>(policy.client_auth));
  for (const std::vector<Der>* list : {&policy.client_cas, &policy.client_crls}) {
    text += std::to_string(list->size());
    for (const Der& der : *list) {
      text += ':' + std::to_string(der.size()) + ':';
      text.append(der.begin(), der.end());
    }
  }
  unsigned char digest[32];
  size_t size = 0;
  return EVP_Q_digest(state.library.state().context.get(), "SHA256", nullptr, text.data(),
                      text.size(), digest, &size) == 1 &&
         SSL_CTX_set_session_id_context(state.ssl.get(), digest, sizeof(digest)) == 1;
}

int verify_mode(ClientAuth auth) {
  switch (auth) {
    case ClientAuth::kOff: return SSL_VERIFY_NONE;
    case ClientAuth::kOptional: return SSL_VERIFY_PEER;
    case ClientAuth::kRequired: return SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  }
  return SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
}

void set_server_callbacks(Context::State& state) {
  SSL_CTX* ssl = state.ssl.get();
  SSL_CTX_set_tlsext_servername_callback(ssl, &SessionHooks::on_server_name);
  SSL_CTX_set_cert_cb(ssl, &SessionHooks::on_certificate, nullptr);
  SSL_CTX_set_tlsext_status_cb(ssl, &SessionHooks::on_status);
  SSL_CTX_set_tlsext_ticket_key_evp_cb(ssl, &SessionHooks::on_ticket);
  if (!state.alpn.empty()) SSL_CTX_set_alpn_select_cb(ssl, &SessionHooks::on_alpn, nullptr);
}

// The default certificates sit in the SSL_CTX: a connection that gets them costs nothing extra.
bool install_default(Context::State& state) {
  const Choice* fallback = state.certificates->fallback();
  if (fallback == nullptr) return true;
  for (const uint32_t index : fallback->by_type) {
    if (index == Choice::kNone) continue;
    const ParsedPair* pair = state.parsed.get(*state.certificates, index);
    if (pair == nullptr || SSL_CTX_use_cert_and_key(state.ssl.get(), pair->leaf.get(),
                                                    pair->key.get(), pair->chain.get(), 1) != 1) {
      return false;
    }
  }
  return true;
}

}  // namespace

Context::State::State(Library& core_library, const ProtocolPolicy& policy, bool is_server,
                      size_t kept_max)
    : library(core_library),
      server(is_server),
      limits(policy.limits),
      keep_kernel_keys(policy.keep_kernel_keys),
      ssl(SSL_CTX_new_ex(core_library.state().context.get(), nullptr,
                         is_server ? TLS_server_method() : TLS_client_method())),
      parsed(core_library.state().context.get(), kept_max) {
  WEIR_CHECK(ssl != nullptr);
  SSL_CTX_set_app_data(ssl.get(), this);
  for (const std::string& protocol : policy.alpn) {
    alpn.push_back(static_cast<char>(protocol.size()));
    alpn += protocol;
  }
}

Context::Context(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}

Context::~Context() { WEIR_CHECK(state_->live == 0); }

Context::Made Context::make_server(Library& library, const ServerPolicy& policy,
                                   const CertificateSet& certificates,
                                   const TicketKeyRing& tickets) {
  if (auto wrong = check_protocol(policy)) return std::unexpected(std::move(*wrong));
  if (policy.client_auth != ClientAuth::kOff && policy.client_cas.empty()) {
    return std::unexpected(std::string("client certificates are asked for, but there is no CA"));
  }
  auto state = std::make_unique<State>(library, policy, true, policy.certificates_kept_max);
  if (auto wrong = apply_protocol(*state, policy)) return std::unexpected(std::move(*wrong));
  SSL_CTX* ssl = state->ssl.get();
  state->certificates = &certificates;
  SSL_CTX_set_options(ssl, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_timeout(ssl, policy.session_lifetime_s);
  SSL_CTX_set_max_early_data(ssl, 0);
  SSL_CTX_set_verify(ssl, verify_mode(policy.client_auth), nullptr);
  SSL_CTX_set_verify_depth(ssl, static_cast<int>(policy.client_chain_depth));
  if (auto wrong = trust(*state, policy.client_cas, policy.client_crls)) {
    return std::unexpected(std::move(*wrong));
  }
  if (auto wrong = name_client_cas(*state, policy.client_cas)) {
    return std::unexpected(std::move(*wrong));
  }
  set_server_callbacks(*state);
  if (!set_session_scope(*state, policy) || !install_default(*state)) {
    return std::unexpected("OpenSSL refuses the settings: " + take_error());
  }
  std::unique_ptr<Context> context(new Context(std::move(state)));
  context->use_tickets(policy.session_lifetime_s == 0 ? TicketKeyRing() : tickets);
  return context;
}

Context::Made Context::make_client(Library& library, const ClientPolicy& policy) {
  if (auto wrong = check_protocol(policy)) return std::unexpected(std::move(*wrong));
  if (policy.verify && policy.cas.empty()) {
    return std::unexpected(std::string("certificates are verified, but there is no CA"));
  }
  auto state = std::make_unique<State>(library, policy, false, 0);
  if (auto wrong = apply_protocol(*state, policy)) return std::unexpected(std::move(*wrong));
  SSL_CTX* ssl = state->ssl.get();
  state->verify = policy.verify;
  SSL_CTX_set_verify(ssl, policy.verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
  SSL_CTX_set_verify_depth(ssl, static_cast<int>(policy.chain_depth));
  if (auto wrong = trust(*state, policy.cas, {})) return std::unexpected(std::move(*wrong));
  if (policy.certificate) {
    const ParsedPair pair = parse_pair(library.state().context.get(), *policy.certificate);
    if (pair.leaf == nullptr ||
        SSL_CTX_use_cert_and_key(ssl, pair.leaf.get(), pair.key.get(), pair.chain.get(), 1) != 1) {
      return std::unexpected("the client certificate cannot be used: " + take_error());
    }
  }
  if (!state->alpn.empty()) {
    SSL_CTX_set_alpn_protos(ssl, reinterpret_cast<const unsigned char*>(state->alpn.data()),
                            static_cast<unsigned>(state->alpn.size()));
  }
  if (policy.reuse_sessions) {
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ssl, &SessionHooks::on_new_session);
  } else {
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(ssl, SSL_OP_NO_TICKET);
  }
  return std::unique_ptr<Context>(new Context(std::move(state)));
}

void Context::use_tickets(const TicketKeyRing& tickets) noexcept {
  SSL_CTX* ssl = state_->ssl.get();
  if (tickets.size() == 0) {
    // Handshakes that are under way keep the old keys: they may have promised a ticket.
    SSL_CTX_set_options(ssl, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(ssl, 0);
    return;
  }
  state_->tickets = tickets;
  SSL_CTX_clear_options(ssl, SSL_OP_NO_TICKET);
  SSL_CTX_set_num_tickets(ssl, 1);
}

void Context::set_time(int64_t now_s) noexcept { state_->now_s = now_s; }

size_t Context::certificates_kept() const noexcept { return state_->parsed.size(); }

ResumptionSlot::ResumptionSlot(Context& context) noexcept
    : state_(std::make_unique<State>(context)) {
  ++context.state().live;
}

ResumptionSlot::~ResumptionSlot() { --state_->context.state().live; }

size_t ResumptionSlot::size() const noexcept { return state_->size; }

void ResumptionSlot::clear() noexcept { state_->clear(); }

void ResumptionSlot::State::clear() noexcept {
  for (OwnedSession& session : sessions) session.reset();
  size = 0;
}

void ResumptionSlot::State::put(OwnedSession session) noexcept {
  // One of TLS 1.2 serves any number of connections: the newest is enough.
  if (size != 0 && SSL_SESSION_get_protocol_version(session.get()) == TLS1_2_VERSION) clear();
  if (size == kSessionsMax) {
    std::move(sessions.begin() + 1, sessions.end(), sessions.begin());
    --size;
  }
  sessions[size++] = std::move(session);
}

OwnedSession ResumptionSlot::State::take() noexcept {
  if (size == 0) return nullptr;
  OwnedSession& newest = sessions[size - 1];
  // Using a ticket of TLS 1.3 once only hides from onlookers that two connections are of the same
  // client (RFC 8446 C.4): a proxy and its origin have nothing to hide there, and kernel TLS brings
  // no new ones. OpenSSL spoils what it was given, so that is a copy.
  if (SSL_SESSION_get_protocol_version(newest.get()) == TLS1_3_VERSION) {
    return OwnedSession(SSL_SESSION_dup(newest.get()));
  }
  SSL_SESSION_up_ref(newest.get());
  return OwnedSession(newest.get());
}

}  // namespace weir::net::tls
