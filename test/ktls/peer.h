// Both ends of a real handshake: an ordinary OpenSSL peer on a blocking socket, and our own end
// with OpenSSL over memory BIOs, which yields the keys for the kernel. Only for tests: weir's own
// handshake is src/net/tls/session*.cc.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>

#include <openssl/ssl.h>

#include <weir/net/tls/ktls.h>

namespace weir::test::ktls {

struct FreeContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using Context = std::unique_ptr<SSL_CTX, FreeContext>;

// One version and one cipher; a server has a certificate made on the spot.
Context make_context(bool server, uint16_t version, net::tls::KernelCipher cipher);

// Certificate and key of one such, as PEM in one file. False: it could not be written.
bool write_certificate(const char* path);

// Our handshake, blocking. Reads record by record, so nothing behind it is taken from the socket.
std::optional<net::tls::KernelKeys> shake_hands(SSL_CTX* context, int fd, bool server);

// The other end: a thread that shakes hands and then plays its part.
class Peer {
 public:
  using Part = std::function<void(Peer&)>;
  Peer(int fd, bool server, uint16_t version, net::tls::KernelCipher cipher, Part part);
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  void join();  // what follows is valid afterwards
  [[nodiscard]] const std::string& fault() const { return fault_; }
  // Records of the connection after the handshake, as OpenSSL saw them.
  [[nodiscard]] int64_t records_sent() const { return sent_; }
  [[nodiscard]] int64_t records_received() const { return received_; }
  [[nodiscard]] const std::string& digest() const { return digest_; }
  [[nodiscard]] bool clean_end() const { return clean_end_; }

  // For the part:
  void write(std::span<const uint8_t> bytes);
  void read(size_t bytes);  // exactly; adds to the digest
  void key_update(bool request);
  void expect_close_notify();  // sets clean_end()
  void send_close_notify();
  void fail(std::string what);  // the first one is kept
  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] bool failed() const { return !fault_.empty(); }

 private:
  static void on_message(int write, int version, int type, const void* bytes, size_t size, SSL* ssl,
                         void* self);
  void run(const Part& part);

  int fd_;
  bool server_;
  Context context_;
  SSL* ssl_ = nullptr;
  bool counting_ = false;
  int64_t sent_ = 0;
  int64_t received_ = 0;
  bool clean_end_ = false;
  std::string fault_;
  std::string digest_;
  EVP_MD_CTX* hash_;
  std::thread thread_;
};

}  // namespace weir::test::ktls
