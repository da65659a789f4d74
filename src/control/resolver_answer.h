// Reads the answer section of a DNS message (RFC 1035, RFC 2782): the records of one type that the
// name in question leads to, over any aliases, and how long they hold. Pure; the bytes are a peer's
// and nothing about them is trusted. c-ares has parsers of its own, but none that tells the time to
// live of SRV records.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <weir/base/ip.h>

namespace weir::control {

enum class RecordType : uint16_t { kA = 1, kCname = 5, kAaaa = 28, kSrv = 33 };

struct SrvTarget {
  std::string name;  // lowercase, without the dot at the end; empty: "." (no service here)
  uint16_t port = 0;
  uint16_t priority = 0;
  uint16_t weight = 0;
};

struct DnsRecords {
  std::vector<base::IpAddress> addresses;  // of kA and kAaaa
  std::vector<SrvTarget> targets;          // of kSrv
  uint32_t ttl_s = UINT32_MAX;             // the smallest
};

// Empty: malformed. No records at all is an answer too.
std::optional<DnsRecords> parse_dns_answer(std::span<const uint8_t> message, RecordType type);

struct DnsQuestion {
  std::string name;  // lowercase
  uint16_t type = 0;
  uint8_t rcode = 0;  // of the answer that this message is
};
std::optional<DnsQuestion> parse_dns_question(std::span<const uint8_t> message);

// Lowercase and without the dot at the end; empty when this is no host name (letters, digits, `-`
// and `_` in labels of at most 63, at most 253 in all).
std::string to_host_name(std::string_view text);

}  // namespace weir::control
