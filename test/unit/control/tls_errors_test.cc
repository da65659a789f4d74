// What is wrong with certificates and their like is said with the place of the setting, all of it,
// and leaves what was there in force.
#include <filesystem>
#include <string>

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/tls_state.h>

#include "tls_rig.h"

using namespace weir;
using namespace weir::control;
using control::test::applied;
using control::test::contains;
using control::test::Files;
using control::test::planned;

namespace {

// Line 7 is [[tls.certificates]] of a, 10 that of b.
const std::string kTwo = R"([[listener]]
address = "127.0.0.1:1"
tls = true
[[route]]
respond = {}
[tls]
[[tls.certificates]]
cert_path = "$/a.crt"
key_path = "$/a.key"
[[tls.certificates]]
cert_path = "$/sub/a.crt"
key_path = "$/sub/a.key"
)";

struct TwoPairs : Files {
  TwoPairs() {
    std::filesystem::create_directory(path("sub"));
    pair("a", "a.test");
    pair("sub/a", "b.test");
  }
};

}  // namespace

TEST_CASE("each certificate that is wrong is named with its place, and all of them are") {
  const TwoPairs files;
  TlsState state(1, ask_nobody());
  const auto good = applied(state, files.parse(kTwo));
  files.pair("a", "a.test", tls_test::Kind::kP256, -tls_test::kDay);
  files.write("sub/a.key", "not a key\n");
  const TlsPlan plan = planned(state, files.parse(kTwo));
  REQUIRE(plan.errors.size() == 2);
  CHECK(plan.errors[0].starts_with("weir.toml:7: " + files.path("a.crt")));
  CHECK(contains(plan.errors, "expired on"));
  CHECK(plan.errors[1].starts_with("weir.toml:10: " + files.path("sub/a.key")));
  CHECK(plan.cores.empty());
  // Nothing has changed.
  files.pair("a", "a.test");
  files.pair("sub/a", "b.test");
  CHECK(applied(state, files.parse(kTwo))[0].server != nullptr);
  CHECK(good[0].server->certificates->size() == 2);
}

TEST_CASE("a key of another certificate, a missing file, a file that may not be read") {
  const TwoPairs files;
  TlsState state(1, ask_nobody());
  std::filesystem::copy_file(files.path("sub/a.key"), files.path("a.key"),
                             std::filesystem::copy_options::overwrite_existing);
  TlsPlan plan = planned(state, files.parse(kTwo));
  REQUIRE(plan.errors.size() == 1);
  CHECK(plan.errors[0].starts_with("weir.toml:7: the private key in " + files.path("a.key") +
                                   " does not belong to"));
  std::filesystem::remove(files.path("sub/a.crt"));
  plan = planned(state, files.parse(kTwo));
  REQUIRE(plan.errors.size() == 2);
  CHECK(plan.errors[1] ==
        "weir.toml:10: cannot open " + files.path("sub/a.crt") + ": No such file or directory");
}

TEST_CASE("what is about to expire is a warning with its place") {
  const TwoPairs files;
  files.pair("sub/a", "b.test", tls_test::Kind::kP256, 5 * tls_test::kDay);
  TlsState state(1, ask_nobody());
  const TlsPlan plan = planned(state, files.parse(kTwo));
  CHECK(plan.errors.empty());
  REQUIRE(plan.warnings.size() == 1);
  CHECK(plan.warnings[0].starts_with("weir.toml:10: " + files.path("sub/a.crt")));
  CHECK(contains(plan.warnings, "expires on"));
  CHECK(contains(plan.notes, "certificates loaded: 2"));
}

TEST_CASE("a great many errors are cut short") {
  const Files files;
  std::string text =
      "[[listener]]\naddress = \"127.0.0.1:1\"\ntls = true\n[[route]]\n"
      "respond = {}\n";
  for (int i = 0; i < 130; ++i) {
    text += "[[tls.certificates]]\ncert_path = \"$/" + std::to_string(i) + ".crt\"\n";
  }
  TlsState state(1, ask_nobody());
  const TlsPlan plan = planned(state, files.parse(text));
  REQUIRE(plan.errors.size() == 101);
  CHECK(plan.errors[0].starts_with("weir.toml:6: cannot open"));
  CHECK(plan.errors[100].find("and 30 more") != std::string::npos);
}

TEST_CASE("the files for client certificates and tickets have places of their own") {
  const TwoPairs files;
  std::string text = kTwo;
  text.replace(text.find("[tls]\n"), 6,
               "[tls]\nclient_auth = \"required\"\nclient_ca_path = \"$/no-ca.crt\"\n"
               "client_crl_path = \"$/a.crt\"\nticket_key_files = \"$/a.key\"\n");
  TlsState state(1, ask_nobody());
  const TlsPlan plan = planned(state, files.parse(text));
  REQUIRE(plan.errors.size() == 3);
  CHECK(contains(plan.errors, "weir.toml:8: cannot open " + files.path("no-ca.crt")));
  CHECK(contains(plan.errors, "weir.toml:9: " + files.path("a.crt") + " holds no revocation list"));
  CHECK(contains(plan.errors, "weir.toml:10: " + files.path("a.key") + " has "));
}

TEST_CASE(
    "upstreams: the CA file, the certificate and its key, in their own table or the defaults") {
  const TwoPairs files;
  const std::string text = R"([[listener]]
address = "127.0.0.1:1"
[upstream_defaults]
tls_ca_path = "$/a.key"
[upstream.one]
servers = ["https://10.0.0.1"]
[upstream.two]
servers = ["https://10.0.0.1"]
tls_ca_path = "$/a.crt"
tls_cert_path = "$/a.crt"
tls_key_path = "$/sub/a.key"
[[route]]
path = "/1"
proxy = "one"
[[route]]
path = "/2"
proxy = "two"
)";
  TlsState state(1, ask_nobody());
  const TlsPlan plan = planned(state, files.parse(text));
  REQUIRE(plan.errors.size() == 2);
  CHECK(plan.errors[0] ==
        "weir.toml:4: upstream one: " + files.path("a.key") + " holds no certificate");
  CHECK(plan.errors[1].starts_with("weir.toml:10: upstream two: the private key in " +
                                   files.path("sub/a.key")));
}

TEST_CASE("a key that may not be read any more stops no reload that does not need it") {
  if (geteuid() == 0) {
    // Root reads everything; what the reload would see is made by hand.
    const TwoPairs files;
    TlsState state(1, ask_nobody());
    const config::Config config = files.parse(kTwo);
    const auto first = applied(state, config);
    FileFingerprints prints;
    add_fingerprints(TlsState::files(config), prints);
    FileFingerprint& key = prints.at(files.path("a.key"));
    key.state = FileFingerprint::State::kDenied;
    key.content = 0;
    const TlsPlan same = state.plan(config, {}, prints, tls_test::now_s());
    CHECK(same.errors.empty());
    CHECK(same.cores.at(0).server == first[0].server);
    ++key.changed_ns;  // it is another one
    CHECK(state.plan(config, {}, prints, tls_test::now_s()).cores.at(0).server != first[0].server);
    return;
  }
  const TwoPairs files;
  TlsState state(1, ask_nobody());
  const auto first = applied(state, files.parse(kTwo));
  // chmod changes the file's times as well: it counts as changed, and cannot be opened.
  REQUIRE(::chmod(files.path("a.key").c_str(), 0) == 0);
  const TlsPlan plan = planned(state, files.parse(kTwo));
  CHECK(contains(plan.errors, "weir.toml:7: cannot open " + files.path("a.key")));
  CHECK(first[0].server != nullptr);
}
