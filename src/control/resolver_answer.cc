#include "resolver_answer.h"

#include <algorithm>
#include <cstring>

namespace weir::control {

namespace {

constexpr size_t kHeaderBytes = 12;
constexpr size_t kNameBytesMax = 255;  // RFC 1035, 2.3.4
constexpr int kPointersMax = 64;
constexpr int kAliasesMax = 16;
constexpr uint16_t kClassInternet = 1;

struct Record {
  std::string owner;
  uint16_t type = 0;
  uint32_t ttl_s = 0;
  size_t data = 0;  // where it begins
  size_t length = 0;
};

class Reader {
 public:
  explicit Reader(std::span<const uint8_t> message) : message_(message) {}

  bool seek(size_t at) {
    if (at > message_.size()) return false;
    at_ = at;
    return true;
  }
  [[nodiscard]] size_t at() const { return at_; }
  bool u16(uint16_t& out) {
    if (message_.size() - at_ < 2) return false;
    out = static_cast<uint16_t>(message_[at_] << 8 | message_[at_ + 1]);
    at_ += 2;
    return true;
  }
  bool u32(uint32_t& out) {
    uint16_t high = 0;
    uint16_t low = 0;
    if (!u16(high) || !u16(low)) return false;
    out = static_cast<uint32_t>(high) << 16 | low;
    return true;
  }
  // Lowercase. Bytes that no host name has become '?', which no name that we ask for has.
  bool name(std::string& out) {
    out.clear();
    size_t at = at_;
    bool jumped = false;
    for (int pointers = 0;;) {
      if (at >= message_.size()) return false;
      const uint8_t length = message_[at];
      if ((length & 0xc0) == 0xc0) {
        if (at + 1 >= message_.size() || ++pointers > kPointersMax) return false;
        if (!jumped) at_ = at + 2;
        jumped = true;
        at = static_cast<size_t>(length & 0x3f) << 8 | message_[at + 1];
        continue;
      }
      if (length > 63 || message_.size() - at <= length) return false;
      if (length == 0) break;
      if (out.size() + length + 1 > kNameBytesMax) return false;
      if (!out.empty()) out += '.';
      for (size_t i = at + 1; i <= at + length; ++i) out += letter(message_[i]);
      at += length + 1u;
    }
    if (!jumped) at_ = at + 1;
    return true;
  }
  bool record(Record& out) {
    uint16_t in_class = 0;
    uint16_t length = 0;
    if (!name(out.owner) || !u16(out.type) || !u16(in_class)) return false;
    if (!u32(out.ttl_s) || !u16(length)) return false;
    if ((out.ttl_s & 0x8000'0000) != 0) out.ttl_s = 0;  // RFC 2181, 8
    out.data = at_;
    out.length = length;
    if (in_class != kClassInternet) out.type = 0;
    return seek(at_ + length);
  }

 private:
  static char letter(uint8_t byte) {
    if (byte >= 'A' && byte <= 'Z') return static_cast<char>(byte + 32);
    if (byte <= ' ' || byte >= 0x7f || byte == '.') return '?';
    return static_cast<char>(byte);
  }
  std::span<const uint8_t> message_;
  size_t at_ = 0;
};

bool add_address(std::span<const uint8_t> data, RecordType type, DnsRecords& out) {
  if (data.size() != (type == RecordType::kA ? 4u : 16u)) return false;
  base::IpAddress address;
  if (type == RecordType::kAaaa) {
    std::copy(data.begin(), data.end(), address.bytes.begin());
  } else {
    uint32_t value = 0;
    for (const uint8_t byte : data) value = value << 8 | byte;
    address = base::IpAddress::from_v4(value);
  }
  out.addresses.push_back(address);
  return true;
}

bool add_target(Reader& reader, const Record& record, DnsRecords& out) {
  SrvTarget target;
  if (!reader.seek(record.data)) return false;
  if (!reader.u16(target.priority) || !reader.u16(target.weight) || !reader.u16(target.port)) {
    return false;
  }
  if (!reader.name(target.name) || reader.at() != record.data + record.length) return false;
  out.targets.push_back(std::move(target));
  return true;
}

// Follows the aliases from `name`; false: they lead in a circle, or are not names.
bool follow_aliases(Reader& reader, const std::vector<Record>& records, std::string& name,
                    uint32_t& ttl_s) {
  for (int aliases = 0;; ++aliases) {
    const auto alias = std::ranges::find_if(records, [&](const Record& record) {
      return record.type == static_cast<uint16_t>(RecordType::kCname) && record.owner == name;
    });
    if (alias == records.end()) return true;
    if (aliases == kAliasesMax) return false;
    if (!reader.seek(alias->data) || !reader.name(name)) return false;
    if (reader.at() != alias->data + alias->length) return false;
    ttl_s = std::min(ttl_s, alias->ttl_s);
  }
}

}  // namespace

std::optional<DnsRecords> parse_dns_answer(std::span<const uint8_t> message, RecordType type) {
  Reader reader(message);
  uint16_t questions = 0;
  uint16_t answers = 0;
  if (message.size() < kHeaderBytes || !reader.seek(4)) return std::nullopt;
  if (!reader.u16(questions) || !reader.u16(answers) || questions != 1) return std::nullopt;
  std::string name;
  if (!reader.seek(kHeaderBytes) || !reader.name(name)) return std::nullopt;
  if (!reader.seek(reader.at() + 4)) return std::nullopt;
  std::vector<Record> records;
  for (uint16_t i = 0; i < answers; ++i) {
    if (!reader.record(records.emplace_back())) return std::nullopt;
  }
  DnsRecords found;
  if (!follow_aliases(reader, records, name, found.ttl_s)) return std::nullopt;
  for (const Record& record : records) {
    if (record.type != static_cast<uint16_t>(type) || record.owner != name) continue;
    const bool good = type == RecordType::kSrv
                          ? add_target(reader, record, found)
                          : add_address(message.subspan(record.data, record.length), type, found);
    if (!good) return std::nullopt;
    found.ttl_s = std::min(found.ttl_s, record.ttl_s);
  }
  return found;
}

std::optional<DnsQuestion> parse_dns_question(std::span<const uint8_t> message) {
  Reader reader(message);
  DnsQuestion question;
  uint16_t flags = 0;
  uint16_t questions = 0;
  if (message.size() < kHeaderBytes || !reader.seek(2)) return std::nullopt;
  if (!reader.u16(flags) || !reader.u16(questions) || questions != 1) return std::nullopt;
  if (!reader.seek(kHeaderBytes) || !reader.name(question.name)) return std::nullopt;
  if (!reader.u16(question.type)) return std::nullopt;
  question.rcode = static_cast<uint8_t>(flags & 0xf);
  return question;
}

std::string to_host_name(std::string_view text) {
  constexpr size_t kTextMax = 253;
  if (text.ends_with('.')) text.remove_suffix(1);
  if (text.empty() || text.size() > kTextMax) return {};
  std::string name;
  size_t label = 0;
  for (const char c : text) {
    const bool upper = c >= 'A' && c <= 'Z';
    const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    if (!upper && !plain && c != '.') return {};
    label = c == '.' ? 0 : label + 1;
    if (label > 63 || (c == '.' && (name.empty() || name.back() == '.'))) return {};
    name += upper ? static_cast<char>(c + 32) : c;
  }
  return name.back() == '.' ? std::string() : name;
}

}  // namespace weir::control
