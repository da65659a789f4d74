// What a reload makes anew and what it uses again, ticket keys over time, and what follows from a
// kernel that can or cannot do TLS.
#include <algorithm>
#include <filesystem>
#include <string>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/tls_state.h>

#include "tls_rig.h"

using namespace weir;
using namespace weir::control;
using control::test::applied;
using control::test::contains;
using control::test::Files;
using control::test::planned;
using net::tls::RecordPath;

namespace {

const std::string kServer = R"(
[[listener]]
address = "127.0.0.1:1"
tls = true
[[route]]
respond = {}
[tls]
cert_path = "$/a.crt"
key_path = "$/a.key"
)";

const std::string kOrigins = R"(
[[listener]]
address = "127.0.0.1:1"
[upstream.one]
servers = ["https://10.0.0.1"]
tls_ca_path = "$/ca.crt"
[upstream.plain]
servers = ["10.0.0.2:80"]
[upstream.two]
servers = ["https://10.0.0.3"]
tls_ca_path = "$/ca.crt"
[upstream.careless]
servers = ["https://10.0.0.4"]
tls_verify = false
[[route]]
path = "/1"
proxy = "one"
[[route]]
path = "/p"
proxy = "plain"
[[route]]
path = "/2"
proxy = "two"
[[route]]
path = "/c"
proxy = "careless"
)";

// Key names tell rings apart.
using Name = std::array<uint8_t, 16>;
Name sealing(const TlsState& state) { return state.tickets().sealing().name; }

#if WEIR_KTLS
net::tls::KernelSupport working() {
  net::tls::KernelSupport support;
  support.present = true;
  for (auto& version : support.table) {
    for (auto& way : version) way.tx.works = way.rx.works = true;
  }
  support.rekey.works = support.no_pad.works = true;
  return support;
}
#endif

}  // namespace

TEST_CASE("without TLS there is nothing, and no file is named") {
  const Files files;
  TlsState state(2, ask_nobody());
  const config::Config config =
      files.parse("[[listener]]\naddress = \"127.0.0.1:1\"\n[[route]]\nrespond = {}\n");
  CHECK(TlsState::files(config).empty());
  const TlsPlan plan = planned(state, config);
  CHECK(plan.errors.empty());
  CHECK(plan.cores.empty());
  CHECK_FALSE(plan.tickets_changed);
}

TEST_CASE("each core has a context of its own, all share the certificates") {
  const Files files;
  files.pair("a", "a.test");
  TlsState state(3, ask_nobody());
  const config::Config config = files.parse(kServer);
  CHECK(TlsState::files(config) == std::vector{files.path("a.crt"), files.path("a.key")});
  const auto cores = applied(state, config);
  REQUIRE(cores.size() == 3);
  CHECK(cores[0].server != cores[1].server);
  CHECK(cores[0].server->context != cores[1].server->context);
  CHECK(cores[0].server->certificates == cores[2].server->certificates);
  CHECK(cores[0].server->certificates->pick("a.test") != nullptr);
  CHECK(cores[0].upstreams.empty());
  CHECK(state.engine(0) != state.engine(1));
}

TEST_CASE("what did not change is used again; a changed file or setting makes it anew") {
  const Files files;
  files.pair("a", "a.test");
  TlsState state(2, ask_nobody());
  const auto first = applied(state, files.parse(kServer));
  const auto again =
      applied(state, files.parse("[server]\nvia = \"other\"\n" + kServer));  // moves the lines
  CHECK(again[0].server == first[0].server);
  CHECK(again[1].server == first[1].server);

  // The same content, written again.
  const std::string path = files.path("a.crt");
  std::filesystem::copy_file(path, path + ".copy");
  std::filesystem::rename(path + ".copy", path);
  CHECK(applied(state, files.parse(kServer))[0].server == first[0].server);

  files.pair("a", "b.test");
  const auto renewed = applied(state, files.parse(kServer));
  CHECK(renewed[0].server != first[0].server);
  CHECK(renewed[0].server->certificates->pick("b.test") != nullptr);
  // The old one still is what it was, for connections that have it.
  CHECK(first[0].server->certificates->pick("a.test")->by_type[0] == 0);

  const auto changed = applied(state, files.parse(kServer + "min_version = \"1.3\"\n"));
  CHECK(changed[0].server != renewed[0].server);
}

TEST_CASE("every setting of [tls] counts") {
  const Files files;
  files.pair("a", "a.test");
  files.pair("b", "b.test", tls_test::Kind::kRsa2048);
  files.write("ca.crt", files.authority.certificate_pem());
  files.write("ca.crl", tls_test::revocation_list(files.authority, {}));
  for (const std::string& more :
       {"max_version = \"1.2\"\n", "ciphers = \"ECDHE-ECDSA-AES128-GCM-SHA256\"\n",
        "ciphersuites = \"TLS_AES_128_GCM_SHA256\"\n", "groups = \"P-256\"\n", "alpn = []\n",
        "handshake_timeout = \"3s\"\n", "session_lifetime = \"1h\"\n", "session_tickets = false\n",
        "ktls_enabled = false\n", "client_auth = \"optional\"\nclient_ca_path = \"$/ca.crt\"\n",
        "[[tls.certificates]]\ncert_path = \"$/b.crt\"\nkey_path = \"$/b.key\"\n"}) {
    INFO(more);
    TlsState state(1, ask_nobody());
    const auto before = applied(state, files.parse(kServer));
    const auto after = applied(state, files.parse(kServer + more));
    CHECK(after[0].server != before[0].server);
    CHECK(applied(state, files.parse(kServer + more))[0].server == after[0].server);
  }
  const std::string clients = "client_auth = \"required\"\nclient_ca_path = \"$/ca.crt\"\n";
  for (const std::string& more :
       {"client_crl_path = \"$/ca.crl\"\n", "client_verify_depth = 2\n"}) {
    INFO(more);
    TlsState state(1, ask_nobody());
    const auto before = applied(state, files.parse(kServer + clients));
    CHECK(applied(state, files.parse(kServer + clients + more))[0].server != before[0].server);
  }
}

TEST_CASE("a context has what the configuration says") {
  const Files files;
  files.pair("a", "a.test");
  files.write("ca.crt", files.authority.certificate_pem());
  const std::string clients = "client_auth = \"optional\"\nclient_ca_path = \"$/ca.crt\"\n";
  TlsState state(1, ask_nobody());
  const auto plain = applied(state, files.parse(kServer + "handshake_timeout = \"3s\"\n"));
  CHECK(plain[0].server->handshake_timeout_ms == 3000);
  CHECK_FALSE(plain[0].server->describe_clients);
  CHECK(plain[0].server->userspace_allowed);
  const auto quiet =
      applied(state, files.parse("[logging]\naccess_log = \"off\"\n" + kServer + clients));
  CHECK_FALSE(quiet[0].server->describe_clients);
  const auto headers = applied(state, files.parse("[logging]\naccess_log = \"off\"\n" + kServer +
                                                  clients + "client_cert_headers = true\n"));
  CHECK(headers[0].server->describe_clients);
  const auto logged =
      applied(state, files.parse("[logging]\naccess_log = \"stdout\"\n" + kServer + clients));
  CHECK(logged[0].server->describe_clients);
}

TEST_CASE("one context for upstreams that speak TLS alike") {
  const Files files;
  files.write("ca.crt", files.authority.certificate_pem());
  TlsState state(2, ask_nobody());
  const config::Config config = files.parse(kOrigins);
  CHECK(TlsState::files(config) == std::vector{files.path("ca.crt")});
  const auto cores = applied(state, config);
  REQUIRE(cores.size() == 2);
  CHECK(cores[0].server == nullptr);
  const auto& upstreams = cores[0].upstreams;
  REQUIRE(upstreams.size() == 4);
  CHECK(upstreams[0] != nullptr);
  CHECK(upstreams[1] == nullptr);
  CHECK(upstreams[2] == upstreams[0]);
  CHECK(upstreams[3] != nullptr);
  CHECK(upstreams[3] != upstreams[0]);
  CHECK(cores[1].upstreams[0] != upstreams[0]);

  const auto again = applied(state, config);
  CHECK(again[0].upstreams == upstreams);
  CHECK(again[1].upstreams == cores[1].upstreams);

  // One changes, the other stays.
  const tls_test::Issued other = tls_test::issue({.common_name = "B", .authority = true}, nullptr);
  files.write("ca.crt", other.certificate_pem());
  const auto renewed = applied(state, config);
  CHECK(renewed[0].upstreams[0] != upstreams[0]);
  CHECK(renewed[0].upstreams[2] == renewed[0].upstreams[0]);
  CHECK(renewed[0].upstreams[3] == upstreams[3]);
}

TEST_CASE("the last TLS listener goes, and is served for one more generation") {
  const Files files;
  files.pair("a", "a.test");
  TlsState state(1, ask_nobody());
  const config::Config plain =
      files.parse("[[listener]]\naddress = \"127.0.0.1:1\"\n[[route]]\nrespond = {}\n");
  const auto first = applied(state, files.parse(kServer));
  const Name key = sealing(state);
  const auto last = applied(state, plain);
  REQUIRE(last.size() == 1);
  CHECK(last[0].server == first[0].server);
  CHECK_FALSE(state.rotation_due_ms());
  CHECK(applied(state, plain).empty());
  // Tickets are still good when it comes back.
  CHECK(applied(state, files.parse(kServer))[0].server != nullptr);
  CHECK(sealing(state) == key);
}

TEST_CASE("a plan that is not committed changes nothing") {
  const Files files;
  files.pair("a", "a.test");
  TlsState state(1, ask_nobody());
  const auto first = applied(state, files.parse(kServer));
  const Name key = sealing(state);
  const TlsPlan plan = planned(state, files.parse(kServer + "session_tickets = false\n"));
  CHECK(plan.tickets_changed);
  CHECK(sealing(state) == key);
  CHECK(applied(state, files.parse(kServer))[0].server == first[0].server);
}

TEST_CASE("weir's own ticket keys rotate, and as many are kept as the lifetime needs") {
  const Files files;
  files.pair("a", "a.test");
  const std::string text = kServer + "session_lifetime = \"2h\"\nticket_rotation = \"1h\"\n";
  constexpr uint64_t kHour = 3'600'000;
  TlsState state(1, ask_nobody());
  const TlsPlan fresh = planned(state, files.parse(text));
  CHECK(fresh.tickets_changed);
  applied(state, files.parse(text), 1000);
  CHECK(state.tickets().size() == 1);
  CHECK(state.rotation_due_ms() == 1000 + kHour);
  std::vector<Name> names = {sealing(state)};
  for (uint64_t turn = 1; turn <= 4; ++turn) {
    state.rotate_tickets(1000 + turn * kHour);
    CHECK(state.rotation_due_ms() == 1000 + (turn + 1) * kHour);
    CHECK(std::ranges::find(names, sealing(state)) == names.end());
    names.push_back(sealing(state));
  }
  CHECK(state.tickets().size() == 3);
  CHECK(state.tickets().find(names[4]) != nullptr);
  CHECK(state.tickets().find(names[2]) != nullptr);
  CHECK(state.tickets().find(names[1]) == nullptr);

  // A reload keeps them, and the time of the next rotation follows the setting.
  CHECK_FALSE(planned(state, files.parse(text)).tickets_changed);
  applied(state, files.parse(kServer + "session_lifetime = \"2h\"\nticket_rotation = \"30m\"\n"),
          1000 + 4 * kHour + 5);
  CHECK(sealing(state) == names[4]);
  CHECK(state.rotation_due_ms() == 1000 + 4 * kHour + kHour / 2);
}

TEST_CASE("ticket keys from files: changed files change the keys and nothing else") {
  const Files files;
  files.pair("a", "a.test");
  files.write("1.key", std::string(16, '1') + std::string(64, 'x'));
  files.write("2.key", std::string(16, '2') + std::string(32, 'y'));
  const std::string text = kServer + "ticket_key_files = [\"$/1.key\", \"$/2.key\"]\n";
  TlsState state(1, ask_nobody());
  CHECK(TlsState::files(files.parse(text)).size() == 4);
  const auto first = applied(state, files.parse(text));
  CHECK(state.tickets().size() == 2);
  CHECK(sealing(state)[0] == '1');
  CHECK_FALSE(state.rotation_due_ms());
  CHECK_FALSE(planned(state, files.parse(text)).tickets_changed);

  files.write("1.key", std::string(16, '3') + std::string(64, 'x'));
  CHECK(planned(state, files.parse(text)).tickets_changed);
  const auto second = applied(state, files.parse(text));
  CHECK(sealing(state)[0] == '3');
  CHECK(second[0].server == first[0].server);

  // Back to keys of weir's own: those that were given out are good for their lifetime.
  applied(state, files.parse(kServer));
  CHECK(state.rotation_due_ms().has_value());
  CHECK(sealing(state)[0] != '3');
  Name old{};
  old.fill('3');
  CHECK(state.tickets().find(old) != nullptr);
}

TEST_CASE("no tickets: no keys") {
  const Files files;
  files.pair("a", "a.test");
  TlsState state(1, ask_nobody());
  applied(state, files.parse(kServer));
  CHECK(state.tickets().size() == 1);
  CHECK(planned(state, files.parse(kServer + "session_tickets = false\n")).tickets_changed);
  applied(state, files.parse(kServer + "session_tickets = false\n"));
  CHECK(state.tickets().size() == 0);
  CHECK_FALSE(state.rotation_due_ms());
}

TEST_CASE("kernel TLS is asked for once, and only where it is wanted") {
  const Files files;
  files.pair("a", "a.test");
  int asked = 0;
  KernelQuestion question{.built = true, .probe = [&asked] {
                            ++asked;
                            return net::tls::KernelSupport{};
                          }};
  TlsState state(1, question);
  applied(state, files.parse("[[listener]]\naddress = \"127.0.0.1:1\"\n[[route]]\nrespond = {}\n"));
  const auto off = applied(state, files.parse(kServer + "ktls_enabled = false\n"));
  CHECK(asked == 0);
  CHECK(off[0].server->kernel == nullptr);
  CHECK(off[0].server->why_userspace == RecordPath::kSwitchedOff);

  TlsState unbuilt(1, {.built = false});
  CHECK(applied(unbuilt, files.parse(kServer))[0].server->why_userspace == RecordPath::kNotBuilt);
  const TlsPlan refused =
      planned(unbuilt, files.parse(kServer + "ktls_fallback_enabled = false\n"));
  REQUIRE(refused.errors.size() == 1);
  CHECK(refused.errors[0].starts_with("weir.toml:10: ktls_fallback_enabled is false"));
  CHECK(contains(planned(unbuilt, files.parse(kServer + "ktls_enabled = true\n")).warnings,
                 "built without kernel TLS") == false);  // said once, above
}

#if WEIR_KTLS

TEST_CASE("a kernel without TLS is one warning, or an error where it is needed") {
  const Files files;
  files.pair("a", "a.test");
  int asked = 0;
  TlsState state(1, {.built = true, .probe = [&asked] {
                       ++asked;
                       return net::tls::KernelSupport{};
                     }});
  const TlsPlan first = planned(state, files.parse(kServer));
  CHECK(first.errors.empty());
  REQUIRE(first.warnings.size() == 1);
  CHECK(first.warnings[0].starts_with(
      "TLS records are done in userspace: kernel TLS: not available"));
  CHECK(first.cores[0].server->kernel == nullptr);
  CHECK(first.cores[0].server->why_userspace == RecordPath::kNoKernelTls);
  CHECK(planned(state, files.parse(kServer)).warnings.empty());
  const TlsPlan needed = planned(state, files.parse(kServer + "ktls_fallback_enabled = false\n"));
  REQUIRE(needed.errors.size() == 1);
  CHECK(needed.errors[0].starts_with("weir.toml:10: ktls_fallback_enabled is false"));
  CHECK(contains(needed.errors, "kernel TLS: not available"));
  CHECK(needed.cores.empty());
  // Upstreams alone need it as well.
  const TlsPlan origins =
      planned(state, files.parse(kOrigins + "[tls]\nktls_fallback_enabled = false\n"));
  CHECK(contains(origins.errors, "ktls_fallback_enabled is false"));
  CHECK(asked == 1);
}

TEST_CASE("a kernel with TLS: what it can is told once, and connections may be handed over") {
  const Files files;
  files.pair("a", "a.test");
  TlsState state(1, {.built = true, .probe = [] {
                       net::tls::KernelSupport support = working();
                       support.rekey = {.works = false, .os = 16, .failed = "a second key"};
                       return support;
                     }});
  const TlsPlan plan = planned(state, files.parse(kServer + "ktls_fallback_enabled = false\n"));
  CHECK(plan.errors.empty());
  CHECK(contains(plan.notes, "kernel TLS: "));
  CHECK(plan.warnings.size() == 1);
  CHECK(contains(plan.warnings, "KeyUpdate"));
  const net::tls::ServerContext& server = *plan.cores[0].server;
  REQUIRE(server.kernel != nullptr);
  CHECK(server.kernel->can(net::tls::kTls13, net::tls::KernelCipher::kAes128Gcm));
  CHECK_FALSE(server.userspace_allowed);
  const TlsPlan again = planned(state, files.parse(kServer));
  CHECK(again.warnings.empty());
  CHECK_FALSE(contains(again.notes, "kernel TLS"));
  CHECK(again.cores[0].server->kernel == server.kernel);
  CHECK(again.cores[0].server->userspace_allowed);
}

#endif
