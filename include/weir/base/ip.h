// IP addresses, socket addresses (IPv4, IPv6, Unix) and CIDR blocks as plain values.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

namespace weir::base {

// An IPv4 or IPv6 address. IPv4 is kept as its v4-mapped IPv6 form, so that comparing and matching
// need one code path and a v4-mapped peer equals the same IPv4 peer.
struct IpAddress {
  std::array<uint8_t, 16> bytes{};

  static std::optional<IpAddress> parse(std::string_view text) noexcept;  // no brackets, no zone
  static IpAddress from_v4(uint32_t host_order) noexcept;
  [[nodiscard]] bool is_v4() const noexcept;
  [[nodiscard]] std::string to_string() const;
  friend bool operator==(const IpAddress&, const IpAddress&) = default;
};

// "10.0.0.0/8", "::1", "2001:db8::/32". A bare address is a block of one.
struct Cidr {
  IpAddress network;
  uint8_t prefix_bits = 128;  // counted in the 128-bit form

  static std::optional<Cidr> parse(std::string_view text) noexcept;  // host bits must be zero
  [[nodiscard]] bool contains(const IpAddress& address) const noexcept;
  [[nodiscard]] std::string to_string() const;
  friend bool operator==(const Cidr&, const Cidr&) = default;
};

// An address one can bind or connect to.
struct SocketAddress {
  union {
    sockaddr base;
    sockaddr_in v4;
    sockaddr_in6 v6;
    sockaddr_un un;
  };
  socklen_t length = 0;

  SocketAddress() noexcept;
  // "1.2.3.4:80", "[::1]:80", "*:80" and ":80" (IPv6 any, dual stack), "unix:/path",
  // "unix:@abstract".
  static std::optional<SocketAddress> parse(std::string_view text) noexcept;
  static SocketAddress from_ip(const IpAddress& ip, uint16_t port) noexcept;
  [[nodiscard]] bool is_unix() const noexcept { return base.sa_family == AF_UNIX; }
  [[nodiscard]] uint16_t port() const noexcept;  // 0 for Unix sockets
  void set_port(uint16_t port) noexcept;
  [[nodiscard]] std::optional<IpAddress> ip() const noexcept;  // empty for Unix sockets
  [[nodiscard]] std::string to_string() const;                 // in the form that parse() takes
  friend bool operator==(const SocketAddress& a, const SocketAddress& b) noexcept;
};

}  // namespace weir::base
