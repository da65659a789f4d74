#include "relay.h"

#include <algorithm>
#include <cerrno>

#include <weir/base/check.h>
#include <weir/runtime/sys.h>

namespace relay {

namespace sys = weir::runtime::sys;
using weir::base::SocketAddress;
using weir::runtime::kDetached;
using weir::runtime::Ring;
using weir::runtime::RingOptions;

Relay::Relay(const Options& options) : options_(options) {
  auto opened = Ring::open(RingOptions{.entries = 32, .cq_entries = 128});
  WEIR_CHECK(opened.has_value());
  ring_ = std::move(*opened);
  memory_ = static_cast<io_uring_buf_ring*>(std::aligned_alloc(4096, 4096));
  std::fill_n(reinterpret_cast<char*>(memory_), 4096, '\0');
  io_uring_buf_ring_init(memory_);
  WEIR_CHECK(ring_->register_buffer_ring(memory_, options_.buffers, 1).has_value());
  out_ = options_.buffers;
  for (uint32_t i = 0; i < options_.buffers; ++i) {
    storage_.push_back(std::make_unique<char[]>(options_.buffer_bytes));
    give_back(static_cast<uint16_t>(i));
  }
  upstream_ = *SocketAddress::parse(options_.upstream);
  const SocketAddress address = *SocketAddress::parse(options_.listen);
  listener_ = sys::socket(address.base.sa_family, SOCK_STREAM, 0);
  WEIR_CHECK(sys::bind(listener_, &address.base, address.length) == 0);
  WEIR_CHECK(sys::listen(listener_, 64) == 0);
  arm_accept();
}

Relay::~Relay() {
  WEIR_CHECK(drained());
  ring_->unregister_buffer_ring(1);
  std::free(memory_);
}

io_uring_sqe* Relay::entry(uint64_t session, Kind kind) {
  io_uring_sqe* sqe = ring_->sqe();
  sqe->user_data = tag(session, kind);
  return sqe;
}

void Relay::arm_accept() {
  if (stopping_ || accepting_) return;
  accepting_ = true;
  io_uring_prep_multishot_accept(entry(0, kAccept), listener_, nullptr, nullptr, SOCK_CLOEXEC);
}

void Relay::stop() {
  stopping_ = true;
  if (accepting_) cancel(tag(0, kAccept));
  for (auto& [id, session] : sessions_) abort(*session);
}

bool Relay::drained() const { return listener_ < 0 && ring_->in_flight() == 0; }

void Relay::cancel(uint64_t user_data) {
  io_uring_sqe* sqe = ring_->sqe();
  io_uring_prep_cancel64(sqe, user_data, 0);
  sqe->user_data = kDetached;
}

void Relay::turn() {
  const uint64_t now = sys::monotonic_ns();
  uint64_t next = UINT64_MAX;
  for (auto& [id, session] : sessions_) {
    if (session->closing) continue;
    if (session->deadline <= now) {
      abort(*session);
    } else {
      next = std::min(next, session->deadline - now);
    }
  }
  reap_sessions();
  arm_accept();
  if (drained()) return;
  ring_->submit_and_wait(next);
  ring_->reap([this](uint64_t user_data, int32_t result, uint32_t flags) {
    on_event(user_data, result, flags);
  });
  reap_sessions();
}

void Relay::start(int fd) {
  auto made = std::make_unique<Session>();
  Session& session = *made;
  session.id = next_session_++;
  session.client = fd;
  session.upstream = sys::socket(upstream_.base.sa_family, SOCK_STREAM, 0);
  session.up.from = session.down.to = session.client;
  session.up.to = session.down.from = session.upstream;
  session.connecting = true;
  session.deadline = sys::monotonic_ns() + options_.connect_timeout_ns;
  sessions_[session.id] = std::move(made);
  io_uring_prep_connect(entry(session.id, kConnect), session.upstream, &upstream_.base,
                        upstream_.length);
}

void Relay::receive(Session& session, Flow& flow) {
  if (session.closing || flow.receiving || flow.ended || flow.parked) return;
  flow.receiving = true;
  flow.cancelled = false;
  io_uring_sqe* sqe = entry(session.id, &flow == &session.up ? kRecvUp : kRecvDown);
  if (options_.multishot_recv) {
    io_uring_prep_recv_multishot(sqe, flow.from, nullptr, 0, 0);
  } else {
    io_uring_prep_recv(sqe, flow.from, nullptr, 0, 0);
  }
  sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = 1;
}

void Relay::send(Session& session, Flow& flow) {
  if (session.closing || flow.sending || flow.chunks.empty()) return;
  flow.sending = true;
  const Chunk& chunk = flow.chunks.front();
  io_uring_prep_send(entry(session.id, &flow == &session.up ? kSendUp : kSendDown), flow.to,
                     storage_[chunk.buffer].get() + flow.sent, chunk.bytes - flow.sent,
                     MSG_NOSIGNAL);
}

void Relay::on_event(uint64_t user_data, int32_t result, uint32_t flags) {
  if (user_data == kDetached) return;
  const auto kind = static_cast<Kind>(user_data & 0xff);
  if (kind == kAccept) return on_accept(result, flags);
  const auto found = sessions_.find(user_data >> 8);
  WEIR_CHECK(found != sessions_.end());
  Session& session = *found->second;
  switch (kind) {
    case kConnect:
      session.connecting = false;
      if (session.closing) return;
      if (result < 0) return abort(session);
      session.deadline = sys::monotonic_ns() + options_.idle_timeout_ns;
      receive(session, session.up);
      receive(session, session.down);
      return;
    case kRecvUp: return on_receive(session, session.up, result, flags);
    case kRecvDown: return on_receive(session, session.down, result, flags);
    case kSendUp: return on_send(session, session.up, result);
    case kSendDown: return on_send(session, session.down, result);
    default: WEIR_CHECK(false);
  }
}

void Relay::on_accept(int32_t result, uint32_t flags) {
  if ((flags & IORING_CQE_F_MORE) == 0) accepting_ = false;
  if (result < 0) {
    WEIR_CHECK(result == -EMFILE || result == -ECANCELED);
    return;
  }
  if (stopping_) {
    sys::close(result);
    return;
  }
  start(result);
}

void Relay::on_receive(Session& session, Flow& flow, int32_t result, uint32_t flags) {
  if ((flags & IORING_CQE_F_MORE) == 0) flow.receiving = false;
  if ((flags & IORING_CQE_F_BUFFER) != 0) {
    ++out_;
    const auto buffer = static_cast<uint16_t>(flags >> IORING_CQE_BUFFER_SHIFT);
    if (session.closing) return give_back(buffer);
    flow.chunks.push_back({buffer, static_cast<uint32_t>(result)});
    session.deadline = sys::monotonic_ns() + options_.idle_timeout_ns;
    send(session, flow);
    hold_back(session, flow);
    return;
  }
  if (session.closing) return;
  if (result == 0) {
    flow.ended = true;
    return on_end(session, flow);
  }
  if (result == -ENOBUFS) {
    // Nothing is out: they have all come back meanwhile, and no return will wake this one.
    flow.parked = out_ != 0;
    return receive(session, flow);
  }
  if (result == -ECANCELED && flow.cancelled) {
    if (flow.chunks.empty()) receive(session, flow);
    return;
  }
  abort(session);
}

// A multishot receive goes on while the send is under way: two chunks are enough.
void Relay::hold_back(Session& session, Flow& flow) {
  if (!flow.receiving || flow.cancelled || flow.chunks.size() < 2) return;
  flow.cancelled = true;
  cancel(tag(session.id, &flow == &session.up ? kRecvUp : kRecvDown));
}

void Relay::on_send(Session& session, Flow& flow, int32_t result) {
  flow.sending = false;
  if (session.closing) return;
  if (result < 0) return abort(session);
  session.deadline = sys::monotonic_ns() + options_.idle_timeout_ns;
  flow.sent += static_cast<uint32_t>(result);
  if (flow.sent == flow.chunks.front().bytes) {
    const uint16_t buffer = flow.chunks.front().buffer;
    flow.chunks.erase(flow.chunks.begin());
    flow.sent = 0;
    give_back(buffer);
  }
  if (!flow.chunks.empty()) return send(session, flow);
  if (flow.ended) return on_end(session, flow);
  receive(session, flow);
}

void Relay::on_end(Session& session, Flow& flow) {
  if (!flow.chunks.empty()) return;
  flow.done = true;
  sys::shutdown(flow.to, SHUT_WR);
  if (session.up.done && session.down.done) {
    session.closing = true;
    ++finished_;
  }
}

void Relay::give_back(uint16_t buffer) {
  io_uring_buf_ring_add(memory_, storage_[buffer].get(), options_.buffer_bytes, buffer,
                        io_uring_buf_ring_mask(options_.buffers), 0);
  io_uring_buf_ring_advance(memory_, 1);
  --out_;
  // One buffer serves one; when the last is back, no return is left to wake the others.
  for (auto& [id, session] : sessions_) {
    for (Flow* flow : {&session->up, &session->down}) {
      if (!flow->parked) continue;
      flow->parked = false;
      receive(*session, *flow);
      if (out_ != 0) return;
    }
  }
}

void Relay::abort(Session& session) {
  if (session.closing) return;
  session.closing = true;
  ++aborted_;
  if (session.connecting) cancel(tag(session.id, kConnect));
  if (session.up.receiving) cancel(tag(session.id, kRecvUp));
  if (session.up.sending) cancel(tag(session.id, kSendUp));
  if (session.down.receiving) cancel(tag(session.id, kRecvDown));
  if (session.down.sending) cancel(tag(session.id, kSendDown));
}

bool Relay::busy(const Session& session) {
  return session.connecting || session.up.receiving || session.up.sending ||
         session.down.receiving || session.down.sending;
}

void Relay::reap_sessions() {
  for (auto at = sessions_.begin(); at != sessions_.end();) {
    Session& session = *at->second;
    if (!session.closing || busy(session)) {
      ++at;
      continue;
    }
    sys::close(session.client);
    sys::close(session.upstream);
    std::vector<uint16_t> held;
    for (Flow* flow : {&session.up, &session.down}) {
      for (const Chunk& chunk : flow->chunks) held.push_back(chunk.buffer);
    }
    at = sessions_.erase(at);
    for (const uint16_t buffer : held) give_back(buffer);
  }
  if (stopping_ && !accepting_ && listener_ >= 0 && sessions_.empty()) {
    sys::close(listener_);
    listener_ = -1;
  }
}

}  // namespace relay
