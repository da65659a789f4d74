// What needs no kernel TLS, and so runs everywhere: the key schedule against the traces of RFC
// 8448, records against each other, and the parsers of what a receive brings, with every kind of
// damage.
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <liburing.h>
#include <linux/tls.h>
#include <catch2/catch_test_macros.hpp>

#include <weir/net/tls/ktls.h>
#include <weir/net/tls/ktls_record.h>

#include "ktls_seal.h"

using namespace weir::net::tls;
using weir::base::Errc;

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

namespace {

using Bytes = std::vector<uint8_t>;
using Event = PostHandshake::Event;
using Role = PostHandshake::Role;

Bytes hex(std::string_view text) {
  Bytes out;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    out.push_back(static_cast<uint8_t>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16)));
  }
  return out;
}

// A provided buffer as the kernel fills it for a multishot recvmsg.
struct Filled {
  io_uring_recvmsg_out head{};
  uint8_t type = 23;
  int level = SOL_TLS;
  int name = TLS_GET_RECORD_TYPE;
  Bytes payload{1, 2, 3};
  Filled() {
    head.controllen = kRecordControlSize;
    head.payloadlen = 3;
    head.flags = MSG_EOR;
  }
  [[nodiscard]] Bytes bytes() const {
    Bytes out(kMultishotOverhead);
    std::memcpy(out.data(), &head, sizeof head);
    cmsghdr control{};
    control.cmsg_len = CMSG_LEN(1);
    control.cmsg_level = level;
    control.cmsg_type = name;
    std::memcpy(&out[sizeof head], &control, sizeof control);
    out[sizeof head + CMSG_LEN(0)] = type;
    out.insert(out.end(), payload.begin(), payload.end());
    return out;
  }
  [[nodiscard]] weir::base::Result<ReceivedPiece> parse() const {
    static Bytes kept;  // the piece points into it
    kept = bytes();
    return parse_multishot(kept, static_cast<int32_t>(kept.size()));
  }
};

ReceivedPiece handshake_piece(const Bytes& bytes, bool ends = true) {
  return {.type = RecordType::kHandshake, .record_ends = ends, .offset = 0, .bytes = bytes};
}

}  // namespace

TEST_CASE("the key schedule gives the keys of RFC 8448, section 3") {
  KernelTls tls(nullptr);
  KernelKeys keys;
  keys.version = kTls13;
  REQUIRE(keys.tx.traffic_secret.assign(
      hex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")));
  REQUIRE(keys.rx.traffic_secret.assign(
      hex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")));
  RecordKey key;
  REQUIRE(tls.record_key(keys, Direction::kTx, key));
  CHECK(Bytes(key.key.begin(), key.key.begin() + 16) == hex("9f02283b6c9c07efc26bb9f2ac92e356"));
  CHECK(Bytes(key.iv.begin(), key.iv.end()) == hex("cf782b88dd83549aadf1e984"));
  REQUIRE(tls.record_key(keys, Direction::kRx, key));
  CHECK(Bytes(key.key.begin(), key.key.begin() + 16) == hex("17422dda596ed5d9acd890e3c63f5051"));
  CHECK(Bytes(key.iv.begin(), key.iv.end()) == hex("5b78923dee08579033e523d9"));
}

TEST_CASE("keys that are not complete are refused") {
  KernelTls tls(nullptr);
  KernelKeys keys;
  RecordKey key;
  keys.version = kTls13;
  CHECK_FALSE(tls.record_key(keys, Direction::kTx, key));
  REQUIRE(keys.tx.traffic_secret.assign(Bytes(48, 1)));  // the hash is SHA-256
  CHECK_FALSE(tls.record_key(keys, Direction::kTx, key));
  CHECK_FALSE(tls.next_secret(keys.hash, keys.tx.traffic_secret));
  keys.hash = SuiteHash::kSha384;
  CHECK(tls.record_key(keys, Direction::kTx, key));
  CHECK_FALSE(tls.record_key(keys, Direction::kRx, key));
  keys.version = kTls12;
  CHECK_FALSE(tls.record_key(keys, Direction::kTx, key));
  REQUIRE(keys.tx.key.assign(Bytes(16, 1)));
  CHECK_FALSE(tls.record_key(keys, Direction::kTx, key));
  REQUIRE(keys.tx.iv.assign(Bytes(4, 1)));
  CHECK(tls.record_key(keys, Direction::kTx, key));
  keys.version = 0x0302;
  CHECK_FALSE(tls.record_key(keys, Direction::kTx, key));
}

TEST_CASE("the next secret is another one, each time, and both sides find the same") {
  KernelTls one(nullptr);
  KernelTls other(nullptr);
  for (const SuiteHash hash : {SuiteHash::kSha256, SuiteHash::kSha384}) {
    const size_t size = suite_hash_size(hash);
    Secret<48> here;
    Secret<48> there;
    REQUIRE(here.assign(Bytes(size, 7)));
    REQUIRE(there.assign(Bytes(size, 7)));
    Bytes before(here.bytes().begin(), here.bytes().end());
    for (int i = 0; i < 3; ++i) {
      REQUIRE(one.next_secret(hash, here));
      REQUIRE(other.next_secret(hash, there));
      const Bytes now(here.bytes().begin(), here.bytes().end());
      CHECK(now.size() == size);
      CHECK(now != before);
      CHECK(now == Bytes(there.bytes().begin(), there.bytes().end()));
      before = now;
    }
  }
}

TEST_CASE("HKDF-Expand-Label stays within its bounds") {
  KernelTls tls(nullptr);
  Secret<48> secret;
  REQUIRE(secret.assign(Bytes(32, 1)));
  Bytes out(33);
  CHECK_FALSE(tls.expand_label(SuiteHash::kSha256, secret, "key", out));
  CHECK_FALSE(tls.expand_label(SuiteHash::kSha256, secret, "key", std::span(out).first(0)));
  CHECK_FALSE(
      tls.expand_label(SuiteHash::kSha256, secret, std::string(25, 'x'), std::span(out).first(32)));
  CHECK(
      tls.expand_label(SuiteHash::kSha256, secret, std::string(24, 'x'), std::span(out).first(32)));
}

TEST_CASE("TLS 1.2 with GCM sends the explicit nonce it was told, not the record number") {
  KernelTls tls(nullptr);
  KernelKeys keys;
  keys.version = kTls12;
  REQUIRE(keys.tx.key.assign(Bytes(16, 1)));
  REQUIRE(keys.tx.iv.assign(hex("aabbccdd")));
  keys.tx.explicit_nonce = 0x1122334455667788;
  keys.tx.record_number = 1;
  RecordKey key;
  REQUIRE(tls.record_key(keys, Direction::kTx, key));
  CHECK(Bytes(key.iv.begin(), key.iv.end()) == hex("aabbccdd1122334455667788"));
}

TEST_CASE("a sealed record opens, and only with its keys, number and bytes") {
  for (const uint16_t version : KernelSupport::kVersions) {
    for (const KernelCipher cipher : KernelSupport::kCiphers) {
      RecordKey key;
      key.key.fill(9);
      key.iv.fill(8);
      const Bytes text{'t', 'e', 'x', 't'};
      const Bytes wire = seal_record(version, cipher, key, 5, RecordType::kAlert, text);
      REQUIRE_FALSE(wire.empty());
      const auto opened = open_record(version, cipher, key, 5, wire);
      REQUIRE(opened);
      CHECK(opened->type == RecordType::kAlert);
      CHECK(opened->bytes == text);
      CHECK_FALSE(open_record(version, cipher, key, 6, wire));
      for (size_t i = 0; i < wire.size(); ++i) {
        Bytes damaged = wire;
        damaged[i] ^= 1;
        CHECK_FALSE(open_record(version, cipher, key, 5, damaged));
      }
      for (size_t size = 0; size < wire.size(); ++size) {
        CHECK_FALSE(open_record(version, cipher, key, 5, std::span(wire).first(size)));
      }
    }
  }
}

TEST_CASE("a completed buffer is read") {
  Filled filled;
  auto piece = filled.parse();
  REQUIRE(piece);
  CHECK(piece->type == RecordType::kData);
  CHECK(piece->record_ends);
  CHECK(piece->offset == kMultishotOverhead);
  CHECK(Bytes(piece->bytes.begin(), piece->bytes.end()) == Bytes{1, 2, 3});
  filled.head.flags = 0;
  filled.type = 22;
  piece = filled.parse();
  REQUIRE(piece);
  CHECK(piece->type == RecordType::kHandshake);
  CHECK_FALSE(piece->record_ends);
}

TEST_CASE("the end of TCP is a piece of no type, an empty record is not") {
  Filled filled;
  filled.head = {};
  filled.payload.clear();
  auto piece = filled.parse();
  REQUIRE(piece);
  CHECK(piece->type == RecordType::kNone);
  CHECK(piece->bytes.empty());
  filled.head.controllen = kRecordControlSize;
  piece = filled.parse();
  REQUIRE(piece);
  CHECK(piece->type == RecordType::kData);
}

TEST_CASE("a completed buffer that lies is malformed") {
  const auto code = [](const Filled& filled) {
    const auto piece = filled.parse();
    return piece ? Errc::kOk : piece.error().code;
  };
  Filled filled;
  filled.head.payloadlen = 4;
  CHECK(code(filled) == Errc::kMalformed);
  filled.head.payloadlen = 0xffffffff;
  CHECK(code(filled) == Errc::kMalformed);
  filled = {};
  filled.head.namelen = 1;
  CHECK(code(filled) == Errc::kMalformed);
  filled = {};
  filled.head.controllen = kRecordControlSize + 1;
  CHECK(code(filled) == Errc::kMalformed);
  filled.head.controllen = CMSG_LEN(1) - 1;
  CHECK(code(filled) == Errc::kMalformed);
  filled.head.controllen = 0;  // bytes without a type: no receive keys
  CHECK(code(filled) == Errc::kMalformed);
  filled = {};
  filled.head.flags = MSG_CTRUNC;
  CHECK(code(filled) == Errc::kMalformed);
  filled = {};
  filled.level = SOL_SOCKET;
  CHECK(code(filled) == Errc::kMalformed);
  filled = {};
  filled.name = TLS_SET_RECORD_TYPE;
  CHECK(code(filled) == Errc::kMalformed);
  for (const int type : {0, 20, 24, 25, 255}) {
    filled = {};
    filled.type = static_cast<uint8_t>(type);
    CHECK(code(filled) == Errc::kMalformed);
  }
}

TEST_CASE("a result that does not fit the buffer is malformed, a negative one an error") {
  const Bytes bytes = Filled().bytes();
  const auto size = static_cast<int32_t>(bytes.size());
  CHECK(parse_multishot(bytes, size));
  CHECK_FALSE(parse_multishot(bytes, size + 1));
  CHECK_FALSE(parse_multishot(bytes, static_cast<int32_t>(kMultishotOverhead) - 1));
  CHECK_FALSE(parse_multishot(bytes, 0));
  const auto failed = parse_multishot(bytes, -ECONNRESET);
  REQUIRE_FALSE(failed);
  CHECK(failed.error().code == Errc::kReset);
}

TEST_CASE("a typed record says its type and goes on after a short send") {
  const AlertBytes bye = alert_bytes(Alert::kCloseNotify);
  CHECK(bye == AlertBytes{1, 0});
  CHECK(alert_bytes(Alert::kBadRecordMac) == AlertBytes{2, 20});
  TypedRecord record(RecordType::kAlert, bye);
  const msghdr& message = record.message();
  const cmsghdr* control = CMSG_FIRSTHDR(&message);
  REQUIRE(control != nullptr);
  CHECK(control->cmsg_level == SOL_TLS);
  CHECK(control->cmsg_type == TLS_SET_RECORD_TYPE);
  CHECK(control->cmsg_len == CMSG_LEN(1));
  CHECK(*CMSG_DATA(control) == 21);
  REQUIRE(message.msg_iovlen == 1);
  CHECK(message.msg_iov[0].iov_len == 2);
  record.advance(1);
  CHECK(message.msg_iov[0].iov_base == &bye[1]);
  CHECK(message.msg_iov[0].iov_len == 1);
  record.advance(100);
  CHECK(message.msg_iov[0].iov_len == 0);
}

TEST_CASE("alerts") {
  const auto parse = [](RecordType type, const Bytes& bytes) {
    return parse_alert({.type = type, .record_ends = true, .offset = 0, .bytes = bytes});
  };
  CHECK(parse(RecordType::kAlert, {1, 0}) == AlertMeaning::kCloseNotify);
  CHECK(parse(RecordType::kAlert, {2, 40}) == AlertMeaning::kOther);
  CHECK_FALSE(parse(RecordType::kAlert, {1}));
  CHECK_FALSE(parse(RecordType::kAlert, {1, 0, 1, 0}));
  CHECK_FALSE(parse(RecordType::kData, {1, 0}));
}

TEST_CASE("what an error of a receive means") {
  using Kind = ReceiveFault::Kind;
  CHECK(receive_fault(EBADMSG).kind == Kind::kBadRecord);
  CHECK(receive_fault(EBADMSG).alert == Alert::kBadRecordMac);
  CHECK(receive_fault(EMSGSIZE).alert == Alert::kRecordOverflow);
  CHECK(receive_fault(EINVAL).alert == Alert::kUnexpectedMessage);
  CHECK(receive_fault(EINVAL).error.code == Errc::kMalformed);
  CHECK(receive_fault(EKEYEXPIRED).kind == Kind::kNeedsKeys);
  CHECK(receive_fault(ECONNRESET).kind == Kind::kSocket);
  CHECK(receive_fault(ECONNRESET).error.code == Errc::kReset);
}

TEST_CASE("KeyUpdate is found, however it is cut") {
  for (const bool asks : {false, true}) {
    const Bytes message{24, 0, 0, 1, static_cast<uint8_t>(asks ? 1 : 0)};
    const Event expected = asks ? Event::kKeyUpdateRequested : Event::kKeyUpdate;
    for (size_t cut = 0; cut < message.size(); ++cut) {
      PostHandshake reader(Role::kServer);
      const Bytes head(message.begin(), message.begin() + static_cast<std::ptrdiff_t>(cut));
      const Bytes tail(message.begin() + static_cast<std::ptrdiff_t>(cut), message.end());
      if (cut > 0) {
        CHECK(reader.feed(handshake_piece(head, false)) == Event::kNothing);
        CHECK(reader.inside_message());
      }
      CHECK(reader.feed(handshake_piece(tail)) == expected);
      CHECK_FALSE(reader.inside_message());
      CHECK(reader.updates() == 1);
    }
  }
}

TEST_CASE("handshake messages that must not come") {
  const auto code = [](Role role, const ReceivedPiece& piece) {
    PostHandshake reader(role);
    const auto event = reader.feed(piece);
    return event ? Errc::kOk : event.error().code;
  };
  const Bytes update{24, 0, 0, 1, 0};
  CHECK(code(Role::kServer, handshake_piece({1, 0, 0, 1, 0})) == Errc::kMalformed);
  CHECK(code(Role::kServer, handshake_piece({4, 0, 0, 1, 0})) == Errc::kMalformed);
  CHECK(code(Role::kClient, handshake_piece({4, 0, 0, 1, 0})) == Errc::kOk);
  CHECK(code(Role::kClient, handshake_piece({4, 0, 0, 0})) == Errc::kMalformed);
  CHECK(code(Role::kClient, handshake_piece({4, 1, 0, 1})) == Errc::kLimit);
  CHECK(code(Role::kServer, handshake_piece({24, 0, 0, 2, 0, 0})) == Errc::kMalformed);
  CHECK(code(Role::kServer, handshake_piece({24, 0, 0, 1, 2})) == Errc::kMalformed);
  CHECK(code(Role::kServer, handshake_piece({24, 0, 0, 1, 0, 24})) == Errc::kMalformed);
  CHECK(code(Role::kServer, handshake_piece(update, false)) == Errc::kMalformed);
  CHECK(code(Role::kServer, handshake_piece({})) == Errc::kMalformed);
  ReceivedPiece data = handshake_piece(update);
  data.type = RecordType::kData;
  CHECK(code(Role::kServer, data) == Errc::kMalformed);
}

TEST_CASE("updates are limited") {
  PostHandshake reader(Role::kServer);
  const Bytes update{24, 0, 0, 1, 0};
  for (uint32_t i = 0; i < PostHandshake::kUpdatesMax; ++i) {
    CHECK(reader.feed(handshake_piece(update)) == Event::kKeyUpdate);
  }
  const auto more = reader.feed(handshake_piece(update));
  REQUIRE_FALSE(more);
  CHECK(more.error().code == Errc::kLimit);
}

TEST_CASE("tickets are passed over, with KeyUpdate behind them in a record of its own") {
  PostHandshake reader(Role::kClient);
  Bytes two{4, 0, 0, 10};
  two.resize(14, 24);  // a body that looks like KeyUpdate
  two.insert(two.end(), {4, 0, 1, 0});
  two.resize(18 + 256, 24);
  for (size_t at = 0; at < two.size(); at += 7) {
    const size_t size = std::min<size_t>(7, two.size() - at);
    const auto begin = two.begin() + static_cast<std::ptrdiff_t>(at);
    CHECK(reader.feed(handshake_piece({begin, begin + static_cast<std::ptrdiff_t>(size)})) ==
          Event::kNothing);
  }
  CHECK_FALSE(reader.inside_message());
  CHECK(reader.feed(handshake_piece({24, 0, 0, 1, 1})) == Event::kKeyUpdateRequested);
}

TEST_CASE("a kernel without TLS is told from one with it") {
  // Whatever this kernel has, the answer must be consistent; test/ktls/run checks it in machines
  // whose kernels are known.
  const KernelSupport support = KernelSupport::probe();
  CHECK(support.present == (support.os == 0));
  CHECK_FALSE(support.lines().empty());
  CHECK_FALSE(support.release.empty());
  for (const uint16_t version : KernelSupport::kVersions) {
    for (const KernelCipher cipher : KernelSupport::kCiphers) {
      if (!support.present) CHECK_FALSE(support.can(version, cipher));
    }
  }
  CHECK_FALSE(support.can(0x0302, KernelCipher::kAes128Gcm));
}
