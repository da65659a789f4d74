// What a handshake leads to: who does the records afterwards. Shared by handshake.cc, hand_over.cc.
#pragma once

#include <memory>
#include <string>

#include <weir/net/tls/engine.h>
#include <weir/net/transport.h>

namespace weir::net {

// What a handshake has to decide about the records afterwards.
struct Hand {
  tls::Engine& engine;
  tls::Counters::Side& counters;
  const tls::KernelSupport* kernel = nullptr;
  tls::RecordPath why_userspace = tls::RecordPath::kSwitchedOff;
  bool userspace_allowed = true;
  bool client = false;
  bool offered_session = false;  // a client: for resumption
  std::shared_ptr<void> context;
  std::unique_ptr<tls::Session> session;
  std::string input{};  // behind the handshake: ciphertext
  std::string output{};
};

// Before anything is received: once the peer has sent its FIN, the kernel refuses (docs/KTLS.md).
// Where it cannot be, hand.kernel becomes null.
void prepare_kernel(Hand& hand, Transport& transport) noexcept;

// kKernel, and the keys are there; else nothing has changed, or (false in `usable`) the connection
// cannot be used at all. `kept`: the keys, where the kernel can change them.
tls::RecordPath hand_over(Hand& hand, Transport& transport, std::unique_ptr<tls::KernelKeys>& kept,
                          bool& usable);

}  // namespace weir::net
