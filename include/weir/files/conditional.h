// Preconditions of a request (RFC 9110 13), evaluated in the order of 13.2.2. Pure functions, any
// thread; nothing allocates.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include <weir/http/head.h>

namespace weir::files {

// What identifies the representation that would be sent.
struct Validators {
  std::string_view etag;            // as in the ETag field, with quotes; empty: none
  std::optional<int64_t> modified;  // seconds, as in Last-Modified; empty: none is sent
};

// When is a file "not modified since" a date?
enum class SinceRule : uint8_t {
  // Not later than it: RFC 9110 13.1.3.
  kNotLater,
  // Exactly then. A file that was put back to an older version counts as modified; clients that
  // make up a date of their own are never told 304.
  kExactly,
};

enum class Precondition : uint8_t {
  kProceed,      // as if there were no condition
  kNotModified,  // answer 304
  kFailed,       // answer 412
};

struct Evaluation {
  Precondition outcome = Precondition::kProceed;
  // There is a Range field and it may be honoured: the method is GET, and If-Range, when present,
  // holds. Meaningful with kProceed only; whether the range can be satisfied is for range.h.
  bool use_range = false;
};

// Ask only when the answer without conditions would be 2xx (13.2.1). `now` (seconds) is for dates
// with a two-digit year and for If-Range.
//
// If-Match compares strongly, If-None-Match weakly; "*" fits, since there is a representation. Both
// may have several field lines. Reading stops at what is no entity-tag (tags must be quoted); tags
// before it count. If-Modified-Since and If-Unmodified-Since are ignored when the date is not
// valid, when there is more than one, and when the file has no date; the former also for methods
// other than GET and HEAD. If-Range compares tags strongly and dates exactly, and a date is good
// only if it is in the past; anything else (two of them, a weak tag, a bad date) does not hold,
// which means the whole file. CONNECT, OPTIONS and TRACE have no preconditions.
Evaluation evaluate_preconditions(const http::FieldTable& fields, http::Method method,
                                  const Validators& validators, int64_t now,
                                  SinceRule since = SinceRule::kNotLater) noexcept;

}  // namespace weir::files
