// A transport on a link, and the small coroutines that use it as production code does.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <weir/net/transport.h>

#include "../runtime/engine.h"
#include "link.h"

namespace weir::net::test {

using runtime::ReceiveStrategy;
using runtime::Task;
using runtime::test::Engine;
using runtime::test::EngineOptions;

struct Subject {
  Subject(Engine& owner, LinkKind kind) : engine(owner) {
    Link link = make_link(kind);
    peer = std::move(link.peer);
    transport = std::make_unique<Transport>(*owner, link.fd);
  }
  ~Subject() {
    if (transport) Transport::dispose(std::move(transport), Linger::kNo);
  }
  // Turns until the queue holds `bytes` (as far as views reach) or the limit passed.
  [[nodiscard]] bool receive(size_t bytes) {
    return engine.run_until([&] { return queued_bytes() >= bytes; });
  }
  [[nodiscard]] size_t queued_bytes() const {
    std::string_view views[64];
    size_t sum = 0;
    const size_t count = transport->queued(views);
    for (size_t i = 0; i < count; ++i) sum += views[i].size();
    return sum;
  }

  Engine& engine;
  Peer peer;
  std::unique_ptr<Transport> transport;
};

// Streams that hold one buffer each, until the pool has none.
class Hogs {
 public:
  explicit Hogs(Engine& engine) {
    while (!engine->buffers().exhausted()) {
      REQUIRE(streams_.size() < 64);
      Subject& hog = *streams_.emplace_back(std::make_unique<Subject>(engine, LinkKind::kUnix));
      hog.transport->start_receiving();
      hog.peer.send_all("x");
      REQUIRE(hog.receive(1));
    }
    engine.settle();
  }
  // One buffer becomes free.
  void let_go_of_one() {
    for (const auto& hog : streams_) {
      if (!hog->transport->has_data()) continue;
      hog->transport->consume(1);
      return;
    }
  }

 private:
  std::vector<std::unique_ptr<Subject>> streams_;
};

// What readable() answers, one after the other; data is consumed into `text`.
struct Reading {
  std::string text;
  std::vector<ReadEvent> events;
};

inline Task<> read_once(Transport& transport, uint64_t timeout_ms, Reading& out) {
  const uint64_t deadline =
      timeout_ms == 0 ? Transport::kNoDeadline : transport.reactor().now_ms() + timeout_ms;
  out.events.push_back(co_await transport.readable(deadline));
}

inline Task<> read_to_end(Transport& transport, uint64_t timeout_ms, Reading& out) {
  while (true) {
    const ReadEvent event = co_await transport.readable(transport.reactor().now_ms() + timeout_ms);
    if (event != ReadEvent::kData) {
      out.events.push_back(event);
      co_return;
    }
    while (transport.has_data()) {
      out.text.append(transport.front());
      transport.consume(transport.front().size());
    }
  }
}

inline Task<> quiesce(Transport& transport, bool& done) {
  co_await transport.enter_direct_mode();
  done = true;
}

struct Sending {
  bool done = false;
  base::Error error{};
};

inline Task<> send_pieces(Transport& transport, std::vector<iovec>& pieces, uint32_t timeout_ms,
                          Sending& out) {
  const auto sent =
      co_await transport.send(pieces.data(), static_cast<unsigned>(pieces.size()), timeout_ms);
  if (!sent) out.error = sent.error();
  out.done = true;
}

inline Task<> send_text(Transport& transport, std::string text, uint32_t timeout_ms, Sending& out) {
  std::vector<iovec> pieces{{text.data(), text.size()}};
  const auto sent = co_await transport.send(pieces.data(), 1, timeout_ms);
  if (!sent) out.error = sent.error();
  out.done = true;
}

}  // namespace weir::net::test
