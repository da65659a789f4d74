// docs/CONFIG.md, written from the schema.
#include <string>
#include <vector>

#include <weir/control/config/schema.h>

#include "examples.h"
#include "suggest.h"
#include "units.h"

namespace weir::control::config {

namespace {

constexpr std::string_view kOpening = R"(# Configuration

<!-- Written by `weir config-reference` from the schema in src/control/config; a test compares. -->

weir reads one TOML file, `/etc/weir/weir.toml` unless `-c FILE` says otherwise. This is a whole
configuration, a reverse proxy for two application servers:

```toml
)";

constexpr std::string_view kGeneral = R"(```

`weir check -c FILE` reads a file and reports everything that is wrong with it, each as
`FILE:LINE:COLUMN: KEY: what is wrong`. Positions in lists count from 0 there: `route[3]` is the
fourth `[[route]]`. `weir explain -c FILE METHOD URL` tells which route a request gets, and why. A
running weir takes up a changed file by itself, and on SIGHUP; a file with errors changes nothing.
Settings marked *restart* keep their old value until weir is started again. Unknown keys, and keys
of features that come later, are errors.

## Values

**Durations** are integers (seconds) or strings with a unit: `"500ms"`, `"30s"`, `"5m"`, `"1h"`,
`"1d"`. Each key of a duration may also be written with `_secs` or `_ms` at its end and then takes
an integer of that unit: `keepalive_timeout_secs = 60`.

**Sizes** are integers (bytes) or strings with a unit: `"64KiB"`, `"1MiB"`, `"1GiB"` and `"1TiB"`
count by 1024, `"64KB"`, `"1MB"`, `"1GB"` and `"1TB"` by 1000.

**Environment variables** may be put into every string: `"${PORT}"`, or with a default (taken when
the variable is unset or empty) `"${PORT:-8080}"`. A variable without value and default is an error.
A dollar sign before `{` is written `$$`. Numbers and booleans may be written as strings when a
variable takes part: `max_header_fields = "${FIELDS:-100}"`. In the URL of a redirect, `${scheme}`,
`${host}`, `${path}`, `${query}` and `${uri}` stand for parts of the request instead.

**Other names.** Where a key has further names, they are listed with it. Giving a setting twice is
an error.

## Which route a request gets

1. Hosts: the exact host first, then fitting `*.suffix` hosts, longest suffix first, then routes for
   any host. `*.example.com` fits `a.example.com` and `a.b.example.com`, never `example.com`.
2. Paths, within a host: an exact path first, then prefixes, longest first. A prefix fits at segment
   boundaries: `/api` and `/api/` both fit `/api`, `/api/` and `/api/v1`, never `/apix`.
3. Conditions, within a path: the route with more conditions first (the methods count as one, the
   sources as one, each header and each query parameter as one); at the same number the one with
   more exact values, then the one with more value prefixes, then the one that stands first in the
   file.
4. The first route in that order whose conditions all hold is taken; without any, 404.

Paths are compared after dot segments were removed and percent-encoding was put into its normal
form. With a path in the URL of `proxy`, that path takes the place of the route's: for the route
`/api/` and `proxy = "http://127.0.0.1:3000/app/"`, a request for `/api/v1` is passed on as
`/app/v1`. A slash at the end of either makes no difference. Without a path in the URL, the path is
passed on as it is.

)";

constexpr std::string_view kLaterOpening = R"(## Keys of later releases

These are known, and refused with the release that brings them (`*` stands for any ending):

)";

void append_escaped(std::string_view text, std::string& out) {
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c;
  }
}

std::string type_text(const Setting& setting) {
  switch (setting.type) {
    case ValueType::kBool: return "boolean";
    case ValueType::kInteger: return "integer";
    case ValueType::kSize: return "size";
    case ValueType::kDuration: return "duration";
    case ValueType::kString: return "string";
    case ValueType::kCustom: return std::string(setting.form);
    case ValueType::kChoice: break;
  }
  std::string result;
  for (const std::string_view word : split_words(setting.choices)) {
    result.append(result.empty() ? "" : ", ").append("`\"").append(word).append("\"`");
  }
  return result;
}

std::string value_text(const Setting& setting, int64_t value) {
  if (setting.type == ValueType::kDuration) return format_duration(value);
  if (setting.type == ValueType::kSize) return format_size(value);
  return std::to_string(value);
}

std::string range_text(const Setting& setting) {
  const bool number = setting.type == ValueType::kInteger || setting.type == ValueType::kSize ||
                      setting.type == ValueType::kDuration;
  if (!number) return {};
  std::string result = ", " + value_text(setting, setting.minimum);
  result.append(setting.maximum == INT64_MAX ? " or more"
                                             : " to " + value_text(setting, setting.maximum));
  if (!setting.zero.empty()) result.append("; 0: ").append(setting.zero);
  return result;
}

std::string default_text(const Setting& setting) {
  if (setting.fallback.empty()) return {};
  const bool plain = setting.type == ValueType::kBool || setting.type == ValueType::kInteger ||
                     setting.fallback == "0" || setting.fallback == "false" ||
                     setting.fallback.starts_with('[');
  const std::string quote = plain ? "" : "\"";
  return "`" + quote + std::string(setting.fallback) + quote + "`";
}

void append_row(const Setting& setting, std::string& out) {
  out.append("| `").append(setting.key).append("` | ");
  append_escaped(type_text(setting) + range_text(setting), out);
  out.append(" | ");
  append_escaped(default_text(setting), out);
  out.append(" | ");
  append_escaped(setting.doc, out);
  if (!setting.aliases.empty()) {
    out.append(" Also: ");
    bool first = true;
    for (const std::string_view alias : split_words(setting.aliases)) {
      out.append(first ? "`" : ", `").append(alias).append("`");
      first = false;
    }
    out.append(".");
  }
  if (setting.restart) out.append(" *restart*");
  out.append(" |\n");
}

void append_section(const Section& section, std::string& out) {
  out.append("## `").append(section.header).append("`\n\n").append(section.doc).append("\n\n");
  out.append("| key | type and range | default | meaning |\n|---|---|---|---|\n");
  for (const Setting& setting : section.settings) append_row(setting, out);
  out.append("\n");
  if (section.example.empty()) return;
  out.append("```toml\n").append(section.example).append("```\n\n");
}

void append_later(std::string& out) {
  out.append(kLaterOpening);
  out.append("| where | key | comes with |\n|---|---|---|\n");
  for (const LaterKey& later : later_keys()) {
    const bool top = later.section.empty();
    out.append("| ").append(top ? "top level" : section(later.section).name);
    out.append(" | `").append(later.key).append("` | ").append(later.feature).append(" |\n");
  }
}

}  // namespace

std::string render_reference() {
  std::string out;
  out.append(kOpening).append(kWholeExample).append(kGeneral);
  for (const Section& section : schema()) append_section(section, out);
  append_later(out);
  return out;
}

}  // namespace weir::control::config
