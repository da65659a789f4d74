// Kernel TLS on a core's Library; apart, so that the key schedule stands without the TLS engine.
#include <weir/net/tls/ktls.h>

#include "library_state.h"

namespace weir::net::tls {

KernelTls::KernelTls(const Library& library) noexcept : KernelTls(library.state().context.get()) {}

}  // namespace weir::net::tls
