// Makes a certificate for development and trials: it vouches for itself, so that only a client that
// was given it trusts it. Command line only; nothing here writes a file or asks for the time.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <vector>

#include <weir/net/tls/secret.h>

namespace weir::net::tls {

struct SelfSignedRequest {
  static constexpr uint32_t kDaysMax = 3650;
  static constexpr size_t kHostsMax = 100;

  std::vector<std::string> hosts;  // names, `*.name` or IP addresses; the first is the subject
  uint32_t days = 365;
  bool rsa = false;   // RSA of 2048 bits; else ECDSA on P-256
  int64_t now_s = 0;  // Unix time
};

struct SelfSigned {
  std::string certificate_pem;
  SecretBytes key_pem;  // PKCS #8, not encrypted
};

// The error is a sentence.
std::expected<SelfSigned, std::string> make_self_signed(const SelfSignedRequest& request);

}  // namespace weir::net::tls
