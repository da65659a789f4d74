// The cipher suites, groups and protocols that a file may name, and their defaults. Constant data
// and pure functions. Only names: OpenSSL's list language ("HIGH:!aNULL") can let in what nobody
// meant, and silently leaves out what it does not know.
#pragma once

#include <expected>
#include <string>
#include <string_view>

#include <weir/net/tls/policy.h>

namespace weir::control::config {

inline constexpr std::string_view kDefaultCiphers = net::tls::kDefaultCiphers;
inline constexpr std::string_view kDefaultCiphersuites = net::tls::kDefaultCiphersuites;
inline constexpr std::string_view kDefaultGroups = net::tls::kDefaultGroups;
inline constexpr std::string_view kHttp11 = "http/1.1";

// Each takes one name and returns OpenSSL's name of it, or a complaint.
using NameLookup = std::expected<std::string_view, std::string> (*)(std::string_view name);
std::expected<std::string_view, std::string> find_cipher(std::string_view name);       // TLS 1.2
std::expected<std::string_view, std::string> find_ciphersuite(std::string_view name);  // TLS 1.3
std::expected<std::string_view, std::string> find_group(std::string_view name);
std::expected<std::string_view, std::string> find_protocol(std::string_view name);  // ALPN

}  // namespace weir::control::config
