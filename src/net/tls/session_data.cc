// Session after the handshake: reading, writing, ending.
#include <algorithm>
#include <cstring>

#include <weir/base/check.h>
#include <weir/net/tls/session.h>

#include "context_state.h"
#include "openssl.h"

namespace weir::net::tls {
namespace {

// Less than this is not worth a record of its own while more data waits.
constexpr size_t kCutRecordMin = 1024;

// Walks over the pieces and hands out runs of bytes in one place.
class PieceCursor {
 public:
  explicit PieceCursor(std::span<const std::string_view> pieces) noexcept : pieces_(pieces) {
    for (const std::string_view piece : pieces) left_ += piece.size();
  }
  [[nodiscard]] size_t left() const noexcept { return left_; }

  // The next `bytes`, copied to `scratch` only when they are spread over pieces.
  const char* take(size_t bytes, char* scratch) noexcept {
    skip_empty();
    left_ -= bytes;
    if (pieces_[at_].size() - offset_ >= bytes) {
      const char* found = pieces_[at_].data() + offset_;
      offset_ += bytes;
      return found;
    }
    for (size_t done = 0; done < bytes; skip_empty()) {
      const size_t part = std::min(bytes - done, pieces_[at_].size() - offset_);
      std::memcpy(scratch + done, pieces_[at_].data() + offset_, part);
      done += part;
      offset_ += part;
      if (done == bytes) break;
    }
    return scratch;
  }

 private:
  void skip_empty() noexcept {
    while (at_ < pieces_.size() && offset_ == pieces_[at_].size()) {
      ++at_;
      offset_ = 0;
    }
  }
  std::span<const std::string_view> pieces_;
  size_t at_ = 0;
  size_t offset_ = 0;
  size_t left_ = 0;
};

// SSL_get_error looks at the thread's queue: nothing of others may be in it.
void start_clean() noexcept {
  if (ERR_peek_error() != 0) ERR_clear_error();
}

}  // namespace

ReadResult Session::read(std::string_view ciphertext, std::span<char> plaintext,
                         std::string& to_send) noexcept {
  WEIR_CHECK(done_);
  WEIR_CHECK(!failed_);
  ReadResult result;
  if (closed_by_peer_) {
    result.state = ReadState::kClosed;
    return result;
  }
  start_clean();
  out_text_ = &to_send;
  const size_t sent_before = to_send.size();
  std::string_view rest = ciphertext;
  bool more = SSL_has_pending(ssl_.get()) == 1;  // a record that had no room the last time
  for (;;) {
    if (!more) {
      if (rest.empty()) break;
      if (result.produced == plaintext.size()) {
        result.state = ReadState::kFull;
        break;
      }
      if (header_size_ < header_.size()) take_header(rest);
      if (header_size_ < header_.size()) break;
      take_body(rest);
    } else if (result.produced == plaintext.size()) {
      result.state = ReadState::kFull;
      break;
    }
    more = read_some(plaintext.subspan(result.produced), result);
    check_limits();
    if (failed_ || closed_by_peer_) break;
  }
  out_text_ = nullptr;
  count_output(std::string_view(to_send).substr(sent_before), true);
  if (failed_) result.state = ReadState::kFailed;
  if (closed_by_peer_) result.state = ReadState::kClosed;
  result.consumed = ciphertext.size() - rest.size();
  return result;
}

bool Session::read_some(std::span<char> plaintext, ReadResult& result) noexcept {
  size_t got = 0;
  const int returned = SSL_read_ex(ssl_.get(), plaintext.data(), plaintext.size(), &got);
  if (returned == 1) {
    result.produced += got;
    return SSL_pending(ssl_.get()) > 0;
  }
  switch (SSL_get_error(ssl_.get(), returned)) {
    case SSL_ERROR_WANT_READ: return false;
    case SSL_ERROR_ZERO_RETURN: closed_by_peer_ = true; return false;
    case SSL_ERROR_SYSCALL:
      // OpenSSL 3.2 and newer says this of a close_notify behind user_canceled, as Java sends them
      // (its issue 25254). A fatal alert is SSL_ERROR_SSL.
      if ((SSL_get_shutdown(ssl_.get()) & SSL_RECEIVED_SHUTDOWN) != 0) {
        closed_by_peer_ = true;
        return false;
      }
      [[fallthrough]];
    default: note_failure(returned); return false;
  }
}

void Session::check_limits() noexcept {
  if (failed_) return;
  const Limits& limits = context_.state().limits;
  if (failure_.alert_sent == SSL_AD_NO_RENEGOTIATION) {
    // OpenSSL would go on; with the keys in the kernel we could not. The same behaviour for both.
    fail(FailureCause::kRenegotiation);
  } else if (key_updates_ > limits.key_updates_max ||
             tickets_received_ > limits.tickets_received_max) {
    fail(FailureCause::kTooManyMessages);
  }
}

WriteResult Session::write(std::span<const std::string_view> pieces,
                           std::span<char> ciphertext) noexcept {
  WEIR_CHECK(done_);
  WEIR_CHECK(!failed_);
  WEIR_CHECK(!closed_by_us_);
  start_clean();
  out_at_ = ciphertext.data();
  out_room_ = ciphertext.size();
  WriteResult result;
  PieceCursor cursor(pieces);
  const size_t limit = record_limit();
  while (cursor.left() != 0 && out_room_ > kRecordOverheadMax) {
    const size_t wanted = std::min(cursor.left(), limit);
    const size_t bytes = std::min(wanted, out_room_ - kRecordOverheadMax);
    if (bytes < wanted && bytes < kCutRecordMin && result.consumed != 0) break;
    if (!change_key_if_due()) break;
    const char* data = cursor.take(bytes, context_.state().library.state().gather.data());
    const int returned = SSL_write(ssl_.get(), data, static_cast<int>(bytes));
    if (returned != static_cast<int>(bytes)) {
      note_failure(returned);
      break;
    }
    ++records_since_rekey_;
    result.consumed += bytes;
  }
  result.produced = ciphertext.size() - out_room_;
  result.failed = failed_;
  count_output({ciphertext.data(), result.produced}, true);
  out_at_ = nullptr;
  out_room_ = 0;
  return result;
}

bool Session::change_key_if_due() noexcept {
  if (records_since_rekey_ < context_.state().limits.records_per_key ||
      SSL_version(ssl_.get()) != TLS1_3_VERSION) {
    return true;
  }
  records_since_rekey_ = 0;
  if (SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_NOT_REQUESTED) != 1) {
    note_failure(0);
    return false;
  }
  const int returned = SSL_do_handshake(ssl_.get());  // writes the message
  if (returned != 1) note_failure(returned);
  return returned == 1;
}

bool Session::worn_out() const noexcept {
  return records_since_rekey_ >= context_.state().limits.records_per_key &&
         SSL_version(ssl_.get()) != TLS1_3_VERSION;
}

size_t Session::record_limit() const noexcept {
  const uint8_t code = SSL_SESSION_get_max_fragment_length(SSL_get0_session(ssl_.get()));
  return code == 0 || code > 4 ? kRecordPlaintextMax : size_t{256} << code;  // RFC 6066 4
}

void Session::close(std::string& to_send) noexcept {
  if (!done_ || failed_ || closed_by_us_) return;
  start_clean();
  closed_by_us_ = true;
  out_text_ = &to_send;
  const size_t before = to_send.size();
  SSL_shutdown(ssl_.get());  // 0: sent, the peer's is not here yet
  out_text_ = nullptr;
  count_output(std::string_view(to_send).substr(before), true);
  ERR_clear_error();
}

bool Session::on_end() noexcept {
  if (closed_by_peer_) return true;
  if (!failed_) fail(FailureCause::kTruncated);
  return false;
}

size_t Session::missing() const noexcept {
  if (header_size_ == header_.size()) return body_left_;
  return header_size_ == 0 ? 0 : header_.size() - header_size_;
}

size_t Session::unread_plaintext() const noexcept {
  return static_cast<size_t>(SSL_pending(ssl_.get()));
}

}  // namespace weir::net::tls
