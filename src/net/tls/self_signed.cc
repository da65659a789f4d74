#include <weir/net/tls/self_signed.h>

#include <algorithm>
#include <array>
#include <optional>

#include <weir/base/ip.h>
#include <weir/runtime/sys.h>

#include "certificate_set_builder.h"
#include "openssl.h"

namespace weir::net::tls {
namespace {

constexpr unsigned kRsaBits = 2048;
constexpr size_t kSerialBytes = 16;
constexpr size_t kCommonNameMax = 64;   // of X.520
constexpr int64_t kClockSlackS = 3600;  // of clients whose clocks are late
constexpr int64_t kDayS = 24 * 3600;

using OwnedExtension = Owned<X509_EXTENSION, X509_EXTENSION_free>;
using OwnedNumber = Owned<BIGNUM, BN_free>;

std::string failed(const char* what) { return std::string(what) + ": " + take_error(); }

// A name or an address of the subject alternative name; nullptr: neither.
GENERAL_NAME* general_name(const std::string& host) {
  GENERAL_NAME* name = GENERAL_NAME_new();
  if (const auto ip = base::IpAddress::parse(host)) {
    ASN1_OCTET_STRING* bytes = a2i_IPADDRESS(ip->to_string().c_str());
    GENERAL_NAME_set0_value(name, GEN_IPADD, bytes);
    return name;
  }
  const std::string normal = normal_host_name(host);
  ASN1_IA5STRING* text = ASN1_IA5STRING_new();
  ASN1_STRING_set(text, normal.data(), static_cast<int>(normal.size()));
  GENERAL_NAME_set0_value(name, GEN_DNS, text);
  return name;
}

bool add_text_extension(X509* certificate, int id, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  const OwnedExtension extension(X509V3_EXT_conf_nid(nullptr, &context, id, value));
  return extension != nullptr && X509_add_ext(certificate, extension.get(), -1) == 1;
}

bool add_names(X509* certificate, const std::vector<std::string>& hosts) {
  const OwnedGeneralNames names(sk_GENERAL_NAME_new_null());
  for (const std::string& host : hosts) {
    sk_GENERAL_NAME_push(names.get(), general_name(host));
  }
  return X509_add1_ext_i2d(certificate, NID_subject_alt_name, names.get(), 0, X509V3_ADD_APPEND) ==
         1;
}

bool set_subject(X509* certificate, const std::string& host) {
  X509_NAME* subject = X509_get_subject_name(certificate);
  const auto add = [subject](const char* field, const std::string& value) {
    return X509_NAME_add_entry_by_txt(subject, field, MBSTRING_UTF8,
                                      reinterpret_cast<const unsigned char*>(value.data()),
                                      static_cast<int>(value.size()), -1, 0) == 1;
  };
  // A longer host is in the alternative names, where clients look for it.
  return add("O", "weir self-signed") && add("CN", host.substr(0, kCommonNameMax)) &&
         X509_set_issuer_name(certificate, subject) == 1;
}

bool set_serial(X509* certificate) {
  std::array<unsigned char, kSerialBytes> bytes;
  runtime::sys::random_bytes(bytes.data(), bytes.size());
  bytes[0] = static_cast<unsigned char>((bytes[0] & 0x3f) | 0x40);  // positive, and of full length
  const OwnedNumber number(BN_bin2bn(bytes.data(), bytes.size(), nullptr));
  return BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

std::optional<std::string> fill(X509* certificate, EVP_PKEY* key,
                                const SelfSignedRequest& request) {
  const int64_t end_s = request.now_s + request.days * kDayS;
  const bool good =
      X509_set_version(certificate, X509_VERSION_3) == 1 && set_serial(certificate) &&
      ASN1_TIME_set(X509_getm_notBefore(certificate), request.now_s - kClockSlackS) != nullptr &&
      ASN1_TIME_set(X509_getm_notAfter(certificate), end_s) != nullptr &&
      X509_set_pubkey(certificate, key) == 1 && set_subject(certificate, request.hosts.front()) &&
      add_names(certificate, request.hosts) &&
      // It must not be able to vouch for others, should somebody trust it for good.
      add_text_extension(certificate, NID_basic_constraints, "critical,CA:FALSE") &&
      add_text_extension(certificate, NID_key_usage, "critical,digitalSignature") &&
      add_text_extension(certificate, NID_ext_key_usage, "serverAuth") &&
      add_text_extension(certificate, NID_subject_key_identifier, "hash") &&
      X509_sign(certificate, key, EVP_sha256()) > 0;
  if (!good) return failed("the certificate cannot be made");
  return std::nullopt;
}

std::string text_of(BIO* bio) {
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio, &text);
  return size > 0 ? std::string(text, static_cast<size_t>(size)) : std::string();
}

std::optional<std::string> check(const SelfSignedRequest& request) {
  if (request.hosts.empty()) return "a certificate is for at least one host";
  if (request.hosts.size() > SelfSignedRequest::kHostsMax) {
    return "a certificate is for at most " + std::to_string(SelfSignedRequest::kHostsMax) +
           " hosts";
  }
  for (const std::string& host : request.hosts) {
    if (!base::IpAddress::parse(host) && normal_host_name(host).empty()) {
      return "\"" + host + "\" is neither a host name nor an IP address";
    }
  }
  if (request.days == 0 || request.days > SelfSignedRequest::kDaysMax) {
    return "a certificate is valid for 1 to " + std::to_string(SelfSignedRequest::kDaysMax) +
           " days";
  }
  return std::nullopt;
}

}  // namespace

std::expected<SelfSigned, std::string> make_self_signed(const SelfSignedRequest& request) {
  if (auto wrong = check(request)) return std::unexpected(std::move(*wrong));
  const OwnedKey key(request.rsa ? EVP_RSA_gen(kRsaBits) : EVP_EC_gen("P-256"));
  if (key == nullptr) return std::unexpected(failed("the key cannot be made"));
  const OwnedCertificate certificate(X509_new());
  if (auto wrong = fill(certificate.get(), key.get(), request)) {
    return std::unexpected(std::move(*wrong));
  }
  SelfSigned made;
  const OwnedBio certificate_text(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(certificate_text.get(), certificate.get());
  made.certificate_pem = text_of(certificate_text.get());
  const OwnedBio key_text(BIO_new(BIO_s_secmem()));  // wiped when it is freed
  PEM_write_bio_PKCS8PrivateKey(key_text.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(key_text.get(), &bytes);
  if (made.certificate_pem.empty() || size <= 0) {
    return std::unexpected(failed("the certificate cannot be written as PEM"));
  }
  made.key_pem = SecretBytes({reinterpret_cast<const uint8_t*>(bytes), static_cast<size_t>(size)});
  return made;
}

}  // namespace weir::net::tls
