// What the programs of test/ktls share: the count of results, TCP pairs on loopback, the kernel's
// own counters, and data whose bytes are known. Each program is one process in the virtual machine;
// the other end of its connections is a thread of its own.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <openssl/evp.h>

#include <weir/net/tls/ktls.h>

namespace weir::test::ktls {

// Counts results and prints each. The last line, `N passed, N failed`, tells test/ktls/run that the
// program got to its end.
class Tally {
 public:
  bool check(bool good, std::string_view name, std::string_view detail = {});
  bool equal(int64_t found, int64_t expected, std::string_view name);
  bool at_least(int64_t found, int64_t least, std::string_view name);
  [[nodiscard]] int finish() const;  // the exit status

 private:
  int passed_ = 0;
  int failed_ = 0;
};

// A counter of /proc/net/tls_stat, or -1.
int64_t tls_stat(std::string_view name);
// Waits until the counter has the value (sockets are taken down some time after close).
bool tls_stat_becomes(std::string_view name, int64_t value);

// Does the running kernel take new keys on a live socket (6.14 and later)?
bool kernel_rekeys();
// Does poll(2) call half a record readable (6.1)?
bool kernel_polls_half_records();

// Two connected TCP sockets on loopback; closes what is left at its end.
struct TcpPair {
  int ours = -1;
  int theirs = -1;

  TcpPair();
  ~TcpPair();
  TcpPair(const TcpPair&) = delete;
  TcpPair& operator=(const TcpPair&) = delete;
  void close_ours();
  void close_theirs();
};

// Bytes that depend on seed and position only.
class Stream {
 public:
  explicit Stream(uint64_t seed) : state_(seed * 2 + 1) {}
  void fill(std::span<uint8_t> out);
  std::vector<uint8_t> take(size_t bytes);

 private:
  uint64_t state_;
};

// SHA-256 of all that was added.
class Digest {
 public:
  Digest();
  ~Digest();
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;
  void add(std::span<const uint8_t> bytes);
  std::string hex();
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  EVP_MD_CTX* context_;
  uint64_t bytes_ = 0;
};
std::string digest_of(uint64_t seed, size_t bytes);

// Keys of nobody, the same at each call; `tx` and `rx` differ. swapped(): the other side's.
net::tls::KernelKeys known_keys(uint16_t version, net::tls::KernelCipher cipher);
net::tls::KernelKeys swapped(const net::tls::KernelKeys& keys);

std::string title(uint16_t version, net::tls::KernelCipher cipher);

}  // namespace weir::test::ktls
