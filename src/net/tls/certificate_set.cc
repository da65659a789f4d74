#include <weir/base/hash.h>
#include <weir/base/text.h>
#include <weir/net/tls/certificates.h>

#include "certificate_set_builder.h"

namespace weir::net::tls {
namespace {

constexpr size_t kNameMax = 253;
constexpr size_t kLabelMax = 63;

}  // namespace

KeyPair::KeyPair(const KeyPair& other) : chain(other.chain), key(other.key.bytes()) {}

KeyPair& KeyPair::operator=(const KeyPair& other) {
  if (this != &other) {
    chain = other.chain;
    key = SecretBytes(other.key.bytes());
  }
  return *this;
}

size_t CertificateSet::NameHash::operator()(std::string_view name) const noexcept {
  // The names are ours and a lookup adds none: a fixed seed gives an attacker nothing.
  return base::hash_bytes(name);
}

const Choice* CertificateSet::pick(std::string_view server_name) const noexcept {
  if (server_name.ends_with('.')) server_name.remove_suffix(1);
  if (server_name.empty() || server_name.size() > kNameMax) return fallback();
  char lower[kNameMax];
  for (size_t i = 0; i < server_name.size(); ++i) lower[i] = base::to_lower(server_name[i]);
  const std::string_view name(lower, server_name.size());
  if (const auto found = exact_.find(name); found != exact_.end()) return &found->second;
  if (const size_t dot = name.find('.'); dot != std::string_view::npos && dot > 0) {
    if (const auto found = wildcard_.find(name.substr(dot + 1)); found != wildcard_.end()) {
      return &found->second;
    }
  }
  return fallback();
}

uint32_t CertificateSetBuilder::add(Certificate certificate) {
  set_->certificates_.push_back(std::move(certificate));
  return static_cast<uint32_t>(set_->certificates_.size() - 1);
}

uint32_t CertificateSetBuilder::take(Choice& choice, uint32_t index) {
  uint32_t& place = choice.by_type[static_cast<size_t>(at(index).key_type)];
  const uint32_t before = place;
  if (before == Choice::kNone) place = index;
  return before;
}

uint32_t CertificateSetBuilder::claim(std::string_view name, uint32_t index) {
  const bool wildcard = name.starts_with("*.");
  CertificateSet::Names& names = wildcard ? set_->wildcard_ : set_->exact_;
  return take(names[std::string(wildcard ? name.substr(2) : name)], index);
}

uint32_t CertificateSetBuilder::claim_default(uint32_t index) {
  set_->has_default_ = true;
  return take(set_->default_, index);
}

std::string normal_host_name(std::string_view name) {
  if (name.ends_with('.')) name.remove_suffix(1);
  std::string_view rest = name.starts_with("*.") ? name.substr(2) : name;
  if (rest.empty() || name.size() > kNameMax) return {};
  size_t label = 0;
  for (const char c : rest) {
    const char low = base::to_lower(c);
    const bool letter =
        (low >= 'a' && low <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    if (c == '.' ? label == 0 : !letter || label == kLabelMax) return {};
    label = c == '.' ? 0 : label + 1;
  }
  return label == 0 ? std::string() : base::lowercase(name);
}

}  // namespace weir::net::tls
