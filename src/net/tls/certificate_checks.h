// The checks that one loaded certificate must pass, and what is read from it. Control thread only.
// Errors and warnings are sentences that name the file and the subject. Private to net/tls.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <weir/net/tls/certificates.h>

#include "openssl.h"

namespace weir::net::tls {

using Sentences = std::vector<std::string>;

std::string name_text(const X509_NAME* name);  // RFC 2253, one line of ASCII
int64_t unix_time(const ASN1_TIME* time);
std::string date_text(int64_t unix_s);  // "2026-11-20"
Der der_of(X509* certificate);

struct ParsedChain {
  std::string path;
  std::vector<OwnedCertificate> certificates;  // the server's own first

  [[nodiscard]] X509* leaf() const { return certificates.front().get(); }
  // "FILE (CN=...)": how a message names the i-th.
  [[nodiscard]] std::string place(size_t i) const;
};

// Each certificate is followed by the one that issued it.
void check_order(const ParsedChain& chain, Sentences& errors);
void check_times(const ParsedChain& chain, int64_t now_s, Sentences& errors, Sentences& warnings);
// The key belongs to the first certificate and is of a kind and strength that TLS uses.
std::optional<KeyType> check_key(const ParsedChain& chain, EVP_PKEY* key,
                                 const std::string& key_path, Sentences& errors);
// Extended key usage: an error where a peer would refuse the certificate in this role.
void check_purpose(const ParsedChain& chain, bool server, Sentences& errors);
std::vector<std::string> host_names_of(X509* certificate);  // DNS names of the SAN, normal form

// Puts the response into `certificate`, or says why not. One that is out of date or that says
// "revoked" is a warning and is not stapled: the server stays up.
void load_ocsp(const std::string& path, const ParsedChain& chain, int64_t now_s,
               Certificate& certificate, Sentences& errors, Sentences& warnings);

}  // namespace weir::net::tls
