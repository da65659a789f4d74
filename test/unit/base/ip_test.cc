#include <cstring>
#include <string>

#include <arpa/inet.h>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/ip.h>

using namespace std::string_view_literals;
using weir::base::Cidr;
using weir::base::IpAddress;
using weir::base::SocketAddress;

TEST_CASE("addresses read and print in their canonical form") {
  struct Row {
    std::string_view in, out;
  };
  for (const Row row :
       {Row{"10.0.0.1", "10.0.0.1"}, Row{"255.255.255.255", "255.255.255.255"}, Row{"::", "::"},
        Row{"2001:DB8:0:0:0:0:0:1", "2001:db8::1"}, Row{"::ffff:192.0.2.1", "192.0.2.1"},
        Row{"ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}}) {
    INFO(std::string(row.in));
    const auto ip = IpAddress::parse(row.in);
    REQUIRE(ip.has_value());
    CHECK(ip->to_string() == row.out);
  }
}

TEST_CASE("what is not an address is refused") {
  for (const auto bad :
       {""sv, "1.2.3"sv, "1.2.3.4.5"sv, "256.1.1.1"sv, "01.2.3.4"sv, "1.2.3.4 "sv, " 1.2.3.4"sv,
        "1.2.3.4:80"sv, "[::1]"sv, "::1%lo"sv, "fe80::1%1"sv, "1::2::3"sv, "12345::"sv,
        "localhost"sv, "0x7f.1"sv, "2130706433"sv, "1.2.3.4\0"sv, "1.2.3.4\0x"sv,
        "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa"sv}) {
    INFO(std::string(bad));
    CHECK_FALSE(IpAddress::parse(bad).has_value());
  }
}

TEST_CASE("an IPv4 address equals its mapped form") {
  const auto v4 = IpAddress::parse("192.0.2.7");
  REQUIRE(v4 == IpAddress::parse("::ffff:192.0.2.7"));
  CHECK(v4->is_v4());
  CHECK(*v4 == IpAddress::from_v4(0xc0000207));
  CHECK_FALSE(IpAddress::parse("::192.0.2.7")->is_v4());  // "compatible" is not "mapped"
  CHECK(v4 != IpAddress::parse("::192.0.2.7"));
}

TEST_CASE("blocks contain what they should, to the bit") {
  struct Row {
    std::string_view block, address;
    bool inside;
  };
  for (const Row row :
       {Row{"10.0.0.0/8", "10.255.255.255", true}, Row{"10.0.0.0/8", "11.0.0.0", false},
        Row{"10.0.0.0/8", "::ffff:10.1.2.3", true}, Row{"10.0.0.0/8", "a00::", false},
        Row{"192.168.4.0/23", "192.168.5.255", true}, Row{"192.168.4.0/23", "192.168.6.0", false},
        Row{"192.168.4.0/23", "192.168.3.255", false}, Row{"0.0.0.0/0", "1.2.3.4", true},
        Row{"0.0.0.0/0", "::1", false}, Row{"::/0", "1.2.3.4", true}, Row{"::/0", "ffff::", true},
        Row{"2001:db8::/33", "2001:db8:7fff::", true},
        Row{"2001:db8::/33", "2001:db8:8000::", false}, Row{"10.1.2.3", "10.1.2.3", true},
        Row{"10.1.2.3", "10.1.2.2", false}, Row{"::1", "::1", true}, Row{"::1", "::", false},
        Row{"10.1.2.3/32", "10.1.2.3", true}, Row{"::ffff:0:0/96", "9.9.9.9", true}}) {
    INFO(std::string(row.block) + " " + std::string(row.address));
    const auto block = Cidr::parse(row.block);
    const auto address = IpAddress::parse(row.address);
    REQUIRE(block.has_value());
    REQUIRE(address.has_value());
    CHECK(block->contains(*address) == row.inside);
  }
}

TEST_CASE("blocks with host bits, bad lengths or bad addresses are refused") {
  for (const auto bad : {""sv, "/8"sv, "10.0.0.1/8"sv, "10.0.0.0/33"sv, "::/129"sv, "::1/127"sv,
                         "10.0.0.0/"sv, "10.0.0.0/-1"sv, "10.0.0.0/08x"sv, "10.0.0.0/8/8"sv,
                         "host/8"sv, "10.0.0.0/ 8"sv, "10.0.0.0/4294967304"sv}) {
    INFO(std::string(bad));
    CHECK_FALSE(Cidr::parse(bad).has_value());
  }
}

TEST_CASE("blocks print in the form they are read in") {
  for (const auto text :
       {"10.0.0.0/8"sv, "10.1.2.3/32"sv, "0.0.0.0/0"sv, "2001:db8::/32"sv, "::/0"sv, "::1/128"sv}) {
    const auto block = Cidr::parse(text);
    REQUIRE(block.has_value());
    CHECK(block->to_string() == text);
  }
}

TEST_CASE("socket addresses read, print and read again") {
  struct Row {
    std::string_view in, out;
    sa_family_t family;
    uint16_t port;
  };
  for (const Row row :
       {Row{"127.0.0.1:80", "127.0.0.1:80", AF_INET, 80},
        Row{"[::1]:443", "[::1]:443", AF_INET6, 443}, Row{"*:8080", "[::]:8080", AF_INET6, 8080},
        Row{":8080", "[::]:8080", AF_INET6, 8080}, Row{"0.0.0.0:0", "0.0.0.0:0", AF_INET, 0},
        Row{"1.2.3.4:65535", "1.2.3.4:65535", AF_INET, 65535},
        Row{"[::ffff:1.2.3.4]:5", "1.2.3.4:5", AF_INET, 5},
        Row{"unix:/run/weir.sock", "unix:/run/weir.sock", AF_UNIX, 0},
        Row{"unix:@weir", "unix:@weir", AF_UNIX, 0}}) {
    INFO(std::string(row.in));
    const auto address = SocketAddress::parse(row.in);
    REQUIRE(address.has_value());
    CHECK(address->base.sa_family == row.family);
    CHECK(address->port() == row.port);
    CHECK(address->is_unix() == (row.family == AF_UNIX));
    CHECK(address->ip().has_value() == (row.family != AF_UNIX));
    CHECK(address->to_string() == row.out);
    const auto again = SocketAddress::parse(address->to_string());
    REQUIRE(again.has_value());
    CHECK(*again == *address);
  }
}

TEST_CASE("what is not a socket address is refused") {
  const std::string long_path = "unix:/" + std::string(107, 'x');  // with its NUL one byte too long
  for (const auto bad :
       {""sv, "80"sv, "127.0.0.1"sv, "127.0.0.1:"sv, "127.0.0.1:65536"sv, "127.0.0.1:-1"sv,
        "127.0.0.1:8o"sv, "::1:80"sv, "[127.0.0.1]:80"sv, "[::1]"sv, "[::1:80"sv, "[]:80"sv,
        "::1]:80"sv, "example.com:80"sv, "unix:"sv, "unix:/a\0b"sv, std::string_view(long_path)}) {
    INFO(std::string(bad));
    CHECK_FALSE(SocketAddress::parse(bad).has_value());
  }
  const auto longest = SocketAddress::parse("unix:/" + std::string(106, 'x'));
  REQUIRE(longest.has_value());
  CHECK(longest->to_string().size() == 5 + 107);
}

TEST_CASE("a peer that came in over a dual-stack socket prints as IPv4") {
  SocketAddress peer;  // as accept(2) fills it: AF_INET6 with a mapped address
  peer.v6.sin6_family = AF_INET6;
  peer.v6.sin6_port = htons(4711);
  const auto ip = IpAddress::parse("192.0.2.9");
  std::memcpy(&peer.v6.sin6_addr, ip->bytes.data(), 16);
  peer.length = sizeof(sockaddr_in6);
  CHECK(peer.ip() == ip);
  CHECK(peer.to_string() == "192.0.2.9:4711");
  CHECK(SocketAddress::parse(peer.to_string()).has_value());
}

TEST_CASE("ports are set in place, and Unix sockets have none") {
  auto address = *SocketAddress::parse("[2001:db8::1]:0");
  address.set_port(9090);
  CHECK(address.port() == 9090);
  CHECK(address.to_string() == "[2001:db8::1]:9090");
  auto local = *SocketAddress::parse("unix:/tmp/s");
  local.set_port(9090);
  CHECK(local.port() == 0);
  CHECK(local.to_string() == "unix:/tmp/s");
  CHECK(SocketAddress().to_string() == "-");
}

TEST_CASE("equality compares address, port and family") {
  const auto a = *SocketAddress::parse("10.0.0.1:80");
  CHECK(a == *SocketAddress::parse("10.0.0.1:80"));
  CHECK_FALSE(a == *SocketAddress::parse("10.0.0.1:81"));
  CHECK_FALSE(a == *SocketAddress::parse("10.0.0.2:80"));
  CHECK_FALSE(a == *SocketAddress::parse("unix:@10.0.0.1:80"));
}
