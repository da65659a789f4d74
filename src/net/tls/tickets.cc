#include <weir/net/tls/tickets.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "pem_file.h"

namespace weir::net::tls {
namespace {

constexpr size_t kNameBytes = 16;
constexpr size_t kShortFile = 48;  // name, AES-128 key, HMAC key of 16
constexpr size_t kLongFile = 80;   // name, HMAC key of 32, AES-256 key

TicketKey parse(std::span<const uint8_t> bytes) noexcept {
  TicketKey key;
  const uint8_t* at = bytes.data();
  std::memcpy(key.name.data(), at, kNameBytes);
  at += kNameBytes;
  if (bytes.size() == kShortFile) {
    key.key_bytes = 16;
    std::memcpy(key.cipher_key.data(), at, 16);
    std::memcpy(key.mac_key.data(), at + 16, 16);
  } else {
    key.key_bytes = 32;
    std::memcpy(key.mac_key.data(), at, 32);
    std::memcpy(key.cipher_key.data(), at + 32, 32);
  }
  return key;
}

}  // namespace

TicketKeyRing::~TicketKeyRing() { wipe(keys_.data(), sizeof(keys_)); }

TicketKeyRing TicketKeyRing::rotated(std::span<const uint8_t, kSeedBytes> random,
                                     size_t previous_kept) const noexcept {
  TicketKeyRing next;
  static_assert(kSeedBytes == kLongFile);
  next.add(random);
  const size_t kept = std::min({previous_kept, size_, kKeysMax - 1});
  for (size_t i = 0; i < kept; ++i) next.keys_[next.size_++] = keys_[i];
  return next;
}

bool TicketKeyRing::add(std::span<const uint8_t> bytes) noexcept {
  if (bytes.size() != kShortFile && bytes.size() != kLongFile) return false;
  if (size_ == kKeysMax) return false;
  if (find(bytes.first<kNameBytes>()) != nullptr) return false;
  keys_[size_] = parse(bytes);
  ++size_;
  return true;
}

const TicketKey* TicketKeyRing::find(std::span<const uint8_t, 16> name) const noexcept {
  for (size_t i = 0; i < size_; ++i) {
    if (std::equal(name.begin(), name.end(), keys_[i].name.begin())) return &keys_[i];
  }
  return nullptr;
}

std::expected<TicketKeyRing, std::string> TicketKeyRing::load(std::span<const std::string> paths) {
  TicketKeyRing ring;
  if (paths.size() > kKeysMax) {
    return std::unexpected("there are " + std::to_string(paths.size()) +
                           " files of ticket keys, at most " + std::to_string(kKeysMax) +
                           " are used");
  }
  for (const std::string& path : paths) {
    auto content = read_secret_file(path, 4096);
    if (!content) return std::unexpected(std::move(content.error()));
    if (content->size() != kShortFile && content->size() != kLongFile) {
      return std::unexpected(path + " has " + std::to_string(content->size()) +
                             " bytes, a file of ticket keys has 48 or 80");
    }
    if (!ring.add(content->bytes())) {
      return std::unexpected("the name (first 16 bytes) of the ticket key in " + path +
                             " is that of an earlier file");
    }
  }
  return ring;
}

}  // namespace weir::net::tls
