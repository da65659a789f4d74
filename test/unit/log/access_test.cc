#include <weir/log/access.h>

#include <set>
#include <string>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include "fixtures.h"

namespace weir::log {
namespace {

std::optional<AccessRecord> round_trip(Channel& channel, const AccessRecord& record) {
  if (!write_access(channel, record)) return std::nullopt;
  channel.begin_drain();
  const auto got = channel.next();
  if (!got || got->kind != RecordKind::kAccess) return std::nullopt;
  return parse_access(got->bytes);  // its strings stay valid until the ring is written again
}

TEST_CASE("access: every field survives the channel") {
  Channel channel(Channel::kCapacityBytesMin);
  AccessRecord in = test::full_record();
  in.client_is_unix = true;
  in.protocol_major = 2;
  in.protocol_minor = 0;
  const auto out = round_trip(channel, in);
  REQUIRE(out.has_value());
  CHECK(out->start_us == in.start_us);
  CHECK(out->duration_us == in.duration_us);
  CHECK(out->upstream_us == in.upstream_us);
  CHECK(out->upstream_connect_us == in.upstream_connect_us);
  CHECK(out->upstream_header_us == in.upstream_header_us);
  CHECK(out->bytes_in == in.bytes_in);
  CHECK(out->bytes_out == in.bytes_out);
  CHECK(out->request_id_high == in.request_id_high);
  CHECK(out->request_id_low == in.request_id_low);
  CHECK(out->client == in.client);
  CHECK(out->client_port == in.client_port);
  CHECK(out->listener == in.listener);
  CHECK(out->status == in.status);
  CHECK(out->core == in.core);
  CHECK(out->protocol_major == 2);
  CHECK(out->protocol_minor == 0);
  CHECK(out->tries == in.tries);
  CHECK(out->reason == in.reason);
  CHECK(out->client_is_unix);
  CHECK(out->upstream_reused);
  CHECK_FALSE(out->truncated);
  CHECK(out->method == in.method);
  CHECK(out->host == in.host);
  CHECK(out->path == in.path);
  CHECK(out->user_agent == in.user_agent);
  CHECK(out->referer == in.referer);
  CHECK(out->upstream == in.upstream);
  CHECK(out->upstream_address == in.upstream_address);
}

TEST_CASE("access: the TLS fields survive, in every combination of their flags") {
  Channel channel(Channel::kCapacityBytesMin);
  AccessRecord in = test::tls_record();
  for (const bool kernel : {false, true}) {
    for (const bool resumed : {false, true}) {
      in.tls_kernel = kernel;
      in.tls_resumed = resumed;
      const auto out = round_trip(channel, in);
      REQUIRE(out.has_value());
      CHECK(out->tls_version == 0x0304);
      CHECK(out->tls_kernel == kernel);
      CHECK(out->tls_resumed == resumed);
      CHECK(out->tls_cipher == in.tls_cipher);
      CHECK(out->tls_why == in.tls_why);
      CHECK(out->tls_client_subject == in.tls_client_subject);
      CHECK(out->tls_client_fingerprint == in.tls_client_fingerprint);
      CHECK(out->upstream_reused);
      CHECK_FALSE(out->truncated);
      CHECK(out->path == in.path);
      CHECK(out->upstream_address == in.upstream_address);
    }
  }
  // A version alone is TLS too.
  AccessRecord bare;
  bare.tls_version = 0x0303;
  const auto out = round_trip(channel, bare);
  REQUIRE(out.has_value());
  CHECK(out->tls_version == 0x0303);
  CHECK(out->tls_cipher.empty());
}

TEST_CASE("access: without TLS nothing of it is written") {
  Channel channel(Channel::kCapacityBytesMin);
  AccessRecord in = test::tls_record();
  in.tls_version = 0;
  in.tls_kernel = true;
  const std::string text(10'000, 's');
  in.tls_client_subject = text;
  const auto out = round_trip(channel, in);
  REQUIRE(out.has_value());
  CHECK(out->tls_version == 0);
  CHECK_FALSE(out->tls_kernel);
  CHECK_FALSE(out->tls_resumed);
  CHECK_FALSE(out->truncated);
  CHECK(out->tls_cipher.empty());
  CHECK(out->tls_why.empty());
  CHECK(out->tls_client_subject.empty());
  CHECK(out->tls_client_fingerprint.empty());
  CHECK(out->upstream_address == in.upstream_address);
}

TEST_CASE("access: an empty record keeps what was not measured apart from zero") {
  Channel channel(Channel::kCapacityBytesMin);
  const auto out = round_trip(channel, {});
  REQUIRE(out.has_value());
  CHECK(out->upstream_us == AccessRecord::kNotMeasured);
  CHECK(out->upstream_connect_us == AccessRecord::kNotMeasured);
  CHECK(out->core == AccessRecord::kNoCore);
  CHECK(out->path.empty());
  CHECK_FALSE(out->client_is_unix);
  CHECK_FALSE(out->upstream_reused);
}

TEST_CASE("access: strings are cut at their limits, and only then flagged") {
  struct Case {
    std::string_view AccessRecord::* field;
    size_t limit;
  };
  const std::vector<Case> cases = {
      {&AccessRecord::method, kMethodBytesMax},
      {&AccessRecord::host, kHostBytesMax},
      {&AccessRecord::path, kPathBytesMax},
      {&AccessRecord::user_agent, kUserAgentBytesMax},
      {&AccessRecord::referer, kRefererBytesMax},
      {&AccessRecord::upstream, kUpstreamBytesMax},
      {&AccessRecord::upstream_address, kUpstreamAddressBytesMax},
      {&AccessRecord::tls_cipher, kTlsCipherBytesMax},
      {&AccessRecord::tls_why, kTlsWhyBytesMax},
      {&AccessRecord::tls_client_subject, kTlsSubjectBytesMax},
      {&AccessRecord::tls_client_fingerprint, kTlsFingerprintBytesMax},
  };
  Channel channel(Channel::kCapacityBytesMin);
  for (const Case& c : cases) {
    for (const size_t length : {c.limit, c.limit + 1, c.limit + 70'000}) {
      const std::string text(length, 'p');
      AccessRecord in = test::tls_record();
      in.*c.field = text;
      const auto out = round_trip(channel, in);
      REQUIRE(out.has_value());
      CHECK((*out).*c.field == text.substr(0, c.limit));
      CHECK(out->truncated == (length > c.limit));
      CHECK(out->status == in.status);
    }
  }
}

TEST_CASE("access: the largest record fits the smallest channel") {
  Channel channel(Channel::kCapacityBytesMin);
  const std::string text(100'000, 'x');
  AccessRecord in;
  in.method = in.host = in.path = in.user_agent = in.referer = text;
  in.upstream = in.upstream_address = text;
  in.tls_version = 0x0304;
  in.tls_cipher = in.tls_why = in.tls_client_subject = in.tls_client_fingerprint = text;
  const auto out = round_trip(channel, in);
  REQUIRE(out.has_value());
  CHECK(out->path.size() == kPathBytesMax);
  CHECK(out->upstream_address.size() == kUpstreamAddressBytesMax);
  CHECK(out->tls_client_subject.size() == kTlsSubjectBytesMax);
  CHECK(out->tls_client_fingerprint.size() == kTlsFingerprintBytesMax);
}

TEST_CASE("access: a full channel refuses and counts") {
  Channel channel(Channel::kCapacityBytesMin);
  uint64_t written = 0;
  uint64_t refused = 0;
  for (int i = 0; i < 1000; ++i) ++(write_access(channel, test::full_record()) ? written : refused);
  CHECK(written > 100);
  CHECK(refused > 0);
  CHECK(channel.dropped() == refused);
}

TEST_CASE("access: bytes that are no record are refused") {
  Channel channel(Channel::kCapacityBytesMin);
  REQUIRE(write_access(channel, test::tls_record()));
  channel.begin_drain();
  const auto record = channel.next();
  REQUIRE(record.has_value());
  CHECK_FALSE(parse_access({}).has_value());
  for (size_t size = 0; size < record->bytes.size(); ++size) {
    REQUIRE_FALSE(parse_access(record->bytes.first(size)).has_value());
  }
  std::vector<std::byte> longer(record->bytes.begin(), record->bytes.end());
  REQUIRE(parse_access(longer).has_value());
  longer.push_back(std::byte{0});
  CHECK_FALSE(parse_access(longer).has_value());
}

TEST_CASE("access: each reason has a name of its own") {
  std::set<std::string_view> names;
  for (size_t i = 0; i < static_cast<size_t>(Reason::kCount); ++i) {
    names.insert(to_string(static_cast<Reason>(i)));
  }
  CHECK(names.size() == static_cast<size_t>(Reason::kCount));
  CHECK(names.count("unknown") == 0);
  CHECK(to_string(Reason::kUpstreamMalformed) == "upstream_malformed");
  CHECK(to_string(Reason::kUpstreamBusy) == "upstream_busy");
  CHECK(to_string(Reason::kIdle) == "idle_timeout");
  CHECK(to_string(Reason::kInternal) == "internal");
  CHECK(to_string(Reason::kCount) == "unknown");
}

}  // namespace
}  // namespace weir::log
