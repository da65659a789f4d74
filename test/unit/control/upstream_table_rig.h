// A table of upstreams on a reactor of the test's own, with a DNS server to ask, servers to be
// checked, and what it has told the cores and the log.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/config/load.h>
#include <weir/control/upstream_table.h>
#include <weir/runtime/sys.h>
#include <weir/upstream/balance_hash.h>

#include "directory.h"
#include "dns_server.h"
#include "health_rig.h"

namespace weir::control::test {

using Texts = std::vector<std::string>;

struct Sent {
  server::Command command;
  std::optional<route::UpstreamSpec> upstream;
};

inline const std::string kRoute = "[[route]]\nproxy = \"a\"\n";

struct TableRig {
  TableRig() {
    directory.write("hosts", "");
    logger.attach(channel);
    make();
  }
  ~TableRig() { close(); }
  void make() {
    table = std::make_unique<UpstreamTable>(*engine, logger, &tls,
                                            [this](const server::Command& command) {
                                              Sent& one = sent.emplace_back();
                                              one.command = command;
                                              one.command.upstream = nullptr;
                                              if (command.upstream != nullptr)
                                                one.upstream = *command.upstream;
                                            });
  }
  void close() {
    if (!table) return;
    table->stop();
    CHECK(until([&] { return table->stopped() && engine->disposing == 0; }));
    table.reset();
  }
  [[nodiscard]] bool until(const std::function<bool()>& holds, uint64_t limit_ms = 10'000) {
    return engine.run_until(
        [&] {
          for (CheckedServer* server : servers) server->poll();
          engine->wake();
          read_log();
          return holds();
        },
        limit_ms);
  }
  CheckedServer& serve(CheckedServer::Behaviour how) {
    own_servers.push_back(std::make_unique<CheckedServer>(std::move(how)));
    servers.push_back(own_servers.back().get());
    return *own_servers.back();
  }
  // So that what must not happen has time to.
  void pass(uint64_t ms) {
    const uint64_t end = engine->now_ms() + ms;
    static_cast<void>(until([&] { return engine->now_ms() >= end; }, ms + 1'000));
  }
  [[nodiscard]] config::Config parse(const std::string& text) const {
    config::LoadResult loaded =
        config::parse_config("[[listener]]\naddress = \"127.0.0.1:1\"\n" + text, "weir.toml",
                             [](std::string_view) { return std::nullopt; });
    for (const auto& error : loaded.errors) FAIL(error.to_string());
    config::ResolverSettings& resolver = loaded.config.resolver;
    resolver.servers = {dns.address()};
    resolver.hosts = directory.path("hosts");
    resolver.timeout = config::Milliseconds(200);
    resolver.tries = 1;
    resolver.min_ttl = config::Milliseconds(30);
    resolver.max_ttl = config::Milliseconds(60);
    return std::move(loaded.config);
  }
  // As the supervisor does it, without waiting for names; what the generation has of its upstreams.
  std::vector<route::UpstreamSpec> load(const config::Config& config) {
    table->prepare(config);
    return build(config);
  }
  std::vector<route::UpstreamSpec> load(const std::string& text) { return load(parse(text)); }
  // The same, with waiting.
  std::vector<route::UpstreamSpec> load_known(const std::string& text) {
    const config::Config config = parse(text);
    table->prepare(config);
    REQUIRE(until([&] { return table->unasked() == 0; }));
    return build(config);
  }
  std::vector<route::UpstreamSpec> build(const config::Config& config) {
    BuildResult built =
        build_generation(config, identities, {.epoch = ++epoch, .table = table.get()});
    REQUIRE(built.generation);
    const auto upstreams = built.generation->routes->upstreams();
    std::vector<route::UpstreamSpec> filled(upstreams.begin(), upstreams.end());
    table->take(config, built.upstreams, identities, epoch);
    return filled;
  }
  static Texts addresses(const route::UpstreamSpec& spec) {
    Texts out;
    for (const route::ServerSpec& server : spec.servers) {
      out.push_back(server.resolved ? server.address.to_string() : "?" + server.address_text);
    }
    return out;
  }
  static uint64_t identity(const std::string& address) {
    return upstream::server_identity(address);
  }
  [[nodiscard]] ServerView view(const std::string& address,
                                const std::string& upstream = "a") const {
    for (const ServerView& server : table->servers()) {
      if (server.address == address && server.upstream == upstream) return server;
    }
    FAIL("no server " << address);
    return {};
  }
  // Lines of the log so far: "level message key=value ...".
  Texts logged(const std::string& part) {
    read_log();
    Texts out;
    for (const std::string& line : lines) {
      if (line.contains(part)) out.push_back(line);
    }
    return out;
  }
  void read_log() {
    channel.begin_drain();
    while (const auto record = channel.next()) {
      const auto event = log::parse_event(record->bytes);
      REQUIRE(event);
      std::string line(to_string(event->level));
      line.append(" ").append(event->message);
      for (size_t i = 0; i < event->field_count; ++i) {
        line.append(" ").append(event->fields[i].key).append("=").append(event->fields[i].value);
      }
      lines.push_back(std::move(line));
    }
    channel.end_drain();
  }

  net::tls::Engine tls;  // outlives the reactor's connections
  runtime::test::Engine engine{{.buffers = 64, .ring_entries = 64}};
  DnsServer dns;
  const Directory directory;
  log::Channel channel;
  log::Logger logger{&runtime::sys::realtime_us};
  Identities identities;
  uint64_t epoch = 0;
  std::vector<std::unique_ptr<CheckedServer>> own_servers;
  std::vector<CheckedServer*> servers;
  std::vector<Sent> sent;
  Texts lines;
  std::unique_ptr<UpstreamTable> table;
};

}  // namespace weir::control::test
