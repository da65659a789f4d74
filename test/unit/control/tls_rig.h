// Configurations with TLS, the files they name, and the plans that TlsState makes of them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/config/load.h>
#include <weir/control/config/lower.h>
#include <weir/control/tls_state.h>

#include "../tls/authority.h"

namespace weir::control::test {

// Two CAs' worth of files in a directory of its own.
struct Files {
  tls_test::Directory directory;
  tls_test::Issued authority = tls_test::issue({.common_name = "CA", .authority = true}, nullptr);

  // Writes NAME.crt and NAME.key.
  void pair(const std::string& name, const std::string& host,
            tls_test::Kind kind = tls_test::Kind::kP256, int64_t to_s = 90 * tls_test::kDay) const {
    const tls_test::Issued leaf = tls_test::issue(
        {.common_name = host, .san = {"DNS:" + host}, .kind = kind, .to_s = to_s}, &authority);
    write(name + ".crt", leaf.certificate_pem());
    write(name + ".key", leaf.key_pem());
  }
  void write(const std::string& name, const std::string& content) const {
    directory.write(name, content);
  }
  [[nodiscard]] std::string path(const std::string& name) const {
    return directory.path() + "/" + name;
  }
  // "$" in the text stands for the directory.
  [[nodiscard]] config::Config parse(std::string text) const {
    for (size_t at = 0; (at = text.find('$', at)) != std::string::npos;) {
      text.replace(at, 1, directory.path());
    }
    config::LoadResult loaded =
        config::parse_config(text, "weir.toml", [](std::string_view) { return std::nullopt; });
    for (const auto& error : loaded.errors) FAIL(error.to_string());
    return std::move(loaded.config);
  }
};

inline TlsPlan planned(TlsState& state, const config::Config& config,
                       int64_t now_s = tls_test::now_s()) {
  FileFingerprints files;
  add_fingerprints(TlsState::files(config), files);
  const config::LoweredRoutes lowered = config::lower_routes(config);
  return state.plan(config, lowered.upstreams, files, now_s);
}

// The plan, in force; it must have no errors. Its `cores` stay in what is returned.
inline std::vector<proxy::CoreTls> applied(TlsState& state, const config::Config& config,
                                           uint64_t now_ms = 0) {
  TlsPlan plan = planned(state, config);
  for (const std::string& error : plan.errors) FAIL(error);
  std::vector<proxy::CoreTls> cores = std::move(plan.cores);
  state.commit(std::move(plan), now_ms);
  return cores;
}

inline bool contains(const std::vector<std::string>& sentences, const std::string& text) {
  for (const std::string& sentence : sentences) {
    if (sentence.find(text) != std::string::npos) return true;
  }
  return false;
}

}  // namespace weir::control::test
