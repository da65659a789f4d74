// Transport with the records of TLS in the kernel: which record is data, alerts, KeyUpdates, ends.
#include <array>
#include <cerrno>

#include <weir/net/transport.h>
#include <weir/runtime/sys.h>

namespace weir::net {

using runtime::BufferPool;
using tls::RecordType;

namespace {
constexpr base::Error kBrokenRecord{.code = base::Errc::kMalformed, .os = EPROTO};
}  // namespace

// ---- receiving

void Transport::deliver_record(uint16_t buffer, uint32_t bytes) noexcept {
  BufferPool& pool = reactor_.buffers();
  const auto piece =
      tls::parse_multishot({reinterpret_cast<const uint8_t*>(pool.data(buffer)), pool.size()},
                           static_cast<int32_t>(bytes));
  if (piece && piece->type == RecordType::kData && !tls_->inside_handshake_message()) {
    if (!piece->bytes.empty()) {
      return enqueue(buffer, piece->offset, static_cast<uint32_t>(piece->bytes.size()));
    }
  } else if (piece) {
    take_control_record(*piece);
  } else {
    ++tls_->counters().bad_records;
    stop_receive();
    fail_receive(kBrokenRecord);
  }
  pool.release(buffer);
}

bool Transport::is_end(uint16_t buffer, uint32_t bytes) noexcept {
  BufferPool& pool = reactor_.buffers();
  const auto piece =
      tls::parse_multishot({reinterpret_cast<const uint8_t*>(pool.data(buffer)), pool.size()},
                           static_cast<int32_t>(bytes));
  return !piece || piece->type == RecordType::kNone;
}

void Transport::take_control_record(const tls::ReceivedPiece& piece) noexcept {
  using After = RecordLayer::AfterHandshakeRecord;
  After after = After::kFail;
  if (piece.type == RecordType::kNone) return note_receive_end();
  if (piece.type == RecordType::kHandshake) {
    after = tls_->take_handshake(fd_, piece);
  } else if (const auto alert = tls::parse_alert(piece);
             piece.type == RecordType::kAlert && alert) {
    if (*alert == tls::AlertMeaning::kOther) {
      stop_receive();
      return fail_receive({.code = base::Errc::kReset});
    }
    after = *alert == tls::AlertMeaning::kNothing ? After::kGoOn : After::kEnd;
  }
  if (after == After::kGoOn) return;
  stop_receive();
  if (after == After::kCut) return fail_receive({.code = base::Errc::kUnsupported});
  if (after == After::kEnd) {
    tls_->note_closed_by_peer();
    return note_end(false);
  }
  ++tls_->counters().bad_records;
  send_alert(tls::Alert::kUnexpectedMessage);
  fail_receive(kBrokenRecord);
}

void Transport::note_kernel_fault(int32_t result) noexcept {
  if (tls_->deaf()) {
    // No record opens behind that KeyUpdate. It must not fail what we still have to send.
    tls::clear_socket_error(fd_);
    return;
  }
  const tls::ReceiveFault fault = tls::receive_fault(-result);
  if (fault.kind == tls::ReceiveFault::Kind::kNeedsKeys && tls_->take_rekeyed()) return;
  if (fault.kind == tls::ReceiveFault::Kind::kBadRecord) {
    ++tls_->counters().bad_records;
    // Else it would fail the alert.
    tls::clear_socket_error(fd_);
    send_alert(fault.alert);
  }
  fail_receive(fault.error);
}

ssize_t Transport::recv_direct_kernel(void* out, size_t bytes) noexcept {
  while (!ended_ && !failed()) {
    const ssize_t result = runtime::sys::recv(fd_, out, bytes, 0);
    if (result > 0) return result;
    if (result == -EAGAIN || result == -EINTR) return -EAGAIN;
    if (result == 0) {
      note_receive_end();
    } else if (result == -EIO) {  // a record of another type, which only recvmsg(2) reads
      if (!read_control_record()) return -EAGAIN;
    } else {
      note_kernel_fault(static_cast<int32_t>(result));
    }
  }
  if (!failed()) return 0;
  return error_.os != 0 ? -error_.os : -EIO;
}

// False: nothing was there after all.
bool Transport::read_control_record() noexcept {
  alignas(cmsghdr) std::array<std::byte, tls::kRecordControlSize> control{};
  std::array<uint8_t, 512> bytes;
  iovec piece{bytes.data(), bytes.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t result = runtime::sys::recvmsg(fd_, &message, 0);
  if (result == -EAGAIN || result == -EINTR) return false;
  if (result < 0) {
    note_kernel_fault(static_cast<int32_t>(result));
    return true;
  }
  const auto parsed = tls::parse_message(message, {bytes.data(), static_cast<size_t>(result)});
  if (parsed && parsed->type != RecordType::kData) {
    take_control_record(*parsed);
  } else {
    fail_receive(kBrokenRecord);
  }
  return true;
}

// ---- sending

// Best effort, as every alert; the kernel puts it behind what it has taken.
void Transport::send_alert(tls::Alert alert) noexcept {
  if (sending_ != nullptr) return;
  const tls::AlertBytes bytes = tls::alert_bytes(alert);
  const tls::TypedRecord record(RecordType::kAlert, bytes);
  (void)runtime::sys::sendmsg(fd_, &record.message(), 0);
}

// For send_direct() with records in the kernel: false when only send() can.
bool Transport::may_send_record() noexcept { return !tls_->answer_due() && !tls_->used_up(); }

SendOp::Next SendOp::next_kernel() noexcept {
  RecordLayer& tls = *transport_.tls_;
  if (tls.broken()) return fail(ECANCELED);
  if (control_ == RecordLayer::Control::kKeyUpdate) {
    if (!tls.control_sent()) return submit_control();
    control_ = RecordLayer::Control::kNone;
    if (!tls.answered(transport_.fd_)) return fail(EPROTO);
  } else if (control_ == RecordLayer::Control::kCloseNotify) {
    return tls.control_sent() ? Next::kDone : submit_control();
  }
  if (tls.answer_due()) return begin_control(RecordLayer::Control::kKeyUpdate);
  if (message_.msg_iovlen == 0) {
    if (!std::exchange(close_notify_, false) || tls.closed_by_us()) return Next::kDone;
    tls.note_closed_by_us();
    return begin_control(RecordLayer::Control::kCloseNotify);
  }
  if (tls.used_up()) return fail(EMSGSIZE);
  return submit_plain();
}

SendOp::Next SendOp::begin_control(RecordLayer::Control control) noexcept {
  control_ = control;
  transport_.tls_->begin_control(control);
  return submit_control();
}

SendOp::Next SendOp::submit_control() noexcept {
  submit_message(&transport_.tls_->control().message());
  return Next::kSubmitted;
}

}  // namespace weir::net
