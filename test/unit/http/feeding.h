// Feeds parsers as a network would: in pieces, from storage that moves and ends exactly where the
// bytes end (so that AddressSanitizer sees a read past them).
#pragma once

#include <weir/http/h1/chunked.h>
#include <weir/http/h1/parser.h>

#include <memory>
#include <string>
#include <string_view>

namespace weir::test {

// A copy on the heap without a byte to spare.
struct Exact {
  explicit Exact(std::string_view text) : bytes(new char[text.size()]), size(text.size()) {
    text.copy(bytes.get(), size);
  }
  std::string_view view() const { return {bytes.get(), size}; }
  std::unique_ptr<char[]> bytes;
  size_t size;
};

// `parse(data, scanned)` on growing prefixes; the first answer that is not kNeedMore, else the
// last. `kept` holds the storage the answer's views point into.
template <class Parse>
http::h1::ParseResult feed(std::string_view all, size_t step, std::unique_ptr<Exact>& kept,
                           Parse&& parse) {
  http::h1::ParseResult result;
  size_t seen = 0;
  while (seen < all.size()) {
    const size_t size = std::min(all.size(), seen + step);
    auto storage = std::make_unique<Exact>(all.substr(0, size));
    result = parse(storage->view(), seen);
    kept = std::move(storage);
    if (result.state != http::h1::ParseResult::State::kNeedMore) break;
    seen = size;
  }
  return result;
}

struct Decoded {
  http::h1::ChunkedDecoder::State state = http::h1::ChunkedDecoder::State::kNeedMore;
  int status = 0;
  std::string reason;
  std::string content;
  size_t consumed = 0;
};

// Feeds a chunked body in pieces of `step` bytes.
inline Decoded decode(http::h1::ChunkedDecoder& decoder, std::string_view all, size_t step) {
  using State = http::h1::ChunkedDecoder::State;
  Decoded decoded;
  for (size_t at = 0; at < all.size(); at += step) {
    const Exact piece(all.substr(at, step));
    std::string_view left = piece.view();
    while (!left.empty()) {
      const auto out = decoder.feed(left);
      decoded.content.append(out.data);
      decoded.consumed += out.consumed;
      left.remove_prefix(out.consumed);
      decoded.state = out.state;
      decoded.status = out.status;
      decoded.reason = out.reason;
      if (out.state == State::kEnd || out.state == State::kError) return decoded;
    }
  }
  return decoded;
}

}  // namespace weir::test
