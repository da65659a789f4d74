// Certificates and their keys: loaded and checked from files by the control thread, then kept as an
// immutable index by host name. A CertificateSet holds plain bytes and no object of OpenSSL, so
// that any number of cores read it by const reference without a lock or a shared count; each core
// parses what it needs (Context). It must outlive every Context made of it. Nothing here asks for
// the time: the caller says what "now" is.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <weir/net/tls/secret.h>

namespace weir::net::tls {

using Der = std::vector<uint8_t>;

// A certificate (first), the chain behind it, and the private key of the first, all DER.
struct KeyPair {
  std::vector<Der> chain;
  SecretBytes key;

  KeyPair() = default;
  KeyPair(KeyPair&&) = default;
  KeyPair& operator=(KeyPair&&) = default;
  KeyPair(const KeyPair& other);  // a policy is a value; the key is wiped wherever it is
  KeyPair& operator=(const KeyPair& other);
  ~KeyPair() = default;
};

enum class KeyType : uint8_t { kEcdsa, kRsa, kEdDsa };
inline constexpr size_t kKeyTypes = 3;

struct Certificate {
  KeyPair pair;
  KeyType key_type = KeyType::kEcdsa;
  Der ocsp_response;               // empty: nothing is stapled
  int64_t ocsp_next_update_s = 0;  // do not staple after this (0: says nothing)
  std::string subject;             // for messages
  std::string place;               // the file it came from
  int64_t not_after_s = 0;         // Unix time
};

// The certificates that serve one name, by type of key; kNone where there is none.
struct Choice {
  static constexpr uint32_t kNone = UINT32_MAX;
  std::array<uint32_t, kKeyTypes> by_type{kNone, kNone, kNone};
  friend bool operator==(const Choice&, const Choice&) = default;
};

class CertificateSet {
 public:
  // For the server name of a ClientHello, in any case, with or without a final dot; empty: the
  // client sent none. Exact name, then `*.` for one label (RFC 6125 6.4.3), then the default.
  // nullptr: nothing fits and there is no default. Constant time.
  [[nodiscard]] const Choice* pick(std::string_view server_name) const noexcept;
  [[nodiscard]] const Certificate& at(uint32_t index) const noexcept {
    return certificates_[index];
  }
  [[nodiscard]] size_t size() const noexcept { return certificates_.size(); }
  [[nodiscard]] size_t names() const noexcept { return exact_.size() + wildcard_.size(); }
  [[nodiscard]] const Choice* fallback() const noexcept {
    return has_default_ ? &default_ : nullptr;
  }

  CertificateSet() = default;
  CertificateSet(const CertificateSet&) = delete;
  CertificateSet& operator=(const CertificateSet&) = delete;

 private:
  friend class CertificateSetBuilder;
  struct NameHash {
    using is_transparent = void;
    size_t operator()(std::string_view name) const noexcept;
  };
  using Names = std::unordered_map<std::string, Choice, NameHash, std::equal_to<>>;

  std::vector<Certificate> certificates_;
  Names exact_;
  Names wildcard_;  // "*.example.com" under "example.com"
  Choice default_;
  bool has_default_ = false;
};

// One entry of the configuration.
struct CertificateSource {
  std::string cert_path;        // PEM: the certificate, then its chain
  std::string key_path;         // PEM; empty: in cert_path
  std::string passphrase_path;  // first line of this file opens the key; empty: no passphrase
  std::string ocsp_path;        // DER response to staple; empty: none
  std::vector<std::string> host_names;  // exact or `*.name`; empty: those of the certificate
  bool is_default = false;              // also for clients without or with an unknown name
};

struct CertificateLoad {
  std::unique_ptr<const CertificateSet> set;
  std::vector<std::string> warnings;  // sentences: expires soon, name not in the certificate, ...
};

// All of them, or every reason why not: sentences that name the file, the subject and what is
// wrong. Expired is an error, less than 14 days is a warning. Two entries may serve one name if
// their keys are of different types. Without any `is_default` there is no default. Reads files:
// control only.
std::expected<CertificateLoad, std::vector<std::string>> load_certificates(
    std::span<const CertificateSource> sources, int64_t now_s);

// One pair, for a ClientPolicy: the same checks.
std::expected<KeyPair, std::string> load_key_pair(const CertificateSource& source, int64_t now_s);

// Trust anchors: every certificate of a PEM file. At least one.
std::expected<std::vector<Der>, std::string> load_ca_file(const std::string& path);
// Those of the system ($SSL_CERT_FILE, else where this OpenSSL keeps them).
std::expected<std::vector<Der>, std::string> load_system_cas();
// Revocation lists of a PEM file. At least one.
std::expected<std::vector<Der>, std::string> load_crl_file(const std::string& path);

}  // namespace weir::net::tls
