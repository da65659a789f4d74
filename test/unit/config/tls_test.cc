// [tls], [[tls.certificates]], listeners with TLS and TLS to upstreams: what they mean, and every
// mistake with its text and place.
#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/config/lower.h>
#include <weir/control/config/schema.h>
#include <weir/net/tls/policy.h>
#include <weir/net/tls/tickets.h>

#include "config_cases.h"

using namespace weir::control::config;
using namespace weir::control::config::test;
using namespace std::chrono_literals;

namespace {

using Lines = std::vector<std::string>;

struct Case {
  std::string text;
  Lines errors;
};

void check(const std::vector<Case>& cases) {
  for (const Case& one : cases) {
    INFO(one.text);
    CHECK(errors_of(one.text) == one.errors);
  }
}

Config good(const std::string& text) {
  const LoadResult result = load_text(completed(text));
  INFO(text);
  REQUIRE(lines_of(result.errors) == Lines{});
  return result.config;
}

Lines warnings_of(const std::string& text) {
  const LoadResult result = load_text(completed(text));
  REQUIRE(lines_of(result.errors) == Lines{});
  return lines_of(result.warnings);
}

// Used by a route, so that nobody warns of it.
std::string upstream(const std::string& lines) {
  return "[upstream.a]\n" + lines + "\n[[route]]\nproxy = \"a\"\n";
}

}  // namespace

TEST_CASE("tls: defaults") {
  const Config config = good("");
  const TlsSettings& tls = config.tls;
  CHECK(tls.place == Place{});
  CHECK(tls.cert_path.empty());
  CHECK(tls.key_path.empty());
  CHECK(tls.key_passphrase_file.empty());
  CHECK(tls.ocsp_response_path.empty());
  CHECK(tls.certificates.empty());
  CHECK(tls.min_version == TlsVersion::kTls12);
  CHECK(tls.max_version == TlsVersion::kTls13);
  CHECK(tls.ciphers == weir::net::tls::kDefaultCiphers);
  CHECK(tls.ciphersuites == weir::net::tls::kDefaultCiphersuites);
  CHECK(tls.groups == weir::net::tls::kDefaultGroups);
  CHECK(tls.alpn == Lines{"http/1.1"});
  CHECK(tls.handshake_timeout == 10s);
  CHECK(tls.session_tickets);
  CHECK(tls.session_lifetime == 24h);
  CHECK(tls.ticket_key_files.empty());
  CHECK(tls.ticket_rotation == 12h);
  CHECK(tls.previous_ticket_keys() == 2);
  CHECK(tls.ktls_enabled);
  CHECK(tls.ktls_fallback_enabled);
  CHECK(tls.client_auth == ClientAuth::kOff);
  CHECK(tls.client_ca_path.empty());
  CHECK(tls.client_crl_path.empty());
  CHECK(tls.client_verify_depth == 4);
  CHECK_FALSE(tls.client_cert_headers);
  CHECK_FALSE(config.listeners[0].tls);
  CHECK(config.listeners[0].redirect_https == 0);
  CHECK_FALSE(config.upstream_defaults.tls);
  CHECK(config.upstream_defaults.tls_verify);
  CHECK(config.upstream_defaults.tls_ca_path.empty());
  CHECK(config.upstream_defaults.tls_server_name.empty());
  CHECK(config.upstream_defaults.tls_cert_path.empty());
  CHECK(config.upstream_defaults.tls_key_path.empty());
  CHECK(config.upstream_defaults.tls_min_version == TlsVersion::kTls12);
}

TEST_CASE("tls: member initialisers agree with the schema") {
  UpstreamSettings settings;
  settings.tls = true;
  apply_defaults(section("upstream.NAME"), &settings);
  CHECK(settings == UpstreamSettings{});
  CertificateFiles files;
  files.is_default = true;
  apply_defaults(section("tls.certificates"), &files);
  CHECK(files.is_default == CertificateFiles{}.is_default);
}

TEST_CASE("tls: what the file and the engine have in common") {
  CHECK(wire_version(TlsVersion::kTls12) == weir::net::tls::kTls12);
  CHECK(wire_version(TlsVersion::kTls13) == weir::net::tls::kTls13);
  CHECK(kTicketKeysMax == weir::net::tls::TicketKeyRing::kKeysMax);
  const weir::net::tls::ServerPolicy policy;
  CHECK(TlsSettings{}.client_verify_depth == policy.client_chain_depth);
  CHECK(TlsSettings{}.session_lifetime == std::chrono::seconds(policy.session_lifetime_s));
}

TEST_CASE("tls: the values of a file arrive") {
  const Config config = good(
      "[tls]\nmin_version = \"1.3\"\nmax_version = \"1.3\"\nciphersuites = "
      "[\"TLS_AES_256_GCM_SHA384\", \"TLS_AES_128_CCM_SHA256\"]\n"
      "groups = \"secp384r1:X25519\"\nalpn = []\nhandshake_timeout = \"3s\"\n"
      "session_tickets = false\nsession_lifetime = \"1h\"\nticket_key_files = [\"a\", \"b\"]\n"
      "ktls_enabled = false\nclient_auth = \"optional\"\nclient_ca_path = \"ca\"\n"
      "client_crl_path = \"crl\"\nclient_verify_depth = 2\nclient_cert_headers = true\n");
  const TlsSettings& tls = config.tls;
  CHECK(tls.place == Place{1, 1});
  CHECK(tls.min_version == TlsVersion::kTls13);
  CHECK(tls.ciphersuites == "TLS_AES_256_GCM_SHA384:TLS_AES_128_CCM_SHA256");
  CHECK(tls.groups == "P-384:X25519");
  CHECK(tls.alpn.empty());
  CHECK(tls.handshake_timeout == 3s);
  CHECK_FALSE(tls.session_tickets);
  CHECK(tls.session_lifetime == 1h);
  CHECK(tls.ticket_key_files == Lines{"a", "b"});
  CHECK_FALSE(tls.ktls_enabled);
  CHECK(tls.client_auth == ClientAuth::kOptional);
  CHECK(tls.client_ca_path == "ca");
  CHECK(tls.client_crl_path == "crl");
  CHECK(tls.client_verify_depth == 2);
  CHECK(tls.client_cert_headers);
  // Both forms of a list, both names of a suite.
  CHECK(good("[tls]\nciphers = [\"ECDHE-RSA-AES128-GCM-SHA256\", "
             "\"TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA\"]\n")
            .tls.ciphers == "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-SHA");
  CHECK(good("[tls]\nciphers = \"AES128-SHA:ECDHE-ECDSA-CHACHA20-POLY1305\"\n").tls.ciphers ==
        "AES128-SHA:ECDHE-ECDSA-CHACHA20-POLY1305");
  // The defaults are themselves names that a file may give.
  CHECK(good("[tls]\nciphers = \"" + TlsSettings{}.ciphers + "\"\nciphersuites = \"" +
             TlsSettings{}.ciphersuites + "\"\ncurves = \"" + TlsSettings{}.groups + "\"\n")
            .tls.groups == TlsSettings{}.groups);
  CHECK(good("[tls]\nclient_auth = \"required\"\nclient_ca_path = \"ca\"\n").tls.client_auth ==
        ClientAuth::kRequired);
  CHECK(good("[tls]\nsession_lifetime = \"7d\"\nticket_rotation = \"1d\"\n")
            .tls.previous_ticket_keys() == 7);
}

TEST_CASE("tls: certificates, the default one first") {
  const Config config = good(
      "[[tls.certificates]]\nhostname = [\"A.example\", \"*.b.example\"]\ncert_path = \"a.crt\"\n"
      "key_path = \"a.key\"\nkey_passphrase_file = \"a.pass\"\nocsp_response_path = \"a.ocsp\"\n"
      "[[tls.certificates]]\nhostname = \"a.example\"\ncert_path = \"both.pem\"\ndefault = true\n"
      "[[tls.certificates]]\ncert_path = \"c.crt\"\n"
      "[tls]\ncert_path = \"main.crt\"\nkey_path = \"main.key\"\nkey_passphrase_file = \"p\"\n"
      "ocsp_response_path = \"o\"\n[[listener]]\naddress = \"0.0.0.0:443\"\ntls = true\n");
  const auto& all = config.tls.certificates;
  REQUIRE(all.size() == 4);
  CHECK(all[0].cert_path == "main.crt");
  CHECK(all[0].key_path == "main.key");
  CHECK(all[0].key_passphrase_file == "p");
  CHECK(all[0].ocsp_response_path == "o");
  CHECK(all[0].is_default);
  CHECK(all[0].hostnames.empty());
  CHECK(all[0].place == Place{14, 13});
  CHECK(all[1].hostnames == Lines{"a.example", "*.b.example"});
  CHECK(all[1].cert_path == "a.crt");
  CHECK(all[1].key_path == "a.key");
  CHECK(all[1].key_passphrase_file == "a.pass");
  CHECK(all[1].ocsp_response_path == "a.ocsp");
  CHECK_FALSE(all[1].is_default);
  CHECK(all[1].place == Place{1, 1});
  // A second one for the same name: their keys may be of different types.
  CHECK(all[2].hostnames == Lines{"a.example"});
  CHECK(all[2].key_path.empty());
  CHECK(all[2].is_default);
  CHECK(all[3].hostnames.empty());
  CHECK_FALSE(all[3].is_default);
  CHECK(std::ranges::find(config.listeners, true, &Listener::tls) != config.listeners.end());
}

TEST_CASE("tls: ten thousand certificates") {
  std::string text;
  for (int i = 0; i < 10'000; ++i) {
    const std::string n = std::to_string(i);
    text += "[[tls.certificates]]\nhostname = \"h" + n + ".example\"\ncert_path = \"" + n + "\"\n";
  }
  CHECK(good(text).tls.certificates.size() == 10'000);
}

TEST_CASE("tls: faults of [tls]") {
  check({
      {"tls = true", {"weir.toml:1:7: tls: must be a table, not a boolean"}},
      {"[tls]\nmin_version = \"1.1\"",
       {"weir.toml:2:15: tls.min_version: must be one of \"1.2\", \"1.3\", not \"1.1\"; did you "
        "mean \"1.2\"?"}},
      {"[tls]\nmin_version = 1.2",
       {"weir.toml:2:15: tls.min_version: must be one of \"1.2\", \"1.3\", not a fraction"}},
      {"[tls]\nmin_version = \"1.3\"\nmax_version = \"1.2\"",
       {"weir.toml:3:15: tls.max_version: min_version (1.3) is above max_version (1.2)"}},
      {"[tls]\ncert_pat = \"x\"",
       {"weir.toml:2:1: tls.cert_pat: unknown key; did you mean \"cert_path\"?"}},
      {"[tls]\ncert_path = \"\"", {"weir.toml:2:13: tls.cert_path: must name a file"}},
      {"[tls]\ncert_path = \"a\\nb\"", {"weir.toml:2:13: tls.cert_path: must name a file"}},
      {"[tls]\nkey_path = \"k\"", {"weir.toml:2:1: tls.key_path: has no cert_path beside it"}},
      {"[tls]\nocsp_response_path = \"k\"",
       {"weir.toml:2:1: tls.ocsp_response_path: has no cert_path beside it"}},
      {"[tls]\ncert_path = \"c\"\nkey_passphrase_file = \"p\"",
       {"weir.toml:3:1: tls.key_passphrase_file: has no key_path beside it (which may be the same "
        "file as cert_path)"}},
      {"[tls]\nhandshake_timeout = 0",
       {"weir.toml:2:21: tls.handshake_timeout: must be between 1ms and 10m, not 0s"}},
      {"[tls]\nktls_enabled = false\nktls_fallback_enabled = false",
       {"weir.toml:3:25: tls.ktls_fallback_enabled: false and ktls_enabled = false leave nothing "
        "to encrypt with"}},
      {"[performance]\nktls_enabled = true",
       {"weir.toml:2:1: performance.ktls_enabled: unknown key here; it belongs to [tls]"}},
      {"[server]\ntls = true",
       {"weir.toml:2:1: server.tls: unknown key here; it belongs to [[listener]] or "
        "[upstream.NAME]"}},
  });
}

TEST_CASE("tls: faults of suites, groups and protocols") {
  check({
      {"[tls]\nciphers = [\"ECDHE-RSA-AES128-GCM-SHA265\"]",
       {"weir.toml:2:12: tls.ciphers[0]: \"ECDHE-RSA-AES128-GCM-SHA265\" is not a cipher suite of "
        "TLS 1.2; did you mean \"ECDHE-RSA-AES128-GCM-SHA256\"?"}},
      {"[tls]\nciphers = \"HIGH:!aNULL\"",
       {"weir.toml:2:11: tls.ciphers: \"HIGH\" is not the name of one suite; expressions such as "
        "\"HIGH:!aNULL\" are not taken",
        "weir.toml:2:11: tls.ciphers: \"!aNULL\" is not the name of one suite; expressions such as "
        "\"HIGH:!aNULL\" are not taken"}},
      {"[tls]\nciphers = \"TLS_AES_128_GCM_SHA256\"",
       {"weir.toml:2:11: tls.ciphers: \"TLS_AES_128_GCM_SHA256\" is a suite of TLS 1.3: it belongs "
        "to ciphersuites"}},
      {"[tls]\nciphers = \"DHE-RSA-AES128-GCM-SHA256\"",
       {"weir.toml:2:11: tls.ciphers: \"DHE-RSA-AES128-GCM-SHA256\" is not spoken: weir has ECDHE, "
        "not DHE"}},
      {"[tls]\nciphers = \"RC4-MD5\"",
       {"weir.toml:2:11: tls.ciphers: \"RC4-MD5\" is not a cipher suite of TLS 1.2"}},
      {"[tls]\nciphers = \"AES128-SHA::AES256-SHA\"",
       {"weir.toml:2:11: tls.ciphers: \"\" is not a cipher suite of TLS 1.2"}},
      {"[tls]\nciphers = \"\"",
       {"weir.toml:2:11: tls.ciphers: \"\" is not a cipher suite of TLS 1.2"}},
      {"[tls]\nciphers = []", {"weir.toml:2:11: tls.ciphers: must not be an empty list"}},
      {"[tls]\nciphers = 3",
       {"weir.toml:2:11: tls.ciphers: must be a string or a list of strings, not an integer"}},
      {"[tls]\nciphers = [\"AES128-SHA\", \"TLS_RSA_WITH_AES_128_CBC_SHA\"]",
       {"weir.toml:2:26: tls.ciphers[1]: names \"AES128-SHA\" twice"}},
      {"[tls]\nciphersuites = \"ECDHE-RSA-AES128-SHA\"",
       {"weir.toml:2:16: tls.ciphersuites: \"ECDHE-RSA-AES128-SHA\" is a suite of TLS 1.2: it "
        "belongs to ciphers"}},
      {"[tls]\nciphersuites = \"TLS_AES_128_GCM_SHA384\"",
       {"weir.toml:2:16: tls.ciphersuites: \"TLS_AES_128_GCM_SHA384\" is not a cipher suite of TLS "
        "1.3; did you mean \"TLS_AES_128_GCM_SHA256\"?"}},
      {"[tls]\ngroups = [\"P256\", \"brainpool\"]",
       {"weir.toml:2:11: tls.groups[0]: \"P256\" is not a group such as \"X25519\" or \"P-256\"; "
        "did you mean \"P-256\"?",
        "weir.toml:2:19: tls.groups[1]: \"brainpool\" is not a group such as \"X25519\" or "
        "\"P-256\""}},
      {"[tls]\ngroups = \"P-256:prime256v1\"",
       {"weir.toml:2:10: tls.groups: names \"P-256\" twice"}},
      {"[tls]\nalpn = [\"h2\", \"http/1.1\"]",
       {"weir.toml:2:9: tls.alpn[0]: \"h2\" is not available yet: comes with the HTTP/2 release"}},
      {"[tls]\nalpn = \"h3\"",
       {"weir.toml:2:8: tls.alpn: \"h3\" is not available yet: comes with the HTTP/3 release"}},
      {"[tls]\nalpn = [\"http/1.1\", \"http/1.1\", \"spdy\"]",
       {"weir.toml:2:21: tls.alpn[1]: names \"http/1.1\" twice",
        "weir.toml:2:33: tls.alpn[2]: must be \"http/1.1\", not \"spdy\""}},
  });
}

TEST_CASE("tls: faults of tickets") {
  std::string nine = "\"k0\"";
  for (int i = 1; i < 9; ++i) nine += ", \"k" + std::to_string(i) + "\"";
  check({
      {"[tls]\nsession_lifetime = \"1500ms\"",
       {"weir.toml:2:20: tls.session_lifetime: must be whole seconds"}},
      {"[tls]\nsession_lifetime = \"8d\"",
       {"weir.toml:2:20: tls.session_lifetime: must be between 1s and 7d, not 8d"}},
      {"[tls]\nsession_lifetime = \"7d\"",
       {"weir.toml:2:20: tls.session_lifetime: session_lifetime (7d) is more than 7 times "
        "ticket_rotation (12h): weir keeps 8 keys"}},
      {"[tls]\nticket_rotation = \"1h\"",
       {"weir.toml:2:19: tls.ticket_rotation: session_lifetime (1d) is more than 7 times "
        "ticket_rotation (1h): weir keeps 8 keys"}},
      {"[tls]\nticket_rotation = \"1h\"\nticket_key_files = \"k\"",
       {"weir.toml:2:19: tls.ticket_rotation: is for weir's own keys; those of ticket_key_files "
        "change when the files do"}},
      {"[tls]\nsession_lifetime = \"7d\"\nticket_key_files = \"k\"", {}},
      {"[tls]\nsession_lifetime = \"7d\"\nsession_tickets = false", {}},
      {"[tls]\nticket_key_files = []",
       {"weir.toml:2:20: tls.ticket_key_files: must not be an empty list"}},
      {"[tls]\nticket_key_files = [\"a\", \"a\", \"\"]",
       {"weir.toml:2:26: tls.ticket_key_files[1]: names \"a\" twice",
        "weir.toml:2:31: tls.ticket_key_files[2]: must name a file"}},
      {"[tls]\nticket_key_files = [" + nine + "]",
       {"weir.toml:2:20: tls.ticket_key_files: names 9 files; there are at most 8 keys"}},
  });
}

TEST_CASE("tls: faults of client certificates") {
  check({
      {"[tls]\nclient_auth = \"required\"",
       {"weir.toml:2:15: tls.client_auth: needs client_ca_path, the CAs whose clients are let "
        "in"}},
      {"[tls]\nclient_auth = \"on\"",
       {"weir.toml:2:15: tls.client_auth: must be one of \"off\", \"optional\", \"required\", not "
        "\"on\"; did you mean \"required\"?"}},
      {"[tls]\nclient_ca_path = \"ca\"",
       {"weir.toml:2:1: tls.client_ca_path: has no client_auth beside it: give \"required\", "
        "\"optional\" or \"off\""}},
      {"[tls]\nclient_cert_headers = true",
       {"weir.toml:2:1: tls.client_cert_headers: has no client_auth beside it: give \"required\", "
        "\"optional\" or \"off\""}},
      {"[tls]\nclient_crl_path = \"crl\"\nclient_verify_depth = 3",
       {"weir.toml:2:1: tls.client_crl_path: has no client_auth beside it: give \"required\", "
        "\"optional\" or \"off\"",
        "weir.toml:3:1: tls.client_verify_depth: has no client_auth beside it: give \"required\", "
        "\"optional\" or \"off\""}},
      {"[tls]\nclient_auth = \"off\"\nclient_ca_path = \"ca\"\nclient_cert_headers = true", {}},
  });
}

TEST_CASE("tls: faults of certificates") {
  const std::string one = "[[tls.certificates]]\n";
  check({
      {"[tls]\ncertificates = \"c\"",
       {"weir.toml:2:16: tls.certificates: must be a list of tables: write "
        "[[tls.certificates]]"}},
      {"[tls]\ncertificates = [1]",
       {"weir.toml:2:17: tls.certificates[0]: must be a table, not an integer"}},
      {one + "hostname = \"a\"", {"weir.toml:1:1: tls.certificates[0]: has no cert_path"}},
      {one + "cert_path = \"c\"\nkey_passphrase_file = \"p\"",
       {"weir.toml:3:1: tls.certificates[0].key_passphrase_file: has no key_path beside it (which "
        "may be the same file as cert_path)"}},
      {one + "cert_path = \"c\"\nhost = \"p\"",
       {"weir.toml:3:1: tls.certificates[0].host: unknown key; did you mean \"hostname\"?"}},
      {one + "cert_path = \"c\"\nhostname = [\"10.0.0.1\", \"*\", \"a.*.b\", \"[::1]\", \"a b\", "
             "\"a\", \"A\", \"*.1\"]",
       {"weir.toml:3:13: tls.certificates[0].hostname[0]: \"10.0.0.1\" is an address: no client "
        "asks for one by name; give default = true",
        "weir.toml:3:25: tls.certificates[0].hostname[1]: must be a name; for all names, give "
        "default = true",
        "weir.toml:3:30: tls.certificates[0].hostname[2]: \"a.*.b\" is not a host: a star stands "
        "only at the beginning, as in \"*.example.com\"",
        "weir.toml:3:39: tls.certificates[0].hostname[3]: \"[::1]\" is an address: no client asks "
        "for one by name; give default = true",
        "weir.toml:3:48: tls.certificates[0].hostname[4]: \"a b\" is not a host such as "
        "\"example.com\", \"*.example.com\" or \"*\"",
        "weir.toml:3:60: tls.certificates[0].hostname[6]: names \"a\" twice",
        "weir.toml:3:65: tls.certificates[0].hostname[7]: \"*.1\" is not a host such as "
        "\"example.com\", \"*.example.com\" or \"*\""}},
      {one + "cert_path = \"c\"\nhostname = []",
       {"weir.toml:3:12: tls.certificates[0].hostname: must not be an empty list"}},
  });
}

TEST_CASE("tls: certificates that could never be told apart") {
  const auto entry = [](const std::string& file, const std::string& lines) {
    return "[[tls.certificates]]\ncert_path = \"" + file + "\"\n" + lines + "\n";
  };
  const std::string main = "[tls]\ncert_path = \"c\"\n";
  check({
      {main + entry("c", "default = true"),
       {"weir.toml:3:1: tls.certificates: \"c\" is given twice for the names in the certificate, "
        "first in line 2"}},
      {main + entry("c", "hostname = \"a\"\ndefault = true"),
       {"weir.toml:3:1: tls.certificates: \"c\" is given twice as the default, first in line 2"}},
      {entry("d", "hostname = [\"a\", \"b\"]") + entry("d", "hostname = \"B\""),
       {"weir.toml:4:1: tls.certificates: \"d\" is given twice for \"b\", first in line 1"}},
      {entry("d", "hostname = \"a\"") + entry("d", "hostname = \"b\""), {}},
      {main + entry("d", "default = true") + entry("e", "default = true"), {}},
      {main + entry("d", "default = true") + entry("e", "default = true") +
           entry("f", "default = true"),
       {"weir.toml:9:1: tls.certificates: is one more certificate as the default than there are "
        "types of keys (ECDSA, RSA, EdDSA), after line 6"}},
      {entry("d", "hostname = \"a\"") + entry("e", "hostname = \"a\"") +
           entry("f", "hostname = \"a\"") + entry("g", "hostname = \"a\""),
       {"weir.toml:10:1: tls.certificates: is one more certificate for \"a\" than there are types "
        "of keys (ECDSA, RSA, EdDSA), after line 7"}},
  });
}

TEST_CASE("tls: listeners") {
  const std::string listener = "[[listener]]\naddress = \"0.0.0.0:443\"\n";
  const std::string certificate = "\n[tls]\ncert_path = \"c\"";
  check({
      {listener + "tls = true",
       {"weir.toml:3:1: listener[0].tls: needs a certificate: give [tls] cert_path and key_path "
        "(`weir cert self-signed` makes both for a trial)"}},
      {listener + "tls = true\n[tls]\nmin_version = \"1.3\"",
       {"weir.toml:3:1: listener[0].tls: needs a certificate: give [tls] cert_path and key_path "
        "(`weir cert self-signed` makes both for a trial)"}},
      {listener + "tls = true" + certificate, {}},
      // One fault, one message.
      {listener + "tls = true\n[[tls.certificates]]\nhostname = \"a\"",
       {"weir.toml:4:1: tls.certificates[0]: has no cert_path"}},
      {listener + "tls = 1",
       {"weir.toml:3:7: listener[0].tls: must be true or false, not an "
        "integer"}},
      {listener + "tls = true\nredirect_https = true" + certificate,
       {"weir.toml:4:1: listener[0].redirect_https: is for a listener without tls: this one speaks "
        "https"}},
      {listener + "tls = true\nredirect_https = false" + certificate, {}},
      {listener + "redirect_https = 0",
       {"weir.toml:3:18: listener[0].redirect_https: must be between 1 and 65535, not 0"}},
      {listener + "redirect_https = \"yes\"",
       {"weir.toml:3:18: listener[0].redirect_https: must be an integer, not \"yes\""}},
      {listener + "redirect_https = []",
       {"weir.toml:3:18: listener[0].redirect_https: must be true, false or the port of https, not "
        "a list"}},
      {listener + "cert_path = \"c\"",
       {"weir.toml:3:1: listener[0].cert_path: unknown key here; it belongs to [tls] or "
        "[[tls.certificates]]"}},
  });
  const auto redirect = [&listener](const std::string& value) {
    return good(listener + "redirect_https = " + value).listeners.front().redirect_https;
  };
  CHECK(redirect("true") == 443);
  CHECK(redirect("false") == 0);
  CHECK(redirect("8443") == 8443);
  CHECK(redirect("\"${PORT}\"") == 8081);
  const Config both =
      good(listener + "tls = true\n[server]\nlisten = \"0.0.0.0:80\"" + certificate);
  for (const Listener& one : both.listeners) {
    CHECK(one.tls == (one.address_text == "0.0.0.0:443"));
  }
}

TEST_CASE("tls: warnings") {
  const std::string listener = "[[listener]]\naddress = \"0.0.0.0:443\"\n";
  const std::string certificate = "\n[tls]\ncert_path = \"c\"\n";
  CHECK(warnings_of(listener + "tls = true" + certificate) == Lines{});
  CHECK(warnings_of(certificate) == Lines{"weir.toml:2:1: tls: no listener has tls = true"});
  CHECK(warnings_of("[tls]\nktls_enabled = false") == Lines{});
  CHECK(warnings_of(listener + "redirect_https = true") ==
        Lines{"weir.toml:1:1: listener: sends requests to https, but no listener has tls = true"});
  CHECK(warnings_of("[tls]\nmin_version = \"1.3\"\nciphers = \"AES128-SHA\"") ==
        Lines{"weir.toml:3:1: tls.ciphers: is for TLS 1.2, which min_version excludes"});
  CHECK(warnings_of("[tls]\nmax_version = \"1.2\"\nciphersuites = \"TLS_AES_128_GCM_SHA256\"") ==
        Lines{"weir.toml:3:1: tls.ciphersuites: is for TLS 1.3, which max_version excludes"});
  CHECK(warnings_of(upstream("servers = \"https://b\"\ntls_verify = false")) ==
        Lines{"weir.toml:3:1: upstream.a.tls_verify: the certificates of this upstream are not "
              "checked"});
  CHECK(warnings_of("[upstream_defaults]\ntls_verify = false") ==
        Lines{"weir.toml:2:14: upstream_defaults.tls_verify: the certificates of upstreams are not "
              "checked"});
}

TEST_CASE("tls: upstreams") {
  const auto first = [](const std::string& text) { return good(text).upstreams.front(); };
  const Upstream plain = first(upstream("servers = \"b:1\""));
  CHECK_FALSE(plain.tls);
  const Upstream written =
      first(upstream("servers = [\"https://B.example\", \"https://[::1]:8443\"]"));
  CHECK(written.tls);
  REQUIRE(written.servers.size() == 2);
  CHECK(written.servers[0].text == "B.example:443");
  CHECK(written.servers[0].host == "b.example");
  CHECK(written.servers[0].port == 443);
  CHECK(written.servers[0].https);
  CHECK(written.servers[1].address.to_string() == "[::1]:8443");
  const Upstream said = first(upstream("tls = true\nservers = [\"b:1\", \"https://c\"]"));
  CHECK(said.tls);
  CHECK_FALSE(said.servers[0].https);
  const Upstream table =
      first(upstream("servers = [{address = \"https://10.0.0.1\", weight = 2}]"));
  CHECK(table.tls);
  CHECK(table.servers[0].weight == 2);
  // A switch that leaves the rest as it is.
  CHECK_FALSE(first(upstream("tls = false\ntls_verify = false\nservers = \"b:1\"")).tls);
}

TEST_CASE("tls: implicit upstreams") {
  const Config config = good(
      "[upstream_defaults]\ntls_ca_path = \"ca\"\n[[route]]\nhost = \"a\"\nproxy = "
      "\"https://B/x\"\n"
      "[[route]]\nhost = \"b\"\nproxy = \"http://b\"\n[host_routes.c]\ntype = \"Proxy\"\n"
      "url = \"https://b:443\"\n");
  REQUIRE(config.upstreams.size() == 2);
  CHECK(config.upstreams[0].name == "https://b:443");
  CHECK(config.upstreams[0].tls);
  CHECK(config.upstreams[0].tls_ca_path == "ca");
  CHECK(config.upstreams[1].name == "http://b:80");
  CHECK_FALSE(config.upstreams[1].tls);
  const Config named = good(
      "[upstream.api]\nservers = \"https://b\"\n[[route]]\nproxy = \"https://api/x\"\n"
      "[[route]]\nhost = \"c\"\nproxy = \"api\"\n");
  CHECK(named.upstreams.size() == 1);
}

TEST_CASE("tls: a certificate for upstreams and its key come from one table") {
  const std::string defaults = "[upstream_defaults]\ntls_cert_path = \"c\"\ntls_key_path = \"k\"\n";
  const auto first = [&defaults](const std::string& lines) {
    return good(defaults + upstream("servers = \"https://b\"\n" + lines)).upstreams.front();
  };
  CHECK(first("").tls_cert_path == "c");
  CHECK(first("").tls_key_path == "k");
  CHECK(first("tls_cert_path = \"own\"").tls_cert_path == "own");
  CHECK(first("tls_cert_path = \"own\"").tls_key_path.empty());
  CHECK(first("tls_cert_path = \"own\"\ntls_key_path = \"its\"").tls_key_path == "its");
  check({
      {defaults + upstream("servers = \"https://b\"\ntls_key_path = \"its\""),
       {"weir.toml:6:1: upstream.a.tls_key_path: has no tls_cert_path beside it"}},
      {"[upstream_defaults]\ntls_key_path = \"k\"",
       {"weir.toml:2:1: upstream_defaults.tls_key_path: has no tls_cert_path beside it"}},
  });
}

TEST_CASE("tls: faults of upstreams") {
  check({
      {upstream("servers = [\"https://b\", \"c:1\"]"),
       {"weir.toml:2:25: upstream.a.servers: \"c:1\" has no https://, but \"https://b:443\" has; "
        "an upstream speaks TLS to all of its servers or to none"}},
      {upstream("tls = false\nservers = [\"c:1\", \"https://b\"]"),
       {"weir.toml:3:19: upstream.a.servers: \"https://b:443\" contradicts tls = false"}},
      {upstream("servers = \"https://b/x\""),
       {"weir.toml:2:11: upstream.a.servers: must be written without path, as in "
        "\"https://10.0.0.1:443\""}},
      {upstream("servers = \"https://unix:/x\""),
       {"weir.toml:2:11: upstream.a.servers: must be written without path, as in "
        "\"https://10.0.0.1:443\""}},
      {upstream("servers = [\"https://\", \"https://b:0\", \"https://https://b\"]"),
       {"weir.toml:2:12: upstream.a.servers[0]: has no host",
        "weir.toml:2:24: upstream.a.servers[1]: has a port that is not a number between 1 and "
        "65535",
        "weir.toml:2:39: upstream.a.servers[2]: must be written without path, as in "
        "\"https://10.0.0.1:443\""}},
      {upstream("servers = \"b:1\"\ntls_ca_path = \"ca\""),
       {"weir.toml:3:1: upstream.a.tls_ca_path: is for TLS, which this upstream does not speak: "
        "give tls = true, or write its servers as \"https://HOST[:PORT]\""}},
      {upstream("tls = true\nservers = \"unix:/run/x\""),
       {"weir.toml:3:11: upstream.a.servers: \"unix:/run/x\" names no host to check certificates "
        "for: give tls_server_name"}},
      {upstream("tls = true\nservers = \"unix:/run/x\"\ntls_server_name = \"b\""), {}},
      {upstream("tls = true\nservers = \"unix:/run/x\"\ntls_verify = false"), {}},
      {upstream("servers = \"https://b\"\ntls_server_name = \"b:443\""),
       {"weir.toml:3:19: upstream.a.tls_server_name: must be a host name or IP address, without "
        "port and brackets"}},
      {upstream("servers = \"https://b\"\ntls_min_version = \"1.0\""),
       {"weir.toml:3:19: upstream.a.tls_min_version: must be one of \"1.2\", \"1.3\", not "
        "\"1.0\"; did you mean \"1.2\"?"}},
      {"[upstream_defaults]\ntls = true",
       {"weir.toml:2:1: upstream_defaults.tls: unknown key here; it belongs to [[listener]] or "
        "[upstream.NAME]"}},
      {"[upstream_defaults]\nhost_header = \"https://b\"",
       {"weir.toml:2:15: upstream_defaults.host_header: must be a host such as \"app.internal\" or "
        "\"app.internal:8080\", or empty"}},
      {"[upstream.a]\nservers = \"https://b\"\n[[route]]\nproxy = \"http://a/x\"",
       {"weir.toml:4:9: route[0].proxy: the upstream \"a\" has tls: write it with https://"}},
  });
}

TEST_CASE("tls: upstreams for the routing room") {
  const auto lowered = [](const std::string& lines) {
    return lower_routes(good(upstream(lines))).upstreams.front();
  };
  const auto plain = lowered("servers = \"b:1\"");
  CHECK_FALSE(plain.tls);
  CHECK(plain.tls_settings == weir::route::UpstreamTlsSpec{});
  CHECK(plain.servers[0].tls_name.empty());
  const auto own = lowered(
      "servers = [\"https://B.example\", \"https://10.0.0.1:8443\", \"https://[::1]\"]\n"
      "tls_ca_path = \"ca\"\ntls_cert_path = \"c\"\ntls_key_path = \"k\"\n"
      "tls_min_version = \"1.3\"");
  CHECK(own.tls);
  CHECK(own.tls_settings == weir::route::UpstreamTlsSpec{.verify = true,
                                                         .ca_path = "ca",
                                                         .cert_path = "c",
                                                         .key_path = "k",
                                                         .min_version = weir::net::tls::kTls13});
  CHECK(own.servers[0].tls_name == "b.example");
  CHECK(own.servers[1].tls_name == "10.0.0.1");
  CHECK(own.servers[2].tls_name == "::1");
  const auto named =
      lowered("tls = true\nservers = [\"b:1\", \"unix:/x\"]\ntls_server_name = \"n\"");
  CHECK(named.servers[0].tls_name == "n");
  CHECK(named.servers[1].tls_name == "n");
  const auto trusting = lowered("tls = true\nservers = \"unix:/x\"\ntls_verify = false");
  CHECK_FALSE(trusting.tls_settings.verify);
  CHECK(trusting.servers[0].tls_name.empty());
}

TEST_CASE("tls: nothing of it needs a restart") {
  const Config before = good("[[listener]]\naddress = \"0.0.0.0:443\"\n");
  const Config after = good(
      "[[listener]]\naddress = \"0.0.0.0:443\"\ntls = true\n[tls]\ncert_path = \"c\"\n"
      "session_tickets = false\nktls_enabled = false\n");
  CHECK(restart_needed(before, after).empty());
}
