#include "pem_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

namespace weir::net::tls {
namespace {

using OwnedFile = Owned<std::FILE, std::fclose>;

OwnedBio text_bio(const SecretBytes& text) {
  return OwnedBio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

bool ends_with_private_key(std::string_view name) { return name.ends_with("PRIVATE KEY"); }

// OpenSSL's callback type: the passphrase is in `context`.
int give_passphrase(char* buffer, int size, int /*writing*/, void* context) {
  const auto* passphrase = static_cast<const SecretBytes*>(context);
  if (passphrase == nullptr || passphrase->size() > static_cast<size_t>(size)) return -1;
  std::memcpy(buffer, passphrase->data(), passphrase->size());
  return static_cast<int>(passphrase->size());
}

}  // namespace

std::expected<SecretBytes, std::string> read_secret_file(const std::string& path,
                                                         size_t bytes_max) {
  const OwnedFile file(std::fopen(path.c_str(), "rbe"));
  if (file == nullptr) {
    return std::unexpected("cannot open " + path + ": " + std::strerror(errno));
  }
  std::setvbuf(file.get(), nullptr, _IONBF, 0);  // no second copy of a key in a buffer
  auto content = std::make_unique_for_overwrite<uint8_t[]>(bytes_max + 1);
  const size_t size = std::fread(content.get(), 1, bytes_max + 1, file.get());
  const int error = std::ferror(file.get()) != 0 ? errno : 0;
  SecretBytes bytes(std::span<const uint8_t>(content.get(), size));
  wipe(content.get(), size);
  if (error != 0) return std::unexpected("cannot read " + path + ": " + std::strerror(error));
  if (size > bytes_max) {
    return std::unexpected(path + " is larger than " + std::to_string(bytes_max) + " bytes");
  }
  return bytes;
}

std::expected<std::vector<PemBlock>, std::string> pem_blocks(const std::string& path,
                                                             const SecretBytes& text) {
  std::vector<PemBlock> blocks;
  const OwnedBio bio = text_bio(text);
  for (;;) {
    char* name = nullptr;
    char* header = nullptr;
    unsigned char* data = nullptr;
    long size = 0;
    if (PEM_read_bio(bio.get(), &name, &header, &data, &size) != 1) {
      const unsigned long error = ERR_peek_last_error();
      const bool at_end = ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
      std::string reason = take_error();
      if (at_end) return blocks;
      reason.insert(0, path + " is not valid PEM: ");
      return std::unexpected(std::move(reason));
    }
    PemBlock block;
    block.name = name;
    block.encrypted =
        block.name == "ENCRYPTED PRIVATE KEY" || std::strstr(header, "ENCRYPTED") != nullptr;
    block.der = SecretBytes({data, static_cast<size_t>(size)});
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_clear_free(data, static_cast<size_t>(size));
    blocks.push_back(std::move(block));
  }
}

std::expected<OwnedKey, std::string> read_private_key(OSSL_LIB_CTX* library,
                                                      const std::string& path,
                                                      const SecretBytes& text,
                                                      const SecretBytes* passphrase) {
  auto blocks = pem_blocks(path, text);
  if (!blocks) return std::unexpected(std::move(blocks.error()));
  const PemBlock* found = nullptr;
  for (const PemBlock& block : *blocks) {
    if (!ends_with_private_key(block.name)) continue;
    if (found != nullptr) return std::unexpected(path + " holds more than one private key");
    found = &block;
  }
  if (found == nullptr) return std::unexpected(path + " holds no private key");
  if (!found->encrypted) {
    const unsigned char* at = found->der.data();
    const long size = static_cast<long>(found->der.size());
    OwnedKey key(d2i_AutoPrivateKey_ex(nullptr, &at, size, library, nullptr));
    if (key == nullptr) {
      return std::unexpected("the private key in " + path + " cannot be parsed: " + take_error());
    }
    return key;
  }
  if (passphrase == nullptr) {
    return std::unexpected("the private key in " + path +
                           " is encrypted and no passphrase file is given");
  }
  const OwnedBio bio = text_bio(text);
  OwnedKey key(PEM_read_bio_PrivateKey_ex(bio.get(), nullptr, &give_passphrase,
                                          const_cast<SecretBytes*>(passphrase), library, nullptr));
  if (key == nullptr) {
    const std::string reason = take_error();
    return std::unexpected("the private key in " + path +
                           " does not open with the passphrase given: " + reason);
  }
  return key;
}

}  // namespace weir::net::tls
