// RecordLayer with the records in the kernel.
#include <weir/net/record_layer.h>

namespace weir::net {

using tls::Direction;
using tls::PostHandshake;
using tls::RecordType;

RecordLayer::AfterHandshakeRecord RecordLayer::take_handshake(
    int fd, const tls::ReceivedPiece& piece) noexcept {
  // With TLS 1.2 it would be a renegotiation.
  if (facts_.version != tls::kTls13) return AfterHandshakeRecord::kFail;
  const auto event = post_handshake_.feed(piece);
  if (!event) return AfterHandshakeRecord::kFail;
  if (*event == PostHandshake::Event::kNothing) return AfterHandshakeRecord::kGoOn;
  ++counters_.key_updates;
  // Without new keys nothing that follows can be read. A client has said all that we answer, so it
  // is as if it had ended here: what we have to say can still be said. An origin may be in the
  // middle of a body that lasts until its end, which this is not.
  if (keys_ == nullptr || !engine_.kernel.rekey(fd, Direction::kRx, *keys_)) {
    deaf_ = true;
    return client_ ? AfterHandshakeRecord::kCut : AfterHandshakeRecord::kEnd;
  }
  rekeyed_ = true;
  if (*event == PostHandshake::Event::kKeyUpdateRequested) answer_due_ = true;
  return AfterHandshakeRecord::kGoOn;
}

void RecordLayer::begin_control(Control control) noexcept {
  static constexpr tls::AlertBytes kCloseNotify = tls::alert_bytes(tls::Alert::kCloseNotify);
  if (control == Control::kKeyUpdate) {
    control_ = std::make_unique<tls::TypedRecord>(RecordType::kHandshake, tls::kKeyUpdateAnswer);
  } else {
    control_ = std::make_unique<tls::TypedRecord>(RecordType::kAlert, kCloseNotify);
  }
}

bool RecordLayer::answered(int fd) noexcept {
  answer_due_ = false;
  control_.reset();
  records_sent_ = 0;
  return keys_ != nullptr && engine_.kernel.rekey(fd, Direction::kTx, *keys_).has_value();
}

void RecordLayer::count_records(size_t bytes) noexcept {
  counters_.kernel_bytes += bytes;
  if (!limited_) return;
  records_sent_ += bytes / tls::Session::kRecordPlaintextMax + 1;
  // Where the kernel can change keys, we change ours.
  if (records_sent_ >= kRecordsWanted && keys_ != nullptr) answer_due_ = true;
}

}  // namespace weir::net
