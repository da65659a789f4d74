// Settings about this machine: threads, CPUs, and which peers are proxies of ours.
#include <algorithm>
#include <string>

#include <weir/base/text.h>

#include "custom_settings.h"
#include "suggest.h"

namespace weir::control::config {

namespace {

constexpr uint32_t kThreadsMax = 1024;
constexpr uint32_t kCpuMax = 1023;  // CPU_SETSIZE - 1

// "0-3,8"; empty on anything else.
std::vector<uint32_t> parse_cpu_ranges(std::string_view text) {
  std::vector<uint32_t> result;
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view part = base::trim(text.substr(0, comma));
    const size_t dash = part.find('-');
    const auto first = base::parse_decimal(part.substr(0, dash));
    const auto last =
        dash == std::string_view::npos ? first : base::parse_decimal(part.substr(dash + 1));
    if (!first || !last || *first > *last || *last > kCpuMax) return {};
    for (uint64_t cpu = *first; cpu <= *last; ++cpu) result.push_back(static_cast<uint32_t>(cpu));
    if (comma == std::string_view::npos) return result;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace

void read_threads(Reader& reader, const TableEntry& entry, void* object) {
  constexpr Setting kNumber{.key = "threads",
                            .type = ValueType::kInteger,
                            .minimum = 1,
                            .maximum = kThreadsMax,
                            .zero = "auto"};
  auto& server = *static_cast<ServerSettings*>(object);
  const Node& node = entry.member.value;
  if (node.kind() == Kind::kString) {
    const auto text = reader.text(node, entry.path);
    if (!text) return;
    const auto number = base::parse_decimal(*text);
    if (*text == "auto") {
      server.threads = 0;
    } else if (number && *number <= kThreadsMax) {
      server.threads = static_cast<uint32_t>(*number);
    } else {
      reader.error(node.place(), entry.path,
                   "must be \"auto\" or an integer between 1 and " + std::to_string(kThreadsMax) +
                       ", not " + quoted(*text));
    }
    return;
  }
  if (node.kind() != Kind::kInteger) {
    reader.expected(node, entry.path, "\"auto\" or an integer");
    return;
  }
  const auto value = reader.scalar(node, kNumber, entry.path);
  if (value) server.threads = static_cast<uint32_t>(value->number);
}

void read_cpus(Reader& reader, const TableEntry& entry, void* object) {
  constexpr Setting kNumber{
      .key = "cpus", .type = ValueType::kInteger, .minimum = 0, .maximum = kCpuMax};
  const Node& node = entry.member.value;
  std::vector<uint32_t> cpus;
  if (node.kind() == Kind::kString) {
    const auto text = reader.text(node, entry.path);
    if (!text) return;
    cpus = parse_cpu_ranges(*text);
    if (cpus.empty()) {
      reader.error(node.place(), entry.path,
                   "must be CPU numbers such as \"0-3,8\", not " + quoted(*text));
      return;
    }
  } else if (node.kind() == Kind::kList) {
    for (size_t i = 0; i < node.size(); ++i) {
      const KeyPath here{.parent = &entry.path, .index = static_cast<int64_t>(i)};
      const auto value = reader.scalar(node.item(i), kNumber, here);
      if (value) cpus.push_back(static_cast<uint32_t>(value->number));
    }
  } else {
    reader.expected(node, entry.path, "a list of CPU numbers or a string such as \"0-3,8\"");
    return;
  }
  std::ranges::sort(cpus);
  if (const auto twice = std::ranges::adjacent_find(cpus); twice != cpus.end()) {
    reader.error(node.place(), entry.path, "names CPU " + std::to_string(*twice) + " twice");
    return;
  }
  static_cast<ServerSettings*>(object)->cpus = std::move(cpus);
}

std::vector<base::Cidr> read_blocks(Reader& reader, const TableEntry& entry, bool empty_allowed) {
  std::vector<base::Cidr> result;
  for (const auto& listed : reader.text_list(entry.member.value, entry.path, empty_allowed)) {
    const auto block = base::Cidr::parse(listed.text);
    if (block && std::ranges::find(result, *block) != result.end()) {
      reader.error(listed, entry.path, "names " + quoted(listed.text) + " twice");
    } else if (block) {
      result.push_back(*block);
    } else {
      reader.error(listed, entry.path,
                   "must be an IP address or a block such as \"10.0.0.0/8\" " +
                       std::string("without host bits, not ") + quoted(listed.text));
    }
  }
  return result;
}

void read_trusted_proxies(Reader& reader, const TableEntry& entry, void* object) {
  static_cast<SecuritySettings*>(object)->trusted_proxies = read_blocks(reader, entry, true);
}

}  // namespace weir::control::config
