#include <weir/base/ip.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include <arpa/inet.h>

#include <weir/base/text.h>

namespace weir::base {

namespace {
constexpr std::array<uint8_t, 12> kMappedPrefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
}  // namespace

std::optional<IpAddress> IpAddress::parse(std::string_view text) noexcept {
  char buffer[INET6_ADDRSTRLEN];
  if (text.empty() || text.size() >= sizeof buffer) return std::nullopt;
  if (text.find('\0') != std::string_view::npos) return std::nullopt;  // inet_pton would stop there
  std::memcpy(buffer, text.data(), text.size());
  buffer[text.size()] = 0;
  in_addr v4;
  if (inet_pton(AF_INET, buffer, &v4) == 1) return from_v4(ntohl(v4.s_addr));
  IpAddress result;
  if (inet_pton(AF_INET6, buffer, result.bytes.data()) == 1) return result;
  return std::nullopt;
}

IpAddress IpAddress::from_v4(uint32_t host_order) noexcept {
  IpAddress result;
  std::copy(kMappedPrefix.begin(), kMappedPrefix.end(), result.bytes.begin());
  const uint32_t network_order = htonl(host_order);
  std::memcpy(result.bytes.data() + 12, &network_order, 4);
  return result;
}

bool IpAddress::is_v4() const noexcept {
  return std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), bytes.begin());
}

std::string IpAddress::to_string() const {
  char buffer[INET6_ADDRSTRLEN];
  if (is_v4()) {
    inet_ntop(AF_INET, bytes.data() + 12, buffer, sizeof buffer);
  } else {
    inet_ntop(AF_INET6, bytes.data(), buffer, sizeof buffer);
  }
  return buffer;
}

std::optional<Cidr> Cidr::parse(std::string_view text) noexcept {
  const size_t slash = text.find('/');
  const auto ip = IpAddress::parse(text.substr(0, slash));
  if (!ip) return std::nullopt;
  Cidr result{.network = *ip, .prefix_bits = 128};
  if (slash != std::string_view::npos) {
    const auto bits = parse_decimal(text.substr(slash + 1));
    const bool written_as_v4 = text.substr(0, slash).find(':') == std::string_view::npos;
    const unsigned most = written_as_v4 ? 32 : 128;
    if (!bits || *bits > most) return std::nullopt;
    result.prefix_bits = static_cast<uint8_t>(*bits + (128 - most));
  }
  for (unsigned bit = result.prefix_bits; bit < 128; ++bit) {
    if (result.network.bytes[bit / 8] & (0x80u >> (bit % 8))) return std::nullopt;
  }
  return result;
}

bool Cidr::contains(const IpAddress& address) const noexcept {
  const size_t whole = prefix_bits / 8;
  if (std::memcmp(network.bytes.data(), address.bytes.data(), whole) != 0) return false;
  const unsigned rest = prefix_bits % 8;
  if (rest == 0) return true;
  const auto mask = static_cast<uint8_t>(0xff00u >> rest);
  return ((network.bytes[whole] ^ address.bytes[whole]) & mask) == 0;
}

std::string Cidr::to_string() const {
  if (network.is_v4() && prefix_bits >= 96) {
    return network.to_string() + "/" + std::to_string(prefix_bits - 96);
  }
  return network.to_string() + "/" + std::to_string(prefix_bits);
}

SocketAddress::SocketAddress() noexcept { std::memset(&un, 0, sizeof un); }

SocketAddress SocketAddress::from_ip(const IpAddress& ip, uint16_t port) noexcept {
  SocketAddress result;
  if (ip.is_v4()) {
    result.v4.sin_family = AF_INET;
    std::memcpy(&result.v4.sin_addr, ip.bytes.data() + 12, 4);
    result.v4.sin_port = htons(port);
    result.length = sizeof(sockaddr_in);
  } else {
    result.v6.sin6_family = AF_INET6;
    std::memcpy(&result.v6.sin6_addr, ip.bytes.data(), 16);
    result.v6.sin6_port = htons(port);
    result.length = sizeof(sockaddr_in6);
  }
  return result;
}

static std::optional<SocketAddress> parse_unix(std::string_view path) noexcept {
  SocketAddress result;
  if (path.empty() || path.size() >= sizeof result.un.sun_path) return std::nullopt;
  if (path.find('\0') != std::string_view::npos) return std::nullopt;
  result.un.sun_family = AF_UNIX;
  std::memcpy(result.un.sun_path, path.data(), path.size());
  const bool abstract = path.front() == '@';
  if (abstract) result.un.sun_path[0] = 0;
  result.length =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (abstract ? 0 : 1));
  return result;
}

std::optional<SocketAddress> SocketAddress::parse(std::string_view text) noexcept {
  if (text.starts_with("unix:")) return parse_unix(text.substr(5));
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const auto port = parse_decimal(text.substr(colon + 1));
  if (!port || *port > 65535) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  if (host.empty() || host == "*") return from_ip(IpAddress{}, static_cast<uint16_t>(*port));
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (bracketed != (host.find(':') != std::string_view::npos)) return std::nullopt;
  const auto ip = IpAddress::parse(host);
  if (!ip) return std::nullopt;
  return from_ip(*ip, static_cast<uint16_t>(*port));
}

uint16_t SocketAddress::port() const noexcept {
  if (base.sa_family == AF_INET) return ntohs(v4.sin_port);
  if (base.sa_family == AF_INET6) return ntohs(v6.sin6_port);
  return 0;
}

void SocketAddress::set_port(uint16_t port) noexcept {
  if (base.sa_family == AF_INET) v4.sin_port = htons(port);
  if (base.sa_family == AF_INET6) v6.sin6_port = htons(port);
}

std::optional<IpAddress> SocketAddress::ip() const noexcept {
  if (base.sa_family == AF_INET) return IpAddress::from_v4(ntohl(v4.sin_addr.s_addr));
  if (base.sa_family != AF_INET6) return std::nullopt;
  IpAddress result;
  std::memcpy(result.bytes.data(), &v6.sin6_addr, 16);
  return result;
}

std::string SocketAddress::to_string() const {
  if (is_unix()) {
    const size_t offset = offsetof(sockaddr_un, sun_path);
    if (length <= offset) return "unix:";
    if (un.sun_path[0] == 0) return "unix:@" + std::string(un.sun_path + 1, length - offset - 1);
    return "unix:" + std::string(un.sun_path, strnlen(un.sun_path, length - offset));
  }
  const auto address = ip();
  if (!address) return "-";
  const std::string text = address->to_string();
  // A mapped peer of a dual-stack socket prints as IPv4: "[1.2.3.4]" is no address.
  return (address->is_v4() ? text : "[" + text + "]") + ":" + std::to_string(port());
}

bool operator==(const SocketAddress& a, const SocketAddress& b) noexcept {
  return a.length == b.length && std::memcmp(&a.un, &b.un, a.length) == 0;
}

}  // namespace weir::base
