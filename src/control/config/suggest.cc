#include "suggest.h"

#include <algorithm>

#include <weir/base/text.h>

namespace weir::control::config {

std::string Quoted::operator()(std::string_view text) const {
  constexpr size_t kShownBytesMax = 100;
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string result = "\"";
  for (const char c : text.substr(0, kShownBytesMax)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      result.append("\\x");
      result += kHex[byte >> 4];
      result += kHex[byte & 15];
    } else {
      if (c == '"' || c == '\\') result += '\\';
      result += c;
    }
  }
  return result.append(text.size() > kShownBytesMax ? "...\"" : "\"");
}

std::string joined(const std::vector<std::string_view>& words) {
  std::string result;
  for (const std::string_view word : words) {
    if (!result.empty()) result.append(", ");
    result.append(word);
  }
  return result;
}

std::string joined_quoted(const std::vector<std::string_view>& words) {
  std::string result;
  for (const std::string_view word : words) {
    if (!result.empty()) result.append(", ");
    result.append(quoted(word));
  }
  return result;
}

bool has_word(std::string_view words, std::string_view word) noexcept {
  while (!words.empty()) {
    const size_t space = words.find(' ');
    if (words.substr(0, space) == word) return true;
    words.remove_prefix(space == std::string_view::npos ? words.size() : space + 1);
  }
  return false;
}

std::vector<std::string_view> split_words(std::string_view words) {
  std::vector<std::string_view> result;
  while (!words.empty()) {
    const size_t space = words.find(' ');
    result.push_back(words.substr(0, space));
    words.remove_prefix(space == std::string_view::npos ? words.size() : space + 1);
  }
  return result;
}

std::string_view nearest(std::string_view text, const std::vector<std::string_view>& candidates) {
  // One edit, and one more for every four characters: "lisen" is "listen",
  // "foo" is not "host".
  const size_t limit = 1 + text.size() / 4;
  size_t best = limit + 1;
  std::string_view result;
  for (const std::string_view candidate : candidates) {
    // The edit distance is at least the difference of the lengths.
    const size_t difference =
        std::max(text.size(), candidate.size()) - std::min(text.size(), candidate.size());
    if (difference >= best) continue;
    const size_t distance = base::edit_distance(base::lowercase(text), base::lowercase(candidate));
    if (distance < best && distance < candidate.size()) {
      best = distance;
      result = candidate;
    }
  }
  return result;
}

std::string home_of_key(const Section& here, std::string_view key) {
  std::vector<std::string_view> homes;
  for (const Section& section : schema()) {
    if (section.name == here.name) continue;
    for (const Setting& setting : section.settings) {
      if (setting.key == key || has_word(setting.aliases, key)) homes.push_back(section.header);
    }
  }
  if (homes.empty() || homes.size() > 2) return {};
  std::string result(homes.front());
  return homes.size() == 2 ? result.append(" or ").append(homes.back()) : result;
}

std::string_view misplaced_key(const Section& here, std::string_view key) noexcept {
  const bool route = here.name == "route" || here.name.starts_with("path_routes.");
  if (route && (key.starts_with("retry") || key.starts_with("retries"))) {
    return "retries are a matter of the upstream: give them in its [upstream.NAME], or in "
           "[upstream_defaults]";
  }
  if (here.name == "upstream_defaults" && key == "health_check") {
    return "what upstreams have in common of their active checks is a table of its own, "
           "[health_check]";
  }
  if (here.name == "upstream_defaults" && key == "sticky") {
    return "is given for each upstream, as [upstream.NAME.sticky]";
  }
  return {};
}

bool is_bare_key(std::string_view key) noexcept {
  if (key.empty()) return false;
  return std::ranges::all_of(key, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
}

}  // namespace weir::control::config
