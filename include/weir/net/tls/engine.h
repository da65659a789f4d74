// What all TLS connections of one core share: its OpenSSL library, the derivation of kernel keys, a
// block that ciphertext passes through, and what is counted. Made and destroyed by control (before
// the core starts, after it has ended), since it outlives every Context of the core; in between
// only the core's thread uses it, except that control makes Contexts in the Library.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include <weir/net/tls/certificates.h>
#include <weir/net/tls/context.h>
#include <weir/net/tls/ktls.h>
#include <weir/net/tls/ktls_record.h>
#include <weir/net/tls/library.h>
#include <weir/net/tls/session.h>

namespace weir::net::tls {

// Who does the records of a connection, and why.
enum class RecordPath : uint8_t {
  kPlain,   // no TLS
  kKernel,  // handed over
  // In userspace, because:
  kSwitchedOff,      // ktls_enabled = false
  kNotBuilt,         // this weir was built without kernel TLS
  kNoKernelTls,      // the kernel has none
  kNoUlp,            // this socket could not be prepared for it
  kCipherUnknown,    // the kernel does not know this version and cipher
  kFragmentLength,   // the client wants short records
  kLeftover,         // a KeyUpdate, an end or half a record came right behind the handshake
  kInstallRefused,   // the kernel did not take the keys
  kHalfRecords,      // this kernel's poll(2) tells of half records, or its receive is not trusted
  kAwaitingTickets,  // upstream: the origin's tickets come after the handshake
  kCount
};
std::string_view to_string(RecordPath path) noexcept;

struct Counters {
  // Of clients' connections, then of origins'.
  struct Side {
    uint64_t full = 0;
    uint64_t resumed = 0;
    uint64_t timeouts = 0;  // of handshakes
    uint64_t gone = 0;      // the peer ended the stream during the handshake
    // Handshakes by cause, connections by path.
    std::array<uint64_t, static_cast<size_t>(FailureCause::kCount)> failed{};
    std::array<uint64_t, static_cast<size_t>(RecordPath::kCount)> records{};
    uint64_t truncated = 0;     // the stream ended without close_notify
    uint64_t bad_records = 0;   // after the handshake
    uint64_t key_updates = 0;   // received
    uint64_t kernel_bytes = 0;  // sent through kernel TLS
  };
  Side clients;
  Side origins;
};

// A server's settings as connections use them. Shared by those of one core (and by control, which
// makes it); the last one to let go frees it.
struct ServerContext {
  std::shared_ptr<const CertificateSet> certificates;  // before `context`, which borrows it
  std::unique_ptr<Context> context;
  const KernelSupport* kernel = nullptr;  // null: no kernel TLS, because of `why_userspace`
  RecordPath why_userspace = RecordPath::kSwitchedOff;
  bool userspace_allowed = true;  // false: a connection that the kernel does not take is refused
  bool describe_clients = false;  // their certificates are wanted as text (headers, log)
  uint32_t handshake_timeout_ms = 10'000;
};

// The same for the connections to origins.
struct ClientContext {
  std::unique_ptr<Context> context;
  const KernelSupport* kernel = nullptr;
  RecordPath why_userspace = RecordPath::kSwitchedOff;
  bool userspace_allowed = true;
};

class Engine {
 public:
  // Ciphertext of this much plaintext is made, or as much ciphertext received, at once.
  static constexpr size_t kBlockPlaintext = 144 * 1024;
  static constexpr size_t kBlockBytes = Session::ciphertext_bound(kBlockPlaintext);

  Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  ~Engine();

  Library library;
#if WEIR_KTLS
  KernelTls kernel;
#endif
  Counters counters;
  // What receives of kernel TLS sockets are armed with.
  MultishotTemplate receive_template;
  // Nothing stays in it across a suspension.
  char* block() noexcept { return block_.get(); }

 private:
  std::unique_ptr<char[]> block_;
};

}  // namespace weir::net::tls
