#include <weir/upstream/outlier.h>

#include <algorithm>
#include <bit>

namespace weir::upstream {

namespace {

constexpr unsigned kOctaveMin = 7;  // 2^7 us
constexpr unsigned kParts = 4;      // of an octave

size_t bucket_of(uint64_t latency_us) noexcept {
  if (latency_us < (uint64_t{1} << kOctaveMin)) return 0;
  const unsigned octave = static_cast<unsigned>(std::bit_width(latency_us)) - 1;
  const uint64_t part = (latency_us >> (octave - 2)) & (kParts - 1);
  const size_t bucket = size_t{octave - kOctaveMin} * kParts + part;
  return std::min(bucket, OutlierWindow::kBuckets - 1);
}

// Its middle.
uint64_t value_of(size_t bucket) noexcept {
  const size_t octave = kOctaveMin + bucket / kParts;
  const uint64_t part = uint64_t{1} << (octave - 2);
  return (uint64_t{1} << octave) + (bucket % kParts) * part + part / 2;
}

// One ejection is forgiven for each time that it was as long well as it was last away.
void forgive(Outliers::Server& server, uint64_t now_ms) noexcept {
  if (server.ejected || server.times == 0 || now_ms <= server.back_ms) return;
  const uint64_t each_ms = std::max<uint64_t>(server.lasted_ms, 1);
  const uint64_t times = std::min<uint64_t>((now_ms - server.back_ms) / each_ms, server.times);
  server.times -= static_cast<uint32_t>(times);
  server.back_ms += times * each_ms;
}

}  // namespace

std::string_view to_string(OutlierCause cause) noexcept {
  switch (cause) {
    case OutlierCause::kNone: return "none";
    case OutlierCause::kConsecutive: return "consecutive_errors";
    case OutlierCause::kRatio: return "error_ratio";
    case OutlierCause::kLatency: return "latency";
  }
  return "unknown";
}

void OutlierWindow::note(bool error, uint64_t latency_us, uint64_t slice) noexcept {
  Slice& one = slices_[slice % kSlices];
  if (one.number != slice) one = Slice{.number = slice};
  ++one.requests;
  if (error) {
    ++one.errors;
    return;
  }
  if (latency_us == 0) return;
  uint16_t& count = one.latency[bucket_of(latency_us)];
  // The median is about proportions: they stay when all are halved.
  if (count == UINT16_MAX) {
    for (uint16_t& each : one.latency) each = static_cast<uint16_t>(each / 2);
  }
  ++count;
}

OutlierWindow::Sum OutlierWindow::sum(uint64_t slice) const noexcept {
  Sum out;
  for (const Slice& one : slices_) {
    if (!counts(one, slice)) continue;
    out.requests += one.requests;
    out.errors += one.errors;
  }
  return out;
}

std::optional<uint64_t> OutlierWindow::median_us(uint64_t slice, uint64_t least) const noexcept {
  std::array<uint64_t, kBuckets> all{};
  uint64_t total = 0;
  for (uint64_t age = 0; age < kSlices; ++age) {
    // What is enough is enough: many quick answers of before would hide the slow ones of now.
    if (age >= kSlicesFresh && total >= least) break;
    const Slice& one = slices_[(slice - age) % kSlices];
    if (one.number != slice - age) continue;
    for (size_t i = 0; i < kBuckets; ++i) {
      all[i] += one.latency[i];
      total += one.latency[i];
    }
  }
  if (total == 0 || total < least) return std::nullopt;
  uint64_t below = 0;
  size_t bucket = 0;
  while ((below += all[bucket]) * 2 < total) ++bucket;
  return value_of(bucket);
}

void Outliers::set_options(const OutlierOptions& options) noexcept {
  // Slices of another length have other numbers.
  if (options.window_ms != options_.window_ms) {
    for (Server& server : servers_) server.window.clear();
  }
  options_ = options;
}

uint64_t Outliers::slice(uint64_t now_ms) const noexcept {
  const uint64_t slice_ms = std::max<uint64_t>(options_.window_ms / OutlierWindow::kSlices, 1);
  // Never 0, which is the number of slices that nothing was counted in.
  return now_ms / slice_ms + OutlierWindow::kSlices;
}

const Outliers::Server* Outliers::find(uint64_t identity) const noexcept {
  const auto at = std::ranges::lower_bound(servers_, identity, {}, &Server::identity);
  return at != servers_.end() && at->identity == identity ? &*at : nullptr;
}

uint32_t Outliers::ejected() const noexcept {
  return static_cast<uint32_t>(std::ranges::count_if(servers_, &Server::ejected));
}

uint32_t Outliers::left() const noexcept {
  return static_cast<uint32_t>(std::ranges::count_if(
      servers_, [](const Server& server) { return !server.down && !server.ejected; }));
}

void Outliers::set_servers(std::span<const uint64_t> identities, uint64_t now_ms,
                           std::vector<OutlierChange>& out) {
  std::vector<uint64_t> wanted(identities.begin(), identities.end());
  std::ranges::sort(wanted);
  const auto twice = std::ranges::unique(wanted);
  wanted.erase(twice.begin(), twice.end());
  std::vector<Server> next;
  next.reserve(wanted.size());
  for (const uint64_t identity : wanted) {
    if (const Server* known = find(identity)) {
      next.push_back(*known);
    } else {
      next.push_back(Server{.identity = identity});
    }
  }
  servers_ = std::move(next);
  keep_floor(now_ms, out);
}

void Outliers::set_down(uint64_t identity, bool down, uint64_t now_ms,
                        std::vector<OutlierChange>& out) {
  auto* server = const_cast<Server*>(find(identity));
  if (server == nullptr || server->down == down) return;
  server->down = down;
  if (!down) {
    server->errors_row = 0;
    server->window.clear();
    if (server->ejected) out.push_back(take_back(*server, now_ms));
  }
  keep_floor(now_ms, out);
}

bool Outliers::may_eject() const noexcept {
  if (left() <= std::max<uint32_t>(options_.servers_left_min, 1)) return false;
  return (uint64_t{ejected()} + 1) * 100 <=
         uint64_t{servers_.size()} * options_.ejected_percent_max;
}

std::optional<OutlierChange> Outliers::eject(Server& server, OutlierCause cause,
                                             uint64_t now_ms) noexcept {
  if (server.down || server.ejected) return std::nullopt;
  if (!may_eject()) {
    ++spared_;
    return std::nullopt;
  }
  forgive(server, now_ms);  // nobody may have looked since it came back
  const uint32_t doublings = std::min<uint32_t>(server.times, 32);
  server.lasted_ms =
      std::min<uint64_t>(uint64_t{options_.ejection_ms} << doublings, options_.ejection_max_ms);
  server.ejected = true;
  server.cause = cause;
  server.until_ms = now_ms + server.lasted_ms;
  ++server.times;
  ++server.ejections;
  return OutlierChange{server.identity, true, cause, server.until_ms};
}

// It is judged by what comes from now on.
OutlierChange Outliers::take_back(Server& server, uint64_t now_ms) noexcept {
  server.ejected = false;
  server.errors_row = 0;
  server.back_ms = now_ms;
  server.window.clear();
  return {server.identity, false, server.cause, 0};
}

void Outliers::keep_floor(uint64_t now_ms, std::vector<OutlierChange>& out) {
  while (left() < std::max<uint32_t>(options_.servers_left_min, 1)) {
    Server* soonest = nullptr;
    for (Server& server : servers_) {
      if (!server.ejected || server.down) continue;
      if (soonest == nullptr || server.until_ms < soonest->until_ms) soonest = &server;
    }
    if (soonest == nullptr) return;
    out.push_back(take_back(*soonest, now_ms));
  }
}

std::optional<OutlierChange> Outliers::note(uint64_t identity, bool error, uint64_t latency_us,
                                            uint64_t now_ms) noexcept {
  auto* server = const_cast<Server*>(find(identity));
  if (server == nullptr || server->ejected) return std::nullopt;
  const uint64_t now = slice(now_ms);
  server->window.note(error, latency_us, now);
  if (!error) {
    server->errors_row = 0;
    return std::nullopt;
  }
  ++server->errors_row;
  if (options_.consecutive_errors != 0 && server->errors_row >= options_.consecutive_errors) {
    return eject(*server, OutlierCause::kConsecutive, now_ms);
  }
  if (options_.error_percent == 0) return std::nullopt;
  const OutlierWindow::Sum sum = server->window.sum(now);
  if (sum.requests < options_.error_requests_min) return std::nullopt;
  if (sum.errors * 100 < sum.requests * options_.error_percent) return std::nullopt;
  return eject(*server, OutlierCause::kRatio, now_ms);
}

void Outliers::review(uint64_t now_ms, std::vector<OutlierChange>& out) {
  for (Server& server : servers_) {
    if (server.ejected && now_ms >= server.until_ms) out.push_back(take_back(server, now_ms));
    forgive(server, now_ms);
  }
  if (options_.latency_percent != 0) judge_latency(now_ms, out);
}

void Outliers::judge_latency(uint64_t now_ms, std::vector<OutlierChange>& out) {
  struct Median {
    uint64_t us;
    Server* server;
  };
  std::vector<Median> medians;
  for (Server& server : servers_) {
    if (server.down || server.ejected) continue;
    const auto median = server.window.median_us(slice(now_ms), options_.latency_requests_min);
    if (median) medians.push_back({*median, &server});
  }
  if (medians.size() < 2) return;
  std::ranges::sort(medians, {}, &Median::us);
  // The slowest first: the floor may spare the rest. The middle of the others is that of all but
  // one; of two middles the lower, so that two slow ones of three do not hide behind each other.
  const size_t middle = (medians.size() - 2) / 2;
  const uint64_t limit_us = std::max(medians[middle].us * options_.latency_percent / 100,
                                     uint64_t{options_.latency_floor_ms} * 1000);
  for (size_t i = medians.size(); i-- > middle + 1;) {
    if (medians[i].us <= limit_us) return;
    if (auto change = eject(*medians[i].server, OutlierCause::kLatency, now_ms)) {
      out.push_back(*change);
    }
  }
}

}  // namespace weir::upstream
