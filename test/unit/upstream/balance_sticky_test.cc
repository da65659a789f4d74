#include <array>
#include <string>
#include <utility>

#include <catch2/catch_test_macros.hpp>

#include <weir/upstream/balance_sticky.h>

#include "balance_rig.h"

using namespace weir::upstream;
using namespace weir::upstream::rig;

namespace {

constexpr uint32_t kNow = 1'800'000'000;

StickySigner signer_of(uint8_t fill) {
  const std::vector<uint8_t> key(32, fill);
  auto signer = StickySigner::make(key);
  REQUIRE(signer);
  return std::move(*signer);
}

std::string write(StickySigner& signer, std::string_view scope, uint64_t tag, uint32_t now = kNow) {
  std::array<char, StickySigner::kValueBytes> out;
  signer.write(out, scope, tag, now);
  return {out.data(), out.size()};
}

}  // namespace

TEST_CASE("a sticky cookie says what was written, to whoever has the key") {
  StickySigner one = signer_of(1);
  StickySigner two = signer_of(1);
  const uint64_t tag = one.tag(identity_of(3));
  CHECK(tag == two.tag(identity_of(3)));
  CHECK(tag != one.tag(identity_of(4)));
  CHECK(tag != identity_of(3));
  for (int i = 0; i < 3; ++i) {  // the context is used again and again
    CHECK(two.read(write(one, "shop", tag), "shop", kNow, 0) == tag);
    CHECK(two.read(write(one, "shop", ~uint64_t{0}), "shop", kNow, 0) == ~uint64_t{0});
  }
}

TEST_CASE("a sticky cookie that is not ours in every byte is none") {
  StickySigner signer = signer_of(1);
  const std::string good = write(signer, "shop", 0x0123'4567'89ab'cdef);
  REQUIRE(signer.read(good, "shop", kNow, 0));
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = bad[i] == '0' ? '1' : '0';
    CHECK_FALSE(signer.read(bad, "shop", kNow, 0));
    bad[i] = 'G';
    CHECK_FALSE(signer.read(bad, "shop", kNow, 0));
    bad[i] = '\0';
    CHECK_FALSE(signer.read(bad, "shop", kNow, 0));
    CHECK_FALSE(signer.read(good.substr(0, i), "shop", kNow, 0));
  }
  std::string upper = good;
  for (char& c : upper) c = c >= 'a' && c <= 'f' ? static_cast<char>(c - 'a' + 'A') : c;
  REQUIRE(upper != good);
  CHECK_FALSE(signer.read(upper, "shop", kNow, 0));
  CHECK_FALSE(signer.read(good + "0", "shop", kNow, 0));
  CHECK_FALSE(signer.read("", "shop", kNow, 0));
  CHECK_FALSE(signer.read(good, "shops", kNow, 0));
  CHECK_FALSE(signer.read(good, "", kNow, 0));
  StickySigner other = signer_of(2);
  CHECK_FALSE(other.read(good, "shop", kNow, 0));
  CHECK(other.tag(5) != signer.tag(5));
}

TEST_CASE("a sticky cookie ends with its age, and none comes from the future") {
  StickySigner signer = signer_of(9);
  const std::string value = write(signer, "a", 5, kNow);
  CHECK(signer.read(value, "a", kNow + 3600, 3600));
  CHECK_FALSE(signer.read(value, "a", kNow + 3601, 3600));
  CHECK(signer.read(value, "a", kNow + 1'000'000, 0));
  CHECK(signer.read(value, "a", kNow - StickySigner::kClockSkewSeconds, 3600));
  CHECK_FALSE(signer.read(value, "a", kNow - StickySigner::kClockSkewSeconds - 1, 0));
  const std::string last = write(signer, "a", 5, 0xffff'ffff);
  CHECK(signer.read(last, "a", 0xffff'ffff, 0xffff'ffff));
}

TEST_CASE("a sticky key has to be long enough") {
  const std::vector<uint8_t> key(StickySigner::kKeyBytesMin);
  CHECK(StickySigner::make(key));
  CHECK_FALSE(StickySigner::make(std::span(key).first(StickySigner::kKeyBytesMin - 1)));
}

// RFC 4231 has no case of this form: computed with Python's hmac.
TEST_CASE("a sticky cookie is HMAC-SHA256 of purpose, tag, time and scope") {
  StickySigner signer = signer_of(1);
  CHECK(write(signer, "shop", 0x0123'4567'89ab'cdef) ==
        "10123456789abcdef6b49d20030e1b2afbc928d1c03c464c58c352a1c");
  CHECK(signer.tag(0x0123'4567'89ab'cdef) == 0xb84b338b7819363f);
}

TEST_CASE("a session keeps its server while that may have it") {
  StickySigner signer = signer_of(1);
  auto servers = servers_of({1, 1, 1, 1});
  for (ServerFacts& server : servers) server.tag = signer.tag(server.identity);
  servers[2].max_connections = 1;
  servers[3].tag = 0;
  Balancer balancer = balancer_of({}, servers);
  const uint64_t tag = servers[2].tag;
  const uint64_t id = servers[2].identity;
  for (int i = 0; i < 5; ++i) CHECK(balancer.choose_sticky(tag, {}).identity == id);
  balancer.set_state(id, ServerState::kDraining, 0);
  CHECK(balancer.choose_sticky(tag, {}).identity == id);
  const Choice choice = balancer.choose_sticky(tag, {});
  balancer.begin(choice);
  CHECK(balancer.choose_sticky(tag, {}).missing == NoServer::kFull);
  balancer.end(choice, 0, 0);
  CHECK(balancer.choose_sticky(tag, {.tried = std::span(&id, 1)}).missing == NoServer::kTried);
  for (const ServerState state : {ServerState::kDown, ServerState::kEjected}) {
    balancer.set_state(id, state, 0);
    CHECK(balancer.choose_sticky(tag, {}).missing == NoServer::kDown);
  }
  CHECK(balancer.choose_sticky(tag + 1, {}).missing == NoServer::kDown);
  CHECK(balancer.choose_sticky(0, {}).missing == NoServer::kDown);
}
