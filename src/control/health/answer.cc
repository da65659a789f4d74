#include "answer.h"

#include <algorithm>

#include <weir/base/text.h>
#include <weir/http/h1/writer.h>

namespace weir::control {

namespace {

bool is_expected(const HealthTarget& target, uint16_t status) noexcept {
  return std::ranges::any_of(target.status, [status](const StatusRange& range) {
    return range.first <= status && status <= range.last;
  });
}

std::string expected_text(const HealthTarget& target) {
  std::string text;
  for (const StatusRange& range : target.status) {
    if (!text.empty()) text += ", ";
    text += std::to_string(range.first);
    if (range.last != range.first) text += "-" + std::to_string(range.last);
  }
  return text;
}

void add_field(std::string& out, std::string_view name, std::string_view value) {
  out.append(name).append(": ").append(value).append("\r\n");
}

}  // namespace

std::string make_request(const HealthTarget& target) {
  std::string out = target.method + " " + target.path + " HTTP/1.1\r\n";
  std::string host = target.host;
  // A Unix socket has no name that a Host field could hold.
  if (host.empty()) host = target.address.is_unix() ? "localhost" : target.address.to_string();
  add_field(out, "Host", host);
  bool agent = false;
  bool accept = false;
  for (const HealthHeader& header : target.headers) {
    add_field(out, header.name, header.value);
    agent = agent || base::equals_ignore_case(header.name, "user-agent");
    accept = accept || base::equals_ignore_case(header.name, "accept");
  }
  if (!agent) add_field(out, "User-Agent", "weir-health-check");
  if (!accept) add_field(out, "Accept", "*/*");
  // RFC 9110 8.6: for methods that are expected to have content, that there is none.
  if (target.method == "POST" || target.method == "PUT" || target.method == "PATCH") {
    add_field(out, "Content-Length", "0");
  }
  add_field(out, "Connection", "close");
  out += "\r\n";
  return out;
}

AnswerReader::AnswerReader(const HealthTarget& target) noexcept
    : target_(target), method_(http::classify_method(target.method)) {}

CheckResult AnswerReader::body_missing(std::string_view where) const {
  std::string text = "the content does not contain the expected text";
  text += where;
  return {HealthResult::kBody, std::move(text), head_.status};
}

std::optional<CheckResult> AnswerReader::feed(std::string_view bytes) {
  if (in_body_) return take_body(bytes);
  text_.append(bytes);
  while (!in_body_) {
    const auto parsed = http::h1::parse_response_head(
        text_, scanned_, {.head_bytes_max = HealthChecker::kHeadBytesMax}, method_, head_);
    if (parsed.state == http::h1::ParseResult::State::kError) {
      return CheckResult{HealthResult::kMalformed, std::string("bad answer: ") + parsed.reason};
    }
    if (parsed.state == http::h1::ParseResult::State::kNeedMore) {
      scanned_ = text_.size();
      return std::nullopt;
    }
    const bool interim = head_.status < 200 && head_.status != 101;
    if (!interim) {
      if (auto verdict = judge_head()) return verdict;
      const std::string rest = text_.substr(parsed.consumed);
      // The head's views end here; of it only framing and status are needed from now on.
      head_.fields.clear();
      head_.reason = {};
      text_.clear();
      in_body_ = true;
      length_left_ = head_.content_length;
      return take_body(rest);
    }
    if (++interim_ > kInterimMax) {
      return CheckResult{HealthResult::kMalformed, "bad answer: too many interim answers"};
    }
    text_.erase(0, parsed.consumed);
    scanned_ = 0;
  }
  return std::nullopt;
}

std::optional<CheckResult> AnswerReader::judge_head() {
  const uint16_t status = head_.status;
  std::string text = "status " + std::to_string(status);
  if (!is_expected(target_, status)) {
    text += ", expected " + expected_text(target_);
    return CheckResult{HealthResult::kStatus, std::move(text), status};
  }
  if (target_.body.empty()) return CheckResult{HealthResult::kPassed, std::move(text), status};
  if (head_.framing == http::BodyFraming::kNone) return body_missing(": there is none");
  return std::nullopt;
}

std::optional<CheckResult> AnswerReader::take_body(std::string_view bytes) {
  switch (head_.framing) {
    case http::BodyFraming::kNone: return body_missing(": there is none");
    case http::BodyFraming::kUntilClose: return take_content(bytes);
    case http::BodyFraming::kLength: {
      const std::string_view content =
          bytes.substr(0, std::min<uint64_t>(length_left_, bytes.size()));
      length_left_ -= content.size();
      auto verdict = take_content(content);
      if (!verdict && length_left_ == 0) verdict = body_missing("");
      return verdict;
    }
    case http::BodyFraming::kChunked: break;
  }
  using State = http::h1::ChunkedDecoder::State;
  while (true) {
    const auto out = chunks_.feed(bytes);
    bytes.remove_prefix(out.consumed);
    if (out.state == State::kError) {
      return CheckResult{HealthResult::kMalformed, std::string("bad answer: ") + out.reason,
                         head_.status};
    }
    if (out.state == State::kEnd) return body_missing("");
    if (out.state == State::kData) {
      if (auto verdict = take_content(out.data)) return verdict;
      continue;
    }
    return std::nullopt;
  }
}

std::optional<CheckResult> AnswerReader::take_content(std::string_view content) {
  const size_t before = text_.size();
  const size_t room = target_.body_bytes_max - std::min<size_t>(before, target_.body_bytes_max);
  const bool full = content.size() >= room;
  text_.append(content.substr(0, room));
  // The text may have begun in what came earlier.
  const size_t from = before - std::min(before, target_.body.size() - 1);
  if (text_.find(target_.body, from) != std::string::npos) {
    return CheckResult{HealthResult::kPassed,
                       "status " + std::to_string(head_.status) + ", content as expected",
                       head_.status};
  }
  if (!full) return std::nullopt;
  return body_missing(" in its first " + std::to_string(target_.body_bytes_max) + " bytes");
}

CheckResult AnswerReader::end() {
  if (!in_body_) {
    return {HealthResult::kClosed, text_.empty() && interim_ == 0
                                       ? "closed without an answer"
                                       : "closed in the middle of the answer's head"};
  }
  if (head_.framing == http::BodyFraming::kUntilClose) return body_missing("");
  return {HealthResult::kClosed, "closed in the middle of the answer's content", head_.status};
}

}  // namespace weir::control
