#include "http_targets.h"

#include <weir/base/byte_writer.h>
#include <weir/base/check.h>
#include <weir/base/text.h>
#include <weir/http/h1/chunked.h>
#include <weir/http/h1/parser.h>
#include <weir/http/h1/writer.h>
#include <weir/http/uri.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

namespace weir::fuzz {

namespace {

using http::BodyFraming;
using http::Field;
using http::FieldTable;
using http::KnownField;
using http::Method;
using http::RequestHead;
using http::ResponseHead;
using http::h1::ChunkedDecoder;
using http::h1::HeadLimits;
using http::h1::ParseResult;
using State = ParseResult::State;

// Small ones, so that short inputs reach them.
constexpr HeadLimits kSmall{.head_bytes_max = 512, .request_line_bytes_max = 64, .fields_max = 8};

// A copy that ends where the allocation ends: a read past it is seen by AddressSanitizer.
struct Exact {
  explicit Exact(std::string_view text) : bytes(new char[text.size()]), size(text.size()) {
    std::copy(text.begin(), text.end(), bytes.get());
  }
  std::string_view view() const { return {bytes.get(), size}; }
  std::unique_ptr<char[]> bytes;
  size_t size;
};

// How an input is cut: piece sizes come from its own bytes.
size_t piece(std::string_view all, size_t at) { return 1 + static_cast<uint8_t>(all[at]) % 23; }

// The answer must be the same however the bytes are cut.
template <class Parse>
void check_dripped(std::string_view all, const ParseResult& whole, Parse&& parse) {
  ParseResult result;
  for (size_t seen = 0; seen < all.size() && result.state == State::kNeedMore;) {
    const size_t size = std::min(all.size(), seen + piece(all, seen));
    const Exact storage(all.substr(0, size));
    result = parse(storage.view(), seen);
    seen = size;
  }
  WEIR_CHECK(result.state == whole.state);
  WEIR_CHECK(result.status == whole.status);
  WEIR_CHECK(result.consumed == whole.consumed);
}

void check_fields(std::string_view all, const FieldTable& fields, size_t fields_max) {
  WEIR_CHECK(fields.size() <= fields_max);
  for (const Field& field : fields) {
    WEIR_CHECK(!field.name.empty());
    WEIR_CHECK(field.name.data() >= all.data());
    WEIR_CHECK(field.value.data() + field.value.size() <= all.data() + all.size());
    WEIR_CHECK(field.name.find_first_of(std::string_view("\0\r\n :\t", 6)) == field.name.npos);
    WEIR_CHECK(field.value.find_first_of(std::string_view("\0\r\n", 3)) == field.value.npos);
    WEIR_CHECK(base::trim(field.value) == field.value);
    WEIR_CHECK(field.known == http::classify_field(field.name));
  }
}

void check_request(std::string_view all, const ParseResult& result, const RequestHead& head,
                   const HeadLimits& limits) {
  WEIR_CHECK(result.consumed <= all.size());
  WEIR_CHECK(result.consumed <= limits.head_bytes_max);
  WEIR_CHECK(all.substr(0, result.consumed).ends_with("\r\n\r\n"));
  WEIR_CHECK(result.status == 0);
  check_fields(all, head.fields, limits.fields_max);
  // Found again without the parser's own bookkeeping.
  const size_t lengths = head.fields.count("content-length");
  const size_t codings = head.fields.count("transfer-encoding");
  WEIR_CHECK(lengths <= 1);
  WEIR_CHECK(lengths == 0 || codings == 0);
  WEIR_CHECK((head.framing == BodyFraming::kLength) == (lengths == 1));
  WEIR_CHECK((head.framing == BodyFraming::kChunked) == (codings != 0));
  WEIR_CHECK(head.fields.count("host") <= 1);
  WEIR_CHECK(head.minor_version == 0 || head.fields.count("host") == 1);
  if (head.method == Method::kConnect) return;
  WEIR_CHECK(head.path == "*" || head.path.starts_with('/'));
  WEIR_CHECK(head.path.find_first_of("? #") == head.path.npos);
}

bool is_request_status(uint16_t status) {
  return status == 400 || status == 414 || status == 417 || status == 431 || status == 501 ||
         status == 505;
}

// Content and end of a chunked body, fed in pieces given by `step`.
struct Decoded {
  ChunkedDecoder::State state = ChunkedDecoder::State::kNeedMore;
  uint16_t status = 0;
  size_t consumed = 0;
  std::string content;
  std::string trailers;
};

constexpr http::h1::ChunkedLimits kSmallChunks{
    .line_bytes_max = 32,
    .extension_bytes_max = 64,
    .trailer_bytes_max = 128,
    .trailer_fields_max = 8,
};

template <class Step>
Decoded decode(std::string_view all, Step&& step,
               const http::h1::ChunkedLimits& limits = kSmallChunks) {
  ChunkedDecoder decoder(limits);
  Decoded decoded;
  for (size_t at = 0; at < all.size();) {
    const Exact input(all.substr(at, step(at)));
    at += input.size;
    for (std::string_view left = input.view(); !left.empty();) {
      const auto out = decoder.feed(left);
      WEIR_CHECK(out.consumed <= left.size());
      WEIR_CHECK(out.state != ChunkedDecoder::State::kData || !out.data.empty());
      decoded.content.append(out.data);
      decoded.consumed += out.consumed;
      left.remove_prefix(out.consumed);
      decoded.state = out.state;
      decoded.status = out.status;
      if (out.state == ChunkedDecoder::State::kError) return decoded;
      if (out.state == ChunkedDecoder::State::kEnd) {
        char space[512];
        base::ByteWriter writer(space, sizeof space);
        http::h1::append_last_chunk(writer, decoder.trailers());
        WEIR_CHECK(!writer.overflowed());
        decoded.trailers = writer.view();
        return decoded;
      }
      WEIR_CHECK(out.state == ChunkedDecoder::State::kData || left.empty());
    }
  }
  // Data is told from waiting only by more input; both mean "go on".
  decoded.state = ChunkedDecoder::State::kNeedMore;
  return decoded;
}

}  // namespace

void h1_request(const uint8_t* bytes, size_t size) {
  const Exact input({reinterpret_cast<const char*>(bytes), size});
  for (const HeadLimits& limits : {HeadLimits{}, kSmall}) {
    RequestHead head;
    const auto result = http::h1::parse_request_head(input.view(), 0, limits, head);
    if (result.state == State::kComplete) check_request(input.view(), result, head, limits);
    if (result.state == State::kError) {
      WEIR_CHECK(is_request_status(result.status));
      WEIR_CHECK(*result.reason != '\0');
    }
    RequestHead dripped;
    check_dripped(input.view(), result, [&](std::string_view data, size_t scanned) {
      return http::h1::parse_request_head(data, scanned, limits, dripped);
    });
  }
}

void h1_response(const uint8_t* bytes, size_t size) {
  if (size == 0) return;
  // The first byte says which method is answered.
  const auto method = static_cast<Method>(bytes[0] % 10);
  const Exact input({reinterpret_cast<const char*>(bytes) + 1, size - 1});
  for (const HeadLimits& limits : {HeadLimits{}, kSmall}) {
    ResponseHead head;
    const auto result = http::h1::parse_response_head(input.view(), 0, limits, method, head);
    if (result.state == State::kComplete) {
      WEIR_CHECK(input.view().substr(0, result.consumed).ends_with("\r\n\r\n"));
      WEIR_CHECK(head.status >= 100 && head.status <= 599);
      check_fields(input.view(), head.fields, limits.fields_max);
      WEIR_CHECK(head.reason.find_first_of(std::string_view("\0\r\n", 3)) == head.reason.npos);
      WEIR_CHECK(head.framing == BodyFraming::kNone || (head.status >= 200 && head.status != 204));
      WEIR_CHECK(head.framing != BodyFraming::kUntilClose || !head.keep_alive);
    }
    WEIR_CHECK(result.state != State::kError || result.status == 502);
    ResponseHead dripped;
    check_dripped(input.view(), result, [&](std::string_view data, size_t scanned) {
      return http::h1::parse_response_head(data, scanned, limits, method, dripped);
    });
  }
}

void h1_chunked(const uint8_t* bytes, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(bytes), size);
  const Decoded whole = decode(all, [&](size_t) { return all.size(); });
  const Decoded cut = decode(all, [&](size_t at) { return piece(all, at); });
  const Decoded dripped = decode(all, [](size_t) { return size_t{1}; });
  for (const Decoded* other : {&cut, &dripped}) {
    WEIR_CHECK(whole.state == other->state);
    WEIR_CHECK(whole.status == other->status);
    WEIR_CHECK(whole.content == other->content);
    WEIR_CHECK(whole.trailers == other->trailers);
    WEIR_CHECK(whole.state == ChunkedDecoder::State::kError || whole.consumed == other->consumed);
  }
  if (whole.state != ChunkedDecoder::State::kEnd) return;
  // Framed anew it means the same.
  std::string again;
  if (!whole.content.empty()) {
    char line[http::h1::kChunkHeadBytesMax];
    again.append(line, http::h1::write_chunk_head(line, whole.content.size()));
    again += whole.content + std::string(http::h1::kChunkEnd);
  }
  again += whole.trailers;
  // Under the default limits: a field line may grow by the space after its colon.
  const Decoded second = decode(again, [&](size_t at) { return piece(again, at); }, {});
  WEIR_CHECK(second.state == ChunkedDecoder::State::kEnd);
  WEIR_CHECK(second.content == whole.content);
  WEIR_CHECK(second.trailers == whole.trailers);
  WEIR_CHECK(second.consumed == again.size());
}

// Parse, write from the model, parse again: the same meaning.
void h1_rewrite(const uint8_t* bytes, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(bytes), size);
  RequestHead first;
  if (http::h1::parse_request_head(all, 0, {}, first).state != State::kComplete) return;
  if (first.method == Method::kConnect || first.minor_version == 0) return;
  std::vector<char> space(2 * size + 1024);
  base::ByteWriter out(space.data(), space.size());
  http::h1::append_request_line(out, first.method_text, first.path, first.has_query, first.query);
  http::h1::append_field(out, "host", first.authority);
  for (const Field& field : first.fields) {
    if (!field.hop_by_hop && field.known != KnownField::kHost) {
      http::h1::append_field(out, field.name, field.value);
    }
  }
  if (first.framing == BodyFraming::kChunked) {
    http::h1::append_field(out, "transfer-encoding", "chunked");
  }
  http::h1::append_end(out);
  WEIR_CHECK(!out.overflowed());

  RequestHead second;
  const auto result = http::h1::parse_request_head(
      out.view(), 0,
      {.head_bytes_max = 1 << 20, .request_line_bytes_max = 1 << 20, .fields_max = 128}, second);
  WEIR_CHECK(result.state == State::kComplete);
  WEIR_CHECK(result.consumed == out.size());
  WEIR_CHECK(second.method_text == first.method_text);
  WEIR_CHECK(second.path == first.path);
  WEIR_CHECK(second.has_query == first.has_query);
  WEIR_CHECK(second.query == first.query);
  WEIR_CHECK(second.host == first.host);
  WEIR_CHECK(second.port == first.port);
  WEIR_CHECK(second.framing == first.framing);
  WEIR_CHECK(second.content_length == first.content_length);
  WEIR_CHECK(second.expect_continue == first.expect_continue);
  for (const Field& field : first.fields) {
    if (field.hop_by_hop || field.known == KnownField::kHost) continue;
    WEIR_CHECK(second.fields.count(field.name) == first.fields.count(field.name));
  }
}

void uri(const uint8_t* bytes, size_t size) {
  const Exact input({reinterpret_cast<const char*>(bytes), size});
  std::vector<char> scratch(size);
  if (const auto once = http::normalise_path(input.view(), scratch)) {
    WEIR_CHECK(once->changed == (once->path != input.view()));
    WEIR_CHECK(once->path.size() <= size);
    std::vector<char> again(once->path.size());
    const auto twice = http::normalise_path(once->path, again);
    WEIR_CHECK(twice.has_value());
    WEIR_CHECK(!twice->changed);
    const std::string framed = std::string(once->path) + "/";
    WEIR_CHECK(framed.find("/../") == framed.npos);
    WEIR_CHECK(framed.find("/./") == framed.npos);
    WEIR_CHECK(framed.find("%00") == framed.npos);
    WEIR_CHECK(framed.find('\\') == framed.npos);
  }
  std::string_view host;
  std::string_view port;
  if (http::split_host_port(input.view(), host, port)) {
    WEIR_CHECK(http::valid_host(host));
    WEIR_CHECK(host.size() + port.size() + 1 >= size);
    std::vector<char> lower(host.size());
    const std::string once(http::lowercase_host(host, lower));
    std::vector<char> again(once.size());
    WEIR_CHECK(http::valid_host(once));
    WEIR_CHECK(http::lowercase_host(once, again) == once);
  }
  if (const auto url = http::parse_url(input.view())) {
    WEIR_CHECK(http::valid_host(url->host));
    WEIR_CHECK(url->port != 0);
    WEIR_CHECK(url->path.starts_with('/'));
  }
}

}  // namespace weir::fuzz
