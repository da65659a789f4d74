#include <weir/net/tls/ktls.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>

#include <weir/runtime/sys.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

namespace weir::net::tls {

namespace {

namespace sys = runtime::sys;

// Any of the structures that TLS_TX and TLS_RX take; all begin with tls_crypto_info.
union CryptoInfo {
  tls_crypto_info info;
  tls12_crypto_info_aes_gcm_128 aes128;
  tls12_crypto_info_aes_gcm_256 aes256;
  tls12_crypto_info_chacha20_poly1305 chacha;
};

void write_be64(uint8_t* out, uint64_t value) noexcept {
  for (int i = 7; i >= 0; --i, value >>= 8) out[i] = static_cast<uint8_t>(value);
}

uint64_t read_be64(const uint8_t* in) noexcept {
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value = value << 8 | in[i];
  return value;
}

// GCM: the kernel wants the first four bytes of the iv apart, as "salt".
template <class Gcm>
socklen_t fill_gcm(Gcm& out, const RecordKey& key, uint64_t record_number) noexcept {
  std::memcpy(out.salt, key.iv.data(), sizeof out.salt);
  std::memcpy(out.iv, key.iv.data() + sizeof out.salt, sizeof out.iv);
  std::memcpy(out.key, key.key.data(), sizeof out.key);
  write_be64(out.rec_seq, record_number);
  return sizeof out;
}

socklen_t fill(CryptoInfo& out, uint16_t version, KernelCipher cipher, const RecordKey& key,
               uint64_t record_number) noexcept {
  std::memset(&out, 0, sizeof out);
  out.info.version = version;
  switch (cipher) {
    case KernelCipher::kAes128Gcm:
      out.info.cipher_type = TLS_CIPHER_AES_GCM_128;
      return fill_gcm(out.aes128, key, record_number);
    case KernelCipher::kAes256Gcm:
      out.info.cipher_type = TLS_CIPHER_AES_GCM_256;
      return fill_gcm(out.aes256, key, record_number);
    case KernelCipher::kChaCha20Poly1305:
      out.info.cipher_type = TLS_CIPHER_CHACHA20_POLY1305;
      std::memcpy(out.chacha.iv, key.iv.data(), sizeof out.chacha.iv);
      std::memcpy(out.chacha.key, key.key.data(), sizeof out.chacha.key);
      write_be64(out.chacha.rec_seq, record_number);
      return sizeof out.chacha;
  }
  return 0;
}

int option_of(Direction direction) noexcept {
  return direction == Direction::kTx ? TLS_TX : TLS_RX;
}

base::Error set_up_error(int os) noexcept {
  base::Error error = base::from_errno(os);
  switch (os) {
    case ENOENT:       // the cipher's module is missing
    case ENOPROTOOPT:  // no ULP attached, or an option that this kernel has not
    case EBUSY:        // keys are there already and cannot be replaced
      error.code = base::Errc::kUnsupported;
      break;
    case EINVAL: error.code = base::Errc::kInvalid; break;
    case ENOTCONN: error.code = base::Errc::kClosed; break;
    default: break;
  }
  return error;
}

}  // namespace

bool attach_ulp(int fd, int32_t* os) noexcept {
  constexpr std::string_view kName = "tls";
  const int result = sys::setsockopt(fd, IPPROTO_TCP, TCP_ULP, kName.data(), kName.size());
  if (os != nullptr) *os = -result;
  return result == 0;
}

void expect_no_pad(int fd) noexcept {
  const int on = 1;
  (void)sys::setsockopt(fd, SOL_TLS, TLS_RX_EXPECT_NO_PAD, &on, sizeof on);
}

base::Result<bool> expects_no_pad(int fd) noexcept {
  int on = 0;
  socklen_t size = sizeof on;
  const int result = sys::getsockopt(fd, SOL_TLS, TLS_RX_EXPECT_NO_PAD, &on, &size);
  if (result < 0) return base::fail(set_up_error(-result));
  return on != 0;
}

base::Result<uint64_t> read_record_sequence(int fd, Direction direction) noexcept {
  // The option wants the exact size of the cipher's structure, and the cipher is asked for with the
  // size of the common head.
  CryptoInfo crypto{};
  socklen_t size = sizeof crypto.info;
  int result = sys::getsockopt(fd, SOL_TLS, option_of(direction), &crypto, &size);
  if (result < 0) return base::fail(set_up_error(-result));
  const uint8_t* number = nullptr;
  switch (crypto.info.cipher_type) {
    case TLS_CIPHER_AES_GCM_128:
      size = sizeof crypto.aes128;
      number = crypto.aes128.rec_seq;
      break;
    case TLS_CIPHER_AES_GCM_256:
      size = sizeof crypto.aes256;
      number = crypto.aes256.rec_seq;
      break;
    case TLS_CIPHER_CHACHA20_POLY1305:
      size = sizeof crypto.chacha;
      number = crypto.chacha.rec_seq;
      break;
    default: return base::fail(base::Errc::kUnsupported);
  }
  result = sys::getsockopt(fd, SOL_TLS, option_of(direction), &crypto, &size);
  const uint64_t value = result < 0 ? 0 : read_be64(number);
  OPENSSL_cleanse(&crypto, sizeof crypto);  // it holds the key, too
  if (result < 0) return base::fail(set_up_error(-result));
  return value;
}

base::Result<void> KernelTls::install(int fd, Direction direction,
                                      const KernelKeys& keys) noexcept {
  const DirectionKeys& from = direction == Direction::kTx ? keys.tx : keys.rx;
  RecordKey key;
  if (!record_key(keys, direction, key)) return base::fail(base::Errc::kInvalid);
  CryptoInfo crypto;
  const socklen_t size = fill(crypto, keys.version, keys.cipher, key, from.record_number);
  if (size == 0) return base::fail(base::Errc::kInvalid);
  const int result = sys::setsockopt(fd, SOL_TLS, option_of(direction), &crypto, size);
  OPENSSL_cleanse(&crypto, sizeof crypto);
  if (result < 0) return base::fail(set_up_error(-result));
  return {};
}

base::Result<void> KernelTls::rekey(int fd, Direction direction, KernelKeys& keys) noexcept {
  if (keys.version != kTls13) return base::fail(base::Errc::kInvalid);
  KernelKeys next;
  next.version = keys.version;
  next.cipher = keys.cipher;
  next.hash = keys.hash;
  DirectionKeys& from = direction == Direction::kTx ? keys.tx : keys.rx;
  DirectionKeys& to = direction == Direction::kTx ? next.tx : next.rx;
  if (!to.traffic_secret.assign(from.traffic_secret.bytes()) ||
      !next_secret(next.hash, to.traffic_secret)) {
    return base::fail(base::Errc::kInvalid);
  }
  WEIR_TRY_VOID(install(fd, direction, next));
  from = std::move(to);
  return {};
}

}  // namespace weir::net::tls
