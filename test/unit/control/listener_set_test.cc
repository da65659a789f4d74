// The listening sockets over reloads: what stays is not touched, what cannot be opened changes
// nothing, what is given up is closed.
#include <algorithm>
#include <string>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/listener_set.h>
#include <weir/net/listen.h>

#include "../net/link.h"
#include "directory.h"

using namespace weir;
using namespace weir::control;
using control::test::Directory;
using net::test::open_descriptors;

namespace {

config::Listener listener(const std::string& text) {
  config::Listener made;
  made.place = {.line = 7, .column = 1};
  made.name = text;
  made.address_text = text;
  made.address = *base::SocketAddress::parse(text);
  return made;
}

// Opened and committed, with the descriptors closed again as cores would in the end.
void close_all(ListenerSet::Change& change) {
  for (OpenListener& opened : change.opened) {
    for (const int fd : opened.fds) ::close(fd);
    opened.fds.clear();
  }
}

ListenerSet::Change planned(ListenerSet& set, const std::vector<config::Listener>& wanted,
                            bool cbpf = false) {
  auto change = set.plan(wanted, cbpf);
  if (!change) FAIL(change.error().text);
  return std::move(*change);
}

bool can_connect(const base::SocketAddress& address) {
  const int fd = socket(address.base.sa_family, SOCK_STREAM, 0);
  const bool connected = connect(fd, &address.base, address.length) == 0;
  close(fd);
  return connected;
}

}  // namespace

TEST_CASE("a socket for each core on one port, a duplicate for Unix") {
  const size_t descriptors = open_descriptors();
  const Directory directory;
  ListenerSet set(3);
  auto change =
      planned(set, {listener("127.0.0.1:0"), listener("unix:" + directory.path("s"))}, true);
  REQUIRE(change.opened.size() == 2);
  CHECK(change.removed.empty());
  CHECK(change.warnings.empty());
  for (const OpenListener& opened : change.opened) {
    REQUIRE(opened.fds.size() == 3);
    for (const int fd : opened.fds) {
      CHECK(net::bound_address(fd)->to_string() == opened.bound.to_string());
    }
    CHECK(can_connect(opened.bound));
  }
  CHECK(change.opened[0].bound.port() != 0);
  CHECK(change.opened[0].id != change.opened[1].id);
  CHECK(set.present().empty());  // not before the commit
  set.commit(change);
  CHECK(set.present().size() == 2);
  close_all(change);
  CHECK(open_descriptors() == descriptors);
}

TEST_CASE("what stays keeps its id, what is new is opened, what is gone is named") {
  ListenerSet set(1);
  auto first = planned(set, {listener("127.0.0.1:0"), listener("127.0.0.2:0")});
  set.commit(first);
  const uint32_t stays = set.present()[0].id;
  const uint32_t goes = set.present()[1].id;
  auto second = planned(set, {listener("127.0.0.3:0"), listener("127.0.0.1:0")});
  CHECK(second.opened.size() == 1);
  CHECK(second.removed == std::vector<uint32_t>{goes});
  set.commit(second);
  REQUIRE(set.present().size() == 2);
  CHECK(set.present()[0].id == stays);
  CHECK(set.present()[1].configured == "127.0.0.3:0");
  CHECK(set.present()[1].id != goes);
  auto none = planned(set, {listener("127.0.0.3:0"), listener("127.0.0.1:0")});
  CHECK(none.opened.empty());
  CHECK(none.removed.empty());
  close_all(first);
  close_all(second);
}

TEST_CASE("when one cannot be opened, all that were are closed and nothing changes") {
  const size_t descriptors = open_descriptors();
  const Directory directory;
  ListenerSet set(2);
  auto first = planned(set, {listener("127.0.0.1:0")});
  set.commit(first);
  const size_t with_first = open_descriptors();
  const auto change = set.plan({listener("127.0.0.2:0"), listener("unix:" + directory.path("s")),
                                listener("unix:" + directory.path("no/such/directory"))},
                               false);
  REQUIRE_FALSE(change);
  CHECK(change.error().text.find("no/such/directory") != std::string::npos);
  CHECK(change.error().place.line == 7);
  CHECK(open_descriptors() == with_first);
  CHECK_FALSE(std::filesystem::exists(directory.path("s")));
  REQUIRE(set.present().size() == 1);
  CHECK(set.present()[0].configured == "127.0.0.1:0");
  close_all(first);
  CHECK(open_descriptors() == descriptors);
}

TEST_CASE("a change that is abandoned leaves no socket and no file") {
  const size_t descriptors = open_descriptors();
  const Directory directory;
  ListenerSet set(2);
  auto change = planned(set, {listener("127.0.0.1:0"), listener("unix:" + directory.path("s"))});
  const base::SocketAddress bound = change.opened[0].bound;
  ListenerSet::abandon(change);
  CHECK(open_descriptors() == descriptors);
  CHECK_FALSE(can_connect(bound));
  CHECK_FALSE(std::filesystem::exists(directory.path("s")));
  // It can be planned again.
  auto again = planned(set, {listener("unix:" + directory.path("s"))});
  ListenerSet::abandon(again);
}

TEST_CASE("a port that another process shares by SO_REUSEPORT is refused, not joined") {
  const auto foreign = net::open_listener(*base::SocketAddress::parse("127.0.0.1:0"), {});
  REQUIRE(foreign);
  const std::string address = net::bound_address(*foreign)->to_string();
  ListenerSet set(2);
  const auto change = set.plan({listener(address)}, false);
  REQUIRE_FALSE(change);
  CHECK(change.error().text.find(address) != std::string::npos);
  CHECK(change.error().text.find("another process") != std::string::npos);
  ::close(*foreign);
}

TEST_CASE("one's own port on another address is in order") {
  ListenerSet set(1);
  auto first = planned(set, {listener("127.0.0.1:0")});
  set.commit(first);
  const std::string port = std::to_string(set.present()[0].bound.port());
  // The same port on all addresses, while the old listener still has it.
  auto second = planned(set, {listener("0.0.0.0:" + port)});
  CHECK(second.opened.size() == 1);
  CHECK(second.removed.size() == 1);
  CHECK(second.succeeded == second.removed);
  set.commit(second);
  // The cores have not closed the first yet, when the next reload takes its address again.
  auto third = planned(set, {listener("127.0.0.1:" + port)});
  ListenerSet::abandon(third);
  close_all(first);
  close_all(second);
}

TEST_CASE("the same address twice with port 0 is two listeners, one to one over reloads") {
  ListenerSet set(1);
  auto first = planned(set, {listener("127.0.0.1:0"), listener("127.0.0.1:0")});
  set.commit(first);
  CHECK(set.present().size() == 2);
  auto same = planned(set, {listener("127.0.0.1:0"), listener("127.0.0.1:0")});
  CHECK(same.opened.empty());
  CHECK(same.removed.empty());
  auto less = planned(set, {listener("127.0.0.1:0")});
  CHECK(less.opened.empty());
  CHECK(less.removed.size() == 1);
  close_all(first);
}

TEST_CASE("a removed Unix listener takes its file along, one that stays keeps it") {
  const Directory directory;
  const std::string a = "unix:" + directory.path("a");
  const std::string b = "unix:" + directory.path("b");
  std::vector<ListenerSet::Change> changes;
  {
    ListenerSet set(2);
    changes.push_back(planned(set, {listener(a), listener(b)}));
    set.commit(changes.back());
    changes.push_back(planned(set, {listener(b)}));
    CHECK(std::filesystem::exists(directory.path("a")));  // nothing is removed before the commit
    set.commit(changes.back());
    CHECK_FALSE(std::filesystem::exists(directory.path("a")));
    CHECK(std::filesystem::exists(directory.path("b")));
  }
  CHECK_FALSE(std::filesystem::exists(directory.path("b")));
  for (auto& change : changes) close_all(change);
}

TEST_CASE("a listener that stays and speaks otherwise is neither opened nor closed") {
  ListenerSet set(1);
  std::vector<config::Listener> wanted = {listener("127.0.0.1:0"), listener("127.0.0.1:0")};
  wanted[0].name = "web";
  wanted[1].name = "secure";
  wanted[1].tls = true;
  auto first = planned(set, wanted);
  REQUIRE(first.opened.size() == 2);
  CHECK_FALSE(first.opened[0].tls);
  CHECK(first.opened[1].tls);
  const uint32_t web = first.opened[0].id;
  const uint32_t secure = first.opened[1].id;
  set.commit(first);
  close_all(first);

  // The same in another order: they are told apart by name.
  std::swap(wanted[0], wanted[1]);
  const auto same = planned(set, wanted);
  CHECK(same.switched.empty());
  CHECK(same.opened.empty());
  CHECK(same.removed.empty());

  wanted[1].redirect_https = 443;
  const auto redirected = planned(set, wanted);
  CHECK(redirected.opened.empty());
  REQUIRE(redirected.switched.size() == 1);
  CHECK(redirected.switched[0].id == web);
  CHECK(redirected.switched[0].redirect_https == 443);
  CHECK_FALSE(redirected.switched[0].tls);
  CHECK(planned(set, wanted).switched.size() == 1);  // not in force before the commit
  set.commit(redirected);
  CHECK(planned(set, wanted).switched.empty());

  // The plain one goes; the other keeps its socket and its protocol.
  wanted.pop_back();
  const auto removed = planned(set, wanted);
  CHECK(removed.removed == std::vector<uint32_t>{web});
  CHECK(removed.switched.empty());
  set.commit(removed);
  wanted[0].tls = false;
  const auto plain = planned(set, wanted);
  REQUIRE(plain.switched.size() == 1);
  CHECK(plain.switched[0].id == secure);
  CHECK_FALSE(plain.switched[0].tls);
}
