// Listening sockets and outgoing connections, on loopback.
#include <array>
#include <cstdlib>
#include <filesystem>
#include <set>

#include <arpa/inet.h>
#include <sys/stat.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "../runtime/engine.h"
#include "link.h"

using namespace weir;
using namespace weir::net;
using namespace weir::net::test;
using runtime::Task;
using runtime::test::Engine;

namespace {

class Directory {
 public:
  Directory() {
    char name[] = "/tmp/weir-net-test-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  [[nodiscard]] base::SocketAddress socket(const std::string& name) const {
    return *base::SocketAddress::parse("unix:" + path(name));
  }
  [[nodiscard]] std::string path(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

base::SocketAddress parse(std::string_view text) { return *base::SocketAddress::parse(text); }

struct Connecting {
  bool done = false;
  int fd = -1;
  base::Error error{};
  ConnectHandle handle;
  ~Connecting() {
    if (fd >= 0) close(fd);
  }
};

Task<> try_connect(runtime::Reactor& reactor, base::SocketAddress address, uint32_t timeout_ms,
                   Connecting& out) {
  const auto fd = co_await connect(reactor, address, timeout_ms, &out.handle);
  if (fd) {
    out.fd = *fd;
  } else {
    out.error = fd.error();
  }
  out.done = true;
}

// A listener whose backlog is full: further connects hang.
struct FullListener {
  FullListener() {
    const auto opened = open_listener(parse("127.0.0.1:0"), {.backlog = 0, .reuse_port = false});
    REQUIRE(opened);
    fd = *opened;
    address = *bound_address(fd);
    for (int i = 0; i < 4; ++i) {
      const int client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
      static_cast<void>(::connect(client, &address.base, address.length));
      clients.push_back(client);
    }
  }
  ~FullListener() {
    for (const int client : clients) close(client);
    close(fd);
  }
  int fd = -1;
  base::SocketAddress address;
  std::vector<int> clients;
};

}  // namespace

TEST_CASE("port 0 becomes a real port, which a second socket of the group shares") {
  const auto first = open_listener(parse("127.0.0.1:0"), {});
  REQUIRE(first);
  const auto address = bound_address(*first);
  REQUIRE(address);
  CHECK(address->port() != 0);
  CHECK(address->ip() == base::IpAddress::parse("127.0.0.1"));
  const auto second = open_listener(*address, {});
  REQUIRE(second);
  const auto alone = open_listener(*address, {.reuse_port = false});
  REQUIRE_FALSE(alone);
  CHECK(alone.error().code == base::Errc::kAddressInUse);
  close(*first);
  close(*second);
}

TEST_CASE("an address that is not ours is refused") {
  const auto fd = open_listener(parse("192.0.2.1:0"), {});
  REQUIRE_FALSE(fd);
  CHECK(fd.error().os == EADDRNOTAVAIL);
  CHECK(fd.error().code == base::Errc::kAddressInvalid);
}

TEST_CASE("a Unix socket has its mode and its address") {
  const Directory directory;
  const auto fd = open_listener(directory.socket("s"), {.unix_mode = 0600});
  REQUIRE(fd);
  struct stat info{};
  REQUIRE(stat(directory.path("s").c_str(), &info) == 0);
  CHECK(S_ISSOCK(info.st_mode));
  CHECK((info.st_mode & 0777) == 0600);
  CHECK(bound_address(*fd)->to_string() == "unix:" + directory.path("s"));
  close(*fd);
}

TEST_CASE("a Unix socket's file that nobody listens on is replaced, a living one is not") {
  const Directory directory;
  const auto first = open_listener(directory.socket("s"), {});
  REQUIRE(first);
  const auto living = open_listener(directory.socket("s"), {});
  REQUIRE_FALSE(living);
  CHECK(living.error().code == base::Errc::kAddressInUse);
  CHECK(std::filesystem::exists(directory.path("s")));
  close(*first);
  const auto second = open_listener(directory.socket("s"), {});
  REQUIRE(second);
  close(*second);
}

TEST_CASE("a Unix listener with a full backlog is living, too") {
  const Directory directory;
  const auto first = open_listener(directory.socket("s"), {.backlog = 0});
  REQUIRE(first);
  const base::SocketAddress address = directory.socket("s");
  std::vector<int> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
    static_cast<void>(::connect(clients.back(), &address.base, address.length));
  }
  CHECK_FALSE(open_listener(address, {}));
  for (const int client : clients) close(client);
  close(*first);
}

TEST_CASE("a file that is no socket is never removed") {
  const Directory directory;
  std::filesystem::create_directory(directory.path("s"));
  CHECK_FALSE(open_listener(directory.socket("s"), {}));
  CHECK(std::filesystem::is_directory(directory.path("s")));
  FILE* file = fopen(directory.path("f").c_str(), "w");
  REQUIRE(file != nullptr);
  fclose(file);
  CHECK_FALSE(open_listener(directory.socket("f"), {}));
  CHECK(std::filesystem::exists(directory.path("f")));
  std::filesystem::create_symlink(directory.path("nowhere"), directory.path("l"));
  CHECK_FALSE(open_listener(directory.socket("l"), {}));
  CHECK(std::filesystem::is_symlink(directory.path("l")));
}

TEST_CASE("the IPv6 wildcard serves IPv4 as well, an IPv6 address does not") {
  const auto both = open_listener(parse("*:0"), {});
  if (!both && both.error().code == base::Errc::kIo) SKIP("no IPv6 here");
  REQUIRE(both);
  base::SocketAddress target = parse("127.0.0.1:0");
  target.set_port(bound_address(*both)->port());
  const int client = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(::connect(client, &target.base, target.length) == 0);
  close(client);
  close(*both);
  const auto six = open_listener(parse("[::1]:0"), {});
  if (!six) SKIP("no ::1 here");
  int only = 0;
  socklen_t size = sizeof only;
  REQUIRE(getsockopt(*six, IPPROTO_IPV6, IPV6_V6ONLY, &only, &size) == 0);
  CHECK(only == 1);
  close(*six);
}

TEST_CASE("connect: success over TCP and Unix, with the data path's options") {
  Engine engine;
  const Directory directory;
  for (const base::SocketAddress& at : {parse("127.0.0.1:0"), directory.socket("s")}) {
    const auto listener = open_listener(at, {.reuse_port = false});
    REQUIRE(listener);
    Connecting connecting;
    REQUIRE(engine.run(try_connect(*engine, *bound_address(*listener), 5000, connecting)));
    REQUIRE(connecting.fd >= 0);
    char byte;
    CHECK(recv(connecting.fd, &byte, 1, 0) == -1);
    CHECK(errno == EAGAIN);
    CHECK(engine->timers().armed() == 0);
    connecting.handle.cancel();  // too late, harmless
    close(*listener);
  }
}

TEST_CASE("connect: refused, and a Unix socket that is not there") {
  const size_t descriptors = open_descriptors();
  {
    Engine engine;
    const auto listener = open_listener(parse("127.0.0.1:0"), {});
    REQUIRE(listener);
    const base::SocketAddress address = *bound_address(*listener);
    close(*listener);
    Connecting refused;
    REQUIRE(engine.run(try_connect(*engine, address, 5000, refused)));
    CHECK(refused.error.code == base::Errc::kRefused);
    const Directory directory;
    Connecting missing;
    REQUIRE(engine.run(try_connect(*engine, directory.socket("none"), 5000, missing)));
    CHECK(missing.error.code == base::Errc::kNotFound);
  }
  CHECK(open_descriptors() == descriptors);
}

TEST_CASE("connect: a listener that does not take it, until the timeout or a cancel") {
  const size_t descriptors = open_descriptors();
  {
    Engine engine;
    const FullListener full;
    Connecting slow;
    engine->turn(false);
    const uint64_t start = engine->now_ms();
    REQUIRE(engine.run(try_connect(*engine, full.address, 40, slow)));
    CHECK(slow.error.code == base::Errc::kTimedOut);
    CHECK(engine->now_ms() - start >= 40);

    Connecting cancelled;
    engine.tasks.spawn(try_connect(*engine, full.address, 60'000, cancelled));
    engine.settle();
    REQUIRE_FALSE(cancelled.done);
    cancelled.handle.cancel();
    cancelled.handle.cancel();
    REQUIRE(engine.run_until([&] { return cancelled.done; }));
    CHECK(cancelled.error.code == base::Errc::kCancelled);
    CHECK(engine->timers().armed() == 0);

    // The handle can be used for another connect; the cancel does not stick to it.
    const auto listener = open_listener(parse("127.0.0.1:0"), {});
    REQUIRE(listener);
    Connecting again;
    again.handle.cancel();
    REQUIRE(engine.run(try_connect(*engine, *bound_address(*listener), 5000, again)));
    CHECK(again.fd >= 0);
    close(*listener);
  }
  CHECK(open_descriptors() == descriptors);
}

TEST_CASE("balancing by client address: the same client always meets the same socket") {
  constexpr uint32_t kSockets = 4;
  std::array<int, kSockets> listeners{};
  base::SocketAddress address = parse("127.0.0.1:0");
  for (int& fd : listeners) {
    const auto opened = open_listener(address, {});
    REQUIRE(opened);
    fd = *opened;
    address = *bound_address(fd);
  }
  REQUIRE(balance_by_client_ip(listeners[0], kSockets));
  CHECK_FALSE(balance_by_client_ip(listeners[0], 0));
  std::set<size_t> used;
  for (int host = 1; host <= 40; ++host) {
    const std::string source = "127.0.0." + std::to_string(host) + ":0";
    std::set<size_t> of_this_client;
    for (int i = 0; i < 5; ++i) {
      const base::SocketAddress from = parse(source);
      const int client = socket(AF_INET, SOCK_STREAM, 0);
      REQUIRE(bind(client, &from.base, from.length) == 0);
      REQUIRE(::connect(client, &address.base, address.length) == 0);
      for (size_t k = 0; k < kSockets; ++k) {
        const int accepted = accept4(listeners[k], nullptr, nullptr, 0);
        if (accepted < 0) continue;
        of_this_client.insert(k);
        close(accepted);
      }
      close(client);
    }
    CHECK(of_this_client.size() == 1);
    used.insert(of_this_client.begin(), of_this_client.end());
  }
  CHECK(used.size() == kSockets);  // 40 clients do not all fall on three
  for (const int fd : listeners) close(fd);
}
