// A resolver on a reactor of the test's own, a DNS server to ask, and files to stand in for
// resolv.conf and hosts.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/resolver.h>

#include "../runtime/engine.h"
#include "directory.h"
#include "dns_server.h"

namespace weir::control::test {

struct ResolverRig {
  explicit ResolverRig(ResolverOptions wanted = {.try_timeout_ms = 300,
                                                 .tries = 2,
                                                 .total_timeout_ms = 3'000,
                                                 .min_ttl_ms = 100}) {
    directory.write("resolv.conf", "nameserver 127.0.0.1\n");
    directory.write("hosts", "");
    wanted.servers = {server.address()};
    wanted.resolv_conf = directory.path("resolv.conf");
    wanted.hosts = directory.path("hosts");
    options = std::move(wanted);
    open();
  }
  ~ResolverRig() { close(); }
  void open() {
    std::string error;
    resolver = Resolver::open(*engine, options, error);
    REQUIRE(resolver);
  }
  void close() {
    if (!resolver) return;
    resolver->stop();
    CHECK(engine.run_until([&] { return resolver->stopped(); }));
    resolver.reset();
  }
  Resolution ask(const std::string& name, const ResolveOptions& how = {}) {
    std::optional<Resolution> answer;
    resolver->resolve(name, 80, how, [&](Resolution result) { answer = std::move(result); });
    CHECK_FALSE(answer);  // never before resolve() has returned
    REQUIRE(engine.run_until([&] { return answer.has_value(); }));
    CHECK((answer->error == ResolveError::kNone) == !answer->addresses.empty());
    return std::move(*answer);
  }
  static std::vector<std::string> texts(const std::vector<ResolvedAddress>& addresses) {
    std::vector<std::string> out;
    for (const ResolvedAddress& one : addresses) out.push_back(one.address.to_string());
    return out;
  }

  runtime::test::Engine engine{{.buffers = 16, .ring_entries = 16}};
  DnsServer server;
  const Directory directory;
  ResolverOptions options;
  std::unique_ptr<Resolver> resolver;
};

}  // namespace weir::control::test
