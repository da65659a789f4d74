#include "relay_splice.h"

#include <algorithm>
#include <cerrno>

namespace weir::proxy {

using net::ReadEvent;
using runtime::Task;

namespace {

// Bytes that one relay moves before others get their turn.
constexpr size_t kBytesPerTurn = 1024 * 1024;

RelayEnd source_end(ReadEvent event, Relay& relay) noexcept {
  switch (event) {
    case ReadEvent::kEnd: return RelayEnd::kSourceEnded;
    case ReadEvent::kTimeout: return RelayEnd::kSourceTimeout;
    case ReadEvent::kInterrupted: return RelayEnd::kInterrupted;
    default: relay.error = relay.from.error(); return RelayEnd::kSourceError;
  }
}

RelayEnd sink_end(Relay& relay, base::Error error) noexcept {
  relay.error = error;
  return error.code == base::Errc::kTimedOut ? RelayEnd::kSinkTimeout : RelayEnd::kSinkError;
}

}  // namespace

bool wants_splice(const Relay& relay) noexcept {
  const uint64_t least = relay.splice_min;
  if (least == 0 || relay.out != OutFraming::kRaw || relay.retain != nullptr) return false;
  // What the record layer kept comes before what the socket has.
  if (!relay.from.may_splice() || !relay.to.may_splice() || !relay.from.may_go_direct() ||
      relay.from.has_input()) {
    return false;
  }
  switch (relay.body.framing()) {
    case http::BodyFraming::kLength: return relay.body.left() >= least;
    // Nobody knows how much will come: what came so far says what kind of body it is.
    case http::BodyFraming::kUntilClose: return relay.body.content_bytes() >= least;
    default: return false;
  }
}

Task<RelayEnd> splice_body(Relay& relay, net::PipePool::Lease pipe) {
  size_t moved_this_turn = 0;
  RelayEnd source = RelayEnd::kComplete;
  while (pipe.filled > 0 || (source == RelayEnd::kComplete && !relay.body.complete())) {
    if (source == RelayEnd::kComplete && !relay.body.complete() &&
        net::pipe_takes(relay.from, pipe)) {
      const size_t wanted = std::min<uint64_t>(pipe->capacity - pipe.filled, relay.body.left());
      const ssize_t got = relay.from.splice_to(pipe->write_fd, wanted);
      if (got > 0) {
        pipe.filled += static_cast<size_t>(got);
        relay.body.note_direct(static_cast<uint64_t>(got));
        if (relay.body.content_bytes() > relay.bytes_max) co_return RelayEnd::kTooLarge;
      } else if (got == -EAGAIN && pipe.filled == 0) {
        const uint64_t deadline = relay.from.reactor().now_ms() + relay.read_timeout_ms;
        const ReadEvent event = co_await relay.from.readable(deadline);
        moved_this_turn = 0;
        if (event != ReadEvent::kData) source = source_end(event, relay);
        continue;
      } else if (got != -EAGAIN) {
        // What is in the pipe is sent all the same: it came before the end.
        source = source_end(got == 0 ? ReadEvent::kEnd : ReadEvent::kError, relay);
        continue;
      }
    }
    // Never with "more to come": a source that pauses would leave the tail in the socket.
    const ssize_t sent = relay.to.splice_from(pipe->read_fd, pipe.filled, false);
    if (sent > 0) {
      pipe.filled -= static_cast<size_t>(sent);
      relay.bytes_sent += static_cast<uint64_t>(sent);
      relay.worker.counters.body_bytes_spliced += static_cast<uint64_t>(sent);
      moved_this_turn += static_cast<size_t>(sent);
    } else if (sent == -EAGAIN) {
      const auto room = co_await relay.to.writable(relay.send_timeout_ms);
      moved_this_turn = 0;
      if (!room) co_return sink_end(relay, room.error());
    } else {
      co_return sink_end(relay, base::from_errno(static_cast<int>(-sent)));
    }
    if (moved_this_turn >= kBytesPerTurn) {
      moved_this_turn = 0;
      co_await relay.from.reactor().yield();
    }
  }
  char behind;
  const bool look = relay.nothing_behind && relay.body.complete() && !relay.from.ended();
  if (look && relay.from.recv_direct(&behind, 1) > 0) relay.lost_input = true;
  co_return source;
}

}  // namespace weir::proxy
