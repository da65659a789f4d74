#include "rig.h"

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

namespace weir::test::ktls {

using namespace net::tls;

bool Tally::check(bool good, std::string_view name, std::string_view detail) {
  ++(good ? passed_ : failed_);
  std::string line = good ? "ok " : "FAILED ";
  line += name;
  if (!good && !detail.empty()) line.append(": ").append(detail);
  line += '\n';
  std::fputs(line.c_str(), stdout);
  std::fflush(stdout);
  return good;
}

bool Tally::equal(int64_t found, int64_t expected, std::string_view name) {
  return check(found == expected, name,
               std::to_string(found) + " instead of " + std::to_string(expected));
}

bool Tally::at_least(int64_t found, int64_t least, std::string_view name) {
  return check(found >= least, name, std::to_string(found) + " < " + std::to_string(least));
}

int Tally::finish() const {
  std::printf("%d passed, %d failed\n", passed_, failed_);
  return failed_ == 0 && passed_ > 0 ? 0 : 1;
}

int64_t tls_stat(std::string_view name) {
  std::ifstream file("/proc/net/tls_stat");
  std::string word;
  int64_t value = 0;
  while (file >> word >> value) {
    if (word == name) return value;
  }
  return -1;
}

bool tls_stat_becomes(std::string_view name, int64_t value) {
  for (int turn = 0; turn < 500; ++turn) {
    if (tls_stat(name) == value) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

namespace {
// Is the running kernel at least this one?
bool kernel_is(int least_major, int least_minor) {
  utsname name{};
  int major = 0;
  int minor = 0;
  if (uname(&name) != 0 || std::sscanf(name.release, "%d.%d", &major, &minor) != 2) {
    std::fputs("no kernel version\n", stderr);
    std::exit(1);
  }
  return major > least_major || (major == least_major && minor >= least_minor);
}
}  // namespace

bool kernel_rekeys() { return kernel_is(6, 14); }
bool kernel_polls_half_records() { return !kernel_is(6, 12); }

TcpPair::TcpPair() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* name = reinterpret_cast<sockaddr*>(&address);
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  if (bind(listener, name, size) != 0 || listen(listener, 1) != 0 ||
      getsockname(listener, name, &size) != 0) {
    std::perror("listen");
    std::exit(1);
  }
  theirs = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(theirs, name, size) != 0) {
    std::perror("connect");
    std::exit(1);
  }
  ours = accept(listener, nullptr, nullptr);
  close(listener);
  for (const int fd : {ours, theirs}) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

TcpPair::~TcpPair() {
  close_ours();
  close_theirs();
}

void TcpPair::close_ours() {
  if (ours >= 0) close(ours);
  ours = -1;
}

void TcpPair::close_theirs() {
  if (theirs >= 0) close(theirs);
  theirs = -1;
}

void Stream::fill(std::span<uint8_t> out) {
  for (uint8_t& byte : out) {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    byte = static_cast<uint8_t>(state_ >> 56);
  }
}

std::vector<uint8_t> Stream::take(size_t bytes) {
  std::vector<uint8_t> out(bytes);
  fill(out);
  return out;
}

Digest::Digest() : context_(EVP_MD_CTX_new()) {
  EVP_DigestInit_ex(context_, EVP_sha256(), nullptr);
}
Digest::~Digest() { EVP_MD_CTX_free(context_); }

void Digest::add(std::span<const uint8_t> bytes) {
  EVP_DigestUpdate(context_, bytes.data(), bytes.size());
  bytes_ += bytes.size();
}

std::string Digest::hex() {
  std::array<uint8_t, 32> raw{};
  EVP_DigestFinal_ex(context_, raw.data(), nullptr);
  std::string text;
  for (const uint8_t byte : raw) {
    std::array<char, 3> two{};
    std::snprintf(two.data(), two.size(), "%02x", byte);
    text += two.data();
  }
  return text;
}

std::string digest_of(uint64_t seed, size_t bytes) {
  Stream stream(seed);
  Digest digest;
  while (bytes > 0) {
    const auto part = stream.take(std::min<size_t>(bytes, 65536));
    digest.add(part);
    bytes -= part.size();
  }
  return digest.hex();
}

KernelKeys known_keys(uint16_t version, KernelCipher cipher) {
  KernelKeys keys;
  keys.version = version;
  keys.cipher = cipher;
  keys.hash = cipher == KernelCipher::kAes256Gcm ? SuiteHash::kSha384 : SuiteHash::kSha256;
  Stream stream(17);
  bool fits = true;
  for (DirectionKeys* side : {&keys.tx, &keys.rx}) {
    fits &= side->traffic_secret.assign(stream.take(suite_hash_size(keys.hash)));
    fits &= side->key.assign(stream.take(kernel_key_size(cipher)));
    fits &= side->iv.assign(stream.take(implicit_iv_size(cipher)));
    side->explicit_nonce = 0xa0a1a2a3a4a5a6fe;  // two records on, a byte carries over
    side->record_number = 3;
  }
  if (!fits) std::abort();
  return keys;
}

KernelKeys swapped(const KernelKeys& keys) {
  KernelKeys other;
  other.version = keys.version;
  other.cipher = keys.cipher;
  other.hash = keys.hash;
  bool fits = true;
  for (const auto [to, from] : {std::pair{&other.tx, &keys.rx}, std::pair{&other.rx, &keys.tx}}) {
    fits &= to->traffic_secret.assign(from->traffic_secret.bytes());
    fits &= to->key.assign(from->key.bytes());
    fits &= to->iv.assign(from->iv.bytes());
    to->explicit_nonce = from->explicit_nonce;
    to->record_number = from->record_number;
  }
  if (!fits) std::abort();
  return other;
}

std::string title(uint16_t version, KernelCipher cipher) {
  return std::string(version == kTls13 ? "TLSv1.3 " : "TLSv1.2 ") + std::string(to_string(cipher));
}

}  // namespace weir::test::ktls
