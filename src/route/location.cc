// The Location of redirects: the template is split when the snapshot is built, expanded per
// request.
#include <array>
#include <utility>

#include <weir/base/check.h>
#include <weir/route/match.h>

#include "check_spec.h"

namespace weir::route {
namespace {

using Kind = LocationPiece::Kind;

constexpr std::array<std::pair<std::string_view, Kind>, 5> kPlaceholders{{
    {"scheme", Kind::kScheme},
    {"host", Kind::kHost},
    {"path", Kind::kPath},
    {"query", Kind::kQuery},
    {"uri", Kind::kUri},
}};

bool is_control(char c) noexcept { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

// May stand in a URI as it is (RFC 3986 2.2, 2.3 and '%'). A backslash may not: browsers take it
// for a slash.
bool is_uri_byte(char c) noexcept {
  constexpr std::string_view kOthers = " \"<>\\^`{|}";
  return static_cast<unsigned char>(c) < 0x80 && !is_control(c) &&
         kOthers.find(c) == std::string_view::npos;
}

void append_safe(std::string_view text, std::string& out) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  for (char c : text) {
    if (is_uri_byte(c)) {
      out += c;
    } else if (!is_control(c)) {
      out += '%';
      out += kHex[static_cast<unsigned char>(c) >> 4];
      out += kHex[static_cast<unsigned char>(c) & 15];
    }
  }
}

void append_piece(const LocationPiece& piece, const RequestView& request, std::string& out) {
  switch (piece.kind) {
    case Kind::kLiteral: out += piece.text; return;
    case Kind::kScheme: append_safe(request.scheme, out); return;
    case Kind::kHost: append_safe(request.host, out); return;
    case Kind::kQuery: append_safe(request.query, out); return;
    case Kind::kPath: append_safe(request.path, out); return;
    case Kind::kUri:
      append_safe(request.path, out);
      if (!request.query.empty()) {
        out += '?';
        append_safe(request.query, out);
      }
      return;
  }
}

}  // namespace

bool parse_location(std::string_view text, std::vector<LocationPiece>& pieces,
                    std::string& message) {
  if (text.empty()) {
    message = "The redirect has no location.";
    return false;
  }
  while (!text.empty()) {
    const size_t start = text.find("${");
    const std::string_view literal = text.substr(0, start);
    for (char c : literal) {
      if (is_uri_byte(c)) continue;
      message = "The location holds a byte that must be percent-encoded.";
      return false;
    }
    if (!literal.empty()) pieces.push_back({Kind::kLiteral, literal});
    if (start == std::string_view::npos) break;
    const size_t end = text.find('}', start);
    if (end == std::string_view::npos) {
      message = "The location has a \"${\" without \"}\".";
      return false;
    }
    const std::string_view name = text.substr(start + 2, end - start - 2);
    bool known = false;
    for (const auto& [placeholder, kind] : kPlaceholders) {
      if (placeholder != name) continue;
      pieces.push_back({kind, {}});
      known = true;
    }
    if (!known) {
      message = "The location has the unknown placeholder \"${" + std::string(name) +
                "}\"; there are scheme, host, path, query and uri.";
      return false;
    }
    text.remove_prefix(end + 1);
  }
  // Such a location could be made to lead anywhere by whoever writes the link.
  if (pieces[0].kind == Kind::kQuery || pieces[0].kind == Kind::kHost) {
    message = "The location must not begin with ${query} or ${host}.";
    return false;
  }
  return true;
}

bool expand_location(const Route& route, const RequestView& request, std::string& out) {
  WEIR_CHECK(route.kind == ActionKind::kRedirect);
  const auto pieces = route.redirect->location;
  for (const LocationPiece& piece : pieces) {
    if (piece.kind == Kind::kHost && request.host.empty()) return false;
  }
  const size_t start = out.size();
  for (const LocationPiece& piece : pieces) append_piece(piece, request, out);
  // "//name" is a reference to another host. Only the template may mean that, a request may not.
  if (!pieces[0].text.starts_with("//")) {
    size_t slashes = 0;
    while (start + slashes < out.size() && out[start + slashes] == '/') ++slashes;
    if (slashes > 1) out.erase(start, slashes - 1);
  }
  return true;
}

}  // namespace weir::route
