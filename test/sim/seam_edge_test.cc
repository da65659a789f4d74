// The seam's contract, continued: rarer orders of events. Compiled twice, see seam_test.cc.
#include <cerrno>
#include <string>

#include <poll.h>

#include "seam_rig.h"

namespace {

using namespace seam;

constexpr linger kResetOnClose{.l_onoff = 1, .l_linger = 0};

void close_with_reset(int fd) {
  REQUIRE(sys::setsockopt(fd, SOL_SOCKET, SO_LINGER, &kResetOnClose, sizeof kResetOnClose) == 0);
  REQUIRE(sys::close(fd) == 0);
}

}  // namespace

TEST_CASE("seam: a reset after the peer's FIN") {
  Environment environment;
  {
    Rig rig;
    std::array<char, 8> in;
    const Pair both = rig.pair();
    REQUIRE(sys::shutdown(both.server, SHUT_WR) == 0);
    rig.settle();
    rig.poll(1, both.client, POLLRDHUP);
    REQUIRE(rig.wait(1).result == POLLRDHUP);
    close_with_reset(both.server);
    rig.settle();
    rig.poll(2, both.client, POLLIN | POLLOUT | POLLRDHUP);
    REQUIRE(rig.wait(2).result == (POLLIN | POLLOUT | POLLRDHUP | POLLERR | POLLHUP));
    // The end of the stream stays its end; sending shows the error.
    REQUIRE(sys::recv(both.client, in.data(), in.size(), 0) == 0);
    REQUIRE(sys::send(both.client, "x", 1, 0) == -EPIPE);
    sys::close(both.client);
  }
  environment.check();
}

TEST_CASE("seam: a reset ends pending sends, and receives after what had arrived") {
  Environment environment;
  {
    Rig rig;
    Pair both = rig.pair();
    rig.fill(both.client);
    rig.send(1, both.client, "more", 4);
    rig.settle();
    REQUIRE_FALSE(rig.has(1));
    close_with_reset(both.server);
    REQUIRE(rig.wait(1).result == -ECONNRESET);
    sys::close(both.client);

    both = rig.pair();
    Buffers buffers(rig, 2, 2);
    buffers.give(0);
    buffers.give(1);
    REQUIRE(sys::send(both.server, "last", 4, 0) == 4);
    rig.settle();
    close_with_reset(both.server);
    rig.settle();
    rig.recv_select(2, both.client, 2, true);
    Completion got = rig.wait(2);
    REQUIRE(got.result == 4);
    REQUIRE(got.more());
    buffers.give(got.buffer());
    got = rig.wait(2);
    REQUIRE(got.result == -ECONNRESET);
    REQUIRE_FALSE(got.more());
    REQUIRE_FALSE(got.has_buffer());
    sys::close(both.client);
  }
  environment.check();
}

TEST_CASE("seam: shutdown seen by one's own polls and multishot receives") {
  Environment environment;
  {
    Rig rig;
    Pair both = rig.pair();
    Buffers buffers(rig, 2, 1);
    buffers.give(0);
    rig.poll(1, both.client, POLLRDHUP);
    rig.recv_select(2, both.client, 2, true);
    rig.settle();
    REQUIRE(sys::shutdown(both.client, SHUT_RDWR) == 0);
    REQUIRE(rig.wait(1).result == (POLLRDHUP | POLLHUP));
    const Completion ended = rig.wait(2);
    REQUIRE(ended.result == 0);
    REQUIRE_FALSE(ended.more());
    rig.close(both);

    // SHUT_RD alone: what arrives later can still be read, then there is the end.
    both = rig.pair();
    REQUIRE(sys::shutdown(both.client, SHUT_RD) == 0);
    REQUIRE(sys::send(both.server, "late", 4, 0) == 4);
    rig.settle();
    REQUIRE(rig.read(both.client) == "late");
    std::array<char, 4> in;
    REQUIRE(sys::recv(both.client, in.data(), in.size(), 0) == 0);
    REQUIRE(sys::send(both.client, "still", 5, 0) == 5);
    rig.settle();
    REQUIRE(rig.read(both.server) == "still");
    rig.close(both);
  }
  environment.check();
}

TEST_CASE("seam: data and FIN before the first receive") {
  Environment environment;
  {
    Rig rig;
    const Pair both = rig.pair();
    REQUIRE(sys::send(both.client, "bye", 3, 0) == 3);
    REQUIRE(sys::close(both.client) == 0);
    rig.settle();
    Buffers buffers(rig, 2, 2);
    buffers.give(0);
    buffers.give(1);
    rig.poll(1, both.server, POLLIN | POLLRDHUP);
    REQUIRE(rig.wait(1).result == (POLLIN | POLLRDHUP));
    rig.recv_select(2, both.server, 2, true);
    Completion got = rig.wait(2);
    REQUIRE(got.result == 3);
    REQUIRE(got.more());
    buffers.give(got.buffer());
    got = rig.wait(2);
    REQUIRE(got.result == 0);
    REQUIRE_FALSE(got.more());
    sys::close(both.server);
  }
  environment.check();
}

TEST_CASE("seam: what a receive may ask for") {
  Environment environment;
  {
    Rig rig;
    const Pair both = rig.pair();
    std::array<char, 8> in{};
    rig.recv(1, both.server, in.data(), in.size(), MSG_DONTWAIT);
    REQUIRE(rig.wait(1).result == -EAGAIN);
    REQUIRE(sys::send(both.client, "abcdef", 6, 0) == 6);
    rig.settle();
    rig.recv(1, both.server, in.data(), 2, MSG_PEEK);
    REQUIRE(rig.wait(1).result == 2);
    // A length below the buffer's limits a one-shot receive from the group.
    Buffers buffers(rig, 2, 1);
    buffers.give(0);
    io_uring_sqe* entry = rig.entry(2);
    io_uring_prep_recv(entry, both.server, nullptr, 4, 0);
    entry->flags |= IOSQE_BUFFER_SELECT;
    entry->buf_group = 2;
    rig.go();
    const Completion got = rig.wait(2);
    REQUIRE(got.result == 4);
    REQUIRE(buffers.text(got.buffer(), 4) == "abcd");
    buffers.give(0);
    // A multishot receive without a group, or with MSG_WAITALL, is refused.
    entry = rig.entry(3);
    io_uring_prep_recv_multishot(entry, both.server, nullptr, 0, 0);
    rig.go();
    REQUIRE(rig.wait(3).result == -EINVAL);
    // Two receives on one socket: the first gets what comes.
    REQUIRE(rig.read(both.server) == "ef");
    std::array<char, 8> other{};
    rig.recv(4, both.server, in.data(), in.size());
    rig.recv(5, both.server, other.data(), other.size());
    rig.settle();
    REQUIRE(sys::send(both.client, "1", 1, 0) == 1);
    rig.settle();
    REQUIRE((rig.has(4) != rig.has(5)));
    REQUIRE(sys::send(both.client, "2", 1, 0) == 1);
    REQUIRE(rig.wait(4).result == 1);
    REQUIRE(rig.wait(5).result == 1);
    rig.close(both);
  }
  environment.check();
}

TEST_CASE("seam: sends wait for room") {
  Environment environment;
  {
    Rig rig;
    const Pair both = rig.pair();
    const size_t filled = rig.fill(both.client);
    rig.send(1, both.client, "x", 1, MSG_DONTWAIT);
    REQUIRE(rig.wait(1).result == -EAGAIN);
    io_uring_sqe* entry = rig.entry(2);
    io_uring_prep_send(entry, both.client, "more", 4, MSG_NOSIGNAL);
    entry->ioprio |= IORING_RECVSEND_POLL_FIRST;
    rig.go();
    rig.settle();
    REQUIRE_FALSE(rig.has(2));
    // Cancelled before it sent anything.
    rig.cancel(3, 2);
    REQUIRE(rig.wait(3).result == 0);
    REQUIRE(rig.wait(2).result == -ECANCELED);
    rig.send(4, both.client, "tail", 4);
    size_t read = 0;
    std::string last;
    while (read < filled + 4) {
      last = rig.read(both.server);
      read += last.size();
      rig.settle();
    }
    REQUIRE(rig.wait(4).result == 4);
    REQUIRE(read == filled + 4);
    rig.close(both);
  }
  environment.check();
}

TEST_CASE("seam: what was acknowledged grows with what the peer takes, and with nothing else") {
  Environment environment;
  {
    Rig rig;
    const Pair both = rig.pair();
    const size_t filled = rig.fill(both.client);
    rig.settle(300 * kMs);  // acknowledgements are delayed, and so are the last segments
    const int64_t before = sys::acknowledged(both.client);
    REQUIRE(before >= 0);
    rig.settle(300 * kMs);
    REQUIRE(sys::acknowledged(both.client) == before);
    size_t read = 0;
    while (read < filled) {
      read += rig.read(both.server).size();
      rig.settle();
    }
    rig.settle(50 * kMs);
    REQUIRE(sys::acknowledged(both.client) > before);
    rig.close(both);
  }
  environment.check();
}

TEST_CASE("seam: a cancelled MSG_WAITALL send says how far it came") {
  Environment environment;
  {
    Rig rig;
    const Pair both = rig.pair();
    const std::string big(32 << 20, 'B');
    rig.send(1, both.client, big.data(), big.size(), MSG_WAITALL);
    rig.settle();
    REQUIRE_FALSE(rig.has(1));
    rig.cancel(2, 1);
    REQUIRE(rig.wait(2).result == 0);
    const Completion ended = rig.wait(1);
    REQUIRE(ended.result > 0);
    REQUIRE(ended.result < static_cast<int32_t>(big.size()));
    size_t read = 0;
    rig.settle();
    while (true) {
      const size_t got = rig.read(both.server).size();
      if (got == 0) break;
      read += got;
      rig.settle();
    }
    REQUIRE(read == static_cast<size_t>(ended.result));
    rig.close(both);
  }
  environment.check();
}

TEST_CASE("seam: connecting twice, and an eventfd is no socket") {
  Environment environment;
  {
    Rig rig;
    SocketAddress address = *SocketAddress::parse("127.0.0.1:0");
    const int listening = rig.listener(address);
    const int fd = rig.dial(address);
    rig.connect(1, fd, address);
    REQUIRE(rig.wait(1).result == -EISCONN);
    rig.accept(2, fd, false);
    REQUIRE(rig.wait(2).result == -EINVAL);
    sys::close(fd);
    sys::close(listening);
    const int event = sys::wake_fd();
    rig.send(3, event, "x", 1);
    REQUIRE(rig.wait(3).result == -ENOTSOCK);
    REQUIRE(sys::shutdown(event, SHUT_RDWR) == -ENOTSOCK);
    REQUIRE(sys::send(event, "x", 1, 0) == -ENOTSOCK);
    rig.poll(4, event, POLLIN);
    rig.settle();
    REQUIRE_FALSE(rig.has(4));
    sys::wake(event);
    REQUIRE(rig.wait(4).result == POLLIN);
    sys::close(event);
  }
  environment.check();
}

TEST_CASE("seam: a socket after a refused connect") {
  Environment environment;
  {
    Rig rig;
    SocketAddress address = *SocketAddress::parse("127.0.0.1:0");
    sys::close(rig.listener(address));
    const int fd = sys::socket(AF_INET, SOCK_STREAM, 0);
    rig.connect(1, fd, address);
    REQUIRE(rig.wait(1).result == -ECONNREFUSED);
    int error = 1;
    socklen_t length = sizeof error;
    REQUIRE(sys::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0);
    REQUIRE(error == 0);  // the completion has taken it
    std::array<char, 4> in;
    REQUIRE(sys::recv(fd, in.data(), in.size(), 0) == 0);  // the refusal has shut it down
    REQUIRE(sys::send(fd, "x", 1, 0) == -EPIPE);
    sys::close(fd);
  }
  environment.check();
}

TEST_CASE("seam: more completions than a small queue holds") {
  Environment environment;
  {
    auto opened = Ring::open(RingOptions{.entries = 8, .cq_entries = 16});
    REQUIRE(opened.has_value());
    Ring& ring = **opened;
    // sqe() submits when its queue is full, so this overflows the completion queue.
    for (uint64_t i = 1; i <= 100; ++i) {
      io_uring_sqe* entry = ring.sqe();
      io_uring_prep_nop(entry);
      entry->user_data = i;
    }
    REQUIRE(ring.full_submits() > 0);
    std::vector<bool> seen(101);
    unsigned count = 0;
    for (int round = 0; round < 100 && count < 100; ++round) {
      ring.submit_and_wait(10 * kMs);
      count += ring.reap([&](uint64_t user_data, int32_t result, uint32_t) {
        REQUIRE(result == 0);
        REQUIRE_FALSE(seen.at(user_data));
        seen[user_data] = true;
      });
    }
    REQUIRE(count == 100);
    REQUIRE(ring.in_flight() == 0);
  }
  environment.check();
}
