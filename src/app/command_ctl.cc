// weir ctl: one question or order to a running weir over its Unix socket. The answer is weir's own
// text or JSON (docs/CTL.md); nothing of it is interpreted here but whether it is whole and good.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <expected>
#include <string>
#include <string_view>

#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <weir/base/ip.h>
#include <weir/base/text.h>
#include <weir/control/config/load.h>
#include <weir/control/control_socket.h>

#include "cli.h"

namespace weir::app {

namespace {

constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kWrongWords = 2;
// A reload may take its time; silence for longer than this is a weir that hangs.
constexpr time_t kSilenceS = 60;

using Text = std::expected<std::string, std::string>;

std::unexpected<std::string> failed(const std::string& what) {
  return std::unexpected(what + ": " + std::strerror(errno));
}

Text socket_of_file(const std::string& file) {
  const auto loaded = control::config::load_config(file);
  // A file with errors somewhere else still says where the socket is.
  if (!loaded.config.control.socket.empty()) return loaded.config.control.socket;
  std::string text;
  for (const auto& error : loaded.errors) text += error.to_string() + '\n';
  if (!text.empty()) return std::unexpected(text + "weir: use --socket PATH, or correct the file");
  return std::unexpected(
      "weir: " + file +
      " names no socket for ctl: add\n\n  [control]\n  socket = "
      "\"/run/weir/control.sock\"\n\nand start weir again, or use --socket PATH");
}

// The words as the other side splits them.
Text request_of(const Arguments& arguments) {
  std::string line = arguments.json ? "json" : "text";
  for (const std::string& word : arguments.words) {
    const bool plain = !word.empty() && word.find_first_of(" \"") == std::string::npos;
    line += plain ? " " : " \"";
    for (const char c : word) {
      if (c == '\n') return std::unexpected("a word cannot hold a line break");
      if (!plain && (c == '"' || c == '\\')) line += '\\';
      line += c;
    }
    if (!plain) line += '"';
  }
  return line + '\n';
}

std::string explain_connect(const std::string& path, int error) {
  switch (error) {
    case ENOENT:
      return "there is no socket " + path +
             ": weir does not run, or runs without [control] socket, or with another one";
    case ECONNREFUSED: return "nobody listens on " + path + ": weir has ended without removing it";
    case EACCES:
    case EPERM:
      return "no permission to use " + path +
             ": be the user that weir runs as, or root, or give more to others by [control] "
             "socket_mode";
    case EAGAIN: return path + " is busy: too many wait there already";
    default: return "cannot connect to " + path + ": " + std::strerror(error);
  }
}

class Connection {
 public:
  Connection() noexcept : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const timeval silence{.tv_sec = kSilenceS, .tv_usec = 0};
    for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO}) {
      ::setsockopt(fd_, SOL_SOCKET, option, &silence, sizeof silence);
    }
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() {
    if (fd_ >= 0) ::close(fd_);
  }

  Text ask(const std::string& path, std::string_view request) const {
    const auto address = base::SocketAddress::parse("unix:" + path);
    if (!address) return std::unexpected(path + " is too long for a socket");
    if (fd_ < 0) return failed("cannot open a socket");
    if (::connect(fd_, &address->base, address->length) != 0) {
      return std::unexpected(explain_connect(path, errno));
    }
    while (!request.empty()) {
      const ssize_t sent = ::send(fd_, request.data(), request.size(), MSG_NOSIGNAL);
      // It may have answered already, and be gone: the answer tells.
      if (sent < 0 && errno == EPIPE) break;
      if (sent < 0 && errno != EINTR) return failed("cannot send to " + path);
      if (sent > 0) request.remove_prefix(static_cast<size_t>(sent));
    }
    std::string answer;
    char block[16'384];
    while (true) {
      const ssize_t got = ::recv(fd_, block, sizeof block, 0);
      if (got > 0) answer.append(block, static_cast<size_t>(got));
      if (got == 0 || (got < 0 && errno == ECONNRESET)) return answer;
      if (got < 0 && errno == EAGAIN) return std::unexpected(path + " does not answer");
      if (got < 0 && errno != EINTR) return failed("cannot read from " + path);
    }
  }

 private:
  int fd_;
};

void print(std::FILE* file, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), file);
}

int not_whole() {
  print(stderr, "weir: the answer ends in the middle\n");
  return kFailed;
}

// One line; what follows "ok" decides.
int show_json(std::string_view answer) {
  if (!answer.ends_with('\n')) return not_whole();
  print(stdout, answer);
  if (answer.starts_with(R"({"ok":true)")) return kDone;
  return answer.starts_with(R"({"ok":false,"kind":"usage")") ? kWrongWords : kFailed;
}

// "ok 123", and so many bytes.
int show_text(std::string_view answer) {
  const size_t line = answer.find('\n');
  const size_t space = answer.find(' ');
  if (line == std::string_view::npos || space > line) return not_whole();
  const std::string_view status = answer.substr(0, space);
  const auto bytes = base::parse_decimal(answer.substr(space + 1, line - space - 1));
  const std::string_view body = answer.substr(line + 1);
  if (!bytes || body.size() != *bytes) return not_whole();
  if (status == "ok") {
    print(stdout, body);
    return kDone;
  }
  print(stderr, "weir: ");
  print(stderr, body);
  if (status != "usage") return kFailed;
  print(stderr, "Try: weir ctl help\n");
  return kWrongWords;
}

}  // namespace

int command_control(const Arguments& arguments) {
  if (arguments.words.size() == 1 && arguments.words[0] == "help") {
    const std::string answer = control::control_help(arguments.json);
    return arguments.json ? show_json(answer) : show_text(answer);
  }
  const Text path =
      arguments.socket.empty() ? socket_of_file(arguments.file) : Text(arguments.socket);
  if (!path) {
    std::fprintf(stderr, "%s\n", path.error().c_str());
    return kFailed;
  }
  const Text request = request_of(arguments);
  const Text answer = request ? Connection().ask(*path, *request) : request;
  if (!answer) {
    std::fprintf(stderr, "weir: %s\n", answer.error().c_str());
    return request ? kFailed : kWrongWords;
  }
  const int status = arguments.json ? show_json(*answer) : show_text(*answer);
  // A full disk or a closed pipe behind us.
  return std::fflush(stdout) == 0 ? status : kFailed;
}

}  // namespace weir::app
