// The TLS settings of a listener (ServerPolicy) and of the connections to an upstream
// (ClientPolicy), as plain values: built by control from the configuration, read by every core that
// makes a Context of them. The defaults are Mozilla's "intermediate" of 2024, without the finite
// field suites (DHE), whose handshakes cost the server several times as much and which no client
// needs that has TLS 1.2 with elliptic curves.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <weir/net/tls/certificates.h>
#include <weir/net/tls/kernel_keys.h>

namespace weir::net::tls {

inline constexpr const char* kDefaultCiphers =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
inline constexpr const char* kDefaultCiphersuites =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
inline constexpr const char* kDefaultGroups = "X25519:P-256:P-384";

// What a peer may cost us.
struct Limits {
  // RFC 8446 allows a ClientHello of 128 KiB; real ones are below 2 KiB (4 KiB with post-quantum
  // key shares).
  uint32_t client_hello_bytes_max = 16 * 1024;
  // All that a peer may send before the handshake is done, record headers included. The greatest
  // honest part is a chain of certificates.
  uint32_t handshake_bytes_max = 128 * 1024;
  // KeyUpdates (and, from a client, any other handshake message) after the handshake.
  uint32_t key_updates_max = 16;
  // Tickets and the like that an origin may send after the handshake.
  uint32_t tickets_received_max = 64;
  // TLS 1.3: records sent under one key before we change it ourselves. TLS 1.2 cannot; there
  // Session::worn_out() says that the connection should end. RFC 8446 5.5: 2^24.5 full records for
  // AES-GCM.
  uint64_t records_per_key = uint64_t{1} << 23;
};

// What both sides of TLS have in common.
struct ProtocolPolicy {
  uint16_t min_version = kTls12;
  uint16_t max_version = kTls13;
  std::string ciphers = kDefaultCiphers;            // TLS 1.2, OpenSSL's names, in our order
  std::string ciphersuites = kDefaultCiphersuites;  // TLS 1.3, in our order
  std::string groups = kDefaultGroups;
  // In the order of our preference; empty: ALPN is not spoken. A server refuses a client that
  // offers ALPN but nothing of this list (RFC 7301 3.2).
  std::vector<std::string> alpn;
  Limits limits;
  // Keep what kernel_keys() needs. False where kernel TLS is off: then no secret leaves OpenSSL.
  bool keep_kernel_keys = true;
};

enum class ClientAuth : uint8_t {
  kOff,
  kOptional,  // asked for; none is fine, one that does not verify ends the handshake
  kRequired,
};

struct ServerPolicy : ProtocolPolicy {
  ClientAuth client_auth = ClientAuth::kOff;
  std::vector<Der> client_cas;  // trust anchors; their names are sent to the client
  uint32_t client_chain_depth = 4;
  std::vector<Der> client_crls;  // not empty: every certificate of the chain needs a current list
  // 0: no tickets, hence no resumption.
  uint32_t session_lifetime_s = 24 * 3600;
  // Sessions resume only where this is the same (and so are client_auth, client_cas and
  // client_crls).
  std::string session_scope;
  // Parsed certificates and keys that a core keeps (about 10 KiB each), used last first.
  uint32_t certificates_kept_max = 1024;
};

struct ClientPolicy : ProtocolPolicy {
  bool verify = true;
  std::vector<Der> cas;  // trust anchors; empty with `verify`: make_client() refuses
  uint32_t chain_depth = 8;
  std::optional<KeyPair> certificate;  // ours, for origins that ask
  bool reuse_sessions = true;
};

}  // namespace weir::net::tls
