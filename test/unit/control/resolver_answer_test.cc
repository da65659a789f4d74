// The reader of DNS messages on bytes that no server would send.
#include <catch2/catch_test_macros.hpp>

#include <weir/base/prng.h>

#include "dns_server.h"
#include "resolver_answer.h"

using namespace weir;
using control::parse_dns_answer;
using control::RecordType;
using control::to_host_name;
using control::test::Bytes;

namespace {

void put(Bytes& out, uint32_t value, int bytes) {
  while (--bytes >= 0) out += static_cast<char>(value >> (8 * bytes) & 0xff);
}
void record(Bytes& out, const Bytes& owner, uint16_t type, const Bytes& data) {
  out += owner;
  put(out, type, 2);
  put(out, 1, 2);
  put(out, 60, 4);
  put(out, static_cast<uint32_t>(data.size()), 2);
  out += data;
}
// A message with an alias, an address of each kind and a service, names compressed.
Bytes message() {
  Bytes out("\x12\x34\x81\x80\0\1\0\4\0\0\0\0", 12);
  out += control::test::wire_name("a.test");
  put(out, 1, 2);
  put(out, 1, 2);
  const Bytes question("\xc0\x0c", 2);
  record(out, question, 5, Bytes("\1b\xc0\x0e", 4));
  const Bytes alias("\1b\xc0\x0e", 4);
  record(out, alias, 1, Bytes("\x0a\0\0\1", 4));
  record(out, alias, 28, Bytes(16, '\x20'));
  record(out, alias, 33, Bytes("\0\1\0\2\0\x50", 6) + control::test::wire_name("h.test"));
  return out;
}
std::vector<uint8_t> bytes(const Bytes& text) { return {text.begin(), text.end()}; }

}  // namespace

TEST_CASE("the records of one type, over an alias with compressed names") {
  const std::vector<uint8_t> whole = bytes(message());
  const auto v4 = parse_dns_answer(whole, RecordType::kA);
  REQUIRE(v4);
  REQUIRE(v4->addresses.size() == 1);
  CHECK(v4->addresses[0].to_string() == "10.0.0.1");
  CHECK(v4->ttl_s == 60);
  const auto v6 = parse_dns_answer(whole, RecordType::kAaaa);
  REQUIRE(v6);
  CHECK(v6->addresses.size() == 1);
  const auto services = parse_dns_answer(whole, RecordType::kSrv);
  REQUIRE(services);
  REQUIRE(services->targets.size() == 1);
  CHECK(services->targets[0].name == "h.test");
  CHECK(services->targets[0].priority == 1);
  CHECK(services->targets[0].weight == 2);
  CHECK(services->targets[0].port == 80);
}

TEST_CASE("every cut is malformed, and no change of bytes reads past the end") {
  const Bytes whole = message();
  for (size_t length = 0; length < whole.size(); ++length) {
    // In a block of its own size, so that a read past it is seen.
    const std::vector<uint8_t> cut = bytes(whole.substr(0, length));
    CHECK_FALSE(parse_dns_answer(cut, RecordType::kA));
  }
  base::Prng chance(7);
  size_t read = 0;
  for (int round = 0; round < 50'000; ++round) {
    std::vector<uint8_t> changed = bytes(whole);
    for (uint64_t i = chance.below(4) + 1; i > 0; --i) {
      changed[chance.below(changed.size())] = static_cast<uint8_t>(chance.next());
    }
    for (const RecordType type : {RecordType::kA, RecordType::kAaaa, RecordType::kSrv}) {
      read += parse_dns_answer(changed, type).has_value() ? 1 : 0;
    }
  }
  CHECK(read > 0);
}

TEST_CASE("host names") {
  CHECK(to_host_name("A.Example.") == "a.example");
  CHECK(to_host_name("_http._tcp.x-1") == "_http._tcp.x-1");
  CHECK(to_host_name(std::string(63, 'a') + ".b").size() == 65);
  for (const char* bad : {"", ".", "..", ".a", "a..", "a..b", "a b", "a/b", "a:1", "[::1]"}) {
    CHECK(to_host_name(bad).empty());
  }
  CHECK(to_host_name(std::string(64, 'a')).empty());
  std::string longest;
  for (int i = 0; i < 127; ++i) longest += "a.";
  CHECK(to_host_name(longest).size() == 253);
  CHECK(to_host_name("b" + longest).empty());
}
