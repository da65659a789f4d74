#include <weir/net/tls/secret.h>

#include <algorithm>
#include <utility>

#include <openssl/crypto.h>

namespace weir::net::tls {

void wipe(void* bytes, size_t size) noexcept { OPENSSL_cleanse(bytes, size); }

SecretBytes::SecretBytes(std::span<const uint8_t> from)
    : bytes_(std::make_unique<uint8_t[]>(from.size())), size_(from.size()) {
  std::copy(from.begin(), from.end(), bytes_.get());
}

SecretBytes::SecretBytes(SecretBytes&& other) noexcept
    : bytes_(std::move(other.bytes_)), size_(std::exchange(other.size_, 0)) {}

SecretBytes& SecretBytes::operator=(SecretBytes&& other) noexcept {
  if (this != &other) {
    clear();
    bytes_ = std::move(other.bytes_);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

void SecretBytes::clear() noexcept {
  if (bytes_ != nullptr) wipe(bytes_.get(), size_);
  bytes_.reset();
  size_ = 0;
}

}  // namespace weir::net::tls
