// Kernel TLS: gives the record layer of an established connection to the kernel, changes its keys
// when the peer does, and finds out at start-up what the running kernel can. A KernelTls belongs to
// one core and is used on its thread only; KernelSupport is made once by the control thread and
// only read afterwards. Nothing here suspends, sends or receives on a live connection, and a secret
// never reaches a log. docs/KTLS.md has the rules of the hand-over and the facts behind them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <weir/base/result.h>
#include <weir/net/tls/kernel_keys.h>

struct ossl_lib_ctx_st;
struct evp_mac_ctx_st;

namespace weir::net::tls {

enum class Direction : uint8_t { kTx, kRx };  // what this side sends, what it receives

constexpr size_t kernel_key_size(KernelCipher cipher) noexcept {
  return cipher == KernelCipher::kAes128Gcm ? 16 : 32;
}
// The bytes of iv in a TLS 1.2 key block: GCM has the rest in every record, as explicit nonce.
constexpr size_t implicit_iv_size(KernelCipher cipher) noexcept {
  return cipher == KernelCipher::kChaCha20Poly1305 ? 12 : 4;
}
constexpr size_t suite_hash_size(SuiteHash hash) noexcept {
  return hash == SuiteHash::kSha256 ? 32 : 48;
}

// Key and full iv of the records of one direction, as the cipher uses them; wiped when it dies.
// With TLS 1.2 and GCM the last eight bytes of iv are the explicit nonce of the next record.
struct RecordKey {
  std::array<uint8_t, 32> key{};  // the first kernel_key_size() bytes
  std::array<uint8_t, 12> iv{};

  RecordKey() = default;
  RecordKey(const RecordKey&) = default;
  RecordKey& operator=(const RecordKey&) = default;
  ~RecordKey();
};

// Prepares a socket for keys. To be called right after accept or connect: once the peer has sent
// its FIN the kernel refuses it (ENOTCONN), while keys can still be set then. Until they are, the
// socket is plain TCP in both directions. False: this connection stays in userspace; `os` says why.
[[nodiscard]] bool attach_ulp(int fd, int32_t* os = nullptr) noexcept;

// TLS_RX_EXPECT_NO_PAD, with keys of TLS 1.3 for receiving: a third of the receiver's instructions
// less (docs/KTLS.md). Only where KernelSupport::no_pad says that it works. Where it is refused
// everything works as before.
void expect_no_pad(int fd) noexcept;
base::Result<bool> expects_no_pad(int fd) noexcept;

// The number of the next record of one direction, kept by the kernel: what proves in a test that
// the kernel did the records.
base::Result<uint64_t> read_record_sequence(int fd, Direction direction) noexcept;

class Library;

class KernelTls {
 public:
  // `library` is the core's own OpenSSL context (nullptr: the default one). The HMACs are fetched
  // here, once; deriving keys afterwards takes no lock.
  explicit KernelTls(ossl_lib_ctx_st* library) noexcept;
  explicit KernelTls(const Library& library) noexcept;
  ~KernelTls();
  KernelTls(const KernelTls&) = delete;
  KernelTls& operator=(const KernelTls&) = delete;

  // Puts the keys of one direction into the socket. kTx first: if that fails, nothing has changed
  // and userspace can go on; if kRx fails after it, only closing is left.
  // kUnsupported: this kernel, or this combination in it, does not do it, or keys are set already
  // and cannot be replaced (os says which: ENOENT, ENOPROTOOPT, EBUSY).
  base::Result<void> install(int fd, Direction direction, const KernelKeys& keys) noexcept;

  // The next keys of one direction, after KeyUpdate (TLS 1.3): the peer's was received (kRx), or
  // ours was sent (kTx). On success `keys` holds the new secret and record number 0; on failure it
  // is as it was. kUnsupported with EBUSY: a kernel before 6.14, the connection must be closed.
  base::Result<void> rekey(int fd, Direction direction, KernelKeys& keys) noexcept;

  // application_traffic_secret_N+1 of RFC 8446, 7.2, in place.
  [[nodiscard]] bool next_secret(SuiteHash hash, Secret<48>& secret) noexcept;

  // What install() gives to the kernel. False: the keys are not complete for their version.
  [[nodiscard]] bool record_key(const KernelKeys& keys, Direction direction,
                                RecordKey& out) noexcept;

  // HKDF-Expand-Label(secret, label, "", out.size()) of RFC 8446, 7.1; at most one hash length.
  [[nodiscard]] bool expand_label(SuiteHash hash, const Secret<48>& secret, std::string_view label,
                                  std::span<uint8_t> out) noexcept;

 private:
  std::array<evp_mac_ctx_st*, 2> macs_{};  // by SuiteHash
};

// What the running kernel can, found by doing it: records sealed by OpenSSL are opened by the
// kernel and the other way round, on sockets of its own on the loopback interface, for every
// version and cipher in both directions. Probing also makes the kernel load its modules, so that no
// connection waits for that later.
struct KernelSupport {
  struct Way {
    bool works = false;
    int32_t os = 0;           // the errno of what failed
    std::string_view failed;  // which step; empty if it works
  };
  struct Combination {
    Way tx;
    Way rx;
  };
  static constexpr std::array kVersions{kTls12, kTls13};
  static constexpr std::array kCiphers{KernelCipher::kAes128Gcm, KernelCipher::kAes256Gcm,
                                       KernelCipher::kChaCha20Poly1305};

  bool present = false;  // TCP_ULP "tls" can be attached
  int32_t os = 0;        // why not
  std::array<std::array<Combination, kCiphers.size()>, kVersions.size()> table{};
  Way rekey;  // new keys on a live TLS 1.3 socket, both directions
  // TLS_RX_EXPECT_NO_PAD, also with padded records among others: 6.12 puts the one behind a padded
  // one in the wrong place, and shows what was in the buffer before. Without it receiving only
  // costs more.
  Way no_pad;
  std::string release;  // uname -r
  // poll(2) reports half a record as readable (6.1): anything but a multishot receive would spin or
  // occupy a kernel worker.
  bool polls_half_records = false;

  // Runs the self-test; takes a few milliseconds, longer when modules have to be loaded.
  static KernelSupport probe();

  [[nodiscard]] const Combination& at(uint16_t version, KernelCipher cipher) const noexcept {
    return table[version == kTls13 ? 1 : 0][static_cast<size_t>(cipher)];
  }
  // Both directions of the combination work: connections with it may be handed over.
  [[nodiscard]] bool can(uint16_t version, KernelCipher cipher) const noexcept {
    return (version == kTls12 || version == kTls13) && at(version, cipher).tx.works &&
           at(version, cipher).rx.works;
  }
  [[nodiscard]] bool any() const noexcept;
  // For people, one fact a line: the summary first, then whatever does not work and why.
  [[nodiscard]] std::vector<std::string> lines() const;
};

}  // namespace weir::net::tls
