// One set of TLS settings as one core uses it: an SSL_CTX in the core's Library, the parsed
// certificates that this core has needed so far, and the ticket keys. One per core, listener (or
// upstream) and generation. A Context belongs to one thread at a time; control may make it and hand
// it to the core. It outlives its Sessions and ResumptionSlots, which the destructor CHECKs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <string>

#include <weir/net/tls/certificates.h>
#include <weir/net/tls/library.h>
#include <weir/net/tls/policy.h>
#include <weir/net/tls/tickets.h>

namespace weir::net::tls {

class Context {
 public:
  using Made = std::expected<std::unique_ptr<Context>, std::string>;  // error: a sentence

  // `certificates` is borrowed for the Context's life, the rest is copied.
  static Made make_server(Library& library, const ServerPolicy& policy,
                          const CertificateSet& certificates, const TicketKeyRing& tickets);
  static Made make_client(Library& library, const ClientPolicy& policy);

  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context();

  // New keys from the next handshake on. On the thread of the Context.
  void use_tickets(const TicketKeyRing& tickets) noexcept;

  // Unix time, now and then: an OCSP response past its time is not stapled. 0 (at first): unknown,
  // staple what there is.
  void set_time(int64_t now_s) noexcept;

  // Certificates that are parsed just now (at most certificates_kept_max).
  [[nodiscard]] size_t certificates_kept() const noexcept;

  struct State;  // src/net/tls/context_state.h
  [[nodiscard]] State& state() const noexcept { return *state_; }

 private:
  explicit Context(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

// Sessions of one endpoint that a client Context may resume: the newest few. On the Context's
// thread; must not outlive it. Sessions that were made with it keep a pointer to it.
class ResumptionSlot {
 public:
  static constexpr size_t kSessionsMax = 4;

  explicit ResumptionSlot(Context& context) noexcept;
  ResumptionSlot(const ResumptionSlot&) = delete;
  ResumptionSlot& operator=(const ResumptionSlot&) = delete;
  ~ResumptionSlot();

  [[nodiscard]] size_t size() const noexcept;
  void clear() noexcept;  // the endpoint refused them, or its identity changed

  struct State;
  [[nodiscard]] State& state() const noexcept { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

}  // namespace weir::net::tls
