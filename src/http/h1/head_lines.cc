#include "head_lines.h"

#include <algorithm>

#include <weir/base/text.h>

#include "field_rules.h"

namespace weir::http::h1 {

namespace {

using base::equals_ignore_case;

bool is_token(std::string_view text) noexcept {
  for (char c : text) {
    if (!chars::is(c, chars::kToken)) return false;
  }
  return !text.empty();
}

// Content-Length = 1*DIGIT, once. A repeated field or a list is refused even when all members agree
// (RFC 9110 8.6 allows to): two readers may pick different ones after an edit on the way.
const char* note_content_length(std::string_view value, FieldFacts& facts) noexcept {
  if (facts.has_content_length) return "repeated Content-Length";
  const auto length = base::parse_decimal(value);
  if (!length || *length > static_cast<uint64_t>(INT64_MAX)) return "bad Content-Length";
  facts.has_content_length = true;
  facts.content_length = *length;
  return nullptr;
}

// The list of codings is read as a list, over all field lines, never compared as one string.
const char* note_transfer_encoding(std::string_view value, FieldFacts& facts) noexcept {
  facts.has_transfer_encoding = true;
  // Empty elements are legal in lists but have only been seen in attacks ("chunked,").
  for (bool more = true; more;) {
    const size_t comma = value.find(',');
    more = comma != std::string_view::npos;
    const std::string_view coding = base::trim(value.substr(0, comma));
    if (more) value.remove_prefix(comma + 1);
    // A parameter is no token either; no coding that weir could pass on takes one.
    if (!is_token(coding)) return "bad Transfer-Encoding";
    facts.coding_last_chunked = equals_ignore_case(coding, "chunked");
    if (!facts.coding_last_chunked) {
      facts.coding_other = true;
    } else if (++facts.codings_chunked > 1) {
      return "chunked applied twice";
    }
  }
  return nullptr;
}

const char* note_connection(std::string_view value, FieldFacts& facts) noexcept {
  const char* reason = nullptr;
  for_each_element(value, [&](std::string_view option) noexcept {
    if (++facts.connection_options > kConnectionOptionsMax) {
      reason = "too many Connection options";
    } else if (equals_ignore_case(option, "keep-alive")) {
      facts.keep_alive = true;
    } else if (equals_ignore_case(option, "close")) {
      facts.close = true;
    } else if (equals_ignore_case(option, "upgrade")) {
      facts.upgrade_option = true;
    } else if (!is_token(option)) {
      reason = "bad Connection option";
    } else {
      facts.nominates = true;
    }
    return reason == nullptr;
  });
  return reason;
}

const char* note(const Field& field, FieldFacts& facts) noexcept {
  switch (field.known) {
    case KnownField::kHost:
      if (facts.host != nullptr) return "repeated Host";
      facts.host = &field;
      return nullptr;
    case KnownField::kContentLength: return note_content_length(field.value, facts);
    case KnownField::kTransferEncoding: return note_transfer_encoding(field.value, facts);
    case KnownField::kConnection: return note_connection(field.value, facts);
    case KnownField::kExpect:
      facts.repeated_expect = facts.expect != nullptr;
      facts.expect = &field;
      return nullptr;
    case KnownField::kUpgrade: facts.upgrade_field = true; return nullptr;
    default: return nullptr;
  }
}

}  // namespace

const char* field_line_error(const char* p, const char* at, const char* end) noexcept {
  if (!has_line(p, end)) return nullptr;
  if (*p == ' ' || *p == '\t') return "folded field line";
  if (*at == '\n') return "bare LF";
  if (*at == '\r') return "bare CR";
  // Before the colon there is only the name; `at` is past the colon when the value is to blame.
  if (std::memchr(p, ':', static_cast<size_t>(at - p)) != nullptr) {
    return "control character in a field value";
  }
  if (*at == ':') return "empty field name";
  if (*at == ' ' || *at == '\t') return "white space in a field name or before its colon";
  return "bad character in a field name";
}

LineReader::Outcome LineReader::read_fields(FieldTable& fields, FieldFacts& facts,
                                            size_t fields_max) noexcept {
  const size_t room = std::min(fields_max, FieldTable::kFieldsMax);
  for (;;) {
    if (next == end) return Outcome::kNeedMore;
    if (*next == '\r' && end - next >= 2 && next[1] == '\n') {
      next += 2;
      return Outcome::kEnd;
    }
    const FieldLine line = cut_field_line(next, end);
    if (line.next == nullptr) {
      if (line.error == nullptr) return Outcome::kNeedMore;
      reason = line.error;
      return Outcome::kMalformed;
    }
    if (fields.size() >= room) {
      reason = "too many fields";
      return Outcome::kTooMany;
    }
    Field field{line.name, line.value, classify_field(line.name), false};
    field.hop_by_hop =
        is_hop_by_hop(field.known) || (line.underscore && imitates_known_field(field.name));
    static_cast<void>(fields.push(field));  // there is room
    if (field.known != KnownField::kOther) {
      if (const char* error = note(fields[fields.size() - 1], facts)) {
        reason = error;
        return Outcome::kMalformed;
      }
    }
    next = line.next;
  }
}

void mark_nominated(FieldTable& fields) noexcept {
  for (const Field& connection : fields) {
    if (connection.known != KnownField::kConnection) continue;
    for_each_element(connection.value, [&](std::string_view option) noexcept {
      for (Field& field : fields) {
        if (field.known == KnownField::kOther && equals_ignore_case(field.name, option)) {
          field.hop_by_hop = true;
        }
      }
      return true;
    });
  }
}

uint16_t parse_version(const char* text, uint8_t& minor) noexcept {
  if (std::memcmp(text, "HTTP/", 5) != 0 || text[6] != '.') return 400;
  const char major_digit = text[5];
  const char minor_digit = text[7];
  if (major_digit < '0' || major_digit > '9' || minor_digit < '0' || minor_digit > '9') return 400;
  if (major_digit == '0') return 400;
  if (major_digit != '1') return 505;
  minor = minor_digit == '0' ? 0 : 1;
  return 0;
}

}  // namespace weir::http::h1
