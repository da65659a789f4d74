// Where a body ends, as a pure state over the bytes that arrive: length, chunked or until close.
#pragma once

#include <cstdint>
#include <string_view>

#include <weir/http/h1/chunked.h>
#include <weir/http/head.h>

namespace weir::proxy {

class BodyReader {
 public:
  struct Piece {
    std::string_view data;      // content, part of the input
    size_t consumed = 0;        // of the input
    bool complete = false;      // the body ended
    uint16_t error_status = 0;  // framing lost: 400 or 431
    const char* reason = "";
  };

  void start(http::BodyFraming framing, uint64_t length) noexcept;

  // Takes a piece of content from the front of `in`.
  Piece take(std::string_view in) noexcept;
  // Content that was moved past take() (direct mode, length or until-close framing only).
  void note_direct(uint64_t bytes) noexcept;
  // The source ended and that completes the body (until-close framing).
  void finish() noexcept { complete_ = true; }
  // The source ended; true if that completes the body.
  [[nodiscard]] bool end_completes() const noexcept {
    return complete_ || framing_ == http::BodyFraming::kUntilClose;
  }

  [[nodiscard]] bool complete() const noexcept { return complete_; }
  [[nodiscard]] http::BodyFraming framing() const noexcept { return framing_; }
  // Content bytes still due; UINT64_MAX when not known.
  [[nodiscard]] uint64_t left() const noexcept {
    return framing_ == http::BodyFraming::kLength ? left_ : UINT64_MAX;
  }
  [[nodiscard]] uint64_t content_bytes() const noexcept { return content_bytes_; }
  [[nodiscard]] const http::FieldTable* trailers() const noexcept {
    return framing_ == http::BodyFraming::kChunked ? chunked_.trailers() : nullptr;
  }

 private:
  http::BodyFraming framing_ = http::BodyFraming::kNone;
  bool complete_ = true;
  uint64_t left_ = 0;
  uint64_t content_bytes_ = 0;
  http::h1::ChunkedDecoder chunked_;
};

}  // namespace weir::proxy
