#include <weir/net/handshake.h>

#include <algorithm>
#include <cerrno>

#include <weir/runtime/reactor.h>

#include "hand_over.h"

namespace weir::net {

using runtime::Task;
using tls::Engine;
using tls::HandshakeState;
using tls::ReadState;
using tls::RecordPath;
using tls::Session;

namespace {

// What one peer may send at once, so that one of many does not keep the core.
constexpr size_t kReadBytes = 16 * 1024;

Task<base::Result<void>> flush(Hand& hand, Transport& transport, uint64_t deadline_ms) {
  if (hand.output.empty()) co_return base::Result<void>{};
  const uint64_t now = transport.reactor().now_ms();
  const auto left = static_cast<uint32_t>(deadline_ms > now ? deadline_ms - now : 1);
  iovec piece{hand.output.data(), hand.output.size()};
  const auto sent = co_await transport.send(&piece, 1, left);
  hand.output.clear();
  co_return sent;
}

HandshakeEnd end_of(ReadEvent event) noexcept {
  switch (event) {
    case ReadEvent::kTimeout: return HandshakeEnd::kTimedOut;
    case ReadEvent::kInterrupted: return HandshakeEnd::kInterrupted;
    default: return HandshakeEnd::kGone;
  }
}

// The handshake itself: nothing of TLS is above the socket yet.
Task<HandshakeEnd> exchange_flights(Hand& hand, Transport& transport, uint64_t deadline_ms) {
  tls::HandshakeStep step = hand.session->handshake({}, hand.output);
  while (true) {
    const auto sent = co_await flush(hand, transport, deadline_ms);
    if (step.state == HandshakeState::kFailed) co_return HandshakeEnd::kFailed;
    if (!sent) {
      co_return sent.error().code == base::Errc::kTimedOut ? HandshakeEnd::kTimedOut
      : sent.error().code == base::Errc::kCancelled        ? HandshakeEnd::kInterrupted
                                                           : HandshakeEnd::kGone;
    }
    if (step.state == HandshakeState::kDone) co_return HandshakeEnd::kDone;
    ssize_t got = transport.recv_direct(hand.engine.block(), kReadBytes);
    while (got == -EAGAIN) {
      const ReadEvent event = co_await transport.readable(deadline_ms);
      if (event != ReadEvent::kData) co_return end_of(event);
      got = transport.recv_direct(hand.engine.block(), kReadBytes);
    }
    if (got <= 0) co_return HandshakeEnd::kGone;
    const std::string_view received(hand.engine.block(), static_cast<size_t>(got));
    step = hand.session->handshake(received, hand.output);
    hand.input.assign(received.substr(step.consumed));
  }
}

// Opens what is in `ciphertext`, behind the handshake: the kernel cannot be given it any more.
void open_leftover(Hand& hand, std::string_view ciphertext, std::string& plaintext) {
  while (!ciphertext.empty()) {
    const auto read =
        hand.session->read(ciphertext, {hand.engine.block(), Engine::kBlockPlaintext}, hand.output);
    plaintext.append(hand.engine.block(), read.produced);
    ciphertext.remove_prefix(read.consumed);
    if (read.state != ReadState::kFull) break;
  }
}

// The same with the rest of the last record, of which a part was read with the handshake: the
// kernel begins with a whole one. False: its time is over, or its end.
Task<bool> open_whole_records(Hand& hand, Transport& transport, uint64_t deadline_ms,
                              std::string& plaintext) {
  const std::string input = std::exchange(hand.input, {});
  open_leftover(hand, input, plaintext);
  std::string part;
  while (hand.session->failure().cause == tls::FailureCause::kNone && hand.session->missing() > 0) {
    part.resize(hand.session->missing());
    const ssize_t got = transport.recv_direct(part.data(), part.size());
    if (got == -EAGAIN) {
      if (co_await transport.readable(deadline_ms) != ReadEvent::kData) co_return false;
      continue;
    }
    if (got <= 0) co_return false;
    open_leftover(hand, std::string_view(part).substr(0, static_cast<size_t>(got)), plaintext);
  }
  co_return true;
}

// A connection that keeps its records in userspace for the sake of tickets.
struct TicketWait {
  explicit TicketWait(std::shared_ptr<TlsTarget> whose) noexcept : target(std::move(whose)) {
    target->awaiting_tickets = true;
  }
  TicketWait(const TicketWait&) = delete;
  TicketWait& operator=(const TicketWait&) = delete;
  ~TicketWait() {
    target->awaiting_tickets = false;
    if (target->sessions.size() == 0) target->ticketless = true;
  }
  const std::shared_ptr<TlsTarget> target;
};

// TLS 1.3 brings tickets behind the handshake, and the kernel would give them to nobody who can
// read them. So one connection to an origin keeps its records here while we hold no session that
// the origin takes; all others go to the kernel.
bool awaits_tickets(const Hand& hand, const tls::Facts& facts, TlsTarget* target) noexcept {
  if (target == nullptr || facts.version != tls::kTls13 || facts.resumed) return false;
  // The origin has just refused what there was. What came meanwhile, over another connection, is
  // not this handshake's to judge.
  if (hand.offered_session) target->sessions.clear();
  return hand.userspace_allowed && target->sessions.size() == 0 && !target->awaiting_tickets &&
         !target->ticketless;
}

// After the handshake: who does the records from now on. False: the connection has to be closed.
Task<bool> settle(Hand& hand, Transport& transport, std::shared_ptr<TlsTarget> target,
                  uint64_t deadline_ms, HandshakeOutcome& outcome) {
  const tls::Facts facts = hand.session->facts();
  RecordLayerOrigin origin{
      .engine = hand.engine,
      .counters = hand.counters,
      .facts = {.version = facts.version,
                .cipher = facts.cipher,
                .records = hand.why_userspace,
                .resumed = facts.resumed},
      .client = hand.client,
      .may_go_direct = hand.kernel == nullptr || !hand.kernel->polls_half_records};
  ++(facts.resumed ? hand.counters.resumed : hand.counters.full);
  std::string plaintext;
  std::unique_ptr<tls::KernelKeys> keys;
  bool usable = true;
  if (tls::kKernelTlsBuilt && hand.kernel != nullptr && awaits_tickets(hand, facts, target.get())) {
    origin.facts.records = RecordPath::kAwaitingTickets;
    hand.context = std::make_shared<TicketWait>(target);
  } else if (tls::kKernelTlsBuilt && hand.kernel != nullptr) {
    const bool whole = co_await open_whole_records(hand, transport, deadline_ms, plaintext);
    if (hand.session->failure().cause != tls::FailureCause::kNone) {
      outcome.cause = hand.session->failure().cause;
      outcome.text = hand.session->failure_text();
      co_return false;
    }
    // What is missing of the last record may never come: whoever reads finds that out.
    origin.facts.records = whole ? hand_over(hand, transport, keys, usable) : RecordPath::kLeftover;
  }
  const bool in_kernel = origin.facts.records == RecordPath::kKernel;
  if (!usable || (!in_kernel && !hand.userspace_allowed)) {
    outcome.cause = tls::FailureCause::kInternal;
    outcome.text = "kernel TLS is required, and is not to be had: ";
    outcome.text += tls::to_string(origin.facts.records);
    if (usable) hand.session->close(hand.output);
    co_return false;
  }
  ++hand.counters.records[static_cast<size_t>(origin.facts.records)];
  std::unique_ptr<RecordLayer> layer;
  if (in_kernel) {
    layer = std::make_unique<RecordLayer>(origin, std::move(keys));
  } else {
    layer = std::make_unique<RecordLayer>(origin, std::move(hand.context), std::move(hand.session));
    layer->add_ciphertext(hand.input);
    layer->keep_answer(std::exchange(hand.output, {}));  // what opening the leftover led to
  }
  layer->add_plaintext(plaintext);
  transport.secure(std::move(layer));
  co_return true;
}

Task<HandshakeOutcome> run(Hand& hand, Transport& transport, std::shared_ptr<TlsTarget> target,
                           uint64_t deadline_ms, bool describe_peer) {
  HandshakeOutcome outcome;
  co_await transport.enter_direct_mode();
  outcome.end = co_await exchange_flights(hand, transport, deadline_ms);
  if (outcome.end == HandshakeEnd::kDone) {
    if (describe_peer) outcome.certificate = hand.session->peer_certificate();
    const bool settled = co_await settle(hand, transport, target, deadline_ms, outcome);
    if (!settled) outcome.end = HandshakeEnd::kFailed;
    // An alert about what came behind the handshake; nobody waits for it.
    if (outcome.end == HandshakeEnd::kFailed) co_await flush(hand, transport, deadline_ms);
  } else if (outcome.end == HandshakeEnd::kFailed) {
    outcome.cause = hand.session->failure().cause;
    outcome.text = hand.session->failure_text();
  }
  switch (outcome.end) {
    case HandshakeEnd::kFailed: ++hand.counters.failed[static_cast<size_t>(outcome.cause)]; break;
    case HandshakeEnd::kTimedOut: ++hand.counters.timeouts; break;
    case HandshakeEnd::kGone: ++hand.counters.gone; break;
    default: break;
  }
  co_return outcome;
}

}  // namespace

Task<HandshakeOutcome> accept_tls(Transport& transport, Engine& engine,
                                  std::shared_ptr<tls::ServerContext> settings, int64_t now_us) {
  settings->context->set_time(now_us / 1'000'000);
  const uint64_t deadline = transport.reactor().now_ms() + settings->handshake_timeout_ms;
  Hand hand{.engine = engine,
            .counters = engine.counters.clients,
            .kernel = settings->kernel,
            .why_userspace = settings->why_userspace,
            .userspace_allowed = settings->userspace_allowed,
            .context = settings,
            .session = Session::make_server(*settings->context)};
  if (tls::kKernelTlsBuilt && hand.kernel != nullptr) prepare_kernel(hand, transport);
  co_return co_await run(hand, transport, nullptr, deadline, settings->describe_clients);
}

Task<HandshakeOutcome> connect_tls(Transport& transport, Engine& engine,
                                   std::shared_ptr<TlsTarget> target, uint64_t deadline_ms) {
  const bool offers_session = target->sessions.size() > 0;
  auto session = Session::make_client(
      *target->context->context, {.host_name = target->host_name, .sessions = &target->sessions});
  if (!session) {
    co_return HandshakeOutcome{.cause = tls::FailureCause::kInternal, .text = session.error()};
  }
  Hand hand{.engine = engine,
            .counters = engine.counters.origins,
            .kernel = target->context->kernel,
            .why_userspace = target->context->why_userspace,
            .userspace_allowed = target->context->userspace_allowed,
            .client = true,
            .offered_session = offers_session,
            .context = target,
            .session = std::move(*session)};
  if (tls::kKernelTlsBuilt && hand.kernel != nullptr) prepare_kernel(hand, transport);
  co_return co_await run(hand, transport, target, deadline_ms, false);
}

}  // namespace weir::net
