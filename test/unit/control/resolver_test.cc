// What the resolver makes of what a name server says, of what it does not say, and of nonsense.
#include <algorithm>
#include <set>

#include "resolver_rig.h"

using namespace weir;
using control::Resolution;
using control::ResolveError;
using control::ResolveFamily;
using control::ResolveOptions;
using control::Resolver;
using control::test::a;
using control::test::aaaa;
using control::test::Bytes;
using control::test::cname;
using control::test::DnsReply;
using control::test::kTypeA;
using control::test::kTypeAaaa;
using control::test::kTypeSrv;
using control::test::ResolverRig;
using control::test::srv;
using Texts = std::vector<std::string>;

TEST_CASE("A, AAAA, both, in a stable order, with the smallest time to live") {
  ResolverRig rig;
  rig.server.set("four.test", {a("10.0.0.9", 30), a("10.0.0.10", 20), a("10.0.0.9", 40)});
  rig.server.set("six.test", {aaaa("2001:db8::1", 50)});
  rig.server.set("both.test", {aaaa("::1", 7), a("10.0.0.1", 9)});

  Resolution four = rig.ask("four.test");
  CHECK(ResolverRig::texts(four.addresses) == Texts{"10.0.0.9:80", "10.0.0.10:80"});
  CHECK(four.ttl_ms == 20'000);
  CHECK(four.gaps.empty());
  CHECK(ResolverRig::texts(rig.ask("six.test").addresses) == Texts{"[2001:db8::1]:80"});
  Resolution both = rig.ask("BOTH.Test.");
  CHECK(ResolverRig::texts(both.addresses) == Texts{"10.0.0.1:80", "[::1]:80"});
  CHECK(both.ttl_ms == 7'000);

  CHECK(ResolverRig::texts(rig.ask("both.test", {.family = ResolveFamily::kV4}).addresses) ==
        Texts{"10.0.0.1:80"});
  CHECK(ResolverRig::texts(rig.ask("both.test", {.family = ResolveFamily::kV6}).addresses) ==
        Texts{"[::1]:80"});
  CHECK(rig.ask("four.test", {.family = ResolveFamily::kV6}).error == ResolveError::kNoData);
}

TEST_CASE("the time to live is kept within its limits") {
  ResolverRig rig;
  rig.server.set("zero.test", {a("10.0.0.1", 0)});
  rig.server.set("huge.test", {a("10.0.0.1", 0x7fff'ffff)});
  rig.server.set("negative.test", {a("10.0.0.1", 0x8000'0001)});  // RFC 2181: as 0
  CHECK(rig.ask("zero.test").ttl_ms == 100);
  CHECK(rig.ask("huge.test").ttl_ms == 300'000);
  CHECK(rig.ask("negative.test").ttl_ms == 100);
}

TEST_CASE("aliases are followed; those that lead in a circle or to nothing are not answers") {
  ResolverRig rig;
  const auto alias = [](const std::string& from, const std::string& to, uint32_t ttl_s) {
    control::test::DnsRecord record = cname(to, ttl_s);
    record.owner = from;
    return record;
  };
  control::test::DnsRecord end = a("10.0.0.7", 60);
  end.owner = "c.test";
  control::test::DnsRecord stranger = a("10.6.6.6", 1);
  stranger.owner = "stranger.test";
  rig.server.set("a.test", {end, alias("b.test", "c.test", 12), stranger, cname("b.test", 40)});
  const Resolution found = rig.ask("a.test");
  CHECK(ResolverRig::texts(found.addresses) == Texts{"10.0.0.7:80"});
  CHECK(found.ttl_ms == 12'000);

  rig.server.set("circle.test", {cname("d.test"), alias("d.test", "circle.test", 5)});
  CHECK(rig.ask("circle.test").error == ResolveError::kMalformed);
  rig.server.set("nowhere.test", {cname("gone.test")});
  CHECK(rig.ask("nowhere.test").error == ResolveError::kNoData);
}

TEST_CASE("errors are told apart") {
  ResolverRig rig;
  rig.server.set("empty.test", {});
  for (const uint16_t type : {kTypeA, kTypeAaaa}) {
    rig.server.set("servfail.test", type, {.rcode = 2});
    rig.server.set("refused.test", type, {.rcode = 5});
    rig.server.set("silent.test", type, {.silent = true});
  }
  CHECK(rig.ask("nobody.test").error == ResolveError::kNoSuchName);
  CHECK(rig.ask("empty.test").error == ResolveError::kNoData);
  CHECK(rig.ask("servfail.test").error == ResolveError::kServerFailure);
  CHECK(rig.ask("refused.test").error == ResolveError::kRefused);
  CHECK(rig.ask("silent.test").error == ResolveError::kTimeout);
  const int before = rig.server.queries();
  for (const char* name : {"", ".", "a..b", "-\n", "spa ce.test", "fe80::1%lo", ".a", "ü.test"}) {
    CHECK(rig.ask(name).error == ResolveError::kBadName);
  }
  CHECK(rig.ask(std::string(64, 'a') + ".test").error == ResolveError::kBadName);
  CHECK(rig.server.queries() == before);
  rig.server.die();
  CHECK(rig.ask("four.test").error == ResolveError::kUnreachable);
}

TEST_CASE("one half of the answer is an answer; the other half is told as a gap") {
  ResolverRig rig;
  rig.server.set("half.test", kTypeA, {.records = {a("10.0.0.1")}});
  SECTION("failed") { rig.server.set("half.test", kTypeAaaa, {.rcode = 2}); }
  SECTION("silent") { rig.server.set("half.test", kTypeAaaa, {.silent = true}); }
  SECTION("malformed") {
    rig.server.set("half.test", kTypeAaaa,
                   {.records = {{.type = kTypeAaaa, .data = Bytes(15, 'x')}}});
  }
  const Resolution half = rig.ask("half.test");
  CHECK(ResolverRig::texts(half.addresses) == Texts{"10.0.0.1:80"});
  REQUIRE(half.gaps.size() == 1);
  CHECK(half.gaps[0].v6);
  CHECK(half.gaps[0].target.empty());
}

TEST_CASE("what was not learnt in the time for all is not waited for") {
  ResolverRig rig({.try_timeout_ms = 5'000, .tries = 3, .total_timeout_ms = 200});
  rig.server.set("half.test", kTypeA, {.records = {a("10.0.0.1")}});
  rig.server.set("half.test", kTypeAaaa, {.silent = true});
  rig.server.set("silent.test", kTypeA, {.silent = true});
  rig.server.set("silent.test", kTypeAaaa, {.silent = true});
  const uint64_t begin_ms = rig.engine->now_ms();
  const Resolution half = rig.ask("half.test");
  CHECK(half.addresses.size() == 1);
  REQUIRE(half.gaps.size() == 1);
  CHECK(half.gaps[0].error == ResolveError::kTimeout);
  CHECK(rig.ask("silent.test").error == ResolveError::kTimeout);
  CHECK(rig.engine->now_ms() - begin_ms < 4'000);
}

TEST_CASE("truncated answers are asked for again by TCP; 200 addresses are cut") {
  ResolverRig rig;
  DnsReply many{.truncated = true};
  for (int i = 200; i > 0; --i) many.records.push_back(a("10.0.0." + std::to_string(i)));
  rig.server.set("many.test", kTypeA, many);
  const Resolution found = rig.ask("many.test");
  CHECK(rig.server.tcp_queries() >= 1);
  REQUIRE(found.addresses.size() == Resolver::kAddressesMax);
  CHECK(found.left_out == 200 - Resolver::kAddressesMax);
  CHECK(found.addresses.front().address.to_string() == "10.0.0.1:80");
  CHECK(found.addresses.back().address.to_string() == "10.0.0.64:80");
  std::ranges::reverse(many.records);
  rig.server.set("many.test", kTypeA, many);
  CHECK(rig.ask("many.test").addresses == found.addresses);
}

TEST_CASE("packets that are no answer to the query are passed over") {
  ResolverRig rig;
  Bytes noise;
  for (int i = 0; i < 400; ++i) noise += static_cast<char>(i * 37 + 11);
  DnsReply reply{.records = {a("10.0.0.1")}};
  reply.before = {"", "x", Bytes(11, '\0'), Bytes(12, '\xff'), noise, Bytes(2'000, '\0')};
  rig.server.set("noise.test", kTypeA, reply);
  CHECK(ResolverRig::texts(rig.ask("noise.test").addresses) == Texts{"10.0.0.1:80"});

  rig.server.set("other-id.test", kTypeA, {.records = {a("10.6.6.6")}, .id_offset = 1});
  CHECK(rig.ask("other-id.test", {.family = ResolveFamily::kV4}).error == ResolveError::kTimeout);
  DnsReply other_name{.records = {a("10.6.6.6")}};
  other_name.change = [](Bytes& message) { message[13] = 'X'; };
  rig.server.set("another.test", kTypeA, other_name);
  CHECK(rig.ask("another.test", {.family = ResolveFamily::kV4}).error == ResolveError::kTimeout);
}

TEST_CASE("a flood of packets keeps neither the thread nor the timeouts") {
  ResolverRig rig({.try_timeout_ms = 5'000, .tries = 1, .total_timeout_ms = 500});
  DnsReply reply{.silent = true};
  reply.before.assign(100'000, Bytes(40, '\x55'));
  rig.server.set("flood.test", kTypeA, reply);
  const uint64_t begin_ms = rig.engine->now_ms();
  CHECK(rig.ask("flood.test", {.family = ResolveFamily::kV4}).error == ResolveError::kTimeout);
  CHECK(rig.engine->now_ms() - begin_ms < 5'000);
}

TEST_CASE("answers that make no sense") {
  ResolverRig rig;
  const ResolveOptions v4{.family = ResolveFamily::kV4};
  const auto told = [&](DnsReply reply) {
    rig.server.set("odd.test", kTypeA, std::move(reply));
    return rig.ask("odd.test", v4).error;
  };
  CHECK(told({.records = {{.data = Bytes(3, '\1')}}}) == ResolveError::kMalformed);
  CHECK(told({.records = {a("10.0.0.1")}, .change = [](Bytes& m) { m.pop_back(); }}) ==
        ResolveError::kMalformed);
  CHECK(told({.records = {a("10.0.0.1")}, .change = [](Bytes& m) { m[7] = 9; }}) ==
        ResolveError::kMalformed);
  // An owner's name that points at itself, and one past the end.
  const size_t owner = 12 + control::test::wire_name("odd.test").size() + 4;
  CHECK(told({.records = {a("10.0.0.1")}, .change = [=](Bytes& m) {
                m[owner + 1] = static_cast<char>(owner);
              }}) == ResolveError::kMalformed);
  CHECK(told({.records = {a("10.0.0.1")}, .change = [=](Bytes& m) { m[owner] = '\xff'; }}) ==
        ResolveError::kMalformed);
  CHECK(told({.records = {a("10.0.0.1")}}) == ResolveError::kNone);
}

TEST_CASE("SRV: priorities and weights, targets resolved, and the service that is not there") {
  ResolverRig rig;
  const ResolveOptions how{.srv = true};
  rig.server.set("_http._tcp.test", {srv(20, 5, 8080, "two.test", 90), srv(10, 1, 81, "One.test"),
                                     srv(10, 7, 82, "one.test"), srv(5, 0, 83, "gone.test")});
  rig.server.set("one.test", {a("10.0.0.1", 33), aaaa("2001:db8::1")});
  rig.server.set("two.test", {a("10.0.0.2")});
  const Resolution found = rig.ask("_http._tcp.test", how);
  CHECK(ResolverRig::texts(found.addresses) == Texts{"10.0.0.1:81", "10.0.0.1:82",
                                                     "[2001:db8::1]:81", "[2001:db8::1]:82",
                                                     "10.0.0.2:8080"});
  CHECK(found.ttl_ms == 33'000);
  CHECK(found.addresses[1].weight == 7);
  CHECK(found.addresses[1].priority == 10);
  CHECK(found.addresses[1].target == "one.test");
  CHECK(found.addresses[4].target == "two.test");
  CHECK(found.gaps.empty());  // gone.test is not there, for certain

  rig.server.set("gone.test", kTypeA, {.rcode = 2});
  const Resolution partly = rig.ask("_http._tcp.test", how);
  CHECK(partly.addresses == found.addresses);
  REQUIRE(partly.gaps.size() == 1);
  CHECK(partly.gaps[0].target == "gone.test");
  CHECK_FALSE(partly.gaps[0].v6);

  // Nobody can be reached at port 0.
  rig.server.set("_zero._tcp.test", {srv(0, 9, 0, "one.test"), srv(1, 1, 83, "two.test")});
  CHECK(ResolverRig::texts(rig.ask("_zero._tcp.test", how).addresses) == Texts{"10.0.0.2:83"});
  rig.server.set("_zero._tcp.test", {srv(0, 9, 0, "one.test")});
  CHECK(rig.ask("_zero._tcp.test", how).error == ResolveError::kNoData);

  rig.server.set("_no._tcp.test", {srv(0, 0, 0, "")});
  CHECK(rig.ask("_no._tcp.test", how).error == ResolveError::kNoData);
  CHECK(rig.ask("_nobody._tcp.test", how).error == ResolveError::kNoSuchName);
  rig.directory.write("hosts", "10.9.9.9 one.test\n");
  CHECK(ResolverRig::texts(rig.ask("_http._tcp.test", how).addresses).front() == "10.9.9.9:81");
}

TEST_CASE("SRV: more targets than are looked at") {
  ResolverRig rig;
  std::vector<control::test::DnsRecord> records;
  for (int i = 0; i < 100; ++i) {
    const std::string host = "h" + std::to_string(100 + i) + ".test";
    records.push_back(srv(1, 1, 80, host));
    rig.server.set(host, {a("10.0.1." + std::to_string(i))});
  }
  rig.server.set("_x._tcp.test", kTypeSrv, {.records = records, .truncated = true});
  const Resolution found = rig.ask("_x._tcp.test", {.srv = true});
  CHECK(found.addresses.size() == 64);
  CHECK(found.left_out == 36);
  CHECK(found.addresses.back().target == "h163.test");
}

TEST_CASE("addresses, localhost and the hosts file need no name server") {
  ResolverRig rig;
  rig.server.die();
  CHECK(ResolverRig::texts(rig.ask("127.0.0.1").addresses) == Texts{"127.0.0.1:80"});
  CHECK(ResolverRig::texts(rig.ask("::1").addresses) == Texts{"[::1]:80"});
  CHECK(ResolverRig::texts(rig.ask("[2001:db8::7]").addresses) == Texts{"[2001:db8::7]:80"});
  CHECK(rig.ask("::1", {.family = ResolveFamily::kV4}).error == ResolveError::kNoData);
  CHECK(ResolverRig::texts(rig.ask("localhost").addresses) == Texts{"127.0.0.1:80", "[::1]:80"});
  CHECK(ResolverRig::texts(rig.ask("App.LocalHost").addresses).front() == "127.0.0.1:80");

  CHECK(rig.ask("db").error != ResolveError::kNone);
  rig.directory.write("hosts",
                      "# 10.0.0.1 db\n10.0.0.2\tdb DB.internal # db2\r\n\n2001:db8::2 db\n"
                      "nonsense db\n10.0.0.2 db");
  CHECK(ResolverRig::texts(rig.ask("db").addresses) == Texts{"10.0.0.2:80", "[2001:db8::2]:80"});
  CHECK(ResolverRig::texts(rig.ask("db.internal").addresses) == Texts{"10.0.0.2:80"});
  CHECK(rig.ask("db2").error != ResolveError::kNone);
  std::filesystem::remove(rig.directory.path("hosts"));
  CHECK(rig.ask("db").error != ResolveError::kNone);
}

TEST_CASE("the search list of resolv.conf; changes of the file are picked up by reload()") {
  ResolverRig rig;
  rig.server.set("web.one.test", {a("10.0.0.1")});
  rig.server.set("web.two.test", {a("10.0.0.2")});
  rig.server.set("web", {a("10.0.0.3")});
  rig.server.set("a.b", {a("10.0.0.4")});
  rig.server.set("a.b.one.test", {a("10.0.0.5")});
  const auto write = [&](const std::string& rest) {
    rig.directory.write("resolv.conf", "nameserver 127.0.0.1\n" + rest);
    std::string error;
    CHECK(rig.resolver->reload(error));
  };
  const auto first = [&](const std::string& name) {
    const Resolution found = rig.ask(name);
    return found.addresses.empty() ? std::string(to_text(found.error))
                                   : found.addresses[0].address.ip()->to_string();
  };
  write("search one.test two.test\n");
  CHECK(first("web") == "10.0.0.1");
  CHECK(first("web.") == "10.0.0.3");
  CHECK(first("a.b") == "10.0.0.4");
  write("search one.test two.test\noptions ndots:2\n");
  CHECK(first("a.b") == "10.0.0.5");
  write("search two.test one.test\n");
  CHECK(first("web") == "10.0.0.2");
  write("search one.test\n# search one.test\ndomain two.test ; the last counts\n");
  CHECK(first("web") == "10.0.0.2");
  write("search three.test two.test\n");  // not there in the first domain
  CHECK(first("web") == "10.0.0.2");
  rig.server.set("web.three.test", kTypeA, {.silent = true});
  rig.server.set("web.three.test", kTypeAaaa, {.silent = true});
  CHECK(first("web") == to_text(ResolveError::kTimeout));  // another name must not stand in
}

TEST_CASE("what is in flight when the name servers are read again is asked again") {
  ResolverRig rig;
  rig.server.set("x.test", {a("10.0.0.1")});
  rig.server.hold();
  int answers = 0;
  for (int i = 0; i < 20; ++i) {
    rig.resolver->resolve("x.test", 80, {}, [&](Resolution result) {
      CHECK(result.error == ResolveError::kNone);
      CHECK(result.addresses.size() == 1);
      ++answers;
    });
  }
  REQUIRE(rig.engine.run_until([&] { return rig.server.most_names_waiting() == 40; }));
  std::string error;
  CHECK(rig.resolver->reload(error));
  CHECK(rig.resolver->reload(error));
  CHECK(rig.resolver->in_flight() == 20);
  rig.server.release();
  REQUIRE(rig.engine.run_until([&] { return answers == 20; }));
}

TEST_CASE("name servers that cannot be used are an error, and those of before stay") {
  ResolverRig rig;
  std::string error;
  control::ResolverOptions options = rig.options;
  options.servers = {"not an address"};
  CHECK(Resolver::open(*rig.engine, options, error) == nullptr);
  CHECK(error.find("not an address") != std::string::npos);
}

TEST_CASE("a server that dies and comes back") {
  ResolverRig rig;
  rig.server.set("x.test", {a("10.0.0.1")});
  for (int i = 0; i < 3; ++i) {
    CHECK(rig.ask("x.test").error == ResolveError::kNone);
    rig.server.die();
    CHECK(rig.ask("x.test").error == ResolveError::kUnreachable);
    rig.server.live();
  }
  rig.server.set("x.test", {a("10.0.0.2")});
  CHECK(ResolverRig::texts(rig.ask("x.test").addresses) == Texts{"10.0.0.2:80"});
}

TEST_CASE("cancelled in flight, and within callbacks") {
  ResolverRig rig;
  rig.server.set("x.test", {a("10.0.0.1")});
  rig.server.hold();
  std::vector<Resolver::Handle> handles;
  std::set<size_t> answered;
  for (size_t i = 0; i < 10; ++i) {
    handles.push_back(rig.resolver->resolve("x.test", 80, {}, [&, i](Resolution) {
      answered.insert(i);
      // The next one, which may have its answer already, is not told any more.
      if (i + 1 < handles.size()) CHECK(rig.resolver->cancel(handles[i + 1]) == true);
    }));
  }
  REQUIRE(rig.engine.run_until([&] { return rig.server.most_names_waiting() == 20; }));
  CHECK(rig.resolver->cancel(handles[0]));
  CHECK_FALSE(rig.resolver->cancel(handles[0]));
  rig.server.release();
  REQUIRE(rig.engine.run_until([&] { return rig.resolver->in_flight() == 0; }));
  CHECK(answered == std::set<size_t>{1, 3, 5, 7, 9});
  CHECK_FALSE(rig.resolver->cancel(handles[1]));
}

TEST_CASE("stopped and destroyed in flight: nothing is called, nothing is left") {
  ResolverRig rig;
  rig.server.set("x.test", {a("10.0.0.1")});
  bool called = false;
  SECTION("before anything was sent") {
    rig.resolver->resolve("x.test", 80, {}, [&](Resolution) { called = true; });
  }
  SECTION("UDP") {
    rig.server.hold();
    rig.resolver->resolve("x.test", 80, {}, [&](Resolution) { called = true; });
    REQUIRE(rig.engine.run_until([&] { return rig.server.most_names_waiting() == 2; }));
    rig.engine.settle();
  }
  SECTION("the answer waits in the socket") {
    rig.server.hold();
    rig.resolver->resolve("x.test", 80, {}, [&](Resolution) { called = true; });
    REQUIRE(rig.engine.run_until([&] { return rig.server.most_names_waiting() == 2; }));
    rig.server.release();
  }
  SECTION("TCP") {
    rig.server.set("t.test", kTypeA, {.truncated = true});
    rig.server.hold_tcp();
    rig.resolver->resolve("t.test", 80, {.family = ResolveFamily::kV4},
                          [&](Resolution) { called = true; });
    REQUIRE(rig.engine.run_until([&] { return rig.server.tcp_queries() == 1; }));
    rig.engine.settle();
    rig.close();
    rig.server.release_tcp();
  }
  SECTION("at once") {}
  rig.close();
  CHECK_FALSE(called);
}

TEST_CASE("stopped by a callback") {
  ResolverRig rig;
  rig.server.set("x.test", {a("10.0.0.1")});
  int called = 0;
  for (int i = 0; i < 5; ++i) {
    rig.resolver->resolve("10.0.0.1", 80, {}, [&](Resolution) {
      ++called;
      rig.resolver->stop();
    });
    rig.resolver->resolve("x.test", 80, {}, [&](Resolution) { ++called; });
  }
  REQUIRE(rig.engine.run_until([&] { return rig.resolver->stopped(); }));
  CHECK(called == 1);
}

TEST_CASE("many names at once; past the limit they are refused; callbacks ask again") {
  // A burst may be more than a socket's buffer holds.
  ResolverRig rig({.try_timeout_ms = 500, .tries = 4, .total_timeout_ms = 8'000});
  for (int i = 0; i < 256; ++i) {
    rig.server.set("n" + std::to_string(i) + ".test", {a("10.1.0." + std::to_string(i))});
  }
  int good = 0;
  int busy = 0;
  int later = 0;
  for (int i = 0; i < 300; ++i) {
    rig.resolver->resolve("n" + std::to_string(i % 256) + ".test", 80, {},
                          [&, i](Resolution result) {
                            if (result.error == ResolveError::kBusy) {
                              ++busy;
                              return;
                            }
                            CHECK(result.error == ResolveError::kNone);
                            CHECK(ResolverRig::texts(result.addresses) ==
                                  Texts{"10.1.0." + std::to_string(i) + ":80"});
                            ++good;
                            rig.resolver->resolve("n0.test", 80, {}, [&](Resolution) { ++later; });
                          });
  }
  REQUIRE(rig.engine.run_until([&] { return rig.resolver->in_flight() == 0; }));
  CHECK(good == 256);
  CHECK(busy == 44);
  CHECK(later == 256);
}

TEST_CASE("what needs no query is there at once, and is what an answer would be") {
  ResolverRig rig;
  rig.directory.write("hosts", "10.0.0.2 here.test\n2001:db8::1 here.test\n10.0.0.1 Here.test\n");
  rig.server.set("far.test", {a("10.0.0.9")});
  const auto instant = [&](const std::string& name, const control::ResolveOptions& how = {}) {
    return ResolverRig::texts(rig.resolver->instant(name, 80, how));
  };
  for (const char* name :
       {"here.test", "HERE.test", "localhost", "a.localhost", "10.1.1.1", "[2001:db8::2]"}) {
    for (const auto family : {control::ResolveFamily::kAny, control::ResolveFamily::kV4}) {
      INFO(name);
      const control::ResolveOptions how{.family = family};
      CHECK(instant(name, how) == ResolverRig::texts(rig.ask(name, how).addresses));
    }
  }
  CHECK(instant("here.test") == Texts{"10.0.0.1:80", "10.0.0.2:80", "[2001:db8::1]:80"});
  CHECK(instant("far.test").empty());
  CHECK(instant("not a name").empty());
  CHECK(instant("here.test", {.srv = true}).empty());
}
