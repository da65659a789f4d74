// One TLS connection as a function of bytes: what came from the peer goes in, what has to be sent
// comes out; no socket, no clock. Owned by its connection, on the thread of its Context.
//
// Rules for the caller. Bytes that come out of any call go on the wire in the order of the calls.
// After a failure nothing but close() and the accessors may be called; what the failing call gave
// to send (an alert) should still be sent. A Session never sees a byte behind the record that
// finishes the handshake: what follows stays with the caller, so that kernel_keys() can be exact
// (KTLS.md 3).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <weir/net/tls/context.h>
#include <weir/net/tls/kernel_keys.h>

struct ssl_st;

namespace weir::net::tls {

// Why a connection failed, one counter each.
enum class FailureCause : uint8_t {
  kNone,
  kNotTls,     // the first bytes are no TLS record
  kPlainHttp,  // they are an HTTP request (a listener may answer 400 or redirect)
  kClientHelloTooLarge,
  kHandshakeTooLarge,
  kRecordTooLarge,
  kVersion,  // no version in common
  kNoSharedCipher,
  kNoSharedGroup,
  kNoSharedSignature,
  kNoSharedAlpn,
  kUnknownServerName,    // no certificate for this name and no default
  kCertificateUnusable,  // ours could not be parsed or set
  kNoClientCertificate,  // required, not sent
  kCertificateRejected,  // the peer's does not verify; verify_error says why
  kPeerAlert,            // the peer gave up; alert_received says why
  kBadRecord,            // decryption failed
  kRenegotiation,
  kTooManyMessages,  // KeyUpdates or tickets past the limit
  kTruncated,        // the stream ended without close_notify
  kProtocol,         // any other breach
  kInternal,
  kCount
};
std::string_view to_string(FailureCause cause) noexcept;

struct Failure {
  static constexpr int16_t kNoAlert = -1;
  FailureCause cause = FailureCause::kNone;
  int16_t alert_sent = kNoAlert;  // AlertDescription of RFC 8446 6
  int16_t alert_received = kNoAlert;
  int32_t verify_error = 0;    // X509_V_ERR_...
  uint64_t library_error = 0;  // OpenSSL's code
};

enum class HandshakeState : uint8_t { kWantMore, kDone, kFailed };

struct HandshakeStep {
  HandshakeState state = HandshakeState::kWantMore;
  // Of `received`. Less than all only when done or failed: the rest is the caller's, the first
  // ciphertext for read().
  size_t consumed = 0;
};

enum class ReadState : uint8_t {
  kWantMore,  // all of the ciphertext was consumed
  kFull,      // no room left in `plaintext`: call again with what was not consumed
  kClosed,    // close_notify: a clean end. What follows it is not looked at.
  kFailed,
};

struct ReadResult {
  ReadState state = ReadState::kWantMore;
  size_t consumed = 0;
  size_t produced = 0;
};

struct WriteResult {
  size_t consumed = 0;  // of the plaintext
  size_t produced = 0;  // of `ciphertext`
  bool failed = false;
};

// Where a client Session goes.
struct ClientTarget {
  // The name (or literal IP address) that the certificate must carry; a name is also sent as SNI.
  std::string_view host_name;
  // Of this name and no other: a resumed session is not verified again. May be null; outlives the
  // Session.
  ResumptionSlot* sessions = nullptr;
};

// The peer's certificate, for headers and logs.
struct PeerCertificate {
  std::string subject;  // RFC 2253
  std::string issuer;
  std::string serial;                          // hexadecimal
  std::vector<std::string> alternative_names;  // "DNS:a.example", "IP:::1", "URI:...", "email:..."
  std::array<uint8_t, 32> sha256{};            // of the DER
  int64_t not_before_s = 0;
  int64_t not_after_s = 0;
  Der der;
};

struct Facts {
  uint16_t version = 0;
  std::string_view cipher;       // the RFC's name, e.g. TLS_AES_128_GCM_SHA256
  std::string_view group;        // empty: none (a resumed session of TLS 1.2)
  std::string_view alpn;         // empty: none chosen; valid while the Session lives
  std::string_view server_name;  // the same
  bool resumed = false;
};

// Why kernel_keys() says no.
enum class KernelRefusal : uint8_t {
  kNone,
  kNotAsked,     // keep_kernel_keys is false
  kNotFinished,  // the handshake is not, or the session has failed
  kVersion,
  kCipher,          // no AEAD that kernels have
  kFragmentLength,  // max_fragment_length: the kernel would send longer records
  kKeyUpdate,
  kCloseNotify,   // either side has ended already
  kInsideRecord,  // part of a record was fed
  kUnreadPlaintext,
  kNoSecret,
  kCount
};
std::string_view to_string(KernelRefusal refusal) noexcept;

class Session {
 public:
  static constexpr size_t kRecordPlaintextMax = 16 * 1024;
  // Header, explicit iv, padding and MAC of the worst suite; and once a KeyUpdate record.
  static constexpr size_t kRecordOverheadMax = 128;
  // Room that write() needs to take `plaintext` bytes in one call, at most.
  static constexpr size_t ciphertext_bound(size_t plaintext) noexcept {
    return plaintext + (plaintext / kRecordPlaintextMax + 2) * kRecordOverheadMax;
  }

  static std::unique_ptr<Session> make_server(Context& context) noexcept;
  static std::expected<std::unique_ptr<Session>, std::string> make_client(
      Context& context, const ClientTarget& target) noexcept;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session();

  // ---- the handshake
  // A client calls it first with nothing received. What has to be sent is appended to `to_send`,
  // also when the step failed.
  HandshakeStep handshake(std::string_view received, std::string& to_send) noexcept;
  [[nodiscard]] bool handshake_done() const noexcept { return done_; }

  // ---- data, after the handshake
  // Decrypts into `plaintext` as much as it has room for. Room for a whole record
  // (kRecordPlaintextMax) costs the fewest calls. `to_send` gets alerts; a KeyUpdate that has to be
  // answered is answered by the next write(), or here if another comes before that.
  ReadResult read(std::string_view ciphertext, std::span<char> plaintext,
                  std::string& to_send) noexcept;
  // Encrypts the pieces, joined, as records of up to 16 KiB while `ciphertext` has room for them.
  WriteResult write(std::span<const std::string_view> pieces, std::span<char> ciphertext) noexcept;
  // Appends our close_notify, once. Reading may go on.
  void close(std::string& to_send) noexcept;
  // The stream has ended (FIN): true after the peer's close_notify, else it is a failure,
  // kTruncated: a body without a length must not pass for complete.
  bool on_end() noexcept;

  // Ciphertext bytes that complete what has been fed: 0 at the end of a record, those of the header
  // while that is incomplete. For reading exactly to the end of a record.
  [[nodiscard]] size_t missing() const noexcept;
  // Plaintext of a record that read() had no room for.
  [[nodiscard]] size_t unread_plaintext() const noexcept;
  [[nodiscard]] bool close_notify_received() const noexcept { return closed_by_peer_; }
  [[nodiscard]] bool close_notify_sent() const noexcept { return closed_by_us_; }
  // TLS 1.2 and records_per_key records sent: end the connection at the next message.
  [[nodiscard]] bool worn_out() const noexcept;
  [[nodiscard]] uint32_t key_updates_received() const noexcept { return key_updates_; }

  // ---- the kernel
  // After the handshake and any number of reads and writes, at the end of a record. The Session can
  // be destroyed then (its session stays resumable); it must not be used for data any more.
  std::optional<KernelKeys> kernel_keys() noexcept;
  [[nodiscard]] KernelRefusal why_not_kernel() const noexcept;

  // ---- facts
  [[nodiscard]] Facts facts() const noexcept;
  // Copies and formats: once per connection, not per request. Empty: the peer sent none.
  [[nodiscard]] std::optional<PeerCertificate> peer_certificate() const;
  [[nodiscard]] const Failure& failure() const noexcept { return failure_; }
  // One line for the log, without secrets.
  [[nodiscard]] std::string failure_text() const;

 private:
  friend struct SessionHooks;  // what OpenSSL calls back, src/net/tls/session_hooks.h
  struct SslFree {
    void operator()(ssl_st* ssl) const noexcept;
  };
  // Counts the records of one direction as they pass, from their headers alone.
  struct RecordCount {
    uint64_t since_cipher_change = 0;  // TLS 1.2: records under the new keys
    uint64_t since_finished = 0;       // TLS 1.3: records after the handshake
    uint64_t explicit_nonce = 0;       // first 8 bytes of the last record under the new keys
    bool cipher_changed = false;
    void add(uint8_t type, uint64_t nonce, bool finished) noexcept;
  };

  Session(Context& context, bool server) noexcept;
  void take_header(std::string_view& input) noexcept;
  void take_body(std::string_view& input) noexcept;
  void check_first_header() noexcept;
  void check_handshake_size(std::string& to_send) noexcept;
  void step_handshake(std::string& to_send) noexcept;
  void keep_renewed_session() noexcept;
  // One SSL_read. False: OpenSSL needs more.
  bool read_some(std::span<char> plaintext, ReadResult& result) noexcept;
  void check_limits() noexcept;
  bool change_key_if_due() noexcept;
  [[nodiscard]] size_t record_limit() const noexcept;
  void count_output(std::string_view records, bool finished) noexcept;
  void note_failure(int returned) noexcept;
  void fail(FailureCause cause) noexcept;
  bool fill_tls13(KernelKeys& keys) noexcept;
  bool fill_tls12(KernelKeys& keys) noexcept;

  Context& context_;
  std::unique_ptr<ssl_st, SslFree> ssl_;
  ResumptionSlot* slot_ = nullptr;
  const Choice* choice_ = nullptr;  // server: the certificates for the name that was asked for
  // What the BIO reads: the rest of the header, then of the body, of the record that is being fed.
  std::string_view header_window_;
  std::string_view body_window_;
  // Where the BIO writes: `out_text_` if set, else the room at `out_at_`.
  std::string* out_text_ = nullptr;
  char* out_at_ = nullptr;
  size_t out_room_ = 0;
  RecordCount sent_;
  RecordCount received_;
  uint64_t records_since_rekey_ = 0;
  Secret<48> client_secret_;
  Secret<48> server_secret_;
  Failure failure_;
  uint32_t handshake_bytes_ = 0;
  uint32_t body_left_ = 0;
  uint32_t key_updates_ = 0;
  uint32_t tickets_received_ = 0;
  std::array<char, 5> header_{};
  uint8_t header_size_ = 0;  // 5: in the body
  bool server_;
  bool started_ : 1 = false;
  bool done_ : 1 = false;
  bool failed_ : 1 = false;
  bool closed_by_peer_ : 1 = false;
  bool closed_by_us_ : 1 = false;
  bool key_changed_ : 1 = false;  // in either direction, after the handshake
  bool unknown_name_ : 1 = false;
  bool certificate_unusable_ : 1 = false;
  bool first_header_seen_ : 1 = false;
  bool answered_ : 1 = false;  // server: something was sent
};

}  // namespace weir::net::tls
