// What the tests of the configuration share: loading a text with a made-up environment.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <weir/control/config/load.h>

namespace weir::control::config::test {

inline std::optional<std::string> environment(std::string_view name) {
  if (name == "PORT") return "8081";
  if (name == "HOST") return "env.example.com";
  if (name == "COUNT") return "55";
  if (name == "FLAG") return "true";
  if (name == "EMPTY") return "";
  if (name == "LINES") return "a\r\nb";
  return std::nullopt;
}

inline LoadResult load_text(std::string_view text) {
  return parse_config(text, "weir.toml", environment);
}

// What a text lacks to be a whole configuration, put behind it so that its line numbers stay.
inline std::string completed(std::string_view text) {
  return std::string(text) + "\n[[listener]]\naddress = \"127.0.0.1:59999\"\n" +
         "[[route]]\nhost = \"completed.test\"\nrespond = {}\n";
}

inline std::vector<std::string> lines_of(const std::vector<Diagnostic>& diagnostics) {
  std::vector<std::string> lines;
  for (const Diagnostic& diagnostic : diagnostics) lines.push_back(diagnostic.to_string());
  return lines;
}

inline std::vector<std::string> errors_of(std::string_view text) {
  return lines_of(load_text(completed(text)).errors);
}

}  // namespace weir::control::config::test
