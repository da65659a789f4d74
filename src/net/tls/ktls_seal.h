// TLS records made and opened with OpenSSL's ciphers: the other party of the kernel's self-test and
// of the tests in test/ktls. One record at a time, by whoever holds the keys; slow, and never used
// on a connection.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <weir/net/tls/kernel_keys.h>
#include <weir/net/tls/ktls.h>
#include <weir/net/tls/ktls_record.h>

namespace weir::net::tls {

struct OpenedRecord {
  RecordType type = RecordType::kNone;
  std::vector<uint8_t> bytes;
};

// A whole record on the wire. `key` is KernelTls::record_key() of the direction; with TLS 1.2 and
// GCM its last eight bytes of iv are this record's explicit nonce. Empty: OpenSSL refused.
std::vector<uint8_t> seal_record(uint16_t version, KernelCipher cipher, const RecordKey& key,
                                 uint64_t number, RecordType type, std::span<const uint8_t> bytes);

// The record that `wire` consists of; nothing if it is not one, or does not open.
std::optional<OpenedRecord> open_record(uint16_t version, KernelCipher cipher, const RecordKey& key,
                                        uint64_t number, std::span<const uint8_t> wire);

}  // namespace weir::net::tls
