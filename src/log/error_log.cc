#include <weir/log/error_log.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace weir::log {

namespace {

constexpr std::array<std::string_view, 6> kLevelNames = {"trace", "debug", "info",
                                                         "warn",  "error", "off"};

// Encoded: this head, component, message, then per field a FieldHead, key and value.
struct Head {
  int64_t time_us;
  uint16_t core;
  uint16_t message_bytes;
  Level level;
  uint8_t component_bytes;
  uint8_t field_count;
  uint8_t truncated;
};
static_assert(sizeof(Head) == 16);

struct FieldHead {
  uint16_t value_bytes;
  uint8_t key_bytes;
  uint8_t bare;
};
static_assert(sizeof(FieldHead) == 4);
static_assert(kComponentBytesMax <= UINT8_MAX && kFieldKeyBytesMax <= UINT8_MAX);
static_assert(sizeof(Head) + kComponentBytesMax + kMessageBytesMax < kEventBytesMax / 2 + 64);
static_assert(kEventBytesMax + 64 <= Channel::kCapacityBytesMin / 4);

struct Reader {
  std::span<const std::byte> rest;
  bool good = true;

  template <class T>
  T value() noexcept {
    T out{};
    good = good && rest.size() >= sizeof(T);
    if (!good) return out;
    std::memcpy(&out, rest.data(), sizeof(T));
    rest = rest.subspan(sizeof(T));
    return out;
  }
  std::string_view text(size_t bytes) noexcept {
    good = good && rest.size() >= bytes;
    if (!good) return {};
    const std::string_view out(reinterpret_cast<const char*>(rest.data()), bytes);
    rest = rest.subspan(bytes);
    return out;
  }
};

struct Writer {
  std::byte* at;
  size_t room;

  void raw(const void* data, size_t bytes) noexcept {
    if (bytes != 0) std::memcpy(at, data, bytes);
    at += bytes;
    room -= bytes;
  }
};

}  // namespace

std::string_view to_string(Level level) noexcept {
  const auto index = static_cast<size_t>(level);
  return index < kLevelNames.size() ? kLevelNames[index] : "unknown";
}

std::optional<Level> parse_level(std::string_view name) noexcept {
  const auto found = std::find(kLevelNames.begin(), kLevelNames.end(), name);
  if (found == kLevelNames.end()) return std::nullopt;
  return static_cast<Level>(found - kLevelNames.begin());
}

Field::Field(std::string_view key, bool value) noexcept
    : key_(key), text_(value ? "true" : "false") {
  digit_count_ = static_cast<uint8_t>(text_.size());
  std::memcpy(digits_, text_.data(), text_.size());
  bare_ = true;
}

void Field::set_signed(int64_t value) noexcept {
  const auto result = std::to_chars(digits_, digits_ + sizeof(digits_), value);
  digit_count_ = static_cast<uint8_t>(result.ptr - digits_);
  bare_ = true;
}

void Field::set_unsigned(uint64_t value) noexcept {
  const auto result = std::to_chars(digits_, digits_ + sizeof(digits_), value);
  digit_count_ = static_cast<uint8_t>(result.ptr - digits_);
  bare_ = true;
}

void Event::add(const EventField& field) noexcept {
  if (field_count == fields.size()) {
    truncated = true;
    return;
  }
  fields[field_count++] = field;
}

size_t encode_event(const Event& event, std::span<std::byte, kEventBytesMax> out) noexcept {
  const std::string_view component = event.component.substr(0, kComponentBytesMax);
  const std::string_view message = event.message.substr(0, kMessageBytesMax);
  bool truncated = event.truncated || component.size() != event.component.size() ||
                   message.size() != event.message.size();
  Writer writer{out.data() + sizeof(Head), out.size() - sizeof(Head)};
  writer.raw(component.data(), component.size());
  writer.raw(message.data(), message.size());
  uint8_t written = 0;
  for (size_t i = 0; i < event.field_count; ++i) {
    const EventField& field = event.fields[i];
    const std::string_view key = field.key.substr(0, kFieldKeyBytesMax);
    if (writer.room < sizeof(FieldHead) + key.size()) {
      truncated = true;
      break;
    }
    const std::string_view value =
        field.value.substr(0, writer.room - sizeof(FieldHead) - key.size());
    // Half a number would be another number: it goes as a whole or not at all.
    if (field.bare && value.size() != field.value.size()) {
      truncated = true;
      break;
    }
    truncated = truncated || key.size() != field.key.size() || value.size() != field.value.size();
    const FieldHead head{static_cast<uint16_t>(value.size()), static_cast<uint8_t>(key.size()),
                         static_cast<uint8_t>(field.bare)};
    writer.raw(&head, sizeof(head));
    writer.raw(key.data(), key.size());
    writer.raw(value.data(), value.size());
    ++written;
  }
  const Head head{.time_us = event.time_us,
                  .core = event.core,
                  .message_bytes = static_cast<uint16_t>(message.size()),
                  .level = event.level,
                  .component_bytes = static_cast<uint8_t>(component.size()),
                  .field_count = written,
                  .truncated = static_cast<uint8_t>(truncated)};
  std::memcpy(out.data(), &head, sizeof(head));
  return out.size() - writer.room;
}

std::optional<Event> parse_event(std::span<const std::byte> bytes) noexcept {
  Reader reader{bytes};
  const Head head = reader.value<Head>();
  if (!reader.good || head.level >= Level::kOff) return std::nullopt;
  if (head.field_count > kEventFieldsMax) return std::nullopt;
  Event event;
  event.time_us = head.time_us;
  event.level = head.level;
  event.core = head.core;
  event.truncated = head.truncated != 0;
  event.component = reader.text(head.component_bytes);
  event.message = reader.text(head.message_bytes);
  for (size_t i = 0; i < head.field_count; ++i) {
    const FieldHead field = reader.value<FieldHead>();
    const std::string_view key = reader.text(field.key_bytes);
    event.add({key, reader.text(field.value_bytes), field.bare != 0});
  }
  if (!reader.good || !reader.rest.empty()) return std::nullopt;
  return event;
}

}  // namespace weir::log
