// What a Library holds. Private to net/tls.
#pragma once

#include <array>

#include <weir/net/tls/library.h>

#include "openssl.h"

namespace weir::net::tls {

struct Library::State {
  State();

  OwnedLibrary context;
  // Reads from and writes to the Session that drives it: no memory BIO, hence no copy more.
  OwnedBioMethod session_bio;
  Owned<EVP_CIPHER, EVP_CIPHER_free> ticket_aes128;
  Owned<EVP_CIPHER, EVP_CIPHER_free> ticket_aes256;
  Owned<EVP_KDF, EVP_KDF_free> tls12_prf;
  std::array<char, 16 * 1024> gather;  // joins small pieces to one record
};

}  // namespace weir::net::tls
