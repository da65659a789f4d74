// TlsState, towards clients: from [tls] to a ServerContext for each core.
#include <algorithm>
#include <string_view>
#include <utility>

#include <weir/control/tls_state.h>

#include "tls_plan.h"

namespace weir::control {

namespace {

namespace tls = net::tls;

// More sentences than this help nobody.
constexpr size_t kSentencesMax = 100;

std::vector<std::string> server_files(const config::TlsSettings& settings) {
  std::vector<std::string> names;
  for (const config::CertificateFiles& one : settings.certificates) {
    for (const std::string* name :
         {&one.cert_path, &one.key_path, &one.key_passphrase_file, &one.ocsp_response_path}) {
      if (!name->empty()) names.push_back(*name);
    }
  }
  if (settings.client_auth != config::ClientAuth::kOff) {
    names.push_back(settings.client_ca_path);
    if (!settings.client_crl_path.empty()) names.push_back(settings.client_crl_path);
  }
  return names;
}

void add_certificate(std::string& text, const config::CertificateFiles& one) {
  add_setting(text, one.hostnames.size());
  for (const std::string& host : one.hostnames) add_setting(text, host);
  add_setting(text, one.is_default ? 1 : 0);
  for (const std::string* name :
       {&one.cert_path, &one.key_path, &one.key_passphrase_file, &one.ocsp_response_path}) {
    add_setting(text, *name);
  }
}

uint64_t session_lifetime_s(const config::TlsSettings& settings) {
  return settings.session_tickets ? static_cast<uint64_t>(settings.session_lifetime.count()) / 1000
                                  : 0;
}

bool describes_clients(const config::Config& config) {
  return config.tls.client_auth != config::ClientAuth::kOff &&
         (config.tls.client_cert_headers || config.logging.access_log != "off");
}

// All that make_server() takes from the configuration.
std::string server_settings(const config::Config& config, tls::RecordPath why_userspace,
                            bool kernel) {
  const config::TlsSettings& settings = config.tls;
  std::string text;
  add_setting(text, settings.certificates.size());
  for (const config::CertificateFiles& one : settings.certificates) add_certificate(text, one);
  add_setting(text, config::wire_version(settings.min_version));
  add_setting(text, config::wire_version(settings.max_version));
  add_setting(text, settings.ciphers);
  add_setting(text, settings.ciphersuites);
  add_setting(text, settings.groups);
  add_setting(text, settings.alpn.size());
  for (const std::string& protocol : settings.alpn) add_setting(text, protocol);
  add_setting(text, static_cast<uint64_t>(settings.handshake_timeout.count()));
  add_setting(text, session_lifetime_s(settings));
  add_setting(text, kernel ? 1 : 0);
  add_setting(text, static_cast<uint64_t>(why_userspace));
  add_setting(text, settings.ktls_fallback_enabled ? 1 : 0);
  add_setting(text, static_cast<uint64_t>(settings.client_auth));
  if (settings.client_auth != config::ClientAuth::kOff) {
    add_setting(text, settings.client_ca_path);
    add_setting(text, settings.client_crl_path);
    add_setting(text, settings.client_verify_depth);
  }
  add_setting(text, describes_clients(config) ? 1 : 0);
  return text;
}

// The loader speaks of files; the operator wants to know where they are named. The longest name in
// the sentence wins: another may be the end of it.
config::Place place_of_files(const config::TlsSettings& settings, std::string_view text) {
  config::Place place = settings.place;
  size_t longest = 0;
  for (const config::CertificateFiles& one : settings.certificates) {
    for (const std::string* name :
         {&one.cert_path, &one.key_path, &one.key_passphrase_file, &one.ocsp_response_path}) {
      if (name->size() <= longest || text.find(*name) == std::string_view::npos) continue;
      longest = name->size();
      place = one.place;
    }
  }
  return place;
}

void add_sentences(const config::Config& config, const std::vector<std::string>& from,
                   std::vector<std::string>& to) {
  for (size_t i = 0; i < std::min(from.size(), kSentencesMax); ++i) {
    to.push_back(sentence(config, place_of_files(config.tls, from[i]), from[i]));
  }
  if (from.size() <= kSentencesMax) return;
  to.push_back(
      sentence(config, config.tls.place,
               "and " + std::to_string(from.size() - kSentencesMax) + " more about certificates"));
}

std::shared_ptr<const tls::CertificateSet> load(const config::Config& config, int64_t now_s,
                                                TlsPlan& plan) {
  std::vector<tls::CertificateSource> sources;
  sources.reserve(config.tls.certificates.size());
  for (const config::CertificateFiles& one : config.tls.certificates) {
    sources.push_back({.cert_path = one.cert_path,
                       .key_path = one.key_path,
                       .passphrase_path = one.key_passphrase_file,
                       .ocsp_path = one.ocsp_response_path,
                       .host_names = one.hostnames,
                       .is_default = one.is_default});
  }
  auto loaded = tls::load_certificates(sources, now_s);
  if (!loaded) {
    add_sentences(config, loaded.error(), plan.errors);
    return nullptr;
  }
  add_sentences(config, loaded->warnings, plan.warnings);
  plan.notes.push_back("certificates loaded: " + std::to_string(loaded->set->size()) +
                       ", for names: " + std::to_string(loaded->set->names()));
  return std::move(loaded->set);
}

using Ders = std::expected<std::vector<tls::Der>, std::string>;

void take_ders(const config::Config& config, std::string_view key, Ders loaded,
               std::vector<tls::Der>& out, TlsPlan& plan) {
  if (loaded) {
    out = std::move(*loaded);
  } else {
    plan.errors.push_back(
        sentence(config, place_of(config, key, config.tls.place), loaded.error()));
  }
}

tls::ServerPolicy policy_of(const config::Config& config, bool kernel, TlsPlan& plan) {
  const config::TlsSettings& settings = config.tls;
  tls::ServerPolicy policy;
  policy.min_version = config::wire_version(settings.min_version);
  policy.max_version = config::wire_version(settings.max_version);
  policy.ciphers = settings.ciphers;
  policy.ciphersuites = settings.ciphersuites;
  policy.groups = settings.groups;
  policy.alpn = settings.alpn;
  // Whoever speaks the one understands the other, and "curl --http1.0" offers nothing else.
  if (std::ranges::find(policy.alpn, "http/1.1") != policy.alpn.end()) {
    policy.alpn.emplace_back("http/1.0");
  }
  policy.keep_kernel_keys = kernel;
  policy.session_lifetime_s = static_cast<uint32_t>(session_lifetime_s(settings));
  // The same on every machine that shares the ticket keys. What clients have to prove is part of it
  // (CAs and revocation lists are added by the Context).
  policy.session_scope = "https";
  if (settings.client_auth == config::ClientAuth::kOff) return policy;
  const bool required = settings.client_auth == config::ClientAuth::kRequired;
  policy.client_auth = required ? tls::ClientAuth::kRequired : tls::ClientAuth::kOptional;
  policy.client_chain_depth = settings.client_verify_depth;
  policy.session_scope += " depth " + std::to_string(settings.client_verify_depth);
  take_ders(config, "tls.client_ca_path", tls::load_ca_file(settings.client_ca_path),
            policy.client_cas, plan);
  if (!settings.client_crl_path.empty()) {
    take_ders(config, "tls.client_crl_path", tls::load_crl_file(settings.client_crl_path),
              policy.client_crls, plan);
  }
  return policy;
}

}  // namespace

void TlsState::plan_server(const config::Config& config, const Kernel& kernel,
                           const FileFingerprints& files, int64_t now_s, TlsPlan& plan) {
  plan.server.files = select_files(files, server_files(config.tls));
  plan.server.settings = server_settings(config, kernel.why_userspace, kernel.support != nullptr);
  const TlsPlan::Server& present = present_.server;
  if (!present.contexts.empty() && present.settings == plan.server.settings &&
      same_files(present.files, plan.server.files)) {
    plan.server.files = present.files;
    plan.server.contexts = present.contexts;
    return;
  }
  make_server(config, kernel, now_s, plan);
}

void TlsState::make_server(const config::Config& config, const Kernel& kernel, int64_t now_s,
                           TlsPlan& plan) {
  const std::shared_ptr<const tls::CertificateSet> certificates = load(config, now_s, plan);
  const tls::ServerPolicy policy = policy_of(config, kernel.support != nullptr, plan);
  if (!plan.errors.empty()) return;
  for (const auto& engine : engines_) {
    auto made =
        tls::Context::make_server(engine->library, policy, *certificates, plan.tickets.ring);
    if (!made) {
      plan.errors.push_back(sentence(config, config.tls.place, made.error()));
      return;
    }
    auto context = std::make_shared<tls::ServerContext>();
    context->certificates = certificates;
    context->context = std::move(*made);
    context->kernel = kernel.support;
    context->why_userspace = kernel.why_userspace;
    context->userspace_allowed = kernel.userspace_allowed;
    context->describe_clients = describes_clients(config);
    context->handshake_timeout_ms = static_cast<uint32_t>(config.tls.handshake_timeout.count());
    plan.server.contexts.push_back(std::move(context));
  }
}

}  // namespace weir::control
