#include "cli.h"

#include <charconv>

#include <weir/base/ip.h>
#include <weir/base/text.h>

namespace weir::app {

std::string_view help_text() noexcept {
  return R"(weir - an edge reverse proxy

usage:
  weir run [-c FILE]        serve, in the foreground
  weir check [-c FILE]      say everything that is wrong with a configuration
  weir explain [-c FILE] METHOD URL [-H 'Name: value']... [--client IP]
                            which route a request gets, where it goes, and why
  weir config-reference     all settings, as Markdown (this is docs/CONFIG.md)
  weir cert self-signed [--host NAME]... [--days N] [--out DIR] [--rsa]
                        [--force]
                            a certificate for a trial, and how to use it
  weir ctl [--socket PATH | -c FILE] [--json] COMMAND...
                            looks into a running weir and gives it orders:
                            upstreams, servers, set, weight, reload, version,
                            help; PATH is [control] socket of FILE by default
  weir --version            version, build options, what this kernel offers
  weir --help

FILE is /etc/weir/weir.toml unless -c (--config) names another. A smallest one:

  [[listener]]
  address = "0.0.0.0:8080"

  [[route]]
  proxy = "http://127.0.0.1:3000"

signals to a running weir:
  SIGHUP   reload the configuration (saving the file does the same)
  SIGTERM  stop accepting, finish what is under way, end (SIGINT too)
  SIGQUIT  end at once
  SIGUSR1  open the log files again
  SIGUSR2  write the counters to the log

exit status: 0 ended as asked, 1 could not start or go on, 2 wrong command line
)";
}

namespace {

bool take_header(Arguments& arguments, std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == 0 || colon == std::string_view::npos) return false;
  arguments.headers.emplace_back(text.substr(0, colon), base::trim(text.substr(colon + 1)));
  return true;
}

// Options with a value: "-c FILE", "--config=FILE".
struct Option {
  bool matched = false;
  std::string value;
  std::string error;
};

Option match_option(const std::vector<std::string>& words, size_t& i, std::string_view short_name,
                    std::string_view long_name) {
  const std::string_view word = words[i];
  Option option;
  if (word == short_name || word == long_name) {
    option.matched = true;
    if (i + 1 >= words.size()) {
      option.error = std::string(word) + " wants a value";
    } else {
      option.value = words[++i];
    }
  } else if (word.starts_with(long_name) && word.size() > long_name.size() &&
             word[long_name.size()] == '=') {
    option.matched = true;
    option.value = word.substr(long_name.size() + 1);
  }
  return option;
}

std::expected<void, std::string> parse_rest(const std::vector<std::string>& words,
                                            Arguments& arguments) {
  const bool explaining = arguments.command == Arguments::Command::kExplain;
  for (size_t i = 1; i < words.size(); ++i) {
    if (Option file = match_option(words, i, "-c", "--config"); file.matched) {
      if (!file.error.empty()) return std::unexpected(file.error);
      if (file.value.empty()) return std::unexpected("-c wants the name of a file");
      arguments.file = file.value;
      arguments.file_given = true;
      continue;
    }
    if (words[i] == "--help" || words[i] == "-h") {
      arguments.command = Arguments::Command::kHelp;
      return {};
    }
    if (!explaining) return std::unexpected("unexpected \"" + words[i] + "\"");
    if (Option header = match_option(words, i, "-H", "--header"); header.matched) {
      if (!header.error.empty()) return std::unexpected(header.error);
      if (!take_header(arguments, header.value)) {
        return std::unexpected("-H wants 'Name: value', not \"" + header.value + "\"");
      }
      continue;
    }
    if (Option client = match_option(words, i, "--client", "--client"); client.matched) {
      if (!client.error.empty()) return std::unexpected(client.error);
      if (!base::IpAddress::parse(client.value)) {
        return std::unexpected("--client wants an IP address, not \"" + client.value + "\"");
      }
      arguments.client = client.value;
      continue;
    }
    if (!words[i].starts_with('-') && arguments.url.empty()) {
      (arguments.method.empty() ? arguments.method : arguments.url) = words[i];
      continue;
    }
    return std::unexpected("unexpected \"" + words[i] + "\"");
  }
  if (explaining && arguments.url.empty()) return std::unexpected("explain wants METHOD and URL");
  return {};
}

std::expected<void, std::string> parse_days(std::string_view text, Arguments& arguments) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), arguments.days);
  if (error == std::errc() && end == text.data() + text.size() && arguments.days != 0) return {};
  return std::unexpected("--days wants a number of days, not \"" + std::string(text) + "\"");
}

std::expected<void, std::string> parse_cert(const std::vector<std::string>& words,
                                            Arguments& arguments) {
  arguments.command = Arguments::Command::kSelfSigned;
  for (size_t i = 1; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "--help" || word == "-h") {
      arguments.command = Arguments::Command::kHelp;
      return {};
    }
    if (i == 1) {
      if (word == "self-signed") continue;
      return std::unexpected("cert makes nothing but \"self-signed\", not \"" + word + "\"");
    }
    if (word == "--rsa" || word == "--force") {
      (word == "--rsa" ? arguments.rsa : arguments.force) = true;
      continue;
    }
    bool matched = false;
    for (const std::string_view name : {"--host", "--days", "--out"}) {
      Option option = match_option(words, i, name, name);
      if (!option.matched) continue;
      matched = true;
      if (!option.error.empty()) return std::unexpected(option.error);
      if (option.value.empty()) return std::unexpected(std::string(name) + " wants a value");
      if (name == "--host") arguments.hosts.push_back(option.value);
      if (name == "--out") arguments.folder = option.value;
      if (name == "--days") {
        if (auto days = parse_days(option.value, arguments); !days) return days;
      }
      break;
    }
    if (!matched) return std::unexpected("unexpected \"" + word + "\"");
  }
  if (words.size() < 2) return std::unexpected("cert wants \"self-signed\" behind it");
  return {};
}

// Options may stand anywhere; behind "--" all are words.
std::expected<void, std::string> parse_control(const std::vector<std::string>& words,
                                               Arguments& arguments) {
  arguments.command = Arguments::Command::kControl;
  bool only_words = false;
  for (size_t i = 1; i < words.size(); ++i) {
    if (only_words || !words[i].starts_with('-')) {
      arguments.words.push_back(words[i]);
      continue;
    }
    if (words[i] == "--help" || words[i] == "-h") {
      arguments.command = Arguments::Command::kHelp;
      return {};
    }
    if (words[i] == "--" || words[i] == "--json") {
      (words[i] == "--" ? only_words : arguments.json) = true;
      continue;
    }
    Option socket = match_option(words, i, "--socket", "--socket");
    Option file = socket.matched ? Option{} : match_option(words, i, "-c", "--config");
    if (!socket.matched && !file.matched) {
      return std::unexpected("unexpected \"" + words[i] + "\"");
    }
    for (const std::string& error : {socket.error, file.error}) {
      if (!error.empty()) return std::unexpected(error);
    }
    if ((socket.matched ? socket.value : file.value).empty()) {
      return std::unexpected(socket.matched ? "--socket wants a path"
                                            : "-c wants the name of a file");
    }
    if (socket.matched) {
      arguments.socket = socket.value;
    } else {
      arguments.file = file.value;
      arguments.file_given = true;
    }
  }
  if (arguments.words.empty()) return std::unexpected("ctl wants a command: weir ctl help");
  if (!arguments.socket.empty() && arguments.file_given) {
    return std::unexpected("ctl wants --socket or --config, not both");
  }
  return {};
}

}  // namespace

std::expected<Arguments, std::string> parse_arguments(const std::vector<std::string>& words) {
  using Command = Arguments::Command;
  Arguments arguments;
  if (words.empty()) return std::unexpected("a command is missing");
  const std::string& word = words[0];
  if (word == "--help" || word == "-h" || word == "help") return arguments;
  if (word == "--version" || word == "-V" || word == "version") {
    arguments.command = Command::kVersion;
    return arguments;
  }
  if (word == "cert") {
    if (auto rest = parse_cert(words, arguments); !rest) return std::unexpected(rest.error());
    return arguments;
  }
  if (word == "ctl") {
    if (auto rest = parse_control(words, arguments); !rest) return std::unexpected(rest.error());
    return arguments;
  }
  if (word == "run") {
    arguments.command = Command::kRun;
  } else if (word == "check") {
    arguments.command = Command::kCheck;
  } else if (word == "explain") {
    arguments.command = Command::kExplain;
  } else if (word == "config-reference") {
    arguments.command = Command::kReference;
  } else {
    return std::unexpected("there is no command \"" + word + "\"");
  }
  if (auto rest = parse_rest(words, arguments); !rest) return std::unexpected(rest.error());
  return arguments;
}

}  // namespace weir::app
