// Bytes that must not outlive their use: keys, secrets, private keys in DER. They can be moved but
// not copied, and are overwritten by every clear(), move and destructor. Owned by whoever holds the
// value; any thread. Never logged, never turned into text.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace weir::net::tls {

// Overwrites in a way that the compiler may not leave out.
void wipe(void* bytes, size_t size) noexcept;

// A secret of fixed greatest size.
template <size_t kCapacity>
class Secret {
 public:
  Secret() = default;
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  Secret(Secret&& other) noexcept { take(other); }
  Secret& operator=(Secret&& other) noexcept {
    if (this != &other) take(other);
    return *this;
  }
  ~Secret() { clear(); }

  // False, and empty, when there are more bytes than fit.
  bool assign(std::span<const uint8_t> from) noexcept {
    clear();
    if (from.size() > kCapacity) return false;
    for (size_t i = 0; i < from.size(); ++i) bytes_[i] = from[i];
    size_ = static_cast<uint8_t>(from.size());
    return true;
  }
  void clear() noexcept {
    wipe(bytes_.data(), bytes_.size());
    size_ = 0;
  }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] size_t size() const noexcept { return size_; }
  [[nodiscard]] const uint8_t* data() const noexcept { return bytes_.data(); }
  [[nodiscard]] std::span<const uint8_t> bytes() const noexcept { return {bytes_.data(), size_}; }

 private:
  static_assert(kCapacity <= 255);
  void take(Secret& other) noexcept {
    bytes_ = other.bytes_;
    size_ = other.size_;
    other.clear();
  }

  std::array<uint8_t, kCapacity> bytes_{};
  uint8_t size_ = 0;
};

// A secret of any size, in one block of its own that never grows (growing would leave copies).
class SecretBytes {
 public:
  SecretBytes() = default;
  explicit SecretBytes(std::span<const uint8_t> from);
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;
  SecretBytes(SecretBytes&& other) noexcept;
  SecretBytes& operator=(SecretBytes&& other) noexcept;
  ~SecretBytes() { clear(); }

  void clear() noexcept;
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] size_t size() const noexcept { return size_; }
  [[nodiscard]] const uint8_t* data() const noexcept { return bytes_.get(); }
  [[nodiscard]] std::span<const uint8_t> bytes() const noexcept { return {bytes_.get(), size_}; }

 private:
  std::unique_ptr<uint8_t[]> bytes_;
  size_t size_ = 0;
};

}  // namespace weir::net::tls
