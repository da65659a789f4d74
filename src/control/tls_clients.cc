// TlsState, towards origins: a ClientContext for each core and distinct kind of upstream.
#include <algorithm>
#include <string_view>
#include <utility>

#include <weir/base/hash.h>
#include <weir/control/tls_state.h>

#include "tls_plan.h"

namespace weir::control {

namespace {

namespace tls = net::tls;

constexpr const char* kHttp11 = "http/1.1";

// One reload's view of the system's CAs: read at most once, and only if somebody needs them. Their
// file is OpenSSL's business, so their content tells whether they have changed.
class SystemCas {
 public:
  const std::expected<std::vector<tls::Der>, std::string>& get() {
    if (!loaded_) loaded_ = tls::load_system_cas();
    return *loaded_;
  }
  uint64_t hash() {
    uint64_t result = 0;
    if (!get()) return result;
    for (const tls::Der& der : *get()) {
      result = base::fnv1a({reinterpret_cast<const char*>(der.data()), der.size()}, result);
    }
    return result;
  }

 private:
  std::optional<std::expected<std::vector<tls::Der>, std::string>> loaded_;
};

bool wants_system_cas(const route::UpstreamTlsSpec& spec) {
  return spec.verify && spec.ca_path.empty();
}

std::vector<std::string> client_files(const route::UpstreamTlsSpec& spec) {
  std::vector<std::string> names;
  for (const std::string* name : {&spec.ca_path, &spec.cert_path, &spec.key_path}) {
    if (!name->empty()) names.push_back(*name);
  }
  return names;
}

std::string client_settings(bool userspace_allowed, tls::RecordPath why_userspace, bool kernel) {
  std::string text;
  add_setting(text, kernel ? 1 : 0);
  add_setting(text, static_cast<uint64_t>(why_userspace));
  add_setting(text, userspace_allowed ? 1 : 0);
  return text;
}

// Where the setting of an upstream comes from: its own table, or the defaults for all.
config::Place place_of_setting(const config::Config& config, const config::Upstream& upstream,
                               const std::string& key) {
  const config::Place shared = place_of(config, "upstream_defaults." + key, upstream.place);
  return place_of(config, "upstream." + upstream.name + "." + key, shared);
}

tls::ClientPolicy policy_of(const config::Config& config, const config::Upstream& upstream,
                            const route::UpstreamTlsSpec& spec, SystemCas& system, bool kernel,
                            int64_t now_s, std::vector<std::string>& errors) {
  tls::ClientPolicy policy;
  policy.min_version = spec.min_version;
  policy.alpn = {kHttp11};
  policy.keep_kernel_keys = kernel;
  policy.verify = spec.verify;
  const auto complain = [&](const std::string& key, const std::string& what) {
    errors.push_back(sentence(config, place_of_setting(config, upstream, key),
                              "upstream " + upstream.name + ": " + what));
  };
  if (wants_system_cas(spec)) {
    if (const auto& cas = system.get()) {
      policy.cas = *cas;
    } else {
      complain("tls_ca_path", "the system's CAs cannot be had: " + cas.error() +
                                  "; give tls_ca_path, or install them (ca-certificates)");
    }
  } else if (!spec.ca_path.empty()) {
    if (auto cas = tls::load_ca_file(spec.ca_path)) {
      policy.cas = std::move(*cas);
    } else {
      complain("tls_ca_path", cas.error());
    }
  }
  if (!spec.cert_path.empty()) {
    tls::CertificateSource source;
    source.cert_path = spec.cert_path;
    source.key_path = spec.key_path;
    auto pair = tls::load_key_pair(source, now_s);
    if (pair) {
      policy.certificate = std::move(*pair);
    } else {
      complain("tls_cert_path", pair.error());
    }
  }
  return policy;
}

}  // namespace

// One context for each core. Errors go into the plan.
void TlsState::make_clients(const config::Config& config, const config::Upstream& upstream,
                            const tls::ClientPolicy& policy, const Kernel& kernel,
                            TlsPlan::Client& out, TlsPlan& plan) {
  for (const auto& engine : engines_) {
    auto made = tls::Context::make_client(engine->library, policy);
    if (!made) {
      plan.errors.push_back(
          sentence(config, upstream.place, "upstream " + upstream.name + ": " + made.error()));
      return;
    }
    auto context = std::make_shared<tls::ClientContext>();
    context->context = std::move(*made);
    context->kernel = kernel.support;
    context->why_userspace = kernel.why_userspace;
    context->userspace_allowed = kernel.userspace_allowed;
    out.contexts.push_back(std::move(context));
  }
}

void TlsState::plan_clients(const config::Config& config,
                            std::span<const route::UpstreamSpec> upstreams, const Kernel& kernel,
                            const FileFingerprints& files, int64_t now_s, TlsPlan& plan) {
  SystemCas system;
  for (proxy::CoreTls& core : plan.cores) core.upstreams.resize(upstreams.size());
  for (size_t i = 0; i < upstreams.size(); ++i) {
    if (!upstreams[i].tls) continue;
    const config::Upstream& upstream = config.upstreams[i];
    const route::UpstreamTlsSpec& spec = upstreams[i].tls_settings;
    auto client = std::ranges::find(plan.clients, spec, &TlsPlan::Client::spec);
    if (client == plan.clients.end()) {
      TlsPlan::Client next{
          .spec = spec,
          .settings = client_settings(kernel.userspace_allowed, kernel.why_userspace,
                                      kernel.support != nullptr),
          .files = select_files(files, client_files(spec)),
          .contexts = {}};
      if (wants_system_cas(spec)) add_setting(next.settings, system.hash());
      const auto same = [&next](const TlsPlan::Client& old) {
        return old.spec == next.spec && old.settings == next.settings &&
               same_files(old.files, next.files);
      };
      const auto present = std::ranges::find_if(present_.clients, same);
      if (present != present_.clients.end()) {
        next = *present;
      } else {
        const size_t errors_before = plan.errors.size();
        const tls::ClientPolicy policy = policy_of(config, upstream, spec, system,
                                                   kernel.support != nullptr, now_s, plan.errors);
        if (plan.errors.size() == errors_before) {
          make_clients(config, upstream, policy, kernel, next, plan);
        }
      }
      plan.clients.push_back(std::move(next));
      client = plan.clients.end() - 1;
    }
    for (size_t core = 0; core < client->contexts.size(); ++core) {
      plan.cores[core].upstreams[i] = client->contexts[core];
    }
  }
}

}  // namespace weir::control
