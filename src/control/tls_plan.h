// What the parts of TlsState share: sentences with a place, and the question whether files are
// still the same. Private to control.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <weir/control/config/config.h>
#include <weir/control/file_fingerprint.h>

namespace weir::control {

// "FILE:LINE: text".
std::string sentence(const config::Config& config, config::Place place, std::string_view text);
// Where the file gives a key, "tls.client_ca_path"; else `otherwise`.
config::Place place_of(const config::Config& config, std::string_view key, config::Place otherwise);

// Out of `all`.
FileFingerprints select_files(const FileFingerprints& all, const std::vector<std::string>& paths);
// The same names, and none changed.
bool same_files(const FileFingerprints& before, const FileFingerprints& now);

// Adds a value to the text that stands for a group of settings.
inline void add_setting(std::string& text, std::string_view value) {
  text += std::to_string(value.size());
  text += ':';
  text += value;
}
inline void add_setting(std::string& text, uint64_t value) {
  add_setting(text, std::to_string(value));
}

}  // namespace weir::control
