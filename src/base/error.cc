#include <weir/base/error.h>

#include <array>
#include <cerrno>

namespace weir::base {

namespace {
constexpr std::array<std::string_view, static_cast<size_t>(Errc::kCount)> kNames = {
    "ok",
    "closed",
    "reset",
    "refused",
    "unreachable",
    "timed_out",
    "cancelled",
    "address_in_use",
    "address_invalid",
    "permission",
    "no_files",
    "no_memory",
    "no_buffers",
    "limit",
    "malformed",
    "handshake_failed",
    "unsupported",
    "not_found",
    "invalid",
    "io"};
}  // namespace

std::string_view to_string(Errc code) noexcept {
  const auto index = static_cast<size_t>(code);
  return index < kNames.size() ? kNames[index] : "unknown";
}

Error from_errno(int os) noexcept {
  Errc code = Errc::kIo;
  switch (os) {
    case ECONNRESET:
    case EPIPE:
    case ECONNABORTED: code = Errc::kReset; break;
    case ECONNREFUSED: code = Errc::kRefused; break;
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
    case EADDRNOTAVAIL: code = Errc::kUnreachable; break;
    case ETIMEDOUT: code = Errc::kTimedOut; break;
    case ECANCELED: code = Errc::kCancelled; break;
    case EADDRINUSE: code = Errc::kAddressInUse; break;
    case EACCES:
    case EPERM: code = Errc::kPermission; break;
    case EMFILE:
    case ENFILE: code = Errc::kNoFiles; break;
    case ENOMEM: code = Errc::kNoMemory; break;
    case ENOBUFS: code = Errc::kNoBuffers; break;
    case ENOENT:
    case ENOTDIR: code = Errc::kNotFound; break;
    case ENOSYS:
    case EOPNOTSUPP: code = Errc::kUnsupported; break;
    default: break;
  }
  return {.code = code, .os = os};
}

}  // namespace weir::base
