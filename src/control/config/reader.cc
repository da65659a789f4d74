#include "reader.h"

#include <algorithm>
#include <utility>

#include <weir/base/check.h>
#include <weir/base/text.h>

#include "suggest.h"
#include "syntax.h"
#include "units.h"

namespace weir::control::config {

namespace {

std::string_view kind_name(Kind kind) noexcept {
  switch (kind) {
    case Kind::kTable: return "a table";
    case Kind::kList: return "a list";
    case Kind::kString: return "a string";
    case Kind::kInteger: return "an integer";
    case Kind::kFloat: return "a fraction";
    case Kind::kBool: return "a boolean";
    case Kind::kDate: return "a date or time";
  }
  return "something else";
}

std::string_view type_name(ValueType type) noexcept {
  switch (type) {
    case ValueType::kBool: return "true or false";
    case ValueType::kInteger: return "an integer";
    case ValueType::kSize: return "a size such as 65536 or \"64KiB\"";
    case ValueType::kDuration: return "a duration such as 30 (seconds), \"500ms\" or \"5m\"";
    case ValueType::kString: return "a string";
    case ValueType::kChoice:
    case ValueType::kCustom: break;
  }
  return "a value";
}

std::string format_value(const Setting& setting, int64_t value) {
  if (setting.type == ValueType::kDuration) return format_duration(value);
  if (setting.type == ValueType::kSize) return format_size(value);
  return std::to_string(value);
}

}  // namespace

std::string KeyPath::to_string() const {
  std::string result = parent != nullptr ? parent->to_string() : std::string();
  if (index >= 0) return result.append("[").append(std::to_string(index)).append("]");
  if (!result.empty()) result += '.';
  return is_bare_key(key) ? result.append(key) : result.append(quoted(key));
}

Reader::Reader(Config& target, const EnvironmentLookup& environment)
    : config(target), environment_(environment) {}

void Reader::error(const Place& place, std::string key, std::string message) {
  errors_.push_back({config.file, place, std::move(key), std::move(message)});
}

void Reader::warn(const Place& place, std::string key, std::string message) {
  warnings_.push_back({config.file, place, std::move(key), std::move(message)});
}

void Reader::error(const Place& place, const KeyPath& path, std::string message) {
  error(place, path.to_string(), std::move(message));
}

void Reader::warn(const Place& place, const KeyPath& path, std::string message) {
  warn(place, path.to_string(), std::move(message));
}

void Reader::expected(const Node& node, const KeyPath& path, std::string_view wanted) {
  std::string message = "must be ";
  error(node.place(), path, message.append(wanted).append(", not ").append(kind_name(node.kind())));
}

bool Reader::is_table(const Node& node, const KeyPath& path) {
  if (node.kind() == Kind::kTable) return true;
  expected(node, path, "a table");
  return false;
}

void Reader::table(const Node& node, const Section& section, void* object, const KeyPath& path) {
  if (!is_table(node, path)) return;
  std::vector<Member> members;
  node.members(members);
  // Which settings were given so far, and by which member: a key and its alias are the same one.
  std::vector<const Member*> given(section.settings.size());
  for (const Member& member : members) {
    const KeyPath here{.parent = &path, .key = member.key};
    const Found found = find(section, member.key);
    if (found.setting == nullptr) {
      unknown_key(section, member, here);
      continue;
    }
    const auto position = static_cast<size_t>(found.setting - section.settings.data());
    if (given[position] != nullptr) {
      error(member.place, here,
            "is the same setting as " + quoted(given[position]->key) + " in line " +
                std::to_string(given[position]->place.line));
      continue;
    }
    given[position] = &member;
    if (section.places) {
      config.places.emplace(KeyPath{.parent = &path, .key = found.setting->key}.to_string(),
                            member.value.place());
    }
    entry(member, found, object, here);
  }
}

void Reader::entry(const Member& member, const Section& section, void* object,
                   const KeyPath& path) {
  entry(member, find(section, member.key), object, KeyPath{.parent = &path, .key = member.key});
}

void Reader::entry(const Member& member, const Found& found, void* object, const KeyPath& here) {
  WEIR_CHECK(found.setting != nullptr);  // who asks has seen that the section has this key
  if (found.setting->type == ValueType::kCustom) {
    found.setting->read(*this, TableEntry{.member = member, .path = here}, object);
  } else if (const auto value = scalar(member.value, *found.setting, found.unit, here)) {
    found.setting->store(object, *value);
  }
}

Reader::Found Reader::find(const Section& section, std::string_view key) {
  for (const Setting& setting : section.settings) {
    if (setting.key == key) return {.setting = &setting};
  }
  return find_alias(section, key);
}

Reader::Found Reader::find_alias(const Section& section, std::string_view key) {
  std::string_view stem = key;
  Unit unit = Unit::kFree;
  if (key.ends_with("_secs")) {
    unit = Unit::kSeconds;
    stem.remove_suffix(5);
  } else if (key.ends_with("_ms")) {
    unit = Unit::kMilliseconds;
    stem.remove_suffix(3);
  }
  for (const Setting& setting : section.settings) {
    if (has_word(setting.aliases, key)) return {.setting = &setting};
    if (unit == Unit::kFree || setting.type != ValueType::kDuration) continue;
    if (setting.key == stem || has_word(setting.aliases, stem)) {
      return {.setting = &setting, .unit = unit};
    }
  }
  return {};
}

void Reader::unknown_key(const Section& section, const Member& member, const KeyPath& path) {
  if (const std::string_view hint = misplaced_key(section, member.key); !hint.empty()) {
    error(member.place, path, std::string(hint));
    return;
  }
  const std::string_view feature = later_feature(section.name, member.key);
  if (!feature.empty()) {
    error(member.place, path, std::string("not available yet: comes with ").append(feature));
    return;
  }
  std::vector<std::string_view> known;
  for (const Setting& setting : section.settings) known.push_back(setting.key);
  std::string message = "unknown key";
  if (const auto hint = foreign_key_hint(section, member.key); !hint.empty()) {
    message.append("; ").append(hint);
  } else if (const auto home = home_of_key(section, member.key); !home.empty()) {
    message.append(" here; it belongs to ").append(home);
  } else if (const auto near = nearest(member.key, known); !near.empty()) {
    message.append("; did you mean ").append(quoted(near)).append("?");
  } else {
    message.append("; known here: ").append(joined(known));
  }
  error(member.place, path, std::move(message));
}

std::optional<ScalarValue> Reader::scalar(const Node& node, const Setting& setting,
                                          const KeyPath& path) {
  return scalar(node, setting, Unit::kFree, path);
}

std::optional<ScalarValue> Reader::scalar(const Node& node, const Setting& setting, Unit unit,
                                          const KeyPath& path) {
  ScalarValue value;
  if (setting.type == ValueType::kString) {
    const auto string = text(node, path);
    if (!string) return std::nullopt;
    value.text = *string;
  } else {
    const auto result = setting.type == ValueType::kChoice ? choice(node, setting, path)
                                                           : number(node, setting, unit, path);
    if (!result) return std::nullopt;
    value.number = *result;
  }
  if (setting.check != nullptr) {
    if (const auto complaint = setting.check(value); !complaint.empty()) {
      error(node.place(), path, std::string(complaint));
      return std::nullopt;
    }
  }
  return value;
}

std::optional<int64_t> Reader::choice(const Node& node, const Setting& setting,
                                      const KeyPath& path) {
  const std::vector<std::string_view> words = split_words(setting.choices);
  if (node.kind() != Kind::kString) {
    expected(node, path, "one of " + joined_quoted(words));
    return std::nullopt;
  }
  const auto string = text(node, path);
  if (!string) return std::nullopt;
  std::string_view word = *string;
  for (const std::string_view other : split_words(setting.other_choices)) {
    const size_t equals = other.find('=');
    if (other.substr(0, equals) == word) word = other.substr(equals + 1);
  }
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == word) return static_cast<int64_t>(i);
  }
  std::string message = "must be one of " + joined_quoted(words) + ", not " + quoted(*string);
  if (const auto hint = foreign_value_hint(setting, *string); !hint.empty()) {
    message.append("; ").append(hint);
  } else if (const auto near = nearest(*string, words); !near.empty()) {
    message.append("; did you mean ").append(quoted(near)).append("?");
  }
  error(node.place(), path, std::move(message));
  return std::nullopt;
}

std::optional<int64_t> Reader::number(const Node& node, const Setting& setting, Unit unit,
                                      const KeyPath& path) {
  if (setting.type == ValueType::kBool && node.kind() == Kind::kBool) return node.boolean() ? 1 : 0;
  std::optional<int64_t> value;
  if (node.kind() == Kind::kInteger && setting.type != ValueType::kBool) {
    value = node.integer();
    const bool seconds = setting.type == ValueType::kDuration && unit != Unit::kMilliseconds;
    int64_t scaled = 0;
    // Saturates, so that the range check below refuses it with the right words.
    if (seconds) {
      const bool over = __builtin_mul_overflow(*value, int64_t{1000}, &scaled);
      value = over ? (*value < 0 ? INT64_MIN : INT64_MAX) : scaled;
    }
  } else if (node.kind() == Kind::kString) {
    value = spelled_number(node, setting, unit, path);
    if (!value) return std::nullopt;
  } else {
    expected(node, path, unit == Unit::kFree ? type_name(setting.type) : "an integer");
    return std::nullopt;
  }
  if (setting.type != ValueType::kBool && !in_range(*value, node, setting, path)) {
    return std::nullopt;
  }
  return value;
}

// A number written as a string: durations and sizes with a unit; plain numbers and booleans only
// where an environment variable took part, since a variable cannot be put in otherwise.
std::optional<int64_t> Reader::spelled_number(const Node& node, const Setting& setting, Unit unit,
                                              const KeyPath& path) {
  const auto string = text(node, path);
  if (!string) return std::nullopt;
  const bool substituted = node.text().find("${") != std::string_view::npos;
  std::optional<int64_t> value;
  if (setting.type == ValueType::kSize) {
    value = parse_size(*string);
  } else if (setting.type == ValueType::kDuration && unit == Unit::kFree) {
    value = parse_duration(*string);
  }
  if (!value && substituted) {
    if (setting.type == ValueType::kBool) {
      if (*string == "true") value = 1;
      if (*string == "false") value = 0;
    } else if (const auto digits = base::parse_decimal(*string); digits && *digits <= INT64_MAX) {
      const bool seconds = setting.type == ValueType::kDuration && unit != Unit::kMilliseconds;
      int64_t scaled = 0;
      const bool over = __builtin_mul_overflow(static_cast<int64_t>(*digits),
                                               int64_t{seconds ? 1000 : 1}, &scaled);
      value = over ? INT64_MAX : scaled;
    }
  }
  if (value) return value;
  const std::string_view wanted = unit == Unit::kFree ? type_name(setting.type) : "an integer";
  error(node.place(), path, std::string("must be ").append(wanted) + ", not " + quoted(*string));
  return std::nullopt;
}

bool Reader::in_range(int64_t value, const Node& node, const Setting& setting,
                      const KeyPath& path) {
  if (value == 0 && !setting.zero.empty()) return true;
  if (value >= setting.minimum && value <= setting.maximum) return true;
  std::string message = "must be ";
  if (!setting.zero.empty()) message.append("0 (").append(setting.zero).append(") or ");
  message.append("between ").append(format_value(setting, setting.minimum));
  message.append(" and ").append(format_value(setting, setting.maximum));
  error(node.place(), path, message.append(", not ").append(format_value(setting, value)));
  return false;
}

std::optional<std::string_view> Reader::text(const Node& node, const KeyPath& path,
                                             Placeholders placeholders) {
  if (node.kind() != Kind::kString) {
    expected(node, path, "a string");
    return std::nullopt;
  }
  const std::string_view raw = node.text();
  if (raw.find('$') == std::string_view::npos) return raw;
  std::string out;
  if (!expand(raw, node, path, placeholders, out)) return std::nullopt;
  return expanded_.emplace_back(std::move(out));
}

std::vector<Reader::ListedText> Reader::text_list(const Node& node, const KeyPath& path,
                                                  bool empty_allowed) {
  std::vector<ListedText> result;
  if (node.kind() == Kind::kString) {
    if (const auto only = text(node, path)) result.push_back({*only, node.place(), -1});
    return result;
  }
  if (node.kind() != Kind::kList) {
    expected(node, path, "a string or a list of strings");
    return result;
  }
  if (node.size() == 0 && !empty_allowed) error(node.place(), path, "must not be an empty list");
  for (size_t i = 0; i < node.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    const Node item = node.item(i);
    const auto one = text(item, KeyPath{.parent = &path, .index = index});
    if (one) result.push_back({*one, item.place(), index});
  }
  return result;
}

void Reader::error(const ListedText& listed, const KeyPath& path, std::string message) {
  if (listed.index < 0) return error(listed.place, path, std::move(message));
  error(listed.place, KeyPath{.parent = &path, .index = listed.index}, std::move(message));
}

bool Reader::expand(std::string_view raw, const Node& node, const KeyPath& path,
                    Placeholders placeholders, std::string& out) {
  while (!raw.empty()) {
    const size_t dollar = raw.find('$');
    out.append(raw.substr(0, dollar));
    if (dollar == std::string_view::npos) return true;
    raw.remove_prefix(dollar + 1);
    if (raw.starts_with('$')) {
      out += '$';
      raw.remove_prefix(1);
    } else if (!raw.starts_with('{')) {
      out += '$';
    } else {
      const size_t close = raw.find('}');
      if (close == std::string_view::npos) {
        error(node.place(), path, "has \"${\" without \"}\"; a dollar sign itself is \"$$\"");
        return false;
      }
      const std::string_view inside = raw.substr(1, close - 1);
      raw.remove_prefix(close + 1);
      if (placeholders == Placeholders::kRedirect && has_word(kRedirectPlaceholders, inside)) {
        out.append("${").append(inside).append("}");
      } else if (!expand_variable(inside, node, path, out)) {
        return false;
      }
    }
  }
  return true;
}

bool Reader::expand_variable(std::string_view inside, const Node& node, const KeyPath& path,
                             std::string& out) {
  const size_t operation = inside.find(":-");
  const std::string_view name = inside.substr(0, operation);
  if (!is_variable_name(name)) {
    error(node.place(), path,
          quoted(name) + " is not a name of an environment variable; a dollar " +
              "sign itself is \"$$\"");
    return false;
  }
  const auto value = environment_(name);
  if (operation != std::string_view::npos) {
    // As in a shell: the default stands also for a variable that is set but empty.
    out.append(value && !value->empty() ? std::string_view(*value) : inside.substr(operation + 2));
    return true;
  }
  if (!value) {
    error(node.place(), path,
          "environment variable " + std::string(name) + " is not set; a " +
              "default is written ${" + std::string(name) + ":-default}");
    return false;
  }
  out.append(*value);
  return true;
}

std::optional<Place> Reader::given(const KeyPath& path, std::string_view key) const {
  const auto found = config.places.find(KeyPath{.parent = &path, .key = key}.to_string());
  return found != config.places.end() ? std::optional(found->second) : std::nullopt;
}

std::optional<Reader::Given> Reader::given(const KeyPath& path,
                                           std::initializer_list<std::string_view> keys) const {
  for (const std::string_view key : keys) {
    if (const auto place = given(path, key)) return Given{.key = key, .place = *place};
  }
  return std::nullopt;
}

std::optional<uint32_t> Reader::find_upstream(std::string_view name) const {
  const auto found = upstream_index_.find(std::string(name));
  if (found == upstream_index_.end()) return std::nullopt;
  return found->second;
}

uint32_t Reader::add_upstream(Upstream upstream) {
  const auto index = static_cast<uint32_t>(config.upstreams.size());
  upstream_index_.emplace(upstream.name, index);
  config.upstreams.push_back(std::move(upstream));
  return index;
}

std::vector<Diagnostic> Reader::finish(std::vector<Diagnostic>& list) const {
  std::vector<size_t> order(list.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::sort(order, [&list](size_t a, size_t b) {
    return std::pair(list[a].place, a) < std::pair(list[b].place, b);
  });
  std::vector<Diagnostic> result;
  for (const size_t index : order) {
    if (result.size() == kDiagnosticsMax) {
      const size_t more = list.size() - result.size();
      result.push_back(
          {config.file, list[index].place, "", "and " + std::to_string(more) + " more"});
      break;
    }
    result.push_back(std::move(list[index]));
  }
  return result;
}

}  // namespace weir::control::config
