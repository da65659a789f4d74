// Bytes that pass without a copy: file to socket, socket to pipe, pipe to socket, and waiting until
// a socket takes more.
#include <csignal>
#include <cstdlib>
#include <optional>

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <weir/base/prng.h>
#include <weir/net/pipe_pool.h>

#include "transport_fixture.h"

using namespace weir;
using namespace weir::net;
using namespace weir::net::test;

namespace {

LinkKind any_link() { return GENERATE(LinkKind::kUnix, LinkKind::kTcp); }

// Not too narrow: TCP with room for less than a segment of the loopback waits for its timers.
void narrow(const Subject& subject) {
  const int out = 16 * 1024;
  const int in = 128 * 1024;
  REQUIRE(setsockopt(subject.transport->fd(), SOL_SOCKET, SO_SNDBUF, &out, sizeof out) == 0);
  REQUIRE(setsockopt(subject.peer.fd(), SOL_SOCKET, SO_RCVBUF, &in, sizeof in) == 0);
}

// As the program has it: sendfile(2) and splice(2) know no MSG_NOSIGNAL.
class NoPipeSignal {
 public:
  NoPipeSignal() noexcept : before_(std::signal(SIGPIPE, SIG_IGN)) {}
  NoPipeSignal(const NoPipeSignal&) = delete;
  NoPipeSignal& operator=(const NoPipeSignal&) = delete;
  ~NoPipeSignal() { std::signal(SIGPIPE, before_); }

 private:
  void (*before_)(int);
};

// A file without a name.
class TestFile {
 public:
  explicit TestFile(std::string_view text) {
    std::string name = (std::filesystem::temp_directory_path() / "weir_move_XXXXXX").string();
    fd_ = mkostemp(name.data(), O_CLOEXEC);
    REQUIRE(fd_ >= 0);
    unlink(name.c_str());
    REQUIRE(write(fd_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    REQUIRE(lseek(fd_, 0, SEEK_SET) == 0);
  }
  TestFile(const TestFile&) = delete;
  TestFile& operator=(const TestFile&) = delete;
  ~TestFile() { close(fd_); }
  [[nodiscard]] int fd() const noexcept { return fd_; }

 private:
  int fd_ = -1;
};

size_t bytes_in(int pipe_fd) {
  int count = -1;
  REQUIRE(ioctl(pipe_fd, FIONREAD, &count) == 0);
  return static_cast<size_t>(count);
}

std::string drain(int pipe_fd) {
  std::string text(bytes_in(pipe_fd), '\0');
  size_t have = 0;
  while (have < text.size()) {
    const ssize_t got = read(pipe_fd, text.data() + have, text.size() - have);
    REQUIRE(got > 0);
    have += static_cast<size_t>(got);
  }
  return text;
}

void fill(PipePool::Lease& pipe, std::string_view text) {
  REQUIRE(write(pipe->write_fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  pipe.filled = text.size();
}

Task<> wait_for_room(Transport& transport, uint32_t timeout_ms, Sending& out) {
  const auto room = co_await transport.writable(timeout_ms);
  if (!room) out.error = room.error();
  out.done = true;
}

Task<> read_event(Transport& transport, std::optional<ReadEvent>& out) {
  out = co_await transport.readable(transport.reactor().now_ms() + 10'000);
}

// A stretch of a file, as the program sends it. `waits`: how often the socket took nothing.
struct Moving {
  size_t sent = 0;
  int waits = 0;
  ssize_t last = 1;
  bool done = false;
};

Task<> send_stretch(Transport& transport, int file_fd, uint64_t offset, size_t bytes, Moving& out) {
  while (out.sent < bytes && (out.last > 0 || out.last == -EAGAIN)) {
    out.last = transport.send_file(file_fd, offset + out.sent, bytes - out.sent);
    if (out.last > 0) out.sent += static_cast<size_t>(out.last);
    if (out.last != -EAGAIN) continue;
    ++out.waits;
    if (!co_await transport.writable(10'000)) break;
  }
  out.done = true;
}

// From one connection to another, until the first one ends.
Task<> relay(Transport& from, Transport& to, PipePool& pool, Moving& out) {
  PipePool::Lease pipe = pool.take();
  co_await from.enter_direct_mode();
  bool over = false;
  while (!over || pipe.filled > 0) {
    if (!over && pipe.filled < pipe->capacity) {
      out.last = from.splice_to(pipe->write_fd, pipe->capacity - pipe.filled);
      if (out.last > 0) pipe.filled += static_cast<size_t>(out.last);
      if (out.last <= 0 && out.last != -EAGAIN) over = true;
      if (out.last == -EAGAIN && pipe.filled == 0) {
        const ReadEvent event = co_await from.readable(from.reactor().now_ms() + 10'000);
        if (event != ReadEvent::kData && event != ReadEvent::kEnd) break;
        continue;
      }
    }
    if (pipe.filled == 0) continue;
    const ssize_t sent = to.splice_from(pipe->read_fd, pipe.filled, false);
    if (sent > 0) {
      pipe.filled -= static_cast<size_t>(sent);
      out.sent += static_cast<size_t>(sent);
    } else if (sent != -EAGAIN) {
      break;
    } else {
      ++out.waits;
      if (!co_await to.writable(10'000)) break;
    }
  }
  to.shutdown_write();
  out.done = true;
}

// Sends from `file` until the socket takes no more, also not a little later: TCP acknowledges with
// a delay what has room at the other side. Returns how much it took.
size_t stuff(Transport& transport, const TestFile& file, size_t bytes) {
  int domain = 0;
  socklen_t length = sizeof domain;
  REQUIRE(getsockopt(transport.fd(), SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0);
  const int delay_ms = domain == AF_UNIX ? 0 : 300;
  size_t sent = 0;
  size_t before = 0;
  pollfd room{.fd = transport.fd(), .events = POLLOUT, .revents = 0};
  do {
    before = sent;
    ssize_t part = 0;
    while ((part = transport.send_file(file.fd(), sent, bytes - sent)) > 0) {
      sent += static_cast<size_t>(part);
      REQUIRE(sent < bytes);
    }
    REQUIRE(part == -EAGAIN);
  } while (poll(&room, 1, delay_ms) == 1 || sent != before);
  return sent;
}

void enter_direct(Engine& engine, Transport& transport) {
  bool quiet = false;
  REQUIRE(engine.run(quiesce(transport, quiet)));
}

// Until the socket has something to say.
ReadEvent await_event(Engine& engine, Transport& transport) {
  std::optional<ReadEvent> event;
  REQUIRE(engine.run(read_event(transport, event)));
  REQUIRE(event);
  return *event;
}

}  // namespace

TEST_CASE("a stretch of a file arrives whole and in order, however little is taken at once") {
  Engine engine;
  Subject subject(engine, any_link());
  narrow(subject);
  CHECK(subject.transport->may_splice());
  const std::string text = pattern(700'000);
  const TestFile file(text);
  base::Prng random(7);
  Moving moving;
  engine.tasks.spawn(send_stretch(*subject.transport, file.fd(), 1000, 650'000, moving));
  REQUIRE(engine.run_until([&] {
    subject.peer.take(1 + random.below(30'000));
    engine->wake();
    return moving.done;
  }));
  CHECK(moving.sent == 650'000);
  CHECK(moving.waits > 0);
  REQUIRE(engine.run_until([&] {
    subject.peer.take();
    engine->wake();
    return subject.peer.text.size() >= 650'000;
  }));
  CHECK(subject.peer.text == text.substr(1000, 650'000));
  CHECK(lseek(file.fd(), 0, SEEK_CUR) == 0);  // others send from it too
  CHECK(engine->buffers().in_use() == 0);
}

TEST_CASE("send_file stops where the file ends") {
  Engine engine;
  Subject subject(engine, any_link());
  const TestFile file(pattern(1000));
  Transport& transport = *subject.transport;
  CHECK(transport.send_file(file.fd(), 900, 5000) == 100);
  CHECK(transport.send_file(file.fd(), 1000, 5000) == 0);
  CHECK(transport.send_file(file.fd(), 7000, 1) == 0);
  // The socket has pages of the file, no copies: the peer takes them before the file changes.
  REQUIRE(engine.run_until([&] {
    subject.peer.take();
    engine->wake();
    return subject.peer.text.size() >= 100;
  }));
  REQUIRE(ftruncate(file.fd(), 10) == 0);
  CHECK(transport.send_file(file.fd(), 900, 100) == 0);
  CHECK(transport.send_file(file.fd(), 0, 100) == 10);
  transport.shutdown_write();
  REQUIRE(engine.run_until([&] {
    subject.peer.take();
    engine->wake();
    return subject.peer.over();
  }));
  CHECK(subject.peer.text == pattern(1000).substr(900) + pattern(10));
}

TEST_CASE("a file that cannot be sent is an error, and the connection stays") {
  Engine engine;
  Subject subject(engine, any_link());
  const TestFile file("text");
  CHECK(subject.transport->send_file(-1, 0, 10) == -EBADF);
  const int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  REQUIRE(root >= 0);
  CHECK(subject.transport->send_file(root, 0, 10) < 0);
  close(root);
  CHECK_FALSE(subject.transport->failed());
  CHECK(subject.transport->send_file(file.fd(), 0, 4) == 4);
}

TEST_CASE("a peer that takes nothing: part of the file, then EAGAIN, and nothing is lost") {
  Engine engine;
  Subject subject(engine, any_link());
  narrow(subject);
  const std::string text = pattern(4'000'000);
  const TestFile file(text);
  const size_t sent = stuff(*subject.transport, file, text.size());
  CHECK(sent > 0);
  REQUIRE(engine.run_until([&] {
    subject.peer.take();
    engine->wake();
    return subject.peer.text.size() >= sent;
  }));
  const bool same = subject.peer.text == text.substr(0, sent);
  CHECK(same);
}

TEST_CASE("send_file to a peer that has gone is an error, each time") {
  const NoPipeSignal quiet;
  Engine engine;
  Subject subject(engine, any_link());
  narrow(subject);
  const TestFile file(pattern(2'000'000));
  Moving moving;
  engine.tasks.spawn(send_stretch(*subject.transport, file.fd(), 0, 2'000'000, moving));
  engine.settle();
  REQUIRE_FALSE(moving.done);
  subject.peer.close();  // with bytes unread: a reset
  REQUIRE(engine.run_until([&] { return moving.done; }));
  CHECK((moving.last == -ECONNRESET || moving.last == -EPIPE));
  CHECK(subject.transport->send_file(file.fd(), 0, 10) == -EPIPE);
  PipePool pool;
  PipePool::Lease pipe = pool.take();
  fill(pipe, "left");
  CHECK(subject.transport->splice_from(pipe->read_fd, 4, false) == -EPIPE);
  CHECK(drain(pipe->read_fd) == "left");
}

TEST_CASE("splice_to gives what is there, and EAGAIN when there is nothing") {
  Engine engine;
  Subject subject(engine, any_link());
  Transport& transport = *subject.transport;
  PipePool pool;
  const PipePool::Lease pipe = pool.take();
  REQUIRE(pipe);
  enter_direct(engine, transport);
  CHECK(transport.splice_to(pipe->write_fd, 1000) == -EAGAIN);
  std::optional<ReadEvent> event;
  engine.tasks.spawn(read_event(transport, event));
  engine.settle();
  CHECK_FALSE(event);
  subject.peer.send_all("0123456789");
  REQUIRE(engine.run_until([&] { return event.has_value(); }));
  CHECK(*event == ReadEvent::kData);
  CHECK(transport.splice_to(pipe->write_fd, 4) == 4);
  CHECK(drain(pipe->read_fd) == "0123");
  CHECK(transport.splice_to(pipe->write_fd, 1000) == 6);
  CHECK(drain(pipe->read_fd) == "456789");
  CHECK(transport.splice_to(pipe->write_fd, 1000) == -EAGAIN);
  CHECK_FALSE(transport.ended());
  CHECK_FALSE(transport.failed());
}

TEST_CASE("a full pipe is EAGAIN too, and what did not fit stays in the socket") {
  Engine engine;
  Subject subject(engine, any_link());
  Transport& transport = *subject.transport;
  PipePool pool;
  const PipePool::Lease pipe = pool.take();
  REQUIRE(pipe);
  REQUIRE(fcntl(pipe->write_fd, F_SETPIPE_SZ, 4096) == 4096);
  enter_direct(engine, transport);
  const std::string text = pattern(40'000);
  subject.peer.send_all(text);
  std::string out;
  REQUIRE(engine.run_until([&] {
    const ssize_t got = transport.splice_to(pipe->write_fd, 4096);
    if (got > 0 && out.empty()) {
      // Whether a byte more would find room depends on how the pages are filled: not all can.
      ssize_t more = got;
      size_t in = static_cast<size_t>(got);
      while ((more = transport.splice_to(pipe->write_fd, text.size())) > 0) {
        in += static_cast<size_t>(more);
      }
      CHECK(more == -EAGAIN);
      CHECK(in <= 4096);
    }
    out += drain(pipe->read_fd);
    engine->wake();
    return out.size() >= text.size();
  }));
  CHECK(out == text);
}

TEST_CASE("splice_to at the end of the stream gives what came before it, then 0, again and again") {
  Engine engine;
  Subject subject(engine, any_link());
  Transport& transport = *subject.transport;
  PipePool pool;
  const PipePool::Lease pipe = pool.take();
  enter_direct(engine, transport);
  subject.peer.send_all("last words");
  subject.peer.finish();
  CHECK(await_event(engine, transport) == ReadEvent::kData);
  CHECK(transport.splice_to(pipe->write_fd, 1000) == 10);
  CHECK(drain(pipe->read_fd) == "last words");
  CHECK(await_event(engine, transport) == ReadEvent::kData);  // the end may come later
  int told = 0;
  transport.watch_end(
      [](void* context, bool failed) noexcept { *static_cast<int*>(context) += failed ? 100 : 1; },
      &told);
  CHECK(transport.splice_to(pipe->write_fd, 1000) == 0);
  CHECK(transport.splice_to(pipe->write_fd, 1000) == 0);
  CHECK(transport.ended());
  CHECK_FALSE(transport.failed());
  CHECK(told == 1);
  CHECK(await_event(engine, transport) == ReadEvent::kEnd);
  CHECK(bytes_in(pipe->read_fd) == 0);
}

TEST_CASE("splice_to of a connection that was reset is an error, and never an end") {
  Engine engine;
  Subject subject(engine, LinkKind::kTcp);
  Transport& transport = *subject.transport;
  PipePool pool;
  const PipePool::Lease pipe = pool.take();
  enter_direct(engine, transport);
  subject.peer.reset();
  CHECK(await_event(engine, transport) == ReadEvent::kData);  // splice_to() says what it is
  bool failed = false;
  transport.watch_end(
      [](void* context, bool broken) noexcept { *static_cast<bool*>(context) = broken; }, &failed);
  CHECK(transport.splice_to(pipe->write_fd, 1000) == -ECONNRESET);
  CHECK(transport.splice_to(pipe->write_fd, 1000) == -ECONNRESET);
  CHECK(transport.failed());
  CHECK_FALSE(transport.ended());
  CHECK(transport.error().code == base::Errc::kReset);
  CHECK(failed);
  CHECK(await_event(engine, transport) == ReadEvent::kError);
}

TEST_CASE("a reset that a file or a pipe was told of is no end for who receives") {
  const NoPipeSignal quiet;
  const bool by_file = GENERATE(true, false);
  Engine engine;
  Subject subject(engine, LinkKind::kTcp);
  Transport& transport = *subject.transport;
  PipePool pool;
  PipePool::Lease pipe = pool.take();
  enter_direct(engine, transport);
  subject.peer.reset();
  CHECK(await_event(engine, transport) == ReadEvent::kData);
  // The kernel tells of it once, and this is who asks first.
  if (by_file) {
    const TestFile file("x");
    CHECK(transport.send_file(file.fd(), 0, 1) == -ECONNRESET);
  } else {
    fill(pipe, "x");
    CHECK(transport.splice_from(pipe->read_fd, 1, false) == -ECONNRESET);
  }
  const PipePool::Lease other = pool.take();
  CHECK(transport.splice_to(other->write_fd, 1000) < 0);
  CHECK(transport.failed());
  CHECK_FALSE(transport.ended());
}

TEST_CASE("splice_from sends what is in the pipe, as far as the peer takes it") {
  Engine engine;
  Subject subject(engine, any_link());
  narrow(subject);
  Transport& transport = *subject.transport;
  PipePool pool;
  PipePool::Lease pipe = pool.take();
  REQUIRE(pipe);
  REQUIRE(pipe->capacity >= 16'000);
  std::string text;
  // Until the socket is full.
  ssize_t sent = 0;
  size_t out = 0;
  for (int round = 0; sent != -EAGAIN; ++round) {
    REQUIRE(round < 1000);
    if (pipe.filled == 0) {
      const std::string part = pattern(16'000, static_cast<uint64_t>(round));
      fill(pipe, part);
      text += part;
    }
    sent = transport.splice_from(pipe->read_fd, pipe.filled, false);
    if (sent <= 0) continue;
    pipe.filled -= static_cast<size_t>(sent);
    out += static_cast<size_t>(sent);
  }
  CHECK(pipe.filled > 0);
  CHECK(bytes_in(pipe->read_fd) == pipe.filled);
  CHECK(out + pipe.filled == text.size());
  REQUIRE(engine.run_until([&] {
    subject.peer.take();
    engine->wake();
    return subject.peer.text.size() >= out;
  }));
  Sending room;
  REQUIRE(engine.run(wait_for_room(transport, 5000, room)));
  CHECK(room.error == base::Error{});
  while (pipe.filled > 0) {
    sent = transport.splice_from(pipe->read_fd, pipe.filled, false);
    REQUIRE(sent > 0);
    pipe.filled -= static_cast<size_t>(sent);
    subject.peer.take();
  }
  REQUIRE(engine.run_until([&] {
    subject.peer.take();
    engine->wake();
    return subject.peer.text.size() >= text.size();
  }));
  CHECK(subject.peer.text == text);
}

TEST_CASE("what is sent with more to come arrives with what follows") {
  Engine engine;
  Subject subject(engine, any_link());
  PipePool pool;
  PipePool::Lease pipe = pool.take();
  fill(pipe, "first second");
  CHECK(subject.transport->splice_from(pipe->read_fd, 6, true) == 6);
  CHECK(subject.transport->splice_from(pipe->read_fd, 6, false) == 6);
  pipe.filled = 0;
  REQUIRE(engine.run_until([&] {
    subject.peer.take();
    engine->wake();
    return subject.peer.text.size() >= 12;
  }));
  CHECK(subject.peer.text == "first second");
  CHECK(subject.transport->splice_from(pipe->read_fd, 100, false) == -EAGAIN);  // an empty pipe
}

TEST_CASE("a relay through a pipe loses and reorders nothing") {
  const LinkKind kind = any_link();
  Engine engine;
  Subject source(engine, kind);
  Subject sink(engine, kind);
  narrow(sink);
  source.transport->start_receiving();
  const std::string text = pattern(900'000, 5);
  PipePool pool;
  Moving moving;
  base::Prng random(11);
  // Nothing is received before the relay starts: it would have to be sent first.
  engine.tasks.spawn(relay(*source.transport, *sink.transport, pool, moving));
  engine.settle();
  size_t given = 0;
  REQUIRE(engine.run_until([&] {
    if (given < text.size()) {
      const size_t part = std::min<size_t>(text.size() - given, 1 + random.below(60'000));
      given += source.peer.send(std::string_view(text).substr(given, part));
      if (given == text.size()) source.peer.finish();
    }
    sink.peer.take(1 + random.below(50'000));
    engine->wake();
    return sink.peer.over();
  }));
  CHECK(moving.done);
  CHECK(moving.last == 0);
  CHECK(moving.sent == text.size());
  CHECK(moving.waits > 0);
  CHECK(sink.peer.text == text);
  CHECK(pool.used() == 0);
  CHECK(engine->buffers().in_use() == 0);
}

TEST_CASE("writable() is done at once where there is room, and leaves nothing behind") {
  Engine engine;
  Subject subject(engine, any_link());
  Sending room;
  REQUIRE(engine.run(wait_for_room(*subject.transport, 5000, room)));
  CHECK(room.error == base::Error{});
  CHECK_FALSE(subject.transport->sending());
}

TEST_CASE("writable() waits for a full socket, and wakes when the peer takes something") {
  Engine engine;
  Subject subject(engine, any_link());
  narrow(subject);
  const TestFile file(pattern(4'000'000));
  static_cast<void>(stuff(*subject.transport, file, 4'000'000));
  Sending room;
  engine.tasks.spawn(wait_for_room(*subject.transport, 5000, room));
  engine.pass(30);
  CHECK_FALSE(room.done);
  CHECK(subject.transport->sending());
  REQUIRE(engine.run_until([&] {
    subject.peer.take();
    return room.done;
  }));
  CHECK(room.error == base::Error{});
  CHECK_FALSE(subject.transport->sending());
  CHECK(subject.transport->send_file(file.fd(), 0, 1) == 1);
}

TEST_CASE("writable() ends by its timeout, and can be asked again") {
  Engine engine;
  Subject subject(engine, any_link());
  narrow(subject);
  const TestFile file(pattern(4'000'000));
  static_cast<void>(stuff(*subject.transport, file, 4'000'000));
  engine->turn(false);
  const uint64_t start = engine->now_ms();
  Sending room;
  REQUIRE(engine.run(wait_for_room(*subject.transport, 40, room)));
  CHECK(room.error.code == base::Errc::kTimedOut);
  CHECK(engine->now_ms() - start >= 40);
  CHECK_FALSE(subject.transport->sending());
  Sending again;
  engine.tasks.spawn(wait_for_room(*subject.transport, 5000, again));
  engine.settle();
  CHECK_FALSE(again.done);
  REQUIRE(engine.run_until([&] {
    subject.peer.take();
    return again.done;
  }));
  CHECK(again.error == base::Error{});
}

TEST_CASE("cancel_sends() ends writable() and everything after it") {
  Engine engine;
  Subject subject(engine, any_link());
  narrow(subject);
  Transport& transport = *subject.transport;
  const TestFile file(pattern(4'000'000));
  const size_t sent = stuff(transport, file, 4'000'000);
  Sending room;
  engine.tasks.spawn(wait_for_room(transport, 5000, room));
  engine.settle();
  REQUIRE_FALSE(room.done);
  transport.cancel_sends();
  REQUIRE(engine.run_until([&] { return room.done; }, 2000));
  CHECK(room.error.code == base::Errc::kCancelled);
  PipePool pool;
  PipePool::Lease pipe = pool.take();
  fill(pipe, "x");
  CHECK(transport.send_file(file.fd(), 0, 1) == -ECANCELED);
  CHECK(transport.splice_from(pipe->read_fd, 1, false) == -ECANCELED);
  CHECK(bytes_in(pipe->read_fd) == 1);
  Sending later;
  engine.tasks.spawn(wait_for_room(transport, 5000, later));
  engine->turn(false);
  CHECK(later.done);
  CHECK(later.error.code == base::Errc::kCancelled);
  // The peer is told nothing: it has what was sent before.
  subject.peer.take();
  CHECK_FALSE(subject.peer.over());
  CHECK(subject.peer.text.size() <= sent);
}

TEST_CASE("a peer that goes ends writable(), and sending says why") {
  const NoPipeSignal quiet;
  Engine engine;
  Subject subject(engine, any_link());
  narrow(subject);
  const TestFile file(pattern(4'000'000));
  static_cast<void>(stuff(*subject.transport, file, 4'000'000));
  Sending room;
  engine.tasks.spawn(wait_for_room(*subject.transport, 5000, room));
  engine.settle();
  REQUIRE_FALSE(room.done);
  subject.peer.close();
  REQUIRE(engine.run_until([&] { return room.done; }, 2000));
  const ssize_t sent = subject.transport->send_file(file.fd(), 0, 1);
  CHECK((sent == -ECONNRESET || sent == -EPIPE));
}

TEST_CASE("abort() ends writable()") {
  const NoPipeSignal quiet;
  Engine engine;
  Subject subject(engine, any_link());
  narrow(subject);
  const TestFile file(pattern(4'000'000));
  static_cast<void>(stuff(*subject.transport, file, 4'000'000));
  Sending room;
  engine.tasks.spawn(wait_for_room(*subject.transport, 5000, room));
  engine.settle();
  REQUIRE_FALSE(room.done);
  subject.transport->abort();
  REQUIRE(engine.run_until([&] { return room.done; }, 2000));
  CHECK(subject.transport->send_file(file.fd(), 0, 1) == -EPIPE);
}
