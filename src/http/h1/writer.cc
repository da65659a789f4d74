#include <weir/http/h1/writer.h>

#include <array>

namespace weir::http::h1 {

namespace {

struct Reason {
  uint16_t status;
  std::string_view phrase;
};

// The IANA registry of status codes.
constexpr Reason kReasons[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {102, "Processing"},
    {103, "Early Hints"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {203, "Non-Authoritative Information"},
    {204, "No Content"},
    {205, "Reset Content"},
    {206, "Partial Content"},
    {207, "Multi-Status"},
    {208, "Already Reported"},
    {226, "IM Used"},
    {300, "Multiple Choices"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {305, "Use Proxy"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {407, "Proxy Authentication Required"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {423, "Locked"},
    {424, "Failed Dependency"},
    {425, "Too Early"},
    {426, "Upgrade Required"},
    {428, "Precondition Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {451, "Unavailable For Legal Reasons"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {506, "Variant Also Negotiates"},
    {507, "Insufficient Storage"},
    {508, "Loop Detected"},
    {511, "Network Authentication Required"},
};

constexpr uint16_t kStatusMin = 100;
constexpr uint16_t kStatusMax = 599;

constexpr auto make_index() {
  std::array<std::string_view, kStatusMax - kStatusMin + 1> index{};
  for (const Reason& reason : kReasons) index[reason.status - kStatusMin] = reason.phrase;
  return index;
}
constexpr auto kPhrases = make_index();

}  // namespace

std::string_view reason_phrase(uint16_t status) noexcept {
  if (status < kStatusMin || status > kStatusMax) return {};
  return kPhrases[status - kStatusMin];
}

void append_status_line(base::ByteWriter& out, uint16_t status, std::string_view reason) noexcept {
  out.append("HTTP/1.1 ");
  out.append_decimal(status);
  out.append(' ');  // due even before an empty reason phrase (RFC 9112 4)
  out.append(reason.empty() ? reason_phrase(status) : reason);
  out.append("\r\n");
}

void append_request_line(base::ByteWriter& out, std::string_view method, std::string_view path,
                         bool has_query, std::string_view query) noexcept {
  out.append(method);
  out.append(' ');
  out.append(path);
  if (has_query) {
    out.append('?');
    out.append(query);
  }
  out.append(" HTTP/1.1\r\n");
}

void append_field(base::ByteWriter& out, std::string_view name, std::string_view value) noexcept {
  out.append(name);
  out.append(": ");
  out.append(value);
  out.append("\r\n");
}

void append_field(base::ByteWriter& out, std::string_view name, uint64_t value) noexcept {
  out.append(name);
  out.append(": ");
  out.append_decimal(value);
  out.append("\r\n");
}

}  // namespace weir::http::h1
