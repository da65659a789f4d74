#include "conditions.h"

#include <algorithm>

namespace weir::route {
namespace {

int hex_value(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Takes one decoded byte off the front. A '%' that begins no escape stands for itself, as browsers
// and most origins read it.
char take_decoded(std::string_view& text) noexcept {
  const char c = text.front();
  if (c == '%' && text.size() >= 3) {
    const int high = hex_value(text[1]);
    const int low = hex_value(text[2]);
    if (high >= 0 && low >= 0) {
      text.remove_prefix(3);
      return static_cast<char>(high * 16 + low);
    }
  }
  text.remove_prefix(1);
  return c == '+' ? ' ' : c;
}

// Does `encoded`, decoded, begin with `plain`? Leaves in `encoded` what follows.
bool strip_decoded_prefix(std::string_view& encoded, std::string_view plain) noexcept {
  for (char c : plain) {
    if (encoded.empty() || take_decoded(encoded) != c) return false;
  }
  return true;
}

bool decoded_equals(std::string_view encoded, std::string_view plain) noexcept {
  return strip_decoded_prefix(encoded, plain) && encoded.empty();
}

bool header_holds(const Condition& condition, const HeaderLookup& headers) noexcept {
  uint32_t cursor = 0;
  std::string_view value;
  while (headers.find != nullptr && headers.find(headers.context, condition.name, cursor, value)) {
    switch (condition.match) {
      case ValueMatch::kPresent: return true;
      case ValueMatch::kAbsent: return false;
      case ValueMatch::kExact:
        if (value == condition.value) return true;
        break;
      case ValueMatch::kPrefix:
        if (value.starts_with(condition.value)) return true;
        break;
    }
  }
  return condition.match == ValueMatch::kAbsent;
}

bool query_holds(const Condition& condition, std::string_view query) noexcept {
  while (!query.empty()) {
    const size_t end = query.find('&');
    const std::string_view pair = query.substr(0, end);
    query = end == std::string_view::npos ? std::string_view{} : query.substr(end + 1);
    if (pair.empty()) continue;
    const size_t equals = pair.find('=');
    if (!decoded_equals(pair.substr(0, equals), condition.name)) continue;
    std::string_view value =
        equals == std::string_view::npos ? std::string_view{} : pair.substr(equals + 1);
    switch (condition.match) {
      case ValueMatch::kPresent: return true;
      case ValueMatch::kAbsent: return false;
      case ValueMatch::kExact:
        if (decoded_equals(value, condition.value)) return true;
        break;
      case ValueMatch::kPrefix:
        if (strip_decoded_prefix(value, condition.value)) return true;
        break;
    }
  }
  return condition.match == ValueMatch::kAbsent;
}

bool source_holds(const Condition& condition, const base::IpAddress* client) noexcept {
  if (client == nullptr) return false;
  // No block lies inside another, so only the last one that begins at or before the address can
  // hold it.
  const auto after = std::upper_bound(condition.sources.begin(), condition.sources.end(), *client,
                                      [](const base::IpAddress& ip, const base::Cidr& block) {
                                        return ip.bytes < block.network.bytes;
                                      });
  return after != condition.sources.begin() && std::prev(after)->contains(*client);
}

bool holds(const Condition& condition, const RequestView& request) noexcept {
  switch (condition.kind) {
    case Condition::Kind::kMethod:
      return std::find(condition.methods.begin(), condition.methods.end(), request.method) !=
             condition.methods.end();
    case Condition::Kind::kSource: return source_holds(condition, request.client);
    case Condition::Kind::kHeader: return header_holds(condition, request.headers);
    case Condition::Kind::kQuery: return query_holds(condition, request.query);
  }
  return false;
}

std::string describe_value(const Condition& condition) {
  switch (condition.match) {
    case ValueMatch::kPresent: return " is present";
    case ValueMatch::kAbsent: return " is absent";
    case ValueMatch::kExact: return " is \"" + std::string(condition.value) + '"';
    case ValueMatch::kPrefix: return " begins with \"" + std::string(condition.value) + '"';
  }
  return {};
}

// "a", "a or b", "a, b or c"; long lists are cut.
template <class T, class ToText>
std::string any_of_list(std::span<const T> items, ToText to_text_of) {
  constexpr size_t kShownMax = 8;
  const size_t shown = std::min(items.size(), kShownMax);
  std::string text;
  for (size_t i = 0; i < shown; ++i) {
    if (i != 0) text += i + 1 == items.size() ? " or " : ", ";
    text += to_text_of(items[i]);
  }
  if (shown < items.size()) text += " or " + std::to_string(items.size() - shown) + " more";
  return text;
}

}  // namespace

const Condition* first_failed(const Route& route, const RequestView& request) noexcept {
  for (uint32_t i = 0; i < route.condition_count; ++i) {
    if (!holds(route.conditions[i], request)) return &route.conditions[i];
  }
  return nullptr;
}

std::string describe(const Condition& condition) {
  switch (condition.kind) {
    case Condition::Kind::kMethod:
      return "method is " + any_of_list(condition.methods, [](std::string_view method) {
               return std::string(method);
             });
    case Condition::Kind::kSource:
      return "source is in " + any_of_list(condition.sources, [](const base::Cidr& block) {
               return block.to_string();
             });
    case Condition::Kind::kHeader:
      return "header " + std::string(condition.name) + describe_value(condition);
    case Condition::Kind::kQuery:
      return "query " + std::string(condition.name) + describe_value(condition);
  }
  return {};
}

void normalise_sources(std::vector<base::Cidr>& sources) {
  std::sort(sources.begin(), sources.end(), [](const base::Cidr& a, const base::Cidr& b) {
    if (a.network.bytes != b.network.bytes) return a.network.bytes < b.network.bytes;
    return a.prefix_bits < b.prefix_bits;
  });
  size_t kept = 0;
  for (const base::Cidr& block : sources) {
    // Blocks are disjoint or nested, and an outer one sorts before those inside it.
    if (kept != 0 && sources[kept - 1].contains(block.network)) continue;
    sources[kept++] = block;
  }
  sources.resize(kept);
}

}  // namespace weir::route
