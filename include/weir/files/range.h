// Range requests (RFC 9110 14): from the Range field to the pieces of a body, with its exact length
// computed ahead. Pure functions, any thread. Only plan_body() allocates.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <weir/http/head.h>

namespace weir::files {

inline constexpr size_t kRangesMax = 16;        // parts that are sent
inline constexpr size_t kRangesAskedMax = 128;  // ranges that are looked at

struct FileRange {
  uint64_t offset = 0;
  uint64_t size = 0;  // never 0
  friend bool operator==(const FileRange&, const FileRange&) = default;
};

enum class RangeVerdict : uint8_t {
  kWhole,          // 200: nothing that need be honoured was asked for
  kPartial,        // 206: `ranges()`
  kUnsatisfiable,  // 416
};

struct RangeSelection {
  RangeVerdict verdict = RangeVerdict::kWhole;
  uint64_t file_size = 0;
  size_t count = 0;
  std::array<FileRange, kRangesMax> storage;  // the first `count` of them

  [[nodiscard]] std::span<const FileRange> ranges() const noexcept {
    return std::span(storage).first(count);
  }
};

// `value` is that of a Range field ("bytes=0-99,-1"), `size` that of the file.
//
// kWhole for: another unit than bytes, a syntax error anywhere in it, more than kRangesAskedMax
// ranges, more than kRangesMax after merging, several ranges that ask for more bytes than the file
// has (overlaps that would only cost), and a suffix of an empty file (which can be satisfied, but
// not expressed in Content-Range). kUnsatisfiable when the syntax is right and no range has a byte
// of the file. Otherwise those that have one, cut at the file's end. Ranges that overlap or touch
// are merged and stand where the first of them stood; else the order is as asked.
RangeSelection select_ranges(std::string_view value, uint64_t size) noexcept;

// The same for a request: kWhole without a Range field or with more than one. Ask only when
// evaluate_preconditions() says use_range.
RangeSelection select_ranges(const http::FieldTable& fields, uint64_t size) noexcept;

// What separates the parts of multipart/byteranges. Made from random bits of the caller: 128 of
// them keep it from being in the file, whoever wrote that.
class Boundary {
 public:
  Boundary(uint64_t high, uint64_t low) noexcept;
  [[nodiscard]] std::string_view view() const noexcept { return {text_.data(), text_.size()}; }

 private:
  std::array<char, 32> text_;
};

// A stretch of the body: bytes of the file, or of BodyPlan::text.
struct BodyPiece {
  bool from_file = false;
  uint64_t offset = 0;
  uint64_t size = 0;  // never 0
};

struct BodyPlan {
  uint16_t status = 200;            // 200, 206 or 416
  uint64_t length = 0;              // of the body: the sum over `pieces`
  std::string content_range{};      // of the head; empty: send none
  std::string content_type{};       // with several parts: replaces that of the file; else empty
  std::string text{};               // what stands between the parts
  std::vector<BodyPiece> pieces{};  // in this order; none for 416 and for an empty file

  [[nodiscard]] std::string_view literal(const BodyPiece& piece) const noexcept {
    return std::string_view(text).substr(piece.offset, piece.size);
  }
};

// `content_type` is that of the file, repeated in each part; empty: left out. A single range is
// never sent as multipart. For 416 the body is the caller's.
BodyPlan plan_body(const RangeSelection& selection, std::string_view content_type,
                   const Boundary& boundary);

}  // namespace weir::files
