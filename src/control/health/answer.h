// The two pure halves of an HTTP health check: the request as text, and what an answer means, fed
// as it comes. Owned by one check, on control's thread. Keeps at most HealthChecker::kHeadBytesMax
// and the target's body_bytes_max.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <weir/control/health.h>
#include <weir/http/h1/chunked.h>
#include <weir/http/h1/parser.h>

namespace weir::control {

struct CheckResult {
  HealthResult result = HealthResult::kNone;
  std::string text;  // a phrase; "passed" has one too
  uint16_t status = 0;
};

std::string make_request(const HealthTarget& target);

class AnswerReader {
 public:
  static constexpr unsigned kInterimMax = 8;  // 1xx heads

  explicit AnswerReader(const HealthTarget& target) noexcept;  // which outlives it

  // Empty: it takes more to tell.
  std::optional<CheckResult> feed(std::string_view bytes);
  // The server has ended the stream.
  CheckResult end();
  [[nodiscard]] bool in_body() const noexcept { return in_body_; }

 private:
  std::optional<CheckResult> judge_head();
  std::optional<CheckResult> take_body(std::string_view bytes);
  // Content; something: the search is over.
  std::optional<CheckResult> take_content(std::string_view content);
  [[nodiscard]] CheckResult body_missing(std::string_view where) const;

  const HealthTarget& target_;
  const http::Method method_;
  std::string text_;  // the head, then the content
  size_t scanned_ = 0;
  http::ResponseHead head_;
  unsigned interim_ = 0;
  bool in_body_ = false;
  uint64_t length_left_ = 0;
  // It bounds lines, extensions and trailers; a chunk has a byte of content at least.
  http::h1::ChunkedDecoder chunks_;
};

}  // namespace weir::control
