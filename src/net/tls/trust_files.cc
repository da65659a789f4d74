// Files of trust anchors and revocation lists.
#include <cstdlib>
#include <utility>

#include <weir/net/tls/certificates.h>

#include "certificate_checks.h"
#include "pem_file.h"

namespace weir::net::tls {
namespace {

constexpr size_t kCaBytesMax = 8 * 1024 * 1024;
constexpr size_t kCrlBytesMax = 64 * 1024 * 1024;

bool is_certificate(std::span<const uint8_t> der) {
  const unsigned char* at = der.data();
  const OwnedCertificate parsed(d2i_X509(nullptr, &at, static_cast<long>(der.size())));
  return parsed != nullptr;
}

bool is_crl(std::span<const uint8_t> der) {
  const unsigned char* at = der.data();
  const OwnedCrl parsed(d2i_X509_CRL(nullptr, &at, static_cast<long>(der.size())));
  return parsed != nullptr;
}

std::expected<std::vector<Der>, std::string> load_blocks(const std::string& path, size_t bytes_max,
                                                         std::string_view name,
                                                         bool (*check)(std::span<const uint8_t>),
                                                         const std::string& what) {
  auto text = read_secret_file(path, bytes_max);
  if (!text) return std::unexpected(std::move(text.error()));
  auto blocks = pem_blocks(path, *text);
  if (!blocks) return std::unexpected(std::move(blocks.error()));
  std::vector<Der> found;
  for (const PemBlock& block : *blocks) {
    if (block.name != name) continue;
    if (!check(block.der.bytes())) {
      std::string sentence = what;
      sentence.append(" ").append(std::to_string(found.size() + 1)).append(" in ").append(path);
      sentence.append(" cannot be parsed: ").append(take_error());
      return std::unexpected(std::move(sentence));
    }
    found.emplace_back(block.der.bytes().begin(), block.der.bytes().end());
  }
  if (found.empty()) return std::unexpected(path + " holds no " + what);
  return found;
}

}  // namespace

std::expected<std::vector<Der>, std::string> load_ca_file(const std::string& path) {
  return load_blocks(path, kCaBytesMax, "CERTIFICATE", &is_certificate, "certificate");
}

std::expected<std::vector<Der>, std::string> load_system_cas() {
  const char* configured = std::getenv(X509_get_default_cert_file_env());
  if (configured != nullptr) return load_ca_file(configured);
  auto loaded = load_ca_file("/etc/ssl/certs/ca-certificates.crt");
  if (loaded) return loaded;
  return load_ca_file(X509_get_default_cert_file());
}

std::expected<std::vector<Der>, std::string> load_crl_file(const std::string& path) {
  return load_blocks(path, kCrlBytesMax, "X509 CRL", &is_crl, "revocation list");
}

}  // namespace weir::net::tls
