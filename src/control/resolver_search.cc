#include "resolver_search.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <string_view>
#include <system_error>
#include <utility>

#include <unistd.h>

#include "resolver_answer.h"

namespace weir::control {

namespace {

constexpr size_t kSearchMax = 8;  // glibc knows no limit any more; six was it for decades

// Empty: no more. Commas stand between words in no manual, but c-ares takes them.
std::string_view next_word(std::string_view& rest) {
  constexpr std::string_view kBetween = " \t\r,";
  rest.remove_prefix(std::min(rest.find_first_not_of(kBetween), rest.size()));
  const std::string_view word = rest.substr(0, rest.find_first_of(kBetween));
  rest.remove_prefix(word.size());
  return word;
}

void set_domains(SearchList& list, std::string_view words, size_t most = kSearchMax) {
  list.domains.clear();
  while (list.domains.size() < most) {
    const std::string_view word = next_word(words);
    if (word.empty()) return;
    std::string domain = to_host_name(word);
    if (!domain.empty()) list.domains.push_back(std::move(domain));
  }
}

void set_options(SearchList& list, std::string_view words) {
  constexpr std::string_view kNdots = "ndots:";
  while (true) {
    const std::string_view word = next_word(words);
    if (word.empty()) return;
    if (!word.starts_with(kNdots)) continue;
    const std::string_view digits = word.substr(kNdots.size());
    size_t ndots = 0;
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), ndots);
    if (read.ec == std::errc()) list.ndots = ndots;
  }
}

void take_line(SearchList& list, std::string_view line) {
  line = line.substr(0, line.find_first_of("#;"));
  const std::string_view key = next_word(line);
  // The last of them counts.
  if (key == "search") set_domains(list, line);
  if (key == "domain") set_domains(list, line, 1);
  if (key == "options") set_options(list, line);
}

}  // namespace

SearchList read_search_list(const std::string& path) {
  SearchList list;
  char host[256] = {};
  if (::gethostname(host, sizeof host - 1) == 0) {
    const std::string_view name = host;
    const size_t dot = name.find('.');
    if (dot != std::string_view::npos) set_domains(list, name.substr(dot + 1), 1);
  }
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) take_line(list, line);
  if (const char* domains = std::getenv("LOCALDOMAIN")) set_domains(list, domains);
  if (const char* options = std::getenv("RES_OPTIONS")) set_options(list, options);
  return list;
}

}  // namespace weir::control
