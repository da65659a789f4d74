#include "check.h"

#include <cerrno>
#include <optional>
#include <utility>

#include <weir/net/handshake.h>

namespace weir::control {

using base::Errc;
using net::HandshakeEnd;
using net::ReadEvent;
using net::Transport;
using runtime::Task;

namespace {

constexpr size_t kReadBytes = 16 * 1024;

CheckResult stopped(const CheckRun& run) {
  if (run.stop == CheckStop::kGivenUp) return {HealthResult::kNone, "given up"};
  return {
      HealthResult::kTimedOut,
      "timed out after " + std::to_string(run.plan->target.timeout_ms) + " ms while " + run.stage};
}

CheckResult failed(const CheckRun& run, base::Error error) {
  if (run.stop != CheckStop::kNo) return stopped(run);
  std::string text(base::to_string(error.code));
  text.append(" while ").append(run.stage);
  switch (error.code) {
    case Errc::kTimedOut: {
      // Our own deadline and the kernel's (ETIMEDOUT of an unanswered connect) are one to others.
      if (error.os == 0) return stopped(run);
      return {HealthResult::kTimedOut, std::move(text)};
    }
    case Errc::kRefused: return {HealthResult::kRefused, "connection refused"};
    case Errc::kUnreachable: return {HealthResult::kUnreachable, std::move(text)};
    case Errc::kNoFiles:
    case Errc::kNoMemory:
    case Errc::kNoBuffers: return {HealthResult::kLocal, std::move(text)};
    case Errc::kHandshake: return {HealthResult::kHandshake, std::move(text)};
    case Errc::kMalformed: return {HealthResult::kMalformed, std::move(text)};
    case Errc::kNotFound: return {HealthResult::kRefused, "there is no such socket"};
    default: return {HealthResult::kClosed, std::move(text)};
  }
}

Task<std::optional<CheckResult>> make_secure(CheckRun& run, Transport& transport,
                                             net::tls::Engine& engine) {
  run.stage = "shaking hands";
  // Of its own for each check: with a session resumed, the certificate would not be looked at.
  auto settings = std::make_shared<net::TlsTarget>(run.plan->target.tls, run.plan->target.tls_name);
  const auto outcome =
      co_await net::connect_tls(transport, engine, std::move(settings), run.deadline_ms);
  if (run.stop != CheckStop::kNo) co_return stopped(run);
  switch (outcome.end) {
    case HandshakeEnd::kDone: co_return std::nullopt;
    case HandshakeEnd::kFailed:
      co_return CheckResult{HealthResult::kHandshake, "TLS: " + outcome.text};
    case HandshakeEnd::kTimedOut:
    case HandshakeEnd::kInterrupted: co_return stopped(run);
    case HandshakeEnd::kGone: break;
  }
  co_return CheckResult{HealthResult::kHandshake, "closed during the TLS handshake"};
}

Task<CheckResult> ask(CheckRun& run, Transport& transport) {
  const CheckPlan& plan = *run.plan;
  run.stage = "sending the request";
  iovec piece{const_cast<char*>(plan.request.data()), plan.request.size()};
  const auto sent = co_await transport.send(&piece, 1, plan.target.timeout_ms);
  if (run.stop != CheckStop::kNo) co_return stopped(run);
  // A server may answer without having read all, and close: the answer counts, if it comes.
  if (!sent && sent.error().code == Errc::kTimedOut) co_return failed(run, sent.error());
  run.stage = "waiting for the answer";
  AnswerReader reader(plan.target);
  const auto block = std::make_unique<char[]>(kReadBytes);
  while (true) {
    const ssize_t got = transport.recv_direct(block.get(), kReadBytes);
    if (got > 0) {
      if (auto verdict = reader.feed({block.get(), static_cast<size_t>(got)})) {
        co_return std::move(*verdict);
      }
      run.stage = reader.in_body() ? "reading the content" : "reading the answer's head";
      continue;
    }
    if (got == 0) co_return reader.end();
    if (got != -EAGAIN) {
      // With TLS the transport knows more than a number: a bad record, an end without close_notify.
      co_return failed(
          run, transport.failed() ? transport.error() : base::from_errno(static_cast<int>(-got)));
    }
    const ReadEvent event = co_await transport.readable(run.deadline_ms);
    // After a failure or the end, recv_direct() tells.
    if (event == ReadEvent::kTimeout || event == ReadEvent::kInterrupted) co_return stopped(run);
    if (run.stop != CheckStop::kNo) co_return stopped(run);
  }
}

Task<CheckResult> talk(CheckRun& run, Transport& transport, net::tls::Engine* engine) {
  const HealthKind kind = run.plan->target.kind;
  // Nothing is armed and no buffer of the pool is held: a server that sends and sends is not read.
  co_await transport.enter_direct_mode();
  if (kind == HealthKind::kTls || kind == HealthKind::kHttps) {
    auto problem = co_await make_secure(run, transport, *engine);
    if (problem) co_return std::move(*problem);
  }
  if (kind == HealthKind::kTcp) co_return CheckResult{HealthResult::kPassed, "connected"};
  if (kind == HealthKind::kTls) co_return CheckResult{HealthResult::kPassed, "TLS as expected"};
  co_return co_await ask(run, transport);
}

}  // namespace

CheckRun::CheckRun(runtime::Reactor& owner, std::shared_ptr<const CheckPlan> what) noexcept
    : reactor(owner),
      plan(std::move(what)),
      began_ns(owner.now_ns()),
      deadline_ms(owner.now_ms() + plan->target.timeout_ms),
      deadline(*this) {
  reactor.timers().arm(deadline, deadline_ms);
}

CheckRun::~CheckRun() { reactor.timers().disarm(deadline); }

void CheckRun::ask_to_stop(CheckStop why) noexcept {
  if (stop != CheckStop::kNo) return;
  stop = why;
  connect.cancel();
  if (transport == nullptr) return;
  transport->cancel_sends();
  transport->interrupt();
}

Task<CheckResult> check_server(CheckRun& run, net::tls::Engine* engine) {
  if (run.stop != CheckStop::kNo) co_return stopped(run);
  const HealthTarget& target = run.plan->target;
  const auto fd =
      co_await net::connect(run.reactor, target.address, target.timeout_ms, &run.connect);
  if (!fd) co_return failed(run, fd.error());
  auto transport = std::make_unique<Transport>(run.reactor, *fd);
  CheckResult result;
  // The connect may have been done already when it was to be stopped.
  if (run.stop == CheckStop::kNo) {
    run.transport = transport.get();
    result = co_await talk(run, *transport, engine);
    run.transport = nullptr;
  } else {
    result = stopped(run);
  }
  Transport::dispose(std::move(transport), net::Linger::kNo);
  co_return result;
}

}  // namespace weir::control
