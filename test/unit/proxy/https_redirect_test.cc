// A plain listener that sends everybody to https.
#include <utility>

#include <catch2/catch_test_macros.hpp>

#include "rig.h"

using namespace weir;
using namespace weir::proxy;
using namespace weir::proxy::test;

namespace {

struct RedirectRig : Rig {
  explicit RedirectRig(uint16_t port = 443) {
    listener.redirect_https = port;
    serve("up", 0, {&origin});
  }
  // The head of the answer to `request` on a connection of its own.
  std::string answer(const std::string& request) {
    Peer client = connect();
    client.send_all(request);
    return next_head(client);
  }
  std::string next_head(Peer& client) {
    REQUIRE(run_until([&] {
      client.take();
      return client.text.find("\r\n\r\n") != std::string::npos || client.over();
    }));
    const size_t end = client.text.find("\r\n\r\n");
    REQUIRE(end != std::string::npos);
    const std::string head = client.text.substr(0, end + 4);
    client.text.erase(0, end + 4);
    return head;
  }
  // Status and Location of a GET of `target`.
  std::string led_to(const std::string& target, const std::string& host = "a.test") {
    const std::string head = answer("GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n");
    CHECK(head.starts_with("HTTP/1.1 301 Moved Permanently\r\nLocation: "));
    const size_t begin = head.find(": ") + 2;
    return head.substr(begin, head.find("\r\n", begin) - begin);
  }
  ~RedirectRig() {
    origin.accept();
    CHECK(origin.peers.empty());
  }
  Origin origin;
};

}  // namespace

TEST_CASE("to https: same host, path and query") {
  RedirectRig rig;
  CHECK(rig.led_to("/") == "https://a.test/");
  CHECK(rig.led_to("/a/b?c=d&e=/f?g") == "https://a.test/a/b?c=d&e=/f?g");
  CHECK(rig.led_to("/a?") == "https://a.test/a?");
  CHECK(rig.led_to("/a", "A.Test:8080") == "https://a.test/a");
  CHECK(rig.led_to("/a", "[2001:db8::1]:80") == "https://[2001:db8::1]/a");
  CHECK(rig.led_to("http://b.test:81/x?y", "b.test:81") == "https://b.test/x?y");
  CHECK(rig.led_to("/%7ea/./b/../c%2fd") == "https://a.test/~a/c%2Fd");
}

TEST_CASE("to https: any port but 443 is named") {
  RedirectRig rig(8443);
  CHECK(rig.led_to("/a") == "https://a.test:8443/a");
  CHECK(rig.led_to("/a", "[::1]:80") == "https://[::1]:8443/a");
  rig.listener.redirect_https = 65535;
  CHECK(rig.led_to("/a", "a.test:443") == "https://a.test:65535/a");
  rig.listener.redirect_https = 80;
  CHECK(rig.led_to("/a") == "https://a.test:80/a");
}

TEST_CASE("to https: 301 for GET and HEAD, 308 for what must stay as it is") {
  RedirectRig rig;
  const auto with = [&](const std::string& line) {
    return rig.answer(line + " HTTP/1.1\r\nHost: a.test\r\n\r\n");
  };
  CHECK(with("HEAD /h").starts_with(
      "HTTP/1.1 301 Moved Permanently\r\nLocation: https://a.test/h\r\nContent-Length: 0\r\n"));
  for (const char* method : {"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "get"}) {
    const std::string head = with(std::string(method) + " /p?q");
    CHECK(head.starts_with("HTTP/1.1 308 Permanent Redirect\r\nLocation: https://a.test/p?q\r\n"));
    CHECK(head.find("Connection: close") == std::string::npos);
  }
  CHECK(with("OPTIONS *").find("\r\nLocation: https://a.test\r\n") != std::string::npos);
  CHECK(with("TRACE /").starts_with("HTTP/1.1 405 "));
  CHECK(rig.answer("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n")
            .starts_with("HTTP/1.1 405 "));
}

TEST_CASE("to https: no request can bend the location") {
  RedirectRig rig;
  CHECK(rig.led_to("//evil.test/x") == "https://a.test//evil.test/x");
  CHECK(rig.led_to("/@evil.test/") == "https://a.test/@evil.test/");
  CHECK(rig.led_to("/a?\"<b>\\^`{|}") == "https://a.test/a?%22%3Cb%3E%5C%5E%60%7B%7C%7D");
  CHECK(rig.led_to("/\"<x>") == "https://a.test/%22%3Cx%3E");
  CHECK(rig.led_to("/a?%0d%0aX-Evil:%201") == "https://a.test/a?%0d%0aX-Evil:%201");
  const auto refused = [&](const std::string& request) {
    const std::string head = rig.answer(request);
    CHECK(head.starts_with("HTTP/1.1 400 "));
    CHECK(head.find("Location") == std::string::npos);
  };
  refused("GET /%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: a.test\r\n\r\n");
  refused("GET /../x HTTP/1.1\r\nHost: a.test\r\n\r\n");
  refused("GET / HTTP/1.0\r\n\r\n");  // to which host?
  refused("GET / HTTP/1.1\r\nHost: \r\n\r\n");
  for (const char* host : {"a@evil.test", "evil.test/a", "a b", "a\"b", "a\\b", "a%0d%0ab", "a?b",
                           "a#b", "a.test:80:80", "a,b", "a\x01", "\xc3\xbc.test"}) {
    refused(std::string("GET / HTTP/1.1\r\nHost: ") + host + "\r\n\r\n");
  }
}

TEST_CASE("to https: the connection goes on behind a small body, ends before a large one") {
  RedirectRig rig;
  Peer client = rig.connect();
  client.send_all(
      "POST /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc"
      "POST /2 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\nabc\r\n0\r\n\r\nGET /3 HTTP/1.1\r\nHost: a.test\r\n\r\n");
  CHECK(rig.next_head(client).find("Location: https://a.test/1\r\n") != std::string::npos);
  CHECK(rig.next_head(client).find("Location: https://a.test/2\r\n") != std::string::npos);
  CHECK(rig.next_head(client).find("Location: https://a.test/3\r\n") != std::string::npos);
  CHECK(client.text.empty());
  CHECK_FALSE(client.over());
  CHECK(rig.worker->counters.responses_3xx == 3);
  for (const char* field :
       {"Content-Length: 1000000", "Content-Length: 3\r\nExpect: 100-continue"}) {
    const std::string head =
        rig.answer(std::string("PUT /4 HTTP/1.1\r\nHost: a.test\r\n") + field + "\r\n\r\n");
    CHECK(head.starts_with("HTTP/1.1 308 "));
    CHECK(head.find("\r\nLocation: https://a.test/4\r\n") != std::string::npos);
    CHECK(head.find("\r\nConnection: close\r\n") != std::string::npos);
  }
  const std::string head = rig.answer(
      "PUT / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n");
  CHECK(head.starts_with("HTTP/1.1 400 "));
}
