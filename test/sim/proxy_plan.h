// What one simulated run of the proxy shall see, chosen from the seed before it begins: how weir is
// set up, which requests its clients make and how they behave, how origins answer each of them.
// Plain values; scripts (proxy_client.h, proxy_origin.h) act on them and the oracle judges by them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <weir/route/spec.h>

#include <sim/proxy_wire.h>
#include <sim/sim_kernel.h>

namespace weir::sim {

// Times of weir's configuration, in milliseconds.
struct Times {
  uint32_t header = 30'000;
  uint32_t body = 30'000;
  uint32_t keepalive = 60'000;
  uint32_t send = 30'000;
  uint32_t half_close_grace = 1'000;
  uint32_t connect = 10'000;
  uint32_t response = 60'000;
  uint32_t read = 60'000;
  uint32_t origin_send = 60'000;
  uint32_t origin_idle = 30'000;
};

enum class Ending : uint8_t { kDrainWhenDone, kDrainMidway, kCancelMidway };

inline constexpr uint32_t kServersMax = 5;  // of an upstream

// How an upstream is configured, servers and the times above aside.
struct Policy {
  route::UpstreamSpec spec;
  // Retries at every server, and nothing else: what fails then must have failed everywhere.
  bool plain = true;
  uint32_t server_limit = 0;  // requests under way at each server; 0: none
  bool races = false;         // servers are hosts by two address families
  bool talkative = false;     // control changes states and servers between generations
  [[nodiscard]] bool limited() const { return spec.max_connections != 0 || server_limit != 0; }
};

struct Setup {
  uint32_t cores = 1;
  uint32_t buffers = 256;
  uint32_t buffer_bytes = 4096;
  uint32_t buffers_offered = 64;
  bool one_shot = false;
  Times times;
  bool short_times = false;
  uint32_t connections_max = 0;  // of a core
  uint32_t requests_max = 0;     // of a connection
  uint32_t max_idle = 16;
  uint32_t max_connecting = 16;
  uint32_t lifetime_ms = 0;
  uint32_t servers[2] = {1, 1};  // of the two upstreams
  Policy policies[2];
  bool reloads = false;
  bool servers_fail = false;  // stop and come back
  Ending ending = Ending::kDrainWhenDone;
  uint64_t ending_at_ns = 0;
  uint32_t clients = 1;
  // Classes of peers' behaviour, each on in some runs.
  bool wrong_requests = false;
  bool rude_clients = false;
  bool slow_clients = false;
  bool rude_origins = false;
  bool slow_origins = false;
  bool large_bodies = false;
};

// What an origin does wrong with an answer.
enum class Trouble : uint8_t {
  kNone,
  kCloseBefore,  // FIN instead of an answer
  kResetBefore,
  kCloseInHead,
  kResetInHead,
  kCloseInBody,
  kResetInBody,
  kStallInBody,  // and nothing more
  kSilence,      // no answer at all
  kGarbage,      // no HTTP
  kBadChunk,
  kTwoLengths,
  kHugeHead,
  kSwitches,     // 101 without having been asked
  kExtraBytes,   // behind a good answer
  kErrorStatus,  // another answer than the planned one, good as HTTP
};

// What happens to the origin's connection after a good answer.
enum class Afterwards : uint8_t { kStays, kSaysClose, kClosesSilently, kClosesLater };

struct Answer {
  bool early = false;  // before the request's body has been read
  uint64_t delay_ns = 0;
  uint64_t stall_ns = 0;  // reads nothing of the request's body for so long
  std::vector<unsigned> interims;
  unsigned status = 200;
  Framing framing = Framing::kLength;
  bool old_version = false;  // HTTP/1.0
  bool trailers = false;
  bool hop = false;  // Connection names a field: that goes, and with it all trailers
  size_t body_bytes = 0;
  unsigned pieces = 1;
  uint64_t gap_ns = 0;  // between pieces
  Afterwards afterwards = Afterwards::kStays;
  Trouble trouble = Trouble::kNone;
  unsigned trouble_times = 1;   // the first attempts that meet it
  unsigned error_status = 503;  // of kErrorStatus; never a planned one
  size_t error_bytes = 0;
};

// Where a request goes by its path; see proxy_server.cc for the routes.
enum class Place : uint8_t { kFirst, kSecond, kSmall, kRespond, kRedirect, kNowhere };

inline constexpr size_t kSmallBodyMax = 1000;  // of kSmall's route

struct Request {
  uint64_t id = 0;
  Place place = Place::kFirst;
  std::string method = "GET";
  unsigned minor = 1;
  std::string connection;  // field value; empty: none
  Framing framing = Framing::kNone;
  size_t body_bytes = 0;
  bool trailers = false;
  bool hop = false;  // as in Answer
  bool expect = false;
  // Not acceptable: what is sent instead (`head`), and the status that is due.
  unsigned refused = 0;
  const char* wrong = "";
  bool wrong_body = false;  // the head is good, so an origin may see it: never the whole
  bool spoiled = false;     // ... since its last chunk is malformed
  bool stays_open = false;  // the refusal leaves the connection usable
  std::string head;         // to be sent
  std::string wire_body;    // with its framing
  uint64_t think_ns = 0;    // after the previous response, or the connect
  unsigned pieces = 1;
  uint64_t gap_ns = 0;
  Answer answer;

  [[nodiscard]] bool idempotent() const { return method != "POST" && method != "PATCH"; }
  [[nodiscard]] size_t upstream() const { return place == Place::kSecond ? 1 : 0; }
  [[nodiscard]] bool asks_close() const {
    return connection == "close" || (minor == 0 && connection != "keep-alive");
  }
};

enum class Leaving : uint8_t { kStays, kCloses, kResets, kVanishes, kHalfCloses, kStops };

struct ClientPlan {
  uint64_t start_ns = 0;
  bool pipelined = false;
  bool ipv6 = false;
  bool second_listener = false;
  // When it leaves (or, kStops, sends nothing more but stays): after a time, or when it has
  // received so many bytes.
  Leaving leaving = Leaving::kStays;
  uint64_t leaves_after_ns = 0;
  size_t leaves_after_bytes = 0;  // 0: by time
  uint64_t stall_at_ns = 0;       // stops reading then, 0: never, ...
  uint64_t stall_ns = 0;          // ... for so long
  bool lingers = false;           // keeps the connection open when all is done
  std::vector<Request*> requests;
};

Setup choose_setup(Kernel& kernel, uint64_t seed);
void choose_policies(uint64_t seed, Setup& setup);
// Fills in a request with everything that follows from its id and place.
void choose_request(Kernel& kernel, const Setup& setup, bool last, Request& request);
void choose_client(Kernel& kernel, const Setup& setup, ClientPlan& client);

}  // namespace weir::sim
