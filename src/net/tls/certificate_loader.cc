#include <map>
#include <unordered_map>
#include <utility>

#include <weir/net/tls/certificates.h>

#include "certificate_checks.h"
#include "certificate_set_builder.h"
#include "pem_file.h"

namespace weir::net::tls {
namespace {

constexpr size_t kPemBytesMax = 1024 * 1024;
constexpr size_t kPassphraseBytesMax = 1023;  // PEM_BUFSIZE less its final zero
constexpr size_t kChainMax = 16;

// What one pair of files gave: shared by all sources that name the same files.
struct LoadedPair {
  uint32_t index = Choice::kNone;  // kNone: it failed, and this has been said
  std::vector<std::string> names;  // of the certificate
};

std::expected<SecretBytes, std::string> read_passphrase(const std::string& path) {
  auto content = read_secret_file(path, kPassphraseBytesMax);
  if (!content) return content;
  size_t size = 0;
  while (size < content->size() && content->data()[size] != '\n' && content->data()[size] != '\r') {
    ++size;
  }
  if (size == 0) return std::unexpected("the first line of " + path + " is empty: no passphrase");
  return SecretBytes(content->bytes().first(size));
}

// Certificates of issuers that were met before: a CA's certificate is in thousands of files, and
// OpenSSL 3.0 takes 200 us to parse one.
class Issuers {
 public:
  explicit Issuers(OSSL_LIB_CTX* library) : library_(library) {}

  // The server's own is parsed each time. nullptr: it is no certificate.
  OwnedCertificate parse(const SecretBytes& der, bool own) {
    std::string key(der.bytes().begin(), der.bytes().end());
    if (const auto found = known_.find(key); !own && found != known_.end()) {
      X509_up_ref(found->second.get());
      return OwnedCertificate(found->second.get());
    }
    X509* certificate = X509_new_ex(library_, nullptr);
    const unsigned char* at = der.data();
    // On failure d2i frees what it was given.
    OwnedCertificate parsed(d2i_X509(&certificate, &at, static_cast<long>(der.size())));
    if (parsed != nullptr && !own && known_.size() < kKnownMax) {
      X509_up_ref(parsed.get());
      known_.emplace(std::move(key), OwnedCertificate(parsed.get()));
    }
    return parsed;
  }

  [[nodiscard]] OSSL_LIB_CTX* library() const { return library_; }

 private:
  static constexpr size_t kKnownMax = 1024;
  OSSL_LIB_CTX* library_;
  std::unordered_map<std::string, OwnedCertificate> known_;
};

std::expected<ParsedChain, std::string> parse_chain(Issuers& issuers, const std::string& path,
                                                    const SecretBytes& text) {
  auto blocks = pem_blocks(path, text);
  if (!blocks) return std::unexpected(std::move(blocks.error()));
  ParsedChain chain{.path = path, .certificates = {}};
  for (const PemBlock& block : *blocks) {
    if (block.name != "CERTIFICATE" && block.name != "X509 CERTIFICATE") continue;
    if (chain.certificates.size() == kChainMax) {
      return std::unexpected(path + " holds more than " + std::to_string(kChainMax) +
                             " certificates");
    }
    OwnedCertificate certificate = issuers.parse(block.der, chain.certificates.empty());
    if (certificate == nullptr) {
      return std::unexpected("certificate " + std::to_string(chain.certificates.size() + 1) +
                             " in " + path + " cannot be parsed: " + take_error());
    }
    chain.certificates.push_back(std::move(certificate));
  }
  if (chain.certificates.empty()) return std::unexpected(path + " holds no certificate");
  return chain;
}

std::expected<OwnedKey, std::string> load_key(OSSL_LIB_CTX* library,
                                              const CertificateSource& source,
                                              const SecretBytes& cert_text) {
  SecretBytes passphrase;
  if (!source.passphrase_path.empty()) {
    auto read = read_passphrase(source.passphrase_path);
    if (!read) return std::unexpected(std::move(read.error()));
    passphrase = std::move(*read);
  }
  const SecretBytes* opener = passphrase.empty() ? nullptr : &passphrase;
  if (source.key_path.empty()) {
    return read_private_key(library, source.cert_path, cert_text, opener);
  }
  auto text = read_secret_file(source.key_path, kPemBytesMax);
  if (!text) return std::unexpected(std::move(text.error()));
  return read_private_key(library, source.key_path, *text, opener);
}

SecretBytes der_of_key(EVP_PKEY* key) {
  unsigned char* bytes = nullptr;
  const int size = i2d_PrivateKey(key, &bytes);
  if (size <= 0) return {};
  SecretBytes secret({bytes, static_cast<size_t>(size)});
  OPENSSL_clear_free(bytes, static_cast<size_t>(size));
  return secret;
}

struct Loaded {
  Certificate certificate;
  std::vector<std::string> names;
};

// Reads and checks one pair of files. Nothing when there were errors.
std::optional<Loaded> load_pair(Issuers& issuers, const CertificateSource& source, bool server,
                                int64_t now_s, Sentences& errors, Sentences& warnings) {
  const size_t errors_before = errors.size();
  auto text = read_secret_file(source.cert_path, kPemBytesMax);
  if (!text) {
    errors.push_back(std::move(text.error()));
    return std::nullopt;
  }
  auto chain = parse_chain(issuers, source.cert_path, *text);
  if (!chain) errors.push_back(std::move(chain.error()));
  auto key = load_key(issuers.library(), source, *text);
  if (!key) errors.push_back(std::move(key.error()));
  if (!chain || !key) return std::nullopt;
  check_times(*chain, now_s, errors, warnings);
  check_purpose(*chain, server, errors);
  const std::string& key_path = source.key_path.empty() ? source.cert_path : source.key_path;
  const std::optional<KeyType> type = check_key(*chain, key->get(), key_path, errors);
  check_order(*chain, errors);
  Loaded loaded;
  if (!source.ocsp_path.empty() && errors.size() == errors_before) {
    load_ocsp(source.ocsp_path, *chain, now_s, loaded.certificate, errors, warnings);
  }
  if (!type || errors.size() != errors_before) return std::nullopt;
  for (const OwnedCertificate& each : chain->certificates) {
    loaded.certificate.pair.chain.push_back(der_of(each.get()));
  }
  loaded.certificate.pair.key = der_of_key(key->get());
  loaded.certificate.key_type = *type;
  loaded.certificate.subject = name_text(X509_get_subject_name(chain->leaf()));
  loaded.certificate.place = source.cert_path;
  loaded.certificate.not_after_s = unix_time(X509_get0_notAfter(chain->leaf()));
  loaded.names = host_names_of(chain->leaf());
  return loaded;
}

bool covers(const std::vector<std::string>& certificate_names, const std::string& name) {
  const size_t dot = name.find('.');
  for (const std::string& has : certificate_names) {
    if (has == name) return true;
    if (has.starts_with("*.") && dot != std::string::npos &&
        std::string_view(has).substr(1) == std::string_view(name).substr(dot)) {
      return true;
    }
  }
  return false;
}

class Loader {
 public:
  explicit Loader(int64_t now_s)
      : library_(OSSL_LIB_CTX_new()), issuers_(library_.get()), now_s_(now_s) {}

  std::expected<CertificateLoad, Sentences> run(std::span<const CertificateSource> sources) {
    // Names from the configuration first: those from certificates never take them away.
    for (const CertificateSource& source : sources) {
      const LoadedPair& pair = load(source);
      if (pair.index == Choice::kNone) continue;
      for (const std::string& name : source.host_names) claim_configured(source, pair, name);
      if (source.is_default) claim_default(pair);
    }
    for (const CertificateSource& source : sources) {
      if (source.host_names.empty()) claim_own(source, load(source));
    }
    if (!errors_.empty()) return std::unexpected(std::move(errors_));
    return CertificateLoad{.set = builder_.finish(), .warnings = std::move(warnings_)};
  }

 private:
  const LoadedPair& load(const CertificateSource& source) {
    const auto [found, is_new] = pairs_.try_emplace(
        std::tuple(source.cert_path, source.key_path, source.ocsp_path), LoadedPair{});
    if (is_new) {
      auto loaded = load_pair(issuers_, source, true, now_s_, errors_, warnings_);
      if (loaded) {
        found->second.index = builder_.add(std::move(loaded->certificate));
        found->second.names = std::move(loaded->names);
      }
    }
    return found->second;
  }

  void claim_configured(const CertificateSource& source, const LoadedPair& pair,
                        const std::string& name) {
    const std::string normal = normal_host_name(name);
    if (normal.empty()) {
      errors_.push_back("'" + name + "' is not a host name (certificate " + source.cert_path + ")");
      return;
    }
    const uint32_t before = builder_.claim(normal, pair.index);
    if (before != Choice::kNone && before != pair.index) {
      errors_.push_back("two certificates with the same type of key are given for " + normal +
                        ": " + builder_.at(before).place + " and " + source.cert_path);
    }
    if (!covers(pair.names, normal)) {
      warnings_.push_back(source.cert_path + " (" + builder_.at(pair.index).subject +
                          ") does not name " + normal + ": clients will refuse it");
    }
  }

  void claim_own(const CertificateSource& source, const LoadedPair& pair) {
    if (pair.index == Choice::kNone) return;
    if (pair.names.empty() && !source.is_default) {
      errors_.push_back(source.cert_path + " (" + builder_.at(pair.index).subject +
                        ") names no host (subject alternative name) and the configuration gives "
                        "no hostname for it");
    }
    for (const std::string& name : pair.names) {
      const uint32_t before = builder_.claim(name, pair.index);
      if (before == Choice::kNone || before == pair.index) continue;
      warnings_.push_back(source.cert_path + " also names " + name + ", which " +
                          builder_.at(before).place + " serves");
    }
  }

  void claim_default(const LoadedPair& pair) {
    const uint32_t before = builder_.claim_default(pair.index);
    if (before == Choice::kNone || before == pair.index) return;
    errors_.push_back("two default certificates have the same type of key: " +
                      builder_.at(before).place + " and " + builder_.at(pair.index).place);
  }

  OwnedLibrary library_;
  Issuers issuers_;
  int64_t now_s_;
  std::map<std::tuple<std::string, std::string, std::string>, LoadedPair> pairs_;
  CertificateSetBuilder builder_;
  Sentences errors_;
  Sentences warnings_;
};

}  // namespace

std::expected<CertificateLoad, std::vector<std::string>> load_certificates(
    std::span<const CertificateSource> sources, int64_t now_s) {
  return Loader(now_s).run(sources);
}

std::expected<KeyPair, std::string> load_key_pair(const CertificateSource& source, int64_t now_s) {
  const OwnedLibrary library(OSSL_LIB_CTX_new());
  Issuers issuers(library.get());
  Sentences errors;
  Sentences warnings;
  auto loaded = load_pair(issuers, source, false, now_s, errors, warnings);
  if (!loaded) return std::unexpected(std::move(errors.front()));
  return std::move(loaded->certificate.pair);
}

}  // namespace weir::net::tls
