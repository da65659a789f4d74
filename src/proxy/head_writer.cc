#include "head_writer.h"

#include <algorithm>

#include <weir/base/text.h>
#include <weir/http/h1/writer.h>

#include "client_connection.h"

namespace weir::proxy {

using base::ByteWriter;
using http::Field;
using http::KnownField;

namespace {

using http::h1::append_field;

// Fields of the client that are not passed on as they are: framing and Host are written anew, the
// others say who the client is, which is ours to say (unless a trusted proxy says it).
bool replaced_in_request(const Field& field, const ForwardedFacts& facts) noexcept {
  switch (field.known) {
    case KnownField::kHost:
    case KnownField::kContentLength:
    case KnownField::kTransferEncoding: return true;
    case KnownField::kXForwardedFor: return facts.settings->x_forwarded || !facts.client_trusted;
    case KnownField::kXForwardedProto:
    case KnownField::kXForwardedHost:
    case KnownField::kXForwardedPort:
    case KnownField::kXForwardedServer:
    case KnownField::kXRealIp: return !facts.client_trusted;
    case KnownField::kForwarded: return !facts.client_trusted;
    default: return false;
  }
}

// The fields that tell of the client's certificate, behind their common prefix.
constexpr std::string_view kCertificatePrefix = "x-client-cert-";
constexpr std::string_view kCertificateFields[] = {"verify", "subject", "issuer", "san",
                                                   "fingerprint"};

// `pattern` is in lower case. CGI-like origins take '_' for '-', so it counts as one.
bool same_name(std::string_view name, std::string_view pattern) noexcept {
  if (name.size() != pattern.size()) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    if ((name[i] == '_' ? '-' : base::to_lower(name[i])) != pattern[i]) return false;
  }
  return true;
}

bool names_certificate(std::string_view name) noexcept {
  constexpr size_t kPrefix = kCertificatePrefix.size();
  if (name.size() <= kPrefix || !same_name(name.substr(0, kPrefix), kCertificatePrefix)) {
    return false;
  }
  return std::ranges::any_of(kCertificateFields, [&](std::string_view field) {
    return same_name(name.substr(kPrefix), field);
  });
}

// What a certificate holds is its owner's choice: only printable ASCII passes, the rest is
// percent-encoded. The percent sign itself too, unless the value has been encoded before.
enum class Percent : uint8_t { kEncode, kKeep };
bool passes(char c, Percent percent) noexcept {
  return c >= 0x20 && c <= 0x7e && (c != '%' || percent == Percent::kKeep);
}

// How much of `value` is written: all of it, or what ends before the last comma that fits. Cut
// anywhere else, the rest of an element could be another's name ("DNS:admin.example" of
// "DNS:admin.example.evil").
std::string_view whole_elements(std::string_view value, Percent percent) noexcept {
  size_t written = 0;
  size_t elements_end = 0;
  bool escaped = false;  // RFC 2253: "\," belongs to a value
  for (size_t i = 0; i < value.size(); ++i) {
    if (value[i] == ',' && !escaped) elements_end = i;
    escaped = value[i] == '\\' && !escaped;
    written += passes(value[i], percent) ? 1 : 3;
    if (written > kCertificateValueBytesMax) return value.substr(0, elements_end);
  }
  return value;
}

void append_certificate_field(ByteWriter& out, std::string_view name, std::string_view value,
                              Percent percent) noexcept {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  out.append(name);
  out.append(": ");
  value = whole_elements(value, percent);
  size_t run = 0;
  for (size_t i = 0; i < value.size(); ++i) {
    if (passes(value[i], percent)) continue;
    const auto byte = static_cast<uint8_t>(value[i]);
    out.append(value.substr(run, i - run));
    out.append('%');
    out.append(kHex[byte >> 4]);
    out.append(kHex[byte & 15u]);
    run = i + 1;
  }
  out.append(value.substr(run));
  out.append("\r\n");
}

void append_certificate(ByteWriter& out, const ClientCertificate* certificate) noexcept {
  if (certificate == nullptr) {
    out.append("X-Client-Cert-Verify: NONE\r\n");
    return;
  }
  out.append("X-Client-Cert-Verify: SUCCESS\r\n");
  append_certificate_field(out, "X-Client-Cert-Subject", certificate->subject, Percent::kEncode);
  append_certificate_field(out, "X-Client-Cert-Issuer", certificate->issuer, Percent::kEncode);
  // net::tls::Session has encoded each name, commas and percent signs included.
  append_certificate_field(out, "X-Client-Cert-SAN", certificate->san, Percent::kKeep);
  append_certificate_field(out, "X-Client-Cert-Fingerprint", certificate->fingerprint,
                           Percent::kEncode);
}

void append_forwarded_for(ByteWriter& out, const http::RequestHead& request,
                          const ForwardedFacts& facts) noexcept {
  out.append("X-Forwarded-For: ");
  if (facts.client_trusted) {
    for (const Field& field : request.fields) {
      if (field.known != KnownField::kXForwardedFor || field.value.empty()) continue;
      out.append(field.value);
      out.append(", ");
    }
  }
  out.append(facts.client);
  out.append("\r\n");
}

void append_x_forwarded(ByteWriter& out, const http::RequestHead& request,
                        const ForwardedFacts& facts) noexcept {
  const http::FieldTable& fields = request.fields;
  const bool keep = facts.client_trusted;
  append_forwarded_for(out, request, facts);
  if (!keep || !fields.has(KnownField::kXForwardedProto)) {
    append_field(out, "X-Forwarded-Proto", facts.scheme);
  }
  if ((!keep || !fields.has(KnownField::kXForwardedHost)) && !request.authority.empty()) {
    append_field(out, "X-Forwarded-Host", request.authority);
  }
  if (!keep || !fields.has(KnownField::kXRealIp)) append_field(out, "X-Real-IP", facts.client);
}

// RFC 7239: IPv6 addresses in brackets and quotes.
void append_forwarded(ByteWriter& out, const http::RequestHead& request,
                      const ForwardedFacts& facts) noexcept {
  out.append("Forwarded: for=");
  if (facts.client_is_v6) out.append("\"[");
  out.append(facts.client);
  if (facts.client_is_v6) out.append("]\"");
  out.append(";proto=");
  out.append(facts.scheme);
  if (!request.authority.empty()) {
    out.append(";host=\"");
    out.append(request.authority);  // valid_host() lets no quote or backslash through
    out.append('"');
  }
  out.append("\r\n");
}

void append_via(ByteWriter& out, uint8_t minor_version, const Settings& settings) noexcept {
  if (settings.via.empty()) return;
  out.append(minor_version == 0 ? "Via: 1.0 " : "Via: 1.1 ");
  out.append(settings.via);
  out.append("\r\n");
}

void append_upgrade(ByteWriter& out, std::string_view protocol) noexcept {
  out.append("Connection: Upgrade\r\n");
  append_field(out, "Upgrade", protocol);
}

}  // namespace

void write_request_head(ByteWriter& out, const http::RequestHead& request,
                        const route::Rewrite& path, std::string_view host, bool chunked,
                        const ForwardedFacts& facts, std::string_view upgrade) noexcept {
  out.append(request.method_text);
  out.append(' ');
  out.append(path.prefix);
  out.append(path.rest);
  if (request.has_query) {
    out.append('?');
    out.append(request.query);
  }
  out.append(" HTTP/1.1\r\nHost: ");
  out.append(host);
  out.append("\r\n");
  const bool certificate_fields = facts.settings->client_cert_headers;
  for (const Field& field : request.fields) {
    if (field.hop_by_hop) continue;
    if (field.known == KnownField::kOther) {
      if (certificate_fields && names_certificate(field.name)) continue;
    } else if (replaced_in_request(field, facts)) {
      continue;
    }
    if (field.known == KnownField::kMaxForwards && request.method == http::Method::kOptions) {
      // RFC 9110 7.6.2; what is no number is left to the origin.
      if (const auto hops = base::parse_decimal(field.value); hops && *hops > 0) {
        append_field(out, field.name, *hops - 1);
        continue;
      }
    }
    append_field(out, field.name, field.value);
  }
  if (chunked) {
    out.append("Transfer-Encoding: chunked\r\n");
  } else if (request.framing == http::BodyFraming::kLength) {
    append_field(out, "Content-Length", request.content_length);
  }
  if (facts.settings->x_forwarded) append_x_forwarded(out, request, facts);
  if (facts.settings->forwarded) append_forwarded(out, request, facts);
  if (certificate_fields) append_certificate(out, facts.certificate);
  append_via(out, request.minor_version, *facts.settings);
  if (!upgrade.empty()) append_upgrade(out, upgrade);
  out.append("\r\n");
}

void write_response_head(ByteWriter& out, const http::ResponseHead& response, bool chunked,
                         bool with_length, Persistence persistence, const Settings& settings,
                         std::string_view date, std::string_view lines) noexcept {
  http::h1::append_status_line(out, response.status, response.reason);
  for (const Field& field : response.fields) {
    if (field.hop_by_hop || field.known == KnownField::kContentLength) continue;
    append_field(out, field.name, field.value);
  }
  if (!response.fields.has(KnownField::kDate)) append_field(out, "Date", date);
  if (chunked) {
    out.append("Transfer-Encoding: chunked\r\n");
  } else if (with_length) {
    append_field(out, "Content-Length", response.content_length);
  }
  append_via(out, response.minor_version, settings);
  out.append(lines);
  if (persistence == Persistence::kSayClose) {
    out.append("Connection: close\r\n");
  } else if (persistence == Persistence::kSayKeepAlive) {
    out.append("Connection: keep-alive\r\n");
  }
  out.append("\r\n");
}

namespace {

// All of it but the empty line at its end.
void append_interim_lines(ByteWriter& out, const http::ResponseHead& response,
                          const Settings& settings) noexcept {
  http::h1::append_status_line(out, response.status, response.reason);
  for (const Field& field : response.fields) {
    if (field.hop_by_hop || field.known == KnownField::kContentLength) continue;
    append_field(out, field.name, field.value);
  }
  append_via(out, response.minor_version, settings);
}

}  // namespace

void write_interim_head(ByteWriter& out, const http::ResponseHead& response,
                        const Settings& settings) noexcept {
  append_interim_lines(out, response, settings);
  out.append("\r\n");
}

void write_switching_head(ByteWriter& out, const http::ResponseHead& response,
                          std::string_view protocol, const Settings& settings,
                          std::string_view lines) noexcept {
  append_interim_lines(out, response, settings);
  out.append(lines);
  append_upgrade(out, protocol);
  out.append("\r\n");
}

}  // namespace weir::proxy
