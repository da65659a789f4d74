#include "hand_over.h"

#include <weir/net/tls/ktls.h>

namespace weir::net {

using tls::Direction;
using tls::KernelRefusal;
using tls::RecordPath;

namespace {

RecordPath path_of(KernelRefusal refusal) noexcept {
  switch (refusal) {
    case KernelRefusal::kNone: return RecordPath::kKernel;
    case KernelRefusal::kNotAsked: return RecordPath::kSwitchedOff;
    case KernelRefusal::kVersion:
    case KernelRefusal::kCipher: return RecordPath::kCipherUnknown;
    case KernelRefusal::kFragmentLength: return RecordPath::kFragmentLength;
    default: return RecordPath::kLeftover;
  }
}

}  // namespace

void prepare_kernel(Hand& hand, Transport& transport) noexcept {
  if (transport.reactor().receive_strategy() != runtime::ReceiveStrategy::kMultishot ||
      (hand.client && hand.kernel->polls_half_records)) {
    hand.kernel = nullptr;
    hand.why_userspace = RecordPath::kHalfRecords;
  } else if (!tls::attach_ulp(transport.fd())) {
    hand.kernel = nullptr;
    hand.why_userspace = RecordPath::kNoUlp;
  }
}

RecordPath hand_over(Hand& hand, Transport& transport, std::unique_ptr<tls::KernelKeys>& kept,
                     bool& usable) {
  const KernelRefusal refusal = hand.session->why_not_kernel();
  if (refusal != KernelRefusal::kNone) return path_of(refusal);
  auto keys = hand.session->kernel_keys();
  if (!keys) return path_of(hand.session->why_not_kernel());
  if (!hand.kernel->can(keys->version, keys->cipher)) return RecordPath::kCipherUnknown;
  if (!hand.engine.kernel.install(transport.fd(), Direction::kTx, *keys)) {
    return RecordPath::kInstallRefused;
  }
  if (!hand.engine.kernel.install(transport.fd(), Direction::kRx, *keys)) {
    // Sending is the kernel's already: there is no way back (the self-test makes it an accident).
    usable = false;
    return RecordPath::kInstallRefused;
  }
  if (hand.kernel->no_pad.works && keys->version == tls::kTls13) {
    tls::expect_no_pad(transport.fd());
  }
  if (hand.kernel->rekey.works && keys->version == tls::kTls13) {
    kept = std::make_unique<tls::KernelKeys>(std::move(*keys));
  }
  return RecordPath::kKernel;
}

}  // namespace weir::net
