// HTTP/1.1 as the scripted clients and origins of the simulation speak it: a reader and writers of
// their own, which share nothing with the code under test, so that a mistake there cannot excuse
// itself. Plain values, one thread. Whoever reads decides what a complaint means.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weir::sim {

enum class Framing : uint8_t { kNone, kLength, kChunked, kUntilClose };

// The content that belongs to an id: any byte may be in it, and a shifted, cut or foreign piece
// does not compare equal. `side`: 'q' of the request, 'r' of the response.
std::string make_body(uint64_t id, char side, size_t bytes);

struct WireField {
  std::string name;  // lower case
  std::string value;
};

// Reads one message after the other from a stream of bytes.
class WireReader {
 public:
  enum class Side : uint8_t { kRequests, kResponses };
  explicit WireReader(Side side) noexcept : side_(side) {}

  // Takes bytes from the front of `in`, at most to the end of the present message.
  size_t feed(std::string_view in);
  // The connection ended in order: that completes a message that lasts until then.
  void end_of_stream();
  // Forgets the message, to read the next one. `answers_head`: the next response is to a HEAD.
  void next(bool answers_head = false);

  [[nodiscard]] bool started() const noexcept { return wire_bytes_ > 0; }
  [[nodiscard]] bool head_done() const noexcept { return step_ > Step::kHead; }
  [[nodiscard]] bool complete() const noexcept { return step_ == Step::kComplete; }
  // What makes this no HTTP message; empty while all is well. Nothing is read any more then.
  [[nodiscard]] const std::string& complaint() const noexcept { return complaint_; }

  [[nodiscard]] const std::string& method() const noexcept { return first_; }
  [[nodiscard]] const std::string& target() const noexcept { return second_; }
  [[nodiscard]] unsigned status() const noexcept { return status_; }
  [[nodiscard]] Framing framing() const noexcept { return framing_; }
  [[nodiscard]] uint64_t length() const noexcept { return length_; }
  [[nodiscard]] const std::string& body() const noexcept { return body_; }
  [[nodiscard]] size_t wire_bytes() const noexcept { return wire_bytes_; }
  [[nodiscard]] const std::vector<WireField>& fields() const noexcept { return fields_; }
  // All values of that (lower case) name, joined by ", "; empty if there is none.
  [[nodiscard]] std::string field(std::string_view name) const;
  [[nodiscard]] std::string trailer(std::string_view name) const;
  [[nodiscard]] bool has(std::string_view name) const;
  // Does a Connection field say so?
  [[nodiscard]] bool connection_says(std::string_view option) const;

 private:
  enum class Step : uint8_t { kHead, kBody, kChunkSize, kChunkEnd, kTrailers, kComplete };
  void take_line();
  void take_start_line();
  void take_field(std::vector<WireField>& into);
  void head_ends();
  void complain(const std::string& what);

  Side side_;
  Step step_ = Step::kHead;
  bool answers_head_ = false;
  bool start_line_seen_ = false;
  std::string line_;
  std::string first_, second_;
  unsigned status_ = 0;
  Framing framing_ = Framing::kNone;
  uint64_t length_ = 0;
  uint64_t left_ = 0;  // of the body (kLength) or of the present chunk
  std::string body_;
  size_t wire_bytes_ = 0;
  std::vector<WireField> fields_;
  std::vector<WireField> trailers_;
  std::string complaint_;
};

// `body` as chunks whose sizes next_size() gives (at least 1), some with extensions (few enough for
// weir's limit), ended by the last chunk with `trailers` (complete lines).
template <class NextSize>
std::string write_chunked(std::string_view body, std::string_view trailers, NextSize&& next_size) {
  std::string wire;
  unsigned extensions = 0;
  while (!body.empty()) {
    size_t size = next_size();
    if (size > body.size()) size = body.size();
    char line[40];
    const char* extension = size % 7 == 3 && extensions++ < 500 ? ";a=b;c=\"d\"" : "";
    const int length = __builtin_snprintf(line, sizeof line, "%zx%s\r\n", size, extension);
    wire.append(line, static_cast<size_t>(length));
    wire.append(body.substr(0, size));
    wire += "\r\n";
    body.remove_prefix(size);
  }
  wire += "0\r\n";
  wire += trailers;
  wire += "\r\n";
  return wire;
}

}  // namespace weir::sim
