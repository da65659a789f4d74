// Keys for stateless session tickets, shared by all cores: a short ring, the first key seals new
// tickets, all of them open old ones. An immutable value that control makes, rotates and hands to
// every core, which keeps a copy in its Context; the keys are wiped with each copy. Nothing here
// asks for time or chance: control brings both.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <string_view>

#include <weir/net/tls/secret.h>

namespace weir::net::tls {

struct TicketKey {
  std::array<uint8_t, 16> name{};
  // 16 + 16 bytes (a file of 48: AES-128) or 32 + 32 (80: AES-256); HMAC-SHA256 either way.
  std::array<uint8_t, 32> cipher_key{};
  std::array<uint8_t, 32> mac_key{};
  uint8_t key_bytes = 0;
};

class TicketKeyRing {
 public:
  static constexpr size_t kKeysMax = 8;
  static constexpr size_t kSeedBytes = 80;

  // No key: no tickets are given out and none are accepted.
  TicketKeyRing() = default;
  TicketKeyRing(const TicketKeyRing&) = default;
  TicketKeyRing& operator=(const TicketKeyRing&) = default;
  ~TicketKeyRing();

  // The next ring: a new first key out of `random`; of the old ones, `previous_kept` remain.
  [[nodiscard]] TicketKeyRing rotated(std::span<const uint8_t, kSeedBytes> random,
                                      size_t previous_kept) const noexcept;

  // Files of 48 or 80 bytes, the layout of nginx and HAProxy; the first seals.
  static std::expected<TicketKeyRing, std::string> load(std::span<const std::string> paths);
  // The bytes of one such file; added as the last key. False: wrong size, a name that is there
  // already, or no room.
  bool add(std::span<const uint8_t> bytes) noexcept;

  [[nodiscard]] size_t size() const noexcept { return size_; }
  [[nodiscard]] const TicketKey& sealing() const noexcept { return keys_[0]; }
  // By the name in the ticket; nullptr: not ours, or too old.
  [[nodiscard]] const TicketKey* find(std::span<const uint8_t, 16> name) const noexcept;

 private:
  std::array<TicketKey, kKeysMax> keys_{};
  size_t size_ = 0;
};

}  // namespace weir::net::tls
