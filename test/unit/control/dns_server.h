// A DNS server for tests: a thread on a loopback port, UDP and TCP, that answers what a test has
// scripted for a name and a type, and remembers how often it was asked.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace weir::control::test {

using Bytes = std::string;

inline constexpr uint16_t kTypeA = 1, kTypeCname = 5, kTypeAaaa = 28, kTypeSrv = 33;

struct DnsRecord {
  uint16_t type = kTypeA;
  uint32_t ttl_s = 60;
  Bytes data;
  std::string owner = {};  // empty: the name in question
};
DnsRecord a(const std::string& ip, uint32_t ttl_s = 60);
DnsRecord aaaa(const std::string& ip, uint32_t ttl_s = 60);
DnsRecord cname(const std::string& to, uint32_t ttl_s = 60);
DnsRecord srv(uint16_t priority, uint16_t weight, uint16_t port, const std::string& target,
              uint32_t ttl_s = 60);
Bytes wire_name(const std::string& name);

struct DnsReply {
  uint8_t rcode = 0;
  std::vector<DnsRecord> records = {};
  bool silent = false;             // no answer at all
  bool truncated = false;          // over UDP: TC and no records
  uint16_t id_offset = 0;          // added to the id of the query
  Bytes raw = {};                  // sent as the whole message, but for the id
  std::vector<Bytes> before = {};  // packets sent ahead of the answer, as they are
  // Applied to the finished message.
  std::function<void(Bytes&)> change = {};
};

class DnsServer {
 public:
  DnsServer();
  ~DnsServer();
  DnsServer(const DnsServer&) = delete;
  DnsServer& operator=(const DnsServer&) = delete;

  [[nodiscard]] std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  // What is not set is answered with NXDOMAIN when the name has no type set, else with no data.
  void set(const std::string& name, uint16_t type, DnsReply reply);
  void set(const std::string& name, std::vector<DnsRecord> records);  // by their types
  void clear();
  void die();   // closes its sockets: ICMP says so to who asks
  void live();  // the same port again
  [[nodiscard]] int queries() const { return queries_; }
  [[nodiscard]] int tcp_queries() const { return tcp_queries_; }
  [[nodiscard]] int most_names_waiting() const { return most_waiting_; }
  // UDP answers are kept back until release(): how many queries come meanwhile is seen.
  void hold();
  void release();
  // The thread stands still with a query that came by TCP until release_tcp().
  void hold_tcp() { tcp_held_ = true; }
  void release_tcp() {
    tcp_held_ = false;
    tcp_held_.notify_all();
  }

 private:
  struct Held {
    Bytes query;
    std::vector<unsigned char> peer;
  };
  void open();
  void close();
  void serve();
  void serve_udp();
  void serve_tcp(int fd);
  void answer_udp(const Bytes& query, const void* peer, unsigned length);
  Bytes answer(const Bytes& query, bool tcp, std::vector<Bytes>& before, bool& silent);

  std::mutex mutex_;
  std::map<std::pair<std::string, uint16_t>, DnsReply> replies_;
  std::vector<Held> held_;
  bool holding_ = false;
  int udp_ = -1, tcp_ = -1, stop_ = -1;
  uint16_t port_ = 0;
  std::atomic<int> queries_ = 0, tcp_queries_ = 0, most_waiting_ = 0;
  std::atomic<bool> tcp_held_ = false;
  std::thread thread_;
};

}  // namespace weir::control::test
