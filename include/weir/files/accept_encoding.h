// Which of the files that lie ready (original, .br, .zst, .gz) a client gets, by its
// Accept-Encoding (RFC 9110 12.5.3). Pure functions, any thread; nothing allocates.
#pragma once

#include <weir/files/coding.h>
#include <weir/http/head.h>

namespace weir::files {

struct CodingChoice {
  Coding coding = Coding::kIdentity;
  // The answer depends on Accept-Encoding: send "Vary: Accept-Encoding", on 200, 206, 304 and 416
  // alike, and also when the original was chosen.
  bool vary = false;
  // The client refuses the original ("identity;q=0", or "*;q=0") and nothing else fits. RFC 9110
  // lets a server send it all the same, which weir's callers should: 406 helps nobody.
  bool identity_refused = false;
};

// The coding with the highest weight wins, at equal weight the one that weir prefers (br, zstd,
// gzip). The original has the weight that the client gave to "identity"; without one it is the
// last resort. Without the field, or with an empty one, the original is sent: a client that says
// nothing may well be one that cannot decode anything. `*` stands for the codings that the field
// does not name. A coding that is named twice has the lower weight; one with a weight that cannot
// be read is not used. "x-gzip" is gzip.
CodingChoice choose_coding(const http::FieldTable& fields, CodingSet available) noexcept;

}  // namespace weir::files
