#include "wire.h"

#include <array>
#include <charconv>
#include <cstring>

namespace weir::bench {

namespace {

constexpr std::array<uint64_t, 11> kBodySizes = {
    128, 1024, 32768, 65536, 131072, 262144, 524288, 1048576, 2097152, 4194304, kBodyBytesMax};
constexpr std::string_view kHeadEnd = "\r\n\r\n";

std::string make_pattern() {
  std::string text(kBodyBytesMax, '\0');
  // 23 is coprime to every buffer size in use: shifted or repeated pieces do not compare equal.
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 23);
  return text;
}

std::string make_response(uint64_t body_bytes) {
  std::string text =
      "HTTP/1.1 200 OK\r\n"
      "Server: origin\r\n"
      "Date: Fri, 20 Nov 2026 04:00:00 GMT\r\n"
      "Content-Type: application/octet-stream\r\n"
      "Content-Length: " +
      std::to_string(body_bytes) + "\r\n\r\n";
  text += body_pattern().substr(0, body_bytes);
  return text;
}

char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

// The value when `line` is the field `name` (given in lower case), without outer blanks.
bool field_value(std::string_view line, std::string_view name, std::string_view& value) noexcept {
  if (line.size() <= name.size() || line[name.size()] != ':') return false;
  for (size_t i = 0; i < name.size(); ++i) {
    if (lower(line[i]) != name[i]) return false;
  }
  value = line.substr(name.size() + 1);
  while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
  while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
  return true;
}

bool parse_number(std::string_view text, uint64_t& number) noexcept {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size();
}

std::string_view take_line(std::string_view& rest) noexcept {
  const size_t end = rest.find("\r\n");
  const std::string_view line = rest.substr(0, end);
  rest.remove_prefix(end + 2);
  return line;
}

}  // namespace

std::string_view body_pattern() noexcept {
  static const std::string pattern = make_pattern();
  return pattern;
}

bool is_known_size(uint64_t body_bytes) noexcept {
  for (const uint64_t size : kBodySizes) {
    if (size == body_bytes) return true;
  }
  return false;
}

std::string_view response_for(std::string_view path) noexcept {
  // Made when they are first asked for: a run asks for one of them, and they are 20 MiB in all.
  static std::array<std::string, kBodySizes.size()> responses;
  uint64_t size = 0;
  if (path.size() < 2 || path[0] != '/' || !parse_number(path.substr(1), size)) return {};
  for (size_t i = 0; i < kBodySizes.size(); ++i) {
    if (kBodySizes[i] != size) continue;
    if (responses[i].empty()) responses[i] = make_response(size);
    return responses[i];
  }
  return {};
}

std::string make_request(uint64_t body_bytes, bool close) {
  std::string text = "GET /" + std::to_string(body_bytes) +
                     " HTTP/1.1\r\n"
                     "Host: bench.example\r\n"
                     "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\n"
                     "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n"
                     "Accept-Language: en-US,en;q=0.5\r\n"
                     "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n"
                     "Referer: http://bench.example/index.html\r\n";
  if (close) text += "Connection: close\r\n";
  text += "\r\n";
  return text;
}

HeadState parse_response_head(std::string_view bytes, ResponseHead& head) noexcept {
  const size_t end = bytes.find(kHeadEnd);
  if (end == std::string_view::npos) {
    return bytes.size() < kHeadBytesMax ? HeadState::kIncomplete : HeadState::kMalformed;
  }
  head.bytes = end + kHeadEnd.size();
  std::string_view rest = bytes.substr(0, end + 2);
  const std::string_view status_line = take_line(rest);
  uint64_t status = 0;
  if (status_line.size() < 12 || !status_line.starts_with("HTTP/1.1 ") ||
      !parse_number(status_line.substr(9, 3), status)) {
    return HeadState::kMalformed;
  }
  head.status = static_cast<int>(status);
  bool has_length = false;
  while (!rest.empty()) {
    const std::string_view line = take_line(rest);
    std::string_view value;
    if (field_value(line, "content-length", value)) {
      if (has_length || !parse_number(value, head.content_length)) return HeadState::kMalformed;
      has_length = true;
    } else if (field_value(line, "transfer-encoding", value)) {
      return HeadState::kMalformed;
    }
  }
  return has_length ? HeadState::kComplete : HeadState::kMalformed;
}

HeadState parse_request_head(std::string_view bytes, RequestHead& head) noexcept {
  const size_t end = bytes.find(kHeadEnd);
  if (end == std::string_view::npos) {
    return bytes.size() < kHeadBytesMax ? HeadState::kIncomplete : HeadState::kMalformed;
  }
  head.bytes = end + kHeadEnd.size();
  const std::string_view text = bytes.substr(0, end);
  if (!text.starts_with("GET /")) return HeadState::kMalformed;
  const size_t path_end = text.find(' ', 4);
  if (path_end == std::string_view::npos) return HeadState::kMalformed;
  head.path = text.substr(4, path_end - 4);
  // Proxies under test write the field name with or without a capital letter.
  head.close = text.substr(path_end, 9) == " HTTP/1.0" ||
               memmem(text.data(), text.size(), "onnection: close", 16) != nullptr;
  return HeadState::kComplete;
}

}  // namespace weir::bench
