// What control and cores tell each other: small values in bounded mailboxes, one pair per core.
#pragma once

#include <cstdint>

#include <weir/base/error.h>
#include <weir/base/ip.h>
#include <weir/net/tls/engine.h>
#include <weir/proxy/counters.h>
#include <weir/route/spec.h>
#include <weir/upstream/sample.h>

namespace weir::server {

// A listener that closes refuses new connections at first and waits so long for those that have
// begun: the last step of TCP's handshake is on its way.
inline constexpr uint64_t kHandshakeGraceMs = 100;

// To a core.
struct Command {
  enum class Kind : uint8_t {
    kOpenListener,   // id, fd (owned by the core from now on), address, tls, redirect_https
    kSetListener,    // id, tls, redirect_https: for connections from now on
    kCloseListener,  // id: stop accepting, in value ms; its connections stay
    kNewGeneration,  // look at the cell (the message only wakes)
    kNewTickets,     // *tickets (owned by the core from now on): ticket keys; value: their number
    kUpstream,  // *upstream (owned by the core from now on): its servers as control knows them now;
                // epoch: of the newest generation when it was sent
    kServer,    // id: of the upstream; value: the server's identity; state; weight; epoch
    kReached,   // id, value: as kServer; a check has reached it; epoch
    kDrain,     // close listeners, finish what runs; value: grace in ms for idle connections
    kCancelAll,        // end everything now
    kScrape,           // copy the counters into *scrape, answer kScraped
    kScrapeUpstreams,  // copy the numbers of upstreams into *upstreams, answer kUpstreamsScraped
    kStop,             // leave the loop; the core must be quiet
  };
  Kind kind = Kind::kNewGeneration;
  uint32_t id = 0;
  int fd = -1;
  uint64_t value = 0;
  base::SocketAddress address{};
  struct Scrape* scrape = nullptr;
  net::tls::TicketKeyRing* tickets = nullptr;
  const route::UpstreamSpec* upstream = nullptr;
  upstream::UpstreamScrape* upstreams = nullptr;
  uint64_t epoch = 0;
  uint32_t weight = 0;
  route::ServerState state = route::ServerState::kUp;
  bool tls = false;
  uint16_t redirect_https = 0;
};

// A core's numbers at one moment; owned by control, lent for the time of one kScrape.
struct Scrape {
  proxy::Counters counters;
  net::tls::Counters tls;
  uint32_t connections = 0;
  uint32_t idle_upstream_connections = 0;
  uint64_t generations_alive = 0;
  uint64_t turns = 0;
  uint64_t ring_enters = 0;
  uint64_t buffers_in_use = 0;
  uint64_t buffer_starvations = 0;
  uint64_t accept_failures = 0;
};

// From a core.
struct Notice {
  enum class Kind : uint8_t {
    kStarted,
    kFailed,          // could not start: error
    kListenerClosed,  // id
    kQuiet,           // drained or cancelled: nothing is left
    kScraped,
    kUpstreamsScraped,
    kUnreachable,  // id: of the upstream; value: the server's identity; put aside since nothing
                   // could be connected
  };
  Kind kind = Kind::kStarted;
  uint32_t id = 0;
  uint64_t value = 0;
  base::Error error{};
};

}  // namespace weir::server
