// What a core counts: plain integers, written by the core alone. Control reads a copy that the core
// makes when it is asked.
#pragma once

#include <cstdint>

namespace weir::proxy {

struct Counters {
  uint64_t connections_accepted = 0;
  uint64_t connections_refused = 0;  // beyond max_concurrent_connections
  uint64_t requests = 0;
  uint64_t responses_1xx = 0;
  uint64_t responses_2xx = 0;
  uint64_t responses_3xx = 0;
  uint64_t responses_4xx = 0;
  uint64_t responses_5xx = 0;
  uint64_t bytes_in = 0;
  uint64_t bytes_out = 0;
  uint64_t bad_requests = 0;   // refused by the parser
  uint64_t bad_responses = 0;  // origins that broke the protocol
  uint64_t client_gone = 0;
  uint64_t client_timeouts = 0;
  uint64_t upstream_timeouts = 0;
  uint64_t upstream_errors = 0;
  uint64_t stale_retries = 0;  // a pooled connection had been closed by the origin
  uint64_t failovers = 0;      // another server was tried
  uint64_t hedged = 0;         // a second server was asked beside the first
  uint64_t ejections = 0;      // servers put aside by passive checks or circuit breakers
  uint64_t access_records_dropped = 0;
  uint64_t body_bytes_buffered = 0;   // relayed through pool buffers
  uint64_t body_bytes_direct = 0;     // relayed through the core's scratch
  uint64_t body_bytes_spliced = 0;    // relayed without a copy in userspace
  uint64_t tunnels = 0;               // upgrades and CONNECTs
  uint64_t tunnel_bytes = 0;          // both directions
  uint64_t tunnel_bytes_spliced = 0;  // of them, without a copy in userspace
  uint64_t file_bytes_sendfile = 0;   // of files, without a copy in userspace
  uint64_t file_bytes_copied = 0;     // of files, read and sent
  uint64_t file_bytes_memory = 0;     // of files that are kept in memory
};

}  // namespace weir::proxy
