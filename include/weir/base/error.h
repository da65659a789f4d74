// The one error type of the data path: 8 bytes, trivially copyable, no heap. `side` and `retry`
// decide between 4xx and 5xx and whether another endpoint may be tried; detail text is logged where
// the error is found, it does not travel.
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>

namespace weir::base {

// What went wrong. Every code has a name (to_string) that appears in logs; keep both in step.
enum class Errc : uint16_t {
  kOk = 0,
  kClosed,          // the peer ended the stream where more was due
  kReset,           // ECONNRESET, EPIPE
  kRefused,         // ECONNREFUSED
  kUnreachable,     // no route, network down
  kTimedOut,        // a deadline of ours passed
  kCancelled,       // we gave up on purpose (peer gone, draining, shutdown)
  kAddressInUse,    // bind
  kAddressInvalid,  // bind to an address this machine has not
  kPermission,      // EACCES, EPERM
  kNoFiles,         // EMFILE, ENFILE
  kNoMemory,        // ENOMEM, ENOBUFS of the kernel
  kNoBuffers,       // our pool or provided-buffer ring is empty
  kLimit,           // a limit of ours was reached (queue, connections, size)
  kMalformed,       // the peer broke the protocol
  kHandshake,       // TLS could not be agreed upon, or the peer's certificate is no good
  kUnsupported,     // the kernel or build lacks it
  kNotFound,        // name or file does not exist
  kInvalid,         // bad argument from configuration or command line
  kIo,              // any other errno; see `os`
  kCount
};

enum class Side : uint8_t { kInternal, kDownstream, kUpstream };

// May the exchange be tried on another connection or endpoint? kReusedOnly: only when the
// connection had served before (the origin may have closed it while it was idle).
enum class Retry : uint8_t { kNever, kReusedOnly, kSafe };

struct Error {
  Errc code = Errc::kOk;
  Side side = Side::kInternal;
  Retry retry = Retry::kNever;
  int32_t os = 0;  // errno, 0 if none

  [[nodiscard]] constexpr Error at(Side where) const noexcept { return {code, where, retry, os}; }
  [[nodiscard]] constexpr Error with(Retry how) const noexcept { return {code, side, how, os}; }
  friend constexpr bool operator==(const Error&, const Error&) = default;
};
static_assert(sizeof(Error) == 8);
static_assert(std::is_trivially_copyable_v<Error>);

std::string_view to_string(Errc code) noexcept;

// Maps errno (positive) to an Error. EFAULT, EBADF and EINVAL of data-path calls are bugs of ours;
// callers that cannot rule them out by design treat kIo as fatal for the object at hand.
Error from_errno(int os) noexcept;

}  // namespace weir::base
