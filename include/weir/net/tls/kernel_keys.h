// What a finished handshake leaves for the kernel: the traffic keys of both directions and the
// exact place in each direction's sequence of records. tls::Session fills it, tls/ktls.h turns it
// into TLS_TX and TLS_RX. Plain bytes, moved from one owner to the next on one core, wiped by every
// destructor and move; never logged, never copied.
#pragma once

#include <cstdint>
#include <string_view>

#include <weir/net/tls/secret.h>

namespace weir::net::tls {

// Meson's option ktls. Without it nothing of kernel TLS is in the program.
inline constexpr bool kKernelTlsBuilt = WEIR_KTLS != 0;

enum class KernelCipher : uint8_t { kAes128Gcm, kAes256Gcm, kChaCha20Poly1305 };
std::string_view to_string(KernelCipher cipher) noexcept;

// The hash of the cipher suite: HKDF-Expand-Label of TLS 1.3 needs it.
enum class SuiteHash : uint8_t { kSha256, kSha384 };

inline constexpr uint16_t kTls12 = 0x0303;
inline constexpr uint16_t kTls13 = 0x0304;

// One direction. `record_number` is that of the next record.
struct DirectionKeys {
  // TLS 1.3: application traffic secret 0 of the side that sends in this direction (32 or 48
  // bytes); key and iv follow by HKDF-Expand-Label ("key", "iv", empty context).
  Secret<48> traffic_secret;
  // TLS 1.2: pieces of the key block. The iv is the implicit part: 4 bytes (the salt) for GCM, 12
  // for ChaCha20-Poly1305.
  Secret<32> key;
  Secret<12> iv;
  // TLS 1.2 with GCM, sending: the explicit nonce of the next record, which is that of our last
  // record on the wire plus one. It has nothing to do with the record number; starting it there
  // would use a nonce twice. Receiving: the record number (the kernel reads the nonce off the
  // wire).
  uint64_t explicit_nonce = 0;
  uint64_t record_number = 0;
};

struct KernelKeys {
  uint16_t version = 0;  // kTls12 or kTls13
  KernelCipher cipher = KernelCipher::kAes128Gcm;
  SuiteHash hash = SuiteHash::kSha256;
  DirectionKeys tx;  // what this side sends
  DirectionKeys rx;
};

}  // namespace weir::net::tls
