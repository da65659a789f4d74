#include <sim/proxy_plan.h>

#include <array>

#include <weir/base/prng.h>

namespace weir::sim {

namespace {

// From a microsecond to `limit_ns`, each order of magnitude as likely.
uint64_t some_time(Kernel& kernel, uint64_t limit_ns) {
  unsigned doublings = 0;
  while ((kMicrosecond << doublings) < limit_ns) ++doublings;
  return kernel.below(kMicrosecond << kernel.below(doublings + 1)) + 1;
}

// Mostly small; the borders of buffers and of direct mode (32 KiB) are met often.
size_t some_size(Kernel& kernel, bool large) {
  switch (kernel.below(8)) {
    case 0: return 0;
    case 1:
    case 2:
    case 3: return 1 + kernel.below(300);
    case 4: return 1 + kernel.below(5000);
    case 5: return 4000 + kernel.below(300);
    case 6: return large ? 30'000 + kernel.below(6000) : 1 + kernel.below(9000);
    default: return large ? 1 + kernel.below(150'000) : 1 + kernel.below(12'000);
  }
}

Times short_times(Kernel& kernel) {
  Times times;
  for (uint32_t* time :
       {&times.header, &times.body, &times.keepalive, &times.send, &times.half_close_grace,
        &times.connect, &times.response, &times.read, &times.origin_send, &times.origin_idle}) {
    *time = static_cast<uint32_t>(20 + kernel.below(1u << (5 + kernel.below(8))));
  }
  return times;
}

}  // namespace

Setup choose_setup(Kernel& kernel, uint64_t seed) {
  Setup setup;
  // A stream of its own, so that these choices do not move when the kernel's do.
  base::Prng rng(seed ^ 0x70726f78'79ULL);
  setup.cores = rng.chance(40) ? 2 : 1;
  if (rng.chance(50)) {
    setup.buffers = 8u << rng.below(4);
    setup.buffers_offered = 8;
  }
  setup.buffer_bytes = rng.chance(50) ? 1024 : 4096;
  setup.one_shot = rng.chance(30);
  setup.short_times = rng.chance(25);
  if (setup.short_times) setup.times = short_times(kernel);
  if (rng.chance(20)) setup.connections_max = static_cast<uint32_t>(1 + rng.below(3));
  if (rng.chance(20)) setup.requests_max = static_cast<uint32_t>(1 + rng.below(4));
  if (rng.chance(20)) setup.max_idle = static_cast<uint32_t>(rng.below(2));
  if (rng.chance(20)) setup.max_connecting = 1;
  if (rng.chance(20)) setup.lifetime_ms = static_cast<uint32_t>(1 + rng.below(200));
  for (uint32_t& servers : setup.servers) servers = static_cast<uint32_t>(1 + rng.below(3));
  setup.reloads = rng.chance(40);
  setup.servers_fail = rng.chance(25);
  setup.wrong_requests = rng.chance(40);
  setup.rude_clients = rng.chance(40);
  setup.slow_clients = rng.chance(30);
  setup.rude_origins = rng.chance(40);
  setup.slow_origins = rng.chance(30);
  setup.large_bodies = rng.chance(40);
  setup.clients = static_cast<uint32_t>(2 + rng.below(rng.chance(40) ? 40 : 10));
  if (rng.chance(40)) {
    setup.ending = rng.chance(50) ? Ending::kDrainMidway : Ending::kCancelMidway;
    setup.ending_at_ns = 200 * kMicrosecond + some_time(kernel, kSecond);
  }
  choose_policies(seed, setup);
  return setup;
}

namespace {

std::string id_text(const Request& request) { return std::to_string(request.id); }

std::string target_of(Kernel& kernel, const Request& request) {
  static constexpr std::array kPrefix = {"/first/",   "/second/",   "/small/",
                                         "/respond/", "/redirect/", "/nowhere/"};
  std::string target = kPrefix[static_cast<size_t>(request.place)] + id_text(request);
  if (kernel.chance(30)) target += "?q=" + std::to_string(kernel.below(1000));
  return target;
}

std::string start_of_head(const Request& request, const std::string& target) {
  std::string head = request.method + " " + target + " HTTP/1." + std::to_string(request.minor) +
                     "\r\nHost: sim.example\r\nX-Id: " + id_text(request) + "\r\n";
  return head;
}

// Requests that must be refused. `#` stands for the id.
struct Wrong {
  const char* name;
  unsigned status;
  bool stays_open;
  const char* text;
};
constexpr Wrong kWrong[] = {
    {"two lengths", 400, false,
     "POST /first/# HTTP/1.1\r\nHost: a\r\nX-Id: #\r\nContent-Length: 3\r\nContent-Length: "
     "4\r\n\r\n"
     "abcd"},
    {"length and chunked", 400, false,
     "POST /first/# HTTP/1.1\r\nHost: a\r\nX-Id: #\r\nContent-Length: 5\r\n"
     "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
    {"space before the colon", 400, false, "GET /first/# HTTP/1.1\r\nHost: a\r\nX-Id : #\r\n\r\n"},
    {"bare LF", 400, false, "GET /first/# HTTP/1.1\nHost: a\nX-Id: #\n\n"},
    {"folded line", 400, false,
     "GET /first/# HTTP/1.1\r\nHost: a\r\nX-Id: #\r\nX-Fold: a\r\n b\r\n\r\n"},
    {"no host", 400, false, "GET /first/# HTTP/1.1\r\nX-Id: #\r\n\r\n"},
    {"two hosts", 400, false, "GET /first/# HTTP/1.1\r\nHost: a\r\nHost: b\r\nX-Id: #\r\n\r\n"},
    {"other version", 505, false, "GET /first/# HTTP/2.0\r\nHost: a\r\nX-Id: #\r\n\r\n"},
    {"other coding", 501, false,
     "POST /first/# HTTP/1.1\r\nHost: a\r\nX-Id: #\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
     "0\r\n\r\n"},
    {"other expectation", 417, false,
     "GET /first/# HTTP/1.1\r\nHost: a\r\nX-Id: #\r\nExpect: 200-ok\r\n\r\n"},
    {"control byte", 400, false,
     "GET /first/# HTTP/1.1\r\nHost: a\r\nX-Id: #\r\nX-A: a\x01z\r\n\r\n"},
    {"TRACE", 405, true, "TRACE /first/# HTTP/1.1\r\nHost: a\r\nX-Id: #\r\n\r\n"},
    {"CONNECT", 405, true, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nX-Id: #\r\n\r\n"},
    {"bad escape", 400, true, "GET /first/#%zz HTTP/1.1\r\nHost: a\r\nX-Id: #\r\n\r\n"},
    {"not HTTP", 400, false, "\x16\x03\x01\x02 #\r\n\r\n"},
};

std::string with_id(std::string_view text, const std::string& id) {
  std::string out;
  for (const char c : text) {
    if (c == '#') {
      out += id;
    } else {
      out += c;
    }
  }
  return out;
}

void make_wrong(Kernel& kernel, Request& request) {
  request.minor = 1;
  request.connection.clear();
  const uint64_t choice = kernel.below(std::size(kWrong) + 2);
  if (choice < std::size(kWrong)) {
    const Wrong& wrong = kWrong[choice];
    request.wrong = wrong.name;
    request.refused = wrong.status;
    request.stays_open = wrong.stays_open;
    request.head = with_id(wrong.text, id_text(request));
    request.method = request.head.substr(0, request.head.find(' '));
    return;
  }
  const bool line = choice == std::size(kWrong);
  request.wrong = line ? "long line" : "many fields";
  request.refused = line ? 414 : 431;
  request.method = "GET";
  request.head = "GET /first/" + id_text(request);
  if (line) request.head += std::string(9000, 'a');
  request.head += " HTTP/1.1\r\nHost: a\r\n";
  for (int i = 0; i < 120 && !line; ++i) request.head += "X-" + std::to_string(i) + ": 1\r\n";
  request.head += "\r\n";
}

void choose_answer(Kernel& kernel, const Setup& setup, const Request& request, Answer& answer) {
  static constexpr unsigned kStatuses[] = {200, 200, 200, 200, 206, 404, 500, 301, 204, 304};
  answer.status = kStatuses[kernel.below(std::size(kStatuses))];
  answer.framing = static_cast<Framing>(1 + kernel.below(3));
  answer.old_version = answer.framing == Framing::kUntilClose && kernel.chance(50);
  answer.body_bytes = some_size(kernel, setup.large_bodies);
  const bool bare = answer.status == 204 || answer.status == 304;
  if (bare) answer.body_bytes = 0;
  if (bare || request.method == "HEAD") {
    if (answer.framing == Framing::kUntilClose || answer.status == 204) {
      answer.framing = Framing::kNone;
    }
  }
  answer.hop = kernel.chance(20);
  answer.trailers = answer.framing == Framing::kChunked && kernel.chance(30);
  if (kernel.chance(15)) answer.interims.push_back(kernel.chance(50) ? 103 : 102);
  if (kernel.chance(request.expect ? 70 : 5)) {
    answer.interims.insert(answer.interims.begin(), 100);
  }
  if (kernel.chance(30)) answer.delay_ns = some_time(kernel, 100 * kMillisecond);
  if (kernel.chance(30)) {
    answer.pieces = 1 + static_cast<unsigned>(kernel.below(6));
    answer.gap_ns = some_time(kernel, 20 * kMillisecond);
  }
  if (request.framing != Framing::kNone && kernel.chance(20)) answer.early = true;
  if (setup.slow_origins && kernel.chance(30)) {
    answer.delay_ns = some_time(kernel, 5 * kSecond);
    if (kernel.chance(50)) answer.stall_ns = some_time(kernel, 5 * kSecond);
  }
  if (kernel.chance(10)) answer.afterwards = Afterwards::kSaysClose;
  const Policy& policy = setup.policies[request.upstream()];
  if (policy.spec.retry.hedge_after_ms != 0 && kernel.chance(50)) {
    answer.delay_ns = some_time(kernel, 4 * policy.spec.retry.hedge_after_ms * kMillisecond);
  }
  if (!policy.plain) {
    answer.trouble_times = 1 + static_cast<unsigned>(kernel.below(4));
    if (kernel.chance(20)) {
      answer.trouble = Trouble::kErrorStatus;
      answer.error_status = 502 + static_cast<unsigned>(kernel.below(3));
      answer.error_bytes = some_size(kernel, false);
    }
  }
  if (!setup.rude_origins) return;
  if (kernel.chance(40)) {
    answer.afterwards = kernel.chance(30) ? Afterwards::kClosesSilently : Afterwards::kClosesLater;
  }
  if (kernel.chance(20)) answer.trouble = static_cast<Trouble>(1 + kernel.below(14));
  if (answer.trouble == Trouble::kBadChunk && answer.framing != Framing::kChunked) {
    answer.trouble = Trouble::kGarbage;
  }
  // These would be good answers of another length.
  if (answer.trouble == Trouble::kExtraBytes && answer.framing == Framing::kUntilClose) {
    answer.trouble = Trouble::kNone;
  }
  if (answer.trouble == Trouble::kCloseInBody && answer.framing == Framing::kUntilClose) {
    answer.trouble = Trouble::kResetInBody;
  }
}

void choose_body(Kernel& kernel, const Setup& setup, Request& request) {
  request.hop = kernel.chance(20);
  static constexpr const char* kMethods[] = {"GET",  "GET", "GET", "HEAD",   "POST",
                                             "POST", "PUT", "PUT", "DELETE", "PATCH"};
  request.method = kMethods[kernel.below(std::size(kMethods))];
  const bool content = request.method == "POST" || request.method == "PUT" ||
                       request.method == "PATCH" || kernel.chance(3);
  if (!content) return;
  request.framing = request.minor == 1 && kernel.chance(45) ? Framing::kChunked : Framing::kLength;
  request.body_bytes = some_size(kernel, setup.large_bodies);
  request.trailers = request.framing == Framing::kChunked && kernel.chance(30);
  request.expect = request.minor == 1 && request.body_bytes > 0 && kernel.chance(20);
}

void write_request(Kernel& kernel, Request& request) {
  const std::string body = make_body(request.id, 'q', request.body_bytes);
  std::string& head = request.head;
  head = start_of_head(request, target_of(kernel, request));
  if (!request.connection.empty()) head += "Connection: " + request.connection + "\r\n";
  if (request.hop) head += "X-Hop: 1\r\nConnection: X-Hop\r\n";
  if (request.expect) head += "Expect: 100-continue\r\n";
  if (kernel.chance(10)) head += "X-Pad: " + std::string(kernel.below(6000), 'p') + "\r\n";
  if (request.framing == Framing::kLength) {
    head += "Content-Length: " + std::to_string(request.body_bytes) + "\r\n\r\n";
    request.wire_body = body;
    return;
  }
  if (request.framing != Framing::kChunked) {
    head += "\r\n";
    return;
  }
  head += "Transfer-Encoding: chunked\r\n\r\n";
  const std::string trailers =
      request.trailers ? "X-Trail: " + std::to_string(request.id) + "\r\n" : std::string();
  const uint64_t most = 1 + kernel.below(request.body_bytes + 2);
  request.wire_body = write_chunked(body, trailers, [&] { return 1 + kernel.below(most); });
  if (request.spoiled) {
    // The last chunk's line is spoiled: everything before it is in order.
    const size_t last = request.wire_body.rfind("\r\n0\r\n");
    const size_t at = last == std::string::npos ? 0 : last + 2;
    request.wire_body.replace(at, 1, kernel.chance(50) ? "0x0" : " 0");
  }
}

}  // namespace

void choose_request(Kernel& kernel, const Setup& setup, bool last, Request& request) {
  static constexpr Place kPlaces[] = {
      Place::kFirst,   Place::kFirst,   Place::kFirst,    Place::kFirst,
      Place::kFirst,   Place::kFirst,   Place::kSecond,   Place::kSecond,
      Place::kSecond,  Place::kSecond,  Place::kSmall,    Place::kSmall,
      Place::kRespond, Place::kRespond, Place::kRedirect, Place::kNowhere};
  request.place = kPlaces[kernel.below(std::size(kPlaces))];
  if (kernel.chance(6)) request.minor = 0;
  if (kernel.chance(last ? 30 : 2)) request.connection = "close";
  if (request.minor == 0 && kernel.chance(60)) request.connection = "keep-alive";
  if (kernel.chance(40)) request.think_ns = some_time(kernel, 300 * kMillisecond);
  if (kernel.chance(25)) {
    request.pieces = 1 + static_cast<unsigned>(kernel.below(5));
    request.gap_ns = some_time(kernel, 20 * kMillisecond);
  }
  if (setup.slow_clients && kernel.chance(30)) {
    request.pieces = 1 + static_cast<unsigned>(kernel.below(30));
    request.gap_ns = some_time(kernel, kSecond);
  }
  if (setup.wrong_requests && kernel.chance(last ? 40 : 3)) return make_wrong(kernel, request);
  choose_body(kernel, setup, request);
  choose_answer(kernel, setup, request, request.answer);
  const bool passed_on = request.place <= Place::kSmall;
  if (setup.wrong_requests && request.framing == Framing::kChunked && kernel.chance(35)) {
    request.wrong = "bad chunk";
    request.wrong_body = request.spoiled = true;
    if (request.body_bytes > kSmallBodyMax) request.body_bytes %= kSmallBodyMax;
    request.refused = 400;
  }
  if (request.place == Place::kSmall && request.body_bytes > kSmallBodyMax && !request.spoiled) {
    request.wrong = "too large";
    request.refused = 413;
    request.wrong_body = request.framing == Framing::kChunked;
  }
  // Where the content is not wanted, it is only looked at if that keeps the connection.
  if (!passed_on) request.refused = request.spoiled ? 400 : 0;
  write_request(kernel, request);
}

void choose_client(Kernel& kernel, const Setup& setup, ClientPlan& client) {
  client.start_ns = kernel.chance(50) ? 0 : some_time(kernel, 500 * kMillisecond);
  client.pipelined = kernel.chance(35);
  client.ipv6 = kernel.chance(20);
  client.second_listener = setup.reloads && kernel.chance(30);
  client.lingers = kernel.chance(20);
  if (kernel.chance(10) || (setup.slow_clients && kernel.chance(30))) {
    client.stall_at_ns = some_time(kernel, kSecond);
    client.stall_ns = some_time(kernel, setup.slow_clients ? 100 * kSecond : kSecond);
  }
  if (!setup.rude_clients || kernel.chance(50)) return;
  client.leaving = static_cast<Leaving>(1 + kernel.below(5));
  client.leaves_after_ns = some_time(kernel, 2 * kSecond);
  if (kernel.chance(40)) client.leaves_after_bytes = 1 + kernel.below(20'000);
}

}  // namespace weir::sim
