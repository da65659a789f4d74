#include <sim/peer.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include <sim/sim_kernel.h>
#include <sim/world.h>

namespace weir::sim {

void Peer::attach(Stream& stream) {
  stream_ = &stream;
  stream.peer = this;
  if (world_.strike(world_.faults.slow_peer, world_.counts.slow_peer)) {
    trickle(16 + world_.rng.below(2000), (1 + world_.rng.below(20)) * kMillisecond);
  }
  // A client knows after a round trip; for an origin the connection stands already.
  const bool client = &stream == &stream.connection->client;
  world_.at(world_.now + (client ? stream.connection->latency_ns : 0), [this] {
    if (closed_ || vanished_ || stream_->dead) return;
    stream_->established = true;
    connected_ = true;
    if (on_connect) on_connect(*this);
    pump_out();
    pump_in();
  });
}

void Peer::fail(int error) {
  if (error_ != 0 || closed_) return;
  error_ = error;
  if (on_end) on_end(*this);
}

void Peer::send(std::string_view bytes) {
  output_.append(bytes);
  pump_out();
}

void Peer::shutdown_write() {
  fin_wanted_ = true;
  pump_out();
}

void Peer::close() {
  if (closed_) return;
  close_wanted_ = true;
  if (stream_ == nullptr) {
    closed_ = true;  // still connecting: gives up
  } else if (fin_sent_ || error_ != 0) {
    finish_output();
  } else {
    pump_out();
  }
}

void Peer::reset() {
  if (closed_) return;
  closed_ = true;
  if (stream_ == nullptr || vanished_) return;
  world_.trace("peer resets", static_cast<int64_t>(id_));
  world_.stream_close(*stream_, true);
}

void Peer::stall() { stalled_ = true; }

void Peer::resume() {
  stalled_ = false;
  pump_in();
}

void Peer::vanish() {
  vanished_ = true;
  if (stream_ != nullptr) stream_->vanished = true;
}

void Peer::trickle(size_t bytes, uint64_t interval_ns) {
  piece_ = bytes;
  interval_ns_ = interval_ns;
}

void Peer::pump_later() {
  if (pump_scheduled_) return;
  pump_scheduled_ = true;
  world_.at(world_.now + interval_ns_, [this] {
    pump_scheduled_ = false;
    pump_out();
    pump_in();
  });
}

void Peer::pump_out() {
  if (!connected_ || closed_ || vanished_ || fin_sent_ || error_ != 0) return;
  // With a pace there is one piece a tick, and a tick is under way whenever something waits.
  if (piece_ != 0 && pump_scheduled_) return;
  while (unsent() > 0) {
    std::string_view next = std::string_view(output_).substr(output_head_);
    if (piece_ != 0) next = next.substr(0, piece_);
    const int64_t sent = world_.stream_send(*stream_, next);
    if (sent == -EAGAIN) return;  // the receiver's reading pumps again
    if (sent < 0) {
      output_.clear();
      output_head_ = 0;
      return fail(static_cast<int>(-sent));
    }
    world_.trace("peer sends", static_cast<int64_t>(id_), sent);
    output_head_ += static_cast<size_t>(sent);
    if (piece_ != 0 && unsent() > 0) return pump_later();
  }
  output_.clear();
  output_head_ = 0;
  finish_output();
}

void Peer::finish_output() {
  if (close_wanted_) {
    closed_ = true;
    world_.trace("peer closes", static_cast<int64_t>(id_));
    world_.stream_close(*stream_, false);
  } else if (fin_wanted_) {
    fin_sent_ = true;
    world_.trace("peer shuts down", static_cast<int64_t>(id_));
    world_.stream_shutdown_write(*stream_);
  }
}

void Peer::pump_in() {
  if (!connected_ || closed_ || vanished_ || stalled_ || eof_ || error_ != 0) return;
  if (piece_ != 0 && pump_scheduled_) return;
  bool news = false;
  bool end = false;
  while (!end) {
    std::array<char, 16384> chunk;
    const size_t limit = piece_ != 0 ? std::min(piece_, chunk.size()) : chunk.size();
    const int64_t got = world_.stream_recv(*stream_, chunk.data(), limit, false);
    if (got > 0) {
      received_.append(chunk.data(), static_cast<size_t>(got));
      world_.trace("peer receives", static_cast<int64_t>(id_), got);
      news = true;
      if (piece_ == 0) continue;
      pump_later();
    } else if (got == 0) {
      eof_ = end = true;
    } else if (got != -EAGAIN) {
      error_ = static_cast<int>(-got);
      end = true;
    }
    break;
  }
  if (news && on_data) on_data(*this);
  if (!end) return;
  world_.trace("peer sees the end", static_cast<int64_t>(id_), error_);
  if (on_end) on_end(*this);
}

}  // namespace weir::sim
