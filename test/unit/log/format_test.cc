#include <weir/log/format.h>

#include <ctime>
#include <string>
#include <vector>

#include <arpa/inet.h>
#include <catch2/catch_test_macros.hpp>

#include <weir/base/prng.h>

#include "fixtures.h"

namespace weir::log {
namespace {

using test::full_record;
using test::tls_record;

std::string json(const AccessRecord& record) {
  std::string out;
  Formatter().append_json(out, record);
  return out;
}
std::string combined(const AccessRecord& record) {
  std::string out;
  Formatter().append_combined(out, record);
  return out;
}
std::string text(const Event& event) {
  std::string out;
  Formatter().append_text(out, event);
  return out;
}
std::string json(const Event& event) {
  std::string out;
  Formatter().append_json(out, event);
  return out;
}

Event sample_event() {
  Event event;
  event.time_us = test::kNowUs;
  event.level = Level::kWarn;
  event.core = 1;
  event.component = "upstream";
  event.message = "connect failed";
  event.add({"upstream", "api"});
  event.add({"address", "10.0.0.1:80"});
  event.add({"error", "refused"});
  event.add({"tries", "3", true});
  return event;
}

// The value of "key" in a JSON line, as written.
std::string json_value(const std::string& line, const std::string& key) {
  const std::string mark = "\"" + key + "\":\"";
  const size_t begin = line.find(mark) + mark.size();
  size_t end = begin;
  while (line.at(end) != '"') end += line.at(end) == '\\' ? 2 : 1;
  return line.substr(begin, end - begin);
}

std::string with_path(std::string_view path) {
  AccessRecord record = full_record();
  record.path = path;
  return json_value(json(record), "path");
}

TEST_CASE("format: a JSON access line, whole") {
  CHECK(
      json(full_record()) ==
      "{\"time\":\"2026-11-20T10:11:12.123Z\",\"request_id\":\"0123456789abcdeffedcba9876543210\","
      "\"client\":\"192.0.2.7\",\"client_port\":40001,\"listener\":3,\"method\":\"GET\","
      "\"host\":\"www.example.com\",\"path\":\"/api/v1?x=1&y=2\",\"protocol\":\"HTTP/1.1\","
      "\"status\":502,\"bytes_in\":321,\"bytes_out\":4294967296,\"duration_ms\":12.345,"
      "\"upstream\":\"api\",\"upstream_address\":\"10.0.0.1:80\",\"upstream_connect_ms\":0.250,"
      "\"upstream_header_ms\":9.999,\"upstream_ms\":11.002,\"upstream_reused\":true,\"tries\":2,"
      "\"reason\":\"upstream_reset\",\"core\":1,\"user_agent\":\"curl/8.5.0\","
      "\"referer\":\"https://example.com/\"}\n");
}

// What a JSON line has between the upstream's keys and the reason.
std::string tls_part(const AccessRecord& record) {
  const std::string line = json(record);
  const std::string before = "\"tries\":2";
  const size_t begin = line.find(before) + before.size();
  return line.substr(begin, line.find(",\"reason\"") - begin);
}

TEST_CASE("format: TLS in a JSON line") {
  AccessRecord record = tls_record();
  CHECK(tls_part(record) ==
        ",\"tls\":\"TLSv1.3\",\"tls_cipher\":\"TLS_AES_128_GCM_SHA256\","
        "\"tls_records\":\"userspace\",\"tls_why\":\"no_kernel_tls\","
        "\"tls_resumed\":true,\"tls_client\":\"CN=jo,O=Example\",\"tls_client_sha256\":"
        "\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"");
  record.tls_kernel = true;  // then there is nothing to explain
  record.tls_resumed = false;
  record.tls_version = 0x0303;
  record.tls_client_subject = {};  // a certificate may have an empty one
  CHECK(tls_part(record) ==
        ",\"tls\":\"TLSv1.2\",\"tls_cipher\":\"TLS_AES_128_GCM_SHA256\","
        "\"tls_records\":\"kernel\",\"tls_resumed\":false,\"tls_client\":\"\","
        "\"tls_client_sha256\":"
        "\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"");
  record.tls_client_fingerprint = {};
  CHECK(tls_part(record) ==
        ",\"tls\":\"TLSv1.2\",\"tls_cipher\":\"TLS_AES_128_GCM_SHA256\","
        "\"tls_records\":\"kernel\",\"tls_resumed\":false");
  record.tls_version = 0;
  CHECK(tls_part(record).empty());
  CHECK(json(record) == json(full_record()));
}

TEST_CASE("format: the name of every TLS version") {
  AccessRecord record = tls_record();
  const std::vector<std::pair<uint16_t, std::string>> cases = {
      {0x0301, "TLSv1.0"}, {0x0302, "TLSv1.1"}, {0x0303, "TLSv1.2"}, {0x0304, "TLSv1.3"},
      {0x0300, "unknown"}, {0x0002, "unknown"}, {0xfefd, "unknown"},
  };
  for (const auto& [version, name] : cases) {
    record.tls_version = version;
    CHECK(json_value(json(record), "tls") == name);
  }
}

TEST_CASE("format: common and combined say nothing of TLS") {
  CHECK(combined(tls_record()) == combined(full_record()));
  std::string with;
  std::string without;
  Formatter().append_common(with, tls_record());
  Formatter().append_common(without, full_record());
  CHECK(with == without);
}

TEST_CASE("format: JSON leaves out what does not apply") {
  AccessRecord record;
  record.start_us = test::kNowUs;
  record.client_is_unix = true;
  record.status = 400;
  record.truncated = true;
  CHECK(
      json(record) ==
      "{\"time\":\"2026-11-20T10:11:12.123Z\",\"request_id\":\"00000000000000000000000000000000\","
      "\"client\":\"unix\",\"client_port\":0,\"listener\":0,\"method\":\"\",\"host\":\"\","
      "\"path\":\"\",\"protocol\":\"HTTP/1.1\",\"status\":400,\"bytes_in\":0,\"bytes_out\":0,"
      "\"duration_ms\":0.000,\"truncated\":true}\n");
}

TEST_CASE("format: common and combined") {
  AccessRecord record = full_record();
  std::string common;
  Formatter().append_common(common, record);
  CHECK(common ==
        "192.0.2.7 - - [20/Nov/2026:10:11:12 +0000] \"GET /api/v1?x=1&y=2 HTTP/1.1\" 502 "
        "4294967296\n");
  CHECK(combined(record) ==
        "192.0.2.7 - - [20/Nov/2026:10:11:12 +0000] \"GET /api/v1?x=1&y=2 HTTP/1.1\" 502 "
        "4294967296 \"https://example.com/\" \"curl/8.5.0\"\n");
  record.user_agent = record.referer = record.method = record.path = {};
  record.status = 0;
  record.client = *base::IpAddress::parse("2001:db8::1");
  CHECK(combined(record) ==
        "2001:db8::1 - - [20/Nov/2026:10:11:12 +0000] \"-\" 000 4294967296 \"-\" \"-\"\n");
}

TEST_CASE("format: JSON strings, byte by byte") {
  struct Case {
    std::string_view in;
    std::string_view out;
  };
  using namespace std::string_view_literals;
  const std::vector<Case> cases = {
      {"/plain", "/plain"},
      {"\"quoted\"", "\\\"quoted\\\""},
      {"back\\slash", "back\\\\slash"},
      {"line\nbreak\r\ttab", "line\\nbreak\\r\\ttab"},
      {"nul\0end"sv, "nul\\u0000end"},
      {"esc\x1b[31m", "esc\\u001b[31m"},
      {"del\x7f.", "del\\u007f."},
      {"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},  // UTF-8 stays
      {"\xe2\x82\xac\xf0\x9f\x98\x80", "\xe2\x82\xac\xf0\x9f\x98\x80"},
      {"latin\xfc.", "latin\\u00fc."},  // not UTF-8
      {"\xc3", "\\u00c3"},              // cut off
      {"\xe2\x82", "\\u00e2\\u0082"},
      {"\xc0\xaf", "\\u00c0\\u00af"},  // overlong slash
      {"\xe0\x80\xaf", "\\u00e0\\u0080\\u00af"},
      {"\xed\xa0\x80", "\\u00ed\\u00a0\\u0080"},             // surrogate
      {"\xf4\x90\x80\x80", "\\u00f4\\u0090\\u0080\\u0080"},  // above U+10FFFF
      {"\xf8\x88\x80\x80\x80", "\\u00f8\\u0088\\u0080\\u0080\\u0080"},
      {"\xc2\x85|\xc2\x9b|\xc2\xa0", "\\u0085|\\u009b|\xc2\xa0"},  // C1 controls move cursors
      {"\xe2\x80\xa8\xe2\x80\xae", "\\u2028\\u202e"},              // separators, reordering
      {"\xe2\x80\xa7\xe2\x80\xaf", "\xe2\x80\xa7\xe2\x80\xaf"},    // their neighbours
      {"\xe2\x81\xa6\xe2\x81\xa9\xe2\x81\xaa", "\\u2066\\u2069\xe2\x81\xaa"},
  };
  for (const Case& c : cases) CHECK(with_path(c.in) == c.out);
}

// The word-at-a-time path against one byte at a time: each special byte at each place of strings of
// each length around the word size.
TEST_CASE("format: escaping does not depend on where in a word a byte stands") {
  for (size_t length = 1; length <= 26; ++length) {
    for (size_t place = 0; place < length; ++place) {
      for (const int special : {0x00, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x5b, 0x5c, 0x5d, 0x7e, 0x7f,
                                0x80, 0xa2, 0xdc, 0xff}) {
        std::string in(length, 'a');
        in[place] = static_cast<char>(special);
        std::string expected = in.substr(0, place);
        char escape[8];
        if (special == '"' || special == '\\') {
          expected += '\\';
          expected += static_cast<char>(special);
        } else if (special < 0x20 || special >= 0x7f) {
          std::snprintf(escape, sizeof(escape), "\\u%04x", static_cast<unsigned>(special));
          expected += escape;
        } else {
          expected += static_cast<char>(special);
        }
        expected += in.substr(place + 1);
        REQUIRE(with_path(in) == expected);
      }
    }
  }
}

TEST_CASE("format: CLF escapes as nginx does") {
  using namespace std::string_view_literals;
  AccessRecord record = full_record();
  record.path = "/\" 200 0\n\x1b[2J\0\\\x7f\xc3\xbc"sv;
  record.user_agent = "a\"b\r\nc";
  CHECK(combined(record) ==
        "192.0.2.7 - - [20/Nov/2026:10:11:12 +0000] "
        "\"GET /\\x22 200 0\\x0A\\x1B[2J\\x00\\x5C\\x7F\\xC3\\xBC HTTP/1.1\" 502 4294967296 "
        "\"https://example.com/\" \"a\\x22b\\x0D\\x0Ac\"\n");
}

// Whatever bytes a peer sends, a record is one line without controls, and quotes stay balanced.
TEST_CASE("format: no bytes of a peer can forge a line") {
  base::Prng prng(99);
  for (int round = 0; round < 3000; ++round) {
    std::string noise(prng.below(80), '\0');
    for (char& c : noise)
      c = static_cast<char>(prng.chance(30) ? "\"\\\n\r\xe2\x80\xa8\xc2"[prng.below(8)]
                                            : static_cast<char>(prng.below(256)));
    AccessRecord record = full_record();
    record.method = record.host = record.path = record.user_agent = record.referer = noise;
    record.upstream = record.upstream_address = noise;
    record.tls_version = static_cast<uint16_t>(prng.below(65536));
    record.tls_cipher = record.tls_why = noise;
    record.tls_client_subject = record.tls_client_fingerprint = noise;
    Event event = sample_event();
    event.message = event.fields[0].value = event.fields[1].key = noise;
    for (const std::string& line : {json(record), combined(record), text(event), json(event)}) {
      REQUIRE(line.find('\n') == line.size() - 1);
      for (size_t i = 0; i + 1 < line.size(); ++i) {
        const auto c = static_cast<uint8_t>(line[i]);
        REQUIRE((c >= 0x20 && c != 0x7f));
      }
    }
    // A reader that follows the quotes must come from the path to what is ours behind it.
    const std::string line = json(record);
    const std::string path = json_value(line, "path");
    REQUIRE(line.find("\"path\":\"" + path + "\",\"protocol\":\"HTTP/1.1\",\"status\":502") !=
            std::string::npos);
  }
}

TEST_CASE("format: the longest lines stay within the room that is reserved for them") {
  const std::string noise(4000, '\x01');
  AccessRecord record;
  record.start_us = INT64_MAX;
  record.duration_us = record.upstream_us = UINT64_MAX - 1;
  record.upstream_connect_us = record.upstream_header_us = UINT64_MAX - 1;
  record.bytes_in = record.bytes_out = UINT64_MAX;
  record.client.bytes.fill(0xff);
  record.listener = UINT32_MAX;
  record.client_port = record.status = UINT16_MAX;
  record.core = UINT16_MAX - 1;
  record.protocol_major = record.protocol_minor = record.tries = UINT8_MAX;
  record.reason = Reason::kUpstreamMalformed;
  record.truncated = true;
  record.upstream = "u";
  record.tls_version = 0x03ff;
  record.tls_client_fingerprint = "f";
  const std::string line = json(record);
  CHECK(line.size() < 1024);  // kFixedBytesMax is twice that
  CHECK(combined(record).size() < 1024);
  CHECK(line.find("\"time\":\"9999-12-31T23:59:59.000Z\"") != std::string::npos);
  record.path = record.referer = record.user_agent = noise;
  record.tls_cipher = record.tls_why = record.tls_client_subject = noise;
  record.tls_client_fingerprint = noise;
  CHECK(json(record).size() > 7 * 6 * noise.size());

  Event event;
  event.time_us = INT64_MIN;
  event.core = UINT16_MAX - 1;
  event.truncated = true;
  for (size_t i = 0; i < kEventFieldsMax; ++i) event.add({"", ""});
  CHECK(text(event).size() < 1024);
  CHECK(json(event).size() < 1024);
  CHECK(text(event).starts_with("1970-01-01T00:00:00.000Z info"));
}

TEST_CASE("format: dates agree with the C library") {
  base::Prng prng(5);
  Formatter formatter;  // one, so that its cached second is used and replaced
  for (int i = 0; i < 20'000; ++i) {
    const auto second = static_cast<time_t>(prng.below(253'402'300'800));
    for (const int64_t fraction : {0, 999'999}) {
      AccessRecord record;
      record.start_us = static_cast<int64_t>(second) * 1'000'000 + fraction;
      std::string line;
      formatter.append_json(line, record);
      tm parts{};
      REQUIRE(::gmtime_r(&second, &parts) != nullptr);
      char iso[40];
      std::strftime(iso, sizeof(iso), "%Y-%m-%dT%H:%M:%S", &parts);
      REQUIRE(line.substr(9, 19) == iso);
      REQUIRE(line.substr(28, 5) == (fraction == 0 ? ".000Z" : ".999Z"));
      std::string clf_line;
      formatter.append_common(clf_line, record);
      char clf[40];
      std::strftime(clf, sizeof(clf), "[%d/%b/%Y:%H:%M:%S +0000]", &parts);
      REQUIRE(clf_line.find(clf) != std::string::npos);
    }
  }
}

TEST_CASE("format: addresses agree with the C library") {
  base::Prng prng(3);
  for (int i = 0; i < 20'000; ++i) {
    AccessRecord record = full_record();
    for (uint8_t& byte : record.client.bytes) {
      byte = static_cast<uint8_t>(prng.chance(50) ? 0 : prng.below(256));
    }
    record.client.bytes[1] |= 1;  // not ::/96, which the C library writes with dots
    char expected[INET6_ADDRSTRLEN];
    REQUIRE(::inet_ntop(AF_INET6, record.client.bytes.data(), expected, sizeof(expected)));
    REQUIRE(json_value(json(record), "client") == expected);
    const uint32_t v4 = static_cast<uint32_t>(prng.next());
    record.client = base::IpAddress::from_v4(v4);
    REQUIRE(json_value(json(record), "client") == record.client.to_string());
  }
  for (const char* address :
       {"::", "::1", "1::", "1:2:3:4:5:6:7:8", "1:0:0:2::3", "0:1::", "fe80::1", "1:0:2:0:3:0:4:0",
        "0.0.0.0", "255.255.255.255", "10.0.99.100"}) {
    AccessRecord record = full_record();
    record.client = *base::IpAddress::parse(address);
    CHECK(json_value(json(record), "client") == record.client.to_string());
  }
}

TEST_CASE("format: an event as text and as JSON") {
  Event event = sample_event();
  CHECK(text(event) ==
        "2026-11-20T10:11:12.123Z warn upstream connect failed upstream=api address=10.0.0.1:80 "
        "error=refused tries=3 core=1\n");
  CHECK(json(event) ==
        "{\"time\":\"2026-11-20T10:11:12.123Z\",\"level\":\"warn\",\"component\":\"upstream\","
        "\"message\":\"connect failed\",\"upstream\":\"api\",\"address\":\"10.0.0.1:80\","
        "\"error\":\"refused\",\"tries\":3,\"core\":1}\n");
  event.core = Event::kNoCore;
  event.field_count = 0;
  event.truncated = true;
  CHECK(text(event) == "2026-11-20T10:11:12.123Z warn upstream connect failed truncated=true\n");
}

TEST_CASE("format: values of text lines are quoted when they could be misread") {
  struct Case {
    std::string_view in;
    std::string_view out;
  };
  const std::vector<Case> cases = {
      {"plain", "plain"},
      {"[::1]:80", "[::1]:80"},
      {"", "\"\""},
      {"two words", "\"two words\""},
      {"a=b", "\"a=b\""},
      {"say \"hi\"", "\"say \\\"hi\\\"\""},
      {"back\\slash", "\"back\\\\slash\""},
      {"line\nbreak", "\"line\\nbreak\""},
      {"bell\a", "\"bell\\x07\""},
      {"\xfc", "\"\\xFC\""},
      {"\xc3\xbc", "\"\xc3\xbc\""},
      {"\xc2\x9b", "\"\\u009b\""},
  };
  for (const Case& c : cases) {
    Event event = sample_event();
    event.field_count = 0;
    event.core = Event::kNoCore;
    event.add({"key", c.in});
    CHECK(text(event) ==
          "2026-11-20T10:11:12.123Z warn upstream connect failed key=" + std::string(c.out) + "\n");
  }
  Event event = sample_event();
  event.message = "it said \"no\"\nand left";
  event.field_count = 0;
  event.add({"bad key=", "v"});
  CHECK(text(event) ==
        "2026-11-20T10:11:12.123Z warn upstream it said \"no\"\\nand left bad_key_=v core=1\n");
}

}  // namespace
}  // namespace weir::log
