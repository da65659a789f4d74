// What the tests of the seam share: a ring, the completions it gave, and a connected pair of
// sockets, all through weir/runtime/{ring,sys}.h, so that the same test runs on either kernel.
#pragma once

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <weir/base/ip.h>
#include <weir/runtime/ring.h>
#include <weir/runtime/sys.h>

#ifndef WEIR_REAL_KERNEL
#include <sim/sim_kernel.h>
#endif

#include <catch2/catch_test_macros.hpp>

namespace seam {

namespace sys = weir::runtime::sys;
using weir::base::SocketAddress;
using weir::runtime::Ring;
using weir::runtime::RingOptions;

inline constexpr uint64_t kMs = 1'000'000;

// To be made first in each test and checked last.
#ifdef WEIR_REAL_KERNEL
struct Environment {
  static void check() {}
};
#else
struct Environment {
  weir::sim::Kernel kernel{1};
  void check() { REQUIRE(kernel.finish() == ""); }
};
#endif

struct Completion {
  uint64_t user_data;
  int32_t result;
  uint32_t flags;

  [[nodiscard]] bool more() const { return (flags & IORING_CQE_F_MORE) != 0; }
  [[nodiscard]] bool has_buffer() const { return (flags & IORING_CQE_F_BUFFER) != 0; }
  [[nodiscard]] uint16_t buffer() const {
    return static_cast<uint16_t>(flags >> IORING_CQE_BUFFER_SHIFT);
  }
};

struct Pair {
  int client;
  int server;
};

class Rig {
 public:
  Rig() {
    auto opened = Ring::open(RingOptions{.entries = 64, .cq_entries = 512});
    REQUIRE(opened.has_value());
    ring = std::move(*opened);
  }

  // Lets what is under way arrive: longer than any delivery of a run without faults takes.
  void settle(uint64_t ns = 10 * kMs) {
    const uint64_t until = sys::monotonic_ns() + ns;
    while (sys::monotonic_ns() < until) {
      ring->submit_and_wait(until - sys::monotonic_ns());
      reap();
    }
  }
  // The next completion of that operation (fails the test after a second).
  Completion wait(uint64_t user_data) {
    const uint64_t until = sys::monotonic_ns() + 1000 * kMs;
    while (true) {
      const auto found = std::find_if(seen.begin(), seen.end(), [&](const Completion& completion) {
        return completion.user_data == user_data;
      });
      if (found != seen.end()) {
        const Completion result = *found;
        seen.erase(found);
        return result;
      }
      REQUIRE(sys::monotonic_ns() < until);
      ring->submit_and_wait(100 * kMs);
      reap();
    }
  }
  [[nodiscard]] bool has(uint64_t user_data) const {
    return std::any_of(seen.begin(), seen.end(), [&](const Completion& completion) {
      return completion.user_data == user_data;
    });
  }

  io_uring_sqe* entry(uint64_t user_data) {
    io_uring_sqe* sqe = ring->sqe();
    pending_ = user_data;
    sqe_ = sqe;
    return sqe;
  }
  // To be called after the entry is prepared: the prep functions leave user_data alone.
  void go() { sqe_->user_data = pending_; }

  void recv(uint64_t id, int fd, void* out, size_t bytes, int flags = 0) {
    io_uring_prep_recv(entry(id), fd, out, bytes, flags);
    go();
  }
  void recv_select(uint64_t id, int fd, uint16_t group, bool multishot, bool poll_first = false) {
    io_uring_sqe* sqe = entry(id);
    if (multishot) {
      io_uring_prep_recv_multishot(sqe, fd, nullptr, 0, 0);
    } else {
      io_uring_prep_recv(sqe, fd, nullptr, 0, 0);
    }
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = group;
    if (poll_first) sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    go();
  }
  void send(uint64_t id, int fd, const void* data, size_t bytes, int flags = 0) {
    io_uring_prep_send(entry(id), fd, data, bytes, flags | MSG_NOSIGNAL);
    go();
  }
  void poll(uint64_t id, int fd, unsigned mask) {
    io_uring_prep_poll_add(entry(id), fd, mask);
    go();
  }
  void cancel(uint64_t id, uint64_t target) {
    io_uring_prep_cancel64(entry(id), target, 0);
    go();
  }
  void connect(uint64_t id, int fd, const SocketAddress& to) {
    io_uring_prep_connect(entry(id), fd, &to.base, to.length);
    go();
  }
  void accept(uint64_t id, int fd, bool multishot) {
    io_uring_sqe* sqe = entry(id);
    if (multishot) {
      io_uring_prep_multishot_accept(sqe, fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    } else {
      io_uring_prep_accept(sqe, fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    }
    go();
  }

  int listener(SocketAddress& address, int backlog = 16) {
    const int fd = sys::socket(address.base.sa_family, SOCK_STREAM, 0);
    REQUIRE(fd >= 0);
    REQUIRE(sys::bind(fd, &address.base, address.length) == 0);
    REQUIRE(sys::listen(fd, backlog) == 0);
    address.length = sizeof address.un;
    REQUIRE(sys::getsockname(fd, &address.base, &address.length) == 0);
    return fd;
  }
  int dial(const SocketAddress& to) {
    const int fd = sys::socket(to.base.sa_family, SOCK_STREAM, 0);
    REQUIRE(fd >= 0);
    connect(9001, fd, to);
    REQUIRE(wait(9001).result == 0);
    return fd;
  }
  Pair pair(std::string_view where = "127.0.0.1:0") {
    SocketAddress address = *SocketAddress::parse(where);
    const int listening = listener(address);
    const int client = dial(address);
    accept(9002, listening, false);
    const int server = wait(9002).result;
    REQUIRE(server >= 0);
    REQUIRE(sys::close(listening) == 0);
    return {client, server};
  }
  void close(Pair both) {
    REQUIRE(sys::close(both.client) == 0);
    REQUIRE(sys::close(both.server) == 0);
  }
  std::string read(int fd) {
    std::string text(65536, '\0');
    const ssize_t got = sys::recv(fd, text.data(), text.size(), 0);
    text.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return text;
  }
  // Fills the connection until it takes no more.
  size_t fill(int fd) {
    const std::string data(65536, 'f');
    size_t total = 0;
    while (true) {
      const ssize_t sent = sys::send(fd, data.data(), data.size(), 0);
      if (sent > 0) {
        total += static_cast<size_t>(sent);
        continue;
      }
      const size_t before = total;
      settle();
      const ssize_t again = sys::send(fd, data.data(), data.size(), 0);
      if (again > 0) total += static_cast<size_t>(again);
      if (total == before) return total;
    }
  }

  std::unique_ptr<Ring> ring;
  std::vector<Completion> seen;

 private:
  void reap() {
    ring->reap([this](uint64_t user_data, int32_t result, uint32_t flags) {
      seen.push_back({user_data, result, flags});
    });
  }
  uint64_t pending_ = 0;
  io_uring_sqe* sqe_ = nullptr;
};

// A registered group of buffers.
class Buffers {
 public:
  static constexpr uint32_t kBytes = 64;

  Buffers(Rig& rig, uint16_t group, uint32_t entries)
      : rig_(rig), group_(group), entries_(entries), storage_(entries) {
    memory_ = static_cast<io_uring_buf_ring*>(std::aligned_alloc(4096, 4096));
    std::fill_n(reinterpret_cast<char*>(memory_), 4096, '\0');
    io_uring_buf_ring_init(memory_);
    REQUIRE(rig.ring->register_buffer_ring(memory_, entries, group).has_value());
  }
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  ~Buffers() {
    rig_.ring->unregister_buffer_ring(group_);
    std::free(memory_);
  }
  void give(uint16_t id) {
    io_uring_buf_ring_add(memory_, storage_[id].data(), kBytes, id,
                          io_uring_buf_ring_mask(entries_), 0);
    io_uring_buf_ring_advance(memory_, 1);
  }
  [[nodiscard]] std::string text(uint16_t id, int32_t bytes) const {
    return std::string(storage_[id].data(), static_cast<size_t>(bytes));
  }
  [[nodiscard]] io_uring_buf_ring* memory() { return memory_; }

 private:
  Rig& rig_;
  uint16_t group_;
  uint32_t entries_;
  io_uring_buf_ring* memory_;
  std::vector<std::array<char, kBytes>> storage_;
};

}  // namespace seam
