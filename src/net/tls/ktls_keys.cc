#include <array>
#include <cstring>
#include <span>
#include <string_view>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include <weir/net/tls/kernel_keys.h>
#include <weir/net/tls/ktls.h>

namespace weir::net::tls {

namespace {

evp_mac_ctx_st* make_hmac(ossl_lib_ctx_st* library, const char* digest) noexcept {
  EVP_MAC* mac = EVP_MAC_fetch(library, "HMAC", nullptr);
  if (mac == nullptr) return nullptr;
  EVP_MAC_CTX* context = EVP_MAC_CTX_new(mac);
  EVP_MAC_free(mac);  // the context has its own reference
  if (context == nullptr) return nullptr;
  std::array<char, 16> name{};
  std::memcpy(name.data(), digest, std::strlen(digest));
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name.data(), 0),
      OSSL_PARAM_construct_end()};
  if (EVP_MAC_CTX_set_params(context, parameters) != 1) {
    EVP_MAC_CTX_free(context);
    return nullptr;
  }
  return context;
}

}  // namespace

RecordKey::~RecordKey() { wipe(this, sizeof *this); }

KernelTls::KernelTls(ossl_lib_ctx_st* library) noexcept
    : macs_{make_hmac(library, "SHA256"), make_hmac(library, "SHA384")} {}

KernelTls::~KernelTls() {
  for (evp_mac_ctx_st* mac : macs_) EVP_MAC_CTX_free(mac);
}

bool KernelTls::expand_label(SuiteHash hash, const Secret<48>& secret, std::string_view label,
                             std::span<uint8_t> out) noexcept {
  // Every length asked for fits one block of HKDF-Expand, T(1) = HMAC(secret, info, 0x01), so it is
  // one HMAC; the context is keyed anew and the digest stays fetched.
  constexpr std::string_view kPrefix = "tls13 ";
  constexpr size_t kLabelMax = 24;
  evp_mac_ctx_st* mac = macs_[static_cast<size_t>(hash)];
  if (mac == nullptr || secret.size() != suite_hash_size(hash) || out.empty() ||
      out.size() > suite_hash_size(hash) || label.size() > kLabelMax) {
    return false;
  }
  std::array<uint8_t, 2 + 1 + kPrefix.size() + kLabelMax + 1 + 1> info{};
  size_t at = 0;
  info[at++] = 0;
  info[at++] = static_cast<uint8_t>(out.size());
  info[at++] = static_cast<uint8_t>(kPrefix.size() + label.size());
  std::memcpy(&info[at], kPrefix.data(), kPrefix.size());
  at += kPrefix.size();
  std::memcpy(&info[at], label.data(), label.size());
  at += label.size();
  info[at++] = 0;  // the context is empty
  info[at++] = 1;  // the number of the block
  std::array<uint8_t, 64> block{};
  size_t written = 0;
  const bool done = EVP_MAC_init(mac, secret.data(), secret.size(), nullptr) == 1 &&
                    EVP_MAC_update(mac, info.data(), at) == 1 &&
                    EVP_MAC_final(mac, block.data(), &written, block.size()) == 1 &&
                    written == secret.size();
  if (done) std::memcpy(out.data(), block.data(), out.size());
  wipe(block.data(), block.size());
  return done;
}

bool KernelTls::next_secret(SuiteHash hash, Secret<48>& secret) noexcept {
  std::array<uint8_t, 48> next{};
  const std::span<uint8_t> room(next.data(), suite_hash_size(hash));
  const bool done = expand_label(hash, secret, "traffic upd", room) && secret.assign(room);
  wipe(next.data(), next.size());
  return done;
}

bool KernelTls::record_key(const KernelKeys& keys, Direction direction, RecordKey& out) noexcept {
  const DirectionKeys& from = direction == Direction::kTx ? keys.tx : keys.rx;
  const size_t key_size = kernel_key_size(keys.cipher);
  out = {};
  if (keys.version == kTls13) {
    return expand_label(keys.hash, from.traffic_secret, "key", {out.key.data(), key_size}) &&
           expand_label(keys.hash, from.traffic_secret, "iv", out.iv);
  }
  const size_t implicit = implicit_iv_size(keys.cipher);
  if (keys.version != kTls12 || from.key.size() != key_size || from.iv.size() != implicit) {
    return false;
  }
  std::memcpy(out.key.data(), from.key.data(), key_size);
  std::memcpy(out.iv.data(), from.iv.data(), implicit);
  uint64_t rest = direction == Direction::kTx ? from.explicit_nonce : from.record_number;
  for (size_t at = out.iv.size(); at > implicit; --at, rest >>= 8) {
    out.iv[at - 1] = static_cast<uint8_t>(rest);
  }
  return true;
}

}  // namespace weir::net::tls
