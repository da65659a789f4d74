#include <weir/net/tls/engine.h>

namespace weir::net::tls {

Engine::Engine()
    :
#if WEIR_KTLS
      kernel(library),
#endif
      block_(std::make_unique_for_overwrite<char[]>(kBlockBytes)) {
}
Engine::~Engine() = default;

std::string_view to_string(RecordPath path) noexcept {
  switch (path) {
    case RecordPath::kPlain: return "plain";
    case RecordPath::kKernel: return "kernel";
    case RecordPath::kSwitchedOff: return "switched_off";
    case RecordPath::kNotBuilt: return "not_built";
    case RecordPath::kNoKernelTls: return "no_kernel_tls";
    case RecordPath::kNoUlp: return "no_ulp";
    case RecordPath::kCipherUnknown: return "cipher_unknown";
    case RecordPath::kFragmentLength: return "fragment_length";
    case RecordPath::kLeftover: return "leftover";
    case RecordPath::kInstallRefused: return "install_refused";
    case RecordPath::kHalfRecords: return "half_records";
    case RecordPath::kAwaitingTickets: return "awaiting_tickets";
    case RecordPath::kCount: break;
  }
  return "unknown";
}

}  // namespace weir::net::tls
