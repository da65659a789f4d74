#include "options.h"

#include <charconv>
#include <cstdlib>
#include <string_view>

#include "wire.h"

namespace weir::bench {

const char* const kUsage =
    "usage: loadgen MODE --origin-port PORT [OPTION...]\n"
    "\n"
    "One thread that is the clients and the origin of a proxy at once and never sleeps. Used by\n"
    "tools/bench. MODE:\n"
    "  run      requests as fast as the proxy answers; prints START, END and one line of JSON\n"
    "  idle     opens connections, one request each, holds them and reads the proxy's memory\n"
    "  origin   only the origin, until --seconds are over\n"
    "\n"
    "  --origin-port PORT    where the origin listens (127.0.0.1)\n"
    "  --target-port PORT    where the proxy listens; the origin's own port measures no proxy\n"
    "  --second-port PORT    another proxy, for every other connection\n"
    "  --connections N       default 64 (idle: 10000)\n"
    "  --size BYTES          of the response body: 128, 1024, a power of two from 32768 to\n"
    "                        4194304, or 10485760\n"
    "  --seconds S           measured window (default 1.5)\n"
    "  --warm S              before it (default 0.3)\n"
    "  --connection-per-request\n"
    "  --tls                 the clients speak TLS 1.3 (AES-128-GCM, X25519), http/1.1\n"
    "  --resume              with both of these: resume by the ticket of the last connection\n"
    "  --sleep               it may sleep (origin, for tools such as wrk; run, on one CPU)\n"
    "  --cpu N               pin to this CPU\n"
    "  --pids PID,PID...     processes of the proxy: their CPU time and memory are read\n";

namespace {

bool parse_unsigned(std::string_view text, uint64_t max, uint64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() && value <= max;
}

bool parse_seconds(const char* text, double& value) {
  char* end = nullptr;
  value = std::strtod(text, &end);
  return end != text && *end == '\0' && value >= 0 && value <= 600;
}

bool parse_port(std::string_view text, uint16_t& port) {
  uint64_t value = 0;
  if (!parse_unsigned(text, 65535, value) || value == 0) return false;
  port = static_cast<uint16_t>(value);
  return true;
}

bool parse_pids(std::string_view text, std::vector<pid_t>& pids) {
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    uint64_t value = 0;
    if (!parse_unsigned(item, 1U << 22, value) || value == 0) return false;
    pids.push_back(static_cast<pid_t>(value));
    text.remove_prefix(item.size() == text.size() ? item.size() : item.size() + 1);
  }
  return !pids.empty();
}

bool parse_value(std::string_view name, const char* text, Options& options, bool& known) {
  uint64_t number = 0;
  known = true;
  if (name == "--origin-port") return parse_port(text, options.origin_port);
  if (name == "--target-port") return parse_port(text, options.target_port);
  if (name == "--second-port") return parse_port(text, options.second_port);
  if (name == "--seconds") return parse_seconds(text, options.seconds);
  if (name == "--warm") return parse_seconds(text, options.warm_seconds);
  if (name == "--pids") return parse_pids(text, options.pids);
  if (name == "--connections") {
    if (!parse_unsigned(text, 1'000'000, number) || number == 0) return false;
    options.connections = number;
    return true;
  }
  if (name == "--size") {
    return parse_unsigned(text, kBodyBytesMax, options.body_bytes) &&
           is_known_size(options.body_bytes);
  }
  if (name == "--cpu") {
    if (!parse_unsigned(text, 1023, number)) return false;
    options.cpu = static_cast<int>(number);
    return true;
  }
  known = false;
  return false;
}

bool parse_mode(std::string_view text, Options& options) {
  if (text == "run") {
    options.mode = Mode::kRun;
  } else if (text == "idle") {
    options.mode = Mode::kIdle;
    options.connections = 10'000;
  } else if (text == "origin") {
    options.mode = Mode::kOrigin;
  } else {
    return false;
  }
  return true;
}

}  // namespace

bool parse_options(int argc, char** argv, Options& options, std::string& error) {
  if (argc < 2 || !parse_mode(argv[1], options)) {
    error = "the first argument must be run, idle or origin";
    return false;
  }
  for (int i = 2; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--connection-per-request") {
      options.connection_per_request = true;
      continue;
    }
    if (name == "--tls") {
      options.tls = true;
      continue;
    }
    if (name == "--resume") {
      options.resume = true;
      continue;
    }
    if (name == "--sleep") {
      options.sleep = true;
      continue;
    }
    bool known = false;
    if (i + 1 < argc && parse_value(name, argv[i + 1], options, known)) {
      ++i;
      continue;
    }
    error =
        std::string(name) + (known ? ": bad value" : ": unknown option, or its value is missing");
    return false;
  }
  if (options.origin_port == 0) error = "--origin-port is missing";
  if (options.mode != Mode::kOrigin && options.target_port == 0) error = "--target-port is missing";
  if (options.mode == Mode::kIdle && options.connection_per_request) {
    error = "idle connections are kept alive: --connection-per-request makes no sense";
  }
  if (options.sleep && options.mode == Mode::kIdle) error = "--sleep is not for the mode idle";
  if (options.resume && !(options.tls && options.connection_per_request)) {
    error = "--resume needs --tls and --connection-per-request";
  }
  return error.empty();
}

}  // namespace weir::bench
