#include "control_commands.h"

#include <algorithm>
#include <vector>

#include <unistd.h>

#include <weir/base/check.h>
#include <weir/base/text.h>
#include <weir/upstream/balance_server.h>

#include "json_writer.h"

namespace weir::control {

using Command = ControlRequest::Command;
using route::ServerState;
using Words = std::vector<std::string>;

namespace {

constexpr std::string_view kHelp =
    R"(upstreams                          each upstream: its servers, load, retries, latency
servers [UPSTREAM]                 each server: state and why, weight, load, checks
set UPSTREAM SERVER up|drain|down  down: no requests; drain: none but sticky sessions'
weight UPSTREAM SERVER N           0 to 1000000; until the configuration has another
reload                             read the configuration again
version                            of the weir that answers
help                               this
)";

std::expected<Words, std::string> split(std::string_view line) {
  Words words;
  for (size_t i = 0; i < line.size();) {
    if (line[i] == ' ') {
      ++i;
      continue;
    }
    std::string& word = words.emplace_back();
    if (line[i] != '"') {
      for (; i < line.size() && line[i] != ' '; ++i) word += line[i];
      continue;
    }
    for (++i; i < line.size() && line[i] != '"'; ++i) {
      if (line[i] == '\\' && i + 1 < line.size()) ++i;
      word += line[i];
    }
    if (i == line.size()) return std::unexpected("a quote has no end");
    ++i;
    if (i < line.size() && line[i] != ' ') return std::unexpected("a quote ends within a word");
  }
  return words;
}

struct Syntax {
  std::string_view name;
  Command command;
  size_t words_min;  // behind the command
  size_t words_max;
  std::string_view usage;
};
constexpr Syntax kSyntax[] = {
    {"upstreams", Command::kUpstreams, 0, 0, ""},
    {"servers", Command::kServers, 0, 1, " [UPSTREAM]"},
    {"set", Command::kSet, 3, 3, " UPSTREAM SERVER up|drain|down"},
    {"weight", Command::kWeight, 3, 3, " UPSTREAM SERVER N"},
    {"version", Command::kVersion, 0, 0, ""},
    {"reload", Command::kReload, 0, 0, ""},
    {"help", Command::kHelp, 0, 0, ""},
};

// The third word of `set` and `weight`; the error is a sentence.
std::expected<void, std::string> take_value(const std::string& word, ControlRequest& request) {
  if (request.command == Command::kWeight) {
    const auto weight = base::parse_decimal(word);
    constexpr uint64_t kMost = upstream::BalancedServer::kWeightMax;
    if (!weight || *weight > kMost) {
      return std::unexpected("a weight is a number from 0 to " + std::to_string(kMost) +
                             ", not \"" + word + "\"");
    }
    request.weight = static_cast<uint32_t>(*weight);
    return {};
  }
  if (word == "up") {
    request.state = ServerState::kUp;
  } else if (word == "drain" || word == "draining") {
    request.state = ServerState::kDraining;
  } else if (word == "down") {
    request.state = ServerState::kDown;
  } else {
    return std::unexpected("a server is set to up, drain or down, not \"" + word + "\"");
  }
  return {};
}

std::expected<void, std::string> take_words(const Words& words, ControlRequest& request) {
  if (words.size() < 2) return std::unexpected("a command is missing; \"help\" lists them");
  const auto* const syntax = std::ranges::find(kSyntax, std::string_view(words[1]), &Syntax::name);
  if (syntax == std::end(kSyntax)) {
    return std::unexpected("there is no command \"" + words[1] + "\"; \"help\" lists them");
  }
  const size_t more = words.size() - 2;
  if (more < syntax->words_min || more > syntax->words_max) {
    return std::unexpected("it is: " + std::string(syntax->name) + std::string(syntax->usage));
  }
  request.command = syntax->command;
  if (more > 0) request.upstream = words[2];
  if (more > 1) request.server = words[3];
  return more > 2 ? take_value(words[4], request) : std::expected<void, std::string>{};
}

bool has_controls(std::string_view line) noexcept {
  return std::ranges::any_of(
      line, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

// What `set` and `weight` have in common; the order was carried out.
std::string confirm(const ControlRequest& request, const ControlHooks& hooks) {
  const bool weighing = request.command == Command::kWeight;
  uint64_t up = 0;
  for (const ServerView& view : hooks.servers()) {
    up += view.upstream == request.upstream && view.state == ServerState::kUp && view.resolved &&
          view.weight != 0;
  }
  if (request.format == ControlFormat::kJson) {
    JsonWriter json;
    json.begin_object().field("ok", true).field("upstream", request.upstream);
    json.field("server", request.server);
    if (weighing) {
      json.field("weight", request.weight);
    } else {
      json.field("set", word_of(request.state));
    }
    json.field("servers_up", up).end_object();
    return json.out() + '\n';
  }
  std::string text;
  append_plain_text(text, request.server);
  text += " of ";
  append_plain_text(text, request.upstream);
  text += weighing ? ": weight " + std::to_string(request.weight)
                   : ": " + std::string(word_of(request.state));
  text += '\n';
  if (up == 0) {
    text += "note: no server of ";
    append_plain_text(text, request.upstream);
    text += " is up now\n";
  }
  return render_text("ok", text);
}

std::string tell_version(const ControlRequest& request, const ControlHooks& hooks) {
  const auto pid = static_cast<uint64_t>(::getpid());
  const bool draining = hooks.draining && hooks.draining();
  if (request.format == ControlFormat::kText) {
    return render_text("ok", "weir " WEIR_VERSION ", process " + std::to_string(pid) +
                                 (draining ? ", shutting down\n" : "\n"));
  }
  JsonWriter json;
  json.begin_object().field("ok", true).field("version", WEIR_VERSION).field("pid", pid);
  json.field("draining", draining);
  return json.end_object().out() + '\n';
}

std::string help(const ControlRequest& request) {
  if (request.format == ControlFormat::kText) return render_text("ok", kHelp);
  JsonWriter json;
  json.begin_object().field("ok", true).key("commands").begin_array();
  for (const Syntax& one : kSyntax) json.text(std::string(one.name) + std::string(one.usage));
  return json.end_array().end_object().out() + '\n';
}

}  // namespace

std::string control_help(bool json) {
  return help({.format = json ? ControlFormat::kJson : ControlFormat::kText});
}

ControlFormat control_format_of(std::string_view line) noexcept {
  return line.starts_with("json ") || line == "json" ? ControlFormat::kJson : ControlFormat::kText;
}

std::expected<ControlRequest, ControlRefusal> parse_control_request(std::string_view line) {
  ControlRequest request{.format = control_format_of(base::trim(line))};
  const auto refuse = [&](std::string text) {
    return std::unexpected(ControlRefusal{request.format, std::move(text)});
  };
  if (has_controls(line)) return refuse("a request has no control characters");
  const auto words = split(line);
  if (!words) return refuse(words.error());
  if (words->empty() || (words->front() != "text" && words->front() != "json")) {
    return refuse("a request begins with \"text\" or \"json\": the format of its answer");
  }
  if (auto taken = take_words(*words, request); !taken) return refuse(taken.error());
  return request;
}

std::string render_text(std::string_view status, std::string_view body) {
  std::string out(status);
  out.append(" ").append(std::to_string(body.size())).append("\n").append(body);
  return out;
}

std::string render_failure(ControlFormat format, ControlFailure kind, std::string_view text) {
  const std::string_view word = kind == ControlFailure::kUsage ? "usage" : "failed";
  if (format == ControlFormat::kJson) {
    JsonWriter json;
    json.begin_object().field("ok", false).field("kind", word).field("error", text).end_object();
    return json.out() + '\n';
  }
  std::string body;
  append_plain_text(body, text);
  return render_text(word, body + '\n');
}

std::string render_reload(ControlFormat format,
                          const std::expected<uint64_t, std::string>& generation) {
  if (!generation) return render_failure(format, ControlFailure::kFailed, generation.error());
  if (format == ControlFormat::kText) {
    return render_text("ok", "reloaded: generation " + std::to_string(*generation) + "\n");
  }
  JsonWriter json;
  json.begin_object().field("ok", true).field("generation", *generation).end_object();
  return json.out() + '\n';
}

std::string execute_control_request(const ControlRequest& request, const ControlHooks& hooks) {
  WEIR_CHECK(!request.wants_numbers() && request.command != Command::kReload);
  std::expected<void, std::string> done;
  switch (request.command) {
    case Command::kVersion: return tell_version(request, hooks);
    case Command::kReload:
    case Command::kUpstreams:
    case Command::kServers:
    case Command::kHelp: return help(request);
    case Command::kSet:
      done = hooks.set_state(request.upstream, request.server, request.state);
      break;
    case Command::kWeight:
      done = hooks.set_weight(request.upstream, request.server, request.weight);
      break;
  }
  if (!done) return render_failure(request.format, ControlFailure::kFailed, done.error());
  return confirm(request, hooks);
}

std::string_view word_of(ServerState state) noexcept {
  switch (state) {
    case ServerState::kUp: return "up";
    case ServerState::kDraining: return "draining";
    case ServerState::kDown: return "down";
    case ServerState::kEjected: return "ejected";
  }
  return "unknown";
}

std::string human_duration(uint64_t microseconds) {
  const auto tenths = [](uint64_t value, uint64_t unit, const char* name) {
    const uint64_t whole = value / (unit / 10);
    std::string text = std::to_string(whole / 10);
    if (whole % 10 != 0) text.append(".").append(std::to_string(whole % 10));
    return text + name;
  };
  const auto pair = [](uint64_t high, const char* high_name, uint64_t low, const char* low_name) {
    return std::to_string(high) + high_name + (low < 10 ? "0" : "") + std::to_string(low) +
           low_name;
  };
  constexpr uint64_t kMillisecond = 1'000;
  constexpr uint64_t kSecond = 1'000'000;
  if (microseconds < kMillisecond) return std::to_string(microseconds) + "us";
  if (microseconds < kSecond) return tenths(microseconds, kMillisecond, "ms");
  const uint64_t seconds = microseconds / kSecond;
  if (seconds < 60) return tenths(microseconds, kSecond, "s");
  const uint64_t minutes = seconds / 60;
  if (minutes < 60) return pair(minutes, "m", seconds % 60, "s");
  const uint64_t hours = minutes / 60;
  if (hours < 24) return pair(hours, "h", minutes % 60, "m");
  return pair(hours / 24, "d", hours % 24, "h");
}

}  // namespace weir::control
