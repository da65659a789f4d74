// Records to lines. Pure: bytes in, bytes appended, no I/O; control's thread only for speed's sake
// (the object caches the text of the last second it saw). Whatever a peer sent comes out as one
// line without control bytes: JSON strings are valid JSON and valid UTF-8, other lines are
// printable.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string>

#include <weir/log/access.h>
#include <weir/log/error_log.h>

namespace weir::log {

enum class AccessFormat : uint8_t { kJson, kCommon, kCombined };
enum class ErrorFormat : uint8_t { kText, kJson };

class Formatter {
 public:
  // Each appends one line with its newline. In JSON, what does not apply is left out: upstream keys
  // without an upstream, times not measured, reason, user_agent and referer when empty.
  void append_json(std::string& out, const AccessRecord& record);
  void append_common(std::string& out, const AccessRecord& record);
  void append_combined(std::string& out, const AccessRecord& record);
  void append_text(std::string& out, const Event& event);
  void append_json(std::string& out, const Event& event);

  void append(std::string& out, const AccessRecord& record, AccessFormat format);
  void append(std::string& out, const Event& event, ErrorFormat format);

 private:
  void update_clock(int64_t time_us);

  int64_t second_ = std::numeric_limits<int64_t>::min();
  std::array<char, 19> iso_{};  // 2026-11-20T10:11:12
  std::array<char, 26> clf_{};  // 20/Nov/2026:10:11:12 +0000
};

}  // namespace weir::log
