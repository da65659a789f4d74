// HTTP/1 heads from bytes: two pure functions, no I/O, no allocation, no state between calls. Owned
// by nobody, callable on any thread. Strict where laxness lets messages be smuggled (RFC 9112 with
// every "MAY accept" refused that makes two readers disagree); test/corpus holds an example of each
// refusal with its reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include <weir/http/head.h>

namespace weir::http::h1 {

// Longest method token; longer ones get 400 (the longest registered one has 17 characters).
inline constexpr size_t kMethodBytesMax = 32;
// Most options in all Connection fields of a head: each may be compared with each field.
inline constexpr size_t kConnectionOptionsMax = 32;

struct HeadLimits {
  uint32_t head_bytes_max = 32768;         // start line, fields and the empty line, all CRLFs
  uint32_t request_line_bytes_max = 8192;  // start line without its CRLF; the status line as well
  uint16_t fields_max = 100;               // at most FieldTable::kFieldsMax takes effect
};

struct ParseResult {
  enum class State : uint8_t { kNeedMore, kComplete, kError };
  State state = State::kNeedMore;
  // With kError: 400, 414, 417, 431, 501 or 505 for requests; 502 for responses.
  uint16_t status = 0;
  uint32_t consumed = 0;    // with kComplete: bytes of the head; the body starts there
  const char* reason = "";  // with kError: a static text for the log
};

// `data` is everything received of this head so far (its storage may have moved since the last
// call); `scanned` is how many of its bytes an earlier call has seen (0 at first, else the size of
// the earlier `data`). While the new bytes hold no LF the answer is kNeedMore without parsing
// again, so a client that drips bytes costs no quadratic time; with an LF every complete line is
// judged, and a bad one is an error at once. `head` is only meaningful after kComplete.
//
// The answer for given bytes does not depend on how they were cut: feeding a head byte by byte ends
// like feeding it whole.
//
// 400 malformed or ambiguous, 414 request line too long, 417 an expectation other than
// 100-continue, 431 head too long or too many fields, 501 a transfer coding other than chunked, 505
// a major version other than 1. After any error the connection's framing is lost: answer and close.
//
// Accepted on purpose: one empty line before the request line (RFC 9112 2.2), bytes >= 0x80 in
// field values (obs-text), HTTP/1.2 and above as 1.1, unknown methods, a Host with an empty port,
// content with any method but CONNECT and TRACE.
ParseResult parse_request_head(std::string_view data, size_t scanned, const HeadLimits& limits,
                               RequestHead& head) noexcept;

// The same for an origin's answer to `request_method`. Every failure is 502. Framing is that of
// RFC 9112 6.3: none after HEAD, for 1xx, 204, 304 and a 2xx to CONNECT; Content-Length with
// Transfer-Encoding, a repeated Content-Length, a coding other than exactly `chunked`, any transfer
// coding from HTTP/1.0, and a 1xx or 204 that announces content are errors, not guesses. A status
// line may lack the space after the code when it has no reason phrase.
ParseResult parse_response_head(std::string_view data, size_t scanned, const HeadLimits& limits,
                                Method request_method, ResponseHead& head) noexcept;

}  // namespace weir::http::h1
