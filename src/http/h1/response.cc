// parse_response_head(): an origin's answer. Every refusal is 502: the client gets a whole truth or
// none.
#include <algorithm>

#include <weir/base/text.h>
#include <weir/http/h1/parser.h>

#include "head_lines.h"

namespace weir::http::h1 {

namespace {

constexpr uint16_t kStatus = 502;

// "HTTP/1.x SP 3DIGIT [SP reason]".
const char* parse_status_line(const char* p, const char* end, ResponseHead& head) noexcept {
  constexpr ptrdiff_t kCodeEnd = 12;
  if (end - p < kCodeEnd || p[8] != ' ') return "bad status line";
  if (parse_version(p, head.minor_version) != 0) return "bad HTTP version";
  unsigned status = 0;
  for (const char* digit = p + 9; digit != p + kCodeEnd; ++digit) {
    if (*digit < '0' || *digit > '9') return "bad status code";
    status = status * 10 + static_cast<unsigned>(*digit - '0');
  }
  if (status < 100 || status > 599) return "status code out of range";
  head.status = static_cast<uint16_t>(status);
  p += kCodeEnd;
  if (p == end) return nullptr;
  if (*p != ' ') return "bad status line";
  ++p;
  if (scan::past_field_value(p, end) != end) return "control character in the reason phrase";
  head.reason = {p, static_cast<size_t>(end - p)};
  return nullptr;
}

// RFC 9112 6.3, in its order.
const char* judge_framing(const FieldFacts& facts, Method request_method,
                          ResponseHead& head) noexcept {
  const uint16_t status = head.status;
  if (facts.has_transfer_encoding) {
    if (facts.has_content_length) return "Content-Length with Transfer-Encoding";
    if (head.minor_version == 0) return "Transfer-Encoding in HTTP/1.0";
    if (facts.coding_other || !facts.coding_last_chunked) return "unknown transfer coding";
  }
  head.content_length = facts.content_length;
  if (status < 200 || status == 204) {
    // An origin that announces content here would put it where the next answer is expected.
    if (facts.has_transfer_encoding || facts.content_length != 0) {
      return "content announced with 1xx or 204";
    }
    return nullptr;
  }
  if (request_method == Method::kHead || status == 304) return nullptr;
  if (request_method == Method::kConnect && status < 300) return nullptr;
  if (facts.has_transfer_encoding) {
    head.framing = BodyFraming::kChunked;
  } else if (facts.has_content_length) {
    head.framing = BodyFraming::kLength;
  } else {
    head.framing = BodyFraming::kUntilClose;
  }
  return nullptr;
}

ParseResult unfinished(bool full) noexcept {
  return full ? parse_error(kStatus, "head too long") : need_more();
}

ParseResult parse_lines(const char* begin, const char* line_end, const char* end,
                        const HeadLimits& limits, Method request_method,
                        ResponseHead& head) noexcept {
  head.reset();
  if (const char* reason = parse_status_line(begin, line_end, head)) {
    return parse_error(kStatus, reason);
  }
  FieldFacts facts;
  LineReader reader{line_end + 2, end};
  switch (reader.read_fields(head.fields, facts, limits.fields_max)) {
    case LineReader::Outcome::kEnd: break;
    case LineReader::Outcome::kNeedMore:
      return unfinished(static_cast<size_t>(end - begin) == limits.head_bytes_max);
    case LineReader::Outcome::kMalformed:
    case LineReader::Outcome::kTooMany: return parse_error(kStatus, reader.reason);
  }
  if (const char* reason = judge_framing(facts, request_method, head)) {
    return parse_error(kStatus, reason);
  }
  head.keep_alive =
      stays_open(facts, head.minor_version) && head.framing != BodyFraming::kUntilClose;
  head.has_upgrade = facts.upgrade_field && facts.upgrade_option && head.minor_version >= 1;
  if (facts.nominates) mark_nominated(head.fields);
  return complete(static_cast<size_t>(reader.next - begin));
}

}  // namespace

ParseResult parse_response_head(std::string_view data, size_t scanned, const HeadLimits& limits,
                                Method request_method, ResponseHead& head) noexcept {
  const size_t size = std::min<size_t>(data.size(), limits.head_bytes_max);
  const bool full = size == limits.head_bytes_max;
  const char* const begin = data.data();
  const char* const end = begin + size;
  if (size == 0) return unfinished(full);
  if (*begin != 'H') return parse_error(kStatus, "not an HTTP/1 response");

  const size_t line_room = size_t{limits.request_line_bytes_max} + 2;
  const auto* lf = static_cast<const char*>(std::memchr(begin, '\n', std::min(size, line_room)));
  if (lf == nullptr) {
    return size >= line_room ? parse_error(kStatus, "status line too long") : unfinished(full);
  }
  if (lf == begin || lf[-1] != '\r') return parse_error(kStatus, "bare LF");
  if (scanned != 0 && !has_line(begin + std::min(scanned, size), end)) return unfinished(full);
  return parse_lines(begin, lf - 1, end, limits, request_method, head);
}

}  // namespace weir::http::h1
