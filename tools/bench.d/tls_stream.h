// The client's TLS of one connection of the load generator: TLS 1.3, AES-128-GCM, X25519, over
// OpenSSL and nothing of weir's. Bytes in, bytes out; no sockets. It verifies no certificate: what
// is measured is the server. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct bio_method_st;
struct ssl_ctx_st;
struct ssl_session_st;
struct ssl_st;

namespace weir::bench {

struct TlsFree {
  void operator()(bio_method_st* method) const noexcept;
  void operator()(ssl_ctx_st* context) const noexcept;
  void operator()(ssl_session_st* session) const noexcept;
  void operator()(ssl_st* ssl) const noexcept;
};
using TlsTicket = std::unique_ptr<ssl_session_st, TlsFree>;

// What all connections share; outlives them.
class TlsSettings {
 public:
  TlsSettings();

 private:
  friend class TlsStream;
  std::unique_ptr<bio_method_st, TlsFree> bio_;
  std::unique_ptr<ssl_ctx_st, TlsFree> context_;
};

class TlsStream {
 public:
  enum class Step : uint8_t { kWantMore, kDone, kClosed, kFailed };

  // `ticket` null: a full handshake.
  TlsStream(const TlsSettings& settings, const TlsTicket& ticket);
  ~TlsStream();
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  // What was received; to be followed by handshake() or read() until it wants more.
  void feed(std::string_view received) noexcept { input_ = received; }
  // Begins it, or goes on with what was fed. kDone: what the server said next is still to be read.
  Step handshake() noexcept;
  // kDone: `plaintext` begins with `size` bytes more.
  Step read(std::span<char> plaintext, size_t& size) noexcept;
  bool write(std::string_view plaintext) noexcept;
  // What has to be sent; the caller takes away what has been.
  [[nodiscard]] std::string& output() noexcept { return output_; }

  [[nodiscard]] bool resumed() const noexcept;
  // Part of a record was fed and waits for the rest.
  [[nodiscard]] bool inside_record() const noexcept;
  // The newest one the server gave, or null.
  [[nodiscard]] TlsTicket take_ticket() noexcept { return std::move(ticket_); }

 private:
  friend struct TlsCallbacks;

  std::unique_ptr<ssl_st, TlsFree> ssl_;
  std::string_view input_;
  std::string output_;
  TlsTicket ticket_;
};

}  // namespace weir::bench
