// What a Context and a ResumptionSlot hold. Private to net/tls.
#pragma once

#include <array>
#include <string>

#include <weir/net/tls/context.h>

#include "certificate_cache.h"
#include "library_state.h"
#include "openssl.h"

namespace weir::net::tls {

struct Context::State {
  State(Library& core_library, const ProtocolPolicy& policy, bool is_server, size_t kept_max);

  Library& library;
  const bool server;
  const Limits limits;
  const bool keep_kernel_keys;
  OwnedSslContext ssl;
  std::string alpn;  // as on the wire: each with its length in front
  size_t live = 0;   // Sessions and ResumptionSlots that point here

  // Server.
  const CertificateSet* certificates = nullptr;
  CertificateCache parsed;
  TicketKeyRing tickets;
  int64_t now_s = 0;

  // Client.
  bool verify = true;
};

struct ResumptionSlot::State {
  explicit State(Context& owner) noexcept : context(owner) {}

  Context& context;
  std::array<OwnedSession, kSessionsMax> sessions;  // newest last
  size_t size = 0;

  void put(OwnedSession session) noexcept;
  void clear() noexcept;
  // The newest. One of TLS 1.3 is given away (RFC 8446 C.4: a ticket is for one connection), one of
  // TLS 1.2 stays.
  OwnedSession take() noexcept;
};

}  // namespace weir::net::tls
