#include "certificate_cache.h"

namespace weir::net::tls {
namespace {

OwnedCertificate parse_certificate(OSSL_LIB_CTX* library, const Der& der) {
  X509* certificate = X509_new_ex(library, nullptr);
  const unsigned char* at = der.data();
  // On failure d2i frees what it was given.
  return OwnedCertificate(d2i_X509(&certificate, &at, static_cast<long>(der.size())));
}

}  // namespace

ParsedPair parse_pair(OSSL_LIB_CTX* library, const KeyPair& pair) {
  ParsedPair parsed;
  if (pair.chain.empty()) return parsed;
  parsed.chain.reset(sk_X509_new_reserve(nullptr, static_cast<int>(pair.chain.size())));
  for (size_t i = 1; i < pair.chain.size(); ++i) {
    OwnedCertificate certificate = parse_certificate(library, pair.chain[i]);
    if (certificate == nullptr) return {};
    sk_X509_push(parsed.chain.get(), certificate.release());
  }
  parsed.leaf = parse_certificate(library, pair.chain.front());
  const unsigned char* at = pair.key.data();
  parsed.key.reset(
      d2i_AutoPrivateKey_ex(nullptr, &at, static_cast<long>(pair.key.size()), library, nullptr));
  if (parsed.leaf == nullptr || parsed.key == nullptr) return {};
  return parsed;
}

const ParsedPair* CertificateCache::get(const CertificateSet& set, uint32_t index) {
  if (const auto found = places_.find(index); found != places_.end()) {
    entries_.splice(entries_.begin(), entries_, found->second);
    return &entries_.front().pair;
  }
  ParsedPair parsed = parse_pair(library_, set.at(index).pair);
  if (parsed.leaf == nullptr) return nullptr;
  if (entries_.size() == kept_max_) {
    places_.erase(entries_.back().index);
    entries_.pop_back();
  }
  entries_.push_front({index, std::move(parsed)});
  places_[index] = entries_.begin();
  return &entries_.front().pair;
}

}  // namespace weir::net::tls
