#include <weir/net/tls/ktls_record.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <liburing.h>
#include <linux/tls.h>

#include <weir/runtime/sys.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

namespace weir::net::tls {

static_assert(sizeof(io_uring_recvmsg_out) + kRecordControlSize == kMultishotOverhead);

namespace {

constexpr uint8_t kNewSessionTicket = 4;
constexpr uint8_t kKeyUpdateMessage = 24;

// The type in the control data of one receive; kNone when there is none.
base::Result<RecordType> find_type(const uint8_t* control, size_t size) noexcept {
  if (size == 0) return RecordType::kNone;
  cmsghdr header;
  if (size < CMSG_LEN(1)) return base::fail(base::Errc::kMalformed);
  std::memcpy(&header, control, sizeof header);
  if (header.cmsg_len < CMSG_LEN(1) || header.cmsg_len > size || header.cmsg_level != SOL_TLS ||
      header.cmsg_type != TLS_GET_RECORD_TYPE) {
    return base::fail(base::Errc::kMalformed);
  }
  switch (const uint8_t type = control[CMSG_LEN(0)]; type) {
    case static_cast<uint8_t>(RecordType::kAlert):
    case static_cast<uint8_t>(RecordType::kHandshake):
    case static_cast<uint8_t>(RecordType::kData): return RecordType{type};
    default: return base::fail(base::Errc::kMalformed);
  }
}

base::Result<ReceivedPiece> make_piece(std::span<const uint8_t> control, uint32_t flags,
                                       std::span<const uint8_t> bytes) noexcept {
  if ((flags & (MSG_CTRUNC | MSG_TRUNC)) != 0) return base::fail(base::Errc::kMalformed);
  WEIR_TRY(const RecordType type, find_type(control.data(), control.size()));
  // Bytes without a type would be the plain stream: this socket has no receive keys.
  if (type == RecordType::kNone && !bytes.empty()) return base::fail(base::Errc::kMalformed);
  return ReceivedPiece{
      .type = type, .record_ends = (flags & MSG_EOR) != 0, .offset = 0, .bytes = bytes};
}

}  // namespace

TypedRecord::TypedRecord(RecordType type, std::span<const uint8_t> bytes) noexcept {
  // sendmsg takes what it only reads as pointers to non-const.
  piece_ = {const_cast<uint8_t*>(bytes.data()), bytes.size()};
  message_.msg_iov = &piece_;
  message_.msg_iovlen = 1;
  message_.msg_control = control_.data();
  message_.msg_controllen = control_.size();
  cmsghdr header{};
  header.cmsg_level = SOL_TLS;
  header.cmsg_type = TLS_SET_RECORD_TYPE;
  header.cmsg_len = CMSG_LEN(1);
  std::memcpy(control_.data(), &header, sizeof header);
  control_[CMSG_LEN(0)] = static_cast<uint8_t>(type);
}

void TypedRecord::advance(size_t bytes) noexcept {
  bytes = std::min(bytes, piece_.iov_len);
  piece_.iov_base = static_cast<uint8_t*>(piece_.iov_base) + bytes;
  piece_.iov_len -= bytes;
}

base::Result<ReceivedPiece> parse_multishot(std::span<const uint8_t> buffer,
                                            int32_t result) noexcept {
  if (result < 0) return base::fail(base::from_errno(-result));
  if (static_cast<size_t>(result) < kMultishotOverhead ||
      static_cast<size_t>(result) > buffer.size()) {
    return base::fail(base::Errc::kMalformed);
  }
  io_uring_recvmsg_out head;
  std::memcpy(&head, buffer.data(), sizeof head);
  const size_t room = static_cast<size_t>(result) - kMultishotOverhead;
  if (head.namelen != 0 || head.controllen > kRecordControlSize || head.payloadlen > room) {
    return base::fail(base::Errc::kMalformed);
  }
  WEIR_TRY(ReceivedPiece piece, make_piece(buffer.subspan(sizeof head, head.controllen), head.flags,
                                           buffer.subspan(kMultishotOverhead, head.payloadlen)));
  piece.offset = kMultishotOverhead;
  return piece;
}

base::Result<ReceivedPiece> parse_message(const msghdr& message,
                                          std::span<const uint8_t> bytes) noexcept {
  return make_piece({static_cast<const uint8_t*>(message.msg_control), message.msg_controllen},
                    static_cast<uint32_t>(message.msg_flags), bytes);
}

ReceiveFault receive_fault(int os) noexcept {
  using Kind = ReceiveFault::Kind;
  const base::Error malformed{.code = base::Errc::kMalformed, .os = os};
  switch (os) {
    case EBADMSG: return {Kind::kBadRecord, Alert::kBadRecordMac, malformed};
    case EMSGSIZE: return {Kind::kBadRecord, Alert::kRecordOverflow, malformed};
    case EINVAL: return {Kind::kBadRecord, Alert::kUnexpectedMessage, malformed};
    case EKEYEXPIRED:
      return {Kind::kNeedsKeys,
              Alert::kUnexpectedMessage,
              {.code = base::Errc::kUnsupported, .os = os}};
    default: return {Kind::kSocket, Alert::kInternalError, base::from_errno(os)};
  }
}

void clear_socket_error(int fd) noexcept {
  int pending = 0;
  socklen_t size = sizeof pending;
  (void)runtime::sys::getsockopt(fd, SOL_SOCKET, SO_ERROR, &pending, &size);
}

base::Result<AlertMeaning> parse_alert(const ReceivedPiece& piece) noexcept {
  if (piece.type != RecordType::kAlert || piece.bytes.size() != 2) {
    return base::fail(base::Errc::kMalformed);
  }
  constexpr uint8_t kUserCanceled = 90;
  if (piece.bytes[1] == kUserCanceled) return AlertMeaning::kNothing;
  const bool closes = piece.bytes[1] == static_cast<uint8_t>(Alert::kCloseNotify);
  return closes ? AlertMeaning::kCloseNotify : AlertMeaning::kOther;
}

base::Result<void> PostHandshake::check_header() const noexcept {
  const uint32_t size = uint32_t{header_[1]} << 16 | uint32_t{header_[2]} << 8 | header_[3];
  if (header_[0] == kKeyUpdateMessage) {
    if (size != 1) return base::fail(base::Errc::kMalformed);
    if (updates_ >= kUpdatesMax) return base::fail(base::Errc::kLimit);
    return {};
  }
  if (header_[0] != kNewSessionTicket || role_ != Role::kClient || size == 0) {
    return base::fail(base::Errc::kMalformed);
  }
  if (size > kTicketMax) return base::fail(base::Errc::kLimit);
  return {};
}

base::Result<PostHandshake::Event> PostHandshake::feed(const ReceivedPiece& piece) noexcept {
  std::span<const uint8_t> bytes = piece.bytes;
  if (piece.type != RecordType::kHandshake || bytes.empty()) {
    return base::fail(base::Errc::kMalformed);
  }
  while (!bytes.empty()) {
    if (have_ < header_.size()) {
      header_[have_++] = bytes.front();
      bytes = bytes.subspan(1);
      if (have_ < header_.size()) continue;
      WEIR_TRY_VOID(check_header());
      left_ = uint32_t{header_[1]} << 16 | uint32_t{header_[2]} << 8 | header_[3];
      continue;
    }
    const size_t part = std::min<size_t>(left_, bytes.size());
    const uint8_t first = bytes.front();
    bytes = bytes.subspan(part);
    left_ -= static_cast<uint32_t>(part);
    if (left_ > 0) continue;
    have_ = 0;
    if (header_[0] != kKeyUpdateMessage) continue;
    // The keys change right behind this message, so nothing may share its record (RFC 8446, 5.1).
    if (!bytes.empty() || !piece.record_ends || first > 1) {
      return base::fail(base::Errc::kMalformed);
    }
    ++updates_;
    return first == 1 ? Event::kKeyUpdateRequested : Event::kKeyUpdate;
  }
  return Event::kNothing;
}

}  // namespace weir::net::tls
