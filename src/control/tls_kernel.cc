// TlsState, kernel TLS: what of it there is, asked once, and what the settings say when there is
// none.
#include <utility>

#include <weir/control/tls_state.h>

#include "tls_plan.h"

namespace weir::control {

using net::tls::RecordPath;

KernelQuestion ask_nobody() { return {.built = WEIR_KTLS != 0}; }

KernelQuestion ask_kernel() {
  KernelQuestion question = ask_nobody();
#if WEIR_KTLS
  question.probe = &net::tls::KernelSupport::probe;
#endif
  return question;
}

#if WEIR_KTLS

// The self-test; the support that it found, or nothing. The first time it tells what works and what
// does not; `nothing` is told by the caller, who knows what follows from it.
const net::tls::KernelSupport* TlsState::ask_once(TlsPlan& plan, std::string& nothing) {
  if (!kernel_) kernel_ = question_.probe();
  const std::vector<std::string> lines = kernel_->lines();
  if (!kernel_->any()) {
    nothing = lines.front();
    return nullptr;
  }
  if (!std::exchange(kernel_told_, true)) {
    plan.notes.push_back(lines.front());
    plan.warnings.insert(plan.warnings.end(), lines.begin() + 1, lines.end());
  }
  return &*kernel_;
}

#else

// Not reached: choose_kernel() asks only where kernel TLS was built.
const net::tls::KernelSupport* TlsState::ask_once(TlsPlan&, std::string&) { return nullptr; }

#endif

TlsState::Kernel TlsState::choose_kernel(const config::Config& config, TlsPlan& plan) {
  const config::TlsSettings& tls = config.tls;
  Kernel kernel;
  kernel.userspace_allowed = tls.ktls_fallback_enabled;
  if (!tls.ktls_enabled) return kernel;
  std::string nothing;
  if (!question_.built) {
    kernel.why_userspace = RecordPath::kNotBuilt;
    nothing = "this weir was built without kernel TLS (Meson option ktls)";
  } else {
    kernel.why_userspace = RecordPath::kNoKernelTls;
    if (!question_.probe) return kernel;
    kernel.support = ask_once(plan, nothing);
  }
  if (kernel.support != nullptr) return kernel;
  if (!tls.ktls_fallback_enabled) {
    plan.errors.push_back(
        sentence(config, place_of(config, "tls.ktls_fallback_enabled", tls.place),
                 "ktls_fallback_enabled is false, and there is no kernel TLS: " + nothing));
  } else if (!std::exchange(kernel_told_, true)) {
    plan.warnings.push_back("TLS records are done in userspace: " + nothing);
  }
  return kernel;
}

}  // namespace weir::control
