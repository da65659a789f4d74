#include <weir/files/range.h>

#include <algorithm>

#include <weir/base/text.h>

#include "field_list.h"

namespace weir::files {

namespace {

// [begin, end), asked for as number `place`.
struct Asked {
  uint64_t begin = 0;
  uint64_t end = 0;
  size_t place = 0;
};

struct AskedList {
  std::array<Asked, kRangesAskedMax> items;
  size_t count = 0;             // those that have a byte of the file
  size_t seen = 0;              // all of them
  bool empty_suffix = false;    // one is a suffix of an empty file
  unsigned __int128 bytes = 0;  // their sum, before merging
};

bool all_digits(std::string_view text) noexcept {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// 1*DIGIT; numbers beyond 64 bits are as good as the largest.
uint64_t saturated(std::string_view digits) noexcept {
  const size_t start = std::min(digits.find_first_not_of('0'), digits.size() - 1);
  return base::parse_decimal(digits.substr(start)).value_or(UINT64_MAX);
}

// kEmpty: a suffix of an empty file. It can be satisfied (RFC 9110 14.1.2), though with no byte.
enum class Spec : uint8_t { kBad, kNothing, kEmpty, kBytes };

// One range-spec against a file of `size` bytes.
Spec parse_spec(std::string_view text, uint64_t size, Asked& asked) noexcept {
  const size_t dash = text.find('-');
  if (dash == std::string_view::npos) return Spec::kBad;
  const std::string_view first_text = text.substr(0, dash);
  const std::string_view last_text = text.substr(dash + 1);
  if (!all_digits(first_text) || !all_digits(last_text)) return Spec::kBad;
  if (first_text.empty()) {
    if (last_text.empty()) return Spec::kBad;
    const uint64_t suffix = saturated(last_text);
    if (suffix == 0) return Spec::kNothing;
    if (size == 0) return Spec::kEmpty;
    asked.begin = size - std::min(suffix, size);
    asked.end = size;
    return Spec::kBytes;
  }
  const uint64_t first = saturated(first_text);
  const uint64_t last = last_text.empty() ? UINT64_MAX : saturated(last_text);
  if (last < first) return Spec::kBad;
  if (first >= size) return Spec::kNothing;
  asked.begin = first;
  asked.end = last >= size ? size : last + 1;
  return Spec::kBytes;
}

// False: not a range-set, or one that is too long.
bool parse_set(std::string_view set, uint64_t size, AskedList& list) noexcept {
  while (!set.empty()) {
    const size_t comma = std::min(set.find(','), set.size());
    const std::string_view spec = base::trim(set.substr(0, comma));
    set.remove_prefix(std::min(comma + 1, set.size()));
    if (spec.empty()) continue;
    if (list.seen == kRangesAskedMax) return false;
    Asked asked;
    asked.place = list.seen++;
    switch (parse_spec(spec, size, asked)) {
      case Spec::kBad: return false;
      case Spec::kNothing: break;
      case Spec::kEmpty: list.empty_suffix = true; break;
      case Spec::kBytes:
        list.items[list.count++] = asked;
        list.bytes += asked.end - asked.begin;
        break;
    }
  }
  return list.seen != 0;
}

// Merges what overlaps or touches; what is left stands in the order of its earliest part.
void merge(AskedList& list) noexcept {
  const auto items = std::span(list.items).first(list.count);
  std::sort(items.begin(), items.end(),
            [](const Asked& a, const Asked& b) { return a.begin < b.begin; });
  size_t kept = 0;
  for (const Asked& item : items) {
    if (kept != 0 && item.begin <= items[kept - 1].end) {
      Asked& into = items[kept - 1];
      into.end = std::max(into.end, item.end);
      into.place = std::min(into.place, item.place);
    } else {
      items[kept++] = item;
    }
  }
  list.count = kept;
  std::sort(items.begin(), items.begin() + static_cast<ptrdiff_t>(kept),
            [](const Asked& a, const Asked& b) { return a.place < b.place; });
}

void append_content_range(std::string& out, const FileRange& range, uint64_t file_size) {
  out += "bytes ";
  out += std::to_string(range.offset);
  out += '-';
  out += std::to_string(range.offset + range.size - 1);
  out += '/';
  out += std::to_string(file_size);
}

void plan_multipart(const RangeSelection& selection, std::string_view content_type,
                    const Boundary& boundary, BodyPlan& plan) {
  plan.content_type = "multipart/byteranges; boundary=";
  plan.content_type += boundary.view();
  const auto add_text = [&plan](size_t begin) {
    plan.pieces.push_back({false, begin, plan.text.size() - begin});
  };
  plan.text.reserve((selection.count + 1) * (boundary.view().size() + content_type.size() + 128));
  plan.pieces.reserve(2 * selection.count + 1);
  for (const FileRange& range : selection.ranges()) {
    const size_t begin = plan.text.size();
    plan.text += begin == 0 ? "--" : "\r\n--";
    plan.text += boundary.view();
    if (!content_type.empty()) {
      plan.text += "\r\nContent-Type: ";
      plan.text += content_type;
    }
    plan.text += "\r\nContent-Range: ";
    append_content_range(plan.text, range, selection.file_size);
    plan.text += "\r\n\r\n";
    add_text(begin);
    plan.pieces.push_back({true, range.offset, range.size});
  }
  const size_t begin = plan.text.size();
  plan.text += "\r\n--";
  plan.text += boundary.view();
  plan.text += "--\r\n";
  add_text(begin);
}

}  // namespace

RangeSelection select_ranges(std::string_view value, uint64_t size) noexcept {
  constexpr std::string_view kUnit = "bytes=";
  RangeSelection selection;
  selection.file_size = size;
  if (!base::equals_ignore_case(value.substr(0, kUnit.size()), kUnit)) return selection;
  AskedList list;
  if (!parse_set(value.substr(kUnit.size()), size, list)) return selection;
  if (list.count == 0) {
    if (!list.empty_suffix) selection.verdict = RangeVerdict::kUnsatisfiable;
    return selection;
  }
  if (list.count > 1 && list.bytes > size) return selection;
  merge(list);
  if (list.count > kRangesMax) return selection;
  selection.verdict = RangeVerdict::kPartial;
  selection.count = list.count;
  for (size_t i = 0; i < list.count; ++i) {
    selection.storage[i] = {list.items[i].begin, list.items[i].end - list.items[i].begin};
  }
  return selection;
}

RangeSelection select_ranges(const http::FieldTable& fields, uint64_t size) noexcept {
  // "bytes=0-1" and "bytes=2-3" are not one list: joined by a comma they would be an error.
  return select_ranges(single_value(fields, http::KnownField::kRange).value_or(""), size);
}

Boundary::Boundary(uint64_t high, uint64_t low) noexcept {
  constexpr const char* kDigits = "0123456789abcdef";
  for (size_t i = 0; i < 16; ++i) {
    text_[15 - i] = kDigits[high >> (4 * i) & 0x0fU];
    text_[31 - i] = kDigits[low >> (4 * i) & 0x0fU];
  }
}

BodyPlan plan_body(const RangeSelection& selection, std::string_view content_type,
                   const Boundary& boundary) {
  BodyPlan plan;
  switch (selection.verdict) {
    case RangeVerdict::kUnsatisfiable:
      plan.status = 416;
      plan.content_range = "bytes */" + std::to_string(selection.file_size);
      return plan;
    case RangeVerdict::kWhole:
      if (selection.file_size != 0) plan.pieces.push_back({true, 0, selection.file_size});
      break;
    case RangeVerdict::kPartial:
      plan.status = 206;
      if (selection.count == 1) {
        const FileRange& range = selection.storage[0];
        append_content_range(plan.content_range, range, selection.file_size);
        plan.pieces.push_back({true, range.offset, range.size});
      } else {
        plan_multipart(selection, content_type, boundary, plan);
      }
      break;
  }
  for (const BodyPiece& piece : plan.pieces) plan.length += piece.size;
  return plan;
}

}  // namespace weir::files
