#include "secure_checks.h"

#include <algorithm>
#include <utility>

#include <weir/base/hash.h>

#include "tls_plan.h"

namespace weir::control {

namespace tls = net::tls;

void SecureChecks::begin() noexcept {
  for (Kept& kept : kept_) kept.fresh = false;
}

void SecureChecks::end() {
  std::erase_if(kept_, [](const Kept& kept) { return !kept.fresh; });
}

std::shared_ptr<tls::ClientContext> SecureChecks::get(const route::UpstreamTlsSpec& spec,
                                                      int64_t now_s, std::string& error) {
  auto kept = std::ranges::find(kept_, spec, &Kept::spec);
  if (kept == kept_.end()) {
    kept_.push_back({.spec = spec, .files = {}, .context = nullptr, .error = {}});
    kept = kept_.end() - 1;
  }
  if (!std::exchange(kept->fresh, true)) renew(*kept, now_s);
  if (!kept->context) error = kept->error;
  return kept->context;
}

void SecureChecks::renew(Kept& kept, int64_t now_s) {
  const route::UpstreamTlsSpec& spec = kept.spec;
  if (engine_ == nullptr) {
    kept.error = "there is no TLS engine";
    return;
  }
  std::vector<std::string> names;
  for (const std::string* name : {&spec.ca_path, &spec.cert_path, &spec.key_path}) {
    if (!name->empty()) names.push_back(*name);
  }
  FileFingerprints files;
  add_fingerprints(names, files);
  tls::ClientPolicy policy;
  policy.min_version = spec.min_version;
  policy.alpn = {"http/1.1"};
  policy.keep_kernel_keys = false;
  policy.reuse_sessions = false;
  policy.verify = spec.verify;
  uint64_t system_cas = 0;
  if (spec.verify && spec.ca_path.empty()) {
    auto cas = tls::load_system_cas();
    if (!cas) {
      kept.error = std::move(cas.error());
      return;
    }
    for (const tls::Der& der : *cas) {
      system_cas = base::fnv1a({reinterpret_cast<const char*>(der.data()), der.size()}, system_cas);
    }
    policy.cas = std::move(*cas);
  }
  if (kept.context && same_files(kept.files, files) && kept.system_cas == system_cas) return;
  if (!spec.ca_path.empty()) {
    auto cas = tls::load_ca_file(spec.ca_path);
    if (!cas) {
      kept.error = std::move(cas.error());
      return;
    }
    policy.cas = std::move(*cas);
  }
  if (!spec.cert_path.empty()) {
    tls::CertificateSource source;
    source.cert_path = spec.cert_path;
    source.key_path = spec.key_path;
    auto pair = tls::load_key_pair(source, now_s);
    if (!pair) {
      kept.error = std::move(pair.error());
      return;
    }
    policy.certificate = std::move(*pair);
  }
  auto made = tls::Context::make_client(engine_->library, policy);
  if (!made) {
    kept.error = std::move(made.error());
    return;
  }
  auto context = std::make_shared<tls::ClientContext>();
  context->context = std::move(*made);
  kept.context = std::move(context);
  kept.files = std::move(files);
  kept.system_cas = system_cas;
}

}  // namespace weir::control
