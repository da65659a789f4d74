// The heads that weir sends, written from the parsed model: received lines are never copied. weir's
// own fields are set after hop-by-hop fields are removed, so a client cannot strip them by naming
// them in Connection (RFC 9110 7.6.1).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include <weir/base/byte_writer.h>
#include <weir/http/head.h>
#include <weir/proxy/settings.h>
#include <weir/route/match.h>

namespace weir::proxy {

struct ClientCertificate;

// A longer value of X-Client-Cert-* is cut behind its last whole element.
inline constexpr size_t kCertificateValueBytesMax = 4096;

struct ForwardedFacts {
  const Settings* settings = nullptr;
  std::string_view client;  // IP as text; "unknown" for Unix sockets
  bool client_is_v6 = false;
  bool client_trusted = false;  // in trusted_proxies: what it says of the client before it is kept
  std::string_view scheme;      // of the connection
  const ClientCertificate* certificate = nullptr;  // verified; null: none
};

// Head of a request to the origin. `host` is the Host to send, `upgrade` the protocol to offer, if
// any.
void write_request_head(base::ByteWriter& out, const http::RequestHead& request,
                        const route::Rewrite& path, std::string_view host, bool chunked,
                        const ForwardedFacts& facts, std::string_view upgrade = {}) noexcept;

enum class Persistence : uint8_t { kDefault, kSayClose, kSayKeepAlive };

// Head of an origin's final response to the client. `chunked`: framed anew by us. `lines`: more of
// our own.
void write_response_head(base::ByteWriter& out, const http::ResponseHead& response, bool chunked,
                         bool with_length, Persistence persistence, const Settings& settings,
                         std::string_view date, std::string_view lines = {}) noexcept;

// A 1xx response, passed through.
void write_interim_head(base::ByteWriter& out, const http::ResponseHead& response,
                        const Settings& settings) noexcept;

// A 101 to `protocol`.
void write_switching_head(base::ByteWriter& out, const http::ResponseHead& response,
                          std::string_view protocol, const Settings& settings,
                          std::string_view lines = {}) noexcept;

}  // namespace weir::proxy
