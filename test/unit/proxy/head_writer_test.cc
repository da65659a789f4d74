// The heads that weir sends, byte for byte.
#include <cstdio>
#include <string>

#include <catch2/catch_test_macros.hpp>

#include <client_connection.h>
#include <head_writer.h>

#include <weir/http/h1/parser.h>

using namespace weir;
using namespace weir::proxy;
using http::h1::ParseResult;

namespace {

struct Facts : ForwardedFacts {
  Facts() {
    settings = &values;
    client = "192.0.2.7";
    scheme = "http";
  }
  Settings values;
};

// A request's head through the parser and out again.
std::string rewritten(const std::string& text, const Facts& facts, std::string_view host = "o:80") {
  http::RequestHead head;
  const ParseResult parsed = http::h1::parse_request_head(text, 0, {}, head);
  REQUIRE(parsed.state == ParseResult::State::kComplete);
  char buffer[32768];
  base::ByteWriter out(buffer, sizeof buffer);
  write_request_head(out, head, {.prefix = "", .rest = head.path}, host,
                     head.framing == http::BodyFraming::kChunked, facts);
  REQUIRE_FALSE(out.overflowed());
  return std::string(out.view());
}

struct Response {
  bool chunked = false;
  bool with_length = false;
  Persistence persistence = Persistence::kDefault;
  http::Method method = http::Method::kGet;
};

std::string answered(const std::string& text, const Settings& settings, const Response& how = {}) {
  http::ResponseHead head;
  const ParseResult parsed = http::h1::parse_response_head(text, 0, {}, how.method, head);
  REQUIRE(parsed.state == ParseResult::State::kComplete);
  char buffer[4096];
  base::ByteWriter out(buffer, sizeof buffer);
  write_response_head(out, head, how.chunked, how.with_length, how.persistence, settings,
                      "Sun, 06 Nov 1994 08:49:37 GMT");
  REQUIRE_FALSE(out.overflowed());
  return std::string(out.view());
}

// Facts of a request whose certificate fields are all that weir adds.
struct CertificateFacts : Facts {
  CertificateFacts() {
    values.x_forwarded = false;
    values.client_cert_headers = true;
  }
  ClientCertificate of_client{.subject = "CN=jo,O=Example",
                              .issuer = "CN=ca",
                              .san = "DNS:a.test, email:jo@a.test",
                              .fingerprint = "00ff"};
};

// The value of X-Client-Cert-`name` in the head that is sent.
std::string certificate_value(const Facts& facts, const std::string& name) {
  const std::string head = rewritten("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", facts);
  const std::string mark = "\r\nX-Client-Cert-" + name + ": ";
  const size_t begin = head.find(mark);
  REQUIRE(begin != std::string::npos);
  return head.substr(begin + mark.size(), head.find("\r\n", begin + 2) - begin - mark.size());
}

std::string escape_of(unsigned byte) {
  char text[4];
  std::snprintf(text, sizeof text, "%%%02X", byte);
  return text;
}

const std::string kOwnFields =
    "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test\r\n"
    "X-Real-IP: 192.0.2.7\r\n";

}  // namespace

TEST_CASE("a plain request: Host first, fields in order, weir's own last") {
  Facts facts;
  CHECK(rewritten("GET /x?y=1 HTTP/1.1\r\nAccept: */*\r\nHost: a.test\r\nB: 2\r\n\r\n", facts) ==
        "GET /x?y=1 HTTP/1.1\r\nHost: o:80\r\nAccept: */*\r\nB: 2\r\n" + kOwnFields + "\r\n");
}

TEST_CASE("an empty query keeps its question mark, a prefix is put in front") {
  Facts facts;
  facts.values.x_forwarded = false;
  CHECK(rewritten("GET /x? HTTP/1.1\r\nHost: a.test\r\n\r\n", facts) ==
        "GET /x? HTTP/1.1\r\nHost: o:80\r\n\r\n");
  http::RequestHead head;
  const std::string text = "GET /api/v1?q HTTP/1.1\r\nHost: a.test\r\n\r\n";
  REQUIRE(http::h1::parse_request_head(text, 0, {}, head).state == ParseResult::State::kComplete);
  char buffer[256];
  base::ByteWriter out(buffer, sizeof buffer);
  write_request_head(out, head, {.prefix = "/app", .rest = "/v1"}, "o", false, facts);
  CHECK(out.view() == "GET /app/v1?q HTTP/1.1\r\nHost: o\r\n\r\n");
}

TEST_CASE("hop-by-hop fields end here, and what Connection names") {
  Facts facts;
  facts.values.x_forwarded = false;
  CHECK(rewritten("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, X-Private\r\n"
                  "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n"
                  "Trailer: X\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\nX-Private: 1\r\n"
                  "X-Public: 2\r\n\r\n",
                  facts) == "GET / HTTP/1.1\r\nHost: o:80\r\nX-Public: 2\r\n\r\n");
}

TEST_CASE("a client cannot strip weir's fields, nor Host or the length, by naming them") {
  Facts facts;
  CHECK(rewritten("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n"
                  "Connection: X-Forwarded-For, X-Real-IP, Host, Content-Length, Authorization\r\n"
                  "Authorization: k\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n",
                  facts) ==
        "POST / HTTP/1.1\r\nHost: o:80\r\nAuthorization: k\r\n"
        "Content-Length: 3\r\n" +
            kOwnFields + "\r\n");
}

TEST_CASE("what an untrusted client says of itself is dropped, in every spelling") {
  Facts facts;
  const std::string lies =
      "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 1.1.1.1\r\nx-forwarded-proto: https\r\n"
      "X-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Server: s\r\n"
      "X-Real-IP: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\nX_Forwarded_For: 1.1.1.1\r\nA: 1\r\n\r\n";
  CHECK(rewritten(lies, facts) == "GET / HTTP/1.1\r\nHost: o:80\r\nA: 1\r\n" + kOwnFields + "\r\n");
  facts.values.x_forwarded = false;
  CHECK(rewritten(lies, facts) == "GET / HTTP/1.1\r\nHost: o:80\r\nA: 1\r\n\r\n");
}

TEST_CASE("what a trusted proxy says is kept and added to") {
  Facts facts;
  facts.client_trusted = true;
  CHECK(rewritten("GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 1.1.1.1\r\n"
                  "X-Forwarded-Proto: https\r\nX-Forwarded-For: 2.2.2.2, 3.3.3.3\r\n"
                  "X-Real-IP: 1.1.1.1\r\nX-Forwarded-Port: 443\r\n\r\n",
                  facts) ==
        "GET / HTTP/1.1\r\nHost: o:80\r\nX-Forwarded-Proto: https\r\nX-Real-IP: 1.1.1.1\r\n"
        "X-Forwarded-Port: 443\r\n"
        "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.7\r\nX-Forwarded-Host: a.test\r\n"
        "\r\n");
  // Without fields of its own it is like any client.
  CHECK(rewritten("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", facts) ==
        "GET / HTTP/1.1\r\nHost: o:80\r\n" + kOwnFields + "\r\n");
  // With X-Forwarded-* turned off, a trusted proxy's pass as they are.
  facts.values.x_forwarded = false;
  CHECK(rewritten("GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n", facts) ==
        "GET / HTTP/1.1\r\nHost: o:80\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n");
}

TEST_CASE("Forwarded by option, IPv6 in brackets and quotes") {
  Facts facts;
  facts.values.x_forwarded = false;
  facts.values.forwarded = true;
  CHECK(rewritten("GET / HTTP/1.1\r\nHost: a.test:8080\r\n\r\n", facts) ==
        "GET / HTTP/1.1\r\nHost: o:80\r\n"
        "Forwarded: for=192.0.2.7;proto=http;host=\"a.test:8080\"\r\n\r\n");
  facts.client = "2001:db8::1";
  facts.client_is_v6 = true;
  facts.client_trusted = true;
  facts.scheme = "https";
  CHECK(rewritten("GET / HTTP/1.1\r\nHost: [::1]:80\r\nForwarded: for=x\r\n\r\n", facts) ==
        "GET / HTTP/1.1\r\nHost: o:80\r\nForwarded: for=x\r\n"
        "Forwarded: for=\"[2001:db8::1]\";proto=https;host=\"[::1]:80\"\r\n\r\n");
  facts.client = "unknown";
  facts.client_is_v6 = false;
  CHECK(rewritten("GET / HTTP/1.0\r\n\r\n", facts) ==
        "GET / HTTP/1.1\r\nHost: o:80\r\nForwarded: for=unknown;proto=https\r\n\r\n");
}

TEST_CASE("the scheme is the connection's") {
  Facts facts;
  facts.scheme = "https";
  const std::string sent = rewritten("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", facts);
  CHECK(sent.find("\r\nX-Forwarded-Proto: https\r\n") != std::string::npos);
}

TEST_CASE("the client's certificate is told when that is wanted") {
  CertificateFacts facts;
  CHECK(rewritten("GET / HTTP/1.1\r\nHost: a.test\r\nA: 1\r\n\r\n", facts) ==
        "GET / HTTP/1.1\r\nHost: o:80\r\nA: 1\r\nX-Client-Cert-Verify: NONE\r\n\r\n");
  facts.certificate = &facts.of_client;
  facts.values.via = "weir";
  CHECK(rewritten("GET / HTTP/1.1\r\nHost: a.test\r\nA: 1\r\n\r\n", facts) ==
        "GET / HTTP/1.1\r\nHost: o:80\r\nA: 1\r\nX-Client-Cert-Verify: SUCCESS\r\n"
        "X-Client-Cert-Subject: CN=jo,O=Example\r\nX-Client-Cert-Issuer: CN=ca\r\n"
        "X-Client-Cert-SAN: DNS:a.test, email:jo@a.test\r\nX-Client-Cert-Fingerprint: 00ff\r\n"
        "Via: 1.1 weir\r\n\r\n");
  facts.values.via = {};
  facts.values.client_cert_headers = false;
  CHECK(rewritten("GET / HTTP/1.1\r\nHost: a.test\r\nA: 1\r\n\r\n", facts) ==
        "GET / HTTP/1.1\r\nHost: o:80\r\nA: 1\r\n\r\n");
}

TEST_CASE("what anybody says of a client's certificate is dropped, in every spelling") {
  CertificateFacts facts;
  const std::string lies =
      "GET / HTTP/1.1\r\nHost: a.test\r\nX-Client-Cert-Verify: SUCCESS\r\n"
      "x-client-cert-subject: CN=admin\r\nX-CLIENT-CERT-ISSUER: CN=ca\r\n"
      "X-Client-Cert-San: DNS:admin\r\nX-Client-Cert-Fingerprint: 00\r\n"
      "X_Client_Cert_Verify: SUCCESS\r\nX-Client_Cert-Subject: CN=admin\r\n"
      "X-Client-Cert-Verify: SUCCESS\r\n";
  const std::string others =
      "X-Client-Cert: pem\r\nX-Client-Cert-: 1\r\nX-Client-Cert-Verified: 1\r\n"
      "X-Client-Certainty: 1\r\nX-Client-Cert-Verif: 1\r\n";
  const std::string start = "GET / HTTP/1.1\r\nHost: o:80\r\n";
  const std::string told = "X-Client-Cert-Verify: NONE\r\n\r\n";
  CHECK(rewritten(lies + others + "\r\n", facts) == start + others + told);
  facts.client_trusted = true;  // a proxy's word on who came to it is another matter
  CHECK(rewritten(lies + others + "\r\n", facts) == start + others + told);
  // A client cannot strip what weir says by naming it.
  facts.certificate = &facts.of_client;
  const std::string sent = rewritten(
      "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: X-Client-Cert-Verify, "
      "X-Client-Cert-Subject\r\n"
      "X-Client-Cert-Verify: NONE\r\n\r\n",
      facts);
  CHECK(sent.starts_with(
      start + "X-Client-Cert-Verify: SUCCESS\r\nX-Client-Cert-Subject: CN=jo,O=Example\r\n"));
  // Where the option is off, such fields are like any others.
  facts.values.client_cert_headers = false;
  CHECK(rewritten("GET / HTTP/1.1\r\nHost: a.test\r\nX-Client-Cert-Verify: 1\r\n\r\n", facts) ==
        start + "X-Client-Cert-Verify: 1\r\n\r\n");
}

TEST_CASE("no certificate can split a head or pass for another") {
  using namespace std::string_view_literals;
  CertificateFacts facts;
  facts.certificate = &facts.of_client;
  facts.of_client.subject = "CN=a\r\nX-Evil: 1\0\x7f\xc3\xbc\t 100%,O=\"q\""sv;
  facts.of_client.issuer = {};
  facts.of_client.san = "DNS:a%2Cb, URI:\n";  // the names have been encoded, one by one
  CHECK(rewritten("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", facts) ==
        "GET / HTTP/1.1\r\nHost: o:80\r\nX-Client-Cert-Verify: SUCCESS\r\n"
        "X-Client-Cert-Subject: CN=a%0D%0AX-Evil: 1%00%7F%C3%BC%09 100%25,O=\"q\"\r\n"
        "X-Client-Cert-Issuer: \r\nX-Client-Cert-SAN: DNS:a%2Cb, URI:%0A\r\n"
        "X-Client-Cert-Fingerprint: 00ff\r\n\r\n");
  // Every byte there is, at both ends and in between.
  const auto in_places = [](const std::string& what) {
    std::string text;
    for (const std::string& part : {what, std::string("x"), what, what, std::string("y"), what}) {
      text += part;
    }
    return text;
  };
  for (unsigned byte = 0; byte < 256; ++byte) {
    const std::string c(1, static_cast<char>(byte));
    facts.of_client.subject = in_places(c);
    const std::string value = certificate_value(facts, "Subject");
    const std::string one = byte >= 0x20 && byte <= 0x7e && byte != '%' ? c : escape_of(byte);
    REQUIRE(value == in_places(one));
  }
}

TEST_CASE("a long certificate value is cut behind a whole element") {
  CertificateFacts facts;
  facts.certificate = &facts.of_client;
  const auto value_of = [&](std::string subject) {
    facts.of_client.subject = std::move(subject);
    return certificate_value(facts, "Subject");
  };
  const std::string full = "CN=" + std::string(kCertificateValueBytesMax - 3, 'a');
  CHECK(value_of(full) == full);
  CHECK(value_of(full + "a").empty());  // one element, and part of it could be another's name
  const std::string head = "CN=jo,OU=" + std::string(4000, 'b');
  CHECK(value_of(head + ",O=" + std::string(84, 'c')) == head + ",O=" + std::string(84, 'c'));
  CHECK(value_of(head + ",O=" + std::string(85, 'c')) == head);
  // It counts what is written, and a comma that belongs to a value is no end of one.
  CHECK(value_of("CN=jo,O=" + std::string(1363, '\n')) == "CN=jo");
  CHECK(value_of("CN=jo,O=b\\," + std::string(4096, 'b')) == "CN=jo");
  CHECK(value_of("CN=jo,O=b\\\\," + std::string(4096, 'b')) == "CN=jo,O=b\\\\");
  const std::string encoded = value_of(std::string(1365, '\xff'));
  CHECK(encoded.size() == 4095);
  CHECK(value_of(std::string(1366, '\xff')).empty());
  // All four at their longest.
  facts.of_client = {.subject = full, .issuer = full, .san = full, .fingerprint = full};
  for (const char* name : {"Subject", "Issuer", "SAN", "Fingerprint"}) {
    CHECK(certificate_value(facts, name) == full);
  }
}

TEST_CASE("Via names the version that was received") {
  Facts facts;
  facts.values.x_forwarded = false;
  facts.values.via = "weir";
  CHECK(rewritten("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 other\r\n\r\n", facts) ==
        "GET / HTTP/1.1\r\nHost: o:80\r\nVia: 1.1 other\r\nVia: 1.1 weir\r\n\r\n");
  CHECK(rewritten("GET / HTTP/1.0\r\n\r\n", facts) ==
        "GET / HTTP/1.1\r\nHost: o:80\r\nVia: 1.0 weir\r\n\r\n");
}

TEST_CASE("framing is written anew") {
  Facts facts;
  facts.values.x_forwarded = false;
  CHECK(rewritten("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", facts) ==
        "POST / HTTP/1.1\r\nHost: o:80\r\nTransfer-Encoding: chunked\r\n\r\n");
  CHECK(rewritten("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\n\r\n", facts) ==
        "POST / HTTP/1.1\r\nHost: o:80\r\nContent-Length: 7\r\n\r\n");
  CHECK(rewritten("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", facts) ==
        "POST / HTTP/1.1\r\nHost: o:80\r\nContent-Length: 0\r\n\r\n");
  CHECK(rewritten("POST / HTTP/1.1\r\nHost: a\r\n\r\n", facts) ==
        "POST / HTTP/1.1\r\nHost: o:80\r\n\r\n");
  CHECK(rewritten("GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 7\r\n\r\n", facts) ==
        "GET / HTTP/1.1\r\nHost: o:80\r\n\r\n");
}

TEST_CASE("no X-Forwarded-Host where the client named no host") {
  Facts facts;
  CHECK(rewritten("GET / HTTP/1.0\r\n\r\n", facts) ==
        "GET / HTTP/1.1\r\nHost: o:80\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n"
        "X-Real-IP: 192.0.2.7\r\n\r\n");
}

TEST_CASE("a response: hop-by-hop removed, framing and persistence are ours") {
  const Settings settings;
  const std::string text =
      "HTTP/1.1 200 Fine\r\nServer: o\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"
      "Keep-Alive: timeout=1\r\nDate: Mon, 07 Nov 1994 08:49:37 GMT\r\nContent-Length: 5\r\n"
      "Set-Cookie: a\r\nSet-Cookie: b\r\n\r\n";
  CHECK(answered(text, settings, {.with_length = true}) ==
        "HTTP/1.1 200 Fine\r\nServer: o\r\nDate: Mon, 07 Nov 1994 08:49:37 GMT\r\n"
        "Set-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 5\r\n\r\n");
  CHECK(answered("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n", settings,
                 {.chunked = true, .persistence = Persistence::kSayClose}) ==
        "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
  CHECK(answered("HTTP/1.0 404 Not Found\r\nDate: x\r\n\r\n", settings,
                 {.persistence = Persistence::kSayKeepAlive}) ==
        "HTTP/1.1 404 Not Found\r\nDate: x\r\nConnection: keep-alive\r\n\r\n");
}

TEST_CASE("a response to HEAD keeps its length, one without content names none") {
  Settings settings;
  settings.via = "w";
  CHECK(answered("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 99\r\n\r\n", settings,
                 {.with_length = true, .method = http::Method::kHead}) ==
        "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 99\r\nVia: 1.1 w\r\n\r\n");
  CHECK(answered("HTTP/1.0 204 No Content\r\nDate: x\r\n\r\n", settings) ==
        "HTTP/1.1 204 No Content\r\nDate: x\r\nVia: 1.0 w\r\n\r\n");
}

TEST_CASE("an interim response passes its fields, and nothing of ours but Via") {
  Settings settings;
  settings.via = "w";
  http::ResponseHead head;
  const std::string text =
      "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X\r\nX: 1\r\n\r\n";
  REQUIRE(http::h1::parse_response_head(text, 0, {}, http::Method::kGet, head).state ==
          ParseResult::State::kComplete);
  char buffer[256];
  base::ByteWriter out(buffer, sizeof buffer);
  write_interim_head(out, head, settings);
  CHECK(out.view() == "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nVia: 1.1 w\r\n\r\n");
}
