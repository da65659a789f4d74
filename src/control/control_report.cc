// Upstreams and servers for `weir ctl`: what control knows of them and what the cores have counted,
// added up, as a table for people or as JSON.
#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "control_commands.h"
#include "json_writer.h"

namespace weir::control {

using route::ServerState;
using upstream::CircuitState;
using upstream::OutlierCause;

namespace {

// One server, over all cores.
struct ServerSum {
  uint32_t cores_ejected = 0;  // passive checks have put it aside
  uint32_t cores_open = 0;     // circuits
  uint32_t cores_half_open = 0;
  uint32_t cores_aside = 0;                  // of either kind: no requests from there
  OutlierCause cause = OutlierCause::kNone;  // of some core's
  uint64_t active = 0;
  uint64_t idle = 0;
  uint64_t requests = 0;
  uint64_t answers = 0;
  uint64_t failures = 0;
  uint64_t ejections = 0;
  uint64_t latency_sum_us = 0;
  // The cores' moving averages, each by its answers; of very many of those 128 bits are needed.
  unsigned __int128 recent_sum = 0;
  uint64_t recent_answers = 0;

  void add(const upstream::ServerSample& sample) noexcept {
    const bool open = sample.circuit == CircuitState::kOpen;
    const bool ejected =
        sample.state == ServerState::kEjected && sample.cause != OutlierCause::kNone;
    cores_ejected += ejected;
    cores_open += open;
    cores_half_open += sample.circuit == CircuitState::kHalfOpen;
    cores_aside += open || sample.state == ServerState::kEjected;
    if (ejected) cause = sample.cause;
    active += sample.active;
    idle += sample.idle;
    requests += sample.counts.requests;
    answers += sample.counts.answers;
    failures += sample.counts.failures;
    ejections += sample.ejections;
    latency_sum_us += sample.counts.latency_us_sum;
    if (sample.counts.latency_us == 0) return;
    const uint64_t count = std::max<uint64_t>(sample.counts.answers, 1);
    recent_sum += static_cast<unsigned __int128>(sample.counts.latency_us) * count;
    recent_answers += count;
  }
  [[nodiscard]] uint64_t latency_us() const noexcept {
    return recent_answers == 0 ? 0 : static_cast<uint64_t>(recent_sum / recent_answers);
  }
  [[nodiscard]] uint64_t mean_us() const noexcept {
    return answers == 0 ? 0 : latency_sum_us / answers;
  }
};

struct UpstreamSum {
  std::string_view name;
  uint64_t servers = 0;
  uint64_t up = 0;
  uint64_t draining = 0;
  uint64_t down = 0;
  uint64_t ejected = 0;  // some core has it aside
  uint64_t active = 0;
  uint64_t pending = 0;
  uint64_t waited = 0;
  uint64_t refused = 0;
  uint64_t retries = 0;
  uint64_t retries_refused = 0;
  uint64_t hedged = 0;
  uint64_t requests = 0;
  uint64_t failures = 0;
  uint64_t answers = 0;
  uint64_t latency_sum_us = 0;
  [[nodiscard]] uint64_t mean_us() const noexcept {
    return answers == 0 ? 0 : latency_sum_us / answers;
  }
};

using ServerSums = std::map<std::pair<uint32_t, uint64_t>, ServerSum>;

ServerSums add_up_servers(const ControlFacts& facts) {
  ServerSums sums;
  for (const upstream::UpstreamScrape& core : facts.cores) {
    for (const upstream::ServerSample& sample : core.servers) {
      sums[{sample.upstream, sample.identity}].add(sample);
    }
  }
  return sums;
}

const ServerSum& sum_of(const ServerSums& sums, const ServerView& view) {
  static constexpr ServerSum kNothing;
  const auto found = sums.find({view.upstream_id, view.identity});
  return found == sums.end() ? kNothing : found->second;
}

// In the order in which the table has them.
std::vector<UpstreamSum> add_up_upstreams(const ControlFacts& facts, const ServerSums& servers) {
  std::vector<UpstreamSum> sums;
  std::map<uint32_t, size_t> places;
  for (const ServerView& view : facts.servers) {
    const auto [place, fresh] = places.try_emplace(view.upstream_id, sums.size());
    if (fresh) sums.push_back({.name = view.upstream});
    UpstreamSum& sum = sums[place->second];
    const ServerSum& server = sum_of(servers, view);
    sum.servers += 1;
    sum.up += view.state == ServerState::kUp && view.resolved;
    sum.draining += view.state == ServerState::kDraining;
    sum.down += view.state == ServerState::kDown;
    sum.ejected += server.cores_aside != 0;
    sum.requests += server.requests;
    sum.failures += server.failures;
    sum.answers += server.answers;
    sum.latency_sum_us += server.latency_sum_us;
  }
  for (const upstream::UpstreamScrape& core : facts.cores) {
    for (const upstream::UpstreamSample& sample : core.upstreams) {
      const auto place = places.find(sample.upstream);
      if (place == places.end()) continue;  // of a configuration that is gone, or just coming
      UpstreamSum& sum = sums[place->second];
      sum.active += sample.active;
      sum.pending += sample.pending;
      sum.waited += sample.waited;
      sum.refused += sample.pending_refused;
      sum.retries += sample.retries;
      sum.retries_refused += sample.retries_refused;
      sum.hedged += sample.hedged;
    }
  }
  return sums;
}

std::string_view phrase_of(OutlierCause cause) noexcept {
  switch (cause) {
    case OutlierCause::kNone: break;
    case OutlierCause::kConsecutive: return "errors in a row";
    case OutlierCause::kRatio: return "too many errors";
    case OutlierCause::kLatency: return "slower than the others";
  }
  return "no reason known";
}

// What the cores have been told, in a word. A server without an address is not up, whatever else
// is.
std::string_view state_of(const ServerView& view) noexcept {
  return view.resolved || view.state != ServerState::kUp ? word_of(view.state) : "unresolved";
}

// Everything that keeps a server from its share, as a phrase; empty: nothing does.
std::string why(const ServerView& view, const ServerSum& sum, size_t cores) {
  std::string text;
  const auto add = [&text](const std::string& part) {
    if (!text.empty()) text += "; ";
    text += part;
  };
  const auto on_cores = [cores](uint32_t count) {
    if (cores == 1) return std::string();
    return " on " + std::to_string(count) + " of " + std::to_string(cores) + " cores";
  };
  if (view.set != ServerState::kUp) add("set to " + std::string(word_of(view.set)));
  if (!view.resolved) {
    add("no address: " + (view.trouble.empty() ? "not known yet" : view.trouble));
  } else if (!view.trouble.empty()) {
    add("its name: " + view.trouble);
  }
  if (view.checked && !view.health.healthy && view.health.passed_row != 0) {
    add("checks pass again: " + std::to_string(view.health.passed_row) + " in a row so far");
  } else if (view.checked && !view.health.healthy) {
    add("check failed: " + (view.health.reason.empty() ? "no check yet" : view.health.reason));
  } else if (view.checked && view.health.failed_row != 0) {
    add("last check failed: " + view.health.reason);
  }
  if (sum.cores_ejected != 0) {
    add("ejected" + on_cores(sum.cores_ejected) + ": " + std::string(phrase_of(sum.cause)));
  }
  if (sum.cores_open != 0) add("circuit open" + on_cores(sum.cores_open));
  if (sum.cores_half_open != 0) add("circuit half-open" + on_cores(sum.cores_half_open));
  if (view.weight != view.weight_configured) {
    add("weight set, configured is " + std::to_string(view.weight_configured));
  }
  return text;
}

// ---- tables

// Columns as wide as they have to be; the last one is not padded.
class Table {
 public:
  enum class Align : uint8_t { kLeft, kRight };
  struct Column {
    std::string_view name;
    Align align = Align::kRight;
  };
  explicit Table(std::span<const Column> columns) : columns_(columns) {
    for (const Column& column : columns) cell(column.name);
  }
  void cell(std::string_view text) {
    Cell& made = cells_.emplace_back();
    made.width = append_plain_text(made.text, text.empty() ? "-" : text);
  }
  void cell(uint64_t value) { cell(std::string_view(std::to_string(value))); }
  // 0 stands for "not known".
  void duration(uint64_t microseconds) {
    cell(microseconds == 0 ? std::string("-") : human_duration(microseconds));
  }
  [[nodiscard]] std::string render() const {
    std::vector<size_t> widths(columns_.size());
    for (size_t i = 0; i < cells_.size(); ++i) {
      size_t& width = widths[i % columns_.size()];
      width = std::max(width, cells_[i].width);
    }
    std::string out;
    for (size_t i = 0; i < cells_.size(); ++i) {
      const size_t at = i % columns_.size();
      const bool last = at + 1 == columns_.size();
      const size_t padding = widths[at] - cells_[i].width;
      const bool left = columns_[at].align == Align::kLeft;
      if (!left) out.append(padding, ' ');
      out += cells_[i].text;
      if (left && !last) out.append(padding, ' ');
      out += last ? "\n" : "  ";
    }
    return out;
  }

 private:
  struct Cell {
    std::string text;
    size_t width = 0;
  };
  std::span<const Column> columns_;
  std::vector<Cell> cells_;
};

constexpr Table::Align kLeft = Table::Align::kLeft;
constexpr Table::Column kUpstreamColumns[] = {
    {"UPSTREAM", kLeft}, {"SERVERS"},  {"UP"},       {"DRAINING"}, {"DOWN"},    {"EJECTED"},
    {"ACTIVE"},          {"PENDING"},  {"WAITED"},   {"REFUSED"},  {"RETRIES"}, {"NO-RETRY"},
    {"HEDGED"},          {"REQUESTS"}, {"FAILURES"}, {"LATENCY"}};
constexpr Table::Column kServerColumns[] = {
    {"UPSTREAM", kLeft}, {"SERVER", kLeft}, {"ADDRESS", kLeft}, {"STATE", kLeft}, {"EJECTED"},
    {"WEIGHT"},          {"ACTIVE"},        {"IDLE"},           {"REQUESTS"},     {"ANSWERS"},
    {"FAILURES"},        {"EJECTIONS"},     {"LATENCY"},        {"CHECK", kLeft}, {"WHY", kLeft}};

std::string upstreams_as_text(std::span<const UpstreamSum> sums) {
  Table table(kUpstreamColumns);
  for (const UpstreamSum& sum : sums) {
    table.cell(sum.name);
    for (const uint64_t value : {sum.servers, sum.up, sum.draining, sum.down, sum.ejected,
                                 sum.active, sum.pending, sum.waited, sum.refused, sum.retries,
                                 sum.retries_refused, sum.hedged, sum.requests, sum.failures}) {
      table.cell(value);
    }
    table.duration(sum.mean_us());
  }
  return render_text("ok", table.render());
}

// "good 3h20m": since when the checks say so.
std::string check_cell(const ServerView& view, uint64_t now_ms) {
  if (!view.checked) return {};
  const uint64_t for_ms = now_ms - std::min(now_ms, view.health.since_ms);
  const uint64_t seconds = for_ms / 1000;  // fractions would say nothing here
  return (view.health.healthy ? "good " : "bad ") +
         (seconds == 0 ? "0s" : human_duration(seconds * 1'000'000));
}

void add_server(Table& table, const ServerView& view, const ServerSum& sum,
                const ControlFacts& facts) {
  table.cell(view.upstream);
  table.cell(view.name);
  table.cell(view.address == view.name ? std::string_view() : view.address);
  table.cell(state_of(view));
  table.cell(sum.cores_aside == 0
                 ? std::string()
                 : std::to_string(sum.cores_aside) + "/" + std::to_string(facts.cores.size()));
  for (const uint64_t value : {uint64_t{view.weight}, sum.active, sum.idle, sum.requests,
                               sum.answers, sum.failures, sum.ejections}) {
    table.cell(value);
  }
  table.duration(sum.latency_us());
  table.cell(check_cell(view, facts.now_ms));
  table.cell(why(view, sum, facts.cores.size()));
}

// ---- JSON

std::string upstreams_as_json(std::span<const UpstreamSum> sums, size_t cores) {
  JsonWriter json;
  json.begin_object().field("ok", true).field("cores", cores).key("upstreams").begin_array();
  for (const UpstreamSum& sum : sums) {
    json.begin_object().field("name", sum.name).field("servers", sum.servers);
    json.field("up", sum.up).field("draining", sum.draining).field("down", sum.down);
    json.field("ejected", sum.ejected).field("active", sum.active).field("pending", sum.pending);
    json.field("waited", sum.waited).field("refused", sum.refused).field("retries", sum.retries);
    json.field("retries_refused", sum.retries_refused).field("hedged", sum.hedged);
    json.field("requests", sum.requests).field("answers", sum.answers);
    json.field("failures", sum.failures).field("latency_mean_us", sum.mean_us()).end_object();
  }
  return json.end_array().end_object().out() + '\n';
}

void add_health(JsonWriter& json, const ServerView& view, uint64_t now_ms) {
  const HealthState& health = view.health;
  const auto ago = [now_ms](uint64_t then_ms) { return now_ms - std::min(now_ms, then_ms); };
  json.key("health").begin_object().field("checked", view.checked);
  if (view.checked) {
    json.field("healthy", health.healthy).field("since_ms_ago", ago(health.since_ms));
    json.field("last", to_text(health.last)).field("reason", health.reason);
    if (health.last != HealthResult::kNone) {
      json.field("last_ms_ago", ago(health.checked_ms)).field("last_us", health.duration_us);
    }
    json.field("status", health.status).field("passed", health.passed);
    json.field("failed", health.failed).field("passed_in_a_row", health.passed_row);
    json.field("failed_in_a_row", health.failed_row).field("changes", health.changes);
  }
  json.end_object();
}

void add_server(JsonWriter& json, const ServerView& view, const ServerSum& sum,
                const ControlFacts& facts) {
  json.begin_object().field("upstream", view.upstream).field("name", view.name);
  json.field("address", view.resolved ? std::string_view(view.address) : std::string_view());
  json.field("resolved", view.resolved).field("state", state_of(view));
  json.field("set", word_of(view.set)).field("why", why(view, sum, facts.cores.size()));
  json.field("cores_ejected", sum.cores_ejected).field("cores_circuit_open", sum.cores_open);
  json.field("cores_circuit_half_open", sum.cores_half_open);
  json.field("weight", view.weight).field("weight_configured", view.weight_configured);
  json.field("priority", view.priority).field("backup", view.backup);
  json.field("max_connections", view.max_connections);
  json.field("active", sum.active).field("idle_connections", sum.idle);
  json.field("requests", sum.requests).field("answers", sum.answers);
  json.field("failures", sum.failures).field("ejections", sum.ejections);
  json.field("latency_us", sum.latency_us()).field("latency_mean_us", sum.mean_us());
  add_health(json, view, facts.now_ms);
  json.end_object();
}

std::string report_on_servers(const ControlRequest& request, const ControlFacts& facts,
                              const ServerSums& sums) {
  const bool as_json = request.format == ControlFormat::kJson;
  JsonWriter json;
  Table table(kServerColumns);
  json.begin_object().field("ok", true).field("cores", facts.cores.size());
  json.key("servers").begin_array();
  bool found = false;
  for (const ServerView& view : facts.servers) {
    if (!request.upstream.empty() && view.upstream != request.upstream) continue;
    found = true;
    if (as_json) {
      add_server(json, view, sum_of(sums, view), facts);
    } else {
      add_server(table, view, sum_of(sums, view), facts);
    }
  }
  if (!found && !request.upstream.empty()) {
    return render_failure(request.format, ControlFailure::kFailed,
                          "there is no upstream \"" + request.upstream + "\"");
  }
  if (!as_json) return render_text("ok", table.render());
  return json.end_array().end_object().out() + '\n';
}

}  // namespace

std::string report_on_upstreams(const ControlRequest& request, const ControlFacts& facts) {
  const ServerSums servers = add_up_servers(facts);
  if (request.command == ControlRequest::Command::kServers) {
    return report_on_servers(request, facts, servers);
  }
  const std::vector<UpstreamSum> sums = add_up_upstreams(facts, servers);
  return request.format == ControlFormat::kJson ? upstreams_as_json(sums, facts.cores.size())
                                                : upstreams_as_text(sums);
}

}  // namespace weir::control
