#include <weir/http/uri.h>

#include <catch2/catch_test_macros.hpp>

#include <string>

namespace weir::http {

namespace {

// "-" when refused. Checks on the way that the result is a fixed point.
std::string normal(std::string_view raw) {
  const std::string exact(raw);
  std::string scratch(raw.size(), '?');
  const auto once = normalise_path(exact, scratch);
  if (!once) return "-";
  CHECK(once->changed == (once->path != raw));
  if (!once->changed) CHECK(once->path.data() == exact.data());
  const std::string result(once->path);
  std::string again(result.size(), '?');
  const auto twice = normalise_path(result, again);
  REQUIRE(twice.has_value());
  CHECK_FALSE(twice->changed);
  return result;
}

}  // namespace

TEST_CASE("paths that are normal stay as they are") {
  for (const char* path : {"/",
                           "/a",
                           "/a/b/c.html",
                           "/.well-known/x",
                           "/...",
                           "/a..b/c.",
                           "/..a",
                           "/.a/b",
                           "//",
                           "/a//b/",
                           "/a%2Fb",
                           "/a%5Cb",
                           "/%25",
                           "/%E2%82%AC",
                           "/a;b=c/d",
                           "/~u/-_.!$&'()*+,;=:@",
                           "*",
                           "/0123456789abcdef0123456789abcdef/x.y",
                           "/%20",
                           "/a%2F.b",
                           "/[x]|{y}^`\"<>"}) {
    CHECK(normal(path) == path);
  }
}

TEST_CASE("escapes of unreserved characters are decoded, others written in upper case") {
  CHECK(normal("/%41%7a%30%2d%2E%5f%7E") == "/Az0-._~");
  CHECK(normal("/%2f%5c%3f%23%c3%a9") == "/%2F%5C%3F%23%C3%A9");
  CHECK(normal("/%2541") == "/%2541");  // never twice
  CHECK(normal("/%25%34%31") == "/%2541");
  CHECK(normal("/%252e%252e/") == "/%252e%252e/");
}

TEST_CASE("dot segments are removed, escaped ones too") {
  CHECK(normal("/.") == "/");
  CHECK(normal("/./") == "/");
  CHECK(normal("/a/.") == "/a/");
  CHECK(normal("/a/./b") == "/a/b");
  CHECK(normal("/a/..") == "/");
  CHECK(normal("/a/../b") == "/b");
  CHECK(normal("/a/b/c/./../../g") == "/a/g");
  CHECK(normal("/a/b/../..") == "/");
  CHECK(normal("/a/%2e%2E/b") == "/b");
  CHECK(normal("/a/.%2e/b") == "/b");
  CHECK(normal("/a/%2e/b") == "/a/b");
  CHECK(normal("/a//../b") == "/a/b");
  CHECK(normal("//..") == "/");
  CHECK(normal("/0123456789abcd/../0123456789abcdef/./x") == "/0123456789abcdef/x");
}

TEST_CASE("paths that mislead are refused") {
  for (const char* path : {"",
                           "a",
                           "a/b",
                           "**",
                           "/..",
                           "/../",
                           "/../a",
                           "/a/../..",
                           "/a/../../b",
                           "/%2e%2e",
                           "/%2e%2e/a",
                           "/a/./../..",
                           "/%",
                           "/%4",
                           "/%zz",
                           "/%4g",
                           "/a%",
                           "/%%41",
                           "/%00",
                           "/a%00b",
                           "/%01",
                           "/%0a",
                           "/%0d",
                           "/%1F",
                           "/%7f",
                           "/a b",
                           "/a\tb",
                           "/a\x7f",
                           "/caf\xc3\xa9",
                           "/a\\b",
                           "/a#b",
                           "/a?b",
                           "/0123456789abcdef?",
                           "/0123456789abcdef#",
                           "/0123456789abcdef\\",
                           "/a/..%2Fb",
                           "/a/..%2fb",
                           "/a/..%5Cb",
                           "/a/b%2f..",
                           "/a/b%2F%2e%2e%2Fc",
                           "/a/%2F..",
                           "/a/%5c..%5c"}) {
    INFO(path);
    CHECK(normal(path) == "-");
  }
  CHECK(normal(std::string_view("/a\0b", 4)) == "-");
}

TEST_CASE("dots next to step boundaries are seen") {
  for (size_t before = 0; before < 40; ++before) {
    const std::string lead = "/" + std::string(before, 'x');
    INFO(before);
    CHECK(normal(lead + "/./y") == lead + "/y");
    CHECK(normal(lead + "/../y") == "/y");
    CHECK(normal(lead + "%2e") == lead + (before == 0 ? "" : "."));
    CHECK(normal(lead + "?") == "-");
    CHECK(normal(lead + "\x1f") == "-");
  }
}

TEST_CASE("every byte is judged, raw and escaped") {
  for (int c = 0; c < 256; ++c) {
    INFO("byte " << c);
    const bool visible = c > 0x20 && c < 0x7f;
    const bool plain = visible && c != '#' && c != '?' && c != '\\' && c != '%';
    const std::string byte(1, static_cast<char>(c));
    CHECK((normal("/" + byte + "x") != "-") == plain);
    CHECK((normal("/0123456789abcdef" + byte + "0123456789abcdef") != "-") == plain);
    constexpr const char* kDigits = "0123456789abcdef";
    const std::string escape = {'%', kDigits[c >> 4], kDigits[c & 15]};
    CHECK((normal("/" + escape + "x") != "-") == (c >= 0x20 && c != 0x7f));
  }
}

TEST_CASE("scratch that is too small refuses, and is not needed for plain paths") {
  char small[2];
  CHECK_FALSE(normalise_path("/a/./b", small).has_value());
  CHECK(normalise_path("/a/b", {}).has_value());
}

TEST_CASE("authorities are split and checked") {
  std::string_view host = "untouched";
  std::string_view port = "untouched";
  for (const char* bad : {"",        ":",       ":80",       "a:b",
                          "a:80:81", "a:65536", "a:000080",  "a:-1",
                          "a:+1",    "[::1",    "[::1]x",    "[::1]80",
                          "[]",      "[]:1",    "[1.2.3.4]", "[fe80::1%25eth0]",
                          "[v1.x]",  "::1",     "a b",       "a/b",
                          "a@b",     "a?b",     "a#b",       "a,b",
                          "a%41",    "a..b",    ".a",        ".",
                          "a\x80",   "a\tb",    "a\\b",      "a|b",
                          "<a>",     "\"a\""}) {
    INFO(bad);
    CHECK_FALSE(split_host_port(bad, host, port));
    CHECK(host == "untouched");
    CHECK(port == "untouched");
  }
  const auto split = [&](std::string_view text) {
    REQUIRE(split_host_port(text, host, port));
    return std::string(host) + " " + std::string(port);
  };
  CHECK(split("a") == "a ");
  CHECK(split("a:") == "a ");
  CHECK(split("a:80") == "a 80");
  CHECK(split("a:65535") == "a 65535");
  CHECK(split("1.2.3.4:1") == "1.2.3.4 1");
  CHECK(split("[::1]") == "[::1] ");
  CHECK(split("[::1]:") == "[::1] ");
  CHECK(split("[2001:DB8::1]:443") == "[2001:DB8::1] 443");
  CHECK(split("my_host.a-b.c~d") == "my_host.a-b.c~d ");
  CHECK(split("example.com.") == "example.com. ");
  CHECK(valid_host(std::string(kHostBytesMax, 'a')));
  CHECK_FALSE(valid_host(std::string(kHostBytesMax + 1, 'a')));
}

TEST_CASE("hosts are compared in lower case without the last dot") {
  char scratch[64];
  CHECK(lowercase_host("Example.COM", scratch) == "example.com");
  CHECK(lowercase_host("Example.COM.", scratch) == "example.com");
  const std::string_view lower = "example.com";
  CHECK(lowercase_host(lower, scratch).data() == lower.data());
  CHECK(lowercase_host("example.com.", scratch) == "example.com");
  CHECK(lowercase_host("[2001:DB8::A]", scratch) == "[2001:db8::a]");
  CHECK(lowercase_host("", scratch).empty());
}

TEST_CASE("URLs of the configuration") {
  const auto url = parse_url("http://origin.test");
  REQUIRE(url.has_value());
  CHECK(url->scheme == "http");
  CHECK(url->host == "origin.test");
  CHECK(url->port == 80);
  CHECK(url->path == "/");
  CHECK_FALSE(url->has_path);
  const auto full = parse_url("HTTPS://[::1]:8443/app/");
  REQUIRE(full.has_value());
  CHECK(full->scheme == "https");
  CHECK(full->host == "[::1]");
  CHECK(full->port == 8443);
  CHECK(full->path == "/app/");
  CHECK(full->has_path);
  CHECK(parse_url("https://a")->port == 443);
  CHECK(parse_url("http://a:")->port == 80);
  CHECK(parse_url("http://a/")->has_path);
  for (const char* bad :
       {"", "a", "http:", "http:/a", "http://", "http:///a", "ftp://a", "http://a:0",
        "http://a:99999", "http://u@a", "http://a/b?c", "http://a/b#c", "http://a?b", "http://a b/",
        "http://a/b c", "http://a,b/", "http:// a"}) {
    INFO(bad);
    CHECK_FALSE(parse_url(bad).has_value());
  }
}

}  // namespace weir::http
