#include <weir/upstream/balance_sticky.h>

#include <array>
#include <cstring>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <weir/base/check.h>

namespace weir::upstream {
namespace {

constexpr char kVersion = '1';
constexpr size_t kMacBytes = 16;
constexpr size_t kSignedBytes = 8 + 4;
constexpr uint8_t kPurposeTag = 1;
constexpr uint8_t kPurposeCookie = 2;

void put_big_endian(uint8_t* out, uint64_t value, size_t bytes) noexcept {
  for (size_t i = bytes; i > 0; --i, value >>= 8) out[i - 1] = static_cast<uint8_t>(value);
}

uint64_t big_endian(const uint8_t* from, size_t bytes) noexcept {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) value = value << 8 | from[i];
  return value;
}

// Lower case only: a value has one spelling.
int digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

void StickySigner::Free::operator()(EVP_MAC_CTX* context) const noexcept {
  EVP_MAC_CTX_free(context);
}

std::optional<StickySigner> StickySigner::make(std::span<const uint8_t> key) {
  if (key.size() < kKeyBytesMin) return std::nullopt;
  EVP_MAC* mac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  if (mac == nullptr) return std::nullopt;
  StickySigner signer(EVP_MAC_CTX_new(mac));
  EVP_MAC_free(mac);  // the context keeps it
  char digest[] = "SHA256";
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_end()};
  if (!signer.context_ ||
      EVP_MAC_init(signer.context_.get(), key.data(), key.size(), parameters) != 1) {
    return std::nullopt;
  }
  return signer;
}

// The data have a fixed length for each purpose, so the scope after them needs no separator.
void StickySigner::sign(uint8_t (&mac)[32], uint8_t purpose, std::span<const uint8_t> data,
                        std::string_view scope) noexcept {
  EVP_MAC_CTX* context = context_.get();
  size_t length = 0;
  // Without a key: begin again with the one that is there. None of these can fail then.
  WEIR_CHECK(EVP_MAC_init(context, nullptr, 0, nullptr) == 1);
  WEIR_CHECK(EVP_MAC_update(context, &purpose, 1) == 1);
  WEIR_CHECK(EVP_MAC_update(context, data.data(), data.size()) == 1);
  WEIR_CHECK(
      EVP_MAC_update(context, reinterpret_cast<const uint8_t*>(scope.data()), scope.size()) == 1);
  WEIR_CHECK(EVP_MAC_final(context, mac, &length, sizeof(mac)) == 1 && length == sizeof(mac));
}

uint64_t StickySigner::tag(uint64_t identity) noexcept {
  uint8_t data[8];
  put_big_endian(data, identity, 8);
  uint8_t mac[32];
  sign(mac, kPurposeTag, data, {});
  const uint64_t tag = big_endian(mac, 8);
  return tag == 0 ? 1 : tag;
}

void StickySigner::write(std::span<char, kValueBytes> out, std::string_view scope, uint64_t tag,
                         uint32_t now_seconds) noexcept {
  std::array<uint8_t, kSignedBytes + kMacBytes> bytes;
  put_big_endian(bytes.data(), tag, 8);
  put_big_endian(bytes.data() + 8, now_seconds, 4);
  uint8_t mac[32];
  sign(mac, kPurposeCookie, std::span(bytes).first(kSignedBytes), scope);
  std::memcpy(bytes.data() + kSignedBytes, mac, kMacBytes);
  constexpr char kDigits[] = "0123456789abcdef";
  char* to = out.data();
  *to++ = kVersion;
  for (const uint8_t byte : bytes) {
    *to++ = kDigits[byte >> 4];
    *to++ = kDigits[byte & 15];
  }
}

std::optional<uint64_t> StickySigner::read(std::string_view value, std::string_view scope,
                                           uint32_t now_seconds,
                                           uint32_t age_max_seconds) noexcept {
  if (value.size() != kValueBytes || value[0] != kVersion) return std::nullopt;
  std::array<uint8_t, kSignedBytes + kMacBytes> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const int high = digit(value[1 + 2 * i]);
    const int low = digit(value[2 + 2 * i]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  uint8_t mac[32];
  sign(mac, kPurposeCookie, std::span(bytes).first(kSignedBytes), scope);
  if (CRYPTO_memcmp(bytes.data() + kSignedBytes, mac, kMacBytes) != 0) return std::nullopt;
  const uint64_t written = big_endian(bytes.data() + 8, 4);
  if (written > uint64_t{now_seconds} + kClockSkewSeconds) return std::nullopt;
  if (age_max_seconds != 0 && written + age_max_seconds < now_seconds) return std::nullopt;
  return big_endian(bytes.data(), 8);
}

}  // namespace weir::upstream
