#include "ktls_seal.h"

#include <array>
#include <cstring>
#include <memory>

#include <openssl/evp.h>

namespace weir::net::tls {

namespace {

constexpr size_t kHeaderSize = 5;
constexpr size_t kTagSize = 16;
constexpr size_t kIvSize = 12;
constexpr size_t kExplicitSize = 8;

struct FreeCipher {
  void operator()(EVP_CIPHER_CTX* context) const noexcept { EVP_CIPHER_CTX_free(context); }
};
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, FreeCipher>;

const EVP_CIPHER* algorithm(KernelCipher cipher) {
  switch (cipher) {
    case KernelCipher::kAes128Gcm: return EVP_aes_128_gcm();
    case KernelCipher::kAes256Gcm: return EVP_aes_256_gcm();
    default: return EVP_chacha20_poly1305();
  }
}

// Does every record carry eight bytes of its nonce?
bool is_explicit(uint16_t version, KernelCipher cipher) {
  return version == kTls12 && cipher != KernelCipher::kChaCha20Poly1305;
}

// The nonce of one record: the iv with the record number folded in, unless it is on the wire.
std::array<uint8_t, kIvSize> nonce_of(bool on_wire, const RecordKey& key, uint64_t number) {
  auto nonce = key.iv;
  for (size_t i = 0; i < 8 && !on_wire; ++i) {
    nonce[kIvSize - 1 - i] ^= static_cast<uint8_t>(number >> (8 * i));
  }
  return nonce;
}

struct Associated {
  std::array<uint8_t, 13> bytes{};
  int size = 0;
};

// `outer` is the five-byte header on the wire; TLS 1.2 authenticates another one.
Associated associated(uint16_t version, std::span<const uint8_t> outer, uint64_t number,
                      size_t plain_size) {
  Associated result;
  if (version == kTls13) {
    std::memcpy(result.bytes.data(), outer.data(), kHeaderSize);
    result.size = kHeaderSize;
    return result;
  }
  for (size_t i = 0; i < 8; ++i) {
    result.bytes[i] = static_cast<uint8_t>(number >> (8 * (7 - i)));
  }
  std::memcpy(&result.bytes[8], outer.data(), 3);
  result.bytes[11] = static_cast<uint8_t>(plain_size >> 8);
  result.bytes[12] = static_cast<uint8_t>(plain_size);
  result.size = 13;
  return result;
}

bool start(EVP_CIPHER_CTX* context, KernelCipher cipher, bool sealing, const RecordKey& key,
           const std::array<uint8_t, kIvSize>& nonce, const Associated& also) {
  int ignored = 0;
  return EVP_CipherInit_ex2(context, algorithm(cipher), key.key.data(), nonce.data(), sealing,
                            nullptr) == 1 &&
         EVP_CipherUpdate(context, nullptr, &ignored, also.bytes.data(), also.size) == 1;
}

}  // namespace

std::vector<uint8_t> seal_record(uint16_t version, KernelCipher cipher, const RecordKey& key,
                                 uint64_t number, RecordType type, std::span<const uint8_t> bytes) {
  const bool on_wire = is_explicit(version, cipher);
  const bool inner = version == kTls13;
  const size_t lead = kHeaderSize + (on_wire ? kExplicitSize : 0);
  std::vector<uint8_t> plain(bytes.begin(), bytes.end());
  if (inner) plain.push_back(static_cast<uint8_t>(type));
  std::vector<uint8_t> wire(lead + plain.size() + kTagSize);
  const size_t body = wire.size() - kHeaderSize;
  wire[0] = static_cast<uint8_t>(inner ? RecordType::kData : type);
  wire[1] = wire[2] = 3;
  wire[3] = static_cast<uint8_t>(body >> 8);
  wire[4] = static_cast<uint8_t>(body);
  const auto nonce = nonce_of(on_wire, key, number);
  if (on_wire) {
    std::memcpy(&wire[kHeaderSize], &nonce[kIvSize - kExplicitSize], kExplicitSize);
  }
  const CipherContext context(EVP_CIPHER_CTX_new());
  int size = 0;
  int rest = 0;
  if (!start(context.get(), cipher, true, key, nonce,
             associated(version, wire, number, plain.size())) ||
      EVP_CipherUpdate(context.get(), &wire[lead], &size, plain.data(),
                       static_cast<int>(plain.size())) != 1 ||
      EVP_CipherFinal_ex(context.get(), &wire[lead] + size, &rest) != 1 ||
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, kTagSize,
                          &wire[wire.size() - kTagSize]) != 1) {
    return {};
  }
  return wire;
}

std::optional<OpenedRecord> open_record(uint16_t version, KernelCipher cipher, const RecordKey& key,
                                        uint64_t number, std::span<const uint8_t> wire) {
  const bool on_wire = is_explicit(version, cipher);
  const size_t lead = kHeaderSize + (on_wire ? kExplicitSize : 0);
  if (wire.size() < lead + kTagSize || wire[1] != 3 || wire[2] != 3 ||
      size_t{wire[3]} * 256 + wire[4] != wire.size() - kHeaderSize) {
    return std::nullopt;
  }
  RecordKey exact = key;
  if (on_wire) {
    std::memcpy(&exact.iv[kIvSize - kExplicitSize], &wire[kHeaderSize], kExplicitSize);
  }
  const auto nonce = nonce_of(on_wire, exact, number);
  const size_t sealed = wire.size() - lead - kTagSize;
  std::array<uint8_t, kTagSize> tag{};
  std::memcpy(tag.data(), wire.data() + wire.size() - kTagSize, kTagSize);
  OpenedRecord result;
  result.bytes.resize(sealed);
  const CipherContext context(EVP_CIPHER_CTX_new());
  int size = 0;
  int rest = 0;
  uint8_t none = 0;
  uint8_t* out = sealed > 0 ? result.bytes.data() : &none;
  if (!start(context.get(), cipher, false, exact, nonce,
             associated(version, wire, number, sealed)) ||
      EVP_CipherUpdate(context.get(), out, &size, wire.data() + lead, static_cast<int>(sealed)) !=
          1 ||
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, kTagSize, tag.data()) != 1 ||
      EVP_CipherFinal_ex(context.get(), out + size, &rest) != 1) {
    return std::nullopt;
  }
  result.type = RecordType{wire[0]};
  if (version == kTls13) {
    while (!result.bytes.empty() && result.bytes.back() == 0) result.bytes.pop_back();  // padding
    if (result.bytes.empty()) return std::nullopt;
    result.type = RecordType{result.bytes.back()};
    result.bytes.pop_back();
  }
  return result;
}

}  // namespace weir::net::tls
