#include <weir/http/head.h>

#include <array>

#include <weir/base/text.h>

#include "chars.h"
#include "field_rules.h"

namespace weir::http {

namespace {

using base::equals_ignore_case;

constexpr auto kFieldCount = static_cast<size_t>(KnownField::kCount);

// In the order of KnownField.
constexpr std::array<std::string_view, kFieldCount> kNames = {
    "",
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
    "http2-settings",
    "via",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-real-ip",
    "x-request-id",
    "date",
    "server",
    "user-agent",
    "referer",
    "accept",
    "accept-encoding",
    "authorization",
    "www-authenticate",
    "cookie",
    "set-cookie",
    "content-type",
    "content-encoding",
    "content-range",
    "content-language",
    "content-location",
    "cache-control",
    "pragma",
    "expires",
    "age",
    "vary",
    "location",
    "etag",
    "last-modified",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "if-range",
    "range",
    "max-forwards",
    "origin",
    "retry-after",
};

constexpr size_t kNameBytesMax = 25;

// Token characters fold with one OR: it maps letters to lower case, keeps digits and '-', and takes
// no other token character to a letter, a digit or '-'.
constexpr uint32_t folded(char c) noexcept { return static_cast<uint8_t>(c) | 0x20U; }

// A perfect hash over the names above; the multiplier was found by trying random ones, and the
// static_assert below asks for a new one when a name is added that collides.
constexpr uint32_t slot_of(std::string_view name) noexcept {
  const size_t size = name.size();
  const uint32_t key = folded(name[0]) | folded(name[size < 4 ? 0 : size - 4]) << 8 |
                       folded(name[size - 1]) << 16 | static_cast<uint32_t>(size) << 24;
  return (key * 0xaca91679U) >> 24;
}

constexpr std::array<KnownField, 256> make_slots() {
  std::array<KnownField, 256> slots{};
  for (size_t i = 1; i < kFieldCount; ++i) slots[slot_of(kNames[i])] = static_cast<KnownField>(i);
  return slots;
}
constexpr std::array<KnownField, 256> kSlots = make_slots();

constexpr bool all_found() {
  for (size_t i = 1; i < kFieldCount; ++i) {
    if (kNames[i].empty() || kNames[i].size() > kNameBytesMax) return false;
    if (kSlots[slot_of(kNames[i])] != static_cast<KnownField>(i)) return false;
  }
  return true;
}
static_assert(all_found(), "two names share a slot, or kNames and KnownField are out of step");

template <class Word>
bool words_match(const char* name, const char* lower) noexcept {
  Word a;
  Word b;
  std::memcpy(&a, name, sizeof a);
  std::memcpy(&b, lower, sizeof b);
  return (a | static_cast<Word>(0x2020202020202020ULL)) == b;
}

// `lower` is a name of the table and has the size of `name`.
bool matches(std::string_view name, std::string_view lower) noexcept {
  const size_t size = name.size();
  const char* a = name.data();
  const char* b = lower.data();
  if (size >= 8) {
    for (size_t i = 0; i + 8 < size; i += 8) {
      if (!words_match<uint64_t>(a + i, b + i)) return false;
    }
    return words_match<uint64_t>(a + size - 8, b + size - 8);
  }
  if (size >= 4) {
    return words_match<uint32_t>(a, b) && words_match<uint32_t>(a + size - 4, b + size - 4);
  }
  return equals_ignore_case(name, lower);
}

}  // namespace

Method classify_method(std::string_view text) noexcept {
  switch (text.size()) {
    case 3:
      if (text == "GET") return Method::kGet;
      if (text == "PUT") return Method::kPut;
      break;
    case 4:
      if (text == "POST") return Method::kPost;
      if (text == "HEAD") return Method::kHead;
      break;
    case 5:
      if (text == "PATCH") return Method::kPatch;
      if (text == "TRACE") return Method::kTrace;
      break;
    case 6:
      if (text == "DELETE") return Method::kDelete;
      break;
    case 7:
      if (text == "OPTIONS") return Method::kOptions;
      if (text == "CONNECT") return Method::kConnect;
      break;
    default: break;
  }
  return Method::kOther;
}

KnownField classify_field(std::string_view name) noexcept {
  if (name.empty() || name.size() > kNameBytesMax) return KnownField::kOther;
  const KnownField candidate = kSlots[slot_of(name)];
  const std::string_view lower = kNames[static_cast<size_t>(candidate)];
  if (lower.size() != name.size() || !matches(name, lower)) return KnownField::kOther;
  return candidate;
}

std::string_view field_name(KnownField known) noexcept {
  const auto index = static_cast<size_t>(known);
  return index < kFieldCount ? kNames[index] : std::string_view();
}

bool imitates_known_field(std::string_view name) noexcept {
  if (name.size() > kNameBytesMax) return false;
  char dashed[kNameBytesMax];
  for (size_t i = 0; i < name.size(); ++i) dashed[i] = name[i] == '_' ? '-' : name[i];
  return classify_field({dashed, name.size()}) != KnownField::kOther;
}

bool FieldTable::grow() noexcept {
  if (capacity_ == kFieldsMax) return false;
  constexpr size_t kUsual = 32;  // browsers send 15 to 25
  reserve(capacity_ < kUsual ? kUsual : kFieldsMax);
  return true;
}

void FieldTable::reserve(size_t fields) noexcept {
  if (fields <= capacity_) return;
  auto larger = std::make_unique_for_overwrite<std::byte[]>(fields * sizeof(Field));
  if (size_ != 0) std::memcpy(larger.get(), data(), size_ * sizeof(Field));
  more_ = std::move(larger);
  capacity_ = fields;
}

void FieldTable::copy(const FieldTable& other) noexcept {
  clear();
  reserve(other.size_);
  size_ = other.size_;
  present_ = other.present_;
  if (size_ != 0) std::memcpy(static_cast<void*>(data()), other.data(), size_ * sizeof(Field));
}

const Field* FieldTable::find(KnownField known) const noexcept {
  if (!has(known)) return nullptr;
  for (const Field& field : *this) {
    if (field.known == known) return &field;
  }
  return nullptr;
}

const Field* FieldTable::find(std::string_view name) const noexcept {
  for (const Field& field : *this) {
    if (equals_ignore_case(field.name, name)) return &field;
  }
  return nullptr;
}

size_t FieldTable::count(KnownField known) const noexcept {
  if (!has(known)) return 0;
  size_t found = 0;
  for (const Field& field : *this) found += field.known == known ? 1 : 0;
  return found;
}

size_t FieldTable::count(std::string_view name) const noexcept {
  size_t found = 0;
  for (const Field& field : *this) found += equals_ignore_case(field.name, name) ? 1 : 0;
  return found;
}

bool connection_nominates(const FieldTable& fields) noexcept {
  if (!fields.has(KnownField::kConnection)) return false;
  for (const Field& field : fields) {
    if (field.known != KnownField::kConnection) continue;
    const bool none = for_each_element(field.value, [](std::string_view option) noexcept {
      return classify_field(option) != KnownField::kOther || equals_ignore_case(option, "close");
    });
    if (!none) return true;
  }
  return false;
}

void RequestHead::reset() noexcept {
  method = Method::kOther;
  minor_version = 1;
  framing = BodyFraming::kNone;
  has_query = keep_alive = expect_continue = has_upgrade = false;
  content_length = 0;
  method_text = target = scheme = authority = host = port = path = query = {};
  fields.clear();
}

void ResponseHead::reset() noexcept {
  status = 0;
  minor_version = 1;
  framing = BodyFraming::kNone;
  keep_alive = has_upgrade = false;
  content_length = 0;
  reason = {};
  fields.clear();
}

}  // namespace weir::http
