// Records on a kernel TLS socket: sending one of a given type, and telling what a receive brought.
// The kernel does the ciphers; alerts and handshake messages are still ours, and only control
// messages (cmsg) say which is which. Plain values and parsers, used by the coroutine that owns the
// connection. Never trusts lengths: neither the peer's nor those in a completed buffer.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include <sys/socket.h>
#include <sys/uio.h>

#include <weir/base/result.h>
#include <weir/net/tls/kernel_keys.h>

namespace weir::net::tls {

enum class RecordType : uint8_t { kNone = 0, kAlert = 21, kHandshake = 22, kData = 23 };

// Alert descriptions we send ourselves (RFC 8446, 6).
enum class Alert : uint8_t {
  kCloseNotify = 0,
  kUnexpectedMessage = 10,
  kBadRecordMac = 20,
  kRecordOverflow = 22,
  kInternalError = 80,
};

// ---- sending

using AlertBytes = std::array<uint8_t, 2>;
constexpr AlertBytes alert_bytes(Alert alert) noexcept {
  return {static_cast<uint8_t>(alert == Alert::kCloseNotify ? 1 : 2), static_cast<uint8_t>(alert)};
}
using KeyUpdateBytes = std::array<uint8_t, 5>;
// Our answer to an update that was asked for; it must not ask in turn (RFC 8446, 4.6.3).
constexpr KeyUpdateBytes kKeyUpdateAnswer{24, 0, 0, 1, 0};

// A message for sendmsg(2) or IORING_OP_SENDMSG that makes one record of `type` out of `bytes`. A
// data record left open with MSG_MORE is finished by it. Lives in the frame of the coroutine that
// awaits the send and does not move; `bytes` must outlive it too.
class TypedRecord {
 public:
  TypedRecord(RecordType type, std::span<const uint8_t> bytes) noexcept;
  TypedRecord(const TypedRecord&) = delete;
  TypedRecord& operator=(const TypedRecord&) = delete;

  [[nodiscard]] const msghdr& message() const noexcept { return message_; }
  // After a short send: what is left goes out as another record of the type.
  void advance(size_t bytes) noexcept;

 private:
  alignas(cmsghdr) std::array<uint8_t, CMSG_SPACE(1)> control_{};
  iovec piece_{};
  msghdr message_{};
};

// ---- receiving

// Room for the record type in a receive.
constexpr size_t kRecordControlSize = CMSG_SPACE(1);
// What a multishot recvmsg writes in front of the payload in each provided buffer.
constexpr size_t kMultishotOverhead = 16 + kRecordControlSize;

// The message a multishot recvmsg is armed with; it only says how much room the control data gets.
// Has to stay where it is while the operation is armed, may be shared by all of a core's.
struct MultishotTemplate {
  msghdr message{};
  MultishotTemplate() noexcept { message.msg_controllen = kRecordControlSize; }
};

// One piece of one record. Records of one type may arrive merged, a large one in pieces; pieces of
// different types never share a receive.
struct ReceivedPiece {
  RecordType type = RecordType::kNone;  // kNone with no bytes: TCP ended, there was no record
  bool record_ends = false;             // the last byte is the last of its record
  uint32_t offset = 0;                  // of the payload in the buffer
  std::span<const uint8_t> bytes;
};

// `buffer` is the provided buffer, `result` the completion's. kMalformed: a buffer that does not
// hold what it says, a type that no TLS record has here, or control data cut short.
base::Result<ReceivedPiece> parse_multishot(std::span<const uint8_t> buffer,
                                            int32_t result) noexcept;
// The same after recvmsg(2) or a single IORING_OP_RECVMSG of `bytes`.
base::Result<ReceivedPiece> parse_message(const msghdr& message,
                                          std::span<const uint8_t> bytes) noexcept;

// What an error of a receive means, and the alert to send for it.
struct ReceiveFault {
  enum class Kind : uint8_t {
    kBadRecord,  // decryption failed, too long, or no TLS record: send `alert`, close, count
    kNeedsKeys,  // EKEYEXPIRED: a KeyUpdate was read, new keys are due before anything else
    kSocket,     // a matter of TCP
  };
  Kind kind = Kind::kSocket;
  Alert alert = Alert::kInternalError;
  base::Error error;
};
ReceiveFault receive_fault(int os) noexcept;
// After EBADMSG the socket has a pending error that would fail the alert's send: this takes it.
void clear_socket_error(int fd) noexcept;

// What an alert record says; it holds exactly one alert (two bytes) or is malformed.
// kNothing: user_canceled, which close_notify follows (RFC 8446 6.1).
enum class AlertMeaning : uint8_t { kCloseNotify, kNothing, kOther };
base::Result<AlertMeaning> parse_alert(const ReceivedPiece& piece) noexcept;

// Follows the handshake messages that may come after the hand-over: KeyUpdate from either side, and
// tickets (NewSessionTicket) from a server, which are passed over. Messages may be split over
// pieces and records. One per connection, TLS 1.3 only: with TLS 1.2 any handshake record after the
// hand-over asks for a renegotiation and closes the connection.
class PostHandshake {
 public:
  enum class Role : uint8_t { kServer, kClient };
  enum class Event : uint8_t {
    kNothing,             // go on
    kKeyUpdate,           // new receive keys are due
    kKeyUpdateRequested,  // and an answer with new send keys
  };
  explicit PostHandshake(Role role) noexcept : role_(role) {}

  // kMalformed: not a message for this role, or KeyUpdate not at the end of its record; kLimit:
  // more updates or a larger ticket than we take. Both close the connection.
  base::Result<Event> feed(const ReceivedPiece& piece) noexcept;

  // A data record between the pieces of a message is an error of the peer (RFC 8446, 5.1).
  [[nodiscard]] bool inside_message() const noexcept { return have_ > 0; }
  [[nodiscard]] uint32_t updates() const noexcept { return updates_; }

  static constexpr uint32_t kUpdatesMax = 16;
  static constexpr uint32_t kTicketMax = 64 * 1024;

 private:
  base::Result<void> check_header() const noexcept;

  Role role_;
  uint8_t have_ = 0;  // bytes of the header that are there
  std::array<uint8_t, 4> header_{};
  uint32_t left_ = 0;  // bytes of the body still to come
  uint32_t updates_ = 0;
};

}  // namespace weir::net::tls
