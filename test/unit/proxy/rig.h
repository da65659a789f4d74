// A worker on the real kernel, its clients and origins in the test's hands: what one core does, one
// turn after the other.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <weir/log/channel.h>
#include <weir/log/error_log.h>
#include <weir/proxy/worker.h>
#include <weir/runtime/sys.h>

#include "../upstream/origin.h"

namespace weir::proxy::test {

using net::test::LinkKind;
using net::test::make_link;
using net::test::pattern;
using net::test::Peer;
using upstream::test::Origin;

inline int64_t wall_clock() noexcept { return runtime::sys::realtime_us(); }

class Rig {
 public:
  Rig() : logger_(&wall_clock, log::Level::kOff) {
    settings.access_log = true;
    settings.x_forwarded = false;
  }
  ~Rig() {
    if (!worker) return;
    worker->cancel_all();
    CHECK(run_until([&] { return worker->quiet(); }));
    worker.reset();
  }

  // Routes "/" of everything to one upstream with those origins; the next generation.
  void serve(const std::string& name, uint32_t id, const std::vector<const Origin*>& origins) {
    route::UpstreamSpec spec = limits;
    spec.name = name;
    spec.id = id;
    for (size_t i = 0; i < origins.size(); ++i) {
      spec.servers.push_back({.address_text = origins[i]->address().to_string(),
                              .address = origins[i]->address(),
                              .resolved = true,
                              .weight = 1,
                              .endpoint_id = id * 8 + static_cast<uint32_t>(i)});
    }
    route::RouteSpec route;
    route.action = route::ProxyAction{.upstream = 0, .target_path = {}};
    route.origin_text = "test:1";
    auto built = route::build_snapshot({route}, {spec});
    REQUIRE(built);
    auto generation = std::make_unique<Generation>();
    generation->epoch = ++epoch_;
    generation->routes = std::move(*built);
    generation->settings = settings;
    cell.publish(std::move(generation));
    if (!worker) {
      worker = std::make_unique<Worker>(*engine, channel_, logger_, cell, uint16_t{0}, 1u);
    }
    worker->quiesce();
    cell.reclaim();  // as control does; what a core still needs must survive it
  }

  Peer connect() {
    auto link = make_link(LinkKind::kTcp);
    worker->accept(listener, link.fd);
    return std::move(link.peer);
  }

  template <class Done>
  [[nodiscard]] bool run_until(Done&& done, uint64_t limit_ms = 5000) {
    return engine.run_until(
        [&] {
          if (worker) worker->quiesce();
          cell.reclaim();
          engine->wake();  // the test's own sockets are looked at in every turn
          return done();
        },
        limit_ms);
  }
  // Until a client has got at least `bytes`, or its connection is over.
  [[nodiscard]] bool answered(Peer& client, size_t bytes) {
    return run_until([&] {
      client.take();
      return client.text.size() >= bytes || client.over();
    });
  }
  // The `index`-th connection that an origin gets, with `text` (or more) having arrived on it.
  [[nodiscard]] bool received(Origin& origin, size_t index, std::string_view text) {
    return run_until([&] {
      origin.accept();
      if (origin.peers.size() <= index) return false;
      origin.peers[index].take();
      return origin.peers[index].text.find(text) != std::string::npos;
    });
  }

  runtime::test::Engine engine{runtime::test::EngineOptions{.buffers = 512, .ring_entries = 256}};
  GenerationCell cell{1};
  Settings settings;
  route::UpstreamSpec limits;  // timeouts and such of the upstreams to come
  ListenerInfo listener;
  std::unique_ptr<Worker> worker;

 private:
  log::Channel channel_;
  log::Logger logger_;
  uint64_t epoch_ = 0;
};

}  // namespace weir::proxy::test
