// [health_check] and the tables of an upstream about the health of its servers.
#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include <weir/base/text.h>

#include "custom_settings.h"
#include "suggest.h"
#include "syntax.h"
#include "units.h"

namespace weir::control::config {

namespace {

// As much as a check reads of an answer's content (control/health.h).
constexpr size_t kExpectedBodyBytesMax = 65'536;
constexpr size_t kExpectedStatusMax = 400;

// They say how the request is framed and where it goes.
constexpr std::array<std::string_view, 8> kOwnFields = {
    "connection", "content-length", "transfer-encoding", "te", "trailer",
    "upgrade",    "expect",         "keep-alive"};

UpstreamSettings& settings_of(void* object) noexcept {
  return *static_cast<UpstreamSettings*>(object);
}

std::optional<uint16_t> parse_status(std::string_view text) noexcept {
  const auto number = base::parse_decimal(text);
  // Those below come before an answer, and are none.
  if (text.size() != 3 || !number || *number < 200 || *number > 599) return std::nullopt;
  return static_cast<uint16_t>(*number);
}

std::optional<ExpectedStatus> parse_expected(std::string_view text) noexcept {
  const size_t dash = text.find('-');
  const auto first = parse_status(text.substr(0, dash));
  if (!first) return std::nullopt;
  if (dash == std::string_view::npos) return ExpectedStatus{.first = *first, .last = *first};
  const auto last = parse_status(text.substr(dash + 1));
  if (!last || *last < *first) return std::nullopt;
  return ExpectedStatus{.first = *first, .last = *last};
}

// One entry of expected_status; reports what is wrong with it.
std::optional<ExpectedStatus> read_status(Reader& reader, const Node& node, const KeyPath& path) {
  std::string text;
  if (node.kind() == Kind::kInteger) {
    text = std::to_string(node.integer());
  } else if (node.kind() == Kind::kString) {
    const auto read = reader.text(node, path);
    if (!read) return std::nullopt;
    text = *read;
  } else {
    reader.expected(node, path, "a status such as 200 or a range such as \"200-299\"");
    return std::nullopt;
  }
  const auto status = parse_expected(text);
  if (!status) {
    reader.error(
        node.place(), path,
        "must be a status from 200 to 599, or a range such as \"200-299\", not " + quoted(text));
  }
  return status;
}

// Sorted, and what overlaps or adjoins made one.
std::vector<ExpectedStatus> merged(std::vector<ExpectedStatus> ranges) {
  std::ranges::sort(ranges, {}, &ExpectedStatus::first);
  std::vector<ExpectedStatus> result;
  for (const ExpectedStatus& one : ranges) {
    if (!result.empty() && one.first <= result.back().last + 1) {
      result.back().last = std::max(result.back().last, one.last);
    } else {
      result.push_back(one);
    }
  }
  return result;
}

// `path`: of a table that has given some of the settings; the others it has from elsewhere.
void check_health(Reader& reader, const KeyPath& path, const HealthSettings& health) {
  if (!health.enabled) return;
  const auto late = reader.given(path, {"timeout", "interval"});
  if (late && health.timeout > health.interval) {
    reader.warn(late->place, KeyPath{.parent = &path, .key = late->key},
                "timeout (" + format_duration(health.timeout.count()) +
                    ") is more than interval (" + format_duration(health.interval.count()) +
                    "): the next check of a server waits for the one before");
  }
  if (health.type == HealthType::kTcp || health.type == HealthType::kTls) {
    for (const std::string_view key :
         {"path", "method", "host", "headers", "expected_status", "expected_body"}) {
      const auto place = reader.given(path, key);
      if (!place) continue;
      reader.error(*place, KeyPath{.parent = &path, .key = key},
                   "is for checks that send a request, not for type = \"tcp\" or \"tls\"");
    }
    return;
  }
  const auto bodiless = reader.given(path, {"expected_body", "method"});
  if (bodiless && health.method == "HEAD" && !health.expected_body.empty()) {
    reader.error(bodiless->place, KeyPath{.parent = &path, .key = bodiless->key},
                 "an answer to HEAD has no content to look for expected_body in");
  }
}

void check_passive(Reader& reader, const KeyPath& path, const route::OutlierSpec& passive) {
  const auto time = reader.given(path, {"ejection_time_max", "ejection_time"});
  if (time && passive.ejection_max_ms < passive.ejection_ms) {
    reader.error(time->place, KeyPath{.parent = &path, .key = time->key},
                 "ejection_time (" + format_duration(passive.ejection_ms) +
                     ") is more than ejection_time_max (" +
                     format_duration(passive.ejection_max_ms) + ")");
  }
  const auto judged = reader.given(path, {"consecutive_errors", "error_percent", "slow_percent"});
  if (judged && passive.enabled && passive.consecutive_errors == 0 && passive.error_percent == 0 &&
      passive.latency_percent == 0) {
    reader.warn(judged->place, KeyPath{.parent = &path, .key = judged->key},
                "nothing is left to judge servers by; enabled = false says so plainly");
  }
}

// Defaults may be for upstreams that say `failures` themselves; `own` is the table of one.
void check_circuit(Reader& reader, const KeyPath& path, const route::CircuitSpec& circuit,
                   bool own) {
  const auto time = reader.given(path, {"open_time_max", "open_time"});
  if (time && circuit.open_max_ms < circuit.open_ms) {
    reader.error(time->place, KeyPath{.parent = &path, .key = time->key},
                 "open_time (" + format_duration(circuit.open_ms) +
                     ") is more than open_time_max (" + format_duration(circuit.open_max_ms) + ")");
  }
  if (!own || circuit.failures != 0 || reader.given(path, "failures")) return;
  for (const std::string_view key : {"open_time", "open_time_max", "trials", "successes"}) {
    const auto place = reader.given(path, key);
    if (!place) continue;
    reader.error(*place, KeyPath{.parent = &path, .key = key},
                 "has no failures beside it: so many open the circuit, and 0 is never");
  }
}

}  // namespace

std::string_view check_method(const ScalarValue& value) {
  if (!is_token(value.text)) return "is not a method";
  return value.text == "CONNECT" ? "cannot be CONNECT, which asks for a tunnel" : "";
}

std::string_view check_check_path(const ScalarValue& value) {
  const bool visible = std::ranges::all_of(value.text, [](char c) { return c > 0x20 && c < 0x7f; });
  if (!value.text.starts_with('/') || !visible) {
    return "must begin with \"/\" and have spaces and bytes beyond ASCII percent-encoded";
  }
  if (value.text.find('#') != std::string_view::npos) return "must not have a fragment (\"#\")";
  return value.text.size() > 8192 ? "is longer than 8192 bytes" : "";
}

std::string_view check_expected_body(const ScalarValue& value) {
  return value.text.size() > kExpectedBodyBytesMax ? "is longer than 64 KiB, which is read" : "";
}

void read_check_headers(Reader& reader, const TableEntry& entry, void* object) {
  if (!reader.is_table(entry.member.value, entry.path)) return;
  const size_t errors_before = reader.error_count();
  std::vector<std::pair<std::string, std::string>> headers;
  for (const Member& member : entry.member.value.members_in_file_order()) {
    const KeyPath here{.parent = &entry.path, .key = member.key};
    const bool own = std::ranges::any_of(kOwnFields, [&member](std::string_view one) {
      return base::equals_ignore_case(one, member.key);
    });
    const bool twice = std::ranges::any_of(headers, [&member](const auto& other) {
      return base::equals_ignore_case(other.first, member.key);
    });
    if (!is_token(member.key)) {
      reader.error(member.place, here, "is not a header name");
    } else if (base::equals_ignore_case(member.key, "host")) {
      reader.error(member.place, here, "is given as host of the check");
    } else if (own) {
      reader.error(member.place, here, "is set by weir itself and cannot be given");
    } else if (twice) {
      reader.error(member.place, here, "is given twice");
    } else if (const auto value = reader.text(member.value, here)) {
      if (!is_field_value(*value)) {
        reader.error(member.value.place(), here,
                     "must not contain line ends or other control characters");
      }
      headers.emplace_back(member.key, base::trim(*value));
    }
  }
  if (reader.error_count() != errors_before) return;
  static_cast<HealthSettings*>(object)->headers = std::move(headers);
}

void read_expected_status(Reader& reader, const TableEntry& entry, void* object) {
  const size_t errors_before = reader.error_count();
  const Node& node = entry.member.value;
  std::vector<ExpectedStatus> ranges;
  if (node.kind() != Kind::kList) {
    if (const auto one = read_status(reader, node, entry.path)) ranges.push_back(*one);
  } else if (node.size() == 0 || node.size() > kExpectedStatusMax) {
    reader.error(node.place(), entry.path, "must name 1 to 400 statuses or ranges");
  } else {
    for (size_t i = 0; i < node.size(); ++i) {
      const KeyPath here{.parent = &entry.path, .index = static_cast<int64_t>(i)};
      if (const auto one = read_status(reader, node.item(i), here)) ranges.push_back(*one);
    }
  }
  if (reader.error_count() != errors_before) return;
  static_cast<HealthSettings*>(object)->expected_status = merged(std::move(ranges));
}

void read_health_check(Reader& reader, const TableEntry& entry, void* object) {
  HealthSettings& health = settings_of(object).health;
  // Also where that of all upstreams says that they are off.
  health.enabled = true;
  reader.table(entry.member.value, section("health_check"), &health, entry.path);
  check_health(reader, entry.path, health);
}

void read_health_defaults(Reader& reader, const Node& table, const KeyPath& path) {
  HealthSettings& health = reader.config.upstream_defaults.health;
  health.enabled = true;
  reader.table(table, section("health_check"), &health, path);
  check_health(reader, path, health);
}

void read_passive_check(Reader& reader, const TableEntry& entry, void* object) {
  route::OutlierSpec& passive = settings_of(object).passive;
  reader.table(entry.member.value, section("passive_check"), &passive, entry.path);
  check_passive(reader, entry.path, passive);
}

void read_circuit_breaker(Reader& reader, const TableEntry& entry, void* object) {
  route::CircuitSpec& circuit = settings_of(object).circuit;
  reader.table(entry.member.value, section("circuit_breaker"), &circuit, entry.path);
  // "upstream_defaults.circuit_breaker" has one key before its own, that of an upstream two.
  const bool own = entry.path.parent != nullptr && entry.path.parent->parent != nullptr;
  check_circuit(reader, entry.path, circuit, own);
}

}  // namespace weir::control::config
