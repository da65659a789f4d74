#include <weir/files/conditional.h>

#include <algorithm>

#include <weir/base/text.h>
#include <weir/files/http_date.h>

#include "field_list.h"

namespace weir::files {

namespace {

using http::KnownField;
using http::Method;

enum class Compare : uint8_t { kStrong, kWeak };

bool is_tag_char(char c) noexcept {
  const auto byte = static_cast<uint8_t>(c);
  return byte == 0x21 || (byte >= 0x23 && byte != 0x7f);
}

struct Tag {
  std::string_view opaque;  // with its quotes
  bool weak = false;
};

// Takes an entity-tag from the front of `text`; false, with `text` untouched, when there is none.
bool take_tag(std::string_view& text, Tag& tag) noexcept {
  tag.weak = text.starts_with("W/");
  const size_t begin = tag.weak ? 2 : 0;
  if (text.size() < begin + 2 || text[begin] != '"') return false;
  const auto* const first = text.begin() + begin + 1;
  const auto* const quote = std::find_if_not(first, text.end(), is_tag_char);
  if (quote == text.end() || *quote != '"') return false;
  const auto end = static_cast<size_t>(quote - text.begin()) + 1;
  tag.opaque = text.substr(begin, end - begin);
  text.remove_prefix(end);
  return true;
}

bool equal_tags(const Tag& asked, std::string_view etag, Compare how) noexcept {
  Tag own;
  if (!take_tag(etag, own) || !etag.empty()) return false;
  if (how == Compare::kStrong && (asked.weak || own.weak)) return false;
  return asked.opaque == own.opaque;
}

// Looks for `etag` in a field line. False in `readable` when the line holds something else.
bool line_has_tag(std::string_view line, std::string_view etag, Compare how,
                  bool& readable) noexcept {
  for (;;) {
    while (!line.empty() && (line[0] == ',' || line[0] == ' ' || line[0] == '\t')) {
      line.remove_prefix(1);
    }
    if (line.empty()) return false;
    Tag tag;
    readable = take_tag(line, tag);
    if (!readable) return false;
    line = base::trim(line);
    readable = line.empty() || line[0] == ',';
    if (!readable) return false;
    if (equal_tags(tag, etag, how)) return true;
  }
}

// Is `etag` in the list of that field, or is the list "*"?
bool has_tag(const http::FieldTable& fields, KnownField known, std::string_view etag,
             Compare how) noexcept {
  if (single_value(fields, known) == "*") return true;
  bool readable = true;
  for (const http::Field& field : fields) {
    if (field.known != known) continue;
    if (line_has_tag(field.value, etag, how, readable)) return true;
    if (!readable) return false;
  }
  return false;
}

std::optional<int64_t> single_date(const http::FieldTable& fields, KnownField known,
                                   int64_t now) noexcept {
  const auto value = single_value(fields, known);
  return value ? parse_any_http_date(*value, now) : std::nullopt;
}

// Steps 1 and 2 of RFC 9110 13.2.2.
bool is_still_that(const http::FieldTable& fields, const Validators& validators,
                   int64_t now) noexcept {
  if (fields.has(KnownField::kIfMatch)) {
    return has_tag(fields, KnownField::kIfMatch, validators.etag, Compare::kStrong);
  }
  if (!validators.modified) return true;
  const auto date = single_date(fields, KnownField::kIfUnmodifiedSince, now);
  return !date || *validators.modified <= *date;
}

// Step 4: is the client's copy, dated by If-Modified-Since, good?
bool is_unmodified(const http::FieldTable& fields, const Validators& validators, int64_t now,
                   SinceRule since) noexcept {
  if (!validators.modified) return false;
  const auto date = single_date(fields, KnownField::kIfModifiedSince, now);
  if (!date) return false;
  return since == SinceRule::kExactly ? *validators.modified == *date
                                      : *validators.modified <= *date;
}

// Step 5.
bool may_use_range(const http::FieldTable& fields, const Validators& validators,
                   int64_t now) noexcept {
  if (!fields.has(KnownField::kRange)) return false;
  if (!fields.has(KnownField::kIfRange)) return true;
  const auto value = single_value(fields, KnownField::kIfRange);
  if (!value) return false;
  std::string_view rest = *value;
  if (Tag tag; take_tag(rest, tag)) {
    return rest.empty() && equal_tags(tag, validators.etag, Compare::kStrong);
  }
  const auto date = parse_any_http_date(*value, now);
  // A date in the second of now is weak: the file may yet change within it.
  return date && validators.modified && *date == *validators.modified && *date < now;
}

}  // namespace

Evaluation evaluate_preconditions(const http::FieldTable& fields, Method method,
                                  const Validators& validators, int64_t now,
                                  SinceRule since) noexcept {
  if (method == Method::kConnect || method == Method::kOptions || method == Method::kTrace) {
    return {};
  }
  if (!is_still_that(fields, validators, now)) return {Precondition::kFailed, false};
  const bool reads = method == Method::kGet || method == Method::kHead;
  if (fields.has(KnownField::kIfNoneMatch)) {
    if (has_tag(fields, KnownField::kIfNoneMatch, validators.etag, Compare::kWeak)) {
      return {reads ? Precondition::kNotModified : Precondition::kFailed, false};
    }
  } else if (reads && is_unmodified(fields, validators, now, since)) {
    return {Precondition::kNotModified, false};
  }
  return {Precondition::kProceed, method == Method::kGet && may_use_range(fields, validators, now)};
}

}  // namespace weir::files
