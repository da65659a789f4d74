#include "certificate_checks.h"

#include <cstdio>
#include <ctime>

#include "certificate_set_builder.h"

namespace weir::net::tls {
namespace {

constexpr int64_t kDayS = 24 * 3600;
constexpr int64_t kWarnDays = 14;
constexpr int kRsaBitsMin = 2048;  // OpenSSL's security level 2, which we run at, refuses less

std::optional<KeyType> key_type(const EVP_PKEY* key) {
  switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_EC: return KeyType::kEcdsa;
    case EVP_PKEY_RSA: return KeyType::kRsa;
    case EVP_PKEY_ED25519:
    case EVP_PKEY_ED448: return KeyType::kEdDsa;
    default: return std::nullopt;
  }
}

bool curve_is_usable(const EVP_PKEY* key) {
  char name[64];
  size_t size = 0;
  if (EVP_PKEY_get_group_name(key, name, sizeof(name), &size) != 1) return false;
  const std::string_view curve(name, size);
  return curve == "prime256v1" || curve == "secp384r1" || curve == "secp521r1";
}

}  // namespace

std::string name_text(const X509_NAME* name) {
  const OwnedBio bio(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(bio.get(), name, 0, XN_FLAG_RFC2253);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return size > 0 ? std::string(text, static_cast<size_t>(size)) : std::string();
}

int64_t unix_time(const ASN1_TIME* time) {
  std::tm broken{};
  if (ASN1_TIME_to_tm(time, &broken) != 1) return 0;
  return timegm(&broken);
}

std::string date_text(int64_t unix_s) {
  const time_t when = unix_s;
  std::tm broken{};
  gmtime_r(&when, &broken);
  char text[32];
  std::snprintf(text, sizeof(text), "%04d-%02d-%02d", broken.tm_year + 1900, broken.tm_mon + 1,
                broken.tm_mday);
  return text;
}

Der der_of(X509* certificate) {
  unsigned char* bytes = nullptr;
  const int size = i2d_X509(certificate, &bytes);
  const OwnedBytes owner(bytes);
  return size > 0 ? Der(bytes, bytes + size) : Der();
}

std::string ParsedChain::place(size_t i) const {
  std::string text = path + " (";
  if (i > 0) text += "certificate " + std::to_string(i + 1) + ", ";
  const std::string subject = name_text(X509_get_subject_name(certificates[i].get()));
  return text + (subject.empty() ? "empty subject" : subject) + ")";
}

void check_order(const ParsedChain& chain, Sentences& errors) {
  for (size_t i = 0; i + 1 < chain.certificates.size(); ++i) {
    X509* certificate = chain.certificates[i].get();
    X509* issuer = chain.certificates[i + 1].get();
    const bool issued = X509_check_issued(issuer, certificate) == X509_V_OK &&
                        X509_verify(certificate, X509_get0_pubkey(issuer)) == 1;
    ERR_clear_error();
    if (issued) continue;
    errors.push_back(chain.place(i + 1) + " did not issue certificate " + std::to_string(i + 1) +
                     " of the file, whose issuer is " +
                     name_text(X509_get_issuer_name(certificate)) +
                     ": put the server's certificate first and behind each one its issuer");
    return;
  }
}

void check_times(const ParsedChain& chain, int64_t now_s, Sentences& errors, Sentences& warnings) {
  for (size_t i = 0; i < chain.certificates.size(); ++i) {
    const X509* certificate = chain.certificates[i].get();
    const int64_t from = unix_time(X509_get0_notBefore(certificate));
    const int64_t to = unix_time(X509_get0_notAfter(certificate));
    if (now_s > to) {
      errors.push_back(chain.place(i) + " expired on " + date_text(to));
    } else if (now_s < from) {
      errors.push_back(chain.place(i) + " is not valid before " + date_text(from));
    } else if (to - now_s < kWarnDays * kDayS) {
      warnings.push_back(chain.place(i) + " expires on " + date_text(to) + ", in " +
                         std::to_string((to - now_s) / kDayS) + " days");
    }
  }
}

std::optional<KeyType> check_key(const ParsedChain& chain, EVP_PKEY* key,
                                 const std::string& key_path, Sentences& errors) {
  EVP_PKEY* public_key = X509_get0_pubkey(chain.leaf());
  if (public_key == nullptr) {
    errors.push_back(chain.place(0) + " has a public key that cannot be used: " + take_error());
    return std::nullopt;
  }
  const std::optional<KeyType> type = key_type(public_key);
  if (!type) {
    errors.push_back(chain.place(0) + " has a key that is neither ECDSA nor RSA nor EdDSA");
    return std::nullopt;
  }
  if (*type == KeyType::kRsa && EVP_PKEY_get_bits(public_key) < kRsaBitsMin) {
    errors.push_back(chain.place(0) + " has an RSA key of " +
                     std::to_string(EVP_PKEY_get_bits(public_key)) + " bits, at least " +
                     std::to_string(kRsaBitsMin) + " are needed");
  }
  if (*type == KeyType::kEcdsa && !curve_is_usable(public_key)) {
    errors.push_back(chain.place(0) + " has a key on a curve other than P-256, P-384 and P-521");
  }
  const bool same = EVP_PKEY_eq(public_key, key) == 1;
  ERR_clear_error();
  if (same) return type;
  std::string text = "the private key in " + key_path + " does not belong to " + chain.place(0);
  for (size_t i = 1; i < chain.certificates.size(); ++i) {
    if (EVP_PKEY_eq(X509_get0_pubkey(chain.certificates[i].get()), key) == 1) {
      text += " but to certificate " + std::to_string(i + 1) + " of that file: put it first";
    }
  }
  ERR_clear_error();
  errors.push_back(std::move(text));
  return std::nullopt;
}

void check_purpose(const ParsedChain& chain, bool server, Sentences& errors) {
  const uint32_t usage = X509_get_extended_key_usage(chain.leaf());  // UINT32_MAX: no extension
  const uint32_t needed = server ? XKU_SSL_SERVER : XKU_SSL_CLIENT;
  if (usage == UINT32_MAX || (usage & (needed | XKU_ANYEKU)) != 0) return;
  errors.push_back(chain.place(0) + " is not for TLS " + (server ? "servers" : "clients") +
                   " (extended key usage)");
}

std::vector<std::string> host_names_of(X509* certificate) {
  std::vector<std::string> found;
  const OwnedGeneralNames names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  if (names == nullptr) return found;
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_DNS) continue;
    const auto* text = reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName));
    std::string normal =
        normal_host_name({text, static_cast<size_t>(ASN1_STRING_length(name->d.dNSName))});
    if (!normal.empty()) found.push_back(std::move(normal));
  }
  return found;
}

}  // namespace weir::net::tls
