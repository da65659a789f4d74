#include <weir/net/record_layer.h>

#include <algorithm>
#include <array>
#include <cstring>

#include <weir/base/check.h>

namespace weir::net {

using tls::PostHandshake;

namespace {

// Pieces of one message that become records together; more come with the next block.
constexpr size_t kPiecesMax = 24;

struct Pieces {
  std::array<std::string_view, kPiecesMax> views;
  size_t count = 0;
};

Pieces views_of(const iovec* pieces, size_t count, size_t bytes_max) noexcept {
  Pieces result;
  for (size_t i = 0; i < std::min(count, kPiecesMax) && bytes_max > 0; ++i) {
    const size_t bytes = std::min(pieces[i].iov_len, bytes_max);
    result.views[result.count++] = {static_cast<const char*>(pieces[i].iov_base), bytes};
    bytes_max -= bytes;
  }
  return result;
}

PostHandshake::Role our_role(const RecordLayerOrigin& origin) noexcept {
  return origin.client ? PostHandshake::Role::kClient : PostHandshake::Role::kServer;
}

}  // namespace

RecordLayer::RecordLayer(const RecordLayerOrigin& origin, std::shared_ptr<void> context,
                         std::unique_ptr<tls::Session> session) noexcept
    : engine_(origin.engine),
      counters_(origin.counters),
      facts_(origin.facts),
      may_go_direct_(origin.may_go_direct),
      client_(origin.client),
      limited_(origin.facts.cipher.find("GCM") != std::string_view::npos),
      context_(std::move(context)),
      session_(std::move(session)),
      post_handshake_(our_role(origin)) {}

RecordLayer::RecordLayer(const RecordLayerOrigin& origin,
                         std::unique_ptr<tls::KernelKeys> keys) noexcept
    : engine_(origin.engine),
      counters_(origin.counters),
      facts_(origin.facts),
      may_go_direct_(origin.may_go_direct),
      client_(origin.client),
      limited_(origin.facts.cipher.find("GCM") != std::string_view::npos),
      keys_(std::move(keys)),
      post_handshake_(our_role(origin)) {}

RecordLayer::~RecordLayer() = default;

bool RecordLayer::worn_out() const noexcept {
  return session_ != nullptr ? session_->worn_out() : records_sent_ >= kRecordsWanted;
}

// ---- receiving, userspace

bool RecordLayer::has_input() const noexcept {
  if (!plaintext_.empty() || !ciphertext_.empty()) return true;
  if (session_ == nullptr || session_->failure().cause != tls::FailureCause::kNone) return false;
  // A close_notify behind the handshake is told by the next read.
  return session_->unread_plaintext() > 0 ||
         (session_->close_notify_received() && !closed_by_peer_);
}

size_t RecordLayer::input_bytes() const noexcept { return plaintext_.size() + ciphertext_.size(); }

void RecordLayer::drop_input() noexcept {
  plaintext_.clear();
  ciphertext_.clear();
}

RecordLayer::Opened RecordLayer::open(std::string_view ciphertext, std::span<char> out,
                                      std::string& alert) noexcept {
  Opened opened;
  if (!plaintext_.empty()) {
    opened.produced = std::min(plaintext_.size(), out.size());
    std::memcpy(out.data(), plaintext_.data(), opened.produced);
    plaintext_.erase(0, opened.produced);
    return opened;
  }
  if (session_ == nullptr) return opened;
  if (session_->failure().cause != tls::FailureCause::kNone) {  // of a write
    opened.state = tls::ReadState::kFailed;
    opened.consumed = ciphertext.size();
    return opened;
  }
  const bool kept = !ciphertext_.empty();
  const uint32_t updates = session_->key_updates_received();
  const tls::ReadResult read = session_->read(kept ? ciphertext_ : ciphertext, out, alert);
  counters_.key_updates += session_->key_updates_received() - updates;
  opened.produced = read.produced;
  opened.state = read.state;
  if (kept) {
    ciphertext_.erase(0, read.consumed);
    if (ciphertext_.empty()) ciphertext_.shrink_to_fit();
  } else {
    opened.consumed = read.consumed;
  }
  return opened;
}

// ---- sending, userspace

void RecordLayer::sent(size_t bytes) noexcept {
  WEIR_CHECK(bytes <= unsent_bytes_);
  unsent_at_ += bytes;
  unsent_bytes_ -= bytes;
  if (unsent_bytes_ == 0) unsent_heap_.reset();
}

size_t RecordLayer::seal(const iovec* pieces, size_t count) noexcept {
  const Pieces views = views_of(pieces, count, tls::Engine::kBlockPlaintext);
  const tls::WriteResult written = session_->write({views.views.data(), views.count},
                                                   {engine_.block(), tls::Engine::kBlockBytes});
  records_ = {engine_.block(), written.produced};
  return written.failed ? 0 : written.consumed;
}

size_t RecordLayer::seal_small(const iovec* pieces, size_t count, std::span<char> out) noexcept {
  const Pieces views = views_of(pieces, count, out.size());
  const tls::WriteResult written = session_->write({views.views.data(), views.count}, out);
  unsent_at_ = out.data();
  unsent_bytes_ = written.produced;
  return written.failed ? 0 : written.consumed;
}

bool RecordLayer::may_seal() const noexcept {
  return !broken_ && !closed_by_us_ && session_->failure().cause == tls::FailureCause::kNone;
}

void RecordLayer::break_sending() noexcept {
  broken_ = true;
  unsent_at_ = nullptr;
  unsent_bytes_ = 0;
  unsent_heap_.reset();
  answers_.clear();
}

void RecordLayer::keep_close_notify() {
  std::string record;
  session_->close(record);
  closed_by_us_ = true;
  records_ = record;
  keep_unsent(0);
}

void RecordLayer::send_answer() {
  const std::string answer = take_answer();
  records_ = answer;
  keep_unsent(0);
}

void RecordLayer::keep_unsent(size_t taken) {
  const std::string_view rest = records_.substr(taken);
  if (rest.empty()) return;
  unsent_heap_ = std::make_unique_for_overwrite<char[]>(rest.size());
  std::memcpy(unsent_heap_.get(), rest.data(), rest.size());
  unsent_at_ = unsent_heap_.get();
  unsent_bytes_ = rest.size();
}

}  // namespace weir::net
