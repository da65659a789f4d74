// The certificate for trials is one that weir's own loader takes, for the names asked for, and that
// cannot vouch for another.
#include <algorithm>
#include <string>

#include <openssl/x509v3.h>

#include <catch2/catch_test_macros.hpp>

#include <weir/net/tls/certificates.h>
#include <weir/net/tls/self_signed.h>

#include "authority.h"

using namespace weir::net::tls;

namespace {

SelfSigned made(const SelfSignedRequest& request) {
  auto result = make_self_signed(request);
  if (!result) FAIL(result.error());
  return std::move(*result);
}

std::string text_of(const SecretBytes& bytes) {
  return {bytes.bytes().begin(), bytes.bytes().end()};
}

tls_test::CertificatePtr parsed(const Der& der) {
  const unsigned char* at = der.data();
  return tls_test::CertificatePtr(d2i_X509(nullptr, &at, static_cast<long>(der.size())));
}

CertificateLoad loaded(const tls_test::Directory& directory, const SelfSigned& pair,
                       int64_t now_s) {
  CertificateSource source;
  source.cert_path = directory.write("a.crt", pair.certificate_pem);
  source.key_path = directory.write("a.key", text_of(pair.key_pem));
  source.is_default = true;
  const CertificateSource sources[] = {source};
  auto load = load_certificates(sources, now_s);
  if (!load) FAIL(load.error().front());
  return std::move(*load);
}

}  // namespace

TEST_CASE("a self-signed certificate loads, for its names and addresses and no others") {
  const tls_test::Directory directory;
  const int64_t now = tls_test::now_s();
  const SelfSigned pair = made(
      {.hosts = {"Dev.Example", "*.dev.example", "127.0.0.1", "::1"}, .days = 30, .now_s = now});
  const CertificateLoad load = loaded(directory, pair, now);
  CHECK(load.warnings.empty());
  REQUIRE(load.set->size() == 1);
  const Certificate& certificate = load.set->at(0);
  CHECK(certificate.key_type == KeyType::kEcdsa);
  CHECK(certificate.not_after_s == now + 30 * tls_test::kDay);
  CHECK(load.set->pick("dev.example") != nullptr);
  const auto x509 = parsed(certificate.pair.chain.at(0));
  for (const char* name : {"dev.example", "a.dev.example"}) {
    CHECK(X509_check_host(x509.get(), name, 0, 0, nullptr) == 1);
  }
  CHECK(X509_check_host(x509.get(), "other.example", 0, 0, nullptr) == 0);
  CHECK(X509_check_ip_asc(x509.get(), "127.0.0.1", 0) == 1);
  CHECK(X509_check_ip_asc(x509.get(), "::1", 0) == 1);
  CHECK(X509_check_ip_asc(x509.get(), "127.0.0.2", 0) == 0);
  CHECK(X509_check_ca(x509.get()) == 0);
  CHECK(X509_verify(x509.get(), X509_get0_pubkey(x509.get())) == 1);
}

TEST_CASE("no two are alike, and RSA is there for who asks") {
  const tls_test::Directory directory;
  const int64_t now = tls_test::now_s();
  const SelfSignedRequest request{.hosts = {"localhost"}, .now_s = now};
  const SelfSigned first = made(request);
  const SelfSigned second = made(request);
  CHECK(first.certificate_pem != second.certificate_pem);
  CHECK(text_of(first.key_pem) != text_of(second.key_pem));
  const SelfSigned rsa = made({.hosts = {"localhost"}, .rsa = true, .now_s = now});
  CHECK(loaded(directory, rsa, now).set->at(0).key_type == KeyType::kRsa);
}

TEST_CASE("a host that is longer than a common name may be") {
  const tls_test::Directory directory;
  const int64_t now = tls_test::now_s();
  const std::string host = std::string(60, 'a') + "." + std::string(60, 'b') + ".example";
  const CertificateLoad load = loaded(directory, made({.hosts = {host}, .now_s = now}), now);
  CHECK(load.set->pick(host) != nullptr);
}

TEST_CASE("what no certificate can be made for is said") {
  const auto refused = [](const SelfSignedRequest& request) {
    const auto result = make_self_signed(request);
    REQUIRE_FALSE(result);
    return result.error();
  };
  CHECK(refused({.hosts = {}}).find("at least one") != std::string::npos);
  CHECK(refused({.hosts = {"a b"}}).find("\"a b\"") != std::string::npos);
  CHECK(refused({.hosts = {"localhost", "a,DNS:b"}}).find("a,DNS:b") != std::string::npos);
  CHECK(refused({.hosts = {""}}).find("\"\"") != std::string::npos);
  CHECK(refused({.hosts = {"a"}, .days = 0}).find("days") != std::string::npos);
  CHECK(refused({.hosts = {"a"}, .days = 3651}).find("3650") != std::string::npos);
  CHECK(refused({.hosts = std::vector<std::string>(101, "a")}).find("100") != std::string::npos);
}
