// Files with certificates and keys: read whole, within a limit, cut into PEM blocks. Control thread
// only. Every error is a sentence that names the file. Private to net/tls.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include <weir/net/tls/certificates.h>
#include <weir/net/tls/secret.h>

#include "openssl.h"

namespace weir::net::tls {

std::expected<SecretBytes, std::string> read_secret_file(const std::string& path, size_t bytes_max);

struct PemBlock {
  std::string name;  // "CERTIFICATE"
  bool encrypted = false;
  SecretBytes der;  // of an encrypted block: not yet opened
};

// All blocks of a PEM text, in order; what is between them is ignored.
std::expected<std::vector<PemBlock>, std::string> pem_blocks(const std::string& path,
                                                             const SecretBytes& text);

// The private key in a PEM text, opened with `passphrase` where that is needed.
std::expected<OwnedKey, std::string> read_private_key(OSSL_LIB_CTX* library,
                                                      const std::string& path,
                                                      const SecretBytes& text,
                                                      const SecretBytes* passphrase);

}  // namespace weir::net::tls
