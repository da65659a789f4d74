// The simulated kernel by itself: scripted peers, the clock, several cores in one thread, and that
// it catches the mistakes it exists to catch.
#include <array>
#include <cerrno>
#include <csignal>
#include <functional>
#include <string>

#include <sys/wait.h>
#include <unistd.h>

#include "seam_rig.h"

namespace {

using namespace seam;
using namespace weir::sim;

// Runs `mistake` in a child process; returns what it wrote to stderr if it ended by SIGABRT or a
// sanitizer's report, and "lived" otherwise.
std::string death_of(const std::function<void()>& mistake) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    signal(SIGABRT, SIG_DFL);
    dup2(ends[1], STDERR_FILENO);
    ::close(STDOUT_FILENO);
    mistake();
    _exit(0);
  }
  ::close(ends[1]);
  std::string text;
  std::array<char, 4096> chunk;
  while (true) {
    const ssize_t got = ::read(ends[0], chunk.data(), chunk.size());
    if (got <= 0) break;
    text.append(chunk.data(), static_cast<size_t>(got));
  }
  ::close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  const bool died = WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) != 0);
  return died ? text : "lived";
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

// A program that accepts one connection and echoes until the end.
class OneEcho {
 public:
  explicit OneEcho(Rig& rig) : rig_(rig) {
    SocketAddress address = *SocketAddress::parse("127.0.0.1:8080");
    listener_ = rig.listener(address);
    rig.accept(1, listener_, false);
  }
  void turn() {
    rig_.settle(kMs);
    if (fd_ < 0 && rig_.has(1)) fd_ = rig_.wait(1).result;
    if (fd_ < 0) return;
    const std::string text = rig_.read(fd_);
    if (!text.empty()) sys::send(fd_, text.data(), text.size(), 0);
  }
  void end() {
    if (fd_ < 0) {
      rig_.cancel(2, 1);
      rig_.wait(2);
      rig_.wait(1);
    } else {
      sys::close(fd_);
    }
    sys::close(listener_);
  }
  [[nodiscard]] int fd() const { return fd_; }

 private:
  Rig& rig_;
  int listener_;
  int fd_ = -1;
};

}  // namespace

TEST_CASE("sim kernel: scripted clients") {
  Kernel kernel(3);
  {
    Rig rig;
    OneEcho echo(rig);
    const auto turn = [&] { echo.turn(); };

    SECTION("ask and get an answer") {
      Peer& client = kernel.connect_client("127.0.0.1:8080", "10.1.2.3:0");
      client.send("hello");
      REQUIRE(kernel.run_until(turn, [&] { return client.received() == "hello"; }, kSecond));
      SocketAddress from;
      from.length = sizeof from.un;
      REQUIRE(sys::getpeername(echo.fd(), &from.base, &from.length) == 0);
      REQUIRE(from.ip()->to_string() == "10.1.2.3");
      client.close();
      REQUIRE(client.ended());
    }
    SECTION("are refused where nobody listens") {
      Peer& client = kernel.connect_client("127.0.0.1:1");
      REQUIRE(kernel.run_until(turn, [&] { return client.ended(); }, kSecond));
      REQUIRE(client.error() == ECONNREFUSED);
    }
    SECTION("stall: the program can send only so much") {
      Peer& client = kernel.connect_client("127.0.0.1:8080");
      client.stall();
      REQUIRE(kernel.run_until(turn, [&] { return echo.fd() >= 0; }, kSecond));
      const size_t filled = rig.fill(echo.fd());
      rig.settle(500 * kMs);
      REQUIRE(client.received().empty());
      client.resume();
      REQUIRE(kernel.run_until(turn, [&] { return client.received().size() == filled; }, kSecond));
    }
    SECTION("trickle") {
      Peer& client = kernel.connect_client("127.0.0.1:8080");
      client.trickle(1, 10 * kMillisecond);
      const uint64_t before = kernel.now_ns();
      client.send("0123456789");
      REQUIRE(kernel.run_until(turn, [&] { return client.received().size() == 10; }, kSecond));
      REQUIRE(kernel.now_ns() - before >= 90 * kMillisecond);
      REQUIRE(client.received() == "0123456789");
    }
    SECTION("vanish: nothing comes, nothing goes, nobody is told") {
      Peer& client = kernel.connect_client("127.0.0.1:8080");
      client.send("a");
      REQUIRE(kernel.run_until(turn, [&] { return client.received() == "a"; }, kSecond));
      client.vanish();
      client.send("b");
      rig.settle(1000 * kMs);
      std::array<char, 4> in;
      REQUIRE(sys::recv(echo.fd(), in.data(), in.size(), 0) == -EAGAIN);
      REQUIRE(sys::send(echo.fd(), "c", 1, 0) == 1);
      rig.settle(1000 * kMs);
      REQUIRE(client.received() == "a");
    }
    SECTION("reset") {
      Peer& client = kernel.connect_client("127.0.0.1:8080");
      REQUIRE(kernel.run_until(turn, [&] { return echo.fd() >= 0; }, kSecond));
      client.reset();
      rig.settle();
      std::array<char, 4> in;
      REQUIRE(sys::recv(echo.fd(), in.data(), in.size(), 0) == -ECONNRESET);
    }
    SECTION("close: what comes later is answered with a reset") {
      Peer& client = kernel.connect_client("127.0.0.1:8080");
      REQUIRE(kernel.run_until(turn, [&] { return echo.fd() >= 0; }, kSecond));
      client.close();
      rig.settle();
      REQUIRE(sys::send(echo.fd(), "x", 1, 0) == 1);
      rig.settle();
      REQUIRE(sys::send(echo.fd(), "x", 1, 0) == -EPIPE);
    }
    echo.end();
  }
  REQUIRE(kernel.finish() == "");
}

TEST_CASE("sim kernel: origins that answer, refuse and say nothing") {
  Kernel kernel(4);
  {
    Rig rig;
    const SocketAddress address = *SocketAddress::parse("10.0.0.1:80");
    kernel.listen_origin("10.0.0.1:80", [](Peer& origin) {
      origin.on_data = [](Peer& self) { self.send("got " + self.take()); };
    });
    const int fd = rig.dial(address);
    REQUIRE(sys::send(fd, "x", 1, 0) == 1);
    rig.settle();
    REQUIRE(rig.read(fd) == "got x");
    REQUIRE(kernel.peers() == 1);
    sys::close(fd);
    rig.settle();
    REQUIRE(kernel.peer(0).eof());

    kernel.stop_origin("10.0.0.1:80");
    const int refused = sys::socket(AF_INET, SOCK_STREAM, 0);
    rig.connect(1, refused, address);
    REQUIRE(rig.wait(1).result == -ECONNREFUSED);
    sys::close(refused);

    kernel.black_hole("10.0.0.2:80");
    const SocketAddress hole = *SocketAddress::parse("10.0.0.2:80");
    const int silent = sys::socket(AF_INET, SOCK_STREAM, 0);
    rig.connect(2, silent, hole);
    const uint64_t before = kernel.now_ns();
    rig.settle(126'000 * kMs);
    REQUIRE_FALSE(rig.has(2));
    REQUIRE(rig.wait(2).result == -ETIMEDOUT);
    REQUIRE(kernel.now_ns() - before >= 127 * kSecond);
    sys::close(silent);
  }
  REQUIRE(kernel.finish() == "");
}

TEST_CASE("sim kernel: the clock moves only while a ring waits") {
  Kernel kernel(5);
  {
    Rig rig;
    const uint64_t start = sys::monotonic_ns();
    const int64_t wall = sys::realtime_us();
    REQUIRE(sys::monotonic_ns() == start);
    rig.ring->submit_and_wait(0);
    REQUIRE(sys::monotonic_ns() - start < 10 * kMicrosecond);
    uint64_t fired = 0;
    kernel.schedule(7 * kSecond, [&] { fired = kernel.now_ns(); });
    rig.ring->submit_and_wait(10 * kSecond);
    REQUIRE(fired - start >= 7 * kSecond);
    REQUIRE(fired - start < 7 * kSecond + kMillisecond);
    REQUIRE(sys::monotonic_ns() - start >= 10 * kSecond);
    REQUIRE(sys::realtime_us() - wall >= 10'000'000);
    REQUIRE(sys::realtime_us() - wall < 10'001'000);
  }
  REQUIRE(kernel.finish() == "");
}

TEST_CASE("sim kernel: several cores in one thread") {
  Kernel kernel(6);
  {
    Rig a;
    Rig b;
    // b waits until 50 ms from now; a may not carry the clock past that.
    const uint64_t start = kernel.now_ns();
    const int event = sys::wake_fd();
    uint64_t counter = 0;
    io_uring_prep_read(a.entry(1), event, &counter, sizeof counter, 0);
    a.go();
    a.ring->submit_and_wait(0);
    kernel.schedule(20 * kMillisecond, [] {});
    b.ring->submit_and_wait(50 * kMs);
    a.ring->submit_and_wait(weir::runtime::kWaitForever);
    REQUIRE(kernel.now_ns() - start < 51 * kMillisecond);
    // What b does reaches a, in a's next turn.
    sys::wake(event);
    b.ring->submit_and_wait(10'000 * kMs);  // a has work: b's wait ends early
    REQUIRE(kernel.now_ns() - start < 61 * kMillisecond);
    REQUIRE(a.wait(1).result == 8);
    sys::close(event);
  }
  REQUIRE(kernel.finish() == "");
}

TEST_CASE("sim kernel: run_until says when there is no hope") {
  Kernel kernel(7);
  {
    Rig rig;
    REQUIRE_FALSE(kernel.run_until([&] { rig.ring->submit_and_wait(weir::runtime::kWaitForever); },
                                   [] { return false; }, kSecond));
    const uint64_t before = kernel.now_ns();
    REQUIRE_FALSE(kernel.run_until([&] { rig.settle(100 * kMs); }, [] { return false; }, kSecond));
    REQUIRE(kernel.now_ns() - before < 2 * kSecond);
    // The end is noticed inside a long wait.
    bool done = false;
    kernel.schedule(kSecond, [&] { done = true; });
    REQUIRE(kernel.run_until([&] { rig.ring->submit_and_wait(weir::runtime::kWaitForever); },
                             [&] { return done; }, 10 * kSecond));
  }
  REQUIRE(kernel.finish() == "");
}

TEST_CASE("sim kernel: what is left behind is reported") {
  Kernel kernel(8);
  kernel.expect_all_buffers_back();
  {
    Rig rig;
    const int fd = sys::socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(kernel.finish() ==
            "seed 8: descriptor " + std::to_string(fd) + " (socket) is still open\n");
    sys::close(fd);
    const Pair both = rig.pair();
    std::array<char, 4> in;
    rig.recv(1, both.client, in.data(), in.size());
    rig.settle();
    REQUIRE(contains(kernel.finish(), "is still in flight"));
    sys::shutdown(both.client, SHUT_RDWR);
    rig.wait(1);
    {
      Buffers buffers(rig, 1, 2);
      buffers.give(0);
      rig.recv_select(2, both.server, 1, false);
      rig.wait(2);  // the end of the stream: no buffer used
      REQUIRE_FALSE(contains(kernel.finish(), "given back"));
    }
    rig.close(both);
    const Pair second = rig.pair();
    {
      Buffers buffers(rig, 1, 2);
      buffers.give(0);
      REQUIRE(sys::send(second.client, "x", 1, 0) == 1);
      rig.recv_select(3, second.server, 1, false);
      REQUIRE(rig.wait(3).result == 1);
      REQUIRE(contains(kernel.finish(), "1 buffers were not given back"));
    }
    REQUIRE(contains(kernel.finish(), "unregistered with 1 buffers not given back"));
    rig.close(second);
  }
}

TEST_CASE("sim kernel: mistakes of the program end the run, with the seed") {
  const auto dies = [](const std::function<void(Rig&)>& mistake) {
    return death_of([&] {
      Kernel kernel(4711);
      Rig rig;
      mistake(rig);
    });
  };
  std::array<char, 8> in;
  std::string text = dies([&](Rig& rig) {
    const Pair both = rig.pair();
    rig.recv(1, both.client, in.data(), in.size());
    rig.settle();
    sys::close(both.client);
  });
  REQUIRE(contains(text, "close of a descriptor with operations in flight"));
  REQUIRE(contains(text, "seed 4711"));
  text = dies([&](Rig& rig) {
    const Pair both = rig.pair();
    rig.recv(1, both.client, in.data(), in.size());
    sys::close(both.client);
  });
  REQUIRE(contains(text, "not yet submitted operation names"));
  text = dies([&](Rig& rig) {
    const Pair both = rig.pair();
    sys::close(both.client);
    rig.recv(1, both.client, in.data(), in.size());
    rig.settle();
  });
  REQUIRE(contains(text, "a descriptor that is not open"));
  text = dies([&](Rig& rig) {
    const Pair both = rig.pair();
    sys::close(both.client);
    sys::close(both.client);
  });
  REQUIRE(contains(text, "a descriptor that is not open"));
  text = dies([&](Rig& rig) {
    io_uring_prep_openat(rig.entry(1), AT_FDCWD, "/dev/null", 0, 0);
    rig.go();
    rig.settle();
  });
  REQUIRE(text != "lived");
  text = dies([&](Rig& rig) {
    const Pair both = rig.pair();
    io_uring_sqe* entry = rig.entry(1);
    io_uring_prep_recv(entry, both.client, in.data(), in.size(), 0);
    entry->flags |= IOSQE_IO_LINK;
    rig.go();
    rig.settle();
  });
  REQUIRE(contains(text, "not simulated"));
  text = dies([&](Rig& rig) {
    Buffers buffers(rig, 1, 4);
    buffers.give(0);
    buffers.give(0);
    rig.settle();
  });
  REQUIRE(contains(text, "given to the kernel twice"));
  text = dies([&](Rig& rig) { rig.ring->submit_and_wait(weir::runtime::kWaitForever); });
  REQUIRE(contains(text, "waits for ever"));
  text = dies([&](Rig& rig) {
    const Pair both = rig.pair();
    rig.recv(1, both.client, in.data(), in.size());
    rig.settle();
    rig.ring.reset();
  });
  REQUIRE(contains(text, "broken invariant: in_flight_ == 0"));
  REQUIRE(contains(text, "seed 4711"));
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
TEST_CASE("sim kernel: a buffer that died before its completion is caught") {
  for (const bool receive : {true, false}) {
    const std::string text = death_of([&] {
      Kernel kernel(11);
      Rig rig;
      const Pair both = rig.pair();
      const size_t filled = rig.fill(both.client);
      auto* buffer = new char[8];
      if (receive) {
        rig.recv(1, both.client, buffer, 8);
      } else {
        rig.send(1, both.client, buffer, 8);
      }
      rig.settle();
      delete[] buffer;
      if (receive) {
        sys::send(both.server, "x", 1, 0);
      } else {
        for (size_t read = 0; read < filled; rig.settle()) read += rig.read(both.server).size();
      }
      rig.wait(1);
    });
    REQUIRE(contains(text, "heap-use-after-free"));
    REQUIRE(contains(text, "seed 11"));
  }
}
#endif
#endif
