// The schema: each setting of the configuration named once, with type, default, range, unit, doc
// line and the member that it fills. Reading a file, finding unknown keys, checking ranges, filling
// defaults and docs/CONFIG.md are all driven by it. Constant data; any thread may read it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace weir::control::config {

class Reader;       // src/control/config/reader.h
struct TableEntry;  // likewise

enum class ValueType : uint8_t {
  kBool,
  kInteger,
  kSize,      // bytes: 65536 or "64KiB"
  kDuration,  // milliseconds in here; 30 (seconds) or "500ms" in the file
  kString,
  kChoice,  // one of a few words
  kCustom,  // read by a function of its own
};

// A value on its way into a member: `number` of kBool, kInteger, kSize, kDuration (milliseconds)
// and kChoice (position among the choices), `text` of kString.
struct ScalarValue {
  int64_t number = 0;
  std::string_view text{};
};

struct Setting {
  std::string_view key{};
  ValueType type = ValueType::kCustom;
  std::string_view fallback{};  // the default as the file would have it, without quotes
  int64_t minimum = 0;
  int64_t maximum = 0;
  std::string_view zero{};     // what 0 means, where 0 is allowed beside minimum..maximum
  std::string_view choices{};  // kChoice: the words, separated by spaces, in the order of the enum
  std::string_view
      other_choices{};         // kChoice: other words for some of them, "other=word", likewise
  std::string_view aliases{};  // other names of the key, separated by spaces
  std::string_view form{};     // kCustom: the type in words, for people
  bool restart = false;        // a change takes effect only after a restart
  std::string_view doc{};

  // Scalars: a complaint about a value of the right type and range, or empty.
  std::string_view (*check)(const ScalarValue& value) = nullptr;
  // Scalars: stores into the object that the section describes.
  void (*store)(void* object, const ScalarValue& value) = nullptr;
  // Scalars and custom settings that `restart` applies to: whether two objects agree.
  bool (*same)(const void* a, const void* b) = nullptr;
  // kCustom: reads the node itself; reports its own errors.
  void (*read)(Reader& reader, const TableEntry& entry, void* object) = nullptr;
};

struct Section {
  std::string_view name{};    // as in dotted keys: "server", "upstream.NAME"
  std::string_view header{};  // as in the file: "[server]", "[[listener]]"
  std::string_view doc{};
  std::string_view example{};  // TOML
  std::span<const Setting> settings{};
  bool places = false;  // where each setting was given is noted in Config::places
};

// In the order of the reference page.
std::span<const Section> schema();
const Section& section(std::string_view name);  // CHECKs that it exists

// A key whose feature comes in a later release. `section` is a Section::name, or empty for the top
// level; `key` may end in '*'.
struct LaterKey {
  std::string_view section{};
  std::string_view key{};
  std::string_view feature{};
};
std::span<const LaterKey> later_keys();
// The feature, or empty when the key is not one of those.
std::string_view later_feature(std::string_view section_name, std::string_view key);

// Names that nginx, HAProxy, Traefik, Caddy and Envoy have for a setting. Never accepted, but the
// error about them says the name here. They are compared without regard to case, '-' and '_', and
// mean something only where the section has no setting of that name itself.
struct ForeignKey {
  std::string_view where{};     // Section::name of those it is typed in, by spaces; ".": top level
  std::string_view names{};     // by spaces
  std::string_view section{};   // Section::name of the one that has the setting; empty: the same
  std::string_view settings{};  // keys there, by spaces; empty: the section itself is meant
  std::string_view remark{};    // what to say behind them
};
std::span<const ForeignKey> foreign_keys();

// Likewise words for a choice.
struct ForeignValue {
  std::string_view keys{};     // of the settings, by spaces; only those that have the choices
  std::string_view names{};    // by spaces
  std::string_view choices{};  // what is meant, by spaces
  std::string_view remark{};
};
std::span<const ForeignValue> foreign_values();

// Fills the scalar settings of `object`, which has the type that the section describes.
void apply_defaults(const Section& section, void* object);

// The whole of docs/CONFIG.md.
std::string render_reference();

}  // namespace weir::control::config
