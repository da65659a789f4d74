// The socket of `weir ctl`: its file, its connections and their bounds, the question to the cores.
#include <memory>
#include <string>
#include <vector>

#include <sys/stat.h>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/control_socket.h>
#include <weir/runtime/sys.h>

#include "../net/link.h"
#include "../runtime/engine.h"
#include "directory.h"

using namespace weir;
using control::ControlHooks;
using control::ControlSocket;
using control::ControlSocketOptions;
using control::ServerView;
using control::test::Directory;
using net::test::open_descriptors;
using net::test::Peer;
using upstream::UpstreamScrape;

namespace {

mode_t mode_of(const std::string& path) {
  struct stat file{};
  REQUIRE(lstat(path.c_str(), &file) == 0);
  CHECK(S_ISSOCK(file.st_mode));
  return file.st_mode & 07777;
}

Peer knock(const std::string& path) {
  const auto address = *base::SocketAddress::parse("unix:" + path);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  REQUIRE(fd >= 0);
  REQUIRE(connect(fd, &address.base, address.length) == 0);
  return Peer(fd);
}

// A socket file that nobody listens on any more.
void leave_stale(const std::string& path) {
  const auto address = *base::SocketAddress::parse("unix:" + path);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(bind(fd, &address.base, address.length) == 0);
  REQUIRE(listen(fd, 1) == 0);
  close(fd);
}

struct Rig {
  explicit Rig(uint32_t cores = 2, ControlSocketOptions how = {}) {
    options = std::move(how);
    options.path = directory.path("control.sock");
    hooks.servers = [this] {
      ++looks;
      ServerView view;
      view.upstream = "api";
      view.upstream_id = 1;
      view.name = view.address = std::string(name_bytes, 'x');
      return std::vector<ServerView>(servers, view);
    };
    hooks.set_state = [this](std::string_view, std::string_view server,
                             route::ServerState) -> std::expected<void, std::string> {
      orders.emplace_back(server);
      return {};
    };
    hooks.set_weight = [](std::string_view, std::string_view,
                          uint32_t) -> std::expected<void, std::string> { return {}; };
    hooks.reload = [this]() -> std::expected<void, std::string> {
      ++reloads;
      if (reload_refused) return std::unexpected("it is wrong");
      if (at_once) door->on_reloaded(7);
      return {};
    };
    hooks.ask_core = [this](uint32_t core, UpstreamScrape& into) {
      asked.push_back({core, &into});
      if (at_once) answer_core(core);
    };
    auto opened = ControlSocket::open(*engine, logger, options, hooks);
    if (!opened) FAIL(opened.error());
    door = std::move(*opened);
    door->start(cores);
  }
  ~Rig() { close(); }
  void close() {
    if (!door) return;
    door->stop();
    CHECK(engine.run_until([&] { return door->stopped(); }));
    CHECK(door->connections() == 0);
    door.reset();
  }
  void answer_core(uint32_t core, uint32_t active = 0) {
    for (const auto& [which, into] : asked) {
      if (which == core && active != 0) into->upstreams = {{.upstream = 1, .active = active}};
    }
    door->on_scraped(core);
  }
  Peer visit(std::string_view request) {
    Peer peer = knock(options.path);
    peer.send_all(request);
    return peer;
  }
  bool finished(Peer& peer, uint64_t limit_ms = 10'000) {
    return engine.run_until(
        [&] {
          engine->wake();
          peer.take();
          return peer.over();
        },
        limit_ms);
  }
  std::string ask(std::string_view request) {
    Peer peer = visit(request);
    CHECK(finished(peer));
    return peer.text;
  }

  runtime::test::Engine engine{{.buffers = 16, .ring_entries = 16}};
  Directory directory;
  log::Logger logger{&runtime::sys::realtime_us, log::Level::kOff};
  ControlSocketOptions options;
  ControlHooks hooks;
  std::unique_ptr<ControlSocket> door;
  std::vector<std::pair<uint32_t, UpstreamScrape*>> asked;
  std::vector<std::string> orders;
  size_t servers = 1;
  size_t name_bytes = 4;
  int looks = 0;
  int reloads = 0;
  bool reload_refused = false;
  bool at_once = false;
};

}  // namespace

TEST_CASE("a request, an answer, the end") {
  Rig rig;
  rig.at_once = true;
  CHECK(rig.ask("text set api x drain\n").starts_with("ok "));
  CHECK(rig.orders == std::vector<std::string>{"x"});
  CHECK(rig.ask("json version\r\n").starts_with("{\"ok\":true,"));
  CHECK(rig.ask("json upstreams\n").starts_with("{\"ok\":true,\"cores\":2,"));
  CHECK(rig.ask("nonsense\n").starts_with("usage "));
  CHECK(rig.ask("json nonsense\n").starts_with("{\"ok\":false,\"kind\":\"usage\","));
  CHECK(rig.ask("\n").starts_with("usage "));
  CHECK(rig.door->connections() == 0);
}

TEST_CASE("a request in pieces, and one that never ends") {
  Rig rig(1, {.request_timeout_ms = 300});
  Peer pieces = rig.visit("text set ap");
  rig.engine.pass(5);
  CHECK(rig.door->connections() == 1);
  pieces.send_all("i y up\n");
  CHECK(rig.finished(pieces));
  CHECK(pieces.text.starts_with("ok "));

  Peer half = rig.visit("json set api z down");
  CHECK(rig.finished(half));
  CHECK(half.text.contains("no whole request came within 300ms"));
  CHECK(half.text.starts_with("{\"ok\":false"));

  // The sender is gone: what came may be a part of the last word.
  Peer cut = rig.visit("text set api z down");
  cut.finish();
  CHECK(rig.finished(cut));
  CHECK(cut.text.contains("no end of line"));

  Peer silent = rig.visit("");
  silent.finish();
  CHECK(rig.finished(silent));
  CHECK(silent.text.empty());
  CHECK(rig.orders == std::vector<std::string>{"y"});
}

TEST_CASE("a request of the greatest length, and of one byte more") {
  Rig rig;
  const std::string start = "text set api ";
  const auto sized = [&](size_t bytes) {
    return start + std::string(bytes - start.size() - 3, 'a') + " up\n";
  };
  CHECK(rig.ask(sized(ControlSocket::kRequestBytesMax)).starts_with("ok "));
  CHECK(rig.ask(sized(ControlSocket::kRequestBytesMax + 1)).contains("at most 4096 bytes"));
  CHECK(rig.ask(std::string(100'000, 'a')).contains("at most 4096 bytes"));
  CHECK(rig.orders.size() == 1);
}

TEST_CASE("bytes behind the request do not reset its answer") {
  Rig rig;
  Peer peer = rig.visit("text version\n" + std::string(50'000, 'x'));
  peer.finish();
  CHECK(rig.finished(peer));
  CHECK(peer.text.starts_with("ok "));
  CHECK(peer.error == 0);
}

TEST_CASE("the answer waits for all cores") {
  Rig rig(3);
  Peer peer = rig.visit("json upstreams\n");
  REQUIRE(rig.engine.run_until([&] { return rig.asked.size() == 3; }));
  rig.answer_core(0, 1);
  rig.answer_core(2, 10);
  rig.answer_core(2, 10);  // nonsense that must not count
  rig.door->on_scraped(7);
  rig.engine.pass(5);
  peer.take();
  CHECK(peer.text.empty());
  rig.answer_core(1, 100);
  CHECK(rig.finished(peer));
  CHECK(peer.text.contains("\"active\":111,"));
}

TEST_CASE("the answer to a reload waits until it is over; numbers do not wait for it") {
  Rig rig;
  Peer reload = rig.visit("json reload\n");
  CHECK(rig.engine.run_until([&] { return rig.reloads == 1; }));
  Peer numbers = rig.visit("json upstreams\n");
  CHECK(rig.engine.run_until([&] { return rig.asked.size() == 2; }));
  rig.answer_core(0);
  rig.answer_core(1);
  CHECK(rig.finished(numbers));
  CHECK(numbers.text.starts_with("{\"ok\":true,"));
  Peer second = rig.visit("text reload\n");
  CHECK(rig.engine.run_until([&] { return rig.reloads == 2; }));
  CHECK_FALSE(reload.over());
  rig.door->on_reloaded(5);
  CHECK(rig.finished(reload));
  CHECK(reload.text == "{\"ok\":true,\"generation\":5}\n");
  CHECK(rig.finished(second));
  CHECK(second.text.ends_with("reloaded: generation 5\n"));

  Peer bad = rig.visit("json reload\n");
  CHECK(rig.engine.run_until([&] { return rig.reloads == 3; }));
  rig.door->on_reloaded(std::unexpected("refused"));
  CHECK(rig.finished(bad));
  CHECK(bad.text.contains("\"error\":\"refused\""));
  rig.at_once = true;
  CHECK(rig.ask("text reload\n").ends_with("reloaded: generation 7\n"));
  rig.reload_refused = true;
  CHECK(rig.ask("text reload\n").contains("it is wrong"));
}

TEST_CASE("a reload that takes too long, and one that the end overtakes") {
  Rig rig(1, {.answer_timeout_ms = 200});
  Peer slow = rig.visit("text reload\n");
  CHECK(rig.finished(slow));
  CHECK(slow.text.contains("still being looked at"));
  rig.door->on_reloaded(5);
  Peer last = rig.visit("text reload\n");
  CHECK(rig.engine.run_until([&] { return rig.reloads == 2; }));
  rig.close();
}

TEST_CASE("requests share a question to the cores, but not one that began before they came") {
  Rig rig(1);
  Peer first = rig.visit("json upstreams\n");
  REQUIRE(rig.engine.run_until([&] { return rig.asked.size() == 1; }));
  std::vector<Peer> others;
  for (int i = 0; i < 5; ++i) others.push_back(rig.visit("json upstreams\n"));
  REQUIRE(rig.engine.run_until([&] { return rig.door->connections() == 6; }));
  rig.engine.pass(5);
  CHECK(rig.asked.size() == 1);
  rig.answer_core(0, 1);
  CHECK(rig.finished(first));
  CHECK(first.text.contains("\"active\":1,"));
  REQUIRE(rig.asked.size() == 2);
  for (Peer& peer : others) {
    peer.take();
    CHECK(peer.text.empty());
  }
  rig.asked.erase(rig.asked.begin());  // given back
  rig.answer_core(0, 2);
  for (Peer& peer : others) {
    CHECK(rig.finished(peer));
    CHECK(peer.text.contains("\"active\":2,"));
  }
  CHECK(rig.asked.size() == 1);
}

TEST_CASE("a core that does not answer is named, and nothing is asked of it meanwhile") {
  Rig rig(3, {.numbers_timeout_ms = 60});
  Peer first = rig.visit("json servers\n");
  REQUIRE(rig.engine.run_until([&] { return rig.asked.size() == 3; }));
  rig.answer_core(1);
  CHECK(rig.finished(first));
  CHECK(first.text.contains("cores 0, 2 have not answered within 60ms"));
  rig.answer_core(0);
  CHECK(rig.ask("text servers\n").contains("core 2 has not answered within 60ms"));
  CHECK(rig.asked.size() == 3);
  CHECK(rig.looks == 0);
  // Other commands do not mind, and when the core is back all is well.
  CHECK(rig.ask("text version\n").starts_with("ok "));
  rig.answer_core(2);
  rig.asked.clear();
  rig.at_once = true;
  CHECK(rig.ask("text servers\n").starts_with("ok "));
}

TEST_CASE("a client that leaves does not matter to the others") {
  Rig rig(1);
  Peer gone = rig.visit("json servers\n");
  Peer stays = rig.visit("json servers\n");
  REQUIRE(rig.engine.run_until([&] { return rig.asked.size() == 1; }));
  gone.close();
  rig.engine.pass(5);
  rig.answer_core(0);
  rig.asked.erase(rig.asked.begin());  // given back
  rig.engine.pass(5);
  if (!rig.asked.empty()) rig.answer_core(0);
  CHECK(rig.finished(stays));
  CHECK(stays.text.starts_with("{\"ok\":true"));
}

TEST_CASE("many at once: those past the limit wait their turn") {
  Rig rig(1, {.request_timeout_ms = 200});
  std::vector<Peer> idle;
  for (uint32_t i = 0; i < ControlSocket::kConnectionsMax; ++i) idle.push_back(rig.visit(""));
  REQUIRE(rig.engine.run_until(
      [&] { return rig.door->connections() == ControlSocket::kConnectionsMax; }));
  Peer late = rig.visit("text version\n");
  rig.engine.pass(20);
  late.take();
  CHECK(late.text.empty());
  CHECK(rig.door->connections() == ControlSocket::kConnectionsMax);
  CHECK(rig.finished(late));  // when the idle ones have been cut
  CHECK(late.text.starts_with("ok "));
  for (Peer& peer : idle) {
    CHECK(rig.finished(peer));
    CHECK(peer.text.contains("no whole request"));
  }
}

TEST_CASE("an answer that is not taken is cut off") {
  Rig rig(1, {.answer_timeout_ms = 100});
  rig.at_once = true;
  rig.servers = 5'000;
  rig.name_bytes = 200;
  Peer slow = rig.visit("json servers\n");
  REQUIRE(rig.engine.run_until([&] { return rig.looks == 1; }));
  // One byte now and then does not prolong it.
  CHECK(rig.engine.run_until([&] {
    slow.take(1);
    rig.engine->wake();
    return rig.door->connections() == 0;
  }));
  CHECK(rig.finished(slow));
  CHECK_FALSE(slow.text.ends_with("\n"));
}

TEST_CASE("an answer that is taken comes whole, long as it is") {
  Rig rig(1);
  rig.at_once = true;
  rig.servers = 5'000;
  rig.name_bytes = 200;
  const std::string whole = rig.ask("json servers\n");
  CHECK(whole.ends_with("]}\n"));
  CHECK(whole.size() > 3'000'000);
}

TEST_CASE("the end comes at once, whatever is under way") {
  const size_t descriptors = open_descriptors();
  {
    Rig rig(2);
    std::vector<Peer> peers;
    peers.push_back(rig.visit("json servers\n"));  // waits for the cores
    peers.push_back(rig.visit("text upst"));       // half a request
    peers.push_back(rig.visit(""));
    REQUIRE(rig.engine.run_until([&] { return rig.door->connections() == 3; }));
    REQUIRE(rig.engine.run_until([&] { return rig.asked.size() == 2; }));
    const uint64_t before = rig.engine->now_ms();
    rig.close();
    CHECK(rig.engine->now_ms() - before < 1'000);
    for (Peer& peer : peers) {
      CHECK(rig.finished(peer));
      CHECK(peer.text.empty());
    }
    CHECK(access(rig.options.path.c_str(), F_OK) != 0);
  }
  CHECK(open_descriptors() == descriptors);
}

TEST_CASE("it ends while an answer is being sent") {
  Rig rig(1);
  rig.at_once = true;
  rig.servers = 5'000;
  rig.name_bytes = 200;
  Peer slow = rig.visit("json servers\n");
  REQUIRE(rig.engine.run_until([&] { return rig.looks == 1; }));
  rig.engine.settle();
  CHECK(rig.door->connections() == 1);
  rig.close();
  CHECK(rig.finished(slow));
}

TEST_CASE("permissions of the file, whatever the umask") {
  runtime::test::Engine engine;
  log::Logger logger{&runtime::sys::realtime_us, log::Level::kOff};
  const Directory directory;
  const mode_t before = umask(0077);
  for (const uint32_t mode : {0600u, 0660u, 0666u, 0777u, 0u}) {
    const std::string path = directory.path("s" + std::to_string(mode));
    auto door = ControlSocket::open(*engine, logger, {.path = path, .mode = mode}, {});
    REQUIRE(door);
    CHECK(mode_of(path) == mode);
    CHECK((*door)->give_to(getuid(), getgid()));
    (*door)->stop();
    CHECK((*door)->stopped());
    CHECK(access(path.c_str(), F_OK) != 0);
  }
  CHECK(umask(before) == 0077);
}

TEST_CASE("a stale socket file is replaced; everything else is left alone") {
  Rig rig;
  const auto open = [&](const std::string& path) {
    return ControlSocket::open(*rig.engine, rig.logger, {.path = path}, {});
  };
  const std::string stale = rig.directory.path("stale");
  leave_stale(stale);
  auto door = open(stale);
  REQUIRE(door);
  (*door)->stop();
  door->reset();

  CHECK(open(rig.options.path).error().contains("another process listens there"));
  CHECK(rig.ask("text version\n").starts_with("ok "));  // and is not disturbed
  rig.directory.write("file", "precious");
  CHECK(open(rig.directory.path("file")).error().contains("no socket"));
  CHECK(access(rig.directory.path("file").c_str(), F_OK) == 0);
  REQUIRE(symlink(rig.directory.path("nowhere").c_str(), rig.directory.path("link").c_str()) == 0);
  CHECK_FALSE(open(rig.directory.path("link")));
  CHECK(open(rig.directory.path("none/control.sock")).error().contains("directory"));
  CHECK(open("/" + std::string(200, 'x')).error().contains("too long"));
}

TEST_CASE("at the end a file that is not ours any more stays") {
  Rig rig;
  REQUIRE(unlink(rig.options.path.c_str()) == 0);
  leave_stale(rig.options.path);
  rig.close();
  CHECK(access(rig.options.path.c_str(), F_OK) == 0);
}
