// The seam's contract, held against both kernels: this file is compiled twice, once with the
// simulated kernel (test/sim) and once, with WEIR_REAL_KERNEL, with src/runtime/{ring_uring,
// sys_linux}.cc. Every expectation here is what the real kernel does; that the simulation meets it
// too is what makes the simulation worth anything.
#include <cerrno>
#include <string>

#include <poll.h>

#include "seam_rig.h"

namespace {

using namespace seam;

constexpr unsigned kAllEvents = POLLIN | POLLOUT | POLLRDHUP;

}  // namespace

TEST_CASE("seam: connect, accept, send and receive") {
  Environment environment;
  {
    Rig rig;
    const Pair both = rig.pair();
    std::array<char, 32> in{};
    rig.recv(1, both.server, in.data(), in.size());
    rig.settle();
    REQUIRE_FALSE(rig.has(1));
    rig.send(2, both.client, "hello", 5);
    REQUIRE(rig.wait(2).result == 5);
    const Completion got = rig.wait(1);
    REQUIRE(got.result == 5);
    REQUIRE_FALSE(got.more());
    REQUIRE_FALSE(got.has_buffer());
    REQUIRE(std::string(in.data(), 5) == "hello");

    iovec parts[2] = {{const_cast<char*>("ab"), 2}, {const_cast<char*>("cde"), 3}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    io_uring_prep_sendmsg(rig.entry(3), both.server, &message, MSG_NOSIGNAL);
    rig.go();
    REQUIRE(rig.wait(3).result == 5);
    REQUIRE(sys::sendmsg(both.server, &message, 0) == 5);
    rig.settle();
    std::array<char, 4> four{};
    REQUIRE(sys::recv(both.client, four.data(), 4, MSG_PEEK) == 4);
    REQUIRE(std::string(four.data(), 4) == "abcd");
    REQUIRE(rig.read(both.client) == "abcdeabcde");
    REQUIRE(sys::recv(both.client, four.data(), 4, 0) == -EAGAIN);

    SocketAddress name;
    name.length = sizeof name.un;
    REQUIRE(sys::getpeername(both.server, &name.base, &name.length) == 0);
    SocketAddress local;
    local.length = sizeof local.un;
    REQUIRE(sys::getsockname(both.client, &local.base, &local.length) == 0);
    REQUIRE(name == local);
    REQUIRE(name.ip()->to_string() == "127.0.0.1");
    rig.close(both);
    REQUIRE(rig.ring->in_flight() == 0);
  }
  environment.check();
}

TEST_CASE("seam: IPv6 and Unix sockets") {
  Environment environment;
  {
    Rig rig;
    const std::string path = "unix:@weir-seam-test-" + std::to_string(sys::monotonic_ns());
    for (const std::string& where : {std::string("[::1]:0"), path}) {
      const Pair both = rig.pair(where);
      REQUIRE(sys::send(both.client, "x", 1, 0) == 1);
      rig.settle();
      REQUIRE(rig.read(both.server) == "x");
      REQUIRE(sys::send(both.client, "unread", 6, 0) == 6);
      rig.settle();
      REQUIRE(sys::close(both.server) == 0);
      rig.settle();
      std::array<char, 8> in;
      REQUIRE(sys::recv(both.client, in.data(), in.size(), 0) == -ECONNRESET);
      REQUIRE(sys::recv(both.client, in.data(), in.size(), 0) == 0);
      REQUIRE(sys::send(both.client, "y", 1, 0) == -EPIPE);
      REQUIRE(sys::close(both.client) == 0);
    }
    const int fd = sys::socket(AF_UNIX, SOCK_STREAM, 0);
    const SocketAddress nowhere = *SocketAddress::parse("unix:/nonexistent/weir-test");
    rig.connect(1, fd, nowhere);
    REQUIRE(rig.wait(1).result == -ENOENT);
    sys::close(fd);
  }
  environment.check();
}

TEST_CASE("seam: connect refused, and without an answer") {
  Environment environment;
  {
    Rig rig;
    SocketAddress address = *SocketAddress::parse("127.0.0.1:0");
    sys::close(rig.listener(address));
    const int fd = sys::socket(AF_INET, SOCK_STREAM, 0);
    rig.connect(1, fd, address);
    REQUIRE(rig.wait(1).result == -ECONNREFUSED);
    sys::close(fd);

    // A full accept queue (backlog 0 holds one) drops the next SYN: that connect hangs.
    address = *SocketAddress::parse("127.0.0.1:0");
    const int listening = rig.listener(address, 0);
    const int first = rig.dial(address);
    const int second = sys::socket(AF_INET, SOCK_STREAM, 0);
    rig.connect(2, second, address);
    rig.settle(50 * kMs);
    REQUIRE_FALSE(rig.has(2));
    std::array<char, 4> in;
    REQUIRE(sys::recv(second, in.data(), in.size(), 0) == -EAGAIN);
    rig.cancel(3, 2);
    REQUIRE(rig.wait(3).result == 0);
    REQUIRE(rig.wait(2).result == -ECANCELED);
    sys::close(second);
    sys::close(first);
    sys::close(listening);
  }
  environment.check();
}

TEST_CASE("seam: shutdown wakes what waits") {
  Environment environment;
  {
    Rig rig;
    Pair both = rig.pair();
    std::array<char, 8> in;
    rig.recv(1, both.client, in.data(), in.size());
    rig.settle();
    REQUIRE(sys::shutdown(both.client, SHUT_RDWR) == 0);
    REQUIRE(rig.wait(1).result == 0);
    REQUIRE(sys::send(both.client, "x", 1, 0) == -EPIPE);
    REQUIRE(sys::recv(both.client, in.data(), in.size(), 0) == 0);
    rig.settle();
    REQUIRE(sys::recv(both.server, in.data(), in.size(), 0) == 0);  // the FIN went out
    rig.close(both);

    both = rig.pair();
    rig.fill(both.client);
    const std::string more(1000, 'm');
    rig.send(2, both.client, more.data(), more.size());
    rig.settle();
    REQUIRE_FALSE(rig.has(2));
    REQUIRE(sys::shutdown(both.client, SHUT_WR) == 0);
    REQUIRE(rig.wait(2).result == -EPIPE);
    rig.close(both);

    both.client = sys::socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(sys::recv(both.client, in.data(), in.size(), 0) == -ENOTCONN);
    REQUIRE(sys::send(both.client, "x", 1, 0) == -EPIPE);
    REQUIRE(sys::shutdown(both.client, SHUT_RDWR) == -ENOTCONN);
    REQUIRE(sys::recv(both.client, in.data(), in.size(), 0) == 0);  // it took effect nevertheless
    sys::close(both.client);
  }
  environment.check();
}

TEST_CASE("seam: half close") {
  Environment environment;
  {
    Rig rig;
    const Pair both = rig.pair();
    std::array<char, 8> in;
    REQUIRE(sys::send(both.client, "req", 3, 0) == 3);
    REQUIRE(sys::shutdown(both.client, SHUT_WR) == 0);
    rig.settle();
    REQUIRE(rig.read(both.server) == "req");
    REQUIRE(sys::recv(both.server, in.data(), in.size(), 0) == 0);
    REQUIRE(sys::recv(both.server, in.data(), in.size(), 0) == 0);
    REQUIRE(sys::send(both.server, "resp", 4, 0) == 4);
    rig.settle();
    REQUIRE(rig.read(both.client) == "resp");
    REQUIRE(sys::shutdown(both.server, SHUT_WR) == 0);
    rig.settle();
    REQUIRE(sys::recv(both.client, in.data(), in.size(), 0) == 0);
    // Both directions have ended: the connection is gone.
    REQUIRE(sys::shutdown(both.server, SHUT_RDWR) == -ENOTCONN);
    rig.close(both);
  }
  environment.check();
}

TEST_CASE("seam: resets") {
  Environment environment;
  {
    Rig rig;
    std::array<char, 8> in;
    SECTION("closing with unread data") {
      const Pair both = rig.pair();
      REQUIRE(sys::send(both.client, "x", 1, 0) == 1);
      REQUIRE(sys::send(both.server, "y", 1, 0) == 1);
      rig.settle();
      sys::close(both.server);
      rig.settle();
      // What arrived before the reset can still be read.
      REQUIRE(rig.read(both.client) == "y");
      rig.recv(1, both.client, in.data(), in.size());
      REQUIRE(rig.wait(1).result == -ECONNRESET);
      rig.recv(1, both.client, in.data(), in.size());
      REQUIRE(rig.wait(1).result == 0);
      rig.send(2, both.client, "z", 1);
      REQUIRE(rig.wait(2).result == -EPIPE);
      REQUIRE(sys::shutdown(both.client, SHUT_RDWR) == -ENOTCONN);
      SocketAddress name;
      name.length = sizeof name.un;
      REQUIRE(sys::getpeername(both.client, &name.base, &name.length) == -ENOTCONN);
      sys::close(both.client);
    }
    SECTION("sending to a closed peer") {
      const Pair both = rig.pair();
      sys::close(both.server);
      rig.settle();
      rig.send(1, both.client, "x", 1);
      REQUIRE(rig.wait(1).result == 1);
      rig.settle();
      rig.send(2, both.client, "x", 1);
      REQUIRE(rig.wait(2).result == -EPIPE);
      REQUIRE(sys::recv(both.client, in.data(), in.size(), 0) == 0);
      sys::close(both.client);
    }
    SECTION("SO_LINGER of zero seconds, seen by a pending receive, a poll and SO_ERROR") {
      const linger now{.l_onoff = 1, .l_linger = 0};
      Pair both = rig.pair();
      rig.recv(1, both.client, in.data(), in.size());
      rig.settle();
      REQUIRE(sys::setsockopt(both.server, SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
      sys::close(both.server);
      REQUIRE(rig.wait(1).result == -ECONNRESET);
      sys::close(both.client);

      both = rig.pair();
      rig.poll(2, both.client, POLLIN | POLLRDHUP);
      rig.settle();
      REQUIRE(sys::setsockopt(both.server, SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
      sys::close(both.server);
      REQUIRE(rig.wait(2).result == (POLLIN | POLLRDHUP | POLLERR | POLLHUP));
      int error = 0;
      socklen_t length = sizeof error;
      REQUIRE(sys::getsockopt(both.client, SOL_SOCKET, SO_ERROR, &error, &length) == 0);
      REQUIRE(error == ECONNRESET);
      REQUIRE(sys::recv(both.client, in.data(), in.size(), 0) == 0);
      sys::close(both.client);
    }
    SECTION("a send sees the reset first") {
      const Pair both = rig.pair();
      const linger now{.l_onoff = 1, .l_linger = 0};
      REQUIRE(sys::setsockopt(both.server, SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
      sys::close(both.server);
      rig.settle();
      REQUIRE(sys::send(both.client, "x", 1, 0) == -ECONNRESET);
      REQUIRE(sys::send(both.client, "x", 1, 0) == -EPIPE);
      REQUIRE(sys::recv(both.client, in.data(), in.size(), 0) == 0);
      sys::close(both.client);
    }
  }
  environment.check();
}

TEST_CASE("seam: multishot receive") {
  Environment environment;
  {
    Rig rig;
    const Pair both = rig.pair();
    Buffers buffers(rig, 7, 4);
    for (uint16_t id = 0; id < 4; ++id) buffers.give(id);
    rig.recv_select(1, both.server, 7, true);
    REQUIRE(sys::send(both.client, "one", 3, 0) == 3);
    Completion got = rig.wait(1);
    REQUIRE(got.result == 3);
    REQUIRE(got.more());
    REQUIRE(got.has_buffer());
    REQUIRE(got.buffer() == 0);
    REQUIRE(buffers.text(0, 3) == "one");
    // More than a buffer holds takes the next ones.
    const std::string long_text(Buffers::kBytes + 10, 'L');
    REQUIRE(sys::send(both.client, long_text.data(), long_text.size(), 0) ==
            static_cast<ssize_t>(long_text.size()));
    got = rig.wait(1);
    REQUIRE(got.buffer() == 1);
    REQUIRE(got.result == Buffers::kBytes);
    got = rig.wait(1);
    REQUIRE(got.buffer() == 2);
    REQUIRE(got.result == 10);
    REQUIRE(got.more());
    // The end of the stream ends it, without a buffer.
    sys::shutdown(both.client, SHUT_WR);
    got = rig.wait(1);
    REQUIRE(got.result == 0);
    REQUIRE_FALSE(got.more());
    REQUIRE_FALSE(got.has_buffer());
    // Nothing was consumed by that: buffer 3 is still there.
    for (uint16_t id = 0; id < 3; ++id) buffers.give(id);
    REQUIRE(sys::send(both.server, "back", 4, 0) == 4);
    rig.recv_select(2, both.client, 7, false);
    got = rig.wait(2);
    REQUIRE(got.buffer() == 3);
    REQUIRE(got.result == 4);
    REQUIRE_FALSE(got.more());
    buffers.give(3);
    rig.close(both);
    REQUIRE(rig.ring->in_flight() == 0);
  }
  environment.check();
}

TEST_CASE("seam: no buffers") {
  Environment environment;
  {
    Rig rig;
    const Pair both = rig.pair();
    Buffers buffers(rig, 3, 2);
    // Without POLL_FIRST the first attempt wants a buffer before it looks for data.
    rig.recv_select(1, both.server, 3, false);
    REQUIRE(rig.wait(1).result == -ENOBUFS);
    rig.recv_select(1, both.server, 3, true);
    Completion got = rig.wait(1);
    REQUIRE(got.result == -ENOBUFS);
    REQUIRE_FALSE(got.more());
    // With it, nothing is wanted until data is there.
    rig.recv_select(2, both.server, 3, false, true);
    rig.settle();
    REQUIRE_FALSE(rig.has(2));
    REQUIRE(sys::send(both.client, "data", 4, 0) == 4);
    got = rig.wait(2);
    REQUIRE(got.result == -ENOBUFS);
    REQUIRE_FALSE(got.has_buffer());
    // Nothing is lost, and a buffer given later serves.
    buffers.give(1);
    rig.recv_select(3, both.server, 3, true, true);
    got = rig.wait(3);
    REQUIRE(got.result == 4);
    REQUIRE(got.buffer() == 1);
    REQUIRE(got.more());
    REQUIRE(sys::send(both.client, "more", 4, 0) == 4);
    got = rig.wait(3);
    REQUIRE(got.result == -ENOBUFS);
    REQUIRE_FALSE(got.more());
    // An unknown group answers the same.
    rig.recv_select(4, both.server, 99, false);
    REQUIRE(rig.wait(4).result == -ENOBUFS);
    // The end of the stream wants a buffer too.
    REQUIRE(rig.read(both.server) == "more");
    rig.recv_select(5, both.server, 3, false, true);
    rig.settle();
    sys::shutdown(both.client, SHUT_WR);
    REQUIRE(rig.wait(5).result == -ENOBUFS);
    buffers.give(1);
    rig.recv_select(6, both.server, 3, false, true);
    got = rig.wait(6);
    REQUIRE(got.result == 0);
    REQUIRE_FALSE(got.has_buffer());
    rig.close(both);
  }
  environment.check();
}

TEST_CASE("seam: several idle receives share few buffers") {
  Environment environment;
  {
    Rig rig;
    const Pair a = rig.pair();
    const Pair b = rig.pair();
    Buffers buffers(rig, 1, 1);
    buffers.give(0);
    rig.recv_select(1, a.server, 1, false, true);
    rig.recv_select(2, b.server, 1, false, true);
    rig.settle();
    REQUIRE(sys::send(a.client, "a", 1, 0) == 1);
    REQUIRE(rig.wait(1).buffer() == 0);
    REQUIRE(sys::send(b.client, "b", 1, 0) == 1);
    REQUIRE(rig.wait(2).result == -ENOBUFS);
    buffers.give(0);
    rig.close(a);
    rig.close(b);
  }
  environment.check();
}

TEST_CASE("seam: cancel") {
  Environment environment;
  {
    Rig rig;
    const Pair both = rig.pair();
    std::array<char, 8> in;
    std::array<char, 8> other;
    rig.cancel(1, 4711);
    REQUIRE(rig.wait(1).result == -ENOENT);

    rig.recv(2, both.server, in.data(), in.size());
    rig.settle();
    rig.cancel(1, 2);
    REQUIRE(rig.wait(1).result == 0);
    REQUIRE(rig.wait(2).result == -ECANCELED);

    // In one batch: the receive is armed, then cancelled.
    rig.recv(2, both.server, in.data(), in.size());
    rig.cancel(1, 2);
    REQUIRE(rig.wait(1).result == 0);
    REQUIRE(rig.wait(2).result == -ECANCELED);

    // Too late: the receive had its data when it was submitted.
    REQUIRE(sys::send(both.client, "x", 1, 0) == 1);
    rig.settle();
    rig.recv(2, both.server, in.data(), in.size());
    rig.cancel(1, 2);
    REQUIRE(rig.wait(2).result == 1);
    REQUIRE(rig.wait(1).result == -ENOENT);

    // A multishot one ends with ECANCELED and no F_MORE, and takes no buffer.
    Buffers buffers(rig, 5, 2);
    buffers.give(0);
    buffers.give(1);
    rig.recv_select(3, both.server, 5, true);
    rig.settle();
    rig.cancel(1, 3);
    REQUIRE(rig.wait(1).result == 0);
    const Completion ended = rig.wait(3);
    REQUIRE(ended.result == -ECANCELED);
    REQUIRE_FALSE(ended.more());
    REQUIRE_FALSE(ended.has_buffer());

    // All of one descriptor.
    rig.recv(4, both.server, in.data(), in.size());
    rig.poll(5, both.server, POLLRDHUP);
    rig.recv(6, both.client, other.data(), other.size());
    rig.settle();
    io_uring_prep_cancel_fd(rig.entry(1), both.server, IORING_ASYNC_CANCEL_ALL);
    rig.go();
    REQUIRE(rig.wait(1).result == 2);
    REQUIRE(rig.wait(4).result == -ECANCELED);
    REQUIRE(rig.wait(5).result == -ECANCELED);
    rig.settle();
    REQUIRE_FALSE(rig.has(6));
    io_uring_prep_cancel_fd(rig.entry(1), both.server, IORING_ASYNC_CANCEL_ALL);
    rig.go();
    REQUIRE(rig.wait(1).result == 0);
    io_uring_prep_cancel_fd(rig.entry(1), both.server, 0);
    rig.go();
    REQUIRE(rig.wait(1).result == -ENOENT);
    io_uring_prep_cancel_fd(rig.entry(1), both.client, 0);
    rig.go();
    REQUIRE(rig.wait(1).result == 0);
    REQUIRE(rig.wait(6).result == -ECANCELED);
    rig.close(both);
    REQUIRE(rig.ring->in_flight() == 0);
  }
  environment.check();
}

TEST_CASE("seam: poll") {
  Environment environment;
  {
    Rig rig;
    const Pair both = rig.pair();
    rig.poll(1, both.server, kAllEvents);
    REQUIRE(rig.wait(1).result == POLLOUT);
    rig.poll(2, both.server, POLLIN | POLLRDHUP);
    rig.settle();
    REQUIRE_FALSE(rig.has(2));
    REQUIRE(sys::send(both.client, "x", 1, 0) == 1);
    REQUIRE(rig.wait(2).result == POLLIN);
    rig.poll(3, both.server, POLLRDHUP);
    rig.settle();
    REQUIRE_FALSE(rig.has(3));  // one shot, and data is not what it asked for
    REQUIRE(sys::shutdown(both.client, SHUT_WR) == 0);
    REQUIRE(rig.wait(3).result == POLLRDHUP);
    rig.poll(4, both.server, kAllEvents);
    REQUIRE(rig.wait(4).result == (POLLIN | POLLOUT | POLLRDHUP));
    REQUIRE(sys::shutdown(both.server, SHUT_WR) == 0);
    rig.poll(5, both.server, kAllEvents);
    REQUIRE(rig.wait(5).result == (POLLIN | POLLOUT | POLLRDHUP | POLLHUP));
    rig.close(both);

    const Pair full = rig.pair();
    const size_t sent = rig.fill(full.client);
    rig.poll(6, full.client, POLLOUT);
    rig.settle();
    REQUIRE_FALSE(rig.has(6));
    size_t read = 0;
    while (read < sent) {
      read += rig.read(full.server).size();
      rig.settle();
    }
    REQUIRE(read == sent);
    REQUIRE(rig.wait(6).result == POLLOUT);
    rig.close(full);

    // A listener is readable when a connection waits.
    SocketAddress address = *SocketAddress::parse("127.0.0.1:0");
    const int listening = rig.listener(address);
    rig.poll(7, listening, POLLIN);
    rig.settle();
    REQUIRE_FALSE(rig.has(7));
    const int client = rig.dial(address);
    REQUIRE(rig.wait(7).result == POLLIN);
    io_uring_prep_poll_remove(rig.entry(8), 4711);
    rig.go();
    REQUIRE(rig.wait(8).result == -ENOENT);
    rig.poll(9, client, POLLIN);
    rig.settle();
    io_uring_prep_poll_remove(rig.entry(8), 9);
    rig.go();
    REQUIRE(rig.wait(8).result == 0);
    REQUIRE(rig.wait(9).result == -ECANCELED);
    sys::close(client);
    sys::close(listening);
  }
  environment.check();
}

TEST_CASE("seam: accept") {
  Environment environment;
  {
    Rig rig;
    SocketAddress address = *SocketAddress::parse("127.0.0.1:0");
    const int listening = rig.listener(address);
    rig.accept(1, listening, true);
    std::vector<int> clients;
    std::vector<int> servers;
    for (int i = 0; i < 3; ++i) {
      clients.push_back(rig.dial(address));
      const Completion got = rig.wait(1);
      REQUIRE(got.result >= 0);
      REQUIRE(got.more());
      servers.push_back(got.result);
    }
    rig.cancel(2, 1);
    REQUIRE(rig.wait(2).result == 0);
    Completion ended = rig.wait(1);
    REQUIRE(ended.result == -ECANCELED);
    REQUIRE_FALSE(ended.more());

    // One-shot, with the peer's address.
    SocketAddress from;
    from.length = sizeof from.un;
    io_uring_prep_accept(rig.entry(3), listening, &from.base, &from.length,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
    rig.go();
    clients.push_back(rig.dial(address));
    const Completion one = rig.wait(3);
    REQUIRE_FALSE(one.more());
    servers.push_back(one.result);
    SocketAddress local;
    local.length = sizeof local.un;
    REQUIRE(sys::getsockname(clients.back(), &local.base, &local.length) == 0);
    REQUIRE(from == local);

    rig.accept(4, listening, true);
    rig.settle();
    REQUIRE(sys::shutdown(listening, SHUT_RDWR) == 0);
    ended = rig.wait(4);
    REQUIRE(ended.result == -EINVAL);
    REQUIRE_FALSE(ended.more());
    sys::close(listening);
    for (const int fd : clients) sys::close(fd);
    for (const int fd : servers) sys::close(fd);

    // A connection still queued when the listener closes is reset.
    address = *SocketAddress::parse("127.0.0.1:0");
    const int second = rig.listener(address);
    REQUIRE(sys::accept(second) == -EAGAIN);
    const int taken = rig.dial(address);
    rig.settle();
    const int by_call = sys::accept(second);
    REQUIRE(by_call >= 0);
    sys::close(taken);
    sys::close(by_call);
    const int queued = rig.dial(address);
    sys::close(second);
    rig.settle();
    std::array<char, 4> in;
    REQUIRE(sys::recv(queued, in.data(), in.size(), 0) == -ECONNRESET);
    sys::close(queued);
    // An accept on what does not listen.
    const int plain = sys::socket(AF_INET, SOCK_STREAM, 0);
    rig.accept(5, plain, false);
    REQUIRE(rig.wait(5).result == -EINVAL);
    REQUIRE(sys::accept(plain) == -EINVAL);
    sys::close(plain);
  }
  environment.check();
}

TEST_CASE("seam: eventfd, NOP, CLOSE, TIMEOUT and waiting") {
  Environment environment;
  {
    Rig rig;
    const int event = sys::wake_fd();
    uint64_t counter = 0;
    io_uring_prep_read(rig.entry(1), event, &counter, sizeof counter, 0);
    rig.go();
    rig.settle();
    REQUIRE_FALSE(rig.has(1));
    sys::wake(event);
    REQUIRE(rig.wait(1).result == 8);
    REQUIRE(counter == 1);
    sys::wake(event);
    sys::wake(event);
    io_uring_prep_read(rig.entry(1), event, &counter, sizeof counter, 0);
    rig.go();
    REQUIRE(rig.wait(1).result == 8);
    REQUIRE(counter == 2);
    io_uring_prep_nop(rig.entry(2));
    rig.go();
    const Completion nothing = rig.wait(2);
    REQUIRE(nothing.result == 0);
    REQUIRE(nothing.flags == 0);
    io_uring_prep_close(rig.entry(3), event);
    rig.go();
    REQUIRE(rig.wait(3).result == 0);

    const uint64_t before = sys::monotonic_ns();
    rig.ring->submit_and_wait(20 * kMs);
    REQUIRE(sys::monotonic_ns() - before >= 20 * kMs);
    REQUIRE(rig.ring->reap([](uint64_t, int32_t, uint32_t) {}) == 0);
    __kernel_timespec limit{.tv_sec = 0, .tv_nsec = 5'000'000};
    io_uring_prep_timeout(rig.entry(4), &limit, 0, 0);
    rig.go();
    rig.ring->submit_and_wait(weir::runtime::kWaitForever);
    REQUIRE(rig.wait(4).result == -ETIME);
    REQUIRE(rig.ring->in_flight() == 0);
  }
  environment.check();
}

TEST_CASE("seam: MSG_WAITALL sends it all, without it a send may be short") {
  Environment environment;
  {
    Rig rig;
    const Pair both = rig.pair();
    const std::string big(32 << 20, 'B');
    rig.send(1, both.client, big.data(), big.size(), MSG_WAITALL);
    size_t read = 0;
    while (read < big.size()) {
      rig.settle(kMs);
      while (true) {
        const size_t got = rig.read(both.server).size();
        if (got == 0) break;
        read += got;
      }
    }
    REQUIRE(rig.wait(1).result == static_cast<int32_t>(big.size()));
    rig.send(2, both.client, big.data(), big.size(), 0);
    const Completion part = rig.wait(2);
    REQUIRE(part.result > 0);
    REQUIRE(part.result < static_cast<int32_t>(big.size()));
    std::array<char, 8> in{};
    rig.recv(3, both.client, in.data(), in.size(), MSG_WAITALL);
    REQUIRE(sys::send(both.server, "1234", 4, 0) == 4);
    rig.settle();
    REQUIRE_FALSE(rig.has(3));
    REQUIRE(sys::send(both.server, "5678", 4, 0) == 4);
    REQUIRE(rig.wait(3).result == 8);
    REQUIRE(std::string(in.data(), 8) == "12345678");
    rig.close(both);
  }
  environment.check();
}

TEST_CASE("seam: binding") {
  Environment environment;
  {
    Rig rig;
    SocketAddress address = *SocketAddress::parse("127.0.0.1:0");
    const int first = rig.listener(address);
    const int on = 1;
    int second = sys::socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(sys::bind(second, &address.base, address.length) == -EADDRINUSE);
    REQUIRE(sys::setsockopt(second, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0);
    REQUIRE(sys::bind(second, &address.base, address.length) == -EADDRINUSE);
    sys::close(first);
    REQUIRE(sys::bind(second, &address.base, address.length) == 0);
    REQUIRE(sys::listen(second, 16) == 0);
    const int third = sys::socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(sys::setsockopt(third, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0);
    REQUIRE(sys::bind(third, &address.base, address.length) == 0);
    REQUIRE(sys::listen(third, 16) == 0);
    // Every connection reaches one of the two.
    rig.accept(1, second, true);
    rig.accept(2, third, true);
    std::vector<int> fds;
    for (int i = 0; i < 8; ++i) fds.push_back(rig.dial(address));
    rig.settle();
    size_t accepted = 0;
    for (const Completion& completion : rig.seen) {
      if (completion.user_data != 1 && completion.user_data != 2) continue;
      REQUIRE(completion.result >= 0);
      fds.push_back(completion.result);
      ++accepted;
    }
    rig.seen.clear();
    REQUIRE(accepted == 8);
    for (const uint64_t target : {1, 2}) {
      rig.cancel(3, target);
      REQUIRE(rig.wait(3).result == 0);
      REQUIRE(rig.wait(target).result == -ECANCELED);
    }
    for (const int fd : fds) sys::close(fd);
    sys::close(second);
    sys::close(third);

    int value = 0;
    socklen_t length = sizeof value;
    second = sys::socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(sys::getsockopt(second, SOL_SOCKET, SO_REUSEPORT, &value, &length) == 0);
    REQUIRE(value == 0);
    sys::close(second);
    // The any address of IPv6 takes IPv4 as well.
    address = *SocketAddress::parse("*:0");
    const int any = rig.listener(address);
    const SocketAddress v4 =
        SocketAddress::from_ip(*weir::base::IpAddress::parse("127.0.0.1"), address.port());
    const int client = rig.dial(v4);
    rig.accept(4, any, false);
    const int server = rig.wait(4).result;
    REQUIRE(server >= 0);
    sys::close(server);
    sys::close(client);
    sys::close(any);
  }
  environment.check();
}

TEST_CASE("seam: registering buffers") {
  Environment environment;
  {
    Rig rig;
    Buffers buffers(rig, 1, 4);
    REQUIRE_FALSE(rig.ring->register_buffer_ring(buffers.memory(), 4, 1).has_value());
    REQUIRE_FALSE(rig.ring->register_buffer_ring(buffers.memory(), 3, 2).has_value());
    auto* unaligned =
        reinterpret_cast<io_uring_buf_ring*>(reinterpret_cast<char*>(buffers.memory()) + 64);
    REQUIRE_FALSE(rig.ring->register_buffer_ring(unaligned, 4, 2).has_value());
  }
  environment.check();
}
