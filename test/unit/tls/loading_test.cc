// Loading of certificates: every complaint by its sentence, names, defaults, and ten thousand.
#include <algorithm>
#include <chrono>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "peers.h"

using namespace weir::net::tls;
using namespace tls_test;

namespace {

using Sources = std::vector<CertificateSource>;

std::string only_error(const Sources& sources) {
  const auto loaded = load_certificates(sources, now_s());
  REQUIRE(!loaded.has_value());
  REQUIRE(loaded.error().size() == 1);
  return loaded.error().front();
}

std::string subject_for(const CertificateSet& set, std::string_view name, KeyType type) {
  const Choice* choice = set.pick(name);
  if (choice == nullptr) return "(none)";
  const uint32_t index = choice->by_type[static_cast<size_t>(type)];
  return index == Choice::kNone ? "(no such key)" : set.at(index).subject;
}

struct Files {
  const World& world = World::get();
  Directory dir;

  CertificateSource write(const std::string& cert, const std::string& key) const {
    CertificateSource source;
    source.cert_path = dir.write("c.pem", cert);
    source.key_path = dir.write("k.pem", key);
    return source;
  }
  [[nodiscard]] std::string at(const std::string& name) const { return dir.path() + "/" + name; }
};

}  // namespace

TEST_CASE("what is wrong with a certificate is said in a sentence") {
  const Files files;
  const World& world = files.world;
  const std::string chain = chain_pem(world, world.ecdsa);
  const std::string key = world.ecdsa.key_pem();
  CertificateSource source = files.write(chain, key);
  const std::string cert_path = source.cert_path;

  SECTION("missing file") {
    source.cert_path = files.at("nothing.pem");
    CHECK(only_error({source}) ==
          "cannot open " + source.cert_path + ": No such file or directory");
  }
  SECTION("no certificate") {
    files.dir.write("c.pem", key);
    CHECK(only_error({source}) == cert_path + " holds no certificate");
  }
  SECTION("no key") {
    files.dir.write("k.pem", chain);
    CHECK(only_error({source}) == source.key_path + " holds no private key");
  }
  SECTION("two keys") {
    files.dir.write("k.pem", key + world.rsa.key_pem());
    CHECK(only_error({source}) == source.key_path + " holds more than one private key");
  }
  SECTION("broken certificate") {
    files.dir.write("c.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    CHECK(only_error({source}).starts_with("certificate 1 in " + cert_path + " cannot be parsed"));
  }
  SECTION("broken PEM") {
    std::string cut = chain;
    cut.resize(cut.size() - 100);
    files.dir.write("c.pem", cut);
    CHECK(only_error({source}).starts_with(cert_path + " is not valid PEM"));
  }
  SECTION("the key of another") {
    files.dir.write("k.pem", world.wildcard.key_pem());
    CHECK(only_error({source}) == "the private key in " + source.key_path + " does not belong to " +
                                      cert_path + " (CN=a ecdsa)");
  }
  SECTION("the key of the second in the file") {
    files.dir.write("c.pem", world.intermediate.certificate_pem() + world.root.certificate_pem() +
                                 world.ecdsa.certificate_pem());
    const auto loaded = load_certificates(Sources{source}, now_s());
    REQUIRE(!loaded.has_value());
    CHECK(loaded.error().front().ends_with("but to certificate 3 of that file: put it first"));
  }
  SECTION("chain in the wrong order") {
    files.dir.write("c.pem", world.ecdsa.certificate_pem() + world.root.certificate_pem() +
                                 world.intermediate.certificate_pem());
    CHECK(only_error({source}) ==
          cert_path +
              " (certificate 2, CN=Root) did not issue certificate 1 of the file, whose "
              "issuer is CN=Intermediate: put the server's certificate first and behind "
              "each one its issuer");
  }
  SECTION("expired") {
    const Issued old = issue({.common_name = "old", .san = {"DNS:o.example"}, .to_s = -2 * kDay},
                             &world.intermediate);
    source = files.write(chain_pem(world, old), old.key_pem());
    CHECK(only_error({source}).starts_with(cert_path + " (CN=old) expired on 20"));
  }
  SECTION("not yet valid") {
    const Issued young = issue({.common_name = "young", .san = {"DNS:o.example"}, .from_s = kDay},
                               &world.intermediate);
    source = files.write(chain_pem(world, young), young.key_pem());
    CHECK(only_error({source}).starts_with(cert_path + " (CN=young) is not valid before 20"));
  }
  SECTION("weak RSA") {
    const Issued weak =
        issue({.common_name = "weak", .san = {"DNS:o.example"}, .kind = Kind::kRsa1024},
              &world.intermediate);
    source = files.write(chain_pem(world, weak), weak.key_pem());
    CHECK(only_error({source}) == cert_path +
                                      " (CN=weak) has an RSA key of 1024 bits, at least "
                                      "2048 are needed");
  }
  SECTION("for clients only") {
    const Issued other =
        issue({.common_name = "c", .san = {"DNS:o.example"}, .extended_usage = "clientAuth"},
              &world.intermediate);
    source = files.write(chain_pem(world, other), other.key_pem());
    CHECK(only_error({source}) ==
          cert_path + " (CN=c) is not for TLS servers (extended key usage)");
  }
  SECTION("no name at all") {
    const Issued nameless = issue({.common_name = "nameless"}, &world.intermediate);
    source = files.write(chain_pem(world, nameless), nameless.key_pem());
    CHECK(only_error({source}) ==
          cert_path +
              " (CN=nameless) names no host (subject alternative name) and the "
              "configuration gives no hostname for it");
  }
  SECTION("bad configured name") {
    source.host_names = {"a..example"};
    CHECK(only_error({source}) ==
          "'a..example' is not a host name (certificate " + cert_path + ")");
  }
  SECTION("too large") {
    files.dir.write("c.pem", std::string(1024 * 1024 + 1, 'x'));
    CHECK(only_error({source}) == cert_path + " is larger than 1048576 bytes");
  }
}

TEST_CASE("all errors are reported, not only the first") {
  const Files files;
  CertificateSource a;
  a.cert_path = files.at("a.pem");
  CertificateSource b;
  b.cert_path = files.at("b.pem");
  const auto loaded = load_certificates(Sources{a, b}, now_s());
  REQUIRE(!loaded.has_value());
  CHECK(loaded.error().size() == 2);
}

TEST_CASE("encrypted keys") {
  const Files files;
  const World& world = files.world;
  CertificateSource source =
      files.write(chain_pem(world, world.ecdsa), world.ecdsa.key_pem("open sesame"));
  SECTION("right") {
    source.passphrase_path = files.dir.write("pass", "open sesame\nsecond line\n");
    CHECK(load_certificates(Sources{source}, now_s()).has_value());
  }
  SECTION("wrong") {
    source.passphrase_path = files.dir.write("pass", "guess\n");
    CHECK(only_error({source}).starts_with("the private key in " + source.key_path +
                                           " does not open with the passphrase given"));
  }
  SECTION("none") {
    CHECK(only_error({source}) == "the private key in " + source.key_path +
                                      " is encrypted and no passphrase file is given");
  }
  SECTION("empty") {
    source.passphrase_path = files.dir.write("pass", "\n");
    CHECK(only_error({source}) ==
          "the first line of " + source.passphrase_path + " is empty: no passphrase");
  }
}

TEST_CASE("certificate and key in one file") {
  const Files files;
  CertificateSource source;
  source.cert_path = files.dir.write(
      "all.pem", files.world.ecdsa.key_pem() + chain_pem(files.world, files.world.ecdsa));
  CHECK(load_certificates(Sources{source}, now_s()).has_value());
}

TEST_CASE("names, types of key and the default") {
  const CertificateSet& set = *World::get().certificates;
  CHECK(set.size() == 4);
  CHECK(set.names() == 3);
  CHECK(subject_for(set, "a.example", KeyType::kEcdsa) == "CN=a ecdsa");
  CHECK(subject_for(set, "a.example.", KeyType::kRsa) == "CN=a rsa");
  CHECK(subject_for(set, "b.wild.example", KeyType::kEcdsa) == "CN=wild");
  CHECK(subject_for(set, "b.wild.example", KeyType::kRsa) == "(no such key)");
  CHECK(subject_for(set, "b.c.wild.example", KeyType::kEcdsa) == "CN=default");
  CHECK(subject_for(set, ".wild.example", KeyType::kEcdsa) == "CN=default");
  CHECK(subject_for(set, "", KeyType::kEcdsa) == "CN=default");
  CHECK(subject_for(set, std::string(300, 'a'), KeyType::kEcdsa) == "CN=default");
}

TEST_CASE("without a default an unknown name has no certificate") {
  const World& world = World::get();
  const auto loaded = load_certificates(Sources{world.source("one", world.ecdsa)}, now_s());
  REQUIRE(loaded.has_value());
  CHECK(loaded->set->pick("other.example") == nullptr);
  CHECK(loaded->set->pick("") == nullptr);
  CHECK(loaded->set->pick("a.example") != nullptr);
}

TEST_CASE("configured names win over those of certificates") {
  const World& world = World::get();
  const Issued both = issue({.common_name = "both", .san = {"DNS:a.example", "DNS:b.example"}},
                            &world.intermediate);
  CertificateSource own = world.source("both", both);
  CertificateSource configured = world.source("ecdsa2", world.ecdsa);
  configured.host_names = {"A.example."};
  const auto loaded = load_certificates(Sources{own, configured}, now_s());
  REQUIRE(loaded.has_value());
  CHECK(subject_for(*loaded->set, "a.example", KeyType::kEcdsa) == "CN=a ecdsa");
  CHECK(subject_for(*loaded->set, "b.example", KeyType::kEcdsa) == "CN=both");
  REQUIRE(loaded->warnings.size() == 1);
  CHECK(loaded->warnings.front() ==
        own.cert_path + " also names a.example, which " + configured.cert_path + " serves");
  SECTION("two for one configured name") {
    own.host_names = {"a.example"};
    CHECK(only_error({own, configured}) ==
          "two certificates with the same type of key are given for a.example: " + own.cert_path +
              " and " + configured.cert_path);
  }
  SECTION("two defaults") {
    own.is_default = configured.is_default = true;
    CHECK(only_error({own, configured}) == "two default certificates have the same type of key: " +
                                               own.cert_path + " and " + configured.cert_path);
  }
  SECTION("a name that the certificate has not") {
    configured.host_names = {"z.example"};
    const auto warned = load_certificates(Sources{configured}, now_s());
    REQUIRE(warned.has_value());
    REQUIRE(warned->warnings.size() == 1);
    CHECK(warned->warnings.front() == configured.cert_path +
                                          " (CN=a ecdsa) does not name z.example: clients will "
                                          "refuse it");
  }
}

TEST_CASE("soon to expire is a warning") {
  const Files files;
  const Issued soon =
      issue({.common_name = "soon", .san = {"DNS:s.example"}, .to_s = 10 * kDay + 3600},
            &files.world.intermediate);
  const auto source = files.write(chain_pem(files.world, soon), soon.key_pem());
  const auto loaded = load_certificates(Sources{source}, now_s());
  REQUIRE(loaded.has_value());
  REQUIRE(loaded->warnings.size() == 1);
  CHECK(loaded->warnings.front().ends_with(", in 10 days"));
}

TEST_CASE("other kinds of key") {
  const Files files;
  const Kind kind = GENERATE(Kind::kP384, Kind::kEd25519, Kind::kRsa2048);
  const Issued leaf = issue({.common_name = "k", .san = {"DNS:k.example"}, .kind = kind},
                            &files.world.intermediate);
  const auto source = files.write(chain_pem(files.world, leaf), leaf.key_pem());
  const auto loaded = load_certificates(Sources{source}, now_s());
  REQUIRE(loaded.has_value());
  CHECK(loaded->set->at(0).key_type == (kind == Kind::kP384      ? KeyType::kEcdsa
                                        : kind == Kind::kEd25519 ? KeyType::kEdDsa
                                                                 : KeyType::kRsa));
}

TEST_CASE("OCSP responses are checked against the certificate") {
  const Files files;
  const World& world = files.world;
  CertificateSource source = files.write(chain_pem(world, world.ecdsa), world.ecdsa.key_pem());
  const auto staple = [&](const std::string& response) {
    source.ocsp_path = files.dir.write("ocsp.der", response);
  };
  const auto warning = [&] {
    const auto loaded = load_certificates(Sources{source}, now_s());
    REQUIRE(loaded.has_value());
    CHECK(loaded->set->at(0).ocsp_response.empty());
    REQUIRE(loaded->warnings.size() == 1);
    return loaded->warnings.front();
  };
  SECTION("good") {
    staple(ocsp_response(world.intermediate, world.ecdsa, false, kDay));
    const auto loaded = load_certificates(Sources{source}, now_s());
    REQUIRE(loaded.has_value());
    CHECK(!loaded->set->at(0).ocsp_response.empty());
    CHECK(loaded->warnings.empty());
  }
  SECTION("garbage") {
    staple("nonsense");
    CHECK(only_error({source}) == source.ocsp_path + " is not an OCSP response (DER)");
  }
  SECTION("for another certificate") {
    staple(ocsp_response(world.intermediate, world.rsa, false, kDay));
    CHECK(only_error({source}) == source.ocsp_path +
                                      " is an OCSP response for another certificate than " +
                                      source.cert_path + " (CN=a ecdsa)");
  }
  SECTION("signed by somebody else") {
    staple(ocsp_response_signed(world.intermediate, world.ecdsa, world.stranger, kDay));
    CHECK(only_error({source}) == source.ocsp_path + " is an OCSP response that the issuer of " +
                                      source.cert_path + " (CN=a ecdsa) did not sign");
  }
  SECTION("revoked") {
    staple(ocsp_response(world.intermediate, world.ecdsa, true, kDay));
    CHECK(warning() == source.ocsp_path + " says that " + source.cert_path +
                           " (CN=a ecdsa) is revoked; it is not stapled");
  }
  SECTION("out of date") {
    staple(ocsp_response(world.intermediate, world.ecdsa, false, -kDay));
    CHECK(warning().starts_with(source.ocsp_path + " is out of date since 20"));
  }
}

TEST_CASE("CA files, revocation lists, client pairs") {
  const Files files;
  const World& world = files.world;
  const std::string cas = files.dir.write(
      "ca.pem", world.root.certificate_pem() + world.stranger_root.certificate_pem());
  const auto loaded = load_ca_file(cas);
  REQUIRE(loaded.has_value());
  CHECK(loaded->size() == 2);
  CHECK(loaded->front() == world.root.der());
  CHECK(load_crl_file(cas).error() == cas + " holds no revocation list");
  const std::string key = files.dir.write("key.pem", world.root.key_pem());
  CHECK(load_ca_file(key).error() == key + " holds no certificate");

  const CertificateSource source =
      files.write(chain_pem(world, world.client), world.client.key_pem());
  const auto pair = load_key_pair(source, now_s());
  REQUIRE(pair.has_value());
  CHECK(pair->chain.size() == 2);
  const Issued server_only =
      issue({.common_name = "s", .extended_usage = "serverAuth"}, &world.intermediate);
  const auto refused =
      load_key_pair(files.write(chain_pem(world, server_only), server_only.key_pem()), now_s());
  REQUIRE(!refused.has_value());
  CHECK(refused.error().ends_with("is not for TLS clients (extended key usage)"));
}

TEST_CASE("ten thousand names load, and are found as fast as ten") {
  const Files files;
  // 1,000 certificates with 10 names each, half of them wildcards: signing is the slow part here.
  const auto sources_for = [&](size_t certificates) {
    Sources sources;
    for (size_t i = 0; i < certificates; ++i) {
      Leaf leaf{.common_name = "n" + std::to_string(i)};
      for (int j = 0; j < 10; ++j) {
        leaf.san.push_back((j % 2 == 0 ? "DNS:*.w" : "DNS:x") + std::to_string(i) + "-" +
                           std::to_string(j) + ".example");
      }
      const Issued issued = issue(leaf, &files.world.intermediate);
      CertificateSource source;
      const std::string name = std::to_string(i);
      source.cert_path = files.dir.write(name + ".crt", chain_pem(files.world, issued));
      source.key_path = files.dir.write(name + ".key", issued.key_pem());
      sources.push_back(source);
    }
    return sources;
  };
  const auto lookup_ns = [](const CertificateSet& set, size_t certificates) {
    std::vector<std::string> names;
    for (size_t i = 0; i < 1000; ++i) {
      const std::string number = std::to_string(i * 7919 % certificates);
      names.push_back(i % 2 == 0 ? "h.w" + number + "-4.example" : "x" + number + "-5.example");
    }
    double best = 1e18;
    for (int round = 0; round < 20; ++round) {
      const auto start = std::chrono::steady_clock::now();
      size_t found = 0;
      for (const std::string& name : names) found += set.pick(name) != nullptr ? 1 : 0;
      const std::chrono::duration<double, std::nano> spent =
          std::chrono::steady_clock::now() - start;
      REQUIRE(found == names.size());
      best = std::min(best, spent.count() / 1000);
    }
    return best;
  };
  const auto few = load_certificates(sources_for(1), now_s());
  const Sources sources = sources_for(1000);
  const auto start = std::chrono::steady_clock::now();
  const auto many = load_certificates(sources, now_s());
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
  REQUIRE(few.has_value());
  REQUIRE(many.has_value());
  CHECK(many->set->names() == 10000);
  const double few_ns = lookup_ns(*few->set, 1);
  const double many_ns = lookup_ns(*many->set, 1000);
  WARN("1,000 certificates with 10,000 names: " << spent.count() << " s; one lookup: " << few_ns
                                                << " ns of 10, " << many_ns << " ns of 10,000");
  CHECK(many_ns < 20 * few_ns + 500);  // cache misses, not a search
}
