#include "tunnel.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include <weir/runtime/task_group.h>

namespace weir::proxy {

using net::ReadEvent;
using net::Transport;
using runtime::Task;

namespace {

// Bytes in one direction without a pause from which on it is worth a pipe.
constexpr uint64_t kBusyBytes = 256 * 1024;
// A pause of this length: a direction is not busy any more, and goes back to buffers that it
// shares.
constexpr uint64_t kQuietMs = 250;
// Bytes that one direction moves before others get their turn.
constexpr size_t kBytesPerTurn = 1024 * 1024;
// What is read at once to be copied: as much may have to wait, in memory, for each slow receiver.
constexpr size_t kCopyBytes = 64 * 1024;
// Buffers of the queue in one message.
constexpr size_t kPiecesMax = 16;

struct Direction {
  Tunnel& tunnel;
  Transport& from;
  Transport& to;
  uint32_t send_timeout_ms;
  uint64_t& bytes;
  bool& said_all;
  TunnelEnd source_failed;
  TunnelEnd sink_failed;
  TunnelEnd sink_slow;
  uint64_t busy_bytes = 0;  // since the last pause
};

enum class Step : uint8_t {
  kGoOn,
  kWait,   // nothing is there
  kEnd,    // the source has ended
  kBreak,  // this direction is over, and why is in the tunnel
};

void note_moved(Direction& way, size_t bytes) noexcept {
  Tunnel& tunnel = way.tunnel;
  way.bytes += bytes;
  way.busy_bytes += bytes;
  tunnel.worker.counters.tunnel_bytes += bytes;
  tunnel.moved_ms = tunnel.worker.reactor.now_ms();
}

Step fail_source(Direction& way) noexcept {
  way.tunnel.stop(way.source_failed);
  return Step::kBreak;
}

Step fail_sink(Direction& way, base::Error error) noexcept {
  if (error.code == base::Errc::kReset) {
    // It has closed. What it said before may still be on its way through the other direction, which
    // will find this end by itself.
    if (way.tunnel.end == TunnelEnd::kOpen) way.tunnel.end = way.sink_failed;
  } else {
    way.tunnel.stop(error.code == base::Errc::kTimedOut ? way.sink_slow : way.sink_failed);
  }
  return Step::kBreak;
}

Step fail_sink(Direction& way, ssize_t result) noexcept {
  return fail_sink(way, base::from_errno(static_cast<int>(-result)));
}

// What came into pool buffers.
Task<Step> send_queued(Direction& way) {
  std::array<std::string_view, kPiecesMax> views;
  std::array<iovec, kPiecesMax> pieces;
  const size_t count = way.from.queued(views);
  size_t bytes = 0;
  for (size_t i = 0; i < count; ++i) {
    pieces[i] = {const_cast<char*>(views[i].data()), views[i].size()};
    bytes += views[i].size();
  }
  const auto sent =
      co_await way.to.send(pieces.data(), static_cast<unsigned>(count), way.send_timeout_ms);
  way.from.consume_queued(bytes);
  if (!sent) co_return fail_sink(way, sent.error());
  note_moved(way, bytes);
  co_return Step::kGoOn;
}

// Direct mode, through the core's scratch. What the receiver does not take at once is copied aside,
// and nothing is read until it is gone.
Task<Step> copy_directly(Direction& way) {
  Worker& worker = way.tunnel.worker;
  static_assert(kCopyBytes <= Worker::kScratchBytes);
  for (size_t moved = 0; moved < kBytesPerTurn && !way.tunnel.stopping;) {
    const ssize_t got = way.from.recv_direct(worker.scratch(), kCopyBytes);
    if (got == -EAGAIN) co_return Step::kWait;
    if (got == 0) co_return Step::kEnd;
    if (got < 0) co_return fail_source(way);
    const auto bytes = static_cast<size_t>(got);
    const ssize_t sent = way.to.send_direct(worker.scratch(), bytes);
    if (sent < 0 && sent != -EAGAIN) co_return fail_sink(way, sent);
    const size_t taken = sent > 0 ? static_cast<size_t>(sent) : 0;
    if (taken < bytes || way.to.unsent()) {
      const std::vector<char> rest(worker.scratch() + taken, worker.scratch() + bytes);
      iovec piece{const_cast<char*>(rest.data()), rest.size()};
      const auto later = co_await way.to.send(&piece, 1, way.send_timeout_ms);
      if (!later) co_return fail_sink(way, later.error());
    }
    note_moved(way, bytes);
    moved += bytes;
  }
  co_await worker.reactor.yield();
  co_return Step::kGoOn;
}

// Direct mode, through a pipe, which is given back whenever there is nothing to move.
Task<Step> splice_through(Direction& way) {
  Worker& worker = way.tunnel.worker;
  auto pipe = worker.pipes.take();
  if (!pipe) co_return co_await copy_directly(way);
  bool ended = false;
  for (size_t moved = 0; moved < kBytesPerTurn || pipe.filled > 0;) {
    if (way.tunnel.stopping) co_return Step::kBreak;
    if (!ended && moved < kBytesPerTurn && net::pipe_takes(way.from, pipe)) {
      const ssize_t got = way.from.splice_to(pipe->write_fd, pipe->capacity - pipe.filled);
      if (got > 0) {
        pipe.filled += static_cast<size_t>(got);
      } else if (got == 0) {
        ended = true;
      } else if (got != -EAGAIN) {
        co_return fail_source(way);
      }
      if (pipe.filled == 0) co_return ended ? Step::kEnd : Step::kWait;
    }
    const ssize_t sent = way.to.splice_from(pipe->read_fd, pipe.filled, false);
    if (sent > 0) {
      pipe.filled -= static_cast<size_t>(sent);
      moved += static_cast<size_t>(sent);
      note_moved(way, static_cast<size_t>(sent));
      worker.counters.tunnel_bytes_spliced += static_cast<uint64_t>(sent);
    } else if (sent == -EAGAIN) {
      const auto room = co_await way.to.writable(way.send_timeout_ms);
      if (!room) co_return fail_sink(way, room.error());
    } else {
      co_return fail_sink(way, sent);
    }
    if (ended && pipe.filled == 0) co_return Step::kEnd;
  }
  co_await worker.reactor.yield();
  co_return Step::kGoOn;
}

bool wants_direct(const Direction& way) noexcept {
  return way.busy_bytes >= kBusyBytes && !way.from.direct_mode() && way.from.may_go_direct();
}

bool may_splice(const Direction& way) noexcept {
  // Plaintext of the handshake that is kept behind the kernel's back goes first.
  return way.tunnel.splice && way.busy_bytes >= kBusyBytes && way.from.may_splice() &&
         way.to.may_splice() && !way.from.has_input();
}

Step judge(Direction& way, ReadEvent event, uint64_t waited_ms) noexcept {
  Tunnel& tunnel = way.tunnel;
  switch (event) {
    case ReadEvent::kData:
      if (waited_ms >= kQuietMs) {
        way.busy_bytes = 0;
        if (way.from.direct_mode()) way.from.start_receiving();
      }
      return Step::kGoOn;
    case ReadEvent::kEnd: return Step::kEnd;
    case ReadEvent::kError: return fail_source(way);
    case ReadEvent::kInterrupted: break;
    case ReadEvent::kTimeout:
      // The other direction may have been at work.
      if (tunnel.worker.reactor.now_ms() < tunnel.moved_ms + tunnel.idle_timeout_ms) {
        return Step::kGoOn;
      }
      tunnel.stop(TunnelEnd::kIdle);
      return Step::kBreak;
  }
  tunnel.stop(TunnelEnd::kStopped);
  return Step::kBreak;
}

// The source has said all: so will the sink be told, and the other direction goes on.
Task<> pass_end(Direction& way) {
  if (way.to.secured()) {
    const auto said = co_await way.to.send_close_notify(way.send_timeout_ms);
    if (!said) {
      fail_sink(way, said.error());
      co_return;
    }
  } else {
    way.to.shutdown_write();
  }
  way.said_all = true;
}

Task<> carry(Direction& way) {
  Tunnel& tunnel = way.tunnel;
  const runtime::Reactor& reactor = tunnel.worker.reactor;
  while (!tunnel.stopping) {
    // Before anything is sent: while buffers fill as fast as they are emptied, no later moment
    // comes.
    if (wants_direct(way)) co_await way.from.enter_direct_mode();
    Step step = Step::kWait;
    if (way.from.has_data()) {
      step = co_await send_queued(way);
    } else if (way.from.direct_mode()) {
      step = may_splice(way) ? co_await splice_through(way) : co_await copy_directly(way);
    }
    if (step == Step::kWait && !tunnel.stopping) {
      const uint64_t begin = reactor.now_ms();
      const ReadEvent event = co_await way.from.readable(tunnel.moved_ms + tunnel.idle_timeout_ms);
      step = judge(way, event, reactor.now_ms() - begin);
    }
    if (step == Step::kBreak) co_return;
    if (step == Step::kEnd && !tunnel.stopping) {
      if (way.from.deaf()) {
        fail_source(way);
      } else {
        co_await pass_end(way);
      }
      co_return;
    }
  }
}

}  // namespace

void Tunnel::stop(TunnelEnd why) noexcept {
  if (end == TunnelEnd::kOpen) end = why;
  if (stopping) return;
  stopping = true;
  for (Transport* side : {&client, &origin}) {
    side->cancel_sends();
    side->interrupt();
  }
}

Task<> run_tunnel(Tunnel& tunnel) {
  Direction up{.tunnel = tunnel,
               .from = tunnel.client,
               .to = tunnel.origin,
               .send_timeout_ms = tunnel.origin_send_timeout_ms,
               .bytes = tunnel.bytes_from_client,
               .said_all = tunnel.client_said_all,
               .source_failed = TunnelEnd::kClientFailed,
               .sink_failed = TunnelEnd::kOriginFailed,
               .sink_slow = TunnelEnd::kOriginSlow};
  Direction down{.tunnel = tunnel,
                 .from = tunnel.origin,
                 .to = tunnel.client,
                 .send_timeout_ms = tunnel.client_send_timeout_ms,
                 .bytes = tunnel.bytes_to_client,
                 .said_all = tunnel.origin_said_all,
                 .source_failed = TunnelEnd::kOriginFailed,
                 .sink_failed = TunnelEnd::kClientFailed,
                 .sink_slow = TunnelEnd::kClientSlow};
  tunnel.moved_ms = tunnel.worker.reactor.now_ms();
  ++tunnel.worker.counters.tunnels;
  // A tunnel whose one side waited for a buffer that the other holds would wait for itself.
  tunnel.client.set_direct_when_starved();
  tunnel.origin.set_direct_when_starved();
  runtime::TaskGroup directions;
  directions.spawn(carry(up));
  directions.spawn(carry(down));
  co_await directions.join();
}

}  // namespace weir::proxy
