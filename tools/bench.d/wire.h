// The bytes the load generator speaks: the request it sends as a client, the responses it gives as
// an origin, and the strict reading of what comes back through the proxy. Pure functions over
// bytes and constant tables; no sockets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace weir::bench {

inline constexpr size_t kBodyBytesMax = size_t{10} << 20;
inline constexpr size_t kHeadBytesMax = 4096;

// The body of every response is a prefix of this text, so any part of it can be compared.
[[nodiscard]] std::string_view body_pattern() noexcept;

// The response (head and body in one piece) to `GET path`; empty for an unknown path. The known
// ones are /128, /1024, every power of two from /32768 to /4194304, and /10485760: the number of
// body bytes.
[[nodiscard]] std::string_view response_for(std::string_view path) noexcept;
[[nodiscard]] bool is_known_size(uint64_t body_bytes) noexcept;

// What a browser-like client sends for that path; `close` adds Connection: close.
[[nodiscard]] std::string make_request(uint64_t body_bytes, bool close);

enum class HeadState : uint8_t { kIncomplete, kMalformed, kComplete };

struct ResponseHead {
  int status = 0;
  uint64_t content_length = 0;
  size_t bytes = 0;  // of the head, with its empty line
};

// Complete only with an HTTP/1.1 status line and exactly one Content-Length; a Transfer-Encoding
// is malformed here, because the origin never sends one and a proxy has no reason to add it.
[[nodiscard]] HeadState parse_response_head(std::string_view bytes, ResponseHead& head) noexcept;

struct RequestHead {
  std::string_view path;
  bool close = false;
  size_t bytes = 0;
};

[[nodiscard]] HeadState parse_request_head(std::string_view bytes, RequestHead& head) noexcept;

}  // namespace weir::bench
