#include "relay_body.h"

#include "relay_splice.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <span>
#include <vector>

namespace weir::proxy {

using http::BodyFraming;
using net::ReadEvent;
using runtime::Task;

namespace {

// From this many content bytes to come on, a source is read in direct mode.
constexpr uint64_t kDirectBytes = 32 * 1024;
// Block of a relay that has to frame anew.
constexpr size_t kBlockBytes = 64 * 1024;
// Bytes that one relay moves in direct mode before others get their turn.
constexpr size_t kDirectBytesPerTurn = 1024 * 1024;
// Content pieces (and as many chunk lines) in one message to the sink.
constexpr size_t kPiecesMax = 16;

// Gathers one message: head, chunk size line, content pieces, chunk end, last chunk.
class Gather {
 public:
  void add(std::string_view bytes) noexcept {
    if (bytes.empty()) return;
    pieces_[count_++] = {const_cast<char*>(bytes.data()), bytes.size()};
    bytes_ += bytes.size();
  }
  [[nodiscard]] bool full() const noexcept { return count_ + 4 > pieces_.size(); }
  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }
  [[nodiscard]] size_t bytes() const noexcept { return bytes_; }
  iovec* data() noexcept { return pieces_.data(); }
  [[nodiscard]] unsigned count() const noexcept { return count_; }

 private:
  std::array<iovec, kPiecesMax + 6> pieces_;
  unsigned count_ = 0;
  size_t bytes_ = 0;
};

// What one input yields: consumed bytes, content pieces, and how the body stands after it.
struct Batch {
  std::array<std::string_view, kPiecesMax> pieces;
  size_t count = 0;
  size_t consumed = 0;
  size_t content = 0;
  uint16_t error_status = 0;
};

// Adds what `in` holds to the batch; false when the batch can take no more of what follows `in`.
bool decode(Relay& relay, std::string_view in, Batch& batch) noexcept {
  size_t taken = 0;
  while (batch.count < kPiecesMax && !relay.body.complete()) {
    const BodyReader::Piece piece = relay.body.take(in.substr(taken));
    taken += piece.consumed;
    batch.consumed += piece.consumed;
    if (!piece.data.empty()) {
      batch.pieces[batch.count++] = piece.data;
      batch.content += piece.data.size();
    }
    if (piece.error_status != 0) {
      batch.error_status = piece.error_status;
      relay.error_status = piece.error_status;
      relay.reason = piece.reason;
      return false;
    }
    if (piece.data.empty() || taken == in.size()) break;
  }
  return taken == in.size() && batch.count < kPiecesMax && !relay.body.complete();
}

void keep_for_retry(Relay& relay, const Batch& batch) {
  if (relay.retain == nullptr) return;
  if (relay.retain->size() + batch.content > relay.retain_max) {
    relay.retain->clear();
    relay.retain = nullptr;
    return;
  }
  for (size_t i = 0; i < batch.count; ++i) relay.retain->append(batch.pieces[i]);
}

RelayEnd end_of(ReadEvent event, Relay& relay) noexcept {
  switch (event) {
    case ReadEvent::kEnd: return RelayEnd::kSourceEnded;
    case ReadEvent::kTimeout: return RelayEnd::kSourceTimeout;
    case ReadEvent::kInterrupted: return RelayEnd::kInterrupted;
    case ReadEvent::kError: relay.error = relay.from.error(); return RelayEnd::kSourceError;
    case ReadEvent::kData: break;
  }
  return RelayEnd::kComplete;
}

RelayEnd sink_failed(Relay& relay, base::Error error) noexcept {
  relay.error = error;
  return error.code == base::Errc::kTimedOut ? RelayEnd::kSinkTimeout : RelayEnd::kSinkError;
}

uint64_t read_deadline(const Relay& relay) noexcept {
  return relay.from.reactor().now_ms() + relay.read_timeout_ms;
}

// Sends what a batch decoded to, with its framing; `head` goes first once.
Task<RelayEnd> send_batch(Relay& relay, const Batch& batch) {
  char size_line[http::h1::kChunkHeadBytesMax];
  char last_small[64];
  std::unique_ptr<char[]> last_large;
  Gather gather;
  gather.add(std::exchange(relay.head, {}));
  const bool chunked = relay.out == OutFraming::kChunked;
  if (chunked && batch.content > 0) {
    gather.add({size_line, http::h1::write_chunk_head(size_line, batch.content)});
  }
  for (size_t i = 0; i < batch.count; ++i) gather.add(batch.pieces[i]);
  if (chunked && batch.content > 0) gather.add(http::h1::kChunkEnd);
  if (chunked && relay.body.complete()) {
    const http::FieldTable* trailers = relay.keep_trailers ? relay.body.trailers() : nullptr;
    base::ByteWriter small(last_small, sizeof last_small);
    http::h1::append_last_chunk(small, trailers);
    if (!small.overflowed()) {
      gather.add(small.view());
    } else {
      last_large = std::make_unique_for_overwrite<char[]>(small.needed());
      base::ByteWriter large(last_large.get(), small.needed());
      http::h1::append_last_chunk(large, trailers);
      gather.add({last_large.get(), large.size()});
    }
  }
  if (gather.empty()) co_return RelayEnd::kComplete;
  const size_t bytes = gather.bytes();
  const auto sent = co_await relay.to.send(gather.data(), gather.count(), relay.send_timeout_ms);
  if (!sent) co_return sink_failed(relay, sent.error());
  relay.bytes_sent += bytes;
  co_return RelayEnd::kComplete;
}

// One batch from `inputs`: decode, check, keep, send. kComplete: go on (or the body is complete).
Task<RelayEnd> pass_on(Relay& relay, std::span<const std::string_view> inputs, size_t& consumed) {
  Batch batch;
  for (const std::string_view in : inputs) {
    if (!decode(relay, in, batch)) break;
  }
  consumed = batch.consumed;
  if (batch.error_status != 0) co_return RelayEnd::kSourceMalformed;
  if (relay.body.content_bytes() > relay.bytes_max) co_return RelayEnd::kTooLarge;
  keep_for_retry(relay, batch);
  if (relay.out == OutFraming::kDiscard) co_return RelayEnd::kComplete;
  co_return co_await send_batch(relay, batch);
}

[[nodiscard]] bool wants_direct(const Relay& relay) noexcept {
  if (relay.from.direct_mode() || relay.retain != nullptr || !relay.from.may_go_direct()) {
    return false;
  }
  return relay.body.left() > kDirectBytes && (relay.body.framing() == BodyFraming::kLength ||
                                              relay.body.content_bytes() > kDirectBytes);
}

// Content goes through unchanged: recv(2) into the core's scratch, send(2) from it. What the sink
// does not take at once is copied aside, and nothing is read until it is gone.
Task<RelayEnd> move_raw(Relay& relay, bool may_change) {
  size_t moved_this_turn = 0;
  while (!relay.body.complete()) {
    // A body without a length shows only now how large it is.
    if (may_change && wants_splice(relay)) co_return RelayEnd::kComplete;
    const uint64_t left = relay.body.left();
    size_t wanted = std::min<uint64_t>(Worker::kScratchBytes, left);
    if (relay.nothing_behind && wanted == left) ++wanted;  // the scratch has room for one more
    const ssize_t got = relay.from.recv_direct(relay.worker.scratch(), wanted);
    if (got == -EAGAIN) {
      const ReadEvent event = co_await relay.from.readable(read_deadline(relay));
      moved_this_turn = 0;
      if (event != ReadEvent::kData) co_return end_of(event, relay);
      continue;
    }
    if (got <= 0) co_return end_of(got == 0 ? ReadEvent::kEnd : ReadEvent::kError, relay);
    const size_t bytes = std::min<uint64_t>(static_cast<size_t>(got), left);
    if (bytes < static_cast<size_t>(got)) relay.lost_input = true;
    relay.body.note_direct(bytes);
    if (relay.body.content_bytes() > relay.bytes_max) co_return RelayEnd::kTooLarge;
    const ssize_t sent = relay.to.send_direct(relay.worker.scratch(), bytes);
    if (sent < 0 && sent != -EAGAIN)
      co_return sink_failed(relay, base::from_errno(static_cast<int>(-sent)));
    const size_t taken = sent > 0 ? static_cast<size_t>(sent) : 0;
    relay.worker.counters.body_bytes_direct += bytes;
    if (taken < bytes || relay.to.unsent()) {
      const std::vector<char> rest(relay.worker.scratch() + taken, relay.worker.scratch() + bytes);
      iovec piece{const_cast<char*>(rest.data()), rest.size()};
      const auto later = co_await relay.to.send(&piece, 1, relay.send_timeout_ms);
      moved_this_turn = 0;
      if (!later) co_return sink_failed(relay, later.error());
    }
    relay.bytes_sent += bytes;
    moved_this_turn += bytes;
    if (moved_this_turn >= kDirectBytesPerTurn) {
      moved_this_turn = 0;
      co_await relay.from.reactor().yield();
    }
  }
  co_return RelayEnd::kComplete;
}

// Content is framed anew (or decoded): through a block of our own, since it waits across sends.
Task<RelayEnd> move_framed(Relay& relay) {
  const auto block = std::make_unique_for_overwrite<char[]>(kBlockBytes);
  size_t moved_this_turn = 0;
  while (!relay.body.complete()) {
    const size_t wanted = std::min<uint64_t>(kBlockBytes, relay.body.left());
    const ssize_t got = relay.from.recv_direct(block.get(), wanted);
    if (got == -EAGAIN) {
      const ReadEvent event = co_await relay.from.readable(read_deadline(relay));
      moved_this_turn = 0;
      if (event != ReadEvent::kData) co_return end_of(event, relay);
      continue;
    }
    if (got <= 0) co_return end_of(got == 0 ? ReadEvent::kEnd : ReadEvent::kError, relay);
    relay.worker.counters.body_bytes_direct += static_cast<uint64_t>(got);
    moved_this_turn += static_cast<size_t>(got);
    if (moved_this_turn >= kDirectBytesPerTurn) {
      // With TLS in userspace neither side may ever have to wait.
      moved_this_turn = 0;
      co_await relay.from.reactor().yield();
    }
    std::string_view in(block.get(), static_cast<size_t>(got));
    while (!in.empty() && !relay.body.complete()) {
      size_t consumed = 0;
      const RelayEnd end = co_await pass_on(relay, std::span(&in, 1), consumed);
      in.remove_prefix(consumed);
      if (end != RelayEnd::kComplete) {
        relay.lost_input = !in.empty();  // the decoder has not seen it: nobody may read on
        co_return end;
      }
    }
    // Bytes behind this message: a client's next request, or an origin that says too much.
    if (!in.empty() && !relay.from.unread(in)) relay.lost_input = true;
  }
  co_return RelayEnd::kComplete;
}

}  // namespace

Task<RelayEnd> relay_body(Relay& relay) {
  if (relay.body.complete()) co_return co_await send_batch(relay, Batch{});
  while (!relay.input.empty() && !relay.body.complete()) {
    size_t consumed = 0;
    const RelayEnd end = co_await pass_on(relay, std::span(&relay.input, 1), consumed);
    relay.input.remove_prefix(consumed);
    if (end != RelayEnd::kComplete) co_return end;
  }
  while (!relay.body.complete()) {
    // Before anything is sent: while buffers fill as fast as they are emptied, no later moment
    // comes.
    if (wants_direct(relay)) co_await relay.from.enter_direct_mode();
    if (relay.from.has_data()) {
      size_t consumed = 0;
      std::array<std::string_view, kPiecesMax> inputs;
      const size_t count = relay.from.queued(inputs);
      const RelayEnd end = co_await pass_on(relay, std::span(inputs.data(), count), consumed);
      // Consumed even when the sink failed: the decoder is past these bytes (`retain` has them).
      relay.from.consume_queued(consumed);
      relay.worker.counters.body_bytes_buffered += consumed;
      if (end != RelayEnd::kComplete) co_return end;
      continue;
    }
    if (!relay.head.empty() && relay.out != OutFraming::kDiscard) {
      // Nothing of the body is here yet: the head must not wait for it.
      const RelayEnd end = co_await send_batch(relay, Batch{});
      if (end != RelayEnd::kComplete) co_return end;
      continue;
    }
    if (relay.from.direct_mode()) {
      bool pipes = true;
      if (wants_splice(relay)) {
        if (auto pipe = relay.worker.pipes.take()) {
          const RelayEnd end = co_await splice_body(relay, std::move(pipe));
          if (end != RelayEnd::kSourceEnded || !relay.body.end_completes()) co_return end;
          relay.body.finish();
          co_return RelayEnd::kComplete;
        }
        pipes = false;
      }
      const bool raw =
          relay.out == OutFraming::kRaw && relay.body.framing() != BodyFraming::kChunked;
      const RelayEnd end = raw ? co_await move_raw(relay, pipes) : co_await move_framed(relay);
      if (raw && end == RelayEnd::kComplete && !relay.body.complete()) continue;
      if (end != RelayEnd::kSourceEnded || !relay.body.end_completes()) co_return end;
      relay.body.finish();
      co_return co_await send_batch(relay, Batch{});
    }
    const ReadEvent event = co_await relay.from.readable(read_deadline(relay));
    if (event == ReadEvent::kData) continue;
    if (event == ReadEvent::kEnd && relay.body.end_completes()) {
      relay.body.finish();
      co_return co_await send_batch(relay, Batch{});
    }
    co_return end_of(event, relay);
  }
  co_return RelayEnd::kComplete;
}

}  // namespace weir::proxy
