// The words of `weir ctl` and the answers to them: pure but for what the hooks do. Private to the
// control room; the control thread calls it.
//
// An answer in text begins with a line "ok BYTES", "usage BYTES" (the words were wrong) or
// "failed BYTES", behind which so many bytes follow. One in JSON is one line: an object whose first
// member is "ok", which an "error" and its "kind" ("usage" or "failed") follow when it is false.
#pragma once

#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <string_view>

#include <weir/control/control_socket.h>

namespace weir::control {

enum class ControlFormat : uint8_t { kText, kJson };

struct ControlRequest {
  enum class Command : uint8_t {
    kUpstreams,
    kServers,  // upstream; empty: of all
    kSet,      // upstream, server, state
    kWeight,   // upstream, server, weight
    kVersion,
    kReload,
    kHelp,
  };
  Command command = Command::kHelp;
  ControlFormat format = ControlFormat::kText;
  std::string upstream{};
  std::string server{};
  route::ServerState state = route::ServerState::kUp;
  uint32_t weight = 0;

  // The numbers of the cores belong to the answer.
  [[nodiscard]] bool wants_numbers() const noexcept {
    return command == Command::kUpstreams || command == Command::kServers;
  }
};

enum class ControlFailure : uint8_t { kUsage, kFailed };

struct ControlRefusal {
  ControlFormat format = ControlFormat::kText;
  std::string text;  // a sentence
};

// `line` is without its end. Words are separated by spaces; one in double quotes may hold spaces,
// and in it a backslash takes the next character as it is.
std::expected<ControlRequest, ControlRefusal> parse_control_request(std::string_view line);
// Which format somebody wants whose request cannot be read whole.
ControlFormat control_format_of(std::string_view line) noexcept;

std::string render_failure(ControlFormat format, ControlFailure kind, std::string_view text);
std::string render_text(std::string_view status, std::string_view body);

// `generation`: as ControlSocket::on_reloaded() has it.
std::string render_reload(ControlFormat format,
                          const std::expected<uint64_t, std::string>& generation);

// Those that can be answered at once: all but kReload and those that want numbers.
std::string execute_control_request(const ControlRequest& request, const ControlHooks& hooks);

struct ControlFacts {
  std::span<const ServerView> servers;
  std::span<const upstream::UpstreamScrape> cores;
  uint64_t now_ms = 0;  // Reactor::now_ms()
};
// Those that do (control_report.cc).
std::string report_on_upstreams(const ControlRequest& request, const ControlFacts& facts);

std::string_view word_of(route::ServerState state) noexcept;
// "850us", "12.3ms", "4.2s", "12m05s", "3h20m", "4d03h".
std::string human_duration(uint64_t microseconds);

}  // namespace weir::control
