// The client half of the load generator, where it speaks TLS.
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "client.h"
#include "clock.h"

namespace weir::bench {

namespace {

constexpr size_t kRecordPlaintextMax = 16384;
constexpr uint8_t kApplicationData = 23;
// TLS 1.3: what a record holds besides its plaintext, the type and AES-GCM's tag. Nobody pads here.
constexpr size_t kRecordExtra = 17;

std::array<char, kRecordPlaintextMax> plaintext;

}  // namespace

void Clients::begin_handshake(Connection& c) noexcept {
  c.tls = std::make_unique<TlsStream>(*tls_, c.ticket);
  (void)c.tls->handshake();  // makes a ClientHello; it cannot be done, nor fail
}

bool Clients::send_tls(Connection& c) noexcept {
  std::string& output = c.tls->output();
  while (!output.empty()) {
    const ssize_t count = send(c.fd, output.data(), output.size(), MSG_NOSIGNAL);
    if (count < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return false;
      drop(c, c.state == State::kConnecting ? errors_.connect : errors_.closed);
      return false;
    }
    output.erase(0, static_cast<size_t>(count));
  }
  if (c.state == State::kConnecting) c.state = State::kHandshake;
  return true;
}

void Clients::send_tls_request(Connection& c) noexcept {
  c.state = State::kHead;
  c.body_seen = 0;
  c.head_part.clear();
  c.skimming = in_window_ && plan_.body_bytes > kCompareAlwaysBytes && c.response_bytes != 0;
  c.skimmed = 0;
  c.record_left = c.header_bytes = 0;
  if (c.skimming && c.tls->inside_record()) {
    drop(c, errors_.length);  // more came than the response
    return;
  }
  // Far smaller than a socket buffer that was empty a moment ago. After a handshake, its last
  // message and the request leave in one piece.
  if (!c.tls->write(request_) || (!send_tls(c) && c.state != State::kClosed)) {
    drop(c, errors_.closed);
  }
}

void Clients::receive_tls(Connection& c, bool ended) noexcept {
  while (!c.skimming) {
    const ssize_t count = recv(c.fd, receive_buffer_.data(), receive_buffer_.size(), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) {
      take_tls_end(c);
      return;
    }
    const auto size = static_cast<size_t>(count);
    if (in_window_) window_bytes_ += size;
    c.tls->feed({receive_buffer_.data(), size});
    if (c.state == State::kHandshake) go_on_with_handshake(c);
    if (c.state != State::kHandshake && c.state != State::kClosed) take_tls(c);
    if (c.state == State::kClosed || c.skimming) return;
    if (size < receive_buffer_.size() && !ended) return;
  }
  skim(c);
}

void Clients::go_on_with_handshake(Connection& c) noexcept {
  switch (c.tls->handshake()) {
    case TlsStream::Step::kWantMore: return;
    case TlsStream::Step::kDone: break;
    case TlsStream::Step::kClosed:
    case TlsStream::Step::kFailed: drop(c, errors_.handshake); return;
  }
  const bool resumed = c.tls->resumed();
  if (resumed != (plan_.resume && c.ticket != nullptr)) ++errors_.resumption;
  if (in_window_) {
    ++tls_counts_.handshakes;
    if (resumed) ++tls_counts_.resumed;
  }
  send_tls_request(c);
}

void Clients::take_tls(Connection& c) noexcept {
  for (;;) {
    size_t size = 0;
    switch (c.tls->read(plaintext, size)) {
      case TlsStream::Step::kWantMore: return;
      case TlsStream::Step::kDone: break;
      case TlsStream::Step::kClosed:
        if (c.state == State::kEnding) {
          if (in_window_) ++tls_counts_.clean_ends;
        } else {
          drop(c, errors_.closed);
        }
        return;
      case TlsStream::Step::kFailed: drop(c, errors_.malformed); return;
    }
    if (c.state == State::kIdle || c.state == State::kEnding) {
      drop(c, errors_.length);  // bytes that nobody asked for
      return;
    }
    const std::string_view bytes(plaintext.data(), size);
    (void)(c.state == State::kBody ? take_body(c, bytes, true) : take_head(c, bytes));
    if (c.state == State::kClosed || c.skimming) return;
  }
}

void Clients::take_tls_end(Connection& c) noexcept {
  if (c.state != State::kEnding) {
    drop(c, c.state == State::kHandshake ? errors_.handshake : errors_.closed);
    return;
  }
  if (plan_.resume) {
    TlsTicket ticket = c.tls->take_ticket();
    if (ticket != nullptr) {
      c.ticket = std::move(ticket);
    } else {
      ++errors_.resumption;  // the next one can only be a full handshake, or use a ticket twice
    }
  }
  hang_up(c);
  go_on(c);
}

bool Clients::take_record_header(Connection& c) noexcept {
  const auto at = [&c](size_t index) { return static_cast<uint8_t>(c.header[index]); };
  const size_t length = static_cast<size_t>(at(3)) << 8 | at(4);
  if (at(0) != kApplicationData || length <= kRecordExtra ||
      length > kRecordPlaintextMax + kRecordExtra) {
    drop(c, errors_.malformed);
    return false;
  }
  c.record_left = length;
  c.skimmed += length - kRecordExtra;
  if (c.skimmed <= c.response_bytes) return true;
  drop(c, errors_.length);
  return false;
}

void Clients::skim(Connection& c) noexcept {
  for (;;) {
    const bool in_header = c.header_bytes < c.header.size();
    // TCP drops the body of the record uncopied with MSG_TRUNC.
    char* const target = in_header ? c.header.data() + c.header_bytes : receive_buffer_.data();
    const size_t wanted = in_header ? c.header.size() - c.header_bytes : c.record_left;
    const ssize_t count = recv(c.fd, target, wanted, in_header ? 0 : MSG_TRUNC);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) {
      drop(c, errors_.closed);
      return;
    }
    const auto size = static_cast<size_t>(count);
    if (in_window_) window_bytes_ += size;
    if (in_header) {
      c.header_bytes += size;
      if (c.header_bytes == c.header.size() && !take_record_header(c)) return;
      continue;
    }
    c.record_left -= size;
    if (c.record_left != 0) continue;
    c.header_bytes = 0;
    if (c.skimmed < c.response_bytes) continue;
    complete(c);
    return;
  }
}

}  // namespace weir::bench
