// Large bodies from socket to socket through a pipe, never through userspace. For both ends plain
// or with the records of TLS in the kernel; the source in direct mode.
#pragma once

#include <weir/net/pipe_pool.h>

#include "relay_body.h"

namespace weir::proxy {

// Whether what is left of the body is to go this way.
[[nodiscard]] bool wants_splice(const Relay& relay) noexcept;

// Until the body is complete, or its source ends (kSourceEnded, also where that completes it).
runtime::Task<RelayEnd> splice_body(Relay& relay, net::PipePool::Lease pipe);

}  // namespace weir::proxy
