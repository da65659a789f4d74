// What a health check may be asked to be, and the names of what came of it.
#include <algorithm>
#include <array>

#include <weir/base/text.h>
#include <weir/control/health.h>

namespace weir::control {

namespace {

bool is_token(std::string_view text) noexcept {
  constexpr std::string_view kOthers = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::ranges::all_of(text, [&](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           kOthers.contains(c);
  });
}

// Nothing that could end a line, or that no reader agrees on.
bool is_value(std::string_view text) noexcept {
  return std::ranges::none_of(text, [](char c) {
    return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
  });
}

bool is_visible(std::string_view text) noexcept {
  return std::ranges::all_of(text, [](char c) { return c > 0x20 && c < 0x7f; });
}

// They say how the request is framed and where it goes; a second one would be smuggling.
bool is_ours(std::string_view name) noexcept {
  constexpr std::array<std::string_view, 7> kNames = {
      "host", "connection", "content-length", "transfer-encoding", "te", "upgrade", "expect"};
  return std::ranges::any_of(
      kNames, [name](std::string_view one) { return base::equals_ignore_case(name, one); });
}

std::string http_problem(const HealthTarget& target) {
  if (!is_token(target.method)) return "the method is not a token";
  if (target.method == "CONNECT") return "CONNECT is not a method to check with";
  if (!target.path.starts_with('/') || !is_visible(target.path)) {
    return "the path has to begin with / and to be of visible ASCII characters";
  }
  if (!is_visible(target.host)) return "the host is not a host";
  for (const HealthHeader& header : target.headers) {
    if (!is_token(header.name)) return "a header's name is not a token";
    if (!is_value(header.value)) return "header " + header.name + " has a control character";
    if (is_ours(header.name)) return "header " + header.name + " is set by weir itself";
  }
  if (target.status.empty()) return "no status would be a good one";
  for (const StatusRange& range : target.status) {
    if (range.first < 100 || range.last > 599 || range.first > range.last) {
      return "an expected status is not within 100 to 599";
    }
  }
  if (!target.body.empty() && target.method == "HEAD") return "an answer to HEAD has no content";
  if (target.body.size() > target.body_bytes_max) {
    return "the expected content is longer than what is read of it";
  }
  return {};
}

}  // namespace

std::string problem_of(const HealthTarget& target) {
  if (target.address.length == 0) return "there is no address";
  if (target.interval_ms == 0) return "the interval is 0";
  if (target.timeout_ms == 0) return "the timeout is 0";
  if (target.jitter_percent > 100) return "the jitter is more than the interval";
  if (target.unhealthy_threshold == 0 || target.healthy_threshold == 0) return "a threshold is 0";
  const bool secure = target.kind == HealthKind::kTls || target.kind == HealthKind::kHttps;
  if (secure && !target.tls) return "there are no TLS settings";
  // Kernel TLS is for bodies; and where its poll(2) tells of half a record, control would spin.
  if (secure && target.tls->kernel != nullptr) {
    return "the records of health checks are done in userspace";
  }
  const bool http = target.kind == HealthKind::kHttp || target.kind == HealthKind::kHttps;
  return http ? http_problem(target) : std::string();
}

std::string_view to_text(HealthResult result) noexcept {
  switch (result) {
    case HealthResult::kNone: return "none";
    case HealthResult::kPassed: return "passed";
    case HealthResult::kRefused: return "refused";
    case HealthResult::kUnreachable: return "unreachable";
    case HealthResult::kTimedOut: return "timed_out";
    case HealthResult::kClosed: return "closed";
    case HealthResult::kHandshake: return "handshake";
    case HealthResult::kMalformed: return "malformed";
    case HealthResult::kStatus: return "status";
    case HealthResult::kBody: return "body";
    case HealthResult::kLocal: return "local";
  }
  return "unknown";
}

}  // namespace weir::control
