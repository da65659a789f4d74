#include "dns_server.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

namespace weir::control::test {

namespace {

void put16(Bytes& out, uint16_t value) {
  out += static_cast<char>(value >> 8);
  out += static_cast<char>(value & 0xff);
}
void put32(Bytes& out, uint32_t value) {
  put16(out, static_cast<uint16_t>(value >> 16));
  put16(out, static_cast<uint16_t>(value & 0xffff));
}
uint16_t get16(const Bytes& in, size_t at) {
  return static_cast<uint16_t>(static_cast<uint8_t>(in.at(at)) << 8 |
                               static_cast<uint8_t>(in.at(at + 1)));
}
Bytes ip_bytes(int family, const std::string& text, size_t size) {
  std::array<char, 16> out{};
  if (inet_pton(family, text.c_str(), out.data()) != 1) throw std::invalid_argument(text);
  return {out.data(), size};
}
sockaddr_in loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// The name and type of the query's question; where it ends.
size_t question(const Bytes& query, std::string& name, uint16_t& type) {
  size_t at = 12;
  while (const auto length = static_cast<uint8_t>(query.at(at))) {
    if (!name.empty()) name += '.';
    for (size_t i = 1; i <= length; ++i) {
      const char c = query.at(at + i);
      name += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    }
    at += length + 1u;
  }
  type = get16(query, at + 1);
  return at + 5;
}

}  // namespace

Bytes wire_name(const std::string& name) {
  Bytes out;
  for (size_t at = 0; at < name.size();) {
    const size_t end = std::min(name.find('.', at), name.size());
    out += static_cast<char>(end - at);
    out += name.substr(at, end - at);
    at = end + 1;
  }
  return out + '\0';
}

DnsRecord a(const std::string& ip, uint32_t ttl_s) {
  return {.type = kTypeA, .ttl_s = ttl_s, .data = ip_bytes(AF_INET, ip, 4)};
}
DnsRecord aaaa(const std::string& ip, uint32_t ttl_s) {
  return {.type = kTypeAaaa, .ttl_s = ttl_s, .data = ip_bytes(AF_INET6, ip, 16)};
}
DnsRecord cname(const std::string& to, uint32_t ttl_s) {
  return {.type = kTypeCname, .ttl_s = ttl_s, .data = wire_name(to)};
}
DnsRecord srv(uint16_t priority, uint16_t weight, uint16_t port, const std::string& target,
              uint32_t ttl_s) {
  DnsRecord record{.type = kTypeSrv, .ttl_s = ttl_s, .data = {}};
  put16(record.data, priority);
  put16(record.data, weight);
  put16(record.data, port);
  record.data += wire_name(target);
  return record;
}

DnsServer::DnsServer() {
  stop_ = eventfd(0, EFD_CLOEXEC);
  open();
}

DnsServer::~DnsServer() {
  close();
  ::close(stop_);
}

// A port that is free for both; the one of before, when there was one.
void DnsServer::open() {
  for (int tries = 0; tries < 200; ++tries) {
    udp_ = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    tcp_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int one = 1;
    ::setsockopt(tcp_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    sockaddr_in address = loopback(port_);
    socklen_t length = sizeof address;
    auto* base = reinterpret_cast<sockaddr*>(&address);
    if (::bind(udp_, base, length) == 0 && ::getsockname(udp_, base, &length) == 0 &&
        ::bind(tcp_, base, length) == 0 && ::listen(tcp_, 16) == 0) {
      port_ = ntohs(address.sin_port);
      thread_ = std::thread([this] { serve(); });
      return;
    }
    ::close(udp_);
    ::close(tcp_);
  }
  throw std::runtime_error("no port for the DNS server");
}

void DnsServer::close() {
  if (!thread_.joinable()) return;
  uint64_t count = 1;
  static_cast<void>(::write(stop_, &count, sizeof count) == sizeof count);
  thread_.join();
  static_cast<void>(::read(stop_, &count, sizeof count) == sizeof count);
  ::close(udp_);
  ::close(tcp_);
}

void DnsServer::die() { close(); }
void DnsServer::live() { open(); }

void DnsServer::set(const std::string& name, uint16_t type, DnsReply reply) {
  const std::scoped_lock lock(mutex_);
  replies_[{name, type}] = std::move(reply);
}

void DnsServer::set(const std::string& name, std::vector<DnsRecord> records) {
  const std::scoped_lock lock(mutex_);
  for (const uint16_t type : {kTypeA, kTypeAaaa, kTypeSrv}) {
    DnsReply reply;
    for (const DnsRecord& record : records) {
      if (record.type == type || record.type == kTypeCname) reply.records.push_back(record);
    }
    replies_[{name, type}] = std::move(reply);
  }
}

void DnsServer::clear() {
  const std::scoped_lock lock(mutex_);
  replies_.clear();
}

void DnsServer::hold() {
  const std::scoped_lock lock(mutex_);
  holding_ = true;
}

void DnsServer::release() {
  std::vector<Held> held;
  {
    const std::scoped_lock lock(mutex_);
    holding_ = false;
    held.swap(held_);
  }
  for (const Held& one : held) {
    answer_udp(one.query, one.peer.data(), static_cast<unsigned>(one.peer.size()));
  }
}

void DnsServer::serve() {
  while (true) {
    std::array<pollfd, 3> fds{{{stop_, POLLIN, 0}, {udp_, POLLIN, 0}, {tcp_, POLLIN, 0}}};
    if (::poll(fds.data(), fds.size(), -1) < 0) continue;
    if (fds[0].revents != 0) return;
    if (fds[1].revents != 0) serve_udp();
    if (fds[2].revents == 0) continue;
    const int fd = ::accept4(tcp_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) continue;
    const timeval patience{.tv_sec = 2, .tv_usec = 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    serve_tcp(fd);
    ::close(fd);
  }
}

void DnsServer::serve_udp() {
  std::array<char, 4096> block{};
  sockaddr_in peer{};
  socklen_t length = sizeof peer;
  const ssize_t got = ::recvfrom(udp_, block.data(), block.size(), MSG_DONTWAIT,
                                 reinterpret_cast<sockaddr*>(&peer), &length);
  if (got < 12) return;
  const Bytes query(block.data(), static_cast<size_t>(got));
  {
    const std::scoped_lock lock(mutex_);
    if (holding_) {
      const auto* bytes = reinterpret_cast<const unsigned char*>(&peer);
      held_.push_back({query, {bytes, bytes + length}});
      most_waiting_ = std::max(most_waiting_.load(), static_cast<int>(held_.size()));
      return;
    }
  }
  answer_udp(query, &peer, length);
}

void DnsServer::answer_udp(const Bytes& query, const void* peer, unsigned length) {
  std::vector<Bytes> packets;
  bool silent = false;
  const Bytes reply = answer(query, false, packets, silent);
  if (!silent) packets.push_back(reply);
  for (const Bytes& packet : packets) {
    ::sendto(udp_, packet.data(), packet.size(), 0, static_cast<const sockaddr*>(peer), length);
  }
}

void DnsServer::serve_tcp(int fd) {
  // As many queries as the client sends on its connection, until it is quiet.
  while (true) {
    std::array<unsigned char, 2> size{};
    if (::recv(fd, size.data(), 2, MSG_WAITALL) != 2) return;
    Bytes query(static_cast<size_t>(size[0] << 8 | size[1]), '\0');
    if (::recv(fd, query.data(), query.size(), MSG_WAITALL) != static_cast<ssize_t>(query.size())) {
      return;
    }
    ++tcp_queries_;
    tcp_held_.wait(true);
    std::vector<Bytes> before;
    bool silent = false;
    const Bytes reply = answer(query, true, before, silent);
    if (silent) return;
    Bytes framed;
    put16(framed, static_cast<uint16_t>(reply.size()));
    framed += reply;
    ::send(fd, framed.data(), framed.size(), MSG_NOSIGNAL);
  }
}

Bytes DnsServer::answer(const Bytes& query, bool tcp, std::vector<Bytes>& before, bool& silent) {
  ++queries_;
  std::string name;
  uint16_t type = 0;
  const size_t end = question(query, name, type);
  DnsReply reply;
  {
    const std::scoped_lock lock(mutex_);
    const auto found = replies_.find({name, type});
    const auto other = replies_.lower_bound({name, 0});
    if (found != replies_.end()) {
      reply = found->second;
    } else if (other == replies_.end() || other->first.first != name) {
      reply.rcode = 3;
    }
  }
  silent = reply.silent;
  before = reply.before;
  const auto id = static_cast<uint16_t>(get16(query, 0) + reply.id_offset);
  const bool cut = reply.truncated && !tcp;
  Bytes out;
  put16(out, id);
  if (!reply.raw.empty()) return out + reply.raw;
  put16(out, static_cast<uint16_t>(0x8180u | reply.rcode | (cut ? 0x0200u : 0u)));
  put16(out, 1);
  put16(out, cut ? uint16_t{0} : static_cast<uint16_t>(reply.records.size()));
  put32(out, 0);
  out += query.substr(12, end - 12);
  for (const DnsRecord& record : reply.records) {
    if (cut) break;
    out += record.owner.empty() ? Bytes("\xc0\x0c", 2) : wire_name(record.owner);
    put16(out, record.type);
    put16(out, 1);
    put32(out, record.ttl_s);
    put16(out, static_cast<uint16_t>(record.data.size()));
    out += record.data;
  }
  if (reply.change) reply.change(out);
  return out;
}

}  // namespace weir::control::test
