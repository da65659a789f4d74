// The certificates that one Context has parsed, newest use first, bounded: what falls out is parsed
// again when a client asks for it. One thread. Private to net/tls.
#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>

#include <weir/net/tls/certificates.h>

#include "openssl.h"

namespace weir::net::tls {

struct ParsedPair {
  OwnedCertificate leaf;
  OwnedChain chain;  // what is behind the leaf; never null
  OwnedKey key;
};

// Empty members when it cannot be parsed, which for a loaded set means out of memory.
ParsedPair parse_pair(OSSL_LIB_CTX* library, const KeyPair& pair);

class CertificateCache {
 public:
  CertificateCache(OSSL_LIB_CTX* library, size_t kept_max) noexcept
      : library_(library), kept_max_(kept_max < kKeyTypes ? kKeyTypes : kept_max) {}

  // Valid until the next call; an SSL that uses it holds references of its own. nullptr: see above.
  const ParsedPair* get(const CertificateSet& set, uint32_t index);
  [[nodiscard]] size_t size() const noexcept { return entries_.size(); }

 private:
  struct Entry {
    uint32_t index;
    ParsedPair pair;
  };
  OSSL_LIB_CTX* library_;
  size_t kept_max_;
  std::list<Entry> entries_;
  std::unordered_map<uint32_t, std::list<Entry>::iterator> places_;
};

}  // namespace weir::net::tls
