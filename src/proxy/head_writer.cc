#include "head_writer.h"

#include <weir/base/text.h>
#include <weir/http/h1/writer.h>

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

}  // namespace

void write_request_head(ByteWriter& out, const http::RequestHead& request,
                        const route::Rewrite& path, std::string_view host, bool chunked,
                        const ForwardedFacts& facts) noexcept {
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
  for (const Field& field : request.fields) {
    if (field.hop_by_hop) continue;
    if (field.known != KnownField::kOther && replaced_in_request(field, facts)) continue;
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
  append_via(out, request.minor_version, *facts.settings);
  out.append("\r\n");
}

void write_response_head(ByteWriter& out, const http::ResponseHead& response, bool chunked,
                         bool with_length, Persistence persistence, const Settings& settings,
                         std::string_view date) noexcept {
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
  if (persistence == Persistence::kSayClose) {
    out.append("Connection: close\r\n");
  } else if (persistence == Persistence::kSayKeepAlive) {
    out.append("Connection: keep-alive\r\n");
  }
  out.append("\r\n");
}

void write_interim_head(ByteWriter& out, const http::ResponseHead& response,
                        const Settings& settings) noexcept {
  http::h1::append_status_line(out, response.status, response.reason);
  for (const Field& field : response.fields) {
    if (field.hop_by_hop || field.known == KnownField::kContentLength) continue;
    append_field(out, field.name, field.value);
  }
  append_via(out, response.minor_version, settings);
  out.append("\r\n");
}

}  // namespace weir::proxy
