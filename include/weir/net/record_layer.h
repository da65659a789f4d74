// TLS between a Transport and its socket, after the handshake: either the Session whose ciphertext
// the transport carries, or, with the records in the kernel, what is left to do for us: alerts,
// KeyUpdates, and the count of records. Owned by its Transport, which is the only user; the one
// that has the descriptor and does all input and output.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <sys/uio.h>

#include <weir/net/tls/engine.h>
#include <weir/net/tls/kernel_keys.h>
#include <weir/net/tls/ktls_record.h>
#include <weir/net/tls/session.h>

namespace weir::net {

// How a connection is encrypted, for logs. All zero without TLS.
struct TlsFacts {
  uint16_t version = 0;     // as on the wire: 0x0303, 0x0304
  std::string_view cipher;  // the RFC's name; static
  tls::RecordPath records = tls::RecordPath::kPlain;
  bool resumed = false;
};

// What the record layers of both kinds are made of.
struct RecordLayerOrigin {
  tls::Engine& engine;
  tls::Counters::Side& counters;
  TlsFacts facts;
  bool client = false;  // our side of the connection is the client's
  bool may_go_direct = true;
};

class RecordLayer {
 public:
  // AES-GCM: records under one key before a connection is ended at the next chance, and at once
  // (RFC 8446 5.5: 2^24.5). The kernel does not count for us.
  static constexpr uint64_t kRecordsWanted = uint64_t{1} << 23;
  static constexpr uint64_t kRecordsMax = uint64_t{1} << 24;

  // In userspace. `context` is what the session was made of, kept as long.
  RecordLayer(const RecordLayerOrigin& origin, std::shared_ptr<void> context,
              std::unique_ptr<tls::Session> session) noexcept;
  // In the kernel. `keys`: for KeyUpdates, where the kernel can change them; else null.
  RecordLayer(const RecordLayerOrigin& origin, std::unique_ptr<tls::KernelKeys> keys) noexcept;
  RecordLayer(const RecordLayer&) = delete;
  RecordLayer& operator=(const RecordLayer&) = delete;
  ~RecordLayer();

  [[nodiscard]] bool in_kernel() const noexcept {
    return tls::kKernelTlsBuilt && session_ == nullptr;
  }
  [[nodiscard]] const TlsFacts& facts() const noexcept { return facts_; }
  [[nodiscard]] tls::Engine& engine() noexcept { return engine_; }
  [[nodiscard]] tls::Counters::Side& counters() noexcept { return counters_; }
  [[nodiscard]] bool closed_by_peer() const noexcept { return closed_by_peer_; }
  void note_closed_by_peer() noexcept { closed_by_peer_ = true; }
  [[nodiscard]] bool may_go_direct() const noexcept { return may_go_direct_; }
  // The connection should end at the next message: its keys are used up.
  [[nodiscard]] bool worn_out() const noexcept;

  // ---- receiving, userspace
  [[nodiscard]] tls::Session& session() noexcept { return *session_; }
  // Received but not opened yet, since there was no room for what is in it: plaintext, then
  // ciphertext.
  [[nodiscard]] bool has_input() const noexcept;
  [[nodiscard]] size_t input_bytes() const noexcept;
  void add_plaintext(std::string_view bytes) { plaintext_.append(bytes); }
  void add_ciphertext(std::string_view bytes) { ciphertext_.append(bytes); }
  void drop_input() noexcept;
  struct Opened {
    tls::ReadState state = tls::ReadState::kWantMore;
    size_t produced = 0;
    size_t consumed = 0;  // of the ciphertext given
  };
  // Opens what is kept, and only when nothing is kept, `ciphertext`. kWantMore with something
  // produced: there may be more. After kClosed or kFailed nothing may be opened any more.
  Opened open(std::string_view ciphertext, std::span<char> out, std::string& alert) noexcept;

  // ---- sending, userspace
  // Ciphertext that waits for the socket.
  [[nodiscard]] std::string_view unsent() const noexcept { return {unsent_at_, unsent_bytes_}; }
  void sent(size_t bytes) noexcept;
  // False: nothing can be sent any more.
  [[nodiscard]] bool may_seal() const noexcept;
  // A send was given up, perhaps in the middle of a record.
  void break_sending() noexcept;
  [[nodiscard]] bool broken() const noexcept { return broken_; }
  // Makes records of a part of the pieces, at most one block (the engine's), and says of how much
  // plaintext; they are in records(). 0: the session has failed.
  size_t seal(const iovec* pieces, size_t count) noexcept;
  // The same for little: into memory that stays where it is until all is sent(); they are unsent().
  size_t seal_small(const iovec* pieces, size_t count, std::span<char> out) noexcept;
  [[nodiscard]] std::string_view records() const noexcept { return records_; }
  // What of records() is behind the first `taken` bytes becomes unsent().
  void keep_unsent(size_t taken);
  // So does our close_notify.
  void keep_close_notify();
  // What the session had to say while it was read (the answer to a KeyUpdate, when another comes
  // before we have written): it goes before whatever is sealed next.
  void keep_answer(std::string_view bytes) { answers_.append(bytes); }
  [[nodiscard]] bool has_answer() const noexcept { return !answers_.empty(); }
  std::string take_answer() noexcept { return std::exchange(answers_, {}); }
  // It becomes unsent().
  void send_answer();
  [[nodiscard]] bool closed_by_us() const noexcept { return closed_by_us_; }
  void note_closed_by_us() noexcept { closed_by_us_ = true; }
  // close_notify would be a record of its own.
  [[nodiscard]] bool may_close() const noexcept {
    return in_kernel() ? !broken_ : may_seal() && unsent().empty();
  }

  // ---- the kernel's
  // A handshake record (or part of one) was received.
  enum class AfterHandshakeRecord : uint8_t { kGoOn, kEnd, kCut, kFail };
  AfterHandshakeRecord take_handshake(int fd, const tls::ReceivedPiece& piece) noexcept;
  [[nodiscard]] bool inside_handshake_message() const noexcept {
    return post_handshake_.inside_message();
  }
  // Records that we write ourselves, one at a time.
  enum class Control : uint8_t { kNone, kKeyUpdate, kCloseNotify };
  void begin_control(Control control) noexcept;
  [[nodiscard]] tls::TypedRecord& control() noexcept { return *control_; }
  [[nodiscard]] bool control_sent() const noexcept {
    return control_->message().msg_iov->iov_len == 0;
  }
  // An update was asked for, or our keys are old: kKeyUpdate has to be sent before more data, then
  // answered() called, which sets our new keys. False: it cannot.
  [[nodiscard]] bool answer_due() const noexcept { return answer_due_; }
  [[nodiscard]] bool answered(int fd) noexcept;
  // Nothing that is still to come can be opened: a KeyUpdate that this kernel cannot follow.
  [[nodiscard]] bool deaf() const noexcept { return deaf_; }
  // New receive keys were set since the last time it was asked: EKEYEXPIRED is of the past.
  bool take_rekeyed() noexcept { return std::exchange(rekeyed_, false); }
  // Data of so many bytes was taken by the kernel in one call.
  void count_records(size_t bytes) noexcept;
  [[nodiscard]] bool used_up() const noexcept { return records_sent_ >= kRecordsMax; }

 private:
  tls::Engine& engine_;
  tls::Counters::Side& counters_;
  TlsFacts facts_;
  bool may_go_direct_;
  bool client_;
  bool limited_;  // the cipher is not for any number of records
  bool closed_by_peer_ = false;
  bool closed_by_us_ = false;
  bool broken_ = false;
  bool answer_due_ = false;
  bool deaf_ = false;
  bool rekeyed_ = false;
  // Userspace. The order matters: the session goes before what it was made of.
  std::shared_ptr<void> context_;
  std::unique_ptr<tls::Session> session_;
  std::string plaintext_;
  std::string ciphertext_;
  std::string answers_;
  std::string_view records_;
  const char* unsent_at_ = nullptr;
  size_t unsent_bytes_ = 0;
  std::unique_ptr<char[]> unsent_heap_;
  // Kernel.
  std::unique_ptr<tls::KernelKeys> keys_;
  std::unique_ptr<tls::TypedRecord> control_;
  tls::PostHandshake post_handshake_;
  uint64_t records_sent_ = 0;
};

}  // namespace weir::net
