// The command line: what was asked for, as values. No I/O here.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weir::app {

inline constexpr std::string_view kDefaultPath = "/etc/weir/weir.toml";

struct Arguments {
  enum class Command { kRun, kCheck, kExplain, kReference, kSelfSigned, kControl, kVersion, kHelp };
  Command command = Command::kHelp;
  std::string file{kDefaultPath};
  bool file_given = false;
  // explain
  std::string method;
  std::string url;
  std::string client;  // an IP address; empty: 127.0.0.1
  std::vector<std::pair<std::string, std::string>> headers;
  // cert self-signed
  std::vector<std::string> hosts;  // empty: this machine's loopback
  uint32_t days = 365;
  std::string folder{"."};
  bool rsa = false;
  bool force = false;
  // ctl
  std::string socket;              // empty: that of `file`
  bool json = false;               //
  std::vector<std::string> words;  // to be sent
};

// The error is a sentence for people.
std::expected<Arguments, std::string> parse_arguments(const std::vector<std::string>& words);
std::string_view help_text() noexcept;

int command_run(const Arguments& arguments);
int command_check(const Arguments& arguments);
int command_explain(const Arguments& arguments);
int command_self_signed(const Arguments& arguments);
int command_control(const Arguments& arguments);

}  // namespace weir::app
