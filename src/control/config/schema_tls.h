// The rows of the schema about TLS, to clients and to upstreams; included by schema.cc only.
#pragma once

#include <array>

#include <weir/control/config/config.h>

#include "binding.h"
#include "custom_settings.h"
#include "syntax.h"
#include "tls_names.h"

namespace weir::control::config {

inline constexpr std::array kCertificate = {
    Setting{.key = "hostname",
            .aliases = "hostnames",
            .form = "name or list of names",
            .doc = "Names that it is for, `\"example.com\"` or `\"*.example.com\"` (one label in "
                   "place of the star). Default: those that the certificate itself names.",
            .read = read_hostnames},
    bind<&CertificateFiles::is_default>(
        {.key = "default",
         .type = ValueType::kBool,
         .fallback = "false",
         .doc = "Also for clients that name no host, or one that no certificate is for, as that of "
                "`[tls] cert_path` is. Without any default such clients are refused."}),
    bind<&CertificateFiles::cert_path>(
        {.key = "cert_path",
         .type = ValueType::kString,
         .doc = "As in `[tls]`. Required. Several entries may be for the same name if their keys "
                "are of different types (ECDSA, RSA); the client decides.",
         .check = check_file_path}),
    bind<&CertificateFiles::key_path>({.key = "key_path",
                                       .type = ValueType::kString,
                                       .doc = "As in `[tls]`.",
                                       .check = check_file_path}),
    bind<&CertificateFiles::key_passphrase_file>({.key = "key_passphrase_file",
                                                  .type = ValueType::kString,
                                                  .doc = "As in `[tls]`.",
                                                  .check = check_file_path}),
    bind<&CertificateFiles::ocsp_response_path>({.key = "ocsp_response_path",
                                                 .type = ValueType::kString,
                                                 .doc = "As in `[tls]`.",
                                                 .check = check_file_path}),
};

inline constexpr std::array kTlsSettings = {
    bind<&TlsSettings::cert_path>(
        {.key = "cert_path",
         .type = ValueType::kString,
         .doc = "PEM file of the default certificate and the chain behind it. It serves the names "
                "that it carries, and clients that name no host or an unknown one. A changed file "
                "is taken up like a changed configuration.",
         .check = check_file_path}),
    bind<&TlsSettings::key_path>({.key = "key_path",
                                  .type = ValueType::kString,
                                  .doc = "PEM file of its private key. Default: in `cert_path`.",
                                  .check = check_file_path}),
    bind<&TlsSettings::key_passphrase_file>(
        {.key = "key_passphrase_file",
         .type = ValueType::kString,
         .doc = "File whose first line opens the encrypted key in `key_path`.",
         .check = check_file_path}),
    bind<&TlsSettings::ocsp_response_path>(
        {.key = "ocsp_response_path",
         .type = ValueType::kString,
         .doc = "File of an OCSP response (DER) to staple to the certificate.",
         .check = check_file_path}),
    Setting{.key = "certificates",
            .form = "list of tables",
            .doc = "Further certificates, see `[[tls.certificates]]`.",
            .read = read_certificates},
    bind<&TlsSettings::min_version>({.key = "min_version",
                                     .type = ValueType::kChoice,
                                     .fallback = "1.2",
                                     .choices = "1.2 1.3",
                                     .doc = "Lowest version of TLS that is spoken."}),
    bind<&TlsSettings::max_version>({.key = "max_version",
                                     .type = ValueType::kChoice,
                                     .fallback = "1.3",
                                     .choices = "1.2 1.3",
                                     .doc = "Highest version of TLS that is spoken."}),
    Setting{.key = "ciphers",
            .fallback = kDefaultCiphers,
            .form = "list of names, or one string with `:` between them",
            .doc = "Cipher suites of TLS 1.2, in order of preference, by OpenSSL's or the RFC's "
                   "name. The default is Mozilla's \"intermediate\" without DHE.",
            .read = read_ciphers},
    Setting{.key = "ciphersuites",
            .fallback = kDefaultCiphersuites,
            .form = "list of names, or one string with `:` between them",
            .doc = "Cipher suites of TLS 1.3, likewise.",
            .read = read_ciphersuites},
    Setting{.key = "groups",
            .fallback = kDefaultGroups,
            .aliases = "curves",
            .form = "list of names, or one string with `:` between them",
            .doc = "Groups for the key exchange, in order of preference: `X25519`, `P-256`, "
                   "`P-384`, `P-521`, `X448`; with OpenSSL 3.5 also `X25519MLKEM768` and "
                   "`SecP256r1MLKEM768`.",
            .read = read_groups},
    Setting{.key = "alpn",
            .fallback = kHttp11,
            .form = "protocol or list of protocols",
            .doc = "Protocols that clients are offered (`\"http/1.1\"`: and HTTP/1.0). An empty "
                   "list: ALPN is not spoken. "
                   "`\"h2\"` comes with the HTTP/2 release.",
            .read = read_alpn},
    bind<&TlsSettings::handshake_timeout>(
        {.key = "handshake_timeout",
         .type = ValueType::kDuration,
         .fallback = "10s",
         .minimum = 1,
         .maximum = 10 * 60'000,
         .doc = "From the accepted connection to the end of its handshake; then it is closed."}),
    bind<&TlsSettings::session_tickets>(
        {.key = "session_tickets",
         .type = ValueType::kBool,
         .fallback = "true",
         .doc = "Give clients tickets with which they resume without a full handshake. There is "
                "no other resumption. Early data (0-RTT) is not accepted."}),
    bind<&TlsSettings::session_lifetime>({.key = "session_lifetime",
                                          .type = ValueType::kDuration,
                                          .fallback = "1d",
                                          .minimum = 1000,
                                          .maximum = 7 * 86'400'000,
                                          .doc = "How long a ticket can be used. Not more than 7 "
                                                 "times `ticket_rotation`.",
                                          .check = check_whole_seconds}),
    Setting{.key = "ticket_key_files",
            .form = "file or list of files",
            .doc = "Files of 48 or 80 random bytes (as nginx and HAProxy have them) to share "
                   "tickets with other machines: the first seals, all open, at most 8. Default: "
                   "weir makes keys of its own, and forgets them when it ends.",
            .read = read_ticket_key_files},
    bind<&TlsSettings::ticket_rotation>({.key = "ticket_rotation",
                                         .type = ValueType::kDuration,
                                         .fallback = "12h",
                                         .minimum = 60'000,
                                         .maximum = 30 * int64_t{86'400'000},
                                         .doc = "How often weir makes itself a new ticket key. Old "
                                                "ones are kept for `session_lifetime`."}),
    bind<&TlsSettings::ktls_enabled>(
        {.key = "ktls_enabled",
         .type = ValueType::kBool,
         .fallback = "true",
         .doc = "Hand the records of finished handshakes to the kernel (kTLS), for clients and "
                "upstreams."}),
    bind<&TlsSettings::ktls_fallback_enabled>(
        {.key = "ktls_fallback_enabled",
         .type = ValueType::kBool,
         .fallback = "true",
         .doc = "Where the kernel cannot: `true` keeps the records in weir, `false` refuses the "
                "connection, and the start if the kernel has no TLS at all."}),
    bind<&TlsSettings::client_auth>(
        {.key = "client_auth",
         .type = ValueType::kChoice,
         .fallback = "off",
         .choices = "off optional required",
         .doc = "Ask clients for a certificate. `\"optional\"` lets in those that have none; one "
                "that does not verify ends the handshake in both."}),
    bind<&TlsSettings::client_ca_path>(
        {.key = "client_ca_path",
         .type = ValueType::kString,
         .doc = "PEM file of the CAs that client certificates have to come from. Required with "
                "`client_auth`.",
         .check = check_file_path}),
    bind<&TlsSettings::client_crl_path>(
        {.key = "client_crl_path",
         .type = ValueType::kString,
         .doc = "PEM file of revocation lists. Then every CA of a client's chain needs a current "
                "one.",
         .check = check_file_path}),
    bind<&TlsSettings::client_verify_depth>(
        {.key = "client_verify_depth",
         .type = ValueType::kInteger,
         .fallback = "4",
         .minimum = 1,
         .maximum = 16,
         .doc = "Longest chain of a client certificate, as OpenSSL counts its depth."}),
    bind<&TlsSettings::client_cert_headers>(
        {.key = "client_cert_headers",
         .type = ValueType::kBool,
         .fallback = "false",
         .doc =
             "Tell upstreams about the client's certificate: `X-Client-Cert-Verify` (`SUCCESS` or "
             "`NONE`), `-Subject`, `-Issuer`, `-SAN` and `-Fingerprint` (SHA-256). Such fields "
             "that clients send are removed then, on every listener."}),
};

// Of an [upstream.NAME] only.
inline constexpr std::array kUpstreamTls = {
    bind<&UpstreamSettings::tls>(
        {.key = "tls",
         .type = ValueType::kBool,
         .fallback = "false",
         .doc = "Speak TLS to the servers. Writing all of them as `\"https://HOST[:PORT]\"` does "
                "the same."}),
    bind<&UpstreamSettings::tls_server_name>(
        {.key = "tls_server_name",
         .type = ValueType::kString,
         .doc = "Name that the servers' certificates have to carry, also sent as SNI. Default: the "
                "name or IP address in the server's own address.",
         .check = check_server_name}),
};

// Of [upstream_defaults] and [upstream.NAME].
inline constexpr std::array kUpstreamTlsDefaults = {
    bind<&UpstreamSettings::tls_verify>(
        {.key = "tls_verify",
         .type = ValueType::kBool,
         .fallback = "true",
         .doc = "Check the certificates of servers with TLS. `false` leaves the connection open to "
                "anybody in between."}),
    bind<&UpstreamSettings::tls_ca_path>(
        {.key = "tls_ca_path",
         .type = ValueType::kString,
         .doc = "PEM file of the CAs that they have to come from. Default: those of the system.",
         .check = check_file_path}),
    bind<&UpstreamSettings::tls_cert_path>(
        {.key = "tls_cert_path",
         .type = ValueType::kString,
         .doc = "PEM file of the certificate (and its chain) for servers that ask for one.",
         .check = check_file_path}),
    bind<&UpstreamSettings::tls_key_path>(
        {.key = "tls_key_path",
         .type = ValueType::kString,
         .doc = "PEM file of its key. Default: in `tls_cert_path`.",
         .check = check_file_path}),
    bind<&UpstreamSettings::tls_min_version>({.key = "tls_min_version",
                                              .type = ValueType::kChoice,
                                              .fallback = "1.2",
                                              .choices = "1.2 1.3",
                                              .doc = "Lowest version of TLS to speak to servers."}),
};

}  // namespace weir::control::config
