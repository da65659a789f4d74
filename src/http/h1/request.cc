// parse_request_head(): start line, target forms, and the checks that need the whole head.
#include <algorithm>

#include <weir/base/text.h>
#include <weir/http/h1/parser.h>
#include <weir/http/uri.h>

#include "head_lines.h"

namespace weir::http::h1 {

namespace {

using base::equals_ignore_case;

// Null or the reason; the status is 400 unless `status` says otherwise.
struct Refusal {
  const char* reason = nullptr;
  uint16_t status = 400;
};

constexpr Refusal kAccepted{};

void set_path_and_query(std::string_view path_and_query, RequestHead& head) noexcept {
  const size_t mark = path_and_query.find('?');
  head.has_query = mark != std::string_view::npos;
  head.path = path_and_query.substr(0, mark);
  if (head.has_query) head.query = path_and_query.substr(mark + 1);
}

// absolute-form, "http://host:port/path?query" (RFC 9112 3.2.2).
Refusal parse_absolute_target(RequestHead& head) noexcept {
  const std::string_view target = head.target;
  const size_t colon = target.find(':');
  if (colon == std::string_view::npos) return {"bad request target"};
  head.scheme = target.substr(0, colon);
  if (!equals_ignore_case(head.scheme, "http") && !equals_ignore_case(head.scheme, "https")) {
    return {"request target with another scheme"};
  }
  std::string_view rest = target.substr(colon);
  if (!rest.starts_with("://")) return {"bad request target"};
  rest.remove_prefix(3);
  const size_t authority_end = std::min(rest.find_first_of("/?"), rest.size());
  head.authority = rest.substr(0, authority_end);
  if (!split_host_port(head.authority, head.host, head.port)) {
    return {"bad authority in the request target"};
  }
  set_path_and_query(rest.substr(authority_end), head);
  if (head.path.empty()) {
    // RFC 9112 3.2.4: OPTIONS without path and query asks about the server as a whole.
    head.path = head.method == Method::kOptions && !head.has_query ? "*" : "/";
  }
  return kAccepted;
}

Refusal parse_target(RequestHead& head) noexcept {
  if (head.method == Method::kConnect) {  // authority-form and nothing else
    head.authority = head.target;
    if (!split_host_port(head.authority, head.host, head.port) || head.port.empty()) {
      return {"CONNECT needs host:port"};
    }
    return kAccepted;
  }
  if (head.target.front() == '/') {
    set_path_and_query(head.target, head);
    return kAccepted;
  }
  if (head.target == "*") {
    if (head.method != Method::kOptions) return {"target * without OPTIONS"};
    head.path = head.target;
    return kAccepted;
  }
  return parse_absolute_target(head);
}

// Method SP target SP HTTP/1.x, single spaces (RFC 9112 3 would allow to guess; we do not).
Refusal parse_request_line(const char* p, const char* end, RequestHead& head) noexcept {
  bool underscore = false;
  const char* const method_end = scan::past_token(p, end, underscore);
  if (method_end == end || *method_end != ' ' || method_end == p) return {"bad method"};
  head.method_text = {p, static_cast<size_t>(method_end - p)};
  if (head.method_text.size() > kMethodBytesMax) return {"method too long"};
  head.method = classify_method(head.method_text);

  const char* const target = method_end + 1;
  const char* const target_end = scan::past_target(target, end);
  if (target_end == target) return {"no request target"};
  if (target_end == end) return {"no HTTP version"};
  if (*target_end != ' ') return {"bad character in the request target"};
  head.target = {target, static_cast<size_t>(target_end - target)};

  const char* const version = target_end + 1;
  if (end - version != 8) return {"bad HTTP version"};
  if (const uint16_t status = parse_version(version, head.minor_version); status != 0) {
    return {status == 505 ? "HTTP version not supported" : "bad HTTP version", status};
  }
  return parse_target(head);
}

Refusal judge_host(const FieldFacts& facts, RequestHead& head) noexcept {
  if (facts.host == nullptr) {
    return head.minor_version == 0 ? kAccepted : Refusal{"no Host"};
  }
  const std::string_view value = facts.host->value;
  if (head.authority.empty()) {
    head.authority = value;
    return split_host_port(value, head.host, head.port) ? kAccepted : Refusal{"bad Host"};
  }
  // RFC 9112 3.2.2 lets the target override Host. A difference means that somebody reads the other
  // one, so it is refused. Clients name the port in CONNECT and may leave it out of Host.
  if (equals_ignore_case(value, head.authority)) return kAccepted;
  if (head.method == Method::kConnect && equals_ignore_case(value, head.host)) return kAccepted;
  return {"Host differs from the request target"};
}

Refusal judge_framing(const FieldFacts& facts, RequestHead& head) noexcept {
  if (facts.has_transfer_encoding) {
    if (facts.has_content_length) return {"Content-Length with Transfer-Encoding"};
    if (head.minor_version == 0) return {"Transfer-Encoding in HTTP/1.0"};
    if (!facts.coding_last_chunked) return {"chunked is not the last transfer coding"};
    if (facts.coding_other) return {"unknown transfer coding", 501};
    head.framing = BodyFraming::kChunked;
  } else if (facts.has_content_length) {
    head.framing = BodyFraming::kLength;
    head.content_length = facts.content_length;
  }
  // Neither method may have content (RFC 9110 9.3.6, 9.3.8). Behind CONNECT it would be taken for
  // tunnelled bytes by one side and for the next request by the other.
  if (head.framing != BodyFraming::kNone &&
      (head.method == Method::kConnect || head.method == Method::kTrace)) {
    return {"content with CONNECT or TRACE"};
  }
  return kAccepted;
}

Refusal judge_expect(const FieldFacts& facts, RequestHead& head) noexcept {
  if (facts.expect == nullptr) return kAccepted;
  if (facts.repeated_expect || !equals_ignore_case(facts.expect->value, "100-continue")) {
    return {"unknown expectation", 417};
  }
  // HTTP/1.0 must be ignored (RFC 9110 10.1.1), and without content nobody waits.
  const bool has_content = head.framing == BodyFraming::kChunked || head.content_length != 0;
  head.expect_continue = has_content && head.minor_version >= 1;
  return kAccepted;
}

Refusal judge(const FieldFacts& facts, RequestHead& head) noexcept {
  if (const Refusal refusal = judge_host(facts, head); refusal.reason != nullptr) return refusal;
  if (const Refusal refusal = judge_framing(facts, head); refusal.reason != nullptr) return refusal;
  if (const Refusal refusal = judge_expect(facts, head); refusal.reason != nullptr) return refusal;
  head.keep_alive = stays_open(facts, head.minor_version);
  head.has_upgrade = facts.upgrade_field && facts.upgrade_option && head.minor_version >= 1;
  if (facts.nominates) mark_nominated(head.fields);
  return kAccepted;
}

ParseResult unfinished(bool full) noexcept {
  return full ? parse_error(431, "head too long") : need_more();
}

ParseResult parse_lines(const char* begin, const char* line, const char* line_end, const char* end,
                        const HeadLimits& limits, RequestHead& head) noexcept {
  head.reset();
  const Refusal bad_line = parse_request_line(line, line_end, head);
  if (bad_line.reason != nullptr) return parse_error(bad_line.status, bad_line.reason);

  FieldFacts facts;
  LineReader reader{line_end + 2, end};
  switch (reader.read_fields(head.fields, facts, limits.fields_max)) {
    case LineReader::Outcome::kEnd: break;
    case LineReader::Outcome::kNeedMore:
      return unfinished(static_cast<size_t>(end - begin) == limits.head_bytes_max);
    case LineReader::Outcome::kMalformed: return parse_error(400, reader.reason);
    case LineReader::Outcome::kTooMany: return parse_error(431, reader.reason);
  }
  const Refusal refusal = judge(facts, head);
  if (refusal.reason != nullptr) return parse_error(refusal.status, refusal.reason);
  return complete(static_cast<size_t>(reader.next - begin));
}

}  // namespace

ParseResult parse_request_head(std::string_view data, size_t scanned, const HeadLimits& limits,
                               RequestHead& head) noexcept {
  // Bytes past the limit are not looked at, so that a head is too long however it was cut.
  const size_t size = std::min<size_t>(data.size(), limits.head_bytes_max);
  const bool full = size == limits.head_bytes_max;
  const char* const begin = data.data();
  const char* const end = begin + size;

  const char* line = begin;
  if (line != end && *line == '\r') {  // at most one empty line before the request
    if (end - line < 2) return unfinished(full);
    if (line[1] != '\n') return parse_error(400, "bare CR");
    line += 2;
  }
  if (line == end) return unfinished(full);
  // Peers that speak something else (TLS, a proxy protocol) are told at their first byte.
  if (!chars::is(*line, chars::kToken)) return parse_error(400, "not an HTTP/1 request");

  const size_t line_room = size_t{limits.request_line_bytes_max} + 2;
  const auto left = static_cast<size_t>(end - line);
  const auto* lf = static_cast<const char*>(std::memchr(line, '\n', std::min(left, line_room)));
  if (lf == nullptr) {
    return left >= line_room ? parse_error(414, "request line too long") : unfinished(full);
  }
  if (lf == line || lf[-1] != '\r') return parse_error(400, "bare LF");
  if (scanned != 0 && !has_line(begin + std::min(scanned, size), end)) return unfinished(full);
  return parse_lines(begin, line, lf - 1, end, limits, head);
}

}  // namespace weir::http::h1
