// The keys for the kernel, proved without a kernel: records that are sealed and opened here with
// nothing but KernelKeys must be understood by the other side's OpenSSL, with the exact numbers.
#include <cstring>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <openssl/hmac.h>

#include "peers.h"

using namespace weir::net::tls;
using namespace tls_test;

namespace {

std::string expand_label(const DirectionKeys& keys, SuiteHash hash, const std::string& label,
                         size_t size) {
  std::string info = {static_cast<char>(size >> 8), static_cast<char>(size)};
  info += static_cast<char>(6 + label.size());
  info += "tls13 " + label;
  info += '\0';
  info += '\x01';  // the first and only block of HKDF-Expand: no key is longer than a digest
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned out_size = 0;
  HMAC(hash == SuiteHash::kSha384 ? EVP_sha384() : EVP_sha256(), keys.traffic_secret.data(),
       static_cast<int>(keys.traffic_secret.size()),
       reinterpret_cast<const unsigned char*>(info.data()), info.size(), out, &out_size);
  return {reinterpret_cast<char*>(out), size};
}

std::string be64(uint64_t value) {
  std::string bytes(8, '\0');
  for (size_t i = 8; i-- > 0; value >>= 8) bytes[i] = static_cast<char>(value);
  return bytes;
}

// One direction, done by hand.
class Direction {
 public:
  Direction(const KernelKeys& keys, const DirectionKeys& mine)
      : version_(keys.version),
        gcm_(keys.cipher != KernelCipher::kChaCha20Poly1305),
        explicit_(mine.explicit_nonce),
        number_(mine.record_number) {
    cipher_ = keys.cipher == KernelCipher::kAes128Gcm   ? EVP_aes_128_gcm()
              : keys.cipher == KernelCipher::kAes256Gcm ? EVP_aes_256_gcm()
                                                        : EVP_chacha20_poly1305();
    if (version_ == kTls13) {
      key_ = expand_label(mine, keys.hash, "key",
                          static_cast<size_t>(EVP_CIPHER_get_key_length(cipher_)));
      iv_ = expand_label(mine, keys.hash, "iv", 12);
    } else {
      key_.assign(reinterpret_cast<const char*>(mine.key.data()), mine.key.size());
      iv_.assign(reinterpret_cast<const char*>(mine.iv.data()), mine.iv.size());
    }
  }

  std::string seal(const std::string& text) {
    const bool with_explicit = version_ == kTls12 && gcm_;
    std::string inner = version_ == kTls13 ? text + '\x17' : text;
    const std::string nonce = with_explicit ? be64(explicit_++) : std::string();
    const std::string header = head(inner.size() + 16 + nonce.size());
    const std::string aad = version_ == kTls13 ? header : aad12(inner.size());
    const std::string body = crypt(inner, with_explicit ? iv_ + nonce : mixed(), aad, true);
    ++number_;
    return header + nonce + body;
  }

  // Empty when it does not verify.
  std::string open(const std::string& record) {
    const bool with_explicit = version_ == kTls12 && gcm_;
    const std::string nonce = with_explicit ? record.substr(5, 8) : std::string();
    const std::string body = record.substr(5 + nonce.size());
    const std::string aad = version_ == kTls13 ? record.substr(0, 5) : aad12(body.size() - 16);
    std::string inner = crypt(body, with_explicit ? iv_ + nonce : mixed(), aad, false);
    ++number_;
    if (version_ == kTls13 && !inner.empty()) inner.pop_back();  // the type; no padding here
    return inner;
  }

 private:
  static std::string head(size_t size) {
    return {'\x17', '\x03', '\x03', static_cast<char>(size >> 8), static_cast<char>(size)};
  }
  [[nodiscard]] std::string aad12(size_t size) const {
    return be64(number_) + std::string("\x17\x03\x03", 3) + static_cast<char>(size >> 8) +
           static_cast<char>(size);
  }
  [[nodiscard]] std::string mixed() const {
    std::string nonce = iv_;
    const std::string number = be64(number_);
    for (size_t i = 0; i < 8; ++i) nonce[4 + i] = static_cast<char>(nonce[4 + i] ^ number[i]);
    return nonce;
  }
  std::string crypt(const std::string& in, const std::string& nonce, const std::string& aad,
                    bool sealing) const {
    const auto bytes = [](const std::string& text) {
      return reinterpret_cast<const unsigned char*>(text.data());
    };
    EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
    const size_t size = sealing ? in.size() : in.size() - 16;
    std::string out(size + 16, '\0');
    auto* at = reinterpret_cast<unsigned char*>(out.data());
    int n = 0;
    EVP_CipherInit_ex(context, cipher_, nullptr, bytes(key_), bytes(nonce), sealing ? 1 : 0);
    EVP_CipherUpdate(context, nullptr, &n, bytes(aad), static_cast<int>(aad.size()));
    EVP_CipherUpdate(context, at, &n, bytes(in), static_cast<int>(size));
    if (!sealing) {
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, 16,
                          const_cast<unsigned char*>(bytes(in) + size));
    }
    const bool good = EVP_CipherFinal_ex(context, at + size, &n) == 1;
    if (sealing) EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, at + size);
    EVP_CIPHER_CTX_free(context);
    out.resize(sealing ? size + 16 : good ? size : 0);
    return out;
  }

  uint16_t version_;
  bool gcm_;
  const EVP_CIPHER* cipher_ = nullptr;
  std::string key_, iv_;
  uint64_t explicit_;
  uint64_t number_;
};

}  // namespace

TEST_CASE("the keys of every suite go on where OpenSSL stopped") {
  struct Suite {
    uint16_t version;
    const char* name;
  };
  const Suite suite = GENERATE(
      Suite{kTls13, "TLS_AES_128_GCM_SHA256"}, Suite{kTls13, "TLS_AES_256_GCM_SHA384"},
      Suite{kTls13, "TLS_CHACHA20_POLY1305_SHA256"}, Suite{kTls12, "ECDHE-ECDSA-AES128-GCM-SHA256"},
      Suite{kTls12, "ECDHE-ECDSA-AES256-GCM-SHA384"},
      Suite{kTls12, "ECDHE-ECDSA-CHACHA20-POLY1305"}, Suite{kTls12, "ECDHE-RSA-AES256-GCM-SHA384"});
  const bool resumed = GENERATE(false, true);
  const int before = GENERATE(0, 3);  // records each way before the hand-over
  CAPTURE(suite.name, resumed, before);
  ServerPolicy server_settings = server_policy();
  ClientPolicy client_settings = client_policy();
  client_settings.min_version = client_settings.max_version = suite.version;
  (suite.version == kTls13 ? client_settings.ciphersuites : client_settings.ciphers) = suite.name;
  Library library;
  auto server = std::move(
      *Context::make_server(library, server_settings, *World::get().certificates, ring(1)));
  auto client = std::move(*Context::make_client(library, client_settings));
  ResumptionSlot slot(*client);
  std::optional<Pair> pair;
  for (int i = 0; i < (resumed ? 2 : 1); ++i) {
    pair.emplace();
    pair->server = Session::make_server(*server);
    pair->client =
        std::move(*Session::make_client(*client, {.host_name = "a.example", .sessions = &slot}));
    REQUIRE(pair->handshake());
    decrypt(*pair->client, pair->to_client);  // tickets: records for the client's count
    pair->to_client.clear();
  }
  REQUIRE(pair->server->facts().resumed == resumed);
  for (int i = 0; i < before; ++i) {
    REQUIRE(pair->send(*pair->client, "up") == "up");
    REQUIRE(pair->send(*pair->server, "down") == "down");
  }
  SECTION("of the server") {
    const auto keys = pair->server->kernel_keys();
    REQUIRE(keys.has_value());
    CHECK(keys->tx.record_number == static_cast<uint64_t>(before) + 1);  // a ticket or a Finished
    CHECK(keys->rx.record_number == static_cast<uint64_t>(before) + (suite.version == kTls12));
    pair->server.reset();
    Direction tx(*keys, keys->tx);
    Direction rx(*keys, keys->rx);
    for (int i = 0; i < 3; ++i) {
      CHECK(decrypt(*pair->client, tx.seal("kernel says " + std::to_string(i))).plaintext ==
            "kernel says " + std::to_string(i));
      CHECK(rx.open(encrypt(*pair->client, "to the kernel")) == "to the kernel");
    }
  }
  SECTION("of the client") {
    const auto keys = pair->client->kernel_keys();
    REQUIRE(keys.has_value());
    pair->client.reset();
    Direction tx(*keys, keys->tx);
    Direction rx(*keys, keys->rx);
    for (int i = 0; i < 3; ++i) {
      CHECK(decrypt(*pair->server, tx.seal("kernel says " + std::to_string(i))).plaintext ==
            "kernel says " + std::to_string(i));
      CHECK(rx.open(encrypt(*pair->server, "to the kernel")) == "to the kernel");
    }
  }
}

TEST_CASE("a secret is gone from where it was moved") {
  Secret<48> secret;
  const uint8_t bytes[] = {1, 2, 3};
  REQUIRE(secret.assign(bytes));
  const uint8_t* old = secret.data();
  const Secret<48> other = std::move(secret);
  CHECK(other.size() == 3);
  CHECK(old[0] == 0);
  CHECK(!Secret<2>().assign(bytes));
  SecretBytes long_secret(bytes);
  const SecretBytes taken = std::move(long_secret);
  CHECK(taken.size() == 3);
  CHECK(taken.data()[2] == 3);
}
