// What request and response heads share: how a head is cut into lines without judging any of them
// twice, one field line, and the facts about framing that the fields add up to. Private to the http
// room; pure functions over the caller's bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include <weir/http/h1/parser.h>
#include <weir/http/head.h>

#include "chars.h"
#include "scan.h"

namespace weir::http::h1 {

// Whether there is an LF in [p, end): a line is only judged when all of it is there, so that the
// answer does not depend on how the bytes were cut.
inline bool has_line(const char* p, const char* end) noexcept {
  return p != end && std::memchr(p, '\n', static_cast<size_t>(end - p)) != nullptr;
}

// A field line cut and checked, not yet interpreted. `next` is null when it could not be: then
// `error` is the reason, or null when the line is not complete.
struct FieldLine {
  const char* next = nullptr;
  const char* error = nullptr;
  std::string_view name;
  std::string_view value;
  bool underscore = false;
};

// Why the field line at `p` was refused at `at`, or null when it is not complete. Off the hot path.
const char* field_line_error(const char* p, const char* at, const char* end) noexcept;

inline FieldLine cut_field_line(const char* p, const char* end) noexcept {
  FieldLine line;
  const char* const name_end = scan::past_token(p, end, line.underscore);
  if (name_end == end || *name_end != ':' || name_end == p) {
    line.error = field_line_error(p, name_end, end);
    return line;
  }
  const char* value = name_end + 1;
  while (value != end && (*value == ' ' || *value == '\t')) ++value;
  const char* const value_end = scan::past_field_value(value, end);
  if (end - value_end < 2 || value_end[0] != '\r' || value_end[1] != '\n') {
    line.error = field_line_error(p, value_end, end);
    return line;
  }
  const char* last = value_end;
  while (last != value && (last[-1] == ' ' || last[-1] == '\t')) --last;
  line.name = {p, static_cast<size_t>(name_end - p)};
  line.value = {value, static_cast<size_t>(last - value)};
  line.next = value_end + 2;
  return line;
}

// What the fields say about framing, gathered while they are read.
struct FieldFacts {
  const Field* host = nullptr;
  const Field* expect = nullptr;
  uint64_t content_length = 0;
  uint16_t connection_options = 0;
  uint8_t codings_chunked = 0;
  bool has_content_length = false;
  bool has_transfer_encoding = false;
  bool coding_other = false;  // a transfer coding that is not chunked
  bool coding_last_chunked = false;
  bool close = false;
  bool keep_alive = false;
  bool upgrade_option = false;
  bool upgrade_field = false;
  bool repeated_expect = false;
  bool nominates = false;  // a Connection option that may be the name of an ordinary field
};

// Everything about a head that is the same for both sides. Parse functions return null or a reason.
struct LineReader {
  enum class Outcome : uint8_t { kNeedMore, kEnd, kMalformed, kTooMany };

  const char* next;  // start of the line to read
  const char* end;
  const char* reason = "";

  // Reads field lines up to and with the empty line into `fields` and `facts`.
  Outcome read_fields(FieldTable& fields, FieldFacts& facts, size_t fields_max) noexcept;
};

// Marks the fields that Connection options nominate (rule 2 of Field).
void mark_nominated(FieldTable& fields) noexcept;

// keep_alive of a message by its version and Connection options.
inline bool stays_open(const FieldFacts& facts, uint8_t minor_version) noexcept {
  return !facts.close && (minor_version >= 1 || facts.keep_alive);
}

// "HTTP/1.x" at `text` (8 bytes): 0 or 1 in `minor`, or a status: 400 for another syntax, 505 for
// another major version. Returns 0 when good.
uint16_t parse_version(const char* text, uint8_t& minor) noexcept;

inline ParseResult need_more() noexcept { return {}; }
inline ParseResult parse_error(uint16_t status, const char* reason) noexcept {
  return {ParseResult::State::kError, status, 0, reason};
}
inline ParseResult complete(size_t consumed) noexcept {
  return {ParseResult::State::kComplete, 0, static_cast<uint32_t>(consumed), ""};
}

}  // namespace weir::http::h1
