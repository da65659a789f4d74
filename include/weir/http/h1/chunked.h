// The chunked transfer coding (RFC 9112 7.1), both ways, as pure functions over bytes. A decoder
// belongs to one message on one connection and its thread; the writers keep no state. Chunk lines
// are never copied through: what comes in is decoded, what goes out is framed anew, and chunk
// extensions end here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include <weir/base/byte_writer.h>
#include <weir/http/head.h>

namespace weir::http::h1 {

struct ChunkedLimits {
  uint32_t line_bytes_max = 1024;        // one chunk-size line with its extensions, without CRLF
  uint32_t extension_bytes_max = 16384;  // all extensions of a message together
  uint32_t trailer_bytes_max = 8192;     // the trailer section, with all CRLFs
  uint16_t trailer_fields_max = 64;
};

// May a field be taken from a trailer section? Not when weir knows it (framing, routing, identity,
// authentication, content description, conditionals, caching and hop-by-hop fields are all known
// ones; ETag is the exception), not when its name starts with content-, x-forwarded-, x-real-,
// proxy-, if- or sec-, and not when it only differs from such a name by '_' for '-'. RFC 9110 6.5.1
// and 6.5.2. The rest (Server-Timing, Digest, grpc-status, anything unknown) may.
bool trailer_allowed(std::string_view name) noexcept;

// Feed it what arrives, again and again until kNeedMore, kEnd or kError. Strict: 1*HEXDIG (at most
// 16, value below 2^63), CRLF only, no white space in the size line, extensions well-formed.
class ChunkedDecoder {
 public:
  enum class State : uint8_t {
    kData,      // `data` is content; call again with the rest of the input
    kNeedMore,  // all input is consumed
    kEnd,       // the message ended after `consumed` bytes; the rest belongs to the next one
    kError,     // framing is lost; `status` and `reason` say why
  };
  struct Output {
    State state = State::kNeedMore;
    uint16_t status = 0;      // 400 or 431 (trailers too large); for an origin's body answer 502
    size_t consumed = 0;      // of the input of this call, `data` included
    std::string_view data;    // a part of the input of this call
    const char* reason = "";  // static text
  };

  explicit ChunkedDecoder(const ChunkedLimits& limits = ChunkedLimits{}) noexcept;
  ~ChunkedDecoder();
  ChunkedDecoder(ChunkedDecoder&&) noexcept;
  ChunkedDecoder& operator=(ChunkedDecoder&&) noexcept;

  Output feed(std::string_view in) noexcept;

  // Ready for another message. Frees what trailers took.
  void reset() noexcept;

  // After kEnd: the trailer fields that trailer_allowed() lets through, or null when none came. The
  // decoder owns their bytes; they stay until reset() or destruction.
  [[nodiscard]] const FieldTable* trailers() const noexcept;

  // Content bytes delivered so far.
  [[nodiscard]] uint64_t content_bytes() const noexcept { return content_bytes_; }
  // Content bytes of the current chunk that are still due: they may be taken past the decoder
  // (splice), which is then told by skip().
  [[nodiscard]] uint64_t chunk_bytes_left() const noexcept;
  void skip(uint64_t bytes) noexcept;
  [[nodiscard]] bool ended() const noexcept;

 private:
  enum class Step : uint8_t;
  struct Trailers;

  Output fail(size_t consumed, const char* reason, uint16_t status = 400) noexcept;
  // These take one byte, or one complete trailer line, and return null or why it is refused.
  const char* take_line_byte(char c) noexcept;
  const char* take_size_byte(char c) noexcept;
  const char* take_extension_byte(char c) noexcept;
  const char* end_size_line() noexcept;
  const char* take_trailer_line() noexcept;
  Output read_trailers(std::string_view in, size_t from) noexcept;

  ChunkedLimits limits_;
  Step step_;
  uint8_t digits_ = 0;
  uint16_t error_status_ = 0;
  uint32_t line_bytes_ = 0;
  uint32_t extension_bytes_ = 0;
  uint64_t chunk_left_ = 0;
  uint64_t content_bytes_ = 0;
  const char* error_reason_ = nullptr;
  std::unique_ptr<Trailers> trailers_;
};
// Idle connections keep one: what trailers need is allocated when they come.
static_assert(sizeof(ChunkedDecoder) <= 64);

// "ffffffffffffffff\r\n"
inline constexpr size_t kChunkHeadBytesMax = 18;
// What ends each chunk's data.
inline constexpr std::string_view kChunkEnd = "\r\n";
// What ends a message without trailers.
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

// Writes the size line of a chunk and returns its length (at most kChunkHeadBytesMax). `size` must
// not be 0: that would end the message.
size_t write_chunk_head(char* out, uint64_t size) noexcept;

// The last chunk with those `trailers` (may be null) that are not hop_by_hop, and the empty line.
void append_last_chunk(base::ByteWriter& out, const FieldTable* trailers) noexcept;

}  // namespace weir::http::h1
