#include <sim/proxy_wire.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include <weir/base/hash.h>

namespace weir::sim {

std::string make_body(uint64_t id, char side, size_t bytes) {
  std::string body(bytes, '\0');
  const uint64_t key = base::mix(id + 1, static_cast<uint64_t>(side) + 0x9e3779b97f4a7c15ULL);
  for (size_t at = 0; at < bytes; at += 8) {
    const uint64_t word = base::mix(key ^ at, 0xe7037ed1a0b428dbULL);
    std::memcpy(body.data() + at, &word, std::min<size_t>(8, bytes - at));
  }
  return body;
}

void WireReader::next(bool answers_head) {
  const Side side = side_;
  *this = WireReader(side);
  answers_head_ = answers_head;
}

void WireReader::complain(const std::string& what) {
  if (complaint_.empty()) complaint_ = what;
}

size_t WireReader::feed(std::string_view in) {
  const size_t all = in.size();
  while (!in.empty() && step_ != Step::kComplete && complaint_.empty()) {
    if (step_ == Step::kBody) {
      const size_t bytes = framing_ == Framing::kUntilClose
                               ? in.size()
                               : static_cast<size_t>(std::min<uint64_t>(in.size(), left_));
      body_.append(in.substr(0, bytes));
      in.remove_prefix(bytes);
      if (framing_ == Framing::kUntilClose) continue;
      left_ -= bytes;
      if (left_ == 0) step_ = framing_ == Framing::kChunked ? Step::kChunkEnd : Step::kComplete;
      continue;
    }
    const size_t end = in.find('\n');
    line_.append(in.substr(0, end == std::string_view::npos ? end : end + 1));
    in.remove_prefix(end == std::string_view::npos ? in.size() : end + 1);
    if (line_.size() > 65536) complain("a line without end");
    if (end != std::string_view::npos) take_line();
  }
  wire_bytes_ += all - in.size();
  return all - in.size();
}

void WireReader::take_line() {
  if (!line_.ends_with("\r\n")) return complain("a line that ends with a bare LF");
  line_.resize(line_.size() - 2);
  switch (step_) {
    case Step::kHead:
      if (!start_line_seen_) {
        take_start_line();
      } else if (line_.empty()) {
        head_ends();
      } else {
        take_field(fields_);
      }
      break;
    case Step::kChunkSize: {
      const char* end = line_.data() + line_.size();
      const auto [stop, error] = std::from_chars(line_.data(), end, left_, 16);
      if (error != std::errc() || stop != end || line_.empty()) complain("bad chunk size " + line_);
      step_ = left_ == 0 ? Step::kTrailers : Step::kBody;
      break;
    }
    case Step::kChunkEnd:
      if (!line_.empty()) complain("no CRLF behind a chunk");
      step_ = Step::kChunkSize;
      break;
    case Step::kTrailers:
      if (line_.empty()) {
        step_ = Step::kComplete;
      } else {
        take_field(trailers_);
      }
      break;
    default: break;
  }
  line_.clear();
}

void WireReader::take_start_line() {
  start_line_seen_ = true;
  const size_t first = line_.find(' ');
  const size_t second = first == std::string::npos ? first : line_.find(' ', first + 1);
  if (second == std::string::npos) return complain("bad start line: " + line_);
  first_ = line_.substr(0, first);
  second_ = line_.substr(first + 1, second - first - 1);
  const std::string third = line_.substr(second + 1);
  if (side_ == Side::kRequests) {
    if (third != "HTTP/1.1") complain("a request of another version: " + line_);
    return;
  }
  const bool digits = second_.size() == 3 && second_.find_first_not_of("0123456789") > 3;
  if (first_ != "HTTP/1.1" || !digits) return complain("bad status line: " + line_);
  status_ = static_cast<unsigned>(std::stoul(second_));
}

void WireReader::take_field(std::vector<WireField>& into) {
  const size_t colon = line_.find(':');
  if (colon == std::string::npos || colon == 0) return complain("bad field line: " + line_);
  WireField field{line_.substr(0, colon), line_.substr(colon + 1)};
  for (char& c : field.name) {
    if (c <= ' ' || c == 127) return complain("bad field name: " + line_);
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  const size_t from = field.value.find_first_not_of(" \t");
  field.value = from == std::string::npos ? std::string() : field.value.substr(from);
  into.push_back(std::move(field));
}

void WireReader::head_ends() {
  const auto count = [this](std::string_view name) {
    return std::ranges::count_if(fields_, [&](const WireField& f) { return f.name == name; });
  };
  const auto lengths = count("content-length");
  const auto codings = count("transfer-encoding");
  if (lengths + codings > 1) return complain("more than one framing");
  if (codings == 1 && field("transfer-encoding") != "chunked") return complain("a foreign coding");
  const bool request = side_ == Side::kRequests;
  if (request && count("host") != 1) return complain("not one Host");
  if (lengths == 1) {
    const std::string text = field("content-length");
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), length_);
    if (error != std::errc() || stop != text.data() + text.size()) return complain("bad length");
  }
  const bool never =
      !request && (answers_head_ || status_ < 200 || status_ == 204 || status_ == 304);
  if (codings == 1) {
    framing_ = Framing::kChunked;
    step_ = Step::kChunkSize;
  } else if (lengths == 1) {
    framing_ = Framing::kLength;
    left_ = length_;
    step_ = left_ == 0 ? Step::kComplete : Step::kBody;
  } else if (request) {
    step_ = Step::kComplete;
  } else {
    framing_ = Framing::kUntilClose;
    step_ = Step::kBody;
  }
  if (never) {
    framing_ = Framing::kNone;
    step_ = Step::kComplete;
  }
}

void WireReader::end_of_stream() {
  if (step_ == Step::kBody && framing_ == Framing::kUntilClose && complaint_.empty()) {
    step_ = Step::kComplete;
  }
}

namespace {

std::string joined(const std::vector<WireField>& fields, std::string_view name) {
  std::string all;
  for (const WireField& field : fields) {
    if (field.name != name) continue;
    if (!all.empty()) all += ", ";
    all += field.value;
  }
  return all;
}

}  // namespace

std::string WireReader::field(std::string_view name) const { return joined(fields_, name); }

std::string WireReader::trailer(std::string_view name) const { return joined(trailers_, name); }

bool WireReader::has(std::string_view name) const {
  return std::ranges::any_of(fields_, [&](const WireField& f) { return f.name == name; });
}

bool WireReader::connection_says(std::string_view option) const {
  const std::string all = ", " + field("connection") + ",";
  return all.find(", " + std::string(option) + ",") != std::string::npos;
}

}  // namespace weir::sim
