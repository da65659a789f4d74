// Certificates made on the spot for tests and benchmarks of TLS: a root, an intermediate, leaves of
// any key type and validity, revocation lists, OCSP responses; and the files they are loaded from.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <openssl/x509.h>

#include <weir/net/tls/certificates.h>

namespace tls_test {

inline constexpr int64_t kDay = 24 * 3600;
int64_t now_s();

struct Drop {
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using CertificatePtr = std::unique_ptr<X509, Drop>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Drop>;

enum class Kind { kP256, kP384, kRsa2048, kRsa1024, kEd25519 };
KeyPtr make_key(Kind kind);

struct Leaf {
  std::string common_name = "test";
  std::vector<std::string> san{};  // "DNS:a.example", "IP:127.0.0.1", ...
  Kind kind = Kind::kP256;
  int64_t from_s = -30 * kDay;  // against now
  int64_t to_s = 90 * kDay;
  std::string extended_usage{};  // "serverAuth"; empty: no extension
  bool authority = false;
};

// A certificate with its key; can issue others.
struct Issued {
  CertificatePtr certificate;
  KeyPtr key;

  [[nodiscard]] std::string certificate_pem() const;
  [[nodiscard]] std::string key_pem(const std::string& passphrase = {}) const;
  [[nodiscard]] weir::net::tls::Der der() const;
};

// `issuer` null: signs itself.
Issued issue(const Leaf& leaf, const Issued* issuer);
// PEM of a revocation list of `issuer` with these certificates.
std::string revocation_list(const Issued& issuer, const std::vector<const Issued*>& revoked);
// DER of an OCSP response of `issuer` about `subject`.
std::string ocsp_response(const Issued& issuer, const Issued& subject, bool revoked,
                          int64_t next_update_s);

// The same, signed by somebody else.
std::string ocsp_response_signed(const Issued& issuer, const Issued& subject, const Issued& signer,
                                 int64_t next_update_s);

// A directory that is gone at the end of the test.
class Directory {
 public:
  Directory();
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  ~Directory();
  // Returns the path.
  std::string write(const std::string& name, const std::string& content) const;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace tls_test
