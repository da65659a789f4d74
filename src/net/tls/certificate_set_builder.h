// Fills a CertificateSet while it is being loaded: names, default, and who was there first. Control
// thread only. Private to net/tls.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <weir/net/tls/certificates.h>

namespace weir::net::tls {

class CertificateSetBuilder {
 public:
  CertificateSetBuilder() : set_(std::make_unique<CertificateSet>()) {}

  uint32_t add(Certificate certificate);
  [[nodiscard]] const Certificate& at(uint32_t index) const { return set_->certificates_[index]; }
  // Takes `name` ("a.example" or "*.a.example", lower case) for the certificate. Returns the
  // certificate that has this name and type of key already, or kNone after taking it.
  uint32_t claim(std::string_view name, uint32_t index);
  uint32_t claim_default(uint32_t index);
  std::unique_ptr<const CertificateSet> finish() { return std::move(set_); }

 private:
  uint32_t take(Choice& choice, uint32_t index);
  std::unique_ptr<CertificateSet> set_;
};

// "A.Example." to "a.example"; empty when it is no host name (or `*.` in front of one).
std::string normal_host_name(std::string_view name);

}  // namespace weir::net::tls
