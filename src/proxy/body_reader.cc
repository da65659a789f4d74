#include "body_reader.h"

#include <algorithm>

#include <weir/base/check.h>

namespace weir::proxy {

using http::BodyFraming;
using Decoder = http::h1::ChunkedDecoder;

void BodyReader::start(BodyFraming framing, uint64_t length) noexcept {
  framing_ = framing;
  left_ = length;
  content_bytes_ = 0;
  complete_ = framing == BodyFraming::kNone || (framing == BodyFraming::kLength && length == 0);
  if (framing == BodyFraming::kChunked) chunked_.reset();
}

BodyReader::Piece BodyReader::take(std::string_view in) noexcept {
  Piece piece;
  if (complete_) {
    piece.complete = true;
    return piece;
  }
  if (framing_ != BodyFraming::kChunked) {
    const size_t bytes = std::min<uint64_t>(in.size(), left());
    piece.data = in.substr(0, bytes);
    piece.consumed = bytes;
    note_direct(bytes);
    piece.complete = complete_;
    return piece;
  }
  while (true) {
    const Decoder::Output out = chunked_.feed(in.substr(piece.consumed));
    piece.consumed += out.consumed;
    if (out.state == Decoder::State::kData) {
      piece.data = out.data;
      content_bytes_ += out.data.size();
      return piece;
    }
    if (out.state == Decoder::State::kNeedMore) return piece;
    if (out.state == Decoder::State::kEnd) {
      complete_ = piece.complete = true;
      return piece;
    }
    piece.error_status = out.status;
    piece.reason = out.reason;
    return piece;
  }
}

void BodyReader::note_direct(uint64_t bytes) noexcept {
  content_bytes_ += bytes;
  if (framing_ != BodyFraming::kLength) return;
  WEIR_CHECK(bytes <= left_);
  left_ -= bytes;
  complete_ = left_ == 0;
}

}  // namespace weir::proxy
