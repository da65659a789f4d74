// Policies turned into SSL_CTX settings, each answering with a sentence where it is wrong. Private
// to net/tls.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "context_state.h"

namespace weir::net::tls {

using Wrong = std::optional<std::string>;

// What needs no OpenSSL to be seen: versions, ALPN.
Wrong check_protocol(const ProtocolPolicy& policy);
// Versions, suites, groups, options, buffers, the callbacks that both sides need.
Wrong apply_protocol(Context::State& state, const ProtocolPolicy& policy);
Wrong trust(Context::State& state, std::span<const Der> anchors, std::span<const Der> crls);
// The list of names that a client picks its certificate by.
Wrong name_client_cas(Context::State& state, std::span<const Der> anchors);

}  // namespace weir::net::tls
