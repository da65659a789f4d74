#include <weir/control/control_socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <coroutine>
#include <cstring>
#include <optional>
#include <utility>

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <weir/base/check.h>
#include <weir/base/ip.h>

#include "control_commands.h"

namespace weir::control {

using net::ReadEvent;
using net::Transport;
using runtime::Task;

namespace {

constexpr int kBacklog = 64;
constexpr uint64_t kPauseMs = 50;
constexpr std::chrono::seconds kPredecessorWait{1};

std::unexpected<std::string> cannot_listen(const std::string& path, const std::string& why) {
  return std::unexpected("cannot listen on " + path + ": " + why);
}

enum class Owner : uint8_t { kAtWork, kDraining, kGone };

// Of the weir at the other end of a connection. Nobody else depends on this thread yet, so that it
// may wait.
Owner ask_owner(int fd) noexcept {
  constexpr std::string_view kQuestion = "json version\n";
  if (::send(fd, kQuestion.data(), kQuestion.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(kQuestion.size())) {
    return Owner::kGone;
  }
  using std::chrono::milliseconds;
  const auto until = std::chrono::steady_clock::now() + kPredecessorWait;
  std::array<char, 512> bytes;
  size_t used = 0;
  while (used < bytes.size()) {
    const auto left =
        std::chrono::ceil<milliseconds>(until - std::chrono::steady_clock::now()).count();
    pollfd wanted{.fd = fd, .events = POLLIN, .revents = 0};
    if (left <= 0 || ::poll(&wanted, 1, static_cast<int>(left)) != 1) break;
    const ssize_t got = ::recv(fd, bytes.data() + used, bytes.size() - used, 0);
    if (got <= 0) return Owner::kGone;
    used += static_cast<size_t>(got);
    if (bytes[used - 1] == '\n') break;
  }
  const std::string_view answer(bytes.data(), used);
  return answer.find(R"("draining":true)") == std::string_view::npos ? Owner::kAtWork
                                                                     : Owner::kDraining;
}

// A file that a process left which is gone would be in the way for ever; one on which somebody
// listens is another weir's, and a second one must not take its place, unless that one is ending.
std::expected<void, std::string> make_way(const std::string& path,
                                          const base::SocketAddress& address) {
  struct stat file;
  if (::lstat(path.c_str(), &file) != 0) return {};
  if (!S_ISSOCK(file.st_mode)) return cannot_listen(path, "there is a file that is no socket");
  int failure = 0;
  Owner owner = Owner::kGone;
  // One that goes while it is asked may not be gone altogether at once. (One that hangs is asked
  // once.)
  for (int tries = 0; tries < 3 && failure == 0 && owner == Owner::kGone; ++tries) {
    const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (probe < 0) return cannot_listen(path, std::strerror(errno));
    failure = ::connect(probe, &address.base, address.length) == 0 ? 0 : errno;
    if (failure == 0) owner = ask_owner(probe);
    ::close(probe);
  }
  if (failure == ENOENT) return {};
  if (failure == ECONNREFUSED || owner == Owner::kDraining) {
    if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
    return cannot_listen(path,
                         std::string("the old socket cannot be removed: ") + std::strerror(errno));
  }
  // EAGAIN: its backlog is full.
  if (failure == 0 || failure == EAGAIN) {
    return cannot_listen(path, "another process listens there; is it another weir?");
  }
  return cannot_listen(path, std::string("the old socket: ") + std::strerror(failure));
}

std::expected<int, std::string> listen_at(const std::string& path, uint32_t mode) {
  const auto address = base::SocketAddress::parse("unix:" + path);
  if (!address) return cannot_listen(path, "the path is too long for a socket");
  if (auto done = make_way(path, *address); !done) return std::unexpected(done.error());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return cannot_listen(path, std::strerror(errno));
  // The file has its permissions from the beginning, and no chmod(2) can be led astray by a link.
  const mode_t before = ::umask(static_cast<mode_t>(~mode & 0777));
  int failure = ::bind(fd, &address->base, address->length) == 0 ? 0 : errno;
  ::umask(before);
  if (failure == 0 && ::listen(fd, kBacklog) != 0) failure = errno;
  if (failure == 0) return fd;
  ::close(fd);
  return cannot_listen(path, failure == ENOENT ? "its directory does not exist"
                                               : std::string(std::strerror(failure)));
}

uint64_t user_of(int fd) noexcept {
  ucred peer{};
  socklen_t length = sizeof peer;
  return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 ? peer.uid : UINT32_MAX;
}

}  // namespace

// What was read of a request.
struct ControlSocket::Line {
  enum class End : uint8_t { kWhole, kBad, kGone };
  End end = End::kGone;
  std::string text;     // kBad: what there is
  std::string trouble;  // kBad
  bool more = false;    // bytes behind it
};

struct ControlSocket::Connection : base::ListNode {
  struct Deadline : runtime::Timer {
    explicit Deadline(Connection& owner) noexcept
        : Timer([](runtime::Timer& timer) noexcept {
            static_cast<Deadline&>(timer).connection.on_deadline();
          }),
          connection(owner) {}
    Connection& connection;
  };
  Connection(ControlSocket& owner, int fd)
      : socket(owner),
        transport(std::make_unique<Transport>(owner.reactor_, fd)),
        user(user_of(fd)),
        deadline(*this) {
    socket.connections_.push_back(*this);
    ++socket.count_;
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() {
    socket.reactor_.timers().disarm(deadline);
    unlink();
    --socket.count_;
  }
  void set_deadline(uint32_t ms) noexcept {
    socket.reactor_.timers().arm(deadline, socket.reactor_.now_ms() + ms);
  }
  // Of waiting for others, or of the answer as a whole; that of the request is the transport's.
  void on_deadline() noexcept {
    if (waiter) {
      wake();
    } else {
      transport->cancel_sends();
    }
  }
  void wake() noexcept { socket.reactor_.ready(std::exchange(waiter, {})); }
  void give_up() noexcept {
    transport->cancel_sends();
    transport->interrupt();
    if (waiter) wake();
  }

  ControlSocket& socket;
  std::unique_ptr<Transport> transport;
  uint64_t user;
  std::shared_ptr<Numbers> numbers;  // that it has asked for: under way or complete
  std::coroutine_handle<> waiter;    // for them, or for a reload
  bool wants_reload = false;
  std::optional<std::expected<uint64_t, std::string>> reloaded;
  Deadline deadline;
};

// co_await: until all cores have answered (true), or the connection's deadline or the end.
struct ControlSocket::NumbersWait {
  Connection& connection;

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) const {
    connection.waiter = handle;
    connection.socket.ask_cores();
  }
  [[nodiscard]] bool await_resume() const noexcept {
    return connection.numbers && connection.numbers->missing == 0;
  }
};

// co_await: until the configuration was taken or refused. Nothing: the deadline, or the end.
struct ControlSocket::ReloadWait {
  Connection& connection;

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) const {
    connection.waiter = handle;
    connection.wants_reload = true;
    auto begun = connection.socket.hooks_.reload();
    if (begun) return;
    connection.reloaded = std::unexpected(std::move(begun.error()));
    connection.wake();
  }
  [[nodiscard]] std::optional<std::expected<uint64_t, std::string>> await_resume() const {
    connection.wants_reload = false;
    return std::move(connection.reloaded);
  }
};

ControlSocket::Pause::Pause(ControlSocket& owner) noexcept
    : Timer([](Timer& timer) noexcept { static_cast<Pause&>(timer).socket.accept_next(); }),
      socket(owner) {}

std::expected<std::unique_ptr<ControlSocket>, std::string> ControlSocket::open(
    runtime::Reactor& reactor, log::Logger& logger, const ControlSocketOptions& options,
    ControlHooks hooks) {
  const auto fd = listen_at(options.path, options.mode);
  if (!fd) return std::unexpected(fd.error());
  return std::unique_ptr<ControlSocket>(
      new ControlSocket(reactor, logger, options, std::move(hooks), *fd));
}

ControlSocket::ControlSocket(runtime::Reactor& reactor, log::Logger& logger,
                             const ControlSocketOptions& options, ControlHooks hooks,
                             int fd) noexcept
    : reactor_(reactor),
      logger_(logger),
      options_(options),
      hooks_(std::move(hooks)),
      fd_(fd),
      accept_op_(*this),
      pause_(*this) {
  struct stat file;
  if (::lstat(options_.path.c_str(), &file) == 0) {
    device_ = file.st_dev;
    inode_ = file.st_ino;
  }
}

ControlSocket::~ControlSocket() {
  WEIR_CHECK(stopped());
  ::close(fd_);
}

std::expected<void, std::string> ControlSocket::give_to(uid_t user, gid_t group) {
  if (::lchown(options_.path.c_str(), user, group) == 0) return {};
  return std::unexpected("cannot give " + options_.path + " to the user: " + std::strerror(errno));
}

void ControlSocket::start(uint32_t cores) {
  cores_ = cores;
  accept_next();
}

void ControlSocket::stop() noexcept {
  if (stopping_) return;
  stopping_ = true;
  reactor_.timers().disarm(pause_);
  accept_op_.cancel(reactor_.ring());
  connections_.for_each([](Connection& connection) { connection.give_up(); });
  remove_file();
}

bool ControlSocket::stopped() const noexcept {
  return stopping_ && !accept_op_.in_flight() && tasks_.running() == 0;
}

void ControlSocket::remove_file() noexcept {
  struct stat file;
  const char* const path = options_.path.c_str();
  const bool ours = ::lstat(path, &file) == 0 && file.st_dev == device_ && file.st_ino == inode_;
  // A user without rights on the directory leaves the file; the next start clears it away.
  if (ours) ::unlink(path);
}

// ---- connections

void ControlSocket::accept_next() noexcept {
  if (stopping_ || accept_op_.in_flight() || pause_.armed() || count_ >= kConnectionsMax) return;
  io_uring_sqe* entry = reactor_.ring().sqe();
  io_uring_prep_accept(entry, fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  accept_op_.start(entry);
}

void ControlSocket::on_accept(runtime::Op& op, int32_t result, uint32_t) noexcept {
  ControlSocket& self = static_cast<AcceptOp&>(op).socket;
  if (self.stopping_) {
    if (result >= 0) self.reactor_.close_fd(result);
    return;
  }
  if (result >= 0) {
    self.tasks_.spawn(self.serve(std::make_unique<Connection>(self, result)));
  } else {
    // Descriptors or memory are short; who waits in the backlog can wait a little more.
    self.reactor_.timers().arm(self.pause_, self.reactor_.now_ms() + kPauseMs);
  }
  self.accept_next();
}

Task<> ControlSocket::serve(std::unique_ptr<Connection> connection) {
  const Line line = co_await read_line(*connection);
  std::string out;
  if (line.end == Line::End::kWhole) {
    out = co_await answer(*connection, line.text);
  } else if (line.end == Line::End::kBad) {
    out = render_failure(control_format_of(line.text), ControlFailure::kUsage, line.trouble);
  }
  if (!out.empty() && !stopping_) {
    connection->set_deadline(options_.answer_timeout_ms);
    iovec piece{out.data(), out.size()};
    const auto sent = co_await connection->transport->send(&piece, 1, options_.answer_timeout_ms);
    if (!sent) {
      WEIR_LOG(logger_, kDebug, "control", "an answer of ctl was not taken",
               {"error", sent.error().code}, {"bytes", out.size()});
    }
  }
  const bool all_read = line.end == Line::End::kGone || !line.more;
  Transport::dispose(std::move(connection->transport),
                     all_read || stopping_ ? net::Linger::kNo : net::Linger::kYes);
  connection.reset();
  accept_next();
}

Task<ControlSocket::Line> ControlSocket::read_line(Connection& connection) {
  Transport& transport = *connection.transport;
  Line line;
  if (stopping_) co_return line;
  // No buffer of the pool is held, and who sends and sends is not read.
  co_await transport.enter_direct_mode();
  const uint64_t deadline_ms = reactor_.now_ms() + options_.request_timeout_ms;
  std::string bytes(kRequestBytesMax + 1, '\0');
  size_t used = 0;
  while (true) {
    const ssize_t got = transport.recv_direct(bytes.data() + used, bytes.size() - used);
    if (got > 0) {
      used += static_cast<size_t>(got);
      const size_t end = std::string_view(bytes).substr(0, used).find('\n');
      if (end != std::string_view::npos) {
        line.end = Line::End::kWhole;
        line.more = end + 1 < used;
        line.text = bytes.substr(0, end > 0 && bytes[end - 1] == '\r' ? end - 1 : end);
        co_return line;
      }
      if (used < bytes.size()) continue;
      line.trouble = "a request has at most " + std::to_string(kRequestBytesMax) + " bytes";
    } else if (got == 0) {
      // Perhaps the sender died: the last word may not be the whole word.
      line.trouble = "the request has no end of line";
    } else if (got == -EAGAIN) {
      const ReadEvent event = co_await transport.readable(deadline_ms);
      if (event == ReadEvent::kInterrupted || stopping_) co_return line;
      if (event != ReadEvent::kTimeout) continue;
      line.trouble =
          "no whole request came within " + human_duration(options_.request_timeout_ms * 1'000ULL);
    } else {
      co_return line;
    }
    line.end = got == 0 && used == 0 ? Line::End::kGone : Line::End::kBad;
    line.more = got != 0;
    line.text = bytes.substr(0, used);
    co_return line;
  }
}

Task<std::string> ControlSocket::answer(Connection& connection, std::string_view line) {
  const auto request = parse_control_request(line);
  if (!request) {
    co_return render_failure(request.error().format, ControlFailure::kUsage, request.error().text);
  }
  if (!request->wants_numbers()) {
    const bool changes = request->command != ControlRequest::Command::kVersion &&
                         request->command != ControlRequest::Command::kHelp;
    const bool reload = request->command == ControlRequest::Command::kReload;
    std::string answer = reload ? co_await answer_reload(connection, *request)
                                : execute_control_request(*request, hooks_);
    const bool done = answer.starts_with("ok") || answer.starts_with(R"({"ok":true)");
    if (changes) {
      WEIR_LOG(logger_, kInfo, "control", "ordered by ctl", {"order", line},
               {"uid", connection.user}, {"done", done});
    }
    co_return answer;
  }
  connection.set_deadline(options_.numbers_timeout_ms);
  const bool complete = co_await NumbersWait{connection};
  reactor_.timers().disarm(connection.deadline);
  if (stopping_) co_return std::string();
  if (!complete) {
    connection.numbers.reset();
    co_return render_failure(request->format, ControlFailure::kFailed, missing_cores());
  }
  const std::vector<ServerView> servers = hooks_.servers();
  co_return report_on_upstreams(
      *request,
      {.servers = servers, .cores = connection.numbers->cores, .now_ms = reactor_.now_ms()});
}

Task<std::string> ControlSocket::answer_reload(Connection& connection,
                                               const ControlRequest& request) {
  connection.set_deadline(options_.answer_timeout_ms);
  const auto outcome = co_await ReloadWait{connection};
  reactor_.timers().disarm(connection.deadline);
  if (stopping_) co_return std::string();
  if (!outcome) {
    co_return render_failure(request.format, ControlFailure::kFailed,
                             "the configuration is still being looked at");
  }
  co_return render_reload(request.format, *outcome);
}

void ControlSocket::on_reloaded(const std::expected<uint64_t, std::string>& outcome) {
  connections_.for_each([&](Connection& connection) {
    if (!connection.waiter || !connection.wants_reload) return;
    connection.reloaded = outcome;
    connection.wake();
  });
}

// ---- numbers

void ControlSocket::ask_cores() {
  if (numbers_ || stopping_) return;
  auto numbers = std::make_shared<Numbers>();
  bool wanted = false;
  connections_.for_each([&](Connection& connection) {
    if (!connection.waiter || connection.wants_reload || connection.numbers) return;
    connection.numbers = numbers;
    wanted = true;
  });
  if (!wanted) return;
  numbers->cores.resize(cores_);
  numbers->answered.resize(cores_);
  numbers->missing = cores_;
  numbers_ = numbers;
  for (uint32_t core = 0; core < cores_; ++core) hooks_.ask_core(core, numbers->cores[core]);
}

void ControlSocket::on_scraped(uint32_t core) {
  if (!numbers_ || core >= numbers_->answered.size() || numbers_->answered[core]) return;
  numbers_->answered[core] = true;
  if (--numbers_->missing != 0) return;
  const std::shared_ptr<Numbers> done = std::exchange(numbers_, nullptr);
  connections_.for_each([&](Connection& connection) {
    if (connection.waiter && connection.numbers == done) connection.wake();
  });
  ask_cores();
}

std::string ControlSocket::missing_cores() const {
  std::string text;
  size_t count = 0;
  for (size_t core = 0; numbers_ && core < numbers_->answered.size(); ++core) {
    if (numbers_->answered[core]) continue;
    text += (count++ == 0 ? "" : ", ") + std::to_string(core);
  }
  return (count == 1 ? "core " : "cores ") + text + (count == 1 ? " has" : " have") +
         " not answered within " + human_duration(options_.numbers_timeout_ms * 1'000ULL);
}

}  // namespace weir::control
