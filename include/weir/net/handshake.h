// TLS handshakes over a Transport: reads and writes for a Session until it is done, then gives the
// records to the kernel where both sides of that allow it, and otherwise leaves them in userspace.
// The coroutines belong to whoever serves the connection, on its core; the Transport must have been
// made just now (nothing received, no receive armed) and is ready for start_receiving() afterwards.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <weir/net/tls/engine.h>
#include <weir/net/transport.h>
#include <weir/runtime/task.h>

namespace weir::net {

// Where a connection to an origin goes; its endpoint owns it, the connections share it.
struct TlsTarget {
  TlsTarget(std::shared_ptr<tls::ClientContext> settings, std::string name)
      : context(std::move(settings)), host_name(std::move(name)), sessions(*context->context) {}
  std::shared_ptr<tls::ClientContext> context;
  std::string host_name;  // empty: no name is sent or checked
  tls::ResumptionSlot sessions;
  bool awaiting_tickets = false;  // a connection of it does
  bool ticketless = false;        // one has ended without having seen any
};

enum class HandshakeEnd : uint8_t {
  kDone,
  kFailed,       // `text` says why, `cause` for counting
  kGone,         // the peer ended the stream, or it broke
  kTimedOut,     //
  kInterrupted,  // Transport::interrupt()
};

struct HandshakeOutcome {
  HandshakeEnd end = HandshakeEnd::kFailed;
  tls::FailureCause cause = tls::FailureCause::kNone;
  std::string text{};                                 // for the log; empty unless kFailed
  std::optional<tls::PeerCertificate> certificate{};  // a client's, where it is wanted
};

// As a server. `now_us`: Unix time.
runtime::Task<HandshakeOutcome> accept_tls(Transport& transport, tls::Engine& engine,
                                           std::shared_ptr<tls::ServerContext> settings,
                                           int64_t now_us);

// As a client. `deadline_ms`: of the reactor's clock.
runtime::Task<HandshakeOutcome> connect_tls(Transport& transport, tls::Engine& engine,
                                            std::shared_ptr<TlsTarget> target,
                                            uint64_t deadline_ms);

}  // namespace weir::net
