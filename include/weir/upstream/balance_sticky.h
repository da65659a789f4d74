// The cookie of a sticky session: which server, since when, signed. It holds a tag made of the
// server's identity with the key, so that it tells nobody an address, and two weirs with one key
// understand each other's. One signer for a core's thread. Nothing is allocated here, but OpenSSL
// copies the state of the key twice for each signature (200 ns in all).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include <openssl/types.h>

namespace weir::upstream {

class StickySigner {
 public:
  static constexpr size_t kKeyBytesMin = 16;
  // '1' (the version), then in hexadecimal: tag (8 bytes), seconds since 1970 (4), HMAC-SHA256 cut
  // to 16 bytes.
  static constexpr size_t kValueBytes = 1 + 2 * (8 + 4 + 16);
  // A clock that is this far ahead of ours is not a forgery.
  static constexpr uint32_t kClockSkewSeconds = 300;

  // Empty for a key of less than kKeyBytesMin, or when OpenSSL has no HMAC.
  static std::optional<StickySigner> make(std::span<const uint8_t> key);

  // Never 0.
  [[nodiscard]] uint64_t tag(uint64_t identity) noexcept;
  // `scope`: the upstream's name; a cookie of one upstream is none of another.
  void write(std::span<char, kValueBytes> out, std::string_view scope, uint64_t tag,
             uint32_t now_seconds) noexcept;
  // The tag of a good value that is not older than `age_max_seconds` (0: of any age).
  [[nodiscard]] std::optional<uint64_t> read(std::string_view value, std::string_view scope,
                                             uint32_t now_seconds,
                                             uint32_t age_max_seconds) noexcept;

 private:
  struct Free {
    void operator()(EVP_MAC_CTX* context) const noexcept;
  };
  explicit StickySigner(EVP_MAC_CTX* context) noexcept : context_(context) {}
  void sign(uint8_t (&mac)[32], uint8_t purpose, std::span<const uint8_t> data,
            std::string_view scope) noexcept;

  std::unique_ptr<EVP_MAC_CTX, Free> context_;  // holds the key
};

}  // namespace weir::upstream
