#include <weir/http/h1/chunked.h>

#include <algorithm>
#include <charconv>

#include <weir/base/check.h>
#include <weir/base/text.h>

#include "chars.h"
#include "field_rules.h"
#include "head_lines.h"

namespace weir::http::h1 {

namespace {

constexpr uint64_t kContentBytesMax = INT64_MAX;
constexpr uint8_t kSizeDigitsMax = 16;

// `prefix` in lower case; '_' in `name` counts as '-'.
bool starts_like(std::string_view name, std::string_view prefix) noexcept {
  if (name.size() < prefix.size()) return false;
  for (size_t i = 0; i < prefix.size(); ++i) {
    const char c = name[i] == '_' ? '-' : base::to_lower(name[i]);
    if (c != prefix[i]) return false;
  }
  return true;
}

}  // namespace

enum class ChunkedDecoder::Step : uint8_t {
  kSizeStart,      // at the first digit
  kSize,           // after a digit
  kExtensionName,  // after ';'
  kExtensionNameMore,
  kExtensionValue,  // after '='
  kExtensionToken,
  kExtensionQuoted,
  kExtensionEscape,    // after '\\' in a quoted string
  kExtensionComplete,  // after a quoted string
  kSizeLf,             // after the CR of a size line
  kData,
  kDataCr,
  kDataLf,
  kTrailerStart,  // after the last chunk
  kEndLf,         // after the CR of the empty line, when there are no trailers
  kTrailers,
  kEnded,
  kFailed,
};

struct ChunkedDecoder::Trailers {
  explicit Trailers(uint32_t room)
      : bytes(std::make_unique_for_overwrite<char[]>(room)), capacity(room) {}

  std::unique_ptr<char[]> bytes;
  uint32_t capacity;
  uint32_t used = 0;
  uint32_t line_start = 0;
  uint16_t lines = 0;
  FieldTable fields;
};

bool trailer_allowed(std::string_view name) noexcept {
  const KnownField known = classify_field(name);
  if (known != KnownField::kOther) return known == KnownField::kEtag;
  if (imitates_known_field(name)) return false;
  for (std::string_view prefix :
       {"content-", "x-forwarded-", "x-client-cert-", "x-real-", "proxy-", "if-", "sec-"}) {
    if (starts_like(name, prefix)) return false;
  }
  return true;
}

ChunkedDecoder::ChunkedDecoder(const ChunkedLimits& limits) noexcept
    : limits_(limits), step_(Step::kSizeStart) {}
ChunkedDecoder::~ChunkedDecoder() = default;
ChunkedDecoder::ChunkedDecoder(ChunkedDecoder&&) noexcept = default;
ChunkedDecoder& ChunkedDecoder::operator=(ChunkedDecoder&&) noexcept = default;

void ChunkedDecoder::reset() noexcept { *this = ChunkedDecoder(limits_); }

const FieldTable* ChunkedDecoder::trailers() const noexcept {
  if (step_ != Step::kEnded || trailers_ == nullptr || trailers_->fields.empty()) return nullptr;
  return &trailers_->fields;
}

uint64_t ChunkedDecoder::chunk_bytes_left() const noexcept {
  return step_ == Step::kData ? chunk_left_ : 0;
}

void ChunkedDecoder::skip(uint64_t bytes) noexcept {
  if (bytes == 0) return;
  WEIR_CHECK(step_ == Step::kData);
  WEIR_CHECK(bytes <= chunk_left_);
  chunk_left_ -= bytes;
  content_bytes_ += bytes;
  if (chunk_left_ == 0) step_ = Step::kDataCr;
}

bool ChunkedDecoder::ended() const noexcept { return step_ == Step::kEnded; }

ChunkedDecoder::Output ChunkedDecoder::fail(size_t consumed, const char* reason,
                                            uint16_t status) noexcept {
  step_ = Step::kFailed;
  error_reason_ = reason;
  error_status_ = status;
  return {State::kError, status, consumed, {}, reason};
}

ChunkedDecoder::Output ChunkedDecoder::feed(std::string_view in) noexcept {
  for (size_t i = 0; i < in.size(); ++i) {
    switch (step_) {
      case Step::kData: {
        const std::string_view data = in.substr(i, chunk_left_);
        skip(data.size());
        return {State::kData, 0, i + data.size(), data, ""};
      }
      case Step::kTrailerStart:
        if (in[i] == '\r') {
          step_ = Step::kEndLf;
          break;
        }
        trailers_ = std::make_unique<Trailers>(limits_.trailer_bytes_max);
        step_ = Step::kTrailers;
        return read_trailers(in, i);
      case Step::kTrailers: return read_trailers(in, i);
      case Step::kEnded: return {State::kEnd, 0, i, {}, ""};
      case Step::kFailed: return {State::kError, error_status_, i, {}, error_reason_};
      default:
        if (const char* reason = take_line_byte(in[i])) return fail(i, reason);
    }
  }
  if (step_ == Step::kEnded) return {State::kEnd, 0, in.size(), {}, ""};
  if (step_ == Step::kFailed) return {State::kError, error_status_, 0, {}, error_reason_};
  return {State::kNeedMore, 0, in.size(), {}, ""};
}

const char* ChunkedDecoder::take_line_byte(char c) noexcept {
  switch (step_) {
    case Step::kSizeLf: return c == '\n' ? end_size_line() : "bare CR in a chunk line";
    case Step::kDataCr:
      if (c != '\r') return "chunk longer than its size";
      step_ = Step::kDataLf;
      return nullptr;
    case Step::kDataLf:
      if (c != '\n') return "chunk longer than its size";
      step_ = Step::kSizeStart;
      return nullptr;
    case Step::kEndLf:
      if (c != '\n') return "bare CR in the trailer section";
      step_ = Step::kEnded;
      return nullptr;
    default: break;
  }
  if (c == '\n') return "bare LF in a chunk line";
  if (c != '\r' && ++line_bytes_ > limits_.line_bytes_max) return "chunk line too long";
  return step_ == Step::kSizeStart || step_ == Step::kSize ? take_size_byte(c)
                                                           : take_extension_byte(c);
}

const char* ChunkedDecoder::take_size_byte(char c) noexcept {
  if (chars::is(c, chars::kHexDigit)) {
    // Leading zeros count too, so that the loop is bounded whatever the line limit is.
    if (++digits_ > kSizeDigitsMax) return "chunk size too long";
    chunk_left_ = chunk_left_ << 4 | chars::hex_value(c);
    step_ = Step::kSize;
    return nullptr;
  }
  if (step_ == Step::kSizeStart) return "no chunk size";
  if (c == '\r') {
    step_ = Step::kSizeLf;
    return nullptr;
  }
  if (c != ';') return "bad character in a chunk size";
  step_ = Step::kExtensionName;
  return ++extension_bytes_ > limits_.extension_bytes_max ? "too many chunk extensions" : nullptr;
}

// chunk-ext = *( ";" token [ "=" ( token / quoted-string ) ] ), without the "bad" white space that
// RFC 9112 7.1.1 lets receivers accept.
const char* ChunkedDecoder::take_extension_byte(char c) noexcept {
  if (c != '\r' && ++extension_bytes_ > limits_.extension_bytes_max) {
    return "too many chunk extensions";
  }
  const auto go_on = [this](Step step) {
    step_ = step;
    return static_cast<const char*>(nullptr);
  };
  const bool token = chars::is(c, chars::kToken);
  switch (step_) {
    case Step::kExtensionName:
      if (token) return go_on(Step::kExtensionNameMore);
      break;
    case Step::kExtensionNameMore:
      if (token) return nullptr;
      if (c == '=') return go_on(Step::kExtensionValue);
      if (c == ';') return go_on(Step::kExtensionName);
      if (c == '\r') return go_on(Step::kSizeLf);
      break;
    case Step::kExtensionValue:
      if (token) return go_on(Step::kExtensionToken);
      if (c == '"') return go_on(Step::kExtensionQuoted);
      break;
    case Step::kExtensionToken:
      if (token) return nullptr;
      [[fallthrough]];
    case Step::kExtensionComplete:
      if (c == ';') return go_on(Step::kExtensionName);
      if (c == '\r') return go_on(Step::kSizeLf);
      break;
    case Step::kExtensionQuoted:
      if (c == '"') return go_on(Step::kExtensionComplete);
      if (c == '\\') return go_on(Step::kExtensionEscape);
      if (chars::is(c, chars::kQuotedText)) return nullptr;
      break;
    case Step::kExtensionEscape:
      if (chars::is(c, chars::kFieldValue)) return go_on(Step::kExtensionQuoted);
      break;
    default: break;
  }
  return "bad chunk extension";
}

const char* ChunkedDecoder::end_size_line() noexcept {
  digits_ = 0;
  line_bytes_ = 0;
  if (chunk_left_ > kContentBytesMax - content_bytes_) return "chunk size too large";
  step_ = chunk_left_ == 0 ? Step::kTrailerStart : Step::kData;
  return nullptr;
}

ChunkedDecoder::Output ChunkedDecoder::read_trailers(std::string_view in, size_t from) noexcept {
  Trailers& trailers = *trailers_;
  while (from < in.size()) {
    const size_t lf = in.find('\n', from);
    const size_t part_end = lf == std::string_view::npos ? in.size() : lf + 1;
    const size_t size = part_end - from;
    if (size > trailers.capacity - trailers.used) return fail(from, "trailers too large", 431);
    std::memcpy(trailers.bytes.get() + trailers.used, in.data() + from, size);
    trailers.used += static_cast<uint32_t>(size);
    from = part_end;
    if (lf == std::string_view::npos) break;

    const size_t line_size = trailers.used - trailers.line_start;
    if (line_size == 2 && trailers.bytes[trailers.line_start] == '\r') {
      step_ = Step::kEnded;
      return {State::kEnd, 0, from, {}, ""};
    }
    if (++trailers.lines > limits_.trailer_fields_max) {
      return fail(from, "too many trailer fields", 431);
    }
    if (const char* reason = take_trailer_line()) return fail(from, reason);
  }
  return {State::kNeedMore, 0, from, {}, ""};
}

const char* ChunkedDecoder::take_trailer_line() noexcept {
  Trailers& trailers = *trailers_;
  const char* const begin = trailers.bytes.get() + trailers.line_start;
  const FieldLine line = cut_field_line(begin, trailers.bytes.get() + trailers.used);
  if (line.next == nullptr) return line.error;
  trailers.line_start = trailers.used;
  if (!trailer_allowed(line.name)) return nullptr;
  const Field field{line.name, line.value, classify_field(line.name), false};
  return trailers.fields.push(field) ? nullptr : "too many trailer fields";
}

size_t write_chunk_head(char* out, uint64_t size) noexcept {
  WEIR_CHECK(size != 0);
  char* const end = std::to_chars(out, out + kChunkHeadBytesMax - 2, size, 16).ptr;
  end[0] = '\r';
  end[1] = '\n';
  return static_cast<size_t>(end - out) + 2;
}

void append_last_chunk(base::ByteWriter& out, const FieldTable* trailers) noexcept {
  if (trailers == nullptr) {
    out.append(kLastChunk);
    return;
  }
  out.append("0\r\n");
  for (const Field& field : *trailers) {
    if (field.hop_by_hop) continue;
    out.append(field.name);
    out.append(": ");
    out.append(field.value);
    out.append("\r\n");
  }
  out.append("\r\n");
}

}  // namespace weir::http::h1
