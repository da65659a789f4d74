// Names of other servers, and values that lack their quotes: that the errors about them say what
// weir has, and that it has it.
#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/config/schema.h>

#include "config_cases.h"

using namespace weir::control::config;
using namespace weir::control::config::test;

namespace {

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const size_t space = std::min(text.find(' '), text.size());
    words.emplace_back(text.substr(0, space));
    text.remove_prefix(std::min(space + 1, text.size()));
  }
  return words;
}

// As the hints compare them.
std::string plain(std::string_view name) {
  std::string result;
  for (const char c : name) {
    if (c == '_' || c == '-') continue;
    result += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return result;
}

const Section* find_section(std::string_view name) {
  const auto found = std::ranges::find(schema(), name, &Section::name);
  return found != schema().end() ? &*found : nullptr;
}

bool has_setting(const Section& part, std::string_view key) {
  return std::ranges::find(part.settings, key, &Setting::key) != part.settings.end();
}

// A file that has this line, without its end, in such a section.
std::string within(std::string_view name, const std::string& line) {
  if (name == ".") return line;
  if (name == "listener") return "[[listener]]\naddress = \"127.0.0.1:1\"\n" + line;
  if (name == "route" || name == "tls.certificates")
    return "[[" + std::string(name) + "]]\n" + line;
  if (name.starts_with("route.")) return "[[route]]\n[" + std::string(name) + "]\n" + line;
  if (name == "upstream.NAME") return "[upstream.a]\nservers = \"b:1\"\n" + line;
  if (name == "upstream.NAME.servers[]") {
    return "[upstream.a]\nservers = [{address = \"b:1\", " + line + "}]";
  }
  if (name == "sticky") return "[upstream.a]\nservers = \"b:1\"\n[upstream.a.sticky]\n" + line;
  if (name == "passive_check" || name == "circuit_breaker") {
    return "[upstream_defaults." + std::string(name) + "]\n" + line;
  }
  if (name == "path_routes.HOST.PATH") return "[path_routes.a.\"/\"]\n" + line;
  if (name == "path_routes.HOST.PATH.security") return "[path_routes.a.\"/\".security]\n" + line;
  return "[" + std::string(name) + "]\n" + line;
}

// What the error that has it says from `sign` on; empty when there is none.
std::string said_after(const std::string& text, const std::string& sign) {
  for (const std::string& error : errors_of(text)) {
    if (const size_t at = error.find(sign); at != std::string::npos) {
      return error.substr(at + sign.size());
    }
  }
  return "";
}

std::string any_of(const std::vector<std::string>& words) {
  std::string result;
  for (const std::string& word : words) result += (result.empty() ? "\"" : " or \"") + word + "\"";
  return result;
}

void check_names(const ForeignKey& row, const std::string& where) {
  const Section* here = where == "." ? nullptr : find_section(where);
  REQUIRE((where == "." || here != nullptr));
  const Section* target = row.section.empty() ? here : find_section(row.section);
  REQUIRE(target != nullptr);
  const std::vector<std::string> settings = words_of(row.settings);
  for (const std::string& name : words_of(row.names)) {
    INFO(where << ": " << name);
    const std::string sign = name + ": unknown key; did you mean ";
    std::string hint = said_after(within(where, name + " = 1"), sign);
    const std::string end = std::string(row.remark) + "?";
    REQUIRE(hint.ends_with(end));
    hint.resize(hint.size() - end.size());
    REQUIRE(hint.starts_with(any_of(settings)));
    std::string header = hint.substr(any_of(settings).size());
    const bool elsewhere = !header.empty();
    if (elsewhere && !settings.empty()) {
      REQUIRE(header.starts_with(" in "));
      header.erase(0, 4);
    }
    if (elsewhere) {
      CHECK(header.starts_with("["));
      CHECK(header.find(", ") == std::string::npos);
      CHECK(target->header.find(header) != std::string_view::npos);
      CHECK(target != here);
    } else {
      CHECK_FALSE(settings.empty());
    }
    for (const std::string& setting : settings) {
      INFO(setting);
      CHECK(has_setting(elsewhere ? *target : *here, setting));
    }
    if (here == nullptr) continue;
    for (const Setting& setting : here->settings) {
      CHECK(plain(setting.key) != plain(name));
      for (const std::string& alias : words_of(setting.aliases)) CHECK(plain(alias) != plain(name));
    }
  }
}

std::string only_error(const std::string& text) {
  const auto errors = errors_of(text);
  return errors.size() == 1 ? errors[0] : std::to_string(errors.size()) + " errors";
}

}  // namespace

TEST_CASE("names of other servers lead to settings that exist") {
  std::set<std::pair<std::string, std::string>> seen;
  REQUIRE(foreign_keys().size() > 100);
  for (const ForeignKey& row : foreign_keys()) {
    for (const std::string& where : words_of(row.where)) {
      check_names(row, where);
      for (const std::string& name : words_of(row.names)) {
        INFO(where << ": " << name);
        CHECK(seen.emplace(where, plain(name)).second);
      }
    }
  }
}

TEST_CASE("words of other servers lead to choices that exist") {
  for (const ForeignValue& row : foreign_values()) {
    const std::vector<std::string> choices = words_of(row.choices);
    size_t hits = 0;
    for (const Section& part : schema()) {
      for (const Setting& setting : part.settings) {
        const auto keys = words_of(row.keys);
        const auto known = words_of(setting.choices);
        if (std::ranges::find(keys, setting.key) == keys.end()) continue;
        if (std::ranges::find(known, choices.front()) == known.end()) continue;
        for (const std::string& choice : choices) {
          CHECK(std::ranges::find(known, choice) != known.end());
        }
        for (const std::string& name : words_of(row.names)) {
          INFO(part.name << "." << setting.key << ": " << name);
          const std::string line = std::string(setting.key) + " = \"" + name + "\"";
          CHECK(said_after(within(part.name, line), "not \"" + name + "\"; did you mean ") ==
                any_of(choices) + std::string(row.remark) + "?");
          ++hits;
        }
      }
    }
    INFO(row.names);
    CHECK(hits > 0);
  }
}

TEST_CASE("what people of other servers read") {
  const auto said = [](const std::string& text) {
    return only_error("[upstream.a]\nservers = \"b:1\"\n" + text);
  };
  CHECK(said("lb_policy = \"x\"") ==
        "weir.toml:3:1: upstream.a.lb_policy: unknown key; did you mean \"balance\"?");
  CHECK(said("fall = 3") ==
        "weir.toml:3:1: upstream.a.fall: unknown key; did you mean \"unhealthy_threshold\" in "
        "[upstream.NAME.health_check]?");
  CHECK(said("outlierDetection = {}") ==
        "weir.toml:3:1: upstream.a.outlierDetection: unknown key; did you mean "
        "[upstream.NAME.passive_check]?");
  CHECK(said("insecureSkipVerify = true") ==
        "weir.toml:3:1: upstream.a.insecureSkipVerify: unknown key; did you mean \"tls_verify\", "
        "with the opposite meaning?");
  CHECK(said("[upstream.a.health_check]\nfall = 3") ==
        "weir.toml:4:1: upstream.a.health_check.fall: unknown key; did you mean "
        "\"unhealthy_threshold\"?");
  CHECK(only_error("[upstream_defaults]\nmax-fails = 3") ==
        "weir.toml:2:1: upstream_defaults.max-fails: unknown key; did you mean "
        "\"consecutive_errors\" in [upstream_defaults.passive_check]?");
  CHECK(only_error("[upstream_defaults]\nproxy_connect_timeout = 3") ==
        "weir.toml:2:1: upstream_defaults.proxy_connect_timeout: unknown key; did you mean "
        "\"connect_timeout\"?");
  // Only [upstream.NAME] has these two.
  CHECK(only_error("[upstream_defaults]\nsni = \"x\"") ==
        "weir.toml:2:1: upstream_defaults.sni: unknown key; did you mean \"tls_server_name\" in "
        "[upstream.NAME]?");
  CHECK(only_error("[upstream.a]\nservers = [{address = \"b:1\", fail_timeout = 3}]") ==
        "weir.toml:2:30: upstream.a.servers[0].fail_timeout: unknown key; did you mean "
        "\"ejection_time\" or \"window\" in [upstream.NAME.passive_check]?");
  CHECK(only_error("[[route]]\nrespond = {}\nproxy_pass = \"http://b\"") ==
        "weir.toml:3:1: route[0].proxy_pass: unknown key; did you mean \"proxy\"?");
  CHECK(only_error("worker_processes = 4") ==
        "weir.toml:1:1: worker_processes: unknown key; did you mean \"threads\" in [server]?");
  CHECK(said("balance = \"uri\"")
            .ends_with("not \"uri\"; did you mean \"consistent_hash\" with "
                       "hash_key = \"uri\"?"));
  // "type" is a choice of other words here.
  CHECK(only_error("[health_check]\ntype = \"maglev\"").ends_with("not \"maglev\""));
  // weir's own key, and a misspelled one of it, go first.
  CHECK(said("slowStart = 1").ends_with("did you mean \"slow_start\"?"));
  CHECK(load_text(completed("[upstream_defaults]\nretries = 1")).ok());
}

TEST_CASE("values that lack their quotes") {
  const auto said = [](const std::string& text) {
    const LoadResult result = load_text(text);
    return result.errors.size() == 1 ? result.errors[0].to_string() : "";
  };
  CHECK(said("[health_check]\ninterval = 5s") ==
        "weir.toml:2:13: TOML: error while parsing decimal integer: expected digit, saw 's'; "
        "durations and sizes are written in quotes: \"5s\"");
  const std::string own = "; durations and sizes are written in quotes: ";
  for (const char* value : {"300ms", "5m", "1h", "1d", "0s", "64KiB", "10MB", "512B", "5 s"}) {
    const std::string end = own + "\"" + value + "\"";
    INFO(value);
    const std::string bare = value;
    CHECK(said("a = " + bare).ends_with(end));
    CHECK(said("a=" + bare + "\r\n").ends_with(end));
    CHECK(said("a = " + bare + "# x = \"1s\"").ends_with(end));
    CHECK(said("a = {b = \"1s\", c = " + bare + ", d = 2s}").ends_with(end));
    CHECK(said("a = [1, " + bare + "]\n").ends_with(end));
    CHECK(said("\"\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\" = " + bare).ends_with(end));
  }
  const std::string general =
      "; durations and sizes are written in quotes, such as \"500ms\", \"5s\" or \"64KiB\"";
  for (const char* value : {"5sec", "1.5s", "10K", "64k", "1_000ms", "20us", "2weeks"}) {
    INFO(value);
    CHECK(said("a = " + std::string(value)).ends_with(general));
  }
  for (const char* value : {"round_robin", "leastconn", "/var/log/x", "10.0.0.1:80", "off"}) {
    INFO(value);
    CHECK(said("a = " + std::string(value) + "\n")
              .ends_with("; text is written in quotes: \"" + std::string(value) + "\""));
  }
}

TEST_CASE("syntax errors about other things say nothing of quotes") {
  for (const char* text : {"a = ",
                           "a = 1e",
                           "a = 0x1G",
                           "a = 0b12",
                           "a = -",
                           "a = 5 # 5s\nb = = 1",
                           "a = \"b, 5s",
                           "a = 'b, 5s",
                           "a = \"5s\" 5s",
                           "a 5s",
                           "[5s",
                           "a = 2020-13-01",
                           "a = 1\na = 2",
                           "a = true\na = true",
                           "a = b c",
                           "a = \"\"\"\nx = 5s \\q\"\"\"",
                           "a = {b = 1",
                           "a = [1, 2",
                           "5s",
                           "a = 10%",
                           "a = 5xx",
                           "a = 99999999999999999999"}) {
    INFO(text);
    const LoadResult result = load_text(text);
    REQUIRE(result.errors.size() == 1);
    CHECK(result.errors[0].to_string().find("TOML: ") != std::string::npos);
    CHECK(result.errors[0].to_string().find("quotes") == std::string::npos);
  }
  // The place lies behind the end of the text, or far along a line.
  CHECK_FALSE(load_text("a = [" + std::string(200'000, ' ') + "5s").ok());
  CHECK_FALSE(load_text("a = " + std::string(200'000, '5') + "s").ok());
}
