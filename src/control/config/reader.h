// Reads a TOML document into a Config, table by table along the schema, and collects everything
// that is wrong on the way. Lives for one load_config() call, on its thread; it stops for nothing:
// a value that is wrong is reported and its default stays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <weir/control/config/load.h>
#include <weir/control/config/schema.h>

#include "document.h"

namespace weir::control::config {

// A dotted key as a chain on the stack, turned into text only for a message.
struct KeyPath {
  const KeyPath* parent = nullptr;
  std::string_view key{};  // unused where index >= 0
  int64_t index = -1;      // position in a list

  [[nodiscard]] std::string to_string() const;
};

// One key of a table and its value, as handed to the reader of a custom setting.
struct TableEntry {
  Member member;
  const KeyPath& path;
};

// Which `${...}` in a string are not environment variables but stay as they are.
enum class Placeholders : uint8_t { kNone, kRedirect };

class Reader {
 public:
  Config& config;
  // Set when the document has such tables at all, whatever became of them.
  bool has_listener_tables = false;
  bool has_route_tables = false;
  bool has_certificates = false;

  Reader(Config& target, const EnvironmentLookup& environment);

  void error(const Place& place, const KeyPath& path, std::string message);
  void warn(const Place& place, const KeyPath& path, std::string message);
  void error(const Place& place, std::string key, std::string message);
  void warn(const Place& place, std::string key, std::string message);
  // "must be WANTED, not a string"
  void expected(const Node& node, const KeyPath& path, std::string_view wanted);

  // Each reports what is wrong and is then empty. Texts live as long as the Reader's document.
  std::optional<std::string_view> text(const Node& node, const KeyPath& path,
                                       Placeholders placeholders = Placeholders::kNone);
  // A string or a list of strings; empty after an error.
  struct ListedText {
    std::string_view text;
    Place place;
    int64_t index;  // -1: the value is a single string
  };
  std::vector<ListedText> text_list(const Node& node, const KeyPath& path,
                                    bool empty_allowed = false);
  // At an entry of such a list.
  void error(const ListedText& listed, const KeyPath& path, std::string message);
  std::optional<ScalarValue> scalar(const Node& node, const Setting& setting, const KeyPath& path);

  // The setting of that name or alias, or null.
  static const Setting* find_setting(const Section& section, std::string_view key) {
    return find(section, key).setting;
  }
  // Reads a table along a section of the schema into the object that the section describes.
  void table(const Node& node, const Section& section, void* object, const KeyPath& path);
  // The same for one of its entries, whose key is known to be a setting of the section.
  void entry(const Member& member, const Section& section, void* object, const KeyPath& path);
  // Whether the node is a table; reports if not.
  bool is_table(const Node& node, const KeyPath& path);
  void unknown_key(const Section& section, const Member& member, const KeyPath& path);

  // Where the table at `path` gives a setting, under whatever name; of sections with `places`.
  [[nodiscard]] std::optional<Place> given(const KeyPath& path, std::string_view key) const;
  // Likewise the first of these that is given.
  struct Given {
    std::string_view key;
    Place place;
  };
  [[nodiscard]] std::optional<Given> given(const KeyPath& path,
                                           std::initializer_list<std::string_view> keys) const;

  // Index of the upstream of that name, or empty.
  [[nodiscard]] std::optional<uint32_t> find_upstream(std::string_view name) const;
  uint32_t add_upstream(Upstream upstream);

  [[nodiscard]] size_t error_count() const noexcept { return errors_.size(); }
  // Diagnostics in the order of the file, cut at kDiagnosticsMax.
  static constexpr size_t kDiagnosticsMax = 1000;
  std::vector<Diagnostic> take_errors() { return finish(errors_); }
  std::vector<Diagnostic> take_warnings() { return finish(warnings_); }

 private:
  // How the key of a duration was written: an alias in "_secs" or "_ms" takes integers of that
  // unit.
  enum class Unit : uint8_t { kFree, kSeconds, kMilliseconds };
  struct Found {
    const Setting* setting = nullptr;
    Unit unit = Unit::kFree;
  };
  void entry(const Member& member, const Found& found, void* object, const KeyPath& here);
  static Found find(const Section& section, std::string_view key);
  static Found find_alias(const Section& section, std::string_view key);
  std::optional<int64_t> number(const Node& node, const Setting& setting, Unit unit,
                                const KeyPath& path);
  std::optional<int64_t> spelled_number(const Node& node, const Setting& setting, Unit unit,
                                        const KeyPath& path);
  std::optional<int64_t> choice(const Node& node, const Setting& setting, const KeyPath& path);
  std::optional<ScalarValue> scalar(const Node& node, const Setting& setting, Unit unit,
                                    const KeyPath& path);
  bool in_range(int64_t value, const Node& node, const Setting& setting, const KeyPath& path);
  bool expand(std::string_view raw, const Node& node, const KeyPath& path,
              Placeholders placeholders, std::string& out);
  bool expand_variable(std::string_view inside, const Node& node, const KeyPath& path,
                       std::string& out);
  std::vector<Diagnostic> finish(std::vector<Diagnostic>& list) const;

  const EnvironmentLookup& environment_;
  std::deque<std::string> expanded_;  // texts that differ from the document's
  std::unordered_map<std::string, uint32_t> upstream_index_;
  std::vector<Diagnostic> errors_;
  std::vector<Diagnostic> warnings_;
};

}  // namespace weir::control::config
