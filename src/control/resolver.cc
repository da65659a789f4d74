#include <weir/control/resolver.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <tuple>
#include <utility>

#include "resolver_answer.h"
#include "resolver_channel.h"
#include "resolver_hosts.h"

namespace weir::control {

namespace {

constexpr size_t kTargetsMax = 64;           // of one SRV answer
constexpr size_t kLookupsPerRequestMax = 8;  // at a time
constexpr size_t kFoundMax = 8'192;          // before they are put in order and cut

// What a server has said (RFC 1035, 4.1.1).
ResolveError from_rcode(uint8_t rcode) noexcept {
  constexpr uint8_t kRcodeRefused = 5;
  return rcode == kRcodeRefused ? ResolveError::kRefused : ResolveError::kServerFailure;
}

ResolveError from_status(int status) noexcept {
  switch (status) {
    case ARES_SUCCESS: return ResolveError::kNone;
    case ARES_ENOTFOUND: return ResolveError::kNoSuchName;
    case ARES_ENODATA: return ResolveError::kNoData;
    case ARES_ETIMEOUT: return ResolveError::kTimeout;
    case ARES_EREFUSED: return ResolveError::kRefused;
    case ARES_EBADRESP: return ResolveError::kMalformed;
    case ARES_EBADNAME: return ResolveError::kBadName;
    case ARES_ECONNREFUSED: return ResolveError::kUnreachable;
    default: return ResolveError::kServerFailure;
  }
}

// Of several parts that brought nothing: what is temporary counts more than what is certain (the
// other part may have had an address), and "no data" says that the name is there.
ResolveError worse(ResolveError a, ResolveError b) noexcept {
  const auto rank = [](ResolveError error) {
    switch (error) {
      case ResolveError::kNone: return 0;
      case ResolveError::kNoSuchName: return 1;
      case ResolveError::kNoData: return 2;
      default: return 3;
    }
  };
  return rank(b) > rank(a) ? b : a;
}

bool is_localhost(const std::string& name) {
  return name == "localhost" || name.ends_with(".localhost");
}

bool wants(ResolveFamily family, bool v6) noexcept {
  return family == ResolveFamily::kAny || (family == ResolveFamily::kV6) == v6;
}

}  // namespace

std::string_view to_text(ResolveError error) noexcept {
  switch (error) {
    case ResolveError::kNone: return "no error";
    case ResolveError::kNoSuchName: return "no such name";
    case ResolveError::kNoData: return "the name has no address";
    case ResolveError::kTimeout: return "the name servers do not answer in time";
    case ResolveError::kRefused: return "the name servers refuse to answer";
    case ResolveError::kServerFailure: return "the name servers report a failure";
    case ResolveError::kMalformed: return "the name servers answer nonsense";
    case ResolveError::kUnreachable: return "no name server can be reached";
    case ResolveError::kBadName: return "not a host name";
    case ResolveError::kBusy: return "too many names are being looked up";
  }
  return "unknown";
}

uint32_t put_in_order(std::vector<ResolvedAddress>& addresses) {
  using Place = std::tuple<uint16_t, bool, std::array<uint8_t, 16>, uint16_t, std::string_view>;
  const auto place = [](const ResolvedAddress& one) {
    const base::IpAddress ip = one.address.ip().value_or(base::IpAddress{});
    return Place(one.priority, !ip.is_v4(), ip.bytes, one.address.port(), one.target);
  };
  std::ranges::sort(addresses, [&](const ResolvedAddress& a, const ResolvedAddress& b) {
    const Place of_a = place(a);
    const Place of_b = place(b);
    return of_a != of_b ? of_a < of_b : a.weight > b.weight;
  });
  std::set<std::pair<std::array<uint8_t, 16>, uint16_t>> seen;
  std::erase_if(addresses, [&](const ResolvedAddress& one) {
    const base::IpAddress ip = one.address.ip().value_or(base::IpAddress{});
    return !seen.emplace(ip.bytes, one.address.port()).second;
  });
  if (addresses.size() <= Resolver::kAddressesMax) return 0;
  const auto more = static_cast<uint32_t>(addresses.size() - Resolver::kAddressesMax);
  addresses.erase(addresses.begin() + Resolver::kAddressesMax, addresses.end());
  return more;
}

class Resolver::Engine {
 public:
  Engine(runtime::Reactor& reactor, ResolverOptions options)
      : reactor_(reactor),
        options_(std::move(options)),
        hosts_(options_.hosts),
        channel_(reactor, [this] { return advance_all(); }) {}
  ~Engine() { WEIR_CHECK(!delivering_); }

  bool open(std::string& error) { return !stopping_ && channel_.open(options_, error); }
  Handle resolve(std::string_view name, uint16_t port, const ResolveOptions& options,
                 Callback callback);
  bool cancel(Handle handle);
  std::vector<ResolvedAddress> instant(std::string_view name, uint16_t port,
                                       const ResolveOptions& options);
  void stop() noexcept;
  [[nodiscard]] bool stopped() const noexcept { return channel_.stopped(); }
  [[nodiscard]] size_t in_flight() const noexcept { return requests_.size(); }

 private:
  struct Request;
  // What one query is about. c-ares holds it until it calls back, whatever became of the request.
  struct Lookup {
    Request* request = nullptr;  // null: nobody waits any more
    RecordType type = RecordType::kA;
    std::string name;
    uint64_t asked_ms = 0;
    SrvTarget target;  // name empty: not of SRV
  };
  struct Request {
    Engine* engine = nullptr;
    std::string name;  // as given
    uint16_t port = 0;
    ResolveOptions options;
    Callback callback;
    uint64_t deadline_ms = 0;  // 0: not begun
    std::vector<std::string> candidates;
    size_t candidate = 0;
    std::vector<Lookup*> asked;
    std::deque<std::unique_ptr<Lookup>> to_ask;
    bool again = false;  // the channel was replaced: from the beginning
    bool done = false;
    ResolveError of_names = ResolveError::kNone;  // what the candidates before came to
    ResolveError error = ResolveError::kNone;     // of this one
    uint32_t ttl_ms = UINT32_MAX;
    Resolution result;
  };

  static void on_answer(void* argument, int status, int timeouts, unsigned char* bytes,
                        int length) noexcept;
  void take(Request& request, const Lookup& lookup, int status, std::span<const uint8_t> answer);
  void take_targets(Request& request, std::vector<SrvTarget>& targets);
  uint64_t advance_all();
  void advance(Request& request);
  void begin(Request& request);
  static bool from_text(Request& request);
  void begin_candidate(Request& request);
  bool next_candidate(Request& request);
  bool from_hosts(Request& request, const std::string& name, const SrvTarget& target);
  void add_host(Request& request, const std::string& name, const SrvTarget& target);
  static void add(Request& request, const base::IpAddress& ip, const SrvTarget& target);
  static void forget_lookups(Request& request) noexcept;
  static void expire(Request& request);
  void finish(Request& request);
  void deliver();

  runtime::Reactor& reactor_;
  ResolverOptions options_;
  HostsFile hosts_;
  std::map<Handle, Request> requests_;  // in order of arrival
  Handle last_ = 0;
  bool delivering_ = false;
  bool stopping_ = false;
  DnsChannel channel_;
};

Resolver::Handle Resolver::Engine::resolve(std::string_view name, uint16_t port,
                                           const ResolveOptions& options, Callback callback) {
  const Handle handle = ++last_;
  if (stopping_) return handle;
  Request& request = requests_[handle];
  request.engine = this;
  request.name = name;
  request.port = port;
  request.options = options;
  request.callback = std::move(callback);
  if (requests_.size() > kQueriesMax) {
    request.result.error = ResolveError::kBusy;
    request.done = true;
  }
  channel_.step_soon();
  return handle;
}

bool Resolver::Engine::cancel(Handle handle) {
  const auto found = requests_.find(handle);
  if (found == requests_.end()) return false;
  forget_lookups(found->second);
  requests_.erase(found);
  return true;
}

void Resolver::Engine::stop() noexcept {
  stopping_ = true;
  for (auto& [handle, request] : requests_) forget_lookups(request);
  requests_.clear();
  channel_.stop();
}

void Resolver::Engine::forget_lookups(Request& request) noexcept {
  for (Lookup* lookup : request.asked) lookup->request = nullptr;
  request.asked.clear();
  request.to_ask.clear();
}

// Whatever wants to be done for the requests; returns when the next of them runs out of time.
uint64_t Resolver::Engine::advance_all() {
  for (auto& [handle, request] : requests_) {
    if (request.again) {
      request.again = false;
      forget_lookups(request);
      request.result = {};
      request.deadline_ms = 0;
    }
    if (!request.done && request.deadline_ms == 0) begin(request);
    if (!request.done && request.deadline_ms <= reactor_.now_ms()) expire(request);
    if (!request.done) advance(request);
  }
  deliver();
  uint64_t next_ms = UINT64_MAX;
  for (const auto& [handle, request] : requests_) {
    if (request.deadline_ms != 0) next_ms = std::min(next_ms, request.deadline_ms);
  }
  return next_ms;
}

void Resolver::Engine::deliver() {
  delivering_ = true;
  // Callbacks may add, cancel and stop; what they add is looked at in the next step.
  const Handle newest = last_;
  Handle at = 0;
  while (true) {
    auto next = requests_.upper_bound(at);
    while (next != requests_.end() && !next->second.done) ++next;
    if (next == requests_.end() || next->first > newest) break;
    at = next->first;
    const auto node = requests_.extract(next);
    const Callback callback = std::move(node.mapped().callback);
    callback(std::move(node.mapped().result));
  }
  delivering_ = false;
}

void Resolver::Engine::begin(Request& request) {
  request.deadline_ms = reactor_.now_ms() + options_.total_timeout_ms;
  request.ttl_ms = UINT32_MAX;
  request.candidate = 0;
  request.of_names = ResolveError::kNone;
  if (from_text(request)) {
    request.ttl_ms = options_.max_ttl_ms;
    if (request.result.addresses.empty()) request.error = ResolveError::kNoData;
    return finish(request);
  }
  request.candidates = channel_.candidates(request.name);
  if (request.candidates.empty()) {
    request.error = ResolveError::kBadName;
    return finish(request);
  }
  // By the hosts file as the name is written, before any search list.
  if (!request.options.srv && from_hosts(request, to_host_name(request.name), {})) {
    return finish(request);
  }
  begin_candidate(request);
}

// False: the name is no address. One of a family that is not wanted is none either way.
bool Resolver::Engine::from_text(Request& request) {
  std::string_view text = request.name;
  if (text.starts_with('[') && text.ends_with(']')) text = text.substr(1, text.size() - 2);
  const auto ip = base::IpAddress::parse(text);
  if (ip && wants(request.options.family, !ip->is_v4())) add(request, *ip, {});
  return ip.has_value();
}

std::vector<ResolvedAddress> Resolver::Engine::instant(std::string_view name, uint16_t port,
                                                       const ResolveOptions& options) {
  Request request;
  request.name = name;
  request.port = port;
  request.options = options;
  const bool known =
      from_text(request) || (!options.srv && from_hosts(request, to_host_name(request.name), {}));
  if (known) put_in_order(request.result.addresses);
  return std::move(request.result.addresses);
}

void Resolver::Engine::begin_candidate(Request& request) {
  request.error = ResolveError::kNone;
  const std::string& name = request.candidates[request.candidate];
  if (!request.options.srv) return add_host(request, name, {});
  auto lookup = std::make_unique<Lookup>();
  lookup->type = RecordType::kSrv;
  lookup->name = name;
  request.to_ask.push_back(std::move(lookup));
}

// Queries for the addresses of one host.
void Resolver::Engine::add_host(Request& request, const std::string& name,
                                const SrvTarget& target) {
  for (const bool v6 : {false, true}) {
    if (!wants(request.options.family, v6)) continue;
    auto lookup = std::make_unique<Lookup>();
    lookup->type = v6 ? RecordType::kAaaa : RecordType::kA;
    lookup->name = name;
    lookup->target = target;
    request.to_ask.push_back(std::move(lookup));
  }
}

bool Resolver::Engine::from_hosts(Request& request, const std::string& name,
                                  const SrvTarget& target) {
  const size_t before = request.result.addresses.size();
  for (const base::IpAddress& ip : hosts_.find(name)) {
    if (wants(request.options.family, !ip.is_v4())) add(request, ip, target);
  }
  // RFC 6761, 6.3: always the loopback, also where no hosts file says so.
  if (request.result.addresses.size() == before && is_localhost(name)) {
    const auto v4 = base::IpAddress::from_v4(INADDR_LOOPBACK);
    if (wants(request.options.family, false)) add(request, v4, target);
    if (wants(request.options.family, true)) add(request, *base::IpAddress::parse("::1"), target);
  }
  if (request.result.addresses.size() == before) return false;
  request.ttl_ms = std::min(request.ttl_ms, options_.min_ttl_ms);  // to look costs a stat(2)
  return true;
}

void Resolver::Engine::add(Request& request, const base::IpAddress& ip, const SrvTarget& target) {
  if (request.result.addresses.size() >= kFoundMax) {
    ++request.result.left_out;
    return;
  }
  const uint16_t port = target.name.empty() ? request.port : target.port;
  request.result.addresses.push_back({.address = base::SocketAddress::from_ip(ip, port),
                                      .target = target.name,
                                      .priority = target.priority,
                                      .weight = target.weight});
}

void Resolver::Engine::on_answer(void* argument, int status, int, unsigned char* bytes,
                                 int length) noexcept {
  const std::unique_ptr<Lookup> lookup(static_cast<Lookup*>(argument));
  if (lookup->request == nullptr) return;
  Request& request = *lookup->request;
  std::erase(request.asked, lookup.get());
  if (status == ARES_EDESTRUCTION || status == ARES_ECANCELLED) {
    request.again = true;
    request.engine->channel_.step_soon();
    return;
  }
  const size_t size = bytes == nullptr || length < 0 ? 0 : static_cast<size_t>(length);
  request.engine->take(request, *lookup, status, {bytes, size});
}

void Resolver::Engine::take(Request& request, const Lookup& lookup, int status,
                            std::span<const uint8_t> answer) {
  ResolveError error = from_status(status);
  std::optional<DnsRecords> records;
  if (error == ResolveError::kUnreachable) {
    const uint8_t rcode = channel_.rcode_since(lookup.name, lookup.type, lookup.asked_ms);
    if (rcode != 0) error = from_rcode(rcode);
  }
  if (error == ResolveError::kNone) {
    records = parse_dns_answer(answer, lookup.type);
    if (!records) error = ResolveError::kMalformed;
  }
  if (error == ResolveError::kNone && records->addresses.empty() && records->targets.empty()) {
    error = ResolveError::kNoData;  // aliases that lead nowhere
  }
  if (error != ResolveError::kNone) {
    request.error = worse(request.error, error);
    if (!is_absent(error) && lookup.type != RecordType::kSrv) {
      request.result.gaps.push_back({lookup.target.name, lookup.type == RecordType::kAaaa, error});
    }
    return;
  }
  const uint64_t ttl_ms = uint64_t{records->ttl_s} * 1'000;
  request.ttl_ms = static_cast<uint32_t>(std::min<uint64_t>(request.ttl_ms, ttl_ms));
  for (const base::IpAddress& ip : records->addresses) add(request, ip, lookup.target);
  if (lookup.type == RecordType::kSrv) take_targets(request, records->targets);
}

void Resolver::Engine::take_targets(Request& request, std::vector<SrvTarget>& targets) {
  std::ranges::sort(targets, [](const SrvTarget& a, const SrvTarget& b) {
    return std::tie(a.priority, a.name, a.port, b.weight) <
           std::tie(b.priority, b.name, b.port, a.weight);
  });
  if (targets.size() > kTargetsMax) {
    // Each of them would have had an address, at the least.
    request.result.left_out += static_cast<uint32_t>(targets.size() - kTargetsMax);
    targets.resize(kTargetsMax);
  }
  for (SrvTarget& target : targets) {
    target.name = to_host_name(target.name);
    if (target.name.empty() || target.port == 0) {
      // RFC 2782: "." says that there is no such service; anything else is not a host's name. And
      // nobody can be reached at port 0.
      request.error = worse(request.error, ResolveError::kNoData);
    } else if (!from_hosts(request, target.name, target)) {
      add_host(request, target.name, target);
    }
  }
}

void Resolver::Engine::advance(Request& request) {
  while (!request.done && !request.again) {
    while (!request.to_ask.empty() && request.asked.size() < kLookupsPerRequestMax) {
      Lookup* lookup = request.to_ask.front().release();
      request.to_ask.pop_front();
      lookup->request = &request;
      lookup->asked_ms = reactor_.now_ms();
      request.asked.push_back(lookup);
      // It may answer at once, and `lookup` is gone then.
      channel_.query(lookup->name, lookup->type, &Engine::on_answer, lookup);
    }
    if (!request.asked.empty()) return;
    if (!request.to_ask.empty()) continue;
    if (!request.result.addresses.empty() || !next_candidate(request)) finish(request);
  }
}

// The next name of the search list, unless what this one came to may be another thing next time: a
// name that is further down the list must not stand in for one that could not be looked up.
bool Resolver::Engine::next_candidate(Request& request) {
  const ResolveError error = request.error;
  const bool settled =
      is_absent(error) || error == ResolveError::kServerFailure || error == ResolveError::kRefused;
  request.of_names = worse(request.of_names, error);
  if (!settled || request.candidate + 1 == request.candidates.size()) {
    request.error = request.of_names;
    return false;
  }
  ++request.candidate;
  request.result.gaps.clear();
  begin_candidate(request);
  return true;
}

// Out of time: what is there is the answer.
void Resolver::Engine::expire(Request& request) {
  const auto note = [&](const Lookup& lookup) {
    if (lookup.type == RecordType::kSrv) return;
    request.result.gaps.push_back(
        {lookup.target.name, lookup.type == RecordType::kAaaa, ResolveError::kTimeout});
  };
  for (const Lookup* lookup : request.asked) note(*lookup);
  for (const auto& lookup : request.to_ask) note(*lookup);
  forget_lookups(request);
  request.error = worse(ResolveError::kTimeout, request.error);
  request.engine->finish(request);
}

void Resolver::Engine::finish(Request& request) {
  Resolution& result = request.result;
  request.done = true;
  if (result.addresses.empty()) {
    WEIR_CHECK(request.error != ResolveError::kNone);
    result = {.error = request.error, .addresses = {}, .gaps = {}};
    return;
  }
  result.left_out += put_in_order(result.addresses);
  result.ttl_ms = std::clamp(request.ttl_ms, options_.min_ttl_ms, options_.max_ttl_ms);
}

std::unique_ptr<Resolver> Resolver::open(runtime::Reactor& reactor, const ResolverOptions& options,
                                         std::string& error) {
  auto engine = std::make_unique<Engine>(reactor, options);
  const bool opened = engine->open(error);
  if (!opened) engine->stop();
  return opened ? std::unique_ptr<Resolver>(new Resolver(std::move(engine))) : nullptr;
}

Resolver::Resolver(std::unique_ptr<Engine> engine) noexcept : engine_(std::move(engine)) {}
Resolver::~Resolver() = default;

Resolver::Handle Resolver::resolve(std::string_view name, uint16_t port,
                                   const ResolveOptions& options, Callback callback) {
  return engine_->resolve(name, port, options, std::move(callback));
}
bool Resolver::cancel(Handle handle) { return engine_->cancel(handle); }
std::vector<ResolvedAddress> Resolver::instant(std::string_view name, uint16_t port,
                                               const ResolveOptions& options) {
  return engine_->instant(name, port, options);
}
bool Resolver::reload(std::string& error) { return engine_->open(error); }
void Resolver::stop() noexcept { engine_->stop(); }
bool Resolver::stopped() const noexcept { return engine_->stopped(); }
size_t Resolver::in_flight() const noexcept { return engine_->in_flight(); }

}  // namespace weir::control
