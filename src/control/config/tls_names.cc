#include "tls_names.h"

#include <array>
#include <span>
#include <vector>

#include <weir/base/text.h>

#include "suggest.h"

namespace weir::control::config {

namespace {

struct Name {
  std::string_view openssl;
  std::string_view other;  // the RFC's, or empty
};

// Without DHE (slow, and no client of today needs it), without anything below 128 bits.
constexpr std::array kCiphers = {
    Name{"ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"},
    Name{"ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"},
    Name{"ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"},
    Name{"ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"},
    Name{"ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"},
    Name{"ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"},
    Name{"ECDHE-ECDSA-AES128-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256"},
    Name{"ECDHE-RSA-AES128-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256"},
    Name{"ECDHE-ECDSA-AES256-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384"},
    Name{"ECDHE-RSA-AES256-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384"},
    Name{"ECDHE-ECDSA-AES128-SHA", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"},
    Name{"ECDHE-RSA-AES128-SHA", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"},
    Name{"ECDHE-ECDSA-AES256-SHA", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA"},
    Name{"ECDHE-RSA-AES256-SHA", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA"},
    Name{"AES128-GCM-SHA256", "TLS_RSA_WITH_AES_128_GCM_SHA256"},
    Name{"AES256-GCM-SHA384", "TLS_RSA_WITH_AES_256_GCM_SHA384"},
    Name{"AES128-SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA256"},
    Name{"AES256-SHA256", "TLS_RSA_WITH_AES_256_CBC_SHA256"},
    Name{"AES128-SHA", "TLS_RSA_WITH_AES_128_CBC_SHA"},
    Name{"AES256-SHA", "TLS_RSA_WITH_AES_256_CBC_SHA"},
};

constexpr std::array kCiphersuites = {
    Name{"TLS_AES_128_GCM_SHA256", ""},
    Name{"TLS_AES_256_GCM_SHA384", ""},
    Name{"TLS_CHACHA20_POLY1305_SHA256", ""},
    Name{"TLS_AES_128_CCM_SHA256", ""},
};

// The last ones need OpenSSL 3.5, which then says so or takes them.
constexpr std::array kGroups = {
    Name{"X25519", ""},         Name{"P-256", "secp256r1"},    Name{"P-256", "prime256v1"},
    Name{"P-384", "secp384r1"}, Name{"P-521", "secp521r1"},    Name{"X448", ""},
    Name{"X25519MLKEM768", ""}, Name{"SecP256r1MLKEM768", ""},
};

std::string_view look_up(std::span<const Name> names, std::string_view name) noexcept {
  for (const Name& known : names) {
    if (known.openssl == name || (known.other == name && !name.empty())) return known.openssl;
  }
  return {};
}

std::string complaint(std::span<const Name> names, std::string_view name, std::string_view what) {
  std::vector<std::string_view> candidates;
  for (const Name& known : names) candidates.push_back(known.openssl);
  std::string message = quoted(name) + " is not " + std::string(what);
  if (const auto near = nearest(name, candidates); !near.empty()) {
    message.append("; did you mean ").append(quoted(near)).append("?");
  }
  return message;
}

}  // namespace

std::expected<std::string_view, std::string> find_cipher(std::string_view name) {
  if (const auto found = look_up(kCiphers, name); !found.empty()) return found;
  if (!look_up(kCiphersuites, name).empty()) {
    return std::unexpected(quoted(name) + " is a suite of TLS 1.3: it belongs to ciphersuites");
  }
  if (name.starts_with("DHE-") || name.starts_with("TLS_DHE_")) {
    return std::unexpected(quoted(name) + " is not spoken: weir has ECDHE, not DHE");
  }
  if (name.find_first_of("!+@") != std::string_view::npos || name.starts_with('-') ||
      has_word("ALL HIGH MEDIUM LOW DEFAULT COMPLEMENTOFALL ECDHE ECDSA EECDH RSA AESGCM CHACHA20 "
               "PROFILE=SYSTEM",
               name)) {
    return std::unexpected(quoted(name) + " is not the name of one suite; expressions such as " +
                           "\"HIGH:!aNULL\" are not taken");
  }
  return std::unexpected(complaint(kCiphers, name, "a cipher suite of TLS 1.2"));
}

std::expected<std::string_view, std::string> find_ciphersuite(std::string_view name) {
  if (const auto found = look_up(kCiphersuites, name); !found.empty()) return found;
  if (!look_up(kCiphers, name).empty()) {
    return std::unexpected(quoted(name) + " is a suite of TLS 1.2: it belongs to ciphers");
  }
  return std::unexpected(complaint(kCiphersuites, name, "a cipher suite of TLS 1.3"));
}

std::expected<std::string_view, std::string> find_group(std::string_view name) {
  if (const auto found = look_up(kGroups, name); !found.empty()) return found;
  return std::unexpected(complaint(kGroups, name, "a group such as \"X25519\" or \"P-256\""));
}

std::expected<std::string_view, std::string> find_protocol(std::string_view name) {
  if (name == kHttp11) return kHttp11;
  if (name == "h2" || name == "h3") {
    return std::unexpected(quoted(name) + " is not available yet: comes with the HTTP/" +
                           std::string(name.substr(1)) + " release");
  }
  return std::unexpected("must be \"http/1.1\", not " + quoted(name));
}

}  // namespace weir::control::config
