// match() against a naive oracle that looks at every route, on thousands of random route sets and
// requests over a small alphabet. The oracle follows the prose in snapshot.h and shares no code
// with the matcher. WEIR_ROUTE_SEED starts from another seed.
#include <algorithm>
#include <cstdlib>
#include <set>
#include <tuple>

#include <weir/base/prng.h>

#include "route_fixture.h"

using namespace weir::route;
using namespace weir::route::test;
using weir::base::Cidr;
using weir::base::IpAddress;
using weir::base::Prng;

namespace {

template <class T>
T pick(Prng& random, const std::vector<T>& from) {
  return from[random.below(from.size())];
}

const std::vector<std::string> kBlocks{"10.0.0.0/8", "10.1.0.0/16", "10.1.1.1",
                                       "::/0",       "fd00::/8",    "0.0.0.0/0"};
const std::vector<std::string> kClients{"10.0.0.1", "10.1.0.1", "10.1.1.1",
                                        "11.0.0.1", "fd00::1",  "2001::1"};

std::string random_host(Prng& random, bool wildcard) {
  std::string host = wildcard ? "*" : pick<std::string>(random, {"a", "b"});
  for (uint64_t i = random.below(3) + (wildcard ? 1 : 0); i > 0; --i) {
    host += '.' + pick<std::string>(random, {"a", "b"});
  }
  return host;
}

std::string random_path(Prng& random) {
  std::string path;
  for (uint64_t i = random.below(4); i > 0; --i) {
    path += '/' + pick<std::string>(random, {"a", "b", "aa", "ab", "a-label-past-twelve-bytes"});
  }
  if (path.empty() || random.chance(30)) path += '/';
  return path;
}

void add_conditions(Prng& random, std::vector<NameValueCondition>& conditions) {
  for (const char* name : {"x", "y"}) {
    if (!random.chance(15)) continue;
    NameValueCondition condition;
    condition.name = name;
    condition.match = static_cast<ValueMatch>(random.below(4));
    if (condition.match == ValueMatch::kExact || condition.match == ValueMatch::kPrefix) {
      condition.value = pick<std::string>(random, {"1", "12", ""});
    }
    conditions.push_back(condition);
  }
}

RouteSpec random_route(Prng& random) {
  RouteSpec spec = prefix(random_path(random));
  spec.exact = random.chance(25);
  std::set<std::string> hosts;
  for (uint64_t i = random.below(3); i > 0; --i) {
    hosts.insert(random.chance(10) ? "*" : random_host(random, random.chance(40)));
  }
  spec.hosts.assign(hosts.begin(), hosts.end());
  if (random.chance(20)) spec.methods.push_back(pick<std::string>(random, {"GET", "PUT"}));
  if (random.chance(5)) spec.methods.push_back("POST");
  if (random.chance(50)) add_conditions(random, spec.headers);
  if (random.chance(50)) add_conditions(random, spec.query);
  for (uint64_t i = random.chance(20) ? random.below(4) : 0; i > 0; --i) {
    spec.source.push_back(*Cidr::parse(pick(random, kBlocks)));
  }
  return spec;
}

Request random_request(Prng& random) {
  Request request = get(random.chance(3) ? "" : random_host(random, false), random_path(random));
  if (random.chance(2)) request.path = "*";
  request.method = pick<std::string>(random, {"GET", "PUT", "POST", "HEAD"});
  if (random.chance(80)) request.client = IpAddress::parse(pick(random, kClients));
  for (uint64_t i = random.below(3); i > 0; --i) {
    request.headers.emplace_back(pick<std::string>(random, {"x", "Y", "z"}),
                                 pick<std::string>(random, {"1", "12", "2", ""}));
  }
  for (uint64_t i = random.below(3); i > 0; --i) {
    request.query += pick<std::string>(
        random, {"x=1&", "%78=%31&", "x=12&", "y&", "y=&", "y=%312&", "z=x&", "&", "x=%3"});
  }
  return request;
}

// ---- the oracle

std::vector<std::string> split(const std::string& text, char mark) {
  std::vector<std::string> parts(1);
  for (char c : text) {
    if (c == mark) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

std::string decoded(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      out += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
      i += 2;
    } else {
      out += text[i] == '+' ? ' ' : text[i];
    }
  }
  return out;
}

Fields query_fields(const std::string& query) {
  Fields fields;
  for (const std::string& pair : split(query, '&')) {
    if (pair.empty()) continue;
    const size_t equals = pair.find('=');
    fields.emplace_back(decoded(pair.substr(0, equals)),
                        equals == std::string::npos ? "" : decoded(pair.substr(equals + 1)));
  }
  return fields;
}

bool oracle_holds(const NameValueCondition& condition, const Fields& fields) {
  bool present = false;
  bool fits = false;
  for (const auto& [name, value] : fields) {
    if (weir::base::lowercase(name) != condition.name) continue;
    present = true;
    if (condition.match == ValueMatch::kExact) fits |= value == *condition.value;
    if (condition.match == ValueMatch::kPrefix) fits |= value.rfind(*condition.value, 0) == 0;
  }
  if (condition.match == ValueMatch::kPresent) return present;
  if (condition.match == ValueMatch::kAbsent) return !present;
  return fits;
}

bool oracle_conditions(const RouteSpec& spec, const Request& request) {
  if (!spec.methods.empty() &&
      std::find(spec.methods.begin(), spec.methods.end(), request.method) == spec.methods.end()) {
    return false;
  }
  if (!spec.source.empty()) {
    bool inside = false;
    for (const Cidr& block : spec.source)
      inside |= request.client && block.contains(*request.client);
    if (!inside) return false;
  }
  for (const auto& c : spec.headers) {
    if (!oracle_holds(c, request.headers)) return false;
  }
  const Fields query = query_fields(request.query);
  for (const auto& c : spec.query) {
    if (!oracle_holds(c, query)) return false;
  }
  return true;
}

std::string stripped(std::string path) {
  if (path.back() == '/') path.pop_back();
  return path;
}

constexpr int kNoFit = -1;

// Greater is better: exact host, wildcards by length, any.
int oracle_host(const std::string& rule, const std::string& host) {
  if (rule == "*") return 0;
  if (rule == host) return 10'000;
  if (rule[0] != '*') return kNoFit;
  const std::string suffix = rule.substr(1);
  if (host.size() <= suffix.size()) return kNoFit;
  return host.substr(host.size() - suffix.size()) == suffix ? static_cast<int>(suffix.size())
                                                            : kNoFit;
}

int oracle_path(const RouteSpec& spec, const std::string& path) {
  if (spec.exact) return spec.path == path ? 100'000 : kNoFit;
  const std::string key = stripped(spec.path);
  if (key.empty()) return 0;
  const bool fits = path == key || path.rfind(key + '/', 0) == 0;
  return fits ? static_cast<int>(key.size()) : kNoFit;
}

auto oracle_specificity(const RouteSpec& spec) {
  int count = (spec.methods.empty() ? 0 : 1) + (spec.source.empty() ? 0 : 1);
  int exact_values = 0;
  int prefix_values = 0;
  std::vector<NameValueCondition> all = spec.headers;
  all.insert(all.end(), spec.query.begin(), spec.query.end());
  for (const auto& condition : all) {
    ++count;
    if (condition.match == ValueMatch::kExact) ++exact_values;
    if (condition.match == ValueMatch::kPrefix) ++prefix_values;
  }
  return std::tuple(count, exact_values, prefix_values);
}

std::string oracle(const std::vector<RouteSpec>& routes, const Request& request) {
  using Key = std::tuple<int, int, std::tuple<int, int, int>, int>;
  std::optional<Key> best;
  for (size_t i = 0; i < routes.size(); ++i) {
    const RouteSpec& spec = routes[i];
    const int path = oracle_path(spec, request.path);
    if (path == kNoFit || !oracle_conditions(spec, request)) continue;
    std::vector<std::string> hosts = spec.hosts;
    if (hosts.empty()) hosts.push_back("*");
    for (const std::string& rule : hosts) {
      const int host = oracle_host(rule, request.host);
      if (host == kNoFit) continue;
      const Key key(host, path, oracle_specificity(spec), -static_cast<int>(i));
      if (!best || key > *best) best = key;
    }
  }
  return best ? "r" + std::to_string(-std::get<3>(*best)) : "none";
}

// The same addresses, whatever the blocks: tried on all clients and on the blocks' own starts.
bool same_sources(const RouteSpec& a, const RouteSpec& b) {
  if (a.source.empty() != b.source.empty()) return false;
  const auto covers = [](const RouteSpec& spec, const Cidr& block) {
    return std::any_of(spec.source.begin(), spec.source.end(), [&](const Cidr& other) {
      return other.prefix_bits <= block.prefix_bits && other.contains(block.network);
    });
  };
  return std::all_of(a.source.begin(), a.source.end(), [&](auto& c) { return covers(b, c); }) &&
         std::all_of(b.source.begin(), b.source.end(), [&](auto& c) { return covers(a, c); });
}

auto condition_set(const std::vector<NameValueCondition>& conditions) {
  std::multiset<std::tuple<std::string, int, std::optional<std::string>>> set;
  for (const auto& c : conditions) set.emplace(c.name, static_cast<int>(c.match), c.value);
  return set;
}

bool oracle_duplicate(const RouteSpec& a, const RouteSpec& b) {
  if (a.exact != b.exact) return false;
  if (a.exact ? a.path != b.path : stripped(a.path) != stripped(b.path)) return false;
  const auto hosts = [](const RouteSpec& spec) {
    return spec.hosts.empty() ? std::set<std::string>{"*"}
                              : std::set<std::string>(spec.hosts.begin(), spec.hosts.end());
  };
  std::vector<std::string> shared;
  const auto first = hosts(a);
  const auto second = hosts(b);
  std::set_intersection(first.begin(), first.end(), second.begin(), second.end(),
                        std::back_inserter(shared));
  return !shared.empty() &&
         std::set(a.methods.begin(), a.methods.end()) ==
             std::set(b.methods.begin(), b.methods.end()) &&
         condition_set(a.headers) == condition_set(b.headers) &&
         condition_set(a.query) == condition_set(b.query) && same_sources(a, b);
}

// Some sets keep their duplicates: those must not build.
std::vector<RouteSpec> random_routes(Prng& random, bool& duplicates) {
  std::vector<RouteSpec> routes;
  const bool keep = random.chance(20);
  const uint64_t count = random.below(random.chance(10) ? 120 : 25);
  for (uint64_t i = 0; i < count; ++i) {
    RouteSpec spec = random_route(random);
    const bool duplicate = std::any_of(routes.begin(), routes.end(), [&](const RouteSpec& other) {
      return oracle_duplicate(spec, other);
    });
    if (duplicate && !keep) continue;
    duplicates |= duplicate;
    routes.push_back(spec);
  }
  return routes;
}

// Where explain's trace ends must be where match() ended.
void check_explanation(const Snapshot& snapshot, const Request& request) {
  const Explanation found = explain(snapshot, request.view());
  REQUIRE(found.route == match(snapshot, request.view()));
  REQUIRE(found.host_rule.empty() == (found.route == nullptr));
  for (const ExplainStep& step : found.rejected) {
    REQUIRE_FALSE(step.reason.empty());
    REQUIRE((step.route == nullptr || step.route != found.route));
  }
}

}  // namespace

TEST_CASE("match agrees with the oracle") {
  const char* text = std::getenv("WEIR_ROUTE_SEED");
  const uint64_t first_seed = text != nullptr ? std::strtoull(text, nullptr, 10) : 1;
  size_t refused = 0;
  size_t matched = 0;
  size_t unmatched = 0;
  for (uint64_t seed = first_seed; seed < first_seed + 2000; ++seed) {
    Prng random(seed);
    bool duplicates = false;
    const std::vector<RouteSpec> routes = random_routes(random, duplicates);
    const auto built = try_build(routes);
    INFO("seed " << seed);
    REQUIRE(built.has_value() == !duplicates);
    if (!built) {
      ++refused;
      continue;
    }
    for (int i = 0; i < 60; ++i) {
      const Request request = random_request(random);
      const std::string expected = oracle(routes, request);
      const std::string got = taken(**built, request);
      (expected == "none" ? unmatched : matched) += 1;
      if (got != expected) {
        FAIL("seed " << seed << ": " << request.method << ' ' << request.host << request.path << '?'
                     << request.query << ": got " << got << ", expected " << expected << '\n'
                     << to_text(explain(**built, request.view())));
      }
      if (i % 8 == 0) check_explanation(**built, request);
    }
  }
  // The generator must produce all three outcomes often, or the test proves little.
  CHECK(refused > 50);
  CHECK(matched > 10'000);
  CHECK(unmatched > 5'000);
}
