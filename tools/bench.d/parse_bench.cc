// What a head costs: nanoseconds per parse_request_head(), parse_response_head(), normalise_path()
// and chunk line, on one core, best of several rounds (the others are noise of the machine).
// Usage: parse_bench [iterations]
#include <weir/http/h1/chunked.h>
#include <weir/http/h1/parser.h>
#include <weir/http/h1/writer.h>
#include <weir/http/uri.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace {

namespace http = weir::http;
namespace h1 = weir::http::h1;

constexpr std::string_view kMinimal = "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n";
constexpr std::string_view kCurl =
    "GET /api/v1/items HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/8.5.0\r\n"
    "Accept: */*\r\n\r\n";
constexpr std::string_view kApi =
    "POST /api/v1/orders/183764/lines?expand=items&limit=20 HTTP/1.1\r\n"
    "Host: shop.example.com\r\nUser-Agent: okhttp/4.12.0\r\n"
    "Accept: application/json\r\nAccept-Encoding: gzip, deflate\r\n"
    "Content-Type: application/json; charset=utf-8\r\nContent-Length: 312\r\n"
    "X-Request-Id: 5f2b7a0e-9d1c-4a53-8c2c-6c1f0e7d9a11\r\nConnection: keep-alive\r\n\r\n";
constexpr std::string_view kBrowser =
    "GET /assets/app-4f9c2d.js HTTP/1.1\r\nHost: www.example.com\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    "Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://www.example.com/\r\n"
    "Cookie: session=8c2c6c1f0e7d9a115f2b7a0e9d1c4a53; theme=dark; consent=1\r\n"
    "Sec-Fetch-Dest: script\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Site: same-origin\r\n"
    "Connection: keep-alive\r\nCache-Control: no-cache\r\n\r\n";
constexpr std::string_view kResponse =
    "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    "Content-Type: text/html\r\nContent-Length: 128\r\nConnection: keep-alive\r\n"
    "ETag: \"5f2b7a0e-80\"\r\nAccept-Ranges: bytes\r\n\r\n";

template <class Work>
void measure(const char* name, size_t bytes, long iterations, Work&& work) {
  constexpr int kRounds = 7;
  double best = 1e18;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (long i = 0; i < iterations; ++i) {
      if (!work()) {
        std::fprintf(stderr, "%s: the sample was refused\n", name);
        std::exit(1);
      }
      asm volatile("" ::: "memory");
    }
    const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - start;
    const double each = taken.count() / static_cast<double>(iterations);
    best = each < best ? each : best;
  }
  std::printf("%-34s %5zu bytes %8.1f ns\n", name, bytes, best);
}

void measure_request(const char* name, std::string_view sample, long iterations) {
  const std::string bytes(sample);  // as in a buffer: not a constant the compiler can see through
  http::RequestHead head;
  measure(name, bytes.size(), iterations, [&] {
    return h1::parse_request_head(bytes, 0, {}, head).state == h1::ParseResult::State::kComplete;
  });
}

}  // namespace

int main(int argc, char** argv) {
  const long iterations = argc > 1 ? std::atol(argv[1]) : 300000;
  measure_request("request, minimal", kMinimal, iterations);
  measure_request("request, curl", kCurl, iterations);
  measure_request("request, api client", kApi, iterations);
  measure_request("request, browser", kBrowser, iterations);

  const std::string response(kResponse);
  http::ResponseHead response_head;
  measure("response", response.size(), iterations, [&] {
    return h1::parse_response_head(response, 0, {}, http::Method::kGet, response_head).state ==
           h1::ParseResult::State::kComplete;
  });

  char scratch[256];
  const std::string plain = "/api/v1/orders/183764/lines/index.html";
  const std::string dotted = "/api/./v1/orders/%7e183764/../lines/%e2%82%ac";
  measure("path, nothing to do", plain.size(), iterations,
          [&] { return http::normalise_path(plain, scratch).has_value(); });
  measure("path, normalised", dotted.size(), iterations,
          [&] { return http::normalise_path(dotted, scratch).has_value(); });

  const std::string chunks = "400\r\n" + std::string(1024, 'x') + "\r\n";
  h1::ChunkedDecoder decoder;
  measure("chunk of 1 KiB, framing", 7, iterations, [&] {
    std::string_view in = chunks;
    while (!in.empty()) {
      const auto out = decoder.feed(in);
      if (out.state == h1::ChunkedDecoder::State::kError) return false;
      in.remove_prefix(out.consumed);
    }
    return true;
  });
  char date[h1::kHttpDateBytes];
  int64_t now = 784111777;
  measure("date", sizeof date, iterations, [&] {
    h1::format_http_date(date, ++now);
    return true;
  });
  return 0;
}
