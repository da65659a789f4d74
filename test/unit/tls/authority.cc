#include "authority.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>

#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include <weir/base/check.h>

namespace tls_test {
namespace {

std::string take_text(BIO* bio) {
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio, &text);
  std::string copy(text, static_cast<size_t>(size));
  BIO_free(bio);
  return copy;
}

void add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  WEIR_CHECK(extension != nullptr);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

const EVP_MD* digest_for(EVP_PKEY* key) {
  return EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519 ? nullptr : EVP_sha256();
}

}  // namespace

int64_t now_s() { return std::time(nullptr); }

KeyPtr make_key(Kind kind) {
  switch (kind) {
    case Kind::kP256: return KeyPtr(EVP_EC_gen("P-256"));
    case Kind::kP384: return KeyPtr(EVP_EC_gen("P-384"));
    case Kind::kRsa2048: return KeyPtr(EVP_RSA_gen(2048));
    case Kind::kRsa1024: return KeyPtr(EVP_RSA_gen(1024));
    case Kind::kEd25519: return KeyPtr(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  }
  return nullptr;
}

std::string Issued::certificate_pem() const {
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(bio, certificate.get());
  return take_text(bio);
}

std::string Issued::key_pem(const std::string& passphrase) const {
  BIO* bio = BIO_new(BIO_s_mem());
  const bool open = passphrase.empty();
  PEM_write_bio_PKCS8PrivateKey(bio, key.get(), open ? nullptr : EVP_aes_256_cbc(),
                                open ? nullptr : passphrase.data(),
                                static_cast<int>(passphrase.size()), nullptr, nullptr);
  return take_text(bio);
}

weir::net::tls::Der Issued::der() const {
  unsigned char* bytes = nullptr;
  const int size = i2d_X509(certificate.get(), &bytes);
  weir::net::tls::Der der(bytes, bytes + size);
  OPENSSL_free(bytes);
  return der;
}

Issued issue(const Leaf& leaf, const Issued* issuer) {
  static std::atomic<long> serial{1000};
  Issued made{.certificate = CertificatePtr(X509_new()), .key = make_key(leaf.kind)};
  X509* certificate = made.certificate.get();
  X509* signer = issuer == nullptr ? certificate : issuer->certificate.get();
  X509_set_version(certificate, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(certificate), leaf.from_s);
  X509_gmtime_adj(X509_getm_notAfter(certificate), leaf.to_s);
  X509_NAME* name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(leaf.common_name.c_str()), -1,
                             -1, 0);
  X509_set_issuer_name(certificate, X509_get_subject_name(signer));
  X509_set_pubkey(certificate, made.key.get());
  add_extension(certificate, signer, NID_basic_constraints,
                leaf.authority ? "critical,CA:TRUE" : "CA:FALSE");
  add_extension(certificate, signer, NID_subject_key_identifier, "hash");
  if (issuer != nullptr) {
    add_extension(certificate, signer, NID_authority_key_identifier, "keyid:always");
  }
  if (leaf.authority) {
    add_extension(certificate, signer, NID_key_usage,
                  "critical,keyCertSign,cRLSign,digitalSignature");
  }
  if (!leaf.extended_usage.empty()) {
    add_extension(certificate, signer, NID_ext_key_usage, leaf.extended_usage);
  }
  std::string san;
  for (const std::string& each : leaf.san) san += (san.empty() ? "" : ",") + each;
  if (!san.empty()) add_extension(certificate, signer, NID_subject_alt_name, san);
  EVP_PKEY* signing = issuer == nullptr ? made.key.get() : issuer->key.get();
  WEIR_CHECK(X509_sign(certificate, signing, digest_for(signing)) > 0);
  return made;
}

std::string revocation_list(const Issued& issuer, const std::vector<const Issued*>& revoked) {
  X509_CRL* list = X509_CRL_new();
  X509_CRL_set_version(list, X509_CRL_VERSION_2);
  X509_CRL_set_issuer_name(list, X509_get_subject_name(issuer.certificate.get()));
  ASN1_TIME* time = X509_gmtime_adj(nullptr, -3600);
  X509_CRL_set1_lastUpdate(list, time);
  for (const Issued* each : revoked) {
    X509_REVOKED* entry = X509_REVOKED_new();
    X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(each->certificate.get()));
    X509_REVOKED_set_revocationDate(entry, time);
    X509_CRL_add0_revoked(list, entry);
  }
  X509_gmtime_adj(time, 30 * kDay);
  X509_CRL_set1_nextUpdate(list, time);
  ASN1_TIME_free(time);
  WEIR_CHECK(X509_CRL_sign(list, issuer.key.get(), digest_for(issuer.key.get())) > 0);
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509_CRL(bio, list);
  X509_CRL_free(list);
  return take_text(bio);
}

namespace {

std::string make_ocsp(const Issued& issuer, const Issued& subject, const Issued& signer,
                      bool revoked, int64_t next_update_s) {
  OCSP_BASICRESP* basic = OCSP_BASICRESP_new();
  OCSP_CERTID* id =
      OCSP_cert_to_id(EVP_sha1(), subject.certificate.get(), issuer.certificate.get());
  ASN1_TIME* this_update = X509_gmtime_adj(nullptr, -2 * kDay);
  ASN1_TIME* next_update = X509_gmtime_adj(nullptr, next_update_s);
  OCSP_basic_add1_status(basic, id, revoked ? V_OCSP_CERTSTATUS_REVOKED : V_OCSP_CERTSTATUS_GOOD, 0,
                         revoked ? this_update : nullptr, this_update, next_update);
  WEIR_CHECK(OCSP_basic_sign(basic, signer.certificate.get(), signer.key.get(), EVP_sha256(),
                             nullptr, 0) == 1);
  OCSP_RESPONSE* response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
  unsigned char* bytes = nullptr;
  const int size = i2d_OCSP_RESPONSE(response, &bytes);
  std::string der(reinterpret_cast<char*>(bytes), static_cast<size_t>(size));
  OPENSSL_free(bytes);
  OCSP_RESPONSE_free(response);
  OCSP_BASICRESP_free(basic);
  OCSP_CERTID_free(id);
  ASN1_TIME_free(this_update);
  ASN1_TIME_free(next_update);
  return der;
}

}  // namespace

std::string ocsp_response(const Issued& issuer, const Issued& subject, bool revoked,
                          int64_t next_update_s) {
  return make_ocsp(issuer, subject, issuer, revoked, next_update_s);
}

std::string ocsp_response_signed(const Issued& issuer, const Issued& subject, const Issued& signer,
                                 int64_t next_update_s) {
  return make_ocsp(issuer, subject, signer, false, next_update_s);
}

Directory::Directory() {
  std::string pattern = (std::filesystem::temp_directory_path() / "weir_tls_XXXXXX").string();
  WEIR_CHECK(mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

Directory::~Directory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string Directory::write(const std::string& name, const std::string& content) const {
  const std::string file = path_ + "/" + name;
  std::FILE* out = std::fopen(file.c_str(), "wb");
  WEIR_CHECK(out != nullptr);
  WEIR_CHECK(std::fwrite(content.data(), 1, content.size(), out) == content.size());
  WEIR_CHECK(std::fclose(out) == 0);
  return file;
}

}  // namespace tls_test
