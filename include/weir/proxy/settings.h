// What the configuration says to the data path beside the routes: plain values, immutable inside a
// Generation. Filled by control. Times in milliseconds.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <weir/base/ip.h>
#include <weir/files/mime.h>
#include <weir/files/store.h>
#include <weir/http/h1/parser.h>

namespace weir::proxy {

struct Settings {
  uint32_t header_timeout_ms = 30'000;     // a whole request head, from its first byte or accept
  uint32_t body_timeout_ms = 30'000;       // between two pieces of a request body
  uint32_t keepalive_timeout_ms = 60'000;  // idle between requests
  uint32_t send_timeout_ms = 30'000;       // the client takes nothing for so long
  uint32_t half_close_grace_ms = 1'000;  // after the client's FIN, before the exchange is given up
  uint32_t tunnel_idle_timeout_ms = 600'000;  // nothing in either direction
  uint64_t max_requests_per_connection = 0;   // 0: no limit
  uint32_t connections_max = 0;               // of this core; 0: no limit
  http::h1::HeadLimits head_limits;
  bool x_forwarded = true;
  bool forwarded = false;                        // RFC 7239 as well
  std::shared_ptr<const files::MimeTypes> mime;  // null: no Content-Type for files
  files::StoreLimits files;
  uint32_t pipes_max = UINT32_MAX;  // per core
  uint64_t splice_min = 0;          // bodies are spliced from this many bytes on; 0: never
  bool access_log = false;
  // X-Client-Cert-* are set from the verified certificate, and removed from what clients send.
  bool client_cert_headers = false;
  std::string via;                          // pseudonym; empty: no Via
  std::string server;                       // Server of our own answers; empty: none
  std::vector<base::Cidr> trusted_proxies;  // whose X-Forwarded-* and X-Real-IP are believed
};

}  // namespace weir::proxy
